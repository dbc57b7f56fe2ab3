"""The leaderboard: measured and published numbers in one long table, one number a row, in percent.

Measured rows are means over seeds with their spread, an interval that says how much the images alone leave open, and
the difference to the best method on the same images. Rows are ranked only where they can be compared: within
one benchmark, protocol, training set, test set and metric, and with full coverage. The sample, random weights,
oracles (whatever was fitted on test data), aggregators and rows whose training set nobody states are never
ranked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from rine_cache import fingerprints
from rine_cache.duplicates import read_leaks
from rine_cache.errors import ResultsError
from rine_cache.evaluate import read_metrics
from rine_cache.files import written_whole
from rine_cache.passes import NOTHING_READ, EncoderPasses, read_passes, total_passes, write_with_passes
from rine_cache.published import STATEMENT, read_published
from rine_cache.published_differences import beside_published
from rine_cache.specs.benchmark import ERRORS, MEAN
from rine_cache.tables import read_table
from rine_cache.ties import with_ties

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rine_cache.specs.benchmark import BenchmarkSpec

SCHEMA = pl.Schema(
    {
        "kind": pl.String,
        "benchmark": pl.String,
        "protocol": pl.String,
        "training_set": pl.String,
        "method": pl.String,
        "test_set": pl.String,
        "metric": pl.String,
        "value": pl.Float64,
        "std": pl.Float64,
        "ci_low": pl.Float64,
        "ci_high": pl.Float64,
        "ci_method": pl.String,
        "best_difference": pl.Float64,
        "best_difference_low": pl.Float64,
        "best_difference_high": pl.Float64,
        "best_p_value": pl.Float64,
        "tied_with_best": pl.Boolean,
        "seed_count": pl.Int64,
        "rank": pl.Int64,
        "coverage": pl.String,
        "n_real": pl.Int64,
        "n_fake": pl.Int64,
        "n_quarantined": pl.Int64,
        "n_leaked": pl.Int64,
        "encoder": pl.String,
        "weights": pl.String,
        "tap": pl.String,
        "view": pl.String,
        "blocks": pl.String,
        "head": pl.String,
        "trainable_parameters": pl.Int64,
        "source_kind": pl.String,
        "oracle": pl.Boolean,
        "note": pl.String,
        "source": pl.String,
        "benchmark_as_published": pl.String,
        "protocol_as_published": pl.String,
        "test_set_as_published": pl.String,
        "metric_as_published": pl.String,
        "published_as": pl.String,
        "measured_method": pl.String,
        "measured_value": pl.Float64,
        "measured_ci_low": pl.Float64,
        "measured_ci_high": pl.Float64,
        "measured_difference": pl.Float64,
        "measured_verdict": pl.String,
        "measured_remarks": pl.String,
        "code_version": pl.String,
        **dict.fromkeys(fingerprints.COLUMNS, pl.String),
    }
)
KEYS = ("benchmark", "protocol", "training_set", "test_set", "metric")
# What a published number says whose threshold was fitted on the test data: an oracle.
_ORACLE_NOTE = "threshold shifted"


def build_leaderboard(
    metrics: Sequence[Path],
    published: Sequence[Path],
    benchmarks: Sequence[BenchmarkSpec],
    duplicates: Path | None = None,
) -> pl.DataFrame:
    """Join measured and published numbers.

    Parameters
    ----------
    metrics
        Metric files, one per experiment.
    published
        CSV files of published numbers.
    benchmarks
        Say how many test sets a protocol has, and which benchmarks may be ranked.
    duplicates
        What `rine-cache dataset duplicates` found: how many images of a test set stand in a training set. Null for
        those that were not compared.

    Returns
    -------
    Rows of `SCHEMA`, in a fixed order.

    Raises
    ------
    ResultsError
        If a file is missing or malformed, or two experiments measured the same method differently.
    """
    protocols = {
        (benchmark.name, protocol): spec.test_sets
        for benchmark in benchmarks
        for protocol, spec in benchmark.protocols.items()
    }
    unranked = [benchmark.name for benchmark in benchmarks if not benchmark.ranked]
    measured = _measured(metrics)
    if duplicates is not None and not measured.is_empty():
        measured = measured.join(read_leaks(duplicates), on=["training_set", "benchmark", "test_set"], how="left")
    tables = [pl.DataFrame(schema=SCHEMA), measured, _published(published, protocols)]
    rows = pl.concat(tables, how="diagonal")  # what only one kind has is null for the other
    rows = _beside_measured(_ranked(rows, unranked), benchmarks)
    return rows.select(SCHEMA.names()).sort(*_order(), nulls_last=True, maintain_order=True)


def count_all_passes(metrics: Sequence[Path]) -> EncoderPasses:
    """Count what was read from caches for metric files: each cache once, however many experiments read it.

    Raises
    ------
    ResultsError
        If a file cannot be read.
    """
    return total_passes(read_passes(path) for path in metrics)


def write_leaderboard(leaderboard: pl.DataFrame, path: Path, passes: EncoderPasses = NOTHING_READ) -> None:
    """Write the leaderboard as Parquet, and what was read from caches for it."""
    write_with_passes(leaderboard, passes, path)


def write_csv(leaderboard: pl.DataFrame, path: Path) -> None:
    """Write the leaderboard's rows for spreadsheets; an empty field is null."""
    with written_whole(path) as temporary:
        leaderboard.write_csv(temporary)


def read_leaderboard(path: Path) -> pl.DataFrame:
    """Read a leaderboard.

    Raises
    ------
    ResultsError
        If there is none at `path`, or one of another version.
    """
    return read_table(path, SCHEMA.names(), what="a leaderboard", make="snakemake").select(SCHEMA.names())


def _measured(paths: Sequence[Path]) -> pl.DataFrame:
    """Aggregate metric files over seeds: mean, sample standard deviation, and what the rows share."""
    if not paths:
        return pl.DataFrame()
    frame = pl.concat([read_metrics(path) for path in paths])
    _refuse_homonyms(frame)
    shared = ["n_real", "n_fake", "n_quarantined", "encoder", "weights", "tap", "view", "blocks", "head"]
    shared += ["trainable_parameters", "oracle", "note", "published_as", "code_version"]
    measured = pl.col("value").is_not_null().any()
    known = pl.col("value").is_not_null().all()
    rows = (
        frame.group_by(*KEYS, "method", maintain_order=True)
        .agg(
            *(pl.col(name).first() for name in shared),
            # One seed without a value (a metric undefined for it) makes the mean unknown, not a mean of the others.
            value=pl.when(known).then(100 * pl.col("value").mean()),
            std=pl.when(known).then(100 * pl.col("value").std()),
            **{name: pl.when(known).then(100 * pl.col(name).first()) for name in ("ci_low", "ci_high")},
            **{name: pl.when(known).then(pl.col(name).first()) for name in ("ci_method", "ci_units", "ci_strata")},
            ci_digest=pl.when(known).then(pl.col("ci_digest").first()),
            replicates=pl.when(known).then(pl.col("replicates").drop_nulls().first()),
            seed_count=pl.when(measured).then(pl.col("seed").n_unique().cast(pl.Int64)),
            coverage=pl.format("{}/{}", pl.col("covered").min(), pl.col("test_sets").first()),
            **{name: pl.col(name).drop_nulls().unique().sort() for name in fingerprints.COLUMNS},
        )
        .with_columns(
            **{name: pl.col(name).map_elements(_digest, return_dtype=pl.String) for name in fingerprints.COLUMNS},
            kind=pl.lit("measured"),
            source_kind=pl.lit("measured"),
            source=pl.format("rine-cache {}", "code_version"),
            note=pl.when(pl.col("weights") == "random")
            .then(pl.concat_str(pl.lit("random weights: plumbing only"), "note", separator="; ", ignore_nulls=True))
            .otherwise(pl.col("note")),
        )
    )
    return with_ties(rows, KEYS).drop("ci_units", "ci_strata", "ci_digest", "replicates")


def _refuse_homonyms(frame: pl.DataFrame) -> None:
    """Refuse a number that is measured twice: by two experiments, or because a file is given twice."""
    mixed = frame.group_by("training_set", "method").agg(pl.col("experiment").unique().sort())
    mixed = mixed.filter(pl.col("experiment").list.len() > 1)
    if not mixed.is_empty():
        row = mixed.row(0, named=True)
        raise ResultsError(
            f"method {row['method']!r} trained on {row['training_set']!r} is measured by experiments "
            f"{' and '.join(row['experiment'])}; give it another id in one of them"
        )
    twice = frame.filter(pl.struct(*KEYS, "method", "seed").is_duplicated())
    if not twice.is_empty():
        row = twice.row(0, named=True)
        raise ResultsError(
            f"method {row['method']!r} (seed {row['seed']}) is measured more than once by experiment "
            f"{row['experiment']!r}; give each file of metrics once"
        )


def _published(paths: Sequence[Path], protocols: dict[tuple[str, str], tuple[str, ...]]) -> pl.DataFrame:
    """Read the published numbers and say how much of its protocol each source covers.

    A source that states a protocol's mean covers it; one that does not covers the test sets it states. The
    coverage of a protocol that no benchmark file defines is not known.
    """
    if not paths:
        return pl.DataFrame()
    frame = pl.concat([read_published(path) for path in paths])
    group = ["benchmark", "protocol", "training_set", "method", "metric", "source", "protocol_as_published"]
    table = pl.DataFrame(
        [(benchmark, protocol, list(sets), len(sets)) for (benchmark, protocol), sets in protocols.items()],
        schema={"benchmark": pl.String, "protocol": pl.String, "sets": pl.List(pl.String), "size": pl.Int64},
        orient="row",
    )
    stated = pl.col("test_set").filter(pl.col("test_set").is_in(pl.col("sets"))).n_unique().over(group)
    states_mean = (pl.col("test_set") == MEAN).any().over(group)
    return (
        frame.join(table, on=["benchmark", "protocol"], how="left", maintain_order="left")
        .with_columns(covered=pl.when(states_mean).then(pl.col("size")).otherwise(stated))
        .with_columns(
            kind=pl.lit("published"),
            oracle=pl.col("note").str.contains(_ORACLE_NOTE, literal=True).fill_null(value=False),
            coverage=pl.when(pl.col("size").is_not_null()).then(pl.format("{}/{}", "covered", "size")),
        )
        .drop("sets", "size", "covered")
    )


def _beside_measured(rows: pl.DataFrame, benchmarks: Sequence[BenchmarkSpec]) -> pl.DataFrame:
    """Give published rows our value of the same method, protocol, training set, test set and metric, if there is one.

    Where several methods are held against one published number, it is that of the same id, or else of the first. A row
    whose source does not state its training set stands beside several of ours, and gets none.
    """
    pairs = beside_published(rows, benchmarks).filter(pl.col("published_training_set").is_not_null())
    others = pl.col("method") != pl.col("published_method")
    keys = ["kind", *STATEMENT, "value"]
    ours = (
        pairs.sort(others, "method")
        .select(
            *(name for name in STATEMENT if name not in ("method", "note")),
            pl.lit("published").alias("kind"),
            pl.col("published_method").alias("method"),
            pl.col("published_note").alias("note"),
            pl.col("published").alias("value"),
            pl.col("method").alias("measured_method"),
            pl.col("measured").alias("measured_value"),
            pl.col("ci_low", "ci_high", "difference", "verdict", "remarks").name.prefix("measured_"),
        )
        .unique(keys, keep="first", maintain_order=True)
    )
    bare = rows.drop(name for name in ours.columns if name.startswith("measured_"))
    return bare.join(ours, on=keys, how="left", nulls_equal=True, maintain_order="left")


def _ranked(rows: pl.DataFrame, unranked_benchmarks: Sequence[str]) -> pl.DataFrame:
    covered, of = (pl.col("coverage").str.split("/").list.get(index) for index in (0, 1))
    rankable = (
        pl.col("value").is_not_null()
        & pl.col("training_set").is_not_null()
        & (covered == of).fill_null(value=False)
        & ~pl.col("benchmark").is_in(unranked_benchmarks)
        & (pl.col("source_kind") != "aggregator")
        & pl.col("weights").ne_missing("random")
        & ~pl.col("oracle")
    )
    return rows.with_columns(
        rank=pl.when(rankable)
        .then(pl.when(rankable).then(_goodness()).rank("min", descending=True).over(*KEYS))
        .cast(pl.Int64)
    )


def _goodness() -> pl.Expr:
    """Return what is the larger, the better, whatever the metric."""
    return pl.when(pl.col("metric").is_in(list(ERRORS))).then(-pl.col("value")).otherwise(pl.col("value"))


def _order() -> list[pl.Expr]:
    """Sort by benchmark, protocol, training set, test set (the mean first), metric; best first."""
    mean_first = pl.col("test_set") != MEAN
    best_first = -_goodness()
    columns = ["benchmark", "protocol", "training_set"]
    return [*map(pl.col, columns), mean_first, pl.col("test_set"), pl.col("metric"), best_first, pl.col("method")]


def _digest(of_seeds: pl.Series) -> str | None:
    """Shorten to what tells thousands apart, and begins like the digest that `rine-cache info` shows."""
    joint = fingerprints.joint_fingerprint(of_seeds)
    return joint[:16] if joint else None
