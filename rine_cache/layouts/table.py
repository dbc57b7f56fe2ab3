"""A table of paths and labels: CSV (UTF-8; commas, semicolons or tabs, as its header has them) or Parquet.

Paths are absolute, or relative to the table's folder. The image's id is its path as given, without ``./`` and ``//``;
``..`` stays, since a folder before it may be a link. A path that does not exist is listed with no bytes, and its image
quarantined as missing when it is read. `rine_cache.layouts.columns` says which other columns are read. Blank lines are
passed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import polars as pl
import pyarrow.parquet as pq

from rine_cache.containers import said_by
from rine_cache.errors import LayoutError
from rine_cache.layouts.columns import COLUMNS, class_names, columns_of, read_traits, require
from rine_cache.layouts.entry import LABEL_NAMES, Entry, Layout, Stray

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATH_COLUMNS = ("path", "filepath", "file_path", "image_path", "file", "filename", "file_name", "image")
_LINE = " line"
SUFFIXES = frozenset({".csv", ".parquet"})
_SEPARATORS = (",", ";", "\t")


class _Table(NamedTuple):
    """A table before its columns are read: every column as text, and the names of its labels' classes, if any."""

    lazy: pl.LazyFrame
    path: str  # the column of paths
    columns: dict[str, str]
    classes: tuple[str, ...]
    line: str  # what its rows are called, and the number of the first
    first: int


def find(root: Path) -> Iterator[Entry | Stray]:
    """Yield every row of the table at `root`.

    Raises
    ------
    LayoutError
        If it is no such table, lacks a column, names a path twice or none, a label or split is no known word, or not
        one of its paths exists.
    """
    try:
        table = _scan(root)
        frame = _read(table)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise LayoutError(f"cannot read {root} as a table: {said_by(error)}") from None
    paths = frame[table.path].str.replace_all(r"/(\.?/)+", "/").str.replace(r"^(\./)+", "")
    if frame.is_empty():
        raise LayoutError(f"{root} has no rows; it needs one for each image")
    _check_paths(paths, frame[_LINE], root, table.line)
    exist = 0
    for path, values in zip(paths, frame.iter_rows(named=True), strict=True):
        traits = read_traits(values, table.columns, table.classes, f"{root}, {table.line} {values[_LINE]}")
        size = _size(root.parent / path)
        exist += size is not None
        if traits.label is None:
            yield Stray(path, "row without a label", traits.subset, traits.split)
            continue
        subset = traits.subset or LABEL_NAMES[traits.label]
        yield Entry(path, traits.label, subset, traits.split, traits.group, size or 0, traits.variant)
    if not exist:
        raise LayoutError(f"{root}: none of its paths exists, seen from {root.parent}; the first is {paths[0]}")


def _scan(root: Path) -> _Table:
    kind = root.suffix.lower()
    if not root.is_file() or kind not in SUFFIXES:
        raise LayoutError(f"{root} is no table; set the data set's root to a .csv or .parquet file")
    if kind == ".csv":
        lazy = pl.scan_csv(root, separator=_separator(root), infer_schema=False, glob=False)
    else:
        lazy = pl.scan_parquet(root, glob=False)
    schema = lazy.collect_schema()
    path = require("paths", PATH_COLUMNS, schema.names(), str(root))
    label = require("labels", COLUMNS["label"], schema.names(), str(root))
    if schema[path] != pl.String:
        raise LayoutError(
            f"{root}: the column {path!r} holds {schema[path]}, not paths as text; for images' bytes use the layout "
            "'parquet', with their folder as root"
        )
    columns = columns_of(schema.names())
    if kind == ".csv":
        return _Table(lazy, path, columns, (), "line", 2)
    return _Table(lazy, path, columns, class_names(pq.read_schema(root), label), "row", 0)


def _separator(path: Path) -> str:
    with path.open("rb") as file:
        header = file.readline().decode(errors="replace")
    return max(_SEPARATORS, key=header.count)


def _read(table: _Table) -> pl.DataFrame:
    """Read the columns that are used, as text, with the number of each row's line."""
    used = dict.fromkeys([table.path, *table.columns.values()])
    return (
        table.lazy.select(pl.col(name).cast(pl.String) for name in used)
        .with_row_index(_LINE, table.first)
        .filter(pl.any_horizontal(pl.col(list(used)).is_not_null()))
        .collect()
    )


def _check_paths(paths: pl.Series, lines: pl.Series, root: Path, line: str) -> None:
    none = lines.filter(paths.fill_null("") == "")
    if not none.is_empty():
        raise LayoutError(f"{root}, {line} {none[0]}: no path")
    if paths.n_unique() < paths.len():
        repeated = paths.filter(paths.is_duplicated())[0]
        first, second, *_ = lines.filter(paths == repeated)
        raise LayoutError(f"{root}, {line} {second}: {repeated!r} stands in {line} {first} already; keep one of them")


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


LAYOUT = Layout("a table (.csv or .parquet) with a column of paths and one of labels", find)
