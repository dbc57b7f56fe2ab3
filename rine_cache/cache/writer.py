"""Writing: a part file that is locked, filled slab by slab, sealed, and renamed."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from rine_cache.cache.hdf5 import (
    PART,
    SEALED,
    USER_BLOCK,
    Layout,
    create_file,
    file_size,
    mark_sealed,
    part_path,
    read_bytes,
    read_layout,
    read_slab,
    replaced_path,
    skeleton_digest,
    user_block,
)
from rine_cache.errors import CacheBusyError, CacheCorruptError, CacheError, CacheMismatchError
from rine_cache.files import flush_to_disk, is_full, reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from rine_cache.cache.hdf5 import CacheIdentity
    from rine_cache.cache.slab import CacheShape, Slab

LOG = logging.getLogger(__name__)


class CacheWriter:
    """Fills a part file slab by slab and seals it. Made by `open_writer`, which holds the lock."""

    def __init__(self, path: Path, descriptor: int, layout: Layout) -> None:
        self._path = path
        self._descriptor = descriptor
        self._layout = layout
        self.shape = layout.shape

    def pending_slabs(self) -> list[int]:
        """List the slabs still to be written: those with a pending row, or whose checksums fail.

        Slabs that are done are read from disk, one at a time; of the others only the status is.
        """
        part = part_path(self._path)
        status, checksums = self._layout.map(part, "status"), self._layout.map(part, "checksum")
        return [
            slab
            for slab in range(self.shape.slabs)
            if not status[self.shape.rows(slab)].all()
            or (read_slab(part, self._layout, slab).checksums() != checksums[slab]).any()
        ]

    def write(self, slab: int, content: Slab) -> None:
        """Write one slab: its data reach the disk before it is marked as done.

        Raises
        ------
        CacheError
            If the disk refuses.
        """
        assert content.tables["status"].all(), "a slab is written when every row of it is decided"
        rows = self.shape.rows(slab)
        try:
            for block, tokens in enumerate(content.features):
                self._put("features", (block, rows.start), tokens)
            self._put("embedding", (rows.start,), content.embedding)
            for name, table in content.tables.items():
                if name != "status":
                    self._put(name, (rows.start,), table)
            self._put("checksum", (slab,), content.checksums())
            os.fsync(self._descriptor)
            self._put("status", (rows.start,), content.tables["status"])
        except OSError as error:
            raise _disk_error(part_path(self._path), error) from None

    def read_slab(self, slab: int) -> Slab:
        """Read back a slab that was written; its features stay mapped."""
        return read_slab(part_path(self._path), self._layout, slab)

    def seal(self) -> None:
        """Mark the file as whole and give it its final name.

        Raises
        ------
        CacheCorruptError
            If a slab is missing, or its bytes are not those that were written.
        CacheError
            If the disk refuses; what was written stays in the part file.
        """
        if pending := self.pending_slabs():
            raise CacheCorruptError(
                f"{part_path(self._path)}: slab {pending[0]} does not hold what was written; "
                f"check the disk, then run the same command again"
            )
        part = part_path(self._path)
        try:
            mark_sealed(part)
            os.fsync(self._descriptor)
            os.pwrite(self._descriptor, user_block(SEALED, skeleton_digest(part, self._layout)), 0)
            os.fsync(self._descriptor)
            if self._path.exists() and self.shape.images != self._layout.identity.rows.total:
                self._path.replace(replaced_path(self._path))
            part.replace(self._path)
            flush_to_disk(self._path.parent)
        except OSError as error:
            raise _disk_error(self._path, error) from None

    def _put(self, name: str, index: tuple[int, ...], values: NDArray[Any]) -> None:
        """Write `values` at an index of a dataset's leading axes, with no gap up to their end."""
        offset, shape, dtype = self._layout.extents[name]
        strides = np.cumprod((1, *shape[:0:-1]))[::-1] * dtype.itemsize  # bytes per step of each axis
        position = offset + int(np.dot(index, strides[: len(index)]))
        view = memoryview(values.tobytes())
        while view:
            written = os.pwrite(self._descriptor, view, position)
            view, position = view[written:], position + written


@contextmanager
def open_writer(path: Path, shape: CacheShape, identity: CacheIdentity) -> Iterator[CacheWriter]:
    """Create the part file of a cache, or resume the one that is there.

    Parameters
    ----------
    path
        The cache's final path.
    shape, identity
        What is to be written.

    Raises
    ------
    CacheBusyError
        If another process is writing it.
    CacheMismatchError
        If the part file was begun for something else; it is left as it is.
    CacheError
        If there is no room for it.
    """
    part = part_path(path)
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _disk_error(part, error) from None
    descriptor = _lock(part)
    try:
        # A kill between the seal and the rename leaves a sealed part, whole: it is sealed again and renamed.
        if not read_bytes(part, 0, len(SEALED)).startswith((PART, SEALED)):
            _begin(part, descriptor, shape, identity)
        try:
            layout = read_layout(part)
        except CacheMismatchError:
            raise CacheMismatchError(
                f"{part} was begun by another version of this code; delete it to begin again"
            ) from None
        except CacheCorruptError as error:
            raise CacheCorruptError(f"{error}; delete it to begin again") from None
        _refuse_other_part(part, layout, shape, identity)
        yield CacheWriter(path, descriptor, layout)
    finally:
        os.close(descriptor)


def _lock(part: Path) -> int:
    """Open the part file and take its lock, which goes when the process does, however it dies."""
    while True:
        try:
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise _disk_error(part, error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise CacheBusyError(
                f"{part} is being written by another process; wait for it, or stop it and run this again"
            ) from None
        except OSError as error:  # some network file systems have no locks
            os.close(descriptor)
            raise CacheError(f"cannot lock {part}: {error.strerror}; write to a file system with locks") from None
        # The last holder may have renamed the file between the open and the lock.
        if part.exists() and part.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
        os.close(descriptor)


def _begin(part: Path, descriptor: int, shape: CacheShape, identity: CacheIdentity) -> None:
    """Lay out an empty file, reserve its space, and only then mark it as begun."""
    _require_space(part, shape)
    try:
        create_file(part, shape, identity)
        _reserve(part, descriptor)
        os.pwrite(descriptor, PART.ljust(USER_BLOCK, b"\0"), 0)
        os.fsync(descriptor)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise _disk_error(part, error) from None


def _require_space(part: Path, shape: CacheShape) -> None:
    """Say how much space the file takes, and refuse a disk that has less, before any image is read.

    Raises
    ------
    CacheError
        Naming both sizes.
    """
    needed, free = file_size(shape), shutil.disk_usage(part.parent).free
    LOG.info("%s takes %s, %s are free", part, _readable(needed), _readable(free))
    if needed > free:
        part.unlink(missing_ok=True)
        raise CacheError(
            f"no room for {part}: it takes {_readable(needed)}, {_readable(free)} are free in {part.parent}; free "
            "some, or write elsewhere, and run the same command again"
        )


def _reserve(part: Path, descriptor: int) -> None:
    """Reserve the file's space, as early allocation leaves a hole: a full disk is better told now than after hours.

    glibc writes zeros where a file system cannot reserve. Where nothing can, extraction goes on: if others fill the
    disk meanwhile it stops, and can be resumed.
    """
    try:
        if hasattr(os, "posix_fallocate"):  # macOS has none
            os.posix_fallocate(descriptor, 0, part.stat().st_size)
            return
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL}:
            raise
    LOG.warning("%s: its space cannot be reserved on this file system; keep it free until it is sealed", part)


def _readable(size: int) -> str:
    return f"{size / 10**6:,.1f} MB"


def _refuse_other_part(part: Path, layout: Layout, shape: CacheShape, identity: CacheIdentity) -> None:
    if difference := _difference(layout.identity._asdict(), identity._asdict()) or (
        f"shape {layout.shape}, now {shape}" if layout.shape != shape else ""
    ):
        raise CacheMismatchError(
            f"{part} was begun with another {difference}; delete it to begin again, or go back to what it was begun "
            f"with to finish it"
        )


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Name the first entry in which two nested descriptions differ, and both values."""
    for name in sorted({*found, *wanted}):
        ours, theirs = found.get(name), wanted.get(name)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            if inner := _difference(ours, theirs):
                return f"{name}.{inner}"
        elif ours != theirs:
            return f"{name} {ours}, now {theirs}"
    return ""


def _disk_error(part: Path, error: OSError) -> CacheError:
    if is_full(error):
        return CacheError(f"no room for {part}: {reason(error)}; free some and run the same command again")
    return CacheError(
        f"cannot write {part}: {reason(error)}; mend that and run the same command again, or choose another place"
    )
