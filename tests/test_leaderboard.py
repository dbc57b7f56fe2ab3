from __future__ import annotations

import csv
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from rine_cache import fingerprints
from rine_cache.cli.results import leaderboard as leaderboard_command
from rine_cache.duplicates import find_duplicates, write_duplicates
from rine_cache.errors import ResultsError
from rine_cache.evaluate import SCHEMA as METRICS_SCHEMA
from rine_cache.evaluate import evaluate, write_metrics
from rine_cache.leaderboard import SCHEMA, build_leaderboard, count_all_passes, read_leaderboard, write_leaderboard
from rine_cache.metrics import METRICS
from rine_cache.passes import EncoderPasses, read_passes
from rine_cache.published import COLUMNS
from rine_cache.sampling_error import SamplingError, as_replicates
from rine_cache.specs.base import parse, read_yaml
from rine_cache.specs.benchmark import MEAN, BenchmarkSpec
from rine_cache.specs.config import load_config
from rine_cache.specs.data import TrainingSetSpec
from tests.audits import made_audit

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = ROOT / "config" / "published.csv"
GENIMAGE = BenchmarkSpec.model_validate(
    {
        "name": "genimage",
        "title": "GenImage",
        "test_sets": {
            name: {"real": {"dataset": "genimage"}, "fake": {"dataset": "genimage"}}
            for name in ("adm", "glide", "vqdm")
        },
        "protocols": {"genimage-3": {"test_sets": ["adm", "glide", "vqdm"]}, "genimage-1": {"test_sets": ["adm"]}},
    }
)
MEASURED: dict[str, Any] = {
    "experiment": "main",
    "benchmark": "genimage",
    "protocol": "genimage-3",
    "training_set": "genimage-sdv14",
    "method": "RINE",
    "seed": 0,
    "test_set": MEAN,
    "metric": "acc",
    "value": 0.8,
    "covered": 3,
    "test_sets": 3,
    "n_real": 100,
    "n_fake": 90,
    "n_quarantined": 2,
    "encoder": "clip-vit-l14",
    "weights": "openai",
    "tap": "ln_2",
    "view": "center224",
    "blocks": "all",
    "head": "rine",
    "trainable_parameters": 1000,
    "oracle": False,
    "note": None,
    "published_as": None,
    "data_fingerprint": "d" * 64,
    "encoder_fingerprint": "e" * 64,
    "training_fingerprint": "t" * 64,
    "head_fingerprint": "f" * 64,
    "code_version": "0.1.0",
}
PUBLISHED_ROW: dict[str, Any] = {
    "benchmark": "genimage",
    "protocol": "genimage-3",
    "training_set": "genimage-sdv14",
    "method": "NPR",
    "test_set": MEAN,
    "metric": "acc",
    "value": 70.0,
    "source_kind": "primary",
    "note": "",
    "source": "a paper",
    "benchmark_as_published": "GenImage",
    "protocol_as_published": "3 gens",
    "test_set_as_published": "Avg.",
    "metric_as_published": "Acc",
}


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., pl.DataFrame]:
    """Build a leaderboard of rows that differ from `MEASURED` and `PUBLISHED_ROW` in what is given."""

    def make(
        measured: list[dict[str, Any]],
        published: list[dict[str, Any]] | None = None,
        benchmark: BenchmarkSpec = GENIMAGE,
    ) -> pl.DataFrame:
        metrics, numbers = tmp_path / "metrics.parquet", tmp_path / "published.csv"
        rows = [{**MEASURED, "head_fingerprint": f"{index:064d}", **row} for index, row in enumerate(measured)]
        write_metrics(pl.DataFrame(rows, schema=METRICS_SCHEMA), metrics)
        with numbers.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows({**PUBLISHED_ROW, **row} for row in published or [])
        return build_leaderboard([metrics] if measured else [], [numbers] if published else [], [benchmark])

    return make


@pytest.fixture(scope="module")
def benchmarks() -> list[BenchmarkSpec]:
    """Read every benchmark file there is."""
    paths = sorted((ROOT / "config" / "benchmarks").glob("*.yaml"))
    return [parse(BenchmarkSpec, read_yaml(path), str(path)) for path in paths]


@pytest.fixture(scope="module")
def committed(benchmarks: list[BenchmarkSpec]) -> pl.DataFrame:
    return build_leaderboard([], [PUBLISHED], benchmarks)


def ranks(table: pl.DataFrame, column: str = "method") -> dict[Any, int | None]:
    return dict(table.select(column, "rank").iter_rows())


def test_columns_are_those_of_the_schema_whatever_it_is_made_of(build: Callable[..., pl.DataFrame]) -> None:
    assert build([], []).schema == SCHEMA
    assert build([{}]).schema == SCHEMA
    assert build([], [{}]).schema == SCHEMA
    assert build([{}], [{}]).schema == SCHEMA
    assert build([{}], [{}]).height == 2


def test_seeds_become_their_mean_and_sample_standard_deviation_in_percent(build: Callable[..., pl.DataFrame]) -> None:
    values = [0.70, 0.80, 0.95]
    (row,) = build([{"seed": seed, "value": value} for seed, value in enumerate(values)]).to_dicts()
    assert row["value"] == pytest.approx(100 * statistics.mean(values))
    assert row["std"] == pytest.approx(100 * statistics.stdev(values))
    assert row["seed_count"] == 3


def test_one_seed_has_no_standard_deviation(build: Callable[..., pl.DataFrame]) -> None:
    (row,) = build([{"value": 0.5}]).to_dicts()
    assert (row["value"], row["std"], row["seed_count"]) == (50.0, None, 1)


def test_a_seed_without_a_value_leaves_the_row_without_one(build: Callable[..., pl.DataFrame]) -> None:
    """Guards against flattering means: the other seeds' mean is not the method's."""
    (row,) = build([{"seed": 0, "value": 0.9}, {"seed": 1, "value": None, "covered": 2}]).to_dicts()
    assert (row["value"], row["std"], row["rank"]) == (None, None, None)
    assert row["coverage"] == "2/3"


def test_intervals_and_differences_to_the_best_are_in_percent(build: Callable[..., pl.DataFrame]) -> None:
    shared = np.random.default_rng(0).normal(0, 0.02, 500)

    def error(low: float, high: float, draws: int) -> dict[str, Any]:
        own = np.random.default_rng(draws).normal(0, 0.002, 500)
        replicates = as_replicates((shared + own).astype(np.float16))
        return SamplingError(low, high, "Wilson", 190, 2, "x", replicates)._asdict()

    best = {"method": "best", "value": 0.9, **error(0.865, 0.935, 1)}
    seeds = [{"method": "RINE", "seed": seed, "value": 0.8 + seed / 50, **error(0.77, 0.84, 2)} for seed in (0, 1)]
    seeds[1]["replicates"] = None
    table = build([best, *seeds])
    found = {row["method"]: row for row in table.iter_rows(named=True)}
    assert (found["RINE"]["ci_low"], found["RINE"]["ci_high"]) == pytest.approx((77, 84))
    assert found["RINE"]["std"] == pytest.approx(100 * 0.02 / 2**0.5)
    assert found["RINE"]["best_difference"] == pytest.approx(-9)
    assert -10 < found["RINE"]["best_difference_low"] < -9 < found["RINE"]["best_difference_high"] < -8
    assert [found[method]["tied_with_best"] for method in ("best", "RINE")] == [True, False]
    undefined = build([best, seeds[0], {**seeds[1], "value": None}]).filter(method="RINE")
    assert undefined.select("ci_low", "ci_high", "ci_method", "best_difference", "tied_with_best").row(0) == (None,) * 5


def test_a_published_row_has_no_interval_and_no_comparison(build: Callable[..., pl.DataFrame]) -> None:
    table = build([{}], [{}]).filter(kind="published")
    assert table.select("ci_low", "ci_high", "ci_method", "best_difference", "tied_with_best").row(0) == (None,) * 5


def test_a_measured_row_says_what_it_is_of(build: Callable[..., pl.DataFrame]) -> None:
    (row,) = build([{"note": "tuned"}]).to_dicts()
    carried = ("benchmark", "protocol", "training_set", "method", "test_set", "metric", "n_real", "n_fake", "encoder")
    carried += ("n_quarantined", "weights", "tap", "view", "blocks", "head", "trainable_parameters", "code_version")
    assert {name: row[name] for name in carried} == {name: MEASURED[name] for name in carried}
    assert (row["kind"], row["source_kind"], row["source"], row["note"]) == (
        *("measured", "measured", "rine-cache 0.1.0", "tuned"),
    )
    assert row["coverage"] == "3/3"


@pytest.mark.parametrize("column", fingerprints.COLUMNS)
def test_a_measured_rows_fingerprints_follow_each_seeds_but_not_their_order(
    build: Callable[..., pl.DataFrame], column: str
) -> None:
    def of(*digests: str | None) -> str | None:
        rows = [{"seed": seed, column: digest} for seed, digest in enumerate(digests)]
        found: str | None = build(rows)[column][0]
        return found

    assert of("a", "b") == of("b", "a")
    assert len({of("a", "b"), of("a", "c"), of("a")}) == 3
    assert of("1" * 64, "1" * 64) == "1" * 16, "the digest that all share is kept, as `rine-cache info` shows it"
    assert of(None) is None


def test_a_published_row_keeps_its_own_words(build: Callable[..., pl.DataFrame]) -> None:
    (row,) = build([], [{"note": "resized"}]).to_dicts()
    expected = {**PUBLISHED_ROW, "note": "resized", "kind": "published", "coverage": "3/3", "rank": 1, "std": None}
    assert {name: row[name] for name in expected} == expected


def test_a_published_row_carries_our_value_with_its_interval_and_what_differs(
    build: Callable[..., pl.DataFrame],
) -> None:
    ours = {"value": 0.8, "ci_low": 0.78, "ci_high": 0.83, "n_quarantined": 2}
    rows = [
        {"method": "RINE", "value": 84.0, "source": "far"},
        {"method": "RINE", "value": 82.5, "source": "near", "note": "PNG"},
        {"method": "RINE", "value": 84.0, "source": "unstated", "training_set": ""},
        {"method": "NPR", "value": 84.0, "source": "other"},
    ]
    table = build([ours], rows)
    found = {row["source"]: row for row in table.filter(kind="published").iter_rows(named=True)}
    names = [f"measured_{name}" for name in ("method", "verdict")]
    numbers = [f"measured_{name}" for name in ("value", "ci_low", "ci_high", "difference")]
    for source, difference, verdict in (("far", -4.0, "disagrees"), ("near", -2.5, "agrees")):
        assert [found[source][name] for name in names] == ["RINE", verdict]
        assert [found[source][name] for name in numbers] == pytest.approx([80.0, 78.0, 83.0, difference])
    assert found["near"]["measured_remarks"].startswith("the source: PNG; ours: through center224")
    assert "2 of our images could not be read" in found["far"]["measured_remarks"]
    for nothing in (
        found["unstated"],
        found["other"],
        table.row(by_predicate=pl.col("kind") == "measured", named=True),
    ):
        assert [nothing[name] for name in (*names, *numbers, "measured_remarks")] == [None] * 7


def test_a_published_row_prefers_the_method_of_its_id_to_those_that_are_held_against_it(
    build: Callable[..., pl.DataFrame],
) -> None:
    official = {"method": "A-official", "published_as": "RINE", "value": 0.7}
    retrained = {"method": "RINE", "value": 0.8}
    for methods, expected in (([official, retrained], ("RINE", 80.0)), ([official], ("A-official", 70.0))):
        (row,) = build(methods, [{"method": "RINE", "value": 71.0}]).filter(kind="published").to_dicts()
        assert (row["measured_method"], row["measured_value"]) == (expected[0], pytest.approx(expected[1]))
    assert row["measured_remarks"].startswith("published as RINE")


def test_measured_and_published_rows_are_ranked_together(build: Callable[..., pl.DataFrame]) -> None:
    published = [{"method": "NPR", "value": 79.9}, {"method": "AIDE", "value": 86.9}]
    assert ranks(build([{"value": 0.8}], published)) == {"AIDE": 1, "RINE": 2, "NPR": 3}


@pytest.mark.parametrize(
    ("column", "other"),
    [
        ("benchmark", "chameleon"),
        ("protocol", "genimage-1"),
        ("training_set", "progan"),
        ("test_set", "adm"),
        ("metric", "ap"),
    ],
)
def test_rows_that_cannot_be_compared_are_ranked_apart(
    build: Callable[..., pl.DataFrame], column: str, other: str
) -> None:
    here = {"value": 0.9}
    there = {"value": 0.8, column: other, "covered": 1, "test_sets": 1}
    assert ranks(build([here, there]), column) == {MEASURED[column]: 1, other: 1}


def test_ties_share_a_rank_and_the_next_is_skipped(build: Callable[..., pl.DataFrame]) -> None:
    rows = [{"method": name, "value": value} for name, value in (("a", 0.9), ("b", 0.8), ("c", 0.8), ("d", 0.7))]
    assert ranks(build(rows)) == {"a": 1, "b": 2, "c": 2, "d": 4}


@pytest.mark.parametrize(
    "unrankable",
    [
        pytest.param({"source_kind": "aggregator"}, id="aggregator"),
        pytest.param({"training_set": ""}, id="training set not stated"),
        pytest.param({"note": "threshold shifted on labelled data"}, id="oracle"),
        pytest.param({"note": "threshold shifted without labels"}, id="fitted without labels"),
        pytest.param({"note": "threshold shifted on labelled data; resized"}, id="oracle with a second note"),
    ],
)
def test_published_numbers_that_are_never_ranked(
    build: Callable[..., pl.DataFrame], unrankable: dict[str, Any]
) -> None:
    table = build(
        [{"value": 0.6}], [{"method": "best", "value": 99.0, **unrankable}, {"method": "fair", "value": 70.0}]
    )
    assert ranks(table) == {"best": None, "fair": 1, "RINE": 2}


def test_a_published_number_is_an_oracle_where_its_threshold_was_fitted(build: Callable[..., pl.DataFrame]) -> None:
    rows = [{"method": "a", "note": "threshold shifted on labelled data"}, {"method": "b", "note": "resized"}]
    table = build([{}], [*rows, {"method": "c"}])
    assert dict(table.select("method", "oracle").iter_rows()) == {"a": True, "b": False, "c": False, "RINE": False}


# What needs no encoder and no head, and was fitted on the test data.
METADATA_ONLY = {
    "experiment": "metadata-only",
    "method": "metadata-only",
    "training_set": None,
    "oracle": True,
    "value": 0.99,
    **dict.fromkeys(("encoder", "weights", "tap", "view", "blocks", "head", "trainable_parameters")),
}


@pytest.mark.parametrize("training_set", [None, "genimage-sdv14"])
def test_what_was_fitted_on_the_test_data_is_never_ranked_and_needs_no_encoder(
    build: Callable[..., pl.DataFrame], training_set: str | None
) -> None:
    table = build([{"value": 0.6}, {**METADATA_ONLY, "training_set": training_set}], [{}])
    assert ranks(table) == {"metadata-only": None, "NPR": 1, "RINE": 2}
    (row,) = table.filter(method="metadata-only").to_dicts()
    assert (row["kind"], row["oracle"], row["value"], row["seed_count"]) == ("measured", True, 99.0, 1)
    assert (row["encoder"], row["weights"], row["view"], row["note"]) == (None,) * 4


def test_random_weights_are_marked_and_never_ranked(build: Callable[..., pl.DataFrame]) -> None:
    rows = [
        {"method": "plumbing", "value": 0.99, "weights": "random"},
        {"method": "noted", "value": 0.98, "weights": "random", "note": "mine"},
        {"method": "RINE", "value": 0.6},
    ]
    table = build(rows)
    assert ranks(table) == {"plumbing": None, "noted": None, "RINE": 1}
    assert dict(table.select("method", "note").iter_rows()) == {
        "plumbing": "random weights: plumbing only",
        "noted": "random weights: plumbing only; mine",
        "RINE": None,
    }


def test_a_benchmark_that_is_no_result_is_never_ranked(build: Callable[..., pl.DataFrame]) -> None:
    toy = GENIMAGE.model_copy(update={"ranked": False})
    assert ranks(build([{"value": 0.9}], [{}], toy)) == {"RINE": None, "NPR": None}


def test_partial_coverage_is_never_ranked(build: Callable[..., pl.DataFrame]) -> None:
    """Guards against flattering means: a method measured on the easy test sets alone must not lead them."""
    partial = {"method": "partial", "test_set": "adm", "value": 0.99, "covered": 2}
    whole = {"method": "whole", "test_set": "adm", "value": 0.8}
    assert ranks(build([partial, whole])) == {"partial": None, "whole": 1}


def test_a_source_that_states_some_test_sets_covers_those(build: Callable[..., pl.DataFrame]) -> None:
    rows = [{"test_set": "adm", "value": 99.0}, {"test_set": "glide", "value": 98.0}]
    table = build([], rows)
    assert set(table["coverage"]) == {"2/3"}
    assert set(table["rank"]) == {None}


def test_a_source_that_states_every_test_set_or_the_mean_covers_the_protocol(
    build: Callable[..., pl.DataFrame],
) -> None:
    every = [{"method": "every", "test_set": name} for name in ("adm", "glide", "vqdm")]
    mean = [{"method": "mean", "test_set": name} for name in ("adm", MEAN)]
    table = build([], [*every, *mean])
    assert set(table["coverage"]) == {"3/3"}
    assert table["rank"].null_count() == 0


def test_coverage_is_counted_per_metric_and_source(build: Callable[..., pl.DataFrame]) -> None:
    rows = [
        {"metric": "acc", "test_set": MEAN},
        {"metric": "ap", "test_set": "adm"},
        {"metric": "acc", "test_set": "adm", "source": "another paper"},
    ]
    table = build([], rows)
    assert table.sort("source", "metric").select("source", "metric", "coverage").rows() == [
        ("a paper", "acc", "3/3"),
        ("a paper", "ap", "1/3"),
        ("another paper", "acc", "1/3"),
    ]


def test_the_coverage_of_a_protocol_that_no_benchmark_defines_is_not_known(build: Callable[..., pl.DataFrame]) -> None:
    (row,) = build([], [{"protocol": "genimage-9"}]).to_dicts()
    assert (row["coverage"], row["rank"]) == (None, None)


def test_rows_are_ordered_with_the_mean_first_and_the_best_first(build: Callable[..., pl.DataFrame]) -> None:
    rows = [
        {"method": "a", "test_set": "adm", "value": 0.9},
        {"method": "none", "value": None, "covered": 0},
        {"method": "b", "value": 0.7},
        {"method": "c", "value": 0.8},
    ]
    order = build(rows).select("test_set", "method").rows()
    assert order == [(MEAN, "c"), (MEAN, "b"), (MEAN, "none"), ("adm", "a")]


@pytest.mark.parametrize(
    ("benchmark", "protocol", "test_set", "metric", "value"),
    [
        ("genimage", "genimage-8", MEAN, "acc", 81.78),
        ("chameleon", "chameleon", "chameleon", "acc", 58.54),
        ("opensdid", "opensdid-5", "sd15", "f1", 91.08),
        ("opensdid", "opensdid-5", "sd2", "f1", 87.47),
        ("opensdid", "opensdid-5", "sdxl", "f1", 73.43),
        ("opensdid", "opensdid-5", "sd3", "f1", 72.05),
        ("opensdid", "opensdid-5", "flux", "f1", 55.86),
        ("opensdid", "opensdid-5", MEAN, "f1", 75.98),
    ],
)
def test_the_published_results_of_rine_are_there(
    committed: pl.DataFrame, benchmark: str, protocol: str, test_set: str, metric: str, value: float
) -> None:
    rows = committed.filter(
        method="RINE", benchmark=benchmark, protocol=protocol, test_set=test_set, metric=metric, value=value
    )
    assert not rows.is_empty()
    assert set(rows["kind"]) == {"published"}
    if benchmark == "opensdid":
        assert rows.select("source_kind", "training_set", "coverage").rows() == [("primary", "opensdid-sd15", "5/5")]
        assert rows["rank"].null_count() == 0


def test_the_aggregators_two_results_of_rine_on_progan_are_there_and_not_ranked(committed: pl.DataFrame) -> None:
    rows = committed.filter(
        method="RINE", benchmark="universalfakedetect", protocol="ufd-19", test_set="progan", metric="acc"
    )
    assert rows.select("value", "source_kind", "coverage", "rank").rows() == [(100.0, "aggregator", "1/19", None)] * 2


def test_every_published_number_is_in_the_leaderboard_once(committed: pl.DataFrame) -> None:
    with PUBLISHED.open(newline="", encoding="utf-8") as file:
        numbers = [
            (*(row[name] or None for name in COLUMNS if name != "value"), row["value"]) for row in csv.DictReader(file)
        ]
    names = [name for name in COLUMNS if name != "value"]
    found = [(*row[:-1], row[-1]) for row in committed.select(*names, "value").iter_rows()]

    def key(row: tuple[Any, ...]) -> tuple[str, ...]:
        return tuple(str(field) for field in row)

    assert sorted(found, key=key) == sorted([(*row[:-1], float(row[-1])) for row in numbers], key=key)


def test_published_numbers_are_of_their_protocols_test_sets_and_training_sets(
    committed: pl.DataFrame, benchmarks: list[BenchmarkSpec]
) -> None:
    """Guards the ids: a number under another id than the benchmark file's would never meet a measured one."""
    protocols = {
        (benchmark.name, name): protocol for benchmark in benchmarks for name, protocol in benchmark.protocols.items()
    }
    numbers = committed.select("benchmark", "protocol", "test_set", "training_set").unique()
    found = set()
    for benchmark, name, test_set, training_set in numbers.iter_rows():
        if protocol := protocols.get((benchmark, name)):
            found.add((benchmark, name))
            assert test_set in (MEAN, *protocol.test_sets), (benchmark, name)
            assert training_set in (None, *protocol.training_sets), (benchmark, name)
    assert {name for _, name in found} == {
        *("ufd-19", "rine-20", "forensynths-8", "forensynths-13", "genimage-8", "genimage-7"),
        *("chameleon", "opensdid-5", "synthbuster-9", "aigc-16", "aigc-17"),
    }


def test_no_number_of_the_committed_table_is_ranked_that_must_not_be(committed: pl.DataFrame) -> None:
    ranked = committed.filter(pl.col("rank").is_not_null())
    assert ranked.height > 100
    assert "aggregator" not in set(ranked["source_kind"])
    assert ranked["training_set"].null_count() == 0
    assert not any("threshold" in note for note in ranked["note"].drop_nulls())
    assert not ranked["oracle"].any()
    assert all(covered == of for covered, of in (text.split("/") for text in ranked["coverage"]))


def test_benchmarks_that_are_not_on_this_machine_give_every_method_nulls(
    benchmarks: list[BenchmarkSpec], tmp_path: Path
) -> None:
    config = load_config(ROOT / "config" / "config.yaml")
    experiment = config.experiments["sample"]
    path = tmp_path / "metrics.parquet"
    write_metrics(evaluate("sample", experiment, config.encoders[experiment.encoder], benchmarks, []), path)
    table = build_leaderboard([path], [], benchmarks)
    assert table["value"].null_count() == table["rank"].null_count() == table["seed_count"].null_count() == table.height
    for benchmark in benchmarks:
        for protocol, spec in benchmark.protocols.items():
            rows = table.filter(benchmark=benchmark.name, protocol=protocol)
            assert set(rows["coverage"]) == {f"0/{len(spec.test_sets)}"}
            found = set(rows.select("method", "test_set", "metric").iter_rows())
            assert found == {
                (method, test_set, metric)
                for method in experiment.methods
                for test_set in (MEAN, *spec.test_sets)
                for metric in METRICS
            }


def test_one_method_measured_by_two_experiments_is_refused(tmp_path: Path) -> None:
    """Its row could be either's; averaging them would be a third thing."""
    paths = [tmp_path / "one.parquet", tmp_path / "two.parquet"]
    for path in paths:
        write_metrics(pl.DataFrame([{**MEASURED, "experiment": path.stem}], schema=METRICS_SCHEMA), path)
    with pytest.raises(ResultsError) as caught:
        build_leaderboard(paths, [], [GENIMAGE])
    assert str(caught.value) == (
        "method 'RINE' trained on 'genimage-sdv14' is measured by experiments one and two; "
        "give it another id in one of them"
    )


def test_one_method_on_two_training_sets_is_two_methods(tmp_path: Path) -> None:
    paths = [tmp_path / "one.parquet", tmp_path / "two.parquet"]
    for path in paths:
        changes = {"experiment": path.stem, "training_set": path.stem}
        write_metrics(pl.DataFrame([{**MEASURED, **changes}], schema=METRICS_SCHEMA), path)
    assert build_leaderboard(paths, [], [GENIMAGE])["training_set"].to_list() == ["one", "two"]


def test_metrics_given_twice_are_refused_or_counted_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.parquet"
    rows = [{**MEASURED, "seed": seed, "value": value} for seed, value in enumerate((0.7, 0.9))]
    write_metrics(pl.DataFrame(rows, schema=METRICS_SCHEMA), path)
    try:
        twice = build_leaderboard([path, path], [], [GENIMAGE])
    except ResultsError:
        return
    assert twice["std"].to_list() == pytest.approx(build_leaderboard([path], [], [GENIMAGE])["std"].to_list())


def test_commands_take_a_benchmark_as_a_file_or_as_json(tmp_path: Path) -> None:
    specification = GENIMAGE.model_dump_json()
    (tmp_path / "genimage.yaml").write_text(specification, encoding="utf-8")
    metrics = tmp_path / "metrics.parquet"
    write_metrics(pl.DataFrame([MEASURED], schema=METRICS_SCHEMA), metrics)
    written = []
    for benchmark in (str(tmp_path / "genimage.yaml"), specification):
        out = tmp_path / f"{len(written)}.parquet"
        arguments = ["build", "--metrics", str(metrics), "--benchmark", benchmark, "--out", str(out)]
        CliRunner().invoke(leaderboard_command, arguments, catch_exceptions=False)
        written.append(out.read_bytes())
    assert written[0] == written[1]
    assert read_leaderboard(out)["rank"].to_list() == [1]


@pytest.mark.parametrize("content", [b"", b"text"])
def test_what_holds_no_metrics_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "metrics.parquet"
    path.write_bytes(content)
    with pytest.raises(ResultsError, match=r"metrics\.parquet is not a file of metrics .*make it"):
        build_leaderboard([path], [], [GENIMAGE])


def test_parquet_of_something_else_is_no_metrics_and_no_leaderboard(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    pl.DataFrame({"a": [1]}).write_parquet(path)
    with pytest.raises(ResultsError, match="a file of metrics of this version: it lacks the column 'experiment'"):
        build_leaderboard([path], [], [GENIMAGE])
    with pytest.raises(ResultsError, match="is not a leaderboard of this version: it lacks the column 'kind'"):
        read_leaderboard(path)


def test_a_missing_leaderboard_is_named_with_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"nowhere\.parquet is not a leaderboard .*make it with `snakemake`"):
        read_leaderboard(tmp_path / "nowhere.parquet")


def test_a_written_leaderboard_reads_back_as_it_was(committed: pl.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "results" / "leaderboard.parquet"
    write_leaderboard(committed, path)
    assert read_leaderboard(path).equals(committed)
    assert [file.name for file in path.parent.iterdir()] == ["leaderboard.parquet"]


def test_the_same_input_gives_the_same_bytes(benchmarks: list[BenchmarkSpec], tmp_path: Path) -> None:
    config = load_config(ROOT / "config" / "config.yaml")
    experiment = config.experiments["sample"]
    metrics = evaluate("sample", experiment, config.encoders[experiment.encoder], benchmarks, [])
    filled = metrics.with_columns(
        value=pl.int_range(pl.len()) % 17 / 17, covered="test_sets", head_fingerprint=pl.lit("f")
    )
    write_metrics(filled, tmp_path / "metrics.parquet")
    written = []
    for attempt in range(3):
        path = tmp_path / f"{attempt}.parquet"
        write_leaderboard(build_leaderboard([tmp_path / "metrics.parquet"], [PUBLISHED], benchmarks), path)
        written.append(path.read_bytes())
    assert written[0] == written[1] == written[2]


def test_leaked_images_stand_beside_what_was_measured_on_them(tmp_path: Path) -> None:
    rows = [
        {**MEASURED, "test_set": name, "head_fingerprint": name, "training_set": "mine"}
        for name in ("gen", "other", MEAN)
    ]
    bench = BenchmarkSpec.model_validate(
        {
            "name": "genimage",
            "title": "x",
            "test_sets": {"gen": {"dataset": "test"}, "other": {"dataset": "clean"}},
            "protocols": {"genimage-3": {"test_sets": ["gen", "other"]}},
        }
    )
    training_set = TrainingSetSpec.model_validate(
        {"train": [{"dataset": "photos", "view": "x"}], "validation": [{"dataset": "photos", "view": "x"}]}
    )
    flat = {"perceptual_hash": None}  # compared by bytes only
    photos = made_audit("photos", [{"label": 0, "content": "a", **flat}])
    clean = made_audit("clean", [{"label": 0, **flat}, {"label": 1, **flat}])
    test = made_audit("test", [{"label": 0, "content": "a", **flat}, {"label": 1, **flat}])
    write_duplicates(find_duplicates([photos, clean, test], {"mine": training_set}, [bench]), tmp_path / "d.parquet")
    write_metrics(pl.DataFrame(rows, schema=METRICS_SCHEMA), tmp_path / "m.parquet")
    table = build_leaderboard([tmp_path / "m.parquet"], [], [bench], tmp_path / "d.parquet")
    leaked = dict(table.select("test_set", "n_leaked").iter_rows())
    # The image stands in both sides of the training set, and counts once. A mean is over images that are counted with
    # their test sets.
    assert leaked == {"gen": 1, "other": 0, MEAN: None}
    assert build_leaderboard([tmp_path / "m.parquet"], [], [bench])["n_leaked"].null_count() == 3


def test_what_metrics_read_adds_up_and_shared_caches_count_once(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.parquet" for name in ("one", "two", "metadata-only")]
    counts = [EncoderPasses(crops_read=90, caches={"a": 4, "b": 2}), EncoderPasses(crops_read=7, caches={"b": 2})]
    for path, passes in zip(paths, [*counts, EncoderPasses()], strict=True):
        write_metrics(pl.DataFrame([MEASURED], schema=METRICS_SCHEMA), path, passes)
    total = count_all_passes(paths)
    assert total == EncoderPasses(crops_read=97, caches={"a": 4, "b": 2})
    assert count_all_passes([]) == EncoderPasses()
    write_leaderboard(pl.DataFrame(schema=SCHEMA), tmp_path / "l.parquet", total)
    assert read_passes(tmp_path / "l.parquet") == total
    with pytest.raises(ResultsError, match=r"cannot read the header of .*nowhere\.parquet"):
        count_all_passes([tmp_path / "nowhere.parquet"])
