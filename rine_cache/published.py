"""Published numbers: what papers and their authors report, one number a row, in percent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from rine_cache.errors import ResultsError, nearest

if TYPE_CHECKING:
    from pathlib import Path

# Ids are canonical and join ours; the source's own words stand in the `*_as_published` columns.
COLUMNS = (
    "benchmark",
    "protocol",
    "training_set",
    "method",
    "test_set",
    "metric",
    "value",
    "source_kind",
    "note",
    "source",
    "benchmark_as_published",
    "protocol_as_published",
    "test_set_as_published",
    "metric_as_published",
)
SOURCE_KINDS = ("primary", "rerun", "transcribed", "aggregator")
_REQUIRED = ("benchmark", "protocol", "method", "test_set", "metric", "value", "source_kind", "source")


def read_published(path: Path) -> pl.DataFrame:
    """Read and validate a CSV of published numbers.

    Parameters
    ----------
    path
        A file with the columns of `COLUMNS`; an empty training_set means that the source does not state it.

    Raises
    ------
    ResultsError
        Naming the line and what is wrong with it.
    """
    try:
        table = pl.read_csv(path, schema_overrides=dict.fromkeys(COLUMNS, pl.String), encoding="utf8")
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ResultsError(f"cannot read the published numbers {path}: {error}") from None
    for column in COLUMNS:
        if column not in table.columns:
            raise ResultsError(f"{path} lacks the column {column!r}; {nearest(column, table.columns)}")
    if unknown := [column for column in table.columns if column not in COLUMNS]:
        raise ResultsError(f"{path} has an unknown column {unknown[0]!r}; {nearest(unknown[0], COLUMNS)}")
    table = table.select(COLUMNS).with_columns(pl.col("value").cast(pl.Float64, strict=False).alias("_value"))
    _refuse(table, path, pl.any_horizontal(pl.col(_REQUIRED).is_null()), f"lacks one of {', '.join(_REQUIRED)}")
    _refuse(table, path, ~pl.col("_value").is_between(0, 100).fill_null(value=False), "has no value from 0 to 100")
    _refuse(table, path, ~pl.col("source_kind").is_in(SOURCE_KINDS), f"has a source_kind other than {SOURCE_KINDS}")
    return table.with_columns(value=pl.col("_value")).drop("_value")


def _refuse(table: pl.DataFrame, path: Path, fault: pl.Expr, message: str) -> None:
    lines = table.with_row_index("line", offset=2).filter(fault)
    if not lines.is_empty():
        row = lines.row(0, named=True)
        raise ResultsError(f"{path}, line {row['line']} ({row['method']}, {row['test_set']}) {message}")
