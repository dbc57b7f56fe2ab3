from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from rine_cache.metrics import METRICS, binary_metrics
from rine_cache.pairing import Measured, Pairing, Side
from rine_cache.resampling import Resampling
from rine_cache.sampler import REPLICATES, Sampler
from rine_cache.sampling_error import SamplingError, read_replicates
from rine_cache.specs.benchmark import MEAN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rine_cache.specs.benchmark import Metric

HEADS = 3
METHODS = [[0, 1], [2]]  # one of two seeds, one of one
# Rows of a data set of 60 reals and two generators of 40 fakes each.
REAL, FIRST, SECOND = np.arange(60), np.arange(60, 100), np.arange(100, 140)
LABELS = np.repeat([0, 1], [60, 80])
LOGITS = np.random.default_rng(0).normal(LABELS - 0.5, 1, (HEADS, 140)).astype(np.float32)


def images(groups: list[str | None] | None = None, count: int = 140) -> pl.DataFrame:
    names = [f"{row:03d}.png" for row in range(count)]
    return pl.DataFrame(
        {"image_id": names, "group": groups or [None] * count}, schema={"image_id": pl.String, "group": pl.String}
    )


def measured(fakes: np.ndarray, readable: np.ndarray | None = None, logits: np.ndarray = LOGITS) -> Measured:
    readable = np.ones(140, bool) if readable is None else readable
    rows = np.concatenate([REAL[readable[REAL]], fakes[readable[fakes]]])
    return Measured(
        pairing=Pairing(Side("d", 0, REAL), Side("d", 1, fakes)),
        metrics=[binary_metrics(LABELS[rows], own[rows]) for own in logits],
        logits=lambda: logits[:, rows],
        data_fingerprint="data",
        encoder_fingerprint="encoder",
    )


def sample(
    test_sets: Mapping[str, Measured | None],
    table: pl.DataFrame | None = None,
    readable: np.ndarray | None = None,
) -> list[dict[tuple[str, Metric], SamplingError]]:
    table = images() if table is None else table
    readable = np.ones(140, bool) if readable is None else readable
    return Sampler(METHODS, [None] * HEADS, {"d": table}, {"d": readable}).protocol(test_sets)


def replicates_of(value: float, error: SamplingError) -> np.ndarray:
    assert error.replicates is not None
    return read_replicates(value, error.replicates)


def test_replicates_are_means_over_seeds_and_test_sets_on_the_same_resamples() -> None:
    sets = {"first": measured(FIRST), "second": measured(SECOND)}
    found = sample(sets)
    names = [f"d|image|{row:03d}.png" for row in range(140)]
    resampling = Resampling(names, names, [REAL, FIRST, REAL, SECOND])
    weights = resampling.weights(np.arange(140), 0, 5)
    for number, heads in enumerate(METHODS):
        for metric in ("acc", "auc", "f1"):
            naive: dict[str, list[float]] = {"first": [], "second": [], MEAN: []}
            for counts in weights.T:
                by_set = {}
                for name, fakes in (("first", FIRST), ("second", SECOND)):
                    copied = np.repeat(np.arange(140), counts)
                    copied = copied[np.isin(copied, np.concatenate([REAL, fakes]))]
                    one = [binary_metrics(LABELS[copied], LOGITS[head][copied])[metric] for head in heads]
                    by_set[name] = float(np.mean(one))
                    naive[name].append(by_set[name])
                naive[MEAN].append(float(np.mean(list(by_set.values()))))
            for name, expected in naive.items():
                of = [name] if name != MEAN else list(sets)
                value = np.mean([sets[one].metrics[head][metric] for one in of for head in heads])
                got = replicates_of(float(value), found[number][name, metric])
                assert len(got) == REPLICATES
                np.testing.assert_allclose(got[:5], expected, atol=1e-4)


def test_an_interval_says_how_it_was_made() -> None:
    found = sample({"first": measured(FIRST), "second": measured(SECOND)})[0]
    assert found["first", "acc"].ci_method == "Wilson, 1,000 resamples of 100 images"
    assert found["first", "real_acc"].ci_method == "Wilson, 1,000 resamples of 60 images"
    assert found[MEAN, "auc"].ci_method == "logit, 1,000 resamples of 140 images"
    assert found[MEAN, "auc"][3:5] == (140, 3)
    assert {metric for _, metric in found} == set(METRICS) - {
        "ece_calibrated", "acc_validation_threshold", "acc_validation_fpr1", "acc_validation_fpr5"
    }  # fmt: skip


def test_a_number_that_is_bounded_from_above_alone_says_why_and_is_not_compared() -> None:
    found = sample({"first": measured(FIRST), "second": measured(SECOND)})[1]
    reason = "; from above alone, as fewer than 72 real images do not bound its threshold"  # there are 60
    for name in ("first", MEAN):
        error = found[name, "tpr_fpr5"]
        assert error.ci_method.endswith(reason)
        assert error.ci_low == 0 < error.ci_high
        assert error.replicates is None


def test_groups_are_drawn_together_and_widen_the_interval() -> None:
    """Ten crops each of ten photographs, all told rightly or all wrongly."""
    logits = np.where(np.arange(140) // 10 % 3 == 0, -1, 1) * np.where(LABELS == 1, 1, -1) * np.ones((HEADS, 1))
    logits = logits.astype(np.float32)
    groups = [f"photo {row // 10}" for row in range(140)]
    alone = sample({"first": measured(FIRST, logits=logits)})[0]["first", "acc"]
    grouped = sample({"first": measured(FIRST, logits=logits)}, images(groups))[0]["first", "acc"]
    assert grouped.ci_method == "Wilson, 1,000 resamples of 10 groups"
    assert grouped.ci_high - grouped.ci_low > 2 * (alone.ci_high - alone.ci_low)
    assert alone.ci_digest != grouped.ci_digest


def test_what_could_not_be_read_is_not_drawn() -> None:
    readable = np.arange(140) % 4 != 0
    found = sample({"first": measured(FIRST, readable)}, readable=readable)[0]["first", "acc"]
    assert found.ci_method == "Wilson, 1,000 resamples of 75 images"


def test_a_test_set_has_one_interval_in_whichever_protocol_it_stands() -> None:
    calls = []

    def count(test_set: Measured) -> Measured:
        return test_set._replace(logits=lambda: calls.append(1) or test_set.logits())

    sampler = Sampler(METHODS, [None] * HEADS, {"d": images()}, {"d": np.ones(140, bool)})
    alone = sampler.protocol({"first": count(measured(FIRST))})
    both = sampler.protocol({"first": count(measured(FIRST)), "second": count(measured(SECOND))})
    assert alone[0]["first", "auc"] == both[0]["first", "auc"]
    assert len(calls) == 2


def test_a_missing_test_set_leaves_the_mean_without_interval() -> None:
    found = sample({"first": measured(FIRST), "second": None})[0]
    assert ("first", "acc") in found
    assert (MEAN, "acc") not in found
    assert sample({"first": None}) == [{}, {}]


def test_an_undefined_seed_leaves_the_method_without_interval() -> None:
    whole = measured(FIRST)
    metrics = [whole.metrics[0], {**whole.metrics[1], "auc": None}, whole.metrics[2]]
    found = sample({"first": whole._replace(metrics=metrics)})
    assert ("first", "auc") not in found[0]
    assert ("first", "auc") in found[1]


@pytest.mark.parametrize("rows", [REAL, FIRST], ids=["no fakes", "no reals"])
def test_a_test_set_of_one_class_has_the_intervals_that_make_sense(rows: np.ndarray) -> None:
    nothing = np.zeros(0, np.int64)
    real, fake = (rows, nothing) if rows is REAL else (nothing, rows)
    one = Measured(
        Pairing(Side("d", 0, real), Side("d", 1, fake)),
        [binary_metrics(LABELS[rows], own[rows]) for own in LOGITS],
        lambda: LOGITS[:, rows],
        "data",
        "encoder",
    )
    found = sample({"first": one})[0]
    assert ("first", "real_acc" if rows is REAL else "fake_acc") in found
    assert ("first", "auc") not in found


def test_no_readable_image_gives_nothing() -> None:
    readable = np.zeros(140, bool)
    assert sample({"first": measured(FIRST, readable)}, readable=readable) == [{}, {}]
