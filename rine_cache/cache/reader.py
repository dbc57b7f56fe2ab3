"""Reading: a sealed cache, mapped into memory."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from rine_cache.cache.hdf5 import (
    PART,
    SEALED,
    USER_BLOCK,
    part_path,
    read_bytes,
    read_layout,
    skeleton_digest,
    user_block,
)
from rine_cache.cache.slab import ROW_TABLES, Slab, Status
from rine_cache.errors import CacheCorruptError, CacheError, CacheMismatchError, CacheUnsealedError
from rine_cache.provenance import fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray


class FeatureCache:
    """A sealed cache, mapped read-only: it stays as it was opened when its path is given to another file, or deleted.

    Attributes
    ----------
    features
        CLS tokens, shape (K, N, V, D), float16, memory-mapped. Rows that are not `readable` hold zeros.
    embedding
        Projected image features before any normalisation, shape (N, V, E), float16, memory-mapped.
    tables
        The row tables, by name, in memory; see `rine_cache.cache`.
    status, reason, content_sha256
        Three of them.
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
        layout = read_layout(path)
        if user_block(skeleton_digest(path, layout)) != read_bytes(path, 0, USER_BLOCK):
            raise CacheCorruptError(
                f"{path} is damaged outside its features: its seal does not match; delete it and extract it again"
            )
        self.shape, self.identity = layout.shape, layout.identity
        self.features: np.memmap[Any, np.dtype[np.float16]] = layout.map(path, "features")
        self.embedding: np.memmap[Any, np.dtype[np.float16]] = layout.map(path, "embedding")
        self._checksums = layout.map(path, "checksum")  # (S, K+2, 32)
        self.tables: dict[str, NDArray[Any]] = {name: np.array(layout.map(path, name)) for name in ROW_TABLES}
        self.status: NDArray[np.uint8] = self.tables["status"]
        self.reason: NDArray[np.uint8] = self.tables["reason"]
        self.content_sha256: NDArray[np.uint8] = self.tables["content_sha256"]

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
        for slab in range(self.shape.slabs):
            bad = self._damage(self._slab(slab), slab)
            if bad.size:
                parts = [f"block {index}" for index in range(self.shape.blocks)] + ["embedding", "row tables"]
                yield slab, [parts[index] for index in bad]

    def read_slab(self, slab: int) -> Slab | None:
        """Return one slab, its features mapped, once it was checked; None if its checksums fail."""
        content = self._slab(slab)
        return None if self._damage(content, slab).size else content

    def _slab(self, slab: int) -> Slab:
        rows = self.shape.rows(slab)
        return Slab(
            features=self.features[:, rows],  # (K, n, V, D)
            embedding=self.embedding[rows],  # (n, V, E)
            tables={name: table[rows] for name, table in self.tables.items()},
        )

    def _damage(self, content: Slab, slab: int) -> NDArray[np.int64]:
        """List which of a slab's checksums fail: K blocks, the embedding, the row tables."""
        return np.flatnonzero((content.checksums() != self._checksums[slab]).any(axis=1))


def _refuse_unsealed(path: Path) -> None:
    if not path.is_file():
        hint = "its extraction has not finished" if part_path(path).exists() else "make it"
        raise CacheError(f"no cache at {path}; {hint} (rine-cache extract, or snakemake)")
    try:
        start = read_bytes(path, 0, len(SEALED))
    except OSError as error:
        raise CacheError(f"cannot read {path}: {error.strerror}; mend that and run the same command again") from None
    if start.startswith(PART):
        raise CacheUnsealedError(f"{path} is not sealed: run the same `rine-cache extract` again to finish it")
    if start != SEALED:
        raise CacheError(f"{path} is not a rine-cache file; choose another path, or delete it")
