"""The metadata-only method: it solves a planted bias, not a coin, and keeps every rule of the metrics."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from rine_cache.errors import ResultsError
from rine_cache.evaluate import SCHEMA
from rine_cache.metadata_baseline import METHOD, cross_validated, measure_metadata
from rine_cache.specs.benchmark import BenchmarkSpec
from tests.audits import made_audit


def benchmark(**protocol: Any) -> BenchmarkSpec:
    return BenchmarkSpec.model_validate(
        {
            "name": "bench",
            "title": "Bench",
            "note": "a note",
            "test_sets": {
                "gen-a": {"real": {"dataset": "reals"}, "fake": {"dataset": "fakes", "subsets": ["a"]}},
                "gen-b": {"real": {"dataset": "reals"}, "fake": {"dataset": "fakes", "subsets": ["b"]}},
            },
            "protocols": {"p": {"test_sets": ["gen-a", "gen-b"], **protocol}},
        }
    )


def images(label: int, count: int, seed: int, **facts: Any) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(50_000, 150_000, (count, 2)).tolist()
    return [{"label": label, "file_size": size, "width": 200 + other % 97, **facts} for size, other in sizes]


def value(metrics: pl.DataFrame, test_set: str, metric: str) -> Any:
    return metrics.filter(test_set=test_set, metric=metric)["value"].item()


def test_a_biased_format_is_solved_and_a_fair_set_is_not() -> None:
    reals = made_audit("reals", images(0, 60, 0, format="JPEG", jpeg_quality=90))
    fakes = made_audit(
        "fakes", images(1, 60, 1, subset="a") + images(1, 60, 2, subset="b", format="JPEG", jpeg_quality=90)
    )
    metrics = measure_metadata([reals, fakes], [benchmark()])
    assert metrics.schema == SCHEMA
    assert value(metrics, "gen-a", "acc") == value(metrics, "gen-a", "auc") == 1.0
    assert 0.3 < value(metrics, "gen-b", "auc") < 0.7
    assert value(metrics, "mean", "auc") == pytest.approx((1 + value(metrics, "gen-b", "auc")) / 2)
    assert set(metrics["oracle"]) == {True}
    assert set(metrics["method"]) == set(metrics["experiment"]) == {METHOD}
    assert set(metrics["training_set"]) == {"cross-validated"}
    assert metrics["note"][0].startswith("a note; no pixel")
    assert metrics["view"].is_null().all()
    assert metrics.equals(measure_metadata([reals, fakes], [benchmark()]))


def test_scores_are_out_of_fold() -> None:
    # Were an image scored by a forest that knows it, its own label would be learnt by heart.
    rng = np.random.default_rng(0)
    noise = images(0, 200, 3)
    for image in noise:
        image["label"] = int(rng.integers(2))
    table = made_audit("x", noise).table.with_columns(dataset=pl.lit("x"))
    logits = cross_validated(table, "x")
    assert logits is not None
    assert np.isfinite(logits).all()
    assert 0.35 < ((logits > 0) == (table["label"].to_numpy() == 1)).mean() < 0.65


@pytest.mark.parametrize("tie", ["group", "content"])
def test_images_of_one_group_or_content_are_never_divided(tie: str) -> None:
    # Each pair shares its sizes and a random label: known from its other half, unknowable without.
    rng = np.random.default_rng(0)
    pairs = [{**image, "label": int(rng.integers(2))} for image in images(0, 100, 4)]
    doubled = [{**image, tie: f"g{index}"} for index, image in enumerate(pairs) for _ in range(2)]

    def accuracy(rows: list[dict[str, Any]]) -> float:
        table = made_audit("x", rows).table.with_columns(dataset=pl.lit("x"))
        logits = cross_validated(table, "x")
        assert logits is not None
        return float(((logits > 0) == (table["label"].to_numpy() == 1)).mean())

    assert accuracy(doubled) < 0.65
    assert accuracy([{key: row[key] for key in row if key != tie} for row in doubled]) > 0.8


def test_quarantined_images_are_left_out_and_counted() -> None:
    reals = made_audit("reals", images(0, 20, 0) + images(0, 3, 5, reason="empty"))
    fakes = made_audit("fakes", images(1, 20, 1, subset="a", width=512) + images(1, 20, 2, subset="b"))
    metrics = measure_metadata([reals, fakes], [benchmark()])
    row = metrics.filter(test_set="gen-a", metric="auc").row(0, named=True)
    assert (row["n_real"], row["n_fake"], row["n_quarantined"], row["covered"]) == (20, 20, 3, 2)
    mean = metrics.filter(test_set="mean", metric="auc").row(0, named=True)
    assert (mean["n_real"], mean["n_fake"], mean["n_quarantined"]) == (20, 40, 3)


def test_a_class_too_small_gives_nulls_with_counts_and_no_mean(caplog: pytest.LogCaptureFixture) -> None:
    reals = made_audit("reals", images(0, 20, 0))
    one, grouped = images(1, 1, 1, subset="a"), images(1, 6, 2, subset="b", group="same")
    metrics = measure_metadata([reals, made_audit("fakes", one + grouped)], [benchmark()])
    assert metrics["value"].is_null().all()
    assert set(metrics["covered"]) == {0}
    assert metrics.filter(test_set="gen-a")["n_fake"].to_list() == [1] * 7
    assert "bench/gen-a has too few images" in caplog.text
    assert "bench/gen-b has too few images" in caplog.text


@pytest.mark.parametrize("fakes", [2, 3, 5])
def test_tiny_sets_get_fewer_folds(fakes: int) -> None:
    reals = made_audit("reals", images(0, 20, 0))
    some = images(1, fakes, 1, subset="a", width=512) + images(1, 20, 2, subset="b")
    metrics = measure_metadata([reals, made_audit("fakes", some)], [benchmark()])
    assert value(metrics, "gen-a", "auc") is not None


def test_what_is_not_here_is_null() -> None:
    metrics = measure_metadata([made_audit("reals", images(0, 20, 0))], [benchmark()])
    assert metrics["value"].is_null().all()
    assert metrics["n_real"].is_null().all()
    assert metrics["fingerprint"].is_null().all()
    assert metrics.height == 3 * 7
    assert measure_metadata([], []).schema == SCHEMA


def test_a_cap_chooses_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    reals = made_audit("reals", images(0, 30, 0))
    fakes = made_audit("fakes", images(1, 30, 1, subset="a") + images(1, 30, 2, subset="b"))
    metrics = measure_metadata([reals, fakes], [benchmark(cap={"per_class": 12})])
    assert set(metrics.filter(test_set="gen-a")["n_real"]) == {12}


def test_repeated_audits_and_benchmarks_are_refused() -> None:
    audit = made_audit("reals", images(0, 2, 0))
    with pytest.raises(ResultsError, match="the audit of reals is given more than once"):
        measure_metadata([audit, audit], [])
    with pytest.raises(ResultsError, match="the benchmark bench is given more than once"):
        measure_metadata([audit], [benchmark(), benchmark()])
