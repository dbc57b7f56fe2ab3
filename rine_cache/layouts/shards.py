"""What sharded data sets share: Parquet files opened for their labels, names that tell splits and lost shards."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from rine_cache.containers import open_parquet, said_by
from rine_cache.errors import LayoutError
from rine_cache.layouts.folder import SPLITS, split_of_folders

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import pyarrow.parquet as pq

PARQUET = frozenset({".parquet"})
_ROWS_AT_ONCE = 10_000
_NUMBERED = re.compile(r"(?P<before>.+)-(?P<number>\d{5,6})-of-(?P<total>\d{5,6})(?P<after>\.\w+)")
_SPLIT_FIRST = re.compile(rf"({'|'.join(SPLITS)})[-_.]", re.IGNORECASE)


@contextmanager
def parquet_file(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file, and turn what cannot be read of it into a `LayoutError`."""
    try:
        with open_parquet(path) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        raise LayoutError(f"cannot read {path}: {said_by(error)}; fetch it again") from None


def rows_of(file: pq.ParquetFile, columns: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield a file's rows, with their numbers; of nothing but these columns, a few thousand at a time."""
    row = 0
    for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=columns, use_threads=False):
        for values in batch.to_pylist():
            yield row, values
            row += 1


def split_of(path: str) -> str | None:
    """Return the split that a shard's name begins with (``train-00000-of-00010.parquet``), or a folder above it has."""
    *folders, name = path.split("/")
    match = _SPLIT_FIRST.match(name)
    return SPLITS[match[1].lower()] if match else split_of_folders(folders)


def lost_shards(paths: Iterable[str]) -> Iterator[str]:
    """Yield, in order, the shards that others' names tell of, as ``-00003-of-00007`` does, and that are not there."""
    found: dict[tuple[str, str, str], set[int]] = {}
    for path in paths:
        if match := _NUMBERED.fullmatch(path):
            found.setdefault((match["before"], match["after"], match["total"]), set()).add(int(match["number"]))
    for (before, after, total), numbers in sorted(found.items()):
        for number in range(int(total)):
            if number not in numbers:
                yield f"{before}-{number:0{len(total)}d}-of-{total}{after}"
