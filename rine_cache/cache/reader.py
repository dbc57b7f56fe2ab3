"""Reading: a sealed cache, one file or several shards, mapped into memory."""

from __future__ import annotations

import hashlib
import mmap
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

import numpy as np

from rine_cache.cache.hdf5 import (
    INDEX,
    PART,
    SEALED,
    USER_BLOCK,
    part_path,
    read_bytes,
    read_layout,
    skeleton_digest,
    user_block,
)
from rine_cache.cache.joined import joined
from rine_cache.cache.shards import read_index, remedy
from rine_cache.cache.slab import ROW_TABLES, Slab, Status
from rine_cache.errors import CacheCorruptError, CacheError, CacheMismatchError, CacheUnsealedError
from rine_cache.provenance import fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from rine_cache.cache.joined import Rows
    from rine_cache.cache.shards import Shard


class FeatureCache:
    """A sealed cache, mapped read-only: it stays as it was opened when its path is given to another file, or deleted.

    Whether it is one file or an index of shards shows nowhere but in `files`.

    Attributes
    ----------
    features
        CLS tokens, shape (K, N, V, D), float16, memory-mapped. Rows that are not `readable` hold zeros. Index it at
        once, as in ``features[block, rows, draw]``: only what is asked for is read.
    embedding
        Projected image features before any normalisation, shape (N, V, E), float16, memory-mapped.
    tables
        The row tables, by name, in memory; see `rine_cache.cache`.
    status, reason, content_sha256
        Three of them.
    identity
        What it was made from.
    files
        The files that hold its rows, in their order.
    """

    def __init__(self, path: Path) -> None:
        """Open a sealed cache, checking its structure but not every byte of its features.

        Raises
        ------
        CacheError
            If there is none at `path`, it is unsealed, its structure is damaged, or a shard of it is missing or
            another one.
        """
        self.path = path
        if _state(path) == INDEX:
            shards = read_index(path)
            self._files = [_open_shard(path, shard) for shard in shards]
        else:
            # Where there is one shard, the cache is a link to it.
            self._files = [_SealedFile(path.parent / path.readlink() if path.is_symlink() else path)]
        first = self._files[0]
        images = sum(file.shape.images for file in self._files)
        self.shape = first.shape._replace(images=images)
        rows = first.identity.rows
        self.identity = first.identity
        self.files = [file.path for file in self._files]
        self._starts = [file.identity.rows.first - rows.first for file in self._files]
        self.features: Rows = joined([file.features for file in self._files], axis=1)
        self.embedding: Rows = joined([file.embedding for file in self._files], axis=0)
        self.tables: dict[str, NDArray[Any]] = {
            name: np.concatenate([file.tables[name] for file in self._files]) for name in ROW_TABLES
        }
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
        """Refuse a manifest that this cache was not made from, or a shard of a cache.

        Raises
        ------
        CacheMismatchError
            Naming what differs and what to run.
        """
        if digest != self.identity.manifest_digest:
            raise CacheMismatchError(
                f"{self.path} was made from manifest {self.identity.manifest_digest[:12]}, but {manifest_path} "
                f"is {digest[:12]}: other images or another order; run `rine-cache extract` with it"
            )
        if self.shape.images != self.identity.rows.total:
            raise CacheMismatchError(
                f"{self.path} is a shard: it holds {self.shape.images} of {self.identity.rows.total} images; extract "
                "the others and make one cache of them with `rine-cache join`"
            )

    def damaged_slabs(self) -> Iterator[tuple[int, list[str]]]:
        """Re-read every byte; yield each slab whose checksums fail, and what failed in it."""
        for slab in range(self.shape.slabs):
            file, own = self._located(slab)
            bad = file.damage(own)
            if bad.size:
                parts = [f"block {index}" for index in range(self.shape.blocks)] + ["embedding", "row tables"]
                yield slab, [parts[index] for index in bad]
            file.forget_pages()

    def damage(self) -> list[str]:
        """Re-read every byte; say of each damaged file what in it is, and what to delete and to run."""
        faults: dict[Path, list[str]] = {}
        for slab, parts in self.damaged_slabs():
            faults.setdefault(self._located(slab)[0].path, []).append(f"slab {slab} ({', '.join(parts)})")
        return [f"{path} is damaged: {', '.join(slabs)}; {remedy(path)}" for path, slabs in faults.items()]

    def forget_pages(self) -> None:
        """Let go of the pages that were read: they count as this process's memory, and are the system's anyway."""
        for file in self._files:
            file.forget_pages()

    def read_slab(self, slab: int) -> Slab | None:
        """Return one slab, its features mapped, once it was checked; None if its checksums fail."""
        file, own = self._located(slab)
        return None if file.damage(own).size else file.slab(own)

    def _located(self, slab: int) -> tuple[_SealedFile, int]:
        """Return the file that holds a slab, and its number there: shards begin on slab edges."""
        number = bisect_right(self._starts, slab * self.shape.slab_rows) - 1
        return self._files[number], slab - self._starts[number] // self.shape.slab_rows


class _SealedFile:
    """One sealed file: a whole cache, or a shard."""

    def __init__(self, path: Path) -> None:
        self.path = path
        _refuse_unsealed(path)
        layout = read_layout(path)
        digest = skeleton_digest(path, layout)
        if user_block(SEALED, digest) != read_bytes(path, 0, USER_BLOCK):
            raise CacheCorruptError(f"{path} is damaged outside its features: its seal does not match; {remedy(path)}")
        self.seal = digest.hex().encode()
        self.shape, self.identity = layout.shape, layout.identity
        self.features: NDArray[np.float16] = layout.map(path, "features")  # (K, n, V, D)
        self.embedding: NDArray[np.float16] = layout.map(path, "embedding")  # (n, V, E)
        self._checksums = layout.map(path, "checksum")  # (S, K+2, 32)
        self.tables: dict[str, NDArray[Any]] = {name: np.array(layout.map(path, name)) for name in ROW_TABLES}

    def slab(self, slab: int) -> Slab:
        """Return a slab, mapped."""
        rows = self.shape.rows(slab)
        return Slab(
            features=self.features[:, rows],  # (K, n, V, D)
            embedding=self.embedding[rows],  # (n, V, E)
            tables={name: table[rows] for name, table in self.tables.items()},
        )

    def damage(self, slab: int) -> NDArray[np.int64]:
        """List which of a slab's checksums fail: K blocks, the embedding, the row tables."""
        return np.flatnonzero((self.slab(slab).checksums() != self._checksums[slab]).any(axis=1))

    def forget_pages(self) -> None:
        """Let go of the pages that were read, so that a sweep over a large file takes no memory."""
        for mapped in (self.features, self.embedding):
            pages = getattr(mapped, "_mmap", None)  # NumPy keeps its map there
            if pages is not None and hasattr(pages, "madvise"):
                pages.madvise(mmap.MADV_DONTNEED)


def _open_shard(index: Path, shard: Shard) -> _SealedFile:
    if not shard.path.is_file():
        raise CacheError(
            f"{index} is joined from shards, and {shard.path} is missing; bring it back, or {remedy(shard.path)}"
        )
    file = _SealedFile(shard.path)
    if file.seal != shard.seal:
        raise CacheMismatchError(
            f"{shard.path} is not the file that was joined into {index}; run `rine-cache join` again"
        )
    return file


def _state(path: Path) -> bytes:
    """Return the state word of a file, refusing what is no sealed cache."""
    _refuse_unsealed(path)
    return INDEX if read_bytes(path, 0, len(INDEX)) == INDEX else SEALED


def _refuse_unsealed(path: Path) -> None:
    if not path.is_file():
        hint = "make it (rine-cache extract, or snakemake)"
        if part_path(path).exists():
            hint = "its extraction has not finished (rine-cache extract, or snakemake)"
        elif path.with_suffix(".shards").is_dir():
            hint = "its shards are not joined (rine-cache extract --shard and rine-cache join, or snakemake)"
        raise CacheError(f"no cache at {path}; {hint}")
    try:
        start = read_bytes(path, 0, len(SEALED))
    except OSError as error:
        raise CacheError(f"cannot read {path}: {error.strerror}; mend that and run the same command again") from None
    if start.startswith(PART):
        raise CacheUnsealedError(f"{path} is not sealed: run the same `rine-cache extract` again to finish it")
    if not start.startswith((SEALED, INDEX)):
        raise CacheError(f"{path} is not a rine-cache file; choose another path, or delete it")
