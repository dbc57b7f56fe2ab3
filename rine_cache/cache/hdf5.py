"""The structure of a cache's file: how it is laid out, created, read and digested. The only module that knows HDF5."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np

from rine_cache.cache.slab import ROW_TABLES, CacheShape, RowRange, Slab, Status, row_table_shapes
from rine_cache.errors import CacheCorruptError, CacheError, CacheMismatchError
from rine_cache.provenance import canonical_json, fingerprint
from rine_cache.quarantine import Reason
from rine_cache.specs.encoding import CACHE_SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

USER_BLOCK = 512
PART = b"rine-cache part\n"
SEALED = b"rine-cache sealed\n"
INDEX = b"rine-cache index\n"
_SEALS = "seals"  # the name, in an index, of its shards' seals
# What plain HDF5 tools show instead of numbers.
_ENUMS: dict[str, Any] = {
    "status": h5py.enum_dtype({status.name: status.value for status in Status}, basetype="u1"),
    "reason": h5py.enum_dtype({reason.name: reason.value for reason in Reason}, basetype="u1"),
}


class CacheIdentity(NamedTuple):
    """What a cache was made from.

    `key` is the encoding key: all that changes the numbers of one image. `manifest_digest` says which images
    in which order, `rows` which of them the file holds. `libraries` and `device` are recorded, and guard the
    resumption of a part file, but are not part of the identity of a sealed one.
    """

    key: dict[str, Any]
    manifest_digest: str
    libraries: dict[str, str]
    device: str
    rows: RowRange


class Layout(NamedTuple):
    """Where each dataset's bytes lie: offset from the start of the file, shape, dtype."""

    extents: dict[str, tuple[int, tuple[int, ...], np.dtype[Any]]]
    shape: CacheShape
    identity: CacheIdentity

    def map(self, path: Path, name: str) -> NDArray[Any]:
        """Map a dataset's bytes, read-only; an empty one, of a shard without rows, has none."""
        offset, shape, dtype = self.extents[name]
        if 0 in shape:
            return np.empty(shape, dtype)
        mapped: NDArray[Any] = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)
        return mapped


def part_path(path: Path) -> Path:
    """Return where a cache is written until it is sealed."""
    return path.with_name(f"{path.name}.part")


def replaced_path(shard: Path) -> Path:
    """Return where a shard that was made again stays until all are joined: others may copy rows of it."""
    return shard.with_suffix(".replaced.h5")


def create_file(path: Path, shape: CacheShape, identity: CacheIdentity) -> None:
    """Lay out an empty file at its full size."""
    blocks, images, draws = shape.blocks, shape.images, shape.draws
    shapes = {
        "features": (blocks, images, draws, shape.width),
        "embedding": (images, draws, shape.embedding_width),
        **row_table_shapes(images),
        "checksum": (shape.slabs, blocks + 2, 32),
    }
    halves = {"features": np.dtype("<f2"), "embedding": np.dtype("<f2"), "checksum": np.dtype("u1")}
    dtypes = ROW_TABLES | halves | _ENUMS
    with _new_file(path) as file:
        for name, extent in shapes.items():
            _create_dataset(file, name, extent, dtypes[name])
        for name, value in attributes(shape, identity).items():
            file.attrs[name] = value


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[h5py.File]:
    """Create a file. What the disk refuses is an OSError with its number: h5py hides that in a text, of any error."""
    try:
        # The default libver and no times: a killed writer's file opens, and equal content has equal bytes.
        with h5py.File(path, "w", userblock_size=USER_BLOCK, locking=False) as file:
            yield file
    except (OSError, RuntimeError) as error:
        if number := re.search(r"errno = (\d+)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from None
        raise


def file_size(shape: CacheShape) -> int:
    """Return about how many bytes a file takes, without the little that HDF5 itself needs."""
    halves = shape.draws * (shape.blocks * shape.width + shape.embedding_width)
    tables = sum(int(np.prod(of)) * ROW_TABLES[name].itemsize for name, of in row_table_shapes(1).items())
    return shape.images * (2 * halves + tables) + shape.slabs * (shape.blocks + 2) * 32


def create_index(
    path: Path, shape: CacheShape, identity: CacheIdentity, count: int, links: dict[int, str], seals: list[bytes]
) -> None:
    """Write the index of a cache of `count` shards: what it is of, links to those that have rows, and their seals."""
    # In memory first: where the disk refuses, HDF5 would complain once more for each object that it cannot close.
    with h5py.File(path, "w", driver="core", backing_store=False, userblock_size=USER_BLOCK) as file:
        for name, value in attributes(shape, identity).items():
            file.attrs[name] = value
        file.attrs["sealed"] = np.uint8(1)
        file.attrs["shards"] = np.uint32(count)
        # A dataset, as attributes are limited to 64 KiB.
        file.create_dataset(_SEALS, data=np.array(seals), track_times=False)  # (S,) S64
        for number, target in links.items():
            file[str(number)] = h5py.ExternalLink(target, "/")
        file.flush()
        image = file.id.get_file_image()
    path.write_bytes(bytes(USER_BLOCK) + image)  # an image is without that block


def read_links(path: Path) -> tuple[int, dict[int, bytes]]:
    """Read an index: the count of its shards, and the seal of each that has rows, by number."""
    with h5py.File(path, "r", locking=False) as file:
        numbers = sorted(int(name) for name in file if name != _SEALS)
        seals = file[_SEALS][:]  # (S,) S64
        return int(file.attrs["shards"]), {number: bytes(seal) for number, seal in zip(numbers, seals, strict=True)}


def mark_sealed(path: Path) -> None:
    """Set the attribute `sealed`, in place: it has its size already."""
    with h5py.File(path, "r+", locking=False) as file:
        file.attrs.modify("sealed", np.uint8(1))


def _create_dataset(file: h5py.File, name: str, shape: tuple[int, ...], dtype: Any) -> None:
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_layout(h5py.h5d.CONTIGUOUS)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    settings.set_obj_track_times(False)
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(dtype, logical=True), space, settings)


def attributes(shape: CacheShape, identity: CacheIdentity) -> dict[str, Any]:
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
        "first_row": np.uint64(identity.rows.first),
        "total_rows": np.uint64(identity.rows.total),
    }


def read_layout(path: Path) -> Layout:
    """Read where a file's datasets lie, and what it says it was made from; its bytes are not checked.

    Raises
    ------
    CacheMismatchError
        If it has another schema version.
    CacheCorruptError
        If it has not the structure of a cache.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            version = int(file.attrs["schema_version"])
            if version != CACHE_SCHEMA_VERSION:
                raise CacheMismatchError(
                    f"{path} has schema version {version}, this code reads {CACHE_SCHEMA_VERSION}; extract it again"
                )
            identity = read_identity(file)
            names = ("features", "embedding", "checksum", *ROW_TABLES)
            extents = {name: (file[name].id.get_offset(), file[name].shape, _plain(file[name].dtype)) for name in names}
            blocks, images, draws, width = extents["features"][1]
            shape = CacheShape(blocks, images, draws, width, extents["embedding"][1][2], int(file.attrs["slab_rows"]))
    except CacheError:
        raise
    except (OSError, LookupError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        # A damaged file structure can fail in any of these ways inside h5py.
        raise CacheCorruptError(f"{path} cannot be read as a cache: {error}") from None
    return Layout(extents, shape, identity)


def read_identity(file: h5py.File) -> CacheIdentity:
    """Read what an open file says it was made from."""
    return CacheIdentity(
        json.loads(file.attrs["encoding_key"]),
        file.attrs["manifest_digest"].decode(),
        json.loads(file.attrs["libraries"]),
        file.attrs["device"].decode(),
        RowRange(int(file.attrs["first_row"]), int(file.attrs["total_rows"])),
    )


def _plain(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Strip h5py's enum metadata."""
    return np.dtype(dtype.str)


def read_slab(path: Path, layout: Layout, slab: int) -> Slab:
    """Read one slab; its features stay mapped."""
    rows = layout.shape.rows(slab)
    tables = {name: np.array(layout.map(path, name)[rows]) for name in ROW_TABLES}
    return Slab(
        features=layout.map(path, "features")[:, rows],  # (K, n, V, D)
        embedding=np.array(layout.map(path, "embedding")[rows]),  # (n, V, E)
        tables=tables,
    )


def skeleton_digest(path: Path, layout: Layout) -> bytes:
    """Return the sha256 of every byte after the user block that no slab checksum covers."""
    covered = sorted(
        (offset, offset + int(np.prod(shape)) * dtype.itemsize)
        for name, (offset, shape, dtype) in layout.extents.items()
        if name != "checksum" and 0 not in shape
    )
    end, least = path.stat().st_size, max((stop for _, stop in covered), default=USER_BLOCK)
    if end < least:
        raise CacheCorruptError(f"{path} is cut short: {end} bytes of at least {least}")
    running = hashlib.sha256()
    position = USER_BLOCK
    for start, stop in [*covered, (end, end)]:
        if start < position:
            raise CacheCorruptError(f"{path} is damaged: its datasets overlap")
        running.update(read_bytes(path, position, start - position))
        position = stop
    return running.digest()


def user_block(state: bytes, digest: bytes) -> bytes:
    """Return the first bytes of a file in a state, with the digest that guards it."""
    return (state + digest.hex().encode() + b"\n").ljust(USER_BLOCK, b"\0")


def read_bytes(path: Path, start: int, count: int) -> bytes:
    """Read some bytes of a file, fewer at its end."""
    with path.open("rb") as file:
        file.seek(start)
        return file.read(count)
