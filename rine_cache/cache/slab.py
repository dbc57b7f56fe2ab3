"""The sizes of a cache, and its slabs: the rows that are written, and checked, at once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The row tables and their bytes' types, in the order in which they enter a slab's last checksum.
ROW_TABLES: dict[str, np.dtype[Any]] = {
    "status": np.dtype("u1"),
    "reason": np.dtype("u1"),
    "content_sha256": np.dtype("u1"),
    "file_size": np.dtype("<u8"),
    "width": np.dtype("<u4"),
    "height": np.dtype("<u4"),
    "format": np.dtype("S8"),
    "mode": np.dtype("S8"),
    "jpeg_quality": np.dtype("u1"),
    "exif": np.dtype("u1"),
    "perceptual_hash": np.dtype("<u8"),
}
_ROW_SHAPES: dict[str, tuple[int, ...]] = {"content_sha256": (32,)}


def row_table_shapes(rows: int) -> dict[str, tuple[int, ...]]:
    """Return the row tables' shapes for a number of rows."""
    return {name: (rows, *_ROW_SHAPES.get(name, ())) for name in ROW_TABLES}


class Status(IntEnum):
    """What is known of a row, as stored in `/status`."""

    PENDING = 0
    DONE = 1
    UNREADABLE = 2


class RowRange(NamedTuple):
    """Which of a manifest's rows a file holds: from `first` on, of `total` in all; a whole cache holds them all."""

    first: int
    total: int


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


@dataclass
class Slab:
    """The rows of one slab, to be filled and written; `tables` are its row tables. n rows stand for N."""

    features: NDArray[np.float16]  # (K, n, V, D)
    embedding: NDArray[np.float16]  # (n, V, E)
    tables: dict[str, NDArray[Any]]  # each (n,); content_sha256 (n, 32)

    @classmethod
    def empty(cls, shape: CacheShape, rows: int) -> Slab:
        """Make a slab of `rows` pending rows, all zeros."""
        return cls(
            features=np.zeros((shape.blocks, rows, shape.draws, shape.width), "<f2"),  # (K, n, V, D)
            embedding=np.zeros((rows, shape.draws, shape.embedding_width), "<f2"),  # (n, V, E)
            tables={name: np.zeros(row_table_shapes(rows)[name], dtype) for name, dtype in ROW_TABLES.items()},
        )

    def copy_row(self, row: int, source: Slab, source_row: int) -> None:
        """Take over everything that another slab, or this one, holds in a row."""
        self.features[:, row] = source.features[:, source_row]
        self.embedding[row] = source.embedding[source_row]
        for name, table in self.tables.items():
            table[row] = source.tables[name][source_row]

    def checksums(self) -> NDArray[np.uint8]:
        """Return the sha256 of each block, of the embedding and of the row tables, shape (K+2, 32), uint8."""
        tables = hashlib.sha256()
        for name in ROW_TABLES:
            tables.update(self.tables[name].tobytes())
        digests = [hashlib.sha256(block.tobytes()).digest() for block in self.features]
        digests += [hashlib.sha256(self.embedding.tobytes()).digest(), tables.digest()]
        return np.frombuffer(b"".join(digests), "u1").reshape(-1, 32)  # (K+2, 32)
