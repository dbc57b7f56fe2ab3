"""Images inside other files: their bytes, read from a tar or a Parquet file where it lies.

A tar's members are read at their offsets, in any order. A Parquet file's rows are decoded from front to back, so they
are best asked for in order; going back starts again at the row group. Its memory does not grow with the file or its
row groups, only with its pages: pyarrow holds up to three of them, and writers put up to 1,024 rows in one (2,900
images of 207 kB in one row group, as pandas writes them: 640 MB; the same in row groups of 100, as the Hugging Face
hub has them: 45 MB).
"""

from __future__ import annotations

import os
import tarfile
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from rine_cache.errors import LayoutError, ManifestError
from rine_cache.quarantine import Reason, UnreadableImageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IMAGE_COLUMNS = (
    "image",
    "img",
    "image_bytes",
    "img_bytes",
    "image_data",
    "bytes",
    "jpg",
    "jpeg",
    "png",
    "webp",
)
_LFS_POINTER = b"version https://git-lfs"
_ROWS_AT_ONCE = 8
_BUFFER = 2**20  # with one, pyarrow reads a column page by page, not a whole row group at once
_HEADER = tarfile.BLOCKSIZE


class ContainerReader:
    """Reads images' bytes from the files that hold them, for one thread, with one such file open at a time.

    Parameters
    ----------
    root
        The folder that containers' paths are relative to.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._name: str | None = None
        self._open: _Container | None = None

    def __enter__(self) -> ContainerReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file that is open; reading opens it again."""
        if self._open is not None:
            self._open.close()
        self._name = self._open = None

    def read(self, container: str, position: int, size: int) -> bytes:
        """Return one image's bytes.

        Parameters
        ----------
        container
            Path below the root: a tar if its name ends so, else a Parquet file.
        position
            The offset of a tar member's data, in bytes, or the number of a Parquet file's row.
        size
            As listed: bytes of a tar member, or of the Parquet file that holds the row.

        Raises
        ------
        UnreadableImageError
            If the row holds no bytes, or there is no such row.
        ManifestError
            If the container has gone, cannot be read, or is not the one that was listed.
        """
        path = self._root / container
        try:
            if self._open is None or container != self._name:
                self.close()
                self._open = _Tar(path) if path.suffix.lower() == ".tar" else _Parquet(path)
                self._name = container
            return self._open.read(position, size)
        except FileNotFoundError:
            self.close()
            raise ManifestError(f"{path} has gone; bring it back and run the same command again") from None
        except LayoutError as error:
            self.close()
            raise ManifestError(str(error)) from None
        except (OSError, pa.ArrowException) as error:
            self.close()
            raise ManifestError(
                f"cannot read {path}: {said_by(error)}; mend that and run the same command again"
            ) from None


class _Container(Protocol):
    def read(self, position: int, size: int) -> bytes: ...

    def close(self) -> None: ...


class _Tar:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb", buffering=0)

    def read(self, position: int, size: int) -> bytes:
        found = os.pread(self._file.fileno(), _HEADER + size, position - _HEADER)  # the member's header comes first
        try:
            as_listed = tarfile.TarInfo.frombuf(found[:_HEADER], "utf-8", "surrogateescape").size == size
        except tarfile.HeaderError:
            as_listed = False
        if not as_listed or len(found) < _HEADER + size:
            raise _changed(self._path)
        return found[_HEADER:]

    def close(self) -> None:
        self._file.close()


class _Parquet:
    def __init__(self, path: Path) -> None:
        self._path, self._size = path, path.stat().st_size
        self._file = open_parquet(path)
        column = image_column(self._file.schema_arrow, path)
        self._struct = pa.types.is_struct(self._file.schema_arrow.field(column).type)
        self._column = f"{column}.bytes" if self._struct else column
        footer = self._file.metadata
        rows = (footer.row_group(group).num_rows for group in range(footer.num_row_groups))
        self._starts = list(accumulate(rows, initial=0))  # of each row group, and the end of the last
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._first, self._next = 0, -1  # the batch at hand holds rows from _first up to _next; there is none yet
        self._values: pa.Array = pa.nulls(0)

    def read(self, position: int, size: int) -> bytes:
        if size != self._size:
            raise _changed(self._path)
        if not 0 <= position < self._starts[-1]:
            raise UnreadableImageError(Reason.MISSING, f"the file has {self._starts[-1]} rows, none at {position}")
        group = bisect_right(self._starts, position) - 1
        if position < self._first or self._next < self._starts[group]:
            self._begin(group)
        while position >= self._next:
            self._advance()
        content: bytes | None = self._values[position - self._first].as_py()
        if content is None:
            raise UnreadableImageError(Reason.MISSING, f"the column {self._column} is null in row {position}")
        return content

    def close(self) -> None:
        self._batches = iter(())
        self._file.close()

    def _begin(self, group: int) -> None:
        """Stand before the first row of a row group."""
        self._first = self._next = self._starts[group]
        self._values = pa.nulls(0)
        self._batches = self._file.iter_batches(
            batch_size=_ROWS_AT_ONCE,
            row_groups=range(group, len(self._starts) - 1),
            columns=[self._column],
            use_threads=False,
        )

    def _advance(self) -> None:
        batch = next(self._batches, None)
        if batch is None:
            raise pa.ArrowInvalid(f"{self._next} rows, where its footer says {self._starts[-1]}")
        self._first, self._next = self._next, self._next + batch.num_rows
        self._values = batch.column(0).flatten()[0] if self._struct else batch.column(0)


class BrokenFileError(LayoutError):
    """A file that is not what its name says, mostly because its download stopped half-way."""


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a Parquet file so that its columns are read in bounded memory.

    Raises
    ------
    BrokenFileError
        If its download is not complete, or it is no Parquet file.
    OSError
        If it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(len(_LFS_POINTER))
    if not head:
        raise BrokenFileError(f"{path} is empty: its download did not begin; fetch it again")
    if head == _LFS_POINTER:
        raise BrokenFileError(f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull` in its folder")
    try:
        return pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)
    except pa.ArrowException as error:
        raise BrokenFileError(
            f"{path} is no whole Parquet file, its download may have stopped half-way ({said_by(error)}); fetch it "
            "again"
        ) from None


def said_by(error: Exception) -> str:
    """Return what a library says of a file, in one line."""
    return str(getattr(error, "strerror", None) or " ".join(str(error).split()))


def image_column(schema: pa.Schema, path: Path) -> str:
    """Name the column that holds images' bytes.

    Of the columns that hold bytes, or structs with a field ``bytes`` as the Hugging Face hub has them: the one whose
    name is among `IMAGE_COLUMNS`, whatever its case, or else the only one.

    Raises
    ------
    LayoutError
        If there is none, or it could be any of several; names them.
    """
    able: list[str] = [field.name for field in schema if _holds_bytes(field.type)]
    named = [name for name in able if name.lower() in IMAGE_COLUMNS] or able
    if len(named) == 1:
        return named[0]
    what = f"may have its images in any of {', '.join(named)}" if named else "has no column of images' bytes"
    raise LayoutError(
        f"{path} {what} (columns: {', '.join(schema.names)}); keep one column of bytes, or of structs with a field "
        f"'bytes', that is named {', '.join(IMAGE_COLUMNS)}"
    )


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _changed(path: Path) -> ManifestError:
    return ManifestError(f"{path} is not the file that was listed; make the manifest again with `rine-cache manifest`")
