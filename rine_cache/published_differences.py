"""Published beside measured: where our numbers and those of papers differ by more than our interval.

A published value stands beside a measured one of the same method, benchmark, protocol, training set, test set and
metric; a method that states another's id as `published_as` is held against that one's. Two sources' numbers for one
method both stand, each on its own. A source that does not state its training set, or whose threshold was fitted on
test data where ours was not, is shown and not judged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from rine_cache.markdown import markdown_table
from rine_cache.published import STATEMENT, read_published

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from rine_cache.specs.benchmark import BenchmarkSpec, ProtocolSpec

AGREES, DISAGREES, NO_INTERVAL, NOT_JUDGED = "agrees", "disagrees", "no interval", "not judged"
SCHEMA = pl.Schema(
    {
        "verdict": pl.String,
        "benchmark": pl.String,
        "protocol": pl.String,
        "training_set": pl.String,
        "method": pl.String,
        "published_method": pl.String,
        "test_set": pl.String,
        "metric": pl.String,
        "measured": pl.Float64,
        "ci_low": pl.Float64,
        "ci_high": pl.Float64,
        "published": pl.Float64,
        "difference": pl.Float64,
        "beyond": pl.Float64,
        "remarks": pl.String,
        "source_kind": pl.String,
        "source": pl.String,
        "published_note": pl.String,
        "published_training_set": pl.String,
        "protocol_as_published": pl.String,
        "test_set_as_published": pl.String,
        "metric_as_published": pl.String,
        "encoder": pl.String,
        "weights": pl.String,
        "view": pl.String,
        "n_real": pl.Int64,
        "n_fake": pl.Int64,
        "code_version": pl.String,
    }
)
_JOINED = ("benchmark", "protocol", "published_method", "test_set", "metric")
# Of a published row; its other columns would be null, or say the same as the measured one's.
_OF_PUBLISHED = {
    "method": "published_method",
    "value": "published",
    "training_set": "published_training_set",
    "note": "published_note",
    "oracle": "published_oracle",
    "source_kind": "source_kind",
    "source": "source",
    "protocol_as_published": "protocol_as_published",
    "test_set_as_published": "test_set_as_published",
    "metric_as_published": "metric_as_published",
}
_ROUNDING = 1e-9  # points: an interval's end that is the published value itself counts as inside


def beside_published(leaderboard: pl.DataFrame, benchmarks: Iterable[BenchmarkSpec]) -> pl.DataFrame:
    """Put every published value beside the measured one that it can be held against.

    Parameters
    ----------
    leaderboard
        Measured and published rows, in percent.
    benchmarks
        The configuration's benchmarks: what their protocols ask for beyond what a row says.

    Returns
    -------
    Rows of `SCHEMA`, one per measured and published value. `difference` is measured minus published, in points, and
    `beyond` by how much the published value lies outside our interval: 0 within it, null without one. `verdict` is
    `AGREES`, `DISAGREES`, `NO_INTERVAL` or `NOT_JUDGED`. Largest `beyond` first.
    """
    protocols = {
        (benchmark.name, name): (benchmark, protocol)
        for benchmark in benchmarks
        for name, protocol in benchmark.protocols.items()
    }
    keys = [name for name in _JOINED if name != "published_method"]
    published = leaderboard.filter(kind="published").select(
        *keys, *(pl.col(theirs).alias(ours) for theirs, ours in _OF_PUBLISHED.items())
    )
    ours = ("method", "training_set", "oracle", "ci_low", "ci_high", "encoder", "weights", "view", "code_version")
    counts = ("n_real", "n_fake", "n_quarantined", "n_leaked")
    measured = leaderboard.filter(pl.col("value").is_not_null(), kind="measured").select(
        *keys,
        *ours,
        *counts,
        pl.coalesce("published_as", "method").alias("published_method"),
        pl.col("value").alias("measured"),
    )
    pairs = measured.join(published, on=_JOINED, how="inner", maintain_order="left_right").filter(
        (pl.col("training_set") == pl.col("published_training_set")).fill_null(value=True)
    )
    low, high, value = pl.col("ci_low"), pl.col("ci_high"), pl.col("published")
    judged = pl.col("published_training_set").is_not_null() & (pl.col("oracle") == pl.col("published_oracle"))
    pairs = pairs.with_columns(
        difference=pl.col("measured") - value,
        beyond=pl.max_horizontal(low - value, value - high, pl.lit(0.0)),
    ).with_columns(
        beyond=pl.when(low.is_not_null() & high.is_not_null())
        .then(pl.when(pl.col("beyond") > _ROUNDING).then("beyond").otherwise(0.0))
        .otherwise(None),
    )
    verdict = (
        pl.when(~judged)
        .then(pl.lit(NOT_JUDGED))
        .when(pl.col("beyond").is_null())
        .then(pl.lit(NO_INTERVAL))
        .when(pl.col("beyond") > 0)
        .then(pl.lit(DISAGREES))
        .otherwise(pl.lit(AGREES))
    )
    remarks = [
        "; ".join(_remarks(row, *protocols.get((row["benchmark"], row["protocol"]), (None, None))))
        for row in pairs.iter_rows(named=True)
    ]
    return (
        pairs.with_columns(verdict=verdict, remarks=pl.Series(remarks, dtype=pl.String))
        .select(SCHEMA.names())
        .sort(pl.col("beyond"), pl.col("difference").abs(), descending=True, nulls_last=True, maintain_order=True)
    )


def altered_published(leaderboard: pl.DataFrame, paths: Sequence[Path]) -> pl.DataFrame:
    """List the published numbers that are other ones in a leaderboard than in the files it was made of.

    Returns
    -------
    The rows that are not the same in both, with the columns of `STATEMENT`, `in_leaderboard` and `in_file`, values in
    percent, null where a row is missing.

    Raises
    ------
    ResultsError
        If a file cannot be read or is malformed.
    """
    schema = {**dict.fromkeys(STATEMENT, pl.String), "value": pl.Float64}
    files = pl.concat(
        [pl.DataFrame(schema=schema), *(read_published(path).select(*STATEMENT, "value") for path in paths)]
    )
    shown = leaderboard.filter(kind="published").select(*STATEMENT, pl.col("value").alias("in_leaderboard"))
    both = shown.join(
        files.rename({"value": "in_file"}),
        on=STATEMENT,
        how="full",
        nulls_equal=True,
        coalesce=True,
        maintain_order="left",
    )
    return both.filter(pl.col("in_leaderboard").ne_missing(pl.col("in_file")))


def render_differences(pairs: pl.DataFrame, altered: pl.DataFrame, *, everything: bool = False) -> str:
    """Write what `beside_published` and `altered_published` found as Markdown that reads well in a terminal.

    Parameters
    ----------
    pairs, altered
        What they returned.
    everything
        List the values that agree, or are not judged, as well.
    """
    sections = ["# Measured and published\n", _summary(pairs)]
    notes: dict[str, int] = {}
    for verdict, title in (
        (DISAGREES, "Published values outside our 95 % interval"),
        (NO_INTERVAL, "Measured without an interval"),
        (NOT_JUDGED, "Not judged"),
        (AGREES, "Published values within our 95 % interval"),
    ):
        rows = pairs.filter(verdict=verdict)
        if not rows.is_empty() and (everything or verdict == DISAGREES):
            sections.append(f"## {title}\n\n{_table(rows, notes)}")
    if notes:
        sections.append("\n".join(f"[{number}] {note}" for note, number in notes.items()) + "\n")
    if not altered.is_empty():
        sections.append(_altered_section(altered))
    return "\n".join(sections)


def _remarks(row: dict[str, Any], benchmark: BenchmarkSpec | None, protocol: ProtocolSpec | None) -> Iterator[str]:
    """Say in what a published number's protocol differs from ours, as far as both state it."""
    if row["method"] != row["published_method"]:
        yield f"published as {row['published_method']}"
    if row["published_training_set"] is None:
        yield f"the source does not state its training set, ours is {row['training_set']}"
    if protocol is not None and protocol.training_sets and row["training_set"] not in protocol.training_sets:
        yield f"trained on {row['training_set']}, where the protocol asks for {' or '.join(protocol.training_sets)}"
    if row["oracle"] != row["published_oracle"]:
        yield f"{'the published' if row['published_oracle'] else 'our'} number was fitted on test data"
    if row["published_note"]:
        yield f"the source: {row['published_note']}; ours: through {row['view']}"
    if benchmark is not None and protocol is not None:
        asked = benchmark.view_of(row["protocol"])
        if row["view"] != asked:
            yield f"tested through {row['view']}, where the protocol says {asked}"
        if protocol.cap is not None:
            yield f"tested on at most {protocol.cap.per_class:,} images a class, chosen by name"
    if row["weights"] == "random":
        yield "random weights: plumbing only"
    if row["n_quarantined"]:
        yield f"{row['n_quarantined']:,} of our images could not be read"
    if row["n_leaked"]:
        yield f"{row['n_leaked']:,} of our test images stand in the training set"


def _summary(pairs: pl.DataFrame) -> str:
    counts = dict(pairs["verdict"].value_counts().iter_rows())
    judged = counts.get(AGREES, 0) + counts.get(DISAGREES, 0)
    if pairs.is_empty():
        return (
            "No published value is of a method, protocol, training set, test set and metric that was measured here.\n"
        )
    parts = [
        f"{pairs.height:,} published values stand beside a measured one.",
        f"Of {judged:,} whose measured value has an interval, {counts.get(AGREES, 0):,} lie within it and "
        f"{counts.get(DISAGREES, 0):,} do not.",
    ]
    if without := counts.get(NO_INTERVAL, 0):
        parts.append(f"{without:,} measured values have no interval.")
    if aside := counts.get(NOT_JUDGED, 0):
        parts.append(
            f"{aside:,} are not judged: the source does not state its training set, or one of the two was fitted on "
            f"test data."
        )
    return " ".join(parts) + "\n"


def _table(rows: pl.DataFrame, notes: dict[str, int]) -> str:
    header = ["benchmark", "protocol", "training set", "method", "test set", "metric", "ours", "published"]
    header += ["difference", "outside by", "source"]
    body = []
    for row in rows.iter_rows(named=True):
        note = notes.setdefault(_note(row), len(notes) + 1)
        interval = f" [{row['ci_low']:.2f}, {row['ci_high']:.2f}]" if row["beyond"] is not None else ""
        cells = [row[name] for name in ("benchmark", "protocol", "training_set", "method", "test_set", "metric")]
        cells += [f"{row['measured']:.2f}{interval}", f"{row['published']:.2f}", f"{row['difference']:+.2f}"]
        cells += ["-" if row["beyond"] is None else f"{row['beyond']:.2f}", f"[{note}]"]
        body.append([cell or "" for cell in cells])
    return markdown_table(header, body)


def _note(row: dict[str, Any]) -> str:
    words = f', "{row["protocol_as_published"]}"' if row["protocol_as_published"] else ""
    ours = f"ours: encoder {row['encoder']}, view {row['view']}"
    return f"{row['source']} ({row['source_kind']}){words}; {'; '.join(filter(None, (ours, row['remarks'])))}."


def _altered_section(altered: pl.DataFrame) -> str:
    names = ("benchmark", "protocol", "training_set", "method", "test_set", "metric", "source")
    body = []
    for row in altered.iter_rows(named=True):
        values = ("absent" if row[name] is None else f"{row[name]:.2f}" for name in ("in_leaderboard", "in_file"))
        body.append([*(row[name] or "" for name in names), *values])
    table = markdown_table([*(name.replace("_", " ") for name in names), "in the leaderboard", "in the file"], body)
    return (
        f"## Published numbers that changed since the leaderboard was built\n\nBuild it again with `snakemake` or "
        f"`rine-cache leaderboard build`; what stands above is of the values in the leaderboard.\n\n{table}"
    )
