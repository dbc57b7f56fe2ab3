"""Which setting stands for a choice: against a search by hand."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import polars as pl
import pytest

from rine_cache.errors import ResultsError
from rine_cache.evaluate import SCHEMA, evaluate
from rine_cache.setting_choice import choice_rows
from rine_cache.specs.encoding import EncoderSpec
from rine_cache.specs.training import ExperimentSpec
from tests.test_evaluate import BENCHMARK

SEEDS = (0, 1, 2)
METRICS = ("acc", "ap", "auc")
PROTOCOLS = {("bench", "one"): ("a",), ("bench", "two"): ("a", "b")}


def experiment(*widths: int) -> ExperimentSpec:
    methods = {
        "plain": {"head": {"kind": "rine"}},
        "best": {"head": {"kind": "rine"}, "grid": {"width": list(widths)}},
    }
    return ExperimentSpec.model_validate(
        {"encoder": "clip", "training_set": "progan", "seeds": list(SEEDS), "methods": methods}
    )


EXPERIMENT = experiment(8, 16, 32)
MEMBERS = EXPERIMENT.choices["best"]


def metrics_of(values: dict[tuple[str, int, str, str], float | None]) -> pl.DataFrame:
    """Make the rows of all methods; the value of a test set or mean is given by method, seed, protocol and metric."""
    rows = []
    for (benchmark, protocol), test_sets in PROTOCOLS.items():
        for method, seed, metric in itertools.product(EXPERIMENT.methods, SEEDS, METRICS):
            for test_set in (*test_sets, "mean"):
                row: dict[str, Any] = dict.fromkeys(SCHEMA.names())
                row |= {"benchmark": benchmark, "protocol": protocol, "method": method, "seed": seed}
                row |= {"metric": metric, "test_set": test_set, "oracle": False, "head_fingerprint": f"{method}-{seed}"}
                row |= {"note": "tuned", "value": values.get((method, seed, protocol, metric))}
                row |= {"ci_low": 0.1 * EXPERIMENT.method_ids.index(method), "ci_digest": "x", "replicates": b"r"}
                rows.append(row)
    return pl.DataFrame(rows, schema=SCHEMA)


def random_values(seed: int) -> dict[tuple[str, int, str, str], float | None]:
    rng = np.random.default_rng(seed)
    protocols = [protocol for _, protocol in PROTOCOLS]
    return {key: rng.random() for key in itertools.product(EXPERIMENT.methods, SEEDS, protocols, METRICS)}


@pytest.mark.parametrize("seed", range(5))
def test_validation_chooses_one_setting_and_each_protocol_its_oracle(seed: int) -> None:
    values = random_values(seed)
    losses = {(method, of): np.random.default_rng([seed, of]).random() for method in MEMBERS for of in SEEDS}
    losses = {key: loss + MEMBERS.index(key[0]) % 2 for key, loss in losses.items()}
    metrics = metrics_of(values)
    rows = choice_rows(metrics, EXPERIMENT, losses)
    assert rows.columns == metrics.columns

    chosen = min(MEMBERS, key=lambda method: sum(losses[method, of] for of in SEEDS))
    ours = rows.filter(method="best")
    assert ours.drop("method", "note").equals(metrics.filter(method=chosen).drop("method", "note"))
    assert set(ours["note"]) == {f"{chosen}, chosen on validation data among 3; tuned"}
    assert not ours["oracle"].any()

    for _, protocol in PROTOCOLS:
        best = max(
            MEMBERS,
            key=lambda method: sum(values[method, of, protocol, metric] or 0 for of in SEEDS for metric in METRICS[:2]),
        )
        oracle = rows.filter(method="best-oracle", protocol=protocol)
        theirs = metrics.filter(method=best, protocol=protocol)
        assert oracle.drop("method", "note", "oracle").equals(theirs.drop("method", "note", "oracle"))
        assert oracle["oracle"].all()
        assert set(oracle["note"]) == {f"{best}, chosen on these test sets among 3; tuned"}


def test_of_equals_the_first_is_chosen() -> None:
    metrics = metrics_of(dict.fromkeys(random_values(0), 0.5))
    rows = choice_rows(metrics, EXPERIMENT, dict.fromkeys(itertools.product(MEMBERS, SEEDS), 1.0))
    assert set(rows["head_fingerprint"]) == {f"{MEMBERS[0]}-{seed}" for seed in SEEDS}


def test_a_setting_that_is_not_measured_whole_is_no_oracle() -> None:
    values = random_values(1)
    best = max(values, key=lambda key: values[key] or 0)
    for metric in METRICS:
        values[best[0], best[1], "two", metric] = None
    losses = dict.fromkeys(itertools.product(MEMBERS, SEEDS), 1.0)
    rows = choice_rows(metrics_of(values), EXPERIMENT, losses).filter(method="best-oracle", protocol="two")
    assert best[0] not in set(rows["note"].str.extract("^(.*),"))
    unknown = choice_rows(metrics_of({}), EXPERIMENT, losses).filter(method="best-oracle")
    for column in ("value", "ci_low", "ci_digest", "replicates"):
        assert unknown[column].null_count() == unknown.height > 0
    assert set(unknown["note"]) == {"tuned"}


def test_with_nothing_trained_the_rows_are_there_and_null() -> None:
    encoder = EncoderSpec(architecture="ViT-B-16-quickgelu", weights="wheel")
    metrics = evaluate("e", EXPERIMENT, encoder, [BENCHMARK], [])
    assert set(metrics["method"]) == set(EXPERIMENT.method_ids)
    assert metrics["value"].null_count() == metrics.height
    counts = metrics.group_by("method").len()["len"]
    assert counts.n_unique() == 1


def test_a_head_without_a_validation_loss_is_named() -> None:
    losses: dict[tuple[str, int], float | None] = dict.fromkeys(itertools.product(MEMBERS, SEEDS), 1.0)
    losses[MEMBERS[1], 2] = None
    with pytest.raises(ResultsError, match=f"heads of {MEMBERS[1]} have no validation loss"):
        choice_rows(metrics_of({}), EXPERIMENT, losses)
