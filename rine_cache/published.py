"""Published numbers: what papers and their authors report, one number a row, in percent.

A file is read whole or refused with the line at fault: a row that joins nothing by a misspelt name would otherwise be
missed by no one.
"""

from __future__ import annotations

import csv
import io
from difflib import get_close_matches
from typing import TYPE_CHECKING, get_args

import polars as pl

from rine_cache.errors import ResultsError, nearest
from rine_cache.specs.benchmark import MEAN, Metric

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from rine_cache.specs.benchmark import BenchmarkSpec

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
# Numbers that papers report and this project does not measure: of localisation.
PUBLISHED_ONLY_METRICS = ("pixel_f1", "pixel_iou")
# Metrics of which a coin toss reaches about 50 %: no paper's values are all at most 1 %.
_NEVER_SMALL = ("acc", "balanced_acc", "ap", "auc")
# What makes a row another statement than the next one: two sources, or one source's two protocols, both stand.
STATEMENT = (
    "benchmark",
    "protocol",
    "training_set",
    "method",
    "test_set",
    "metric",
    "source",
    "protocol_as_published",
    "note",
)
_REQUIRED = ("benchmark", "protocol", "method", "test_set", "metric", "value", "source_kind", "source")
_LINE = "line"


def read_published(path: Path) -> pl.DataFrame:
    """Read and validate a CSV of published numbers.

    Whether its names are those of the benchmarks is `check_published`'s: the file alone does not know them. Spaces
    around a field, a byte-order mark and Windows' line ends do not matter.

    Parameters
    ----------
    path
        A file with the columns of `COLUMNS`; an empty training_set means that the source does not state it.

    Returns
    -------
    The columns of `COLUMNS`, text but for `value`, Float64; empty fields are null.

    Raises
    ------
    ResultsError
        Naming the line and what is wrong with it.
    """
    return _read(path).drop(_LINE)


def check_published(paths: Sequence[Path], benchmarks: Iterable[BenchmarkSpec]) -> list[str]:
    """Hold files of published numbers against the benchmarks of a configuration, and against each other.

    Parameters
    ----------
    paths
        The CSV files.
    benchmarks
        Every benchmark of the configuration. Rows of others are not checked: they are shown in a list of their own.

    Returns
    -------
    What may be a slip and cannot be told from intent: benchmarks named almost like one of the configuration.

    Raises
    ------
    ResultsError
        Naming file and line, where a row of a benchmark names a protocol, test set or metric that it lacks, or a number
        is stated twice.
    """
    known = {benchmark.name: benchmark for benchmark in benchmarks}
    stated: dict[tuple[str | None, ...], str] = {}
    doubts: dict[str, str] = {}
    for path in paths:
        for row in _read(path).iter_rows(named=True):
            where = f"{path}, line {row[_LINE]} ({row['method']}, {row['test_set']})"
            key = tuple(row[column] for column in STATEMENT)
            if key in stated:
                raise ResultsError(
                    f"{where} states the same number as {stated[key]}: of the same method, {row['metric']} and source; "
                    f"delete one, or say in `note` or `protocol_as_published` what tells them apart"
                )
            stated[key] = where
            benchmark = known.get(row["benchmark"])
            if benchmark is not None:
                _check_names(row, benchmark, where)
            elif match := get_close_matches(row["benchmark"], known, n=1, cutoff=0.85):
                doubts.setdefault(
                    row["benchmark"],
                    f"{where} names benchmark {row['benchmark']!r}, which no benchmark file of the configuration "
                    f"defines; did you mean {match[0]!r}? Its rows stand beside no measured one",
                )
    return list(doubts.values())


def unpublished_references(references: Mapping[str, str], paths: Sequence[Path]) -> list[str]:
    """Doubt the ids that methods are `published_as` and that no published number has: nothing stands beside them.

    Parameters
    ----------
    references
        By a description of the method, the id that it names.
    paths
        The CSV files.
    """
    if not references:
        return []
    known = {method for path in paths for method in read_published(path)["method"]}
    return [
        f"{who} is published_as {named!r}, and no published row is of that method; {nearest(named, known)}"
        for who, named in references.items()
        if named not in known
    ]


def _check_names(row: dict[str, str], benchmark: BenchmarkSpec, where: str) -> None:
    name, protocol = row["protocol"], benchmark.protocols.get(row["protocol"])
    if protocol is None:
        raise ResultsError(
            f"{where} names protocol {name!r}, which benchmark {benchmark.name!r} does not define; "
            f"{nearest(name, benchmark.protocols)}"
        )
    allowed = (MEAN, *protocol.test_sets)
    if row["test_set"] not in allowed:
        raise ResultsError(
            f"{where} names test set {row['test_set']!r}, which protocol {name!r} of benchmark {benchmark.name!r} does "
            f"not average; {nearest(row['test_set'], allowed)}"
        )
    metrics = (*get_args(Metric), *PUBLISHED_ONLY_METRICS)
    if row["metric"] not in metrics:
        raise ResultsError(f"{where} names metric {row['metric']!r}; {nearest(row['metric'], metrics)}")


def _read(path: Path) -> pl.DataFrame:
    """Read a file with the line that each row begins on."""
    header, lines = _lines(path)
    _check_header(header, path)
    records = []
    for number, fields in lines:
        if len(fields) != len(header):
            raise ResultsError(
                f"{path}, line {number} has {len(fields)} fields, the header {len(header)}; put a field that holds a "
                f"comma in double quotes, and write decimals with a point"
            )
        records.append({_LINE: number, **dict(zip(header, (field.strip() or None for field in fields), strict=True))})
    if not records:
        raise ResultsError(f"{path} has a header and no numbers below it; add some, or take it out of `published`")
    table = pl.DataFrame(records, {_LINE: pl.Int64, **dict.fromkeys(COLUMNS, pl.String)})
    _refuse(table, path, pl.any_horizontal(pl.col(_REQUIRED).is_null()), f"lacks one of {', '.join(_REQUIRED)}")
    wide = table.with_columns(pl.col("value").cast(pl.Float64, strict=False).alias("_value"))
    out_of_scale = ~pl.col("_value").is_between(0, 100).fill_null(value=False)
    _refuse(wide, path, out_of_scale, "has no value from 0 to 100", "value")
    _refuse(table, path, ~pl.col("source_kind").is_in(SOURCE_KINDS), f"has a source_kind other than {SOURCE_KINDS}")
    _refuse_fractions(wide, path)
    return table.with_columns(value=wide["_value"])


def _lines(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Split a file into its header and its rows, each with the number of the line that it begins on."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ResultsError(f"cannot read the published numbers {path}: {error.strerror or error}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ResultsError(
            f"{path}, line {line} is not UTF-8 (byte {content[error.start]:#04x}); save it as UTF-8, which "
            f'spreadsheets call "CSV UTF-8"'
        ) from None
    if not text.strip():
        raise ResultsError(f"{path} is empty; its first line names the columns: {','.join(COLUMNS)}")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[int, list[str]]] = []
    begins = 1
    try:
        for fields in reader:
            if fields:  # not a blank line
                rows.append((begins, fields))
            begins = reader.line_num + 1
    except csv.Error as error:
        raise ResultsError(f"{path}, line {begins} is not CSV: {error}") from None
    (_, header), *others = rows
    return [name.strip() for name in header], others


def _check_header(header: list[str], path: Path) -> None:
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in header[0]:
            raise ResultsError(f"{path} is separated by {name}; separate it by commas, and write decimals with a point")
    for column in COLUMNS:
        if column not in header:
            raise ResultsError(f"{path} lacks the column {column!r}; {nearest(column, header)}")
    if unknown := [column for column in header if column not in COLUMNS]:
        raise ResultsError(f"{path} has an unknown column {unknown[0]!r}; {nearest(unknown[0], COLUMNS)}")
    if len(set(header)) != len(header):
        twice = next(column for column in header if header.count(column) > 1)
        raise ResultsError(f"{path} has the column {twice!r} twice")


def _refuse(table: pl.DataFrame, path: Path, fault: pl.Expr, message: str, found: str = "") -> None:
    lines = table.filter(fault)
    if not lines.is_empty():
        row = lines.row(0, named=True)
        shown = f": found {row[found]!r}" if found else ""
        raise ResultsError(f"{path}, line {row[_LINE]} ({row['method']}, {row['test_set']}) {message}{shown}")


def _refuse_fractions(table: pl.DataFrame, path: Path) -> None:
    """Refuse a source whose every accuracy is at most 1: fractions where percentages are wanted."""
    groups = table.filter(pl.col("metric").is_in(_NEVER_SMALL)).group_by("source", "metric", maintain_order=True)
    small = groups.agg(pl.col("_value").max().alias("highest"), pl.len(), pl.col(_LINE).first())
    small = small.filter(pl.col("highest").is_between(0, 1, closed="right"))
    if not small.is_empty():
        row = small.row(0, named=True)
        raise ResultsError(
            f"{path}, line {row[_LINE]}: every {row['metric']} of the source {row['source']!r} ({row['len']} in all) "
            f"is at most {row['highest']:g}, which looks like fractions; write percentages, from 0 to 100"
        )
