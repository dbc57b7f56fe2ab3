"""How tables of results are read: whole and of this version, or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from rine_cache.errors import ResultsError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def read_table(path: Path, columns: Iterable[str], *, what: str, make: str) -> pl.DataFrame:
    """Read a Parquet file that must have some columns; all of its columns are returned.

    Parameters
    ----------
    path
        The file.
    columns
        Those that it must have.
    what, make
        What it should be, "a leaderboard", and the command that makes it, for the error.

    Raises
    ------
    ResultsError
        If it is missing, is no Parquet file, or lacks one of the columns, as one of another version may.
    """
    try:
        table = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ResultsError(f"{path} is not {what} ({error}); make it with `{make}`") from None
    if missing := [name for name in columns if name not in table.columns]:
        raise ResultsError(
            f"{path} is not {what} of this version: it lacks the column {missing[0]!r}; make it again with `{make}`"
        )
    return table
