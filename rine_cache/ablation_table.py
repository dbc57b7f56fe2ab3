"""The table of an ablation: one method's numbers by subset of its blocks and by test set."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import polars as pl

from rine_cache.errors import ResultsError
from rine_cache.files import written_whole
from rine_cache.leaderboard import build_leaderboard
from rine_cache.markdown import markdown_table
from rine_cache.report import METRIC_TITLES
from rine_cache.specs.benchmark import MEAN
from rine_cache.specs.blocks import FAMILIES, GREEDY
from rine_cache.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rine_cache.specs.ablation import AblationSpec
    from rine_cache.specs.benchmark import BenchmarkSpec

_SUBSET = ("family", "block", "method", "blocks", "validation_loss")
_NUMBER = ("test_set", "metric", "value", "std", "seed_count", "coverage", "n_real", "n_fake", "n_quarantined", "note")

COLUMNS = (*_SUBSET, *_NUMBER)

# By family: what its table is headed, and what tells its lines apart.
_HEADINGS = {
    "each": ("Each block alone", "block"),
    "leave-one-out": ("All blocks but one", "left out"),
    "prefixes": ("The first blocks", "blocks"),
    "suffixes": ("The last blocks", "blocks"),
    "greedy": ("Forward selection on the validation loss", "added"),
}
_SINGLE = ("Single subsets", "subset")


def build_ablation_table(metrics: Path, subsets: Path, spec: AblationSpec, benchmark: BenchmarkSpec) -> pl.DataFrame:
    """Set an ablation's numbers out by subset, test set and metric.

    Parameters
    ----------
    metrics
        What `rine-cache evaluate` measured of its heads.
    subsets
        What `rine_cache.ablation.train_ablation` says of them, the file `SUBSETS`.
    spec, benchmark
        The ablation, and the benchmark that it names.

    Returns
    -------
    One row per subset, test set of the protocol or its mean, and metric. Columns: ``family``, or the expression of a
    single subset; ``block``, the one that is alone, left out or was added last, from 0; ``method``, ``blocks``;
    ``validation_loss``, the mean over seeds; and those of the leaderboard: means over seeds with their standard
    deviation, in percent, null where something was not measured.

    Raises
    ------
    ConfigError
        If `benchmark` does not define the ablation's protocol.
    ResultsError
        If a file cannot be read, or the two are not of the same heads.
    """
    spec.check_against(benchmark, "the ablation")
    members = _read_subsets(subsets)
    measured = build_leaderboard([metrics], [], [benchmark]).filter(
        kind="measured", benchmark=spec.benchmark, protocol=spec.protocol
    )
    if odd := sorted(set(measured["method"]) ^ set(members["method"])):
        raise ResultsError(
            f"{metrics} and {subsets} disagree on {odd[0]}; score and evaluate the ablation's heads again"
        )
    test_sets = [*benchmark.protocols[spec.protocol].test_sets, MEAN]
    metric_order = list(METRIC_TITLES)
    return (
        members.with_row_index("line")
        .join(measured, on="method", how="left", maintain_order="left")
        .sort(
            "line",
            pl.col("test_set").cast(pl.Enum(test_sets)),
            pl.col("metric").cast(pl.Enum(metric_order)),
        )
        .select(*COLUMNS)
    )


def write_ablation_table(table: pl.DataFrame, path: Path) -> None:
    """Write the table as Parquet."""
    with written_whole(path) as temporary:
        table.write_parquet(temporary)


def read_ablation_table(path: Path) -> pl.DataFrame:
    """Read an ablation's table.

    Raises
    ------
    ResultsError
        If the file is missing or is none.
    """
    return read_table(path, COLUMNS, what="an ablation's table", make="rine-cache ablate draw").select(COLUMNS)


def render_ablation(table: pl.DataFrame, spec: AblationSpec) -> str:
    """Render the table as Markdown that reads well in a terminal too: a section per family, a table per metric."""
    introduction = " ".join(
        [
            f"{describe(spec)}, in percent. Blocks are counted from 0 here, from 1 in the figure. **Bold**: the lowest",
            "validation loss of its table, by which one would choose; choosing by the numbers of test data flatters.",
            "`-`: not measured.",
            *remarks_on(table),
        ]
    )
    sections = [f"# {spec.title}\n\n{textwrap.fill(introduction, 120)}\n"]
    for family, rows in families_of(table).items():
        heading, _ = _HEADINGS.get(family, _SINGLE)
        sections.append(f"## {heading}\n")
        for metric in spec.metrics:
            title = METRIC_TITLES[metric]
            sections.append(f"{title[0].upper()}{title[1:]}:\n\n{_metric_table(rows.filter(metric=metric), family)}")
    return "\n".join(sections)


def families_of(table: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Split a table by family, in their order; single subsets come together last, as those of family ""."""
    named = [family for family in table["family"].unique(maintain_order=True) if family in FAMILIES]
    parts = {family: table.filter(family=family) for family in named}
    single = table.filter(~pl.col("family").is_in(FAMILIES))
    return parts if single.is_empty() else {**parts, "": single}


def test_sets_of(table: pl.DataFrame) -> list[str]:
    """Name a table's test sets, in their order."""
    return [name for name in table["test_set"].unique(maintain_order=True) if name != MEAN]


def describe(spec: AblationSpec) -> str:
    """Say what a table's numbers are of."""
    return f"{spec.method} of experiment {spec.experiment}, by blocks, on {spec.benchmark}, protocol {spec.protocol}"


def remarks_on(table: pl.DataFrame) -> Iterator[str]:
    """Say over how many seeds a table's numbers are means, and what the leaderboard would note of them."""
    counts = table["seed_count"].drop_nulls().to_list()
    if not counts:
        yield "Nothing was measured: the test data are not on this machine."
    else:
        yield f"Means over {counts[0]} seeds ± their standard deviation." if counts[0] > 1 else "One seed: no spread."
    for note in table["note"].drop_nulls().unique().sort():
        yield f"Note: {note}."


def spelt(blocks: list[int], first: int = 0) -> str:
    """Spell block numbers out, runs as ranges: ``0-3, 7``; `first` is the first block's number."""
    runs: list[list[int]] = []
    for block in blocks:
        if runs and block == runs[-1][-1] + 1:
            runs[-1].append(block)
        else:
            runs.append([block])
    return ", ".join(str(run[0] + first) if len(run) == 1 else f"{run[0] + first}-{run[-1] + first}" for run in runs)


def _metric_table(rows: pl.DataFrame, family: str) -> str:
    """Lay out a line per subset and a column per test set, and under them how many images each holds."""
    test_sets = test_sets_of(rows)
    columns = [*test_sets, MEAN] if len(test_sets) > 1 else test_sets
    _, label = _HEADINGS.get(family, _SINGLE)
    lowest = rows["validation_loss"].min() if rows["method"].n_unique() > 1 else None
    body = []
    for _, line in rows.group_by("family", "method", maintain_order=True):
        cells = {row["test_set"]: row for row in line.iter_rows(named=True)}
        first = cells[columns[0]]
        bold = "**" if first["validation_loss"] == lowest else ""
        body.append(
            [
                f"{bold}{_label(first)}{bold}",
                f"{first['validation_loss']:.4f}",
                *(_value(cells[name]) for name in columns),
            ]
        )
    counts = {row["test_set"]: row for row in rows.iter_rows(named=True)}
    body.append(["real + fake images", "", *(_count(counts[name]) for name in columns)])
    return markdown_table([label, "validation loss", *columns], body)


def _label(row: dict[str, Any]) -> str:
    """Say which subset a line is of, among those of its family."""
    if row["family"] in ("each", "leave-one-out"):
        return str(row["block"])
    if row["family"] == GREEDY:
        return f"+ {row['block']}"
    spelt_out = spelt(row["blocks"])
    return spelt_out if row["family"] in FAMILIES else f"{row['family']} ({spelt_out})"


def _value(row: dict[str, Any]) -> str:
    if row["value"] is None:
        return "-"
    return f"{row['value']:.2f}" + (f" ± {row['std']:.2f}" if row["std"] is not None else "")


def _count(row: dict[str, Any]) -> str:
    if row["n_real"] is None:
        return "-"
    quarantined = f" ({row['n_quarantined']:,} quarantined)" if row["n_quarantined"] else ""
    return f"{row['n_real']:,} + {row['n_fake']:,}{quarantined}"


def _read_subsets(path: Path) -> pl.DataFrame:
    return read_table(path, _SUBSET, what="a table of subsets", make="rine-cache ablate train").select(_SUBSET)
