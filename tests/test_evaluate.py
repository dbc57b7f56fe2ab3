from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn import metrics as sklearn_metrics

from rine_cache import sampling_error
from rine_cache.errors import ResultsError
from rine_cache.evaluate import SCHEMA, Scores, count_passes, evaluate, read_scores, write_metrics
from rine_cache.fingerprints import COLUMNS
from rine_cache.metrics import METRICS
from rine_cache.pairing import pair
from rine_cache.passes import EncoderPasses
from rine_cache.specs.benchmark import MEAN, BenchmarkSpec, CapSpec, OneSource
from rine_cache.specs.encoding import EncoderSpec
from rine_cache.specs.training import ExperimentSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.conftest import MadeCache

ENCODER = EncoderSpec(architecture="ViT-B-16-quickgelu", weights="wheel")
EXPERIMENT = ExperimentSpec.model_validate(
    {
        "encoder": "clip",
        "tap": "block",
        "training_set": "progan",
        "seeds": [0, 1],
        "methods": {
            "RINE": {"head": {"kind": "rine", "blocks": [1, 5]}, "note": "tuned"},
            "UnivFD": {"head": {"kind": "linear"}, "training": {"xi": 0}},
        },
    }
)
CALIBRATION = {
    "n_real": 100,
    "n_fake": 100,
    "temperature": 2.0,
    "most_accurate": 0.25,
    "thresholds": [{"false_positive_percent": percent, "logit": 2 / percent} for percent in (1, 5)],
}
HEADS = [(method, seed) for method in EXPERIMENT.methods for seed in EXPERIMENT.seeds]
# Two data sets: one whose subsets hold both classes, one whose fakes share the reals of subset "laion".
SIZES = {
    "gans": [("a", 0, 9), ("a", 1, 7), ("b", 0, 4), ("b", 1, 13)],
    "diffusion": [("laion", 0, 11), ("glide", 1, 5), ("dalle", 1, 6), ("laion", 1, 2)],
}
BENCHMARK = BenchmarkSpec.model_validate(
    {
        "name": "bench",
        "title": "Bench",
        "view": "center224",
        "test_sets": {
            "a": {"real": {"dataset": "gans", "subsets": ["a"]}, "fake": {"dataset": "gans", "subsets": ["a"]}},
            "b": {"real": {"dataset": "gans", "subsets": ["b"]}, "fake": {"dataset": "gans", "subsets": ["b"]}},
            "glide": {
                "real": {"dataset": "diffusion", "subsets": ["laion"]},
                "fake": {"dataset": "diffusion", "subsets": ["glide"]},
            },
            "dalle": {
                "real": {"dataset": "diffusion", "subsets": ["laion"]},
                "fake": {"dataset": "diffusion", "subsets": ["dalle"]},
            },
            "everything": {"real": {"dataset": "gans"}, "fake": {"dataset": "gans"}},
        },
        "protocols": {
            "all-4": {"test_sets": ["a", "b", "glide", "dalle"]},
            "gans-2": {"test_sets": ["b", "a"]},
            "whole": {"test_sets": ["everything"]},
        },
    }
)


def images_of(dataset: str) -> list[tuple[str, int, str]]:
    """Return (image id, label, subset) of each image, labels mixed."""
    listed = [
        (f"{subset}/{label}/{index:02d}.png", label, subset)
        for subset, label, count in SIZES[dataset]
        for index in range(count)
    ]
    order = np.random.default_rng(len(dataset)).permutation(len(listed))
    return [listed[index] for index in order]


def variant_of(image_id: str) -> str | None:
    """Return the variant of an image: the fakes of subset b are partial or global by turns."""
    subset, label, name = image_id.split("/")
    return ("partial", "global")[int(name[:2]) % 2] if (subset, label) == ("b", "1") else None


def logits_of(dataset: str) -> np.ndarray:
    """Return a logit per head and image, shape (H, N), with some ties."""
    labels = np.array([label for _, label, _ in images_of(dataset)])
    rng = np.random.default_rng(len(dataset) + 100)
    return np.round(rng.normal(labels - 0.5, 1.5, (len(HEADS), len(labels))), 1).astype(np.float32)


@pytest.fixture
def score_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a score file as `rine_cache.score` does."""

    def write(
        dataset: str,
        *,
        logits: np.ndarray | None = None,
        heads: Sequence[tuple[str, int]] = HEADS,
        fingerprints: str = "f",
        view: str = "center224",
        encoding_fingerprint: str = "e" * 64,
        content_digest: str = "c" * 64,
        training_fingerprint: str | None = "t" * 64,
    ) -> Path:
        images = images_of(dataset)
        logits = logits_of(dataset) if logits is None else logits
        header = {
            "dataset": dataset,
            "view": view,
            "encoding_fingerprint": encoding_fingerprint,
            "manifest_digest": f"manifest of {dataset}",
            "content_digest": content_digest,
            "code_version": "0.1.0",
            "passes": {"crops_read": len(images), "caches": {dataset: len(images)}},
            "heads": [
                {
                    "method": method,
                    "seed": seed,
                    "fingerprint": f"{fingerprints}-{method}-{seed}",
                    "training_fingerprint": training_fingerprint,
                    "trainable_parameters": {"RINE": 1000, "UnivFD": 10}.get(method, 1),
                    "passes": {"crops_read": 1000, "caches": {"training": 50}},
                    "validation_loss": 0.5,
                    "calibration": CALIBRATION,
                }
                for method, seed in heads
            ],
        }
        rows = [
            {
                "dataset": dataset,
                "view": view,
                "image_id": image_id,
                "label": label,
                "subset": subset,
                "split": "test",
                "variant": variant_of(image_id),
                "group": None,
                "method": method,
                "seed": seed,
                "logit": None if np.isnan(logit) else float(logit),
            }
            for (method, seed), head_logits in zip(heads, logits, strict=True)
            for (image_id, label, subset), logit in zip(images, head_logits, strict=True)
        ]
        schema = pa.schema(
            [
                ("dataset", pa.string()),
                ("view", pa.string()),
                ("image_id", pa.string()),
                ("label", pa.int8()),
                ("subset", pa.string()),
                ("split", pa.string()),
                ("variant", pa.string()),
                ("group", pa.string()),
                ("method", pa.string()),
                ("seed", pa.int64()),
                ("logit", pa.float32()),
            ],
            metadata={"rine_cache": json.dumps(header)},
        )
        path = tmp_path / f"{dataset}-{view}-{fingerprints}.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=len(images))
        return path

    return write


@pytest.fixture
def both(score_file: Callable[..., Path]) -> list[Scores]:
    return [read_scores(score_file("gans")), read_scores(score_file("diffusion"))]


def run(scores: Sequence[Scores], *benchmarks: BenchmarkSpec) -> pl.DataFrame:
    return evaluate("main", EXPERIMENT, ENCODER, benchmarks or [BENCHMARK], scores)


def rows_of(metrics: pl.DataFrame, **where: Any) -> list[dict[str, Any]]:
    return metrics.filter(**where).to_dicts()


def row_of(metrics: pl.DataFrame, **where: Any) -> dict[str, Any]:
    (row,) = rows_of(metrics, **where)
    return row


def naive_selection(test_set: str, head: int) -> tuple[list[int], list[float]]:
    """Walk over the images one by one: labels and logits of a test set."""
    labels, logits = [], []
    spec = BENCHMARK.test_sets[test_set]
    for source, wanted in ((spec.real, 0), (spec.fake, 1)):
        for position, (_, label, subset) in enumerate(images_of(source.dataset)):
            if label == wanted and (not source.subsets or subset in source.subsets):
                labels.append(label)
                logits.append(float(logits_of(source.dataset)[head, position]))
    return labels, logits


def naive_metrics(labels: list[int], logits: list[float]) -> dict[str, float]:
    decided = [int(logit > 0) for logit in logits]
    return {
        "acc": sklearn_metrics.accuracy_score(labels, decided),
        "real_acc": sklearn_metrics.recall_score(labels, decided, pos_label=0),
        "fake_acc": sklearn_metrics.recall_score(labels, decided, pos_label=1),
        "balanced_acc": sklearn_metrics.balanced_accuracy_score(labels, decided),
        "f1": sklearn_metrics.f1_score(labels, decided),
        "ap": sklearn_metrics.average_precision_score(labels, logits),
        "auc": sklearn_metrics.roc_auc_score(labels, logits),
        # At the thresholds of CALIBRATION.
        "acc_validation_threshold": sklearn_metrics.accuracy_score(labels, np.array(logits) > 0.25),
        "acc_validation_fpr1": sklearn_metrics.accuracy_score(labels, np.array(logits) > 2.0),
        "acc_validation_fpr5": sklearn_metrics.accuracy_score(labels, np.array(logits) > 0.4),
    }


@pytest.mark.parametrize("test_set", BENCHMARK.test_sets)
def test_each_test_set_has_the_values_of_scikit_learn_on_the_same_rows(both: list[Scores], test_set: str) -> None:
    protocol = "whole" if test_set == "everything" else "all-4"
    metrics = run(both)
    for index, (method, seed) in enumerate(HEADS):
        rows = rows_of(metrics, protocol=protocol, test_set=test_set, method=method, seed=seed)
        found = {row["metric"]: row["value"] for row in rows}
        assert set(found) == set(METRICS)
        expected = naive_metrics(*naive_selection(test_set, index))
        assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_every_value_has_the_interval_of_its_mean_over_seeds(both: list[Scores]) -> None:
    metrics = run(both)
    thresholded = pl.col("metric").str.starts_with("tpr_")  # of too few reals to be compared
    measured = metrics.filter(pl.col("value").is_not_null())
    assert set(measured.filter(thresholded)["ci_low"]) == {0.0}
    for column in sampling_error.SCHEMA.names():
        of = measured.filter(~thresholded, seed=0) if column == "replicates" else measured
        assert of[column].null_count() == 0, column
    assert measured.filter(seed=1)["replicates"].null_count() == measured.filter(seed=1).height
    keys = ["protocol", "method", "test_set", "metric"]
    per_method = measured.group_by(keys).agg(pl.col("value").mean(), pl.col("ci_low", "ci_high").unique())
    assert (
        per_method["ci_low"].list.len().to_list()
        == per_method["ci_high"].list.len().to_list()
        == [1] * per_method.height
    )
    low, high = per_method["ci_low"].list.first(), per_method["ci_high"].list.first()
    assert ((low <= per_method["value"]) & (per_method["value"] <= high)).all()
    row = row_of(metrics, protocol="all-4", test_set="mean", metric="acc", method="RINE", seed=0)
    assert row["ci_method"] == "Wilson, 1,000 resamples of 55 images"  # 9 + 7, 4 + 13, 11 + 5 + 6


def test_what_was_not_measured_has_no_interval(score_file: Callable[..., Path]) -> None:
    metrics = run([read_scores(score_file("gans"))])
    absent = metrics.filter(pl.col("value").is_null())
    assert absent.height > 0
    assert all(absent[column].null_count() == absent.height for column in sampling_error.SCHEMA.names())


def test_two_experiments_on_the_same_images_are_resampled_alike(score_file: Callable[..., Path]) -> None:
    """Whatever their heads are, so that a leaderboard can compare them image by image."""

    def of(fingerprints: str, logits: np.ndarray) -> pl.DataFrame:
        gans = score_file("gans", logits=logits, fingerprints=fingerprints)
        return run([read_scores(gans), read_scores(score_file("diffusion", fingerprints=fingerprints))])

    first = of("f", logits_of("gans"))
    logits = np.full_like(logits_of("gans"), 1.5)
    assert first["ci_digest"].equals(of("g", logits)["ci_digest"])
    logits[:, 3] = np.nan
    third = of("h", logits)
    for test_set, alike in (("glide", True), ("everything", False), ("mean", False)):
        digests = [set(one.filter(test_set=test_set)["ci_digest"]) for one in (first, third)]
        assert (digests[0] == digests[1]) == alike


def test_the_accuracy_at_the_best_test_threshold_alone_is_marked_as_an_oracle(both: list[Scores]) -> None:
    metrics = run(both)
    assert set(metrics.filter(pl.col("oracle"))["metric"]) == {"acc_best_threshold"}
    assert metrics.filter(metric="acc_best_threshold")["oracle"].all()


def test_scores_of_a_version_that_kept_no_calibration_are_refused(score_file: Callable[..., Path]) -> None:
    path = score_file("gans")
    table = pq.read_table(path)
    header = json.loads(table.schema.metadata[b"rine_cache"])
    for head in header["heads"]:
        del head["calibration"]
    pq.write_table(table.replace_schema_metadata({"rine_cache": json.dumps(header)}), path)
    with pytest.raises(ResultsError, match="older version and lacks its heads' calibration; score again"):
        read_scores(path)


def test_only_the_reals_of_real_and_the_fakes_of_fake_are_counted(both: list[Scores]) -> None:
    """Subset laion holds two fakes too; they belong to no test set."""
    row = row_of(run(both), protocol="all-4", test_set="glide", method="RINE", seed=0, metric="acc")
    assert (row["n_real"], row["n_fake"], row["n_quarantined"]) == (11, 5, 0)


def test_a_protocols_mean_is_unweighted_and_taken_per_head(both: list[Scores]) -> None:
    """The test sets differ in size, so that pooling their images would give other numbers."""
    metrics = run(both)
    for method, seed in HEADS:
        for protocol, spec in BENCHMARK.protocols.items():
            for metric in METRICS:
                where = {"protocol": protocol, "method": method, "seed": seed, "metric": metric}
                values = [row_of(metrics, **where, test_set=name)["value"] for name in spec.test_sets]
                mean = row_of(metrics, **where, test_set=MEAN)
                assert mean["value"] == pytest.approx(sum(values) / len(values))
                assert (mean["covered"], mean["test_sets"]) == (len(spec.test_sets), len(spec.test_sets))


def test_the_rows_are_one_per_head_protocol_test_set_and_metric(both: list[Scores]) -> None:
    metrics = run(both)
    assert metrics.schema == SCHEMA
    key = ["method", "seed", "protocol", "test_set", "metric"]
    assert not metrics.select(key).is_duplicated().any()
    assert metrics.height == len(HEADS) * len(METRICS) * (5 + 3 + 2)


def test_rows_say_what_was_measured(both: list[Scores]) -> None:
    metrics = run(both)
    rine = row_of(metrics, protocol="gans-2", test_set="a", method="RINE", seed=1, metric="acc")
    expected = {
        "experiment": "main",
        "benchmark": "bench",
        "training_set": "progan",
        "encoder": "clip",
        "weights": "wheel",
        "tap": "block",
        "view": "center224",
        "blocks": "1,5",
        "head": "rine",
        "trainable_parameters": 1000,
        "oracle": False,
        "note": "tuned",
    }
    assert {name: rine[name] for name in expected} == expected
    linear = row_of(metrics, protocol="gans-2", test_set="a", method="UnivFD", seed=0, metric="acc")
    assert (linear["blocks"], linear["trainable_parameters"], linear["note"]) == ("embedding", 10, None)


def test_an_absent_data_set_leaves_nulls_and_no_mean(score_file: Callable[..., Path]) -> None:
    """Guards against flattering means: what is left must never be averaged as if it were the whole protocol."""
    metrics = run([read_scores(score_file("gans"))])
    where = {"protocol": "all-4", "method": "RINE", "seed": 0, "metric": "acc"}
    found = {row["test_set"]: row["value"] for row in rows_of(metrics, **where)}
    assert found["a"] is not None
    assert found["b"] is not None
    assert (found["glide"], found["dalle"], found[MEAN]) == (None, None, None)
    assert {(row["covered"], row["test_sets"]) for row in rows_of(metrics, **where)} == {(2, 4)}
    absent = row_of(metrics, **where, test_set="glide")
    assert (absent["n_real"], absent["n_fake"], absent["n_quarantined"], absent["data_fingerprint"]) == (None,) * 4
    assert row_of(metrics, **{**where, "protocol": "gans-2"}, test_set=MEAN)["value"] is not None


def test_an_absent_subset_leaves_nulls_and_no_mean(both: list[Scores]) -> None:
    """Guards against flattering means: a generator that was not downloaded is not a smaller test set."""
    more = BENCHMARK.model_dump()
    more["test_sets"]["partly"] = {
        "real": {"dataset": "gans", "subsets": ["a"]},
        "fake": {"dataset": "gans", "subsets": ["a", "c"]},
    }
    more["protocols"] = {"partly-2": {"test_sets": ["a", "partly"]}}
    metrics = run(both, BenchmarkSpec.model_validate(more))
    where = {"method": "RINE", "seed": 0, "metric": "acc"}
    assert row_of(metrics, **where, test_set="partly")["value"] is None
    assert row_of(metrics, **where, test_set="a")["value"] is not None
    mean = row_of(metrics, **where, test_set=MEAN)
    assert (mean["value"], mean["covered"], mean["test_sets"]) == (None, 1, 2)


def test_a_source_may_ask_for_a_split(score_file: Callable[..., Path]) -> None:
    """The hand-made images all stand in split test."""

    def value(split: str) -> float | None:
        spec = {"dataset": "gans", "splits": [split]}
        benchmark = {
            "name": "b",
            "title": "B",
            "test_sets": {"x": {"real": spec, "fake": spec}},
            "protocols": {"p": {"test_sets": ["x"]}},
        }
        scores = [read_scores(score_file("gans"))]
        metrics = evaluate("e", EXPERIMENT, ENCODER, [BenchmarkSpec.model_validate(benchmark)], scores)
        return row_of(metrics, protocol="p", test_set="x", method="RINE", seed=0, metric="acc")["value"]

    assert value("test") is not None
    assert value("train") is None


def test_scores_of_another_view_than_the_benchmarks_do_not_count(score_file: Callable[..., Path]) -> None:
    metrics = run([read_scores(score_file("gans", view="jpeg50")), read_scores(score_file("diffusion"))])
    where = {"method": "RINE", "seed": 0, "metric": "acc"}
    assert row_of(metrics, **where, protocol="gans-2", test_set="a")["value"] is None
    assert row_of(metrics, **where, protocol="all-4", test_set="glide")["value"] is not None


def test_a_benchmark_is_measured_through_its_own_view(score_file: Callable[..., Path]) -> None:
    through = {
        "center224": read_scores(score_file("gans")),
        "jpeg50": read_scores(score_file("gans", view="jpeg50", logits=-logits_of("gans"))),
    }
    where = {"protocol": "gans-2", "test_set": "a", "method": "RINE", "seed": 0, "metric": "auc"}
    plain = row_of(run(list(through.values())), **where)
    compressed = row_of(run(list(through.values()), BENCHMARK.model_copy(update={"view": "jpeg50"})), **where)
    assert (plain["view"], compressed["view"]) == ("center224", "jpeg50")
    assert compressed["value"] == pytest.approx(1 - plain["value"])


def test_a_test_set_whose_fakes_are_all_lost_has_no_value_but_the_accuracy_of_its_reals(
    score_file: Callable[..., Path],
) -> None:
    logits = logits_of("gans")
    logits[:, [(label, subset) == (1, "a") for _, label, subset in images_of("gans")]] = np.nan
    metrics = run([read_scores(score_file("gans", logits=logits))])
    rows = rows_of(metrics, protocol="gans-2", method="RINE", seed=0, test_set="a")
    undefined = set(METRICS) - {"real_acc"}
    assert {row["metric"] for row in rows if row["value"] is None} == undefined
    assert {(row["n_real"], row["n_fake"], row["n_quarantined"]) for row in rows} == {(9, 0, 7)}
    means = rows_of(metrics, protocol="gans-2", method="RINE", seed=0, test_set=MEAN)
    assert {row["metric"] for row in means if row["value"] is None} == undefined
    assert {row["metric"]: row["covered"] for row in means} == {
        metric: 1 if metric in undefined else 2 for metric in METRICS
    }


def test_quarantined_images_are_left_out_and_counted(score_file: Callable[..., Path]) -> None:
    images, logits = images_of("gans"), logits_of("gans")
    lost = [index for index, (_, label, subset) in enumerate(images) if subset == "a"][::5]
    kept = [index for index, (_, _, subset) in enumerate(images) if subset == "a" and index not in lost]
    logits[:, lost] = np.nan
    row = row_of(
        run([read_scores(score_file("gans", logits=logits))]),
        protocol="gans-2",
        test_set="a",
        method="UnivFD",
        seed=1,
        metric="acc",
    )
    labels = [images[index][1] for index in kept]
    assert row["value"] == pytest.approx(np.mean([(logits[3, index] > 0) == images[index][1] for index in kept]))
    assert row["n_quarantined"] == len(lost) == 4
    assert (row["n_real"], row["n_fake"]) == (labels.count(0), labels.count(1))


def test_heads_that_do_not_agree_on_what_could_be_read_are_refused(score_file: Callable[..., Path]) -> None:
    logits = logits_of("gans")
    logits[0] = np.nan  # one head without logits would empty the counts of the others
    with pytest.raises(ResultsError, match="do not agree on which images"):
        read_scores(score_file("gans", logits=logits))


def test_images_shared_by_test_sets_are_counted_once_in_the_mean(both: list[Scores]) -> None:
    metrics = run(both)
    where = {"protocol": "all-4", "method": "RINE", "seed": 0, "metric": "auc"}
    mean = row_of(metrics, **where, test_set=MEAN)
    assert (mean["n_real"], mean["n_fake"]) == (9 + 4 + 11, 7 + 13 + 5 + 6)
    summed = sum(row_of(metrics, **where, test_set=name)["n_real"] for name in ("a", "b", "glide", "dalle"))
    assert summed == 9 + 4 + 11 + 11


def test_quarantined_reals_shared_by_test_sets_are_counted_once_in_the_mean(score_file: Callable[..., Path]) -> None:
    logits = logits_of("diffusion")
    first_real = next(index for index, (_, label, _) in enumerate(images_of("diffusion")) if label == 0)
    logits[:, first_real] = np.nan
    metrics = run([read_scores(score_file("gans")), read_scores(score_file("diffusion", logits=logits))])
    where = {"protocol": "all-4", "method": "RINE", "seed": 0, "metric": "auc"}
    assert [row_of(metrics, **where, test_set=name)["n_quarantined"] for name in ("a", "glide", "dalle", MEAN)] == [
        *(0, 1, 1, 1)
    ]
    assert row_of(metrics, **where, test_set=MEAN)["n_real"] == 9 + 4 + 10


def test_images_of_one_name_in_two_data_sets_are_two_images(score_file: Callable[..., Path]) -> None:
    more = BENCHMARK.model_dump()
    more["test_sets"] = {
        name: {"real": {"dataset": name, "subsets": [subset]}, "fake": {"dataset": name}}
        for name, subset in (("gans", "a"), ("copy", "a"))
    }
    more["protocols"] = {"two": {"test_sets": ["gans", "copy"]}}
    first = read_scores(score_file("gans"))
    second = first._replace(header={**first.header, "dataset": "copy"})
    mean = row_of(
        run([first, second], BenchmarkSpec.model_validate(more)),
        test_set=MEAN,
        method="RINE",
        seed=0,
        metric="acc",
    )
    assert (mean["n_real"], mean["n_fake"]) == (2 * 9, 2 * (7 + 13))


def test_without_scores_every_row_is_there_and_empty() -> None:
    metrics = run([])
    assert metrics.height == len(HEADS) * len(METRICS) * (5 + 3 + 2)
    assert set(metrics["covered"]) == {0}
    measured = ["value", "n_real", "n_fake", "n_quarantined", "trainable_parameters", *COLUMNS]
    assert metrics.select(pl.col(measured).is_null().all()).row(0) == (True,) * len(measured)
    assert set(metrics["method"]) == {"RINE", "UnivFD"}
    assert set(metrics["protocol"]) == set(BENCHMARK.protocols)
    assert set(metrics["metric"]) == set(METRICS)


def test_a_benchmark_whose_data_are_absent_stands_beside_one_that_was_scored(both: list[Scores]) -> None:
    other = BenchmarkSpec.model_validate(
        {
            "name": "elsewhere",
            "title": "Elsewhere",
            "test_sets": {"x": {"real": {"dataset": "not-here"}, "fake": {"dataset": "not-here"}}},
            "protocols": {"p": {"test_sets": ["x"]}},
        }
    )
    metrics = run(both, BENCHMARK, other)
    assert metrics.filter(benchmark="elsewhere")["value"].null_count() == len(HEADS) * len(METRICS) * 2
    assert metrics.filter(benchmark="bench")["value"].null_count() == 0


def test_scores_of_a_head_that_the_experiment_has_not_are_refused(score_file: Callable[..., Path]) -> None:
    odd = [("RINE", 0), ("RINE", 1), ("UnivFD", 0), ("UnivFD", 2)]
    with pytest.raises(
        ResultsError, match="scores of gans and the experiment disagree on head UnivFD seed 1; train and"
    ):
        run([read_scores(score_file("gans", heads=odd))])


def test_scores_that_lack_a_head_of_the_experiment_are_refused(score_file: Callable[..., Path]) -> None:
    path = score_file("gans", heads=HEADS[:3], logits=logits_of("gans")[:3])
    with pytest.raises(ResultsError, match="disagree on head UnivFD seed 1"):
        run([read_scores(path)])


def test_score_files_of_heads_trained_at_different_times_are_refused(score_file: Callable[..., Path]) -> None:
    stale = [read_scores(score_file("gans")), read_scores(score_file("diffusion", fingerprints="older"))]
    with pytest.raises(ResultsError, match="scores of diffusion are of other heads than those of gans; score both"):
        run(stale)


def in_other_order(score_file: Callable[..., Path], dataset: str) -> Scores:
    order = [2, 0, 3, 1]
    return read_scores(score_file(dataset, heads=[HEADS[index] for index in order], logits=logits_of(dataset)[order]))


def test_heads_may_stand_in_any_order_in_the_score_files(score_file: Callable[..., Path], both: list[Scores]) -> None:
    expected = run(both)
    assert run([in_other_order(score_file, "gans"), in_other_order(score_file, "diffusion")]).equals(expected)


def test_heads_may_stand_in_another_order_in_each_score_file(
    score_file: Callable[..., Path], both: list[Scores]
) -> None:
    expected = run(both)
    assert run([in_other_order(score_file, "gans"), both[1]]).equals(expected)


def test_two_score_files_of_one_data_set_and_view_are_refused(both: list[Scores]) -> None:
    with pytest.raises(ResultsError, match="gans"):
        run([both[0], both[0]._replace(logits=-both[0].logits)])


def test_a_row_tells_what_made_it_apart(score_file: Callable[..., Path]) -> None:
    def of(**changes: str) -> dict[str, str | None]:
        scores = [read_scores(score_file("gans", **changes))]
        where = {"protocol": "gans-2", "test_set": "a", "method": "RINE", "seed": 0, "metric": "acc"}
        row = row_of(run(scores), **where)
        return {column: row[column] for column in COLUMNS}

    usual, other = of(), "0" * 64
    assert usual == of()
    for argument, column in (
        ("fingerprints", "head_fingerprint"),
        ("training_fingerprint", "training_fingerprint"),
        ("encoding_fingerprint", "encoder_fingerprint"),
        ("content_digest", "data_fingerprint"),
    ):
        changed = of(**{argument: other})
        assert {name for name in COLUMNS if changed[name] != usual[name]} == {column}
    assert usual["encoder_fingerprint"] == "e" * 64
    assert usual["head_fingerprint"] == "f-RINE-0"


def test_the_mean_of_test_sets_that_were_read_alike_names_the_one_encoding(both: list[Scores]) -> None:
    rows = run(both).filter(method="RINE", seed=0, metric="acc", protocol="all-4")
    of = {row["test_set"]: row for row in rows.iter_rows(named=True)}
    assert {row["encoder_fingerprint"] for row in of.values()} == {"e" * 64}
    prints = {name: row["data_fingerprint"] for name, row in of.items()}
    assert len(set(prints.values())) == len(prints), "each test set has its own images, and so has their mean"


def test_a_score_file_reads_back_what_was_written(score_file: Callable[..., Path]) -> None:
    logits = logits_of("gans")
    logits[:, 3] = np.nan
    scores = read_scores(score_file("gans", logits=logits))
    np.testing.assert_array_equal(scores.logits, logits)
    assert scores.logits.dtype == np.float32
    assert scores.images["image_id"].to_list() == [image_id for image_id, _, _ in images_of("gans")]
    assert list(scores.heads) == HEADS


def test_score_files_made_by_hand_have_the_form_of_those_of_the_package(
    score_file: Callable[..., Path], make_cache: Callable[..., MadeCache], tmp_path: Path
) -> None:
    from rine_cache.features import feature_identity, open_part
    from rine_cache.heads.head import Head, HeadCard, build_network
    from rine_cache.score import ScoredImages, score
    from rine_cache.specs.training import LinearHeadSpec

    made = make_cache(per_class=3)
    part = open_part(made.features, made.manifest_path)
    spec, identity = LinearHeadSpec(kind="linear"), feature_identity(part.cache)
    head = Head(HeadCard(method="UnivFD", seed=0, head=spec, features=identity), build_network(spec, identity), "f")
    path = tmp_path / "scores.parquet"
    score([head], part, ScoredImages("images", "center224"), path, "cpu")
    by_package, by_hand = pq.read_schema(path), pq.read_schema(score_file("gans"))
    assert by_package.equals(by_hand, check_metadata=False)
    headers = [json.loads(schema.metadata[b"rine_cache"]) for schema in (by_package, by_hand)]
    assert headers[0].keys() == headers[1].keys()
    assert headers[0]["heads"][0].keys() == headers[1]["heads"][0].keys()
    scores = read_scores(path)
    expected = head.network.fc(part_embedding(made)).detach().numpy()[:, 0]
    np.testing.assert_allclose(scores.logits[0], expected, rtol=1e-5)
    assert scores.images["label"].to_list() == made.manifest.table["label"].to_list()


def part_embedding(made: MadeCache) -> Any:
    import torch

    from rine_cache.cache import FeatureCache

    return torch.from_numpy(np.array(FeatureCache(made.features).embedding[:, 0])).float()  # (N, E)


def benchmark_of(test_sets: dict[str, Any], **protocols: dict[str, Any]) -> BenchmarkSpec:
    """Make a benchmark whose protocols average all of its test sets."""
    return BenchmarkSpec.model_validate(
        {
            "name": "b",
            "title": "B",
            "test_sets": test_sets,
            "protocols": {
                name: {"test_sets": list(test_sets), **more} for name, more in (protocols or {"p": {}}).items()
            },
        }
    )


def value_and_counts(metrics: pl.DataFrame, **where: Any) -> tuple[float | None, int | None, int | None]:
    row = row_of(metrics, **{"method": "RINE", "seed": 0, "metric": "fake_acc", **where})
    return row["value"], row["n_real"], row["n_fake"]


def test_a_source_may_ask_for_a_variant(both: list[Scores]) -> None:
    test_sets = {
        name: {
            "real": {"dataset": "gans", "subsets": ["b"]},
            "fake": {"dataset": "gans", "subsets": ["b"], "variants": [*name.split("+")]},
        }
        for name in ("partial", "global", "partial+global")
    }
    metrics = run(both, benchmark_of(test_sets))
    fakes = [(index, image_id) for index, (image_id, _, _) in enumerate(images_of("gans")) if variant_of(image_id)]
    for name in test_sets:
        kept = [logits_of("gans")[0, index] > 0 for index, image_id in fakes if variant_of(image_id) in name.split("+")]
        assert value_and_counts(metrics, test_set=name) == (pytest.approx(np.mean(kept)), 4, len(kept))
    assert value_and_counts(metrics, test_set=MEAN)[1:] == (4, 13)


@pytest.mark.parametrize(
    ("fake", "warning"),
    [
        ({"subsets": ["c"]}, "gans has no subset 'c'; allowed: a, b"),
        ({"subsets": ["b"], "variants": ["globel"]}, "gans has no variant 'globel'; did you mean 'global'?"),
        ({"splits": ["val"]}, "gans has no split 'val'; allowed: test"),
        ({"subsets": ["a", "b"], "variants": ["global"]}, "gans has no fake images of subset 'a'; allowed: b"),
    ],
)
def test_what_a_test_set_names_and_is_absent_is_warned_of_and_leaves_nulls(
    both: list[Scores], caplog: pytest.LogCaptureFixture, fake: dict[str, Any], warning: str
) -> None:
    """Guards against flattering means: a test set that lost a part is not a smaller test set."""
    sides = {"real": {"dataset": "gans"}, "fake": {"dataset": "gans", **fake}}
    metrics = run(both, benchmark_of({"partly": sides, "whole": {"dataset": "gans"}}))
    assert value_and_counts(metrics, test_set="partly") == (None, None, None)
    assert value_and_counts(metrics, test_set="whole")[0] is not None
    mean = row_of(metrics, test_set=MEAN, method="RINE", seed=0, metric="acc")
    assert (mean["value"], mean["covered"], mean["test_sets"]) == (None, 1, 2)
    assert warning in caplog.text


def test_a_half_copied_generator_has_no_number_that_needs_both_classes(
    both: list[Scores], caplog: pytest.LogCaptureFixture
) -> None:
    """Guards against flattering means: the accuracy of fakes alone is not that of the test set."""
    test_sets = {"fakes-only": {"dataset": "diffusion", "subsets": ["glide"]}, "whole": {"dataset": "gans"}}
    metrics = run(both, benchmark_of(test_sets))
    where = {"method": "RINE", "seed": 0}
    rows = rows_of(metrics, **where, test_set="fakes-only")
    assert [row["metric"] for row in rows if row["value"] is not None] == ["fake_acc"]
    assert {(row["n_real"], row["n_fake"]) for row in rows} == {(0, 5)}
    covered = {row["metric"]: row["covered"] for row in rows_of(metrics, **where, test_set=MEAN)}
    assert covered == {metric: 2 if metric == "fake_acc" else 1 for metric in METRICS}
    assert "diffusion holds no real images of those that subset glide asks for" in caplog.text


def test_a_source_without_any_image_gives_empty_rows(both: list[Scores]) -> None:
    everything = {"dataset": "diffusion", "subsets": ["laion"]}
    only_fakes = {"real": {**everything, "subsets": ["glide"]}, "fake": {**everything, "subsets": ["nowhere"]}}
    metrics = run(both, benchmark_of({"x": only_fakes}))
    assert metrics["value"].null_count() == metrics.height
    assert set(metrics["covered"]) == {0}


def test_one_source_stands_for_both_classes(both: list[Scores]) -> None:
    short = benchmark_of({"x": {"dataset": "gans", "subsets": ["a"]}})
    sides = {"dataset": "gans", "subsets": ["a"]}
    assert run(both, short).equals(run(both, benchmark_of({"x": {"real": sides, "fake": sides}})))


def test_each_protocol_is_measured_through_its_own_view(score_file: Callable[..., Path]) -> None:
    scores = [
        read_scores(score_file("gans")),
        read_scores(score_file("gans", view="jpeg50", logits=-logits_of("gans"), encoding_fingerprint="d" * 64)),
    ]
    protocols: dict[str, dict[str, Any]] = {"plain": {}, "jpeg": {"view": "jpeg50"}, "absent": {"view": "resized"}}
    benchmark = benchmark_of({"x": {"dataset": "gans"}}, **protocols)
    metrics = run(scores, benchmark)
    where = {"test_set": "x", "method": "RINE", "seed": 0, "metric": "auc"}
    plain, jpeg, absent = (row_of(metrics, **where, protocol=name) for name in protocols)
    assert [row["view"] for row in (plain, jpeg, absent)] == ["center224", "jpeg50", "resized"]
    assert jpeg["value"] == pytest.approx(1 - plain["value"])
    assert (absent["value"], absent["n_real"]) == (None, None)
    assert plain["encoder_fingerprint"] != jpeg["encoder_fingerprint"]
    assert plain["data_fingerprint"] == jpeg["data_fingerprint"]
    assert benchmark.sources() == {(view, "gans") for view in ("center224", "jpeg50", "resized")}


def naive_cap(images: list[tuple[str, int, str]], dataset: str, cap: CapSpec) -> list[int]:
    """Sort every image of each class by the stated rule and keep the first ones."""
    kept = []
    for wanted in (0, 1):
        ordered = sorted(
            (hashlib.sha256(f"{cap.seed}|{dataset}|{image_id}".encode()).hexdigest(), row)
            for row, (image_id, label, _) in enumerate(images)
            if label == wanted
        )
        kept += sorted(row for _, row in ordered[: cap.per_class])
    return kept


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("per_class", [1, 4, 12, 19, 20, 1000])
def test_a_cap_keeps_the_images_that_a_sort_by_the_stated_rule_puts_first(seed: int, per_class: int) -> None:
    """Classes of 13 and 20 images: a cap between them shortens one and leaves the other whole."""
    cap = CapSpec(per_class=per_class, seed=seed)
    images = images_of("gans")
    table = pl.DataFrame(images, schema=["image_id", "label", "subset"], orient="row")
    table = table.with_columns(split=pl.lit("test"), variant=pl.lit(None, pl.String))
    pairing = pair(OneSource(dataset="gans"), cap, {"gans": table})
    assert pairing is not None
    assert [*pairing.real.rows, *pairing.fake.rows] == naive_cap(images, "gans", cap)


def test_a_capped_image_is_chosen_by_its_name_whatever_stands_around_it() -> None:
    cap = CapSpec(per_class=3)
    schema = ["image_id", "label", "subset", "split", "variant"]

    def chosen(images: list[tuple[str, int, str]]) -> set[str]:
        table = pl.DataFrame([(*image, "test", None) for image in images], schema=schema, orient="row")
        pairing = pair(OneSource(dataset="gans"), cap, {"gans": table})
        assert pairing is not None
        return set(table["image_id"].gather([*pairing.real.rows, *pairing.fake.rows]))

    images = images_of("gans")
    first = chosen(images)
    others = [image for image in images if image[0] not in first]
    assert chosen(images[::-1]) == first
    assert chosen([*others[::2], *(image for image in images if image[0] in first)]) == first


def test_a_capped_protocol_measures_and_counts_the_images_it_keeps(score_file: Callable[..., Path]) -> None:
    cap = CapSpec(per_class=6)
    images, logits = images_of("gans"), logits_of("gans")
    rows = naive_cap(images, "gans", cap)
    unread = rows[0]
    logits[:, unread] = np.nan
    benchmark = benchmark_of(
        {"x": {"dataset": "gans"}},
        all={},
        capped={"cap": {"per_class": 6}},
        reseeded={"cap": {"per_class": 6, "seed": 1}},
    )
    metrics = run([read_scores(score_file("gans", logits=logits))], benchmark)
    where = {"test_set": "x", "method": "RINE", "seed": 1, "metric": "acc"}
    row = row_of(metrics, **where, protocol="capped")
    kept = [index for index in rows if index != unread]
    assert row["value"] == pytest.approx(np.mean([(logits[1, index] > 0) == images[index][1] for index in kept]))
    assert (row["n_real"], row["n_fake"], row["n_quarantined"]) == (5, 6, 1)
    everything = row_of(metrics, **where, protocol="all")
    assert (everything["n_real"], everything["n_fake"], everything["n_quarantined"]) == (12, 20, 1)
    prints = {row_of(metrics, **where, protocol=name)["data_fingerprint"] for name in benchmark.protocols}
    assert len(prints) == 3


def test_test_sets_that_share_reals_keep_the_same_ones(both: list[Scores]) -> None:
    benchmark = BENCHMARK.model_dump()
    benchmark["protocols"] = {"p": {"test_sets": ["glide", "dalle"], "cap": {"per_class": 4}}}
    mean = value_and_counts(run(both, BenchmarkSpec.model_validate(benchmark)), test_set=MEAN)
    assert mean[1:] == (4, 8)


@pytest.mark.parametrize("content", [b"", b"not parquet"])
def test_what_is_no_score_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "scores.parquet"
    path.write_bytes(content)
    with pytest.raises(ResultsError, match=r"scores\.parquet is not a score file .*make it with `rine-cache score`"):
        read_scores(path)


def test_a_manifest_is_not_taken_for_scores(make_cache: Callable[..., MadeCache]) -> None:
    with pytest.raises(ResultsError, match=r"images\.parquet is not a score file"):
        read_scores(make_cache(per_class=1).manifest_path)


def test_a_missing_score_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"nowhere\.parquet is not a score file"):
        read_scores(tmp_path / "nowhere.parquet")


def test_metrics_are_not_taken_for_scores(tmp_path: Path, both: list[Scores]) -> None:
    path = tmp_path / "metrics.parquet"
    write_metrics(run(both), path)
    with pytest.raises(ResultsError, match="is not a score file"):
        read_scores(path)


def test_written_metrics_read_back_and_the_same_input_gives_the_same_bytes(tmp_path: Path, both: list[Scores]) -> None:
    first, second = tmp_path / "folder" / "first.parquet", tmp_path / "second.parquet"
    write_metrics(run(both), first)
    write_metrics(run(both), second)
    assert pl.read_parquet(first).equals(run(both))
    assert first.read_bytes() == second.read_bytes()
    assert [path.name for path in first.parent.iterdir()] == ["first.parquet"]


def test_training_counts_once_per_head_and_scoring_once_per_head_and_score_file(both: list[Scores]) -> None:
    sizes = [len(part.images) for part in both]
    passes = count_passes(both)
    assert passes.crops_read == len(HEADS) * (1000 + sum(sizes))
    assert passes.caches == {"training": 50, "gans": sizes[0], "diffusion": sizes[1]}
    assert count_passes([]) == EncoderPasses()


def test_score_files_without_counts_count_as_nothing(both: list[Scores]) -> None:
    for part in both:
        for counted in (part.header, *part.header["heads"]):
            del counted["passes"]
    assert count_passes(both) == EncoderPasses()
