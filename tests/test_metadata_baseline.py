"""The metadata-only method: it solves a planted bias, not a coin, and keeps every rule of the metrics."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from rine_cache.errors import ResultsError
from rine_cache.evaluate import SCHEMA
from rine_cache.metadata_baseline import METHOD, _folds, _groups, cross_validated, measure_metadata
from rine_cache.metrics import METRICS
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
    assert metrics.filter(test_set="gen-a", metric="acc")["ci_method"].item() == "Wilson, 1,000 resamples of 120 images"
    assert metrics.filter(test_set="mean", metric="auc")["ci_method"].item() == "logit, 1,000 resamples of 180 images"
    known = metrics.filter(pl.col("value").is_not_null())
    assert ((known["ci_low"] <= known["value"]) & (known["value"] <= known["ci_high"])).all()
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


def in_groups(images: list[tuple[str, str | None, str]]) -> list[int]:
    """Group images given as data set, group and content; numbers in order of appearance."""
    rows = [
        made_audit(dataset, [{"label": 0, "group": group, "content": content}]).table.with_columns(
            dataset=pl.lit(dataset)
        )
        for dataset, group, content in images
    ]
    groups = _groups(pl.concat(rows)).tolist()
    return [list(dict.fromkeys(groups)).index(group) for group in groups]


def test_groups_are_what_is_linked_by_group_or_content() -> None:
    linked: list[tuple[str, str | None, str]] = [
        ("x", "a", "1"),
        ("x", "b", "1"),  # one content in two groups
        ("x", "b", "2"),
        ("x", None, "2"),  # one grouped, one not
        ("y", "c", "2"),  # and in another data set
        ("y", "c", "3"),
    ]
    others: list[tuple[str, str | None, str]] = [
        ("y", "a", "4"),  # another data set's group of that name
        ("x", None, "5"),
        ("y", None, "5"),
        ("x", None, "6"),
    ]
    assert in_groups(linked + others) == [0] * 6 + [1, 2, 2, 3]
    assert in_groups((linked + others)[::-1]) == [0, 1, 1, 2] + [3] * 6
    assert in_groups([("x", None, "1"), ("x", None, "2")]) == [0, 1]


@pytest.mark.parametrize("seed", range(8))
def test_folds_divide_no_group_and_are_alike(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(400), rng.integers(1, 9, 400)))
    fakes_of = rng.choice([0.0, 0.5, 1.0], 400, p=[0.6, 0.1, 0.3])  # of reals alone, mixed, of fakes alone
    labels = (rng.random(len(groups)) < fakes_of[groups]).astype(np.int64)
    folds = _folds(labels, groups, 5)
    for group in range(400):
        assert len(set(folds[groups == group])) == 1
    for kept in (labels >= 0, labels == 0, labels == 1):
        sizes = np.bincount(folds[kept], minlength=5)
        assert sizes.max() - sizes.min() <= 3 * 8  # three of the largest groups
    assert np.array_equal(folds, _folds(labels, groups, 5))
    order = rng.permutation(len(groups))
    assert np.array_equal(folds[order], _folds(labels[order], groups[order], 5))  # of groups, not of their places


def test_single_images_are_divided_evenly_and_not_by_their_order() -> None:
    labels = np.repeat([0, 1], [103, 52])
    folds = _folds(labels, np.arange(155), 5)
    for label in (0, 1):
        sizes = np.bincount(folds[labels == label])
        assert sizes.max() - sizes.min() <= 1
    assert len(set(map(tuple, folds[:100].reshape(20, 5)))) > 10


@pytest.mark.parametrize("real_groups", [2, 3, 9])
@pytest.mark.parametrize("fake_groups", [2, 4])
@pytest.mark.parametrize("mixed_groups", [0, 1, 7])
def test_both_classes_reach_every_fold(real_groups: int, fake_groups: int, mixed_groups: int) -> None:
    whole = [(group, label) for label, count in ((0, real_groups), (1, fake_groups)) for group in range(count)]
    mixed = [(group, label, copy) for group in range(mixed_groups) for label in (0, 1) for copy in range(3 * group + 1)]
    groups = np.array([group + 100 * label for group, label in whole] + [group + 500 for group, *_ in mixed])
    labels = np.array([label for _, label in whole] + [label for _, label, _ in mixed])
    count = min(5, real_groups + mixed_groups, fake_groups + mixed_groups)
    folds = _folds(labels, groups, count)
    for fold in range(count):
        assert set(labels[folds == fold]) == set(labels[folds != fold]) == {0, 1}


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
    assert metrics.filter(test_set="gen-a")["n_fake"].to_list() == [1] * len(METRICS)
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
    assert metrics["data_fingerprint"].is_null().all()
    assert metrics.height == 3 * len(METRICS)
    assert measure_metadata([], []).schema == SCHEMA


def test_nothing_readable_is_null_with_its_count() -> None:
    audits = [
        made_audit(name, images(label, 5, 0, reason="empty", subset="a", content_sha256=None))
        for label, name in enumerate(("reals", "fakes"))
    ]
    gen_a = measure_metadata(audits, [benchmark()]).filter(test_set="gen-a")
    assert gen_a["value"].is_null().all()
    assert set(gen_a.select("n_real", "n_fake", "n_quarantined").iter_rows()) == {(0, 0, 10)}


def test_protocols_that_test_the_same_images_share_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("rine_cache.metadata_baseline.cross_validated", lambda images, what: asked.append(what))
    spec = benchmark().model_dump(exclude_unset=True)
    spec["protocols"] |= {
        "same": {"test_sets": ["gen-a"], "view": "other"},
        "capped": {"test_sets": ["gen-a"], "cap": {"per_class": 5}},
    }
    audits = [made_audit("reals", images(0, 20, 0)), made_audit("fakes", images(1, 20, 1, subset="a"))]
    measure_metadata(audits, [BenchmarkSpec.model_validate(spec)])
    assert asked == ["bench/gen-a", "bench/gen-a"]  # whole and capped; gen-b is not here


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
