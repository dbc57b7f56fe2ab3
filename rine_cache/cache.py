"""The cache: one HDF5 file per data set, encoder, tap and view. The only module that knows HDF5.

Datasets (K blocks, N images, V draws, D width, E embedding width, S slabs):

==================  ==============  ========  ===================================================
name                shape           dtype     holds
==================  ==============  ========  ===================================================
/features           (K, N, V, D)    float16   CLS tokens at the tap, block-major
/embedding          (N, V, E)       float16   the encoder's projected image feature
/status             (N,)            enum u1   pending, done, unreadable
/reason             (N,)            enum u1   why it is unreadable
/content_sha256     (N, 32)         uint8     digest of the file's bytes
/width /height      (N,)            uint32    size of the decoded image, before the view
/format             (N,)            S8        format by content
/checksum           (S, K+2, 32)    uint8     sha256 of each slab: K blocks, embedding, row tables
==================  ==============  ========  ===================================================

All are contiguous and allocated when the file is created. HDF5 therefore lays out the file once, and slabs
are then written at known offsets without touching its structure: a kill at any moment leaves a file that
opens. It also lets readers map the features, so that b of K blocks cost b/K of the bytes.

The first 512 bytes are the file's user block, ours to use: a state word and, once sealed, a digest of all
bytes that no slab checksum covers. So every byte of a sealed file is covered by one digest or the other.

Life of ``X.h5``: it is created as ``X.h5.part``, filled slab by slab, sealed, and renamed. What was done
survives; a slab counts as done when all its rows have a status and its checksums hold.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np

from rine_cache.errors import (
    CacheBusyError,
    CacheCorruptError,
    CacheError,
    CacheMismatchError,
    CacheUnsealedError,
)
from rine_cache.files import flush_to_disk
from rine_cache.provenance import canonical_json, fingerprint
from rine_cache.quarantine import Reason
from rine_cache.specs.encoding import CACHE_SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

USER_BLOCK = 512
_PART = b"rine-cache part\n"
_SEALED = b"rine-cache sealed\n"


class Status(IntEnum):
    """What is known of a row, as stored in `/status`."""

    PENDING = 0
    DONE = 1
    UNREADABLE = 2


# The row tables, in the order in which their bytes enter a slab's last checksum.
_ROW_TABLES: dict[str, Any] = {
    "status": h5py.enum_dtype({status.name: status.value for status in Status}, basetype="u1"),
    "reason": h5py.enum_dtype({reason.name: reason.value for reason in Reason}, basetype="u1"),
    "content_sha256": np.dtype("u1"),
    "width": np.dtype("<u4"),
    "height": np.dtype("<u4"),
    "format": np.dtype("S8"),
}


class CacheShape(NamedTuple):
    """The sizes that lay out a cache. `slab_rows` is a whole number of the encoder's batches."""

    blocks: int
    images: int
    draws: int
    width: int
    embedding_width: int
    slab_rows: int

    @property
    def slabs(self) -> int:
        """Return S, the number of slabs; the last may be short."""
        return -(-self.images // self.slab_rows)

    def rows(self, slab: int) -> slice:
        """Return the rows of a slab."""
        return slice(slab * self.slab_rows, min((slab + 1) * self.slab_rows, self.images))


class CacheIdentity(NamedTuple):
    """What a cache was made from.

    `key` is the encoding key: all that changes the numbers of one image. `manifest_digest` says which images
    in which order. `libraries` and `device` are recorded, and guard the resumption of a part file, but are
    not part of the identity of a sealed one.
    """

    key: dict[str, Any]
    manifest_digest: str
    libraries: dict[str, str]
    device: str


@dataclass
class Slab:
    """The rows of one slab, to be filled and written. Shapes as in the module's table, n rows for N."""

    features: NDArray[np.float16]  # (K, n, V, D)
    embedding: NDArray[np.float16]  # (n, V, E)
    status: NDArray[np.uint8]  # (n,)
    reason: NDArray[np.uint8]  # (n,)
    content_sha256: NDArray[np.uint8]  # (n, 32)
    width: NDArray[np.uint32]  # (n,)
    height: NDArray[np.uint32]  # (n,)
    format: NDArray[np.bytes_]  # (n,)

    @classmethod
    def empty(cls, shape: CacheShape, rows: int) -> Slab:
        """Make a slab of `rows` pending rows, all zeros."""
        return cls(
            features=np.zeros((shape.blocks, rows, shape.draws, shape.width), "<f2"),  # (K, n, V, D)
            embedding=np.zeros((rows, shape.draws, shape.embedding_width), "<f2"),  # (n, V, E)
            status=np.zeros(rows, "u1"),  # (n,)
            reason=np.zeros(rows, "u1"),  # (n,)
            content_sha256=np.zeros((rows, 32), "u1"),  # (n, 32)
            width=np.zeros(rows, "<u4"),  # (n,)
            height=np.zeros(rows, "<u4"),  # (n,)
            format=np.zeros(rows, "S8"),  # (n,)
        )

    def checksums(self) -> NDArray[np.uint8]:
        """Return the sha256 of each block, of the embedding and of the row tables, shape (K+2, 32), uint8."""
        tables = hashlib.sha256()
        for name in _ROW_TABLES:
            tables.update(getattr(self, name).tobytes())
        digests = [hashlib.sha256(block.tobytes()).digest() for block in self.features]
        digests += [hashlib.sha256(self.embedding.tobytes()).digest(), tables.digest()]
        return np.frombuffer(b"".join(digests), "u1").reshape(-1, 32)  # (K+2, 32)


class _Layout(NamedTuple):
    """Where each dataset's bytes lie: offset from the start of the file, shape, dtype."""

    extents: dict[str, tuple[int, tuple[int, ...], np.dtype[Any]]]
    shape: CacheShape
    identity: CacheIdentity

    def map(self, path: Path, name: str) -> np.memmap[Any, Any]:
        offset, shape, dtype = self.extents[name]
        mapped: np.memmap[Any, Any] = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)
        return mapped


class FeatureCache:
    """A sealed cache, mapped read-only.

    Attributes
    ----------
    features
        CLS tokens, shape (K, N, V, D), float16, memory-mapped. Rows that are not `readable` hold zeros.
    embedding
        Projected image features before any normalisation, shape (N, V, E), float16, memory-mapped.
    status, reason, content_sha256, width, height, format
        The row tables, in memory.
    identity
        What it was made from.
    """

    def __init__(self, path: Path) -> None:
        """Open a sealed cache, checking its structure but not every byte of its features.

        Raises
        ------
        CacheError
            If there is none at `path`, it is unsealed, or its structure is damaged.
        """
        _refuse_unsealed(path)
        self.path = path
        self._layout = _read_layout(path)
        if _user_block(_skeleton_digest(path, self._layout)) != _read_bytes(path, 0, USER_BLOCK):
            raise CacheCorruptError(
                f"{path} is damaged outside its features: its seal does not match; delete it and extract it again"
            )
        self.shape, self.identity = self._layout.shape, self._layout.identity
        self.features: np.memmap[Any, np.dtype[np.float16]] = self._layout.map(path, "features")
        self.embedding: np.memmap[Any, np.dtype[np.float16]] = self._layout.map(path, "embedding")
        tables = {name: np.array(self._layout.map(path, name)) for name in _ROW_TABLES}
        self.status: NDArray[np.uint8] = tables["status"]
        self.reason: NDArray[np.uint8] = tables["reason"]
        self.content_sha256: NDArray[np.uint8] = tables["content_sha256"]
        self.width: NDArray[np.uint32] = tables["width"]
        self.height: NDArray[np.uint32] = tables["height"]
        self.format: NDArray[np.bytes_] = tables["format"]

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Which rows hold features, shape (N,)."""
        done: NDArray[np.bool_] = self.status == Status.DONE  # (N,)
        return done

    @property
    def fingerprint(self) -> str:
        """The sha256 of the encoding key."""
        return fingerprint(self.identity.key)

    @property
    def content_digest(self) -> str:
        """The sha256 over all images' content digests: names and sizes may agree where bytes do not."""
        return hashlib.sha256(self.content_sha256.tobytes()).hexdigest()

    def require_manifest(self, digest: str, manifest_path: Path) -> None:
        """Refuse a manifest that this cache was not made from.

        Raises
        ------
        CacheMismatchError
            Naming both digests and what to run.
        """
        if digest != self.identity.manifest_digest:
            raise CacheMismatchError(
                f"{self.path} was made from manifest {self.identity.manifest_digest[:12]}, but {manifest_path} "
                f"is {digest[:12]}: other images or another order; run `rine-cache extract` with it"
            )

    def damaged_slabs(self) -> Iterator[tuple[int, list[str]]]:
        """Re-read every byte; yield each slab whose checksums fail, and what failed in it."""
        checksums = self._layout.map(self.path, "checksum")
        for slab in range(self.shape.slabs):
            found = _read_slab(self.path, self._layout, slab).checksums()
            bad = np.flatnonzero((found != checksums[slab]).any(axis=1))
            if bad.size:
                parts = [f"block {index}" for index in range(self.shape.blocks)] + ["embedding", "row tables"]
                yield slab, [parts[index] for index in bad]


class CacheWriter:
    """Fills a part file slab by slab and seals it. Made by `open_writer`, which holds the lock."""

    def __init__(self, path: Path, descriptor: int, layout: _Layout) -> None:
        self._path = path
        self._descriptor = descriptor
        self._layout = layout
        self.shape = layout.shape

    def pending_slabs(self) -> list[int]:
        """List the slabs still to be written: those with a pending row, or whose checksums fail."""
        part = part_path(self._path)
        checksums = self._layout.map(part, "checksum")
        pending = []
        for slab in range(self.shape.slabs):
            written = _read_slab(part, self._layout, slab)
            if not written.status.all() or (written.checksums() != checksums[slab]).any():
                pending.append(slab)
        return pending

    def write(self, slab: int, content: Slab) -> None:
        """Write one slab: its data reach the disk before it is marked as done.

        Raises
        ------
        CacheError
            If the disk refuses.
        """
        assert content.status.all(), "a slab is written when every row of it is decided"
        rows = self.shape.rows(slab)
        try:
            for block, tokens in enumerate(content.features):
                self._put("features", (block, rows.start), tokens)
            for name in ("embedding", *(name for name in _ROW_TABLES if name != "status")):
                self._put(name, (rows.start,), getattr(content, name))
            self._put("checksum", (slab,), content.checksums())
            os.fsync(self._descriptor)
            self._put("status", (rows.start,), content.status)
        except OSError as error:
            raise _disk_error(part_path(self._path), error) from None

    def read_row_tables(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
        """Return status (N,), reason (N,) and content digests (N, 32) of what has been written."""
        part = part_path(self._path)
        tables = [np.array(self._layout.map(part, name)) for name in ("status", "reason", "content_sha256")]
        return tables[0], tables[1], tables[2]

    def seal(self) -> None:
        """Mark the file as whole and give it its final name.

        Raises
        ------
        CacheCorruptError
            If a slab is missing, or its bytes are not those that were written.
        """
        if pending := self.pending_slabs():
            raise CacheCorruptError(
                f"{part_path(self._path)}: slab {pending[0]} does not hold what was written; "
                f"check the disk, then run the same command again"
            )
        part = part_path(self._path)
        with h5py.File(part, "r+", locking=False) as file:
            file.attrs.modify("sealed", np.uint8(1))
        os.fsync(self._descriptor)
        os.pwrite(self._descriptor, _user_block(_skeleton_digest(part, self._layout)), 0)
        os.fsync(self._descriptor)
        part.replace(self._path)
        flush_to_disk(self._path.parent)

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
        if not _read_bytes(part, 0, len(_SEALED)).startswith((_PART, _SEALED)):
            _create(part, descriptor, shape, identity)
        layout = _read_layout(part)
        _refuse_other_part(part, layout, shape, identity)
        yield CacheWriter(path, descriptor, layout)
    finally:
        os.close(descriptor)


def part_path(path: Path) -> Path:
    """Return where a cache is written until it is sealed."""
    return path.with_name(f"{path.name}.part")


def _refuse_unsealed(path: Path) -> None:
    if not path.is_file():
        hint = "its extraction has not finished" if part_path(path).exists() else "make it"
        raise CacheError(f"no cache at {path}; {hint} (rine-cache extract, or snakemake)")
    start = _read_bytes(path, 0, len(_SEALED))
    if start.startswith(_PART):
        raise CacheUnsealedError(f"{path} is not sealed: run the same `rine-cache extract` again to finish it")
    if start != _SEALED:
        raise CacheError(f"{path} is not a rine-cache file")


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


def _create(part: Path, descriptor: int, shape: CacheShape, identity: CacheIdentity) -> None:
    """Lay out an empty file, reserve its space, and only then mark it as begun."""
    blocks, images, draws = shape.blocks, shape.images, shape.draws
    shapes = {
        "features": (blocks, images, draws, shape.width),
        "embedding": (images, draws, shape.embedding_width),
        **dict.fromkeys(_ROW_TABLES, (images,)),
        "content_sha256": (images, 32),
        "checksum": (shape.slabs, blocks + 2, 32),
    }
    dtypes = {"features": np.dtype("<f2"), "embedding": np.dtype("<f2"), "checksum": np.dtype("u1")}
    try:
        # The default libver and no times: a killed writer's file opens, and equal content has equal bytes.
        with h5py.File(part, "w", userblock_size=USER_BLOCK, locking=False) as file:
            for name, extent in shapes.items():
                _create_dataset(file, name, extent, (_ROW_TABLES | dtypes)[name])
            for name, value in _attributes(shape, identity).items():
                file.attrs[name] = value
        size = part.stat().st_size
        # Early allocation leaves a hole; a full disk is better told now than after hours.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        os.pwrite(descriptor, _PART.ljust(USER_BLOCK, b"\0"), 0)
        os.fsync(descriptor)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise _disk_error(part, error) from None


def _create_dataset(file: h5py.File, name: str, shape: tuple[int, ...], dtype: Any) -> None:
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_layout(h5py.h5d.CONTIGUOUS)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    settings.set_obj_track_times(False)
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(dtype, logical=True), space, settings)


def _attributes(shape: CacheShape, identity: CacheIdentity) -> dict[str, Any]:
    """Return the root attributes, all of fixed size."""
    return {
        "schema_version": np.uint32(CACHE_SCHEMA_VERSION),
        "sealed": np.uint8(0),
        "slab_rows": np.uint32(shape.slab_rows),
        "encoding_key": np.bytes_(canonical_json(identity.key)),
        "encoding_fingerprint": np.bytes_(fingerprint(identity.key)),
        "manifest_digest": np.bytes_(identity.manifest_digest),
        "libraries": np.bytes_(canonical_json(identity.libraries)),
        "device": np.bytes_(identity.device),
    }


def _read_layout(path: Path) -> _Layout:
    try:
        with h5py.File(path, "r", locking=False) as file:
            version = int(file.attrs["schema_version"])
            if version != CACHE_SCHEMA_VERSION:
                raise CacheMismatchError(
                    f"{path} has schema version {version}, this code reads {CACHE_SCHEMA_VERSION}; extract it again"
                )
            identity = CacheIdentity(
                json.loads(file.attrs["encoding_key"]),
                file.attrs["manifest_digest"].decode(),
                json.loads(file.attrs["libraries"]),
                file.attrs["device"].decode(),
            )
            names = ("features", "embedding", "checksum", *_ROW_TABLES)
            extents = {name: (file[name].id.get_offset(), file[name].shape, _plain(file[name].dtype)) for name in names}
            blocks, images, draws, width = extents["features"][1]
            shape = CacheShape(blocks, images, draws, width, extents["embedding"][1][2], int(file.attrs["slab_rows"]))
    except CacheError:
        raise
    except (OSError, LookupError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        # A damaged file structure can fail in any of these ways inside h5py.
        raise CacheCorruptError(f"{path} cannot be read as a cache: {error}") from None
    return _Layout(extents, shape, identity)


def _plain(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Strip h5py's enum metadata."""
    return np.dtype(dtype.str)


def _read_slab(path: Path, layout: _Layout, slab: int) -> Slab:
    rows = layout.shape.rows(slab)
    tables = {name: np.array(layout.map(path, name)[rows]) for name in _ROW_TABLES}
    return Slab(
        features=layout.map(path, "features")[:, rows],  # (K, n, V, D)
        embedding=np.array(layout.map(path, "embedding")[rows]),  # (n, V, E)
        **tables,
    )


def _refuse_other_part(part: Path, layout: _Layout, shape: CacheShape, identity: CacheIdentity) -> None:
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


def _skeleton_digest(path: Path, layout: _Layout) -> bytes:
    """Return the sha256 of every byte after the user block that no slab checksum covers."""
    covered = sorted(
        (offset, offset + int(np.prod(shape)) * dtype.itemsize)
        for name, (offset, shape, dtype) in layout.extents.items()
        if name != "checksum"
    )
    end = path.stat().st_size
    if end < covered[-1][1]:
        raise CacheCorruptError(f"{path} is cut short: {end} bytes of at least {covered[-1][1]}")
    running = hashlib.sha256()
    position = USER_BLOCK
    for start, stop in [*covered, (end, end)]:
        if start < position:
            raise CacheCorruptError(f"{path} is damaged: its datasets overlap")
        running.update(_read_bytes(path, position, start - position))
        position = stop
    return running.digest()


def _user_block(skeleton: bytes) -> bytes:
    return (_SEALED + skeleton.hex().encode() + b"\n").ljust(USER_BLOCK, b"\0")


def _read_bytes(path: Path, start: int, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(count)


def _disk_error(part: Path, error: OSError) -> CacheError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return CacheError(f"no room for {part}: {error.strerror}; free some and run the same command again")
    return CacheError(f"cannot write {part}: {error.strerror or error}; what was written is kept")
