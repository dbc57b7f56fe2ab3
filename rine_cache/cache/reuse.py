"""Reuse: rows of sealed caches that hold an image's content already, found by its digest."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import numpy as np

from rine_cache.cache.reader import FeatureCache
from rine_cache.cache.slab import Slab
from rine_cache.errors import CacheError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

LOG = logging.getLogger(__name__)


class ContentIndex:
    """Finds the row of a content digest among many: 16 bytes a row, binary search.

    Attributes
    ----------
    rows
        Row numbers, ordered by the first eight bytes of their digests, shape (n,).
    """

    def __init__(self, content_sha256: NDArray[np.uint8], rows: NDArray[np.int64]) -> None:
        """Index some rows of a table of digests.

        Parameters
        ----------
        content_sha256
            Digests, shape (N, 32).
        rows
            The rows to index, shape (n,).
        """
        prefixes = _prefixes(content_sha256[rows])  # (n,)
        order = np.argsort(prefixes, kind="stable")  # (n,): of equal contents the first row comes first
        self.rows = rows[order]
        self._prefixes = prefixes[order]
        self._content_sha256 = content_sha256

    def find(self, digest: bytes) -> int | None:
        """Return the first row that holds this content."""
        prefix = np.frombuffer(digest[:8], "<u8")[0]
        start = int(np.searchsorted(self._prefixes, prefix))
        while start < len(self.rows) and self._prefixes[start] == prefix:
            row = int(self.rows[start])
            if self._content_sha256[row].tobytes() == digest:
                return row
            start += 1
        return None


class SealedRows:
    """The readable rows of all sealed caches that have one encoding key. Threads may share it.

    As the key is all that identifies numbers, a row may come from another kind of device or another version of torch,
    whose last bits before the rounding to float16 may differ.
    """

    def __init__(self, paths: Iterable[Path], fingerprint: str) -> None:
        """Open the caches of `paths` whose encoding key has this fingerprint; others are passed over."""
        self._lock = threading.Lock()
        self._slabs: dict[tuple[int, int], Slab | None] = {}  # what was checked, mapped: no memory of its own
        self._caches: list[FeatureCache] = []
        self._indices: list[ContentIndex] = []
        for path in paths:
            try:
                cache = FeatureCache(path)
            except CacheError as error:
                LOG.info("%s is not reused: %s", path, error)
                continue
            if cache.fingerprint == fingerprint:
                self._caches.append(cache)
                self._indices.append(ContentIndex(cache.content_sha256, np.flatnonzero(cache.readable)))

    def __len__(self) -> int:
        """Return how many rows there are."""
        return sum(len(index.rows) for index in self._indices)

    def find(self, digest: bytes) -> Slab | None:
        """Return the row of this content, as a slab of one row, from a slab whose checksums hold; or None."""
        for number, (cache, index) in enumerate(zip(self._caches, self._indices, strict=True)):
            row = index.find(digest)
            if row is None:
                continue
            slab_number, place = divmod(row, cache.shape.slab_rows)
            slab = self._checked_slab(number, slab_number)
            if slab is not None:
                found = one_row(slab, place)
                cache.forget_pages()
                return found
        return None

    def _checked_slab(self, number: int, slab_number: int) -> Slab | None:
        """Return a slab, mapped, once its checksums were found to hold; None if they do not."""
        key = (number, slab_number)
        with self._lock:
            if key not in self._slabs:
                slab = self._slabs[key] = self._caches[number].read_slab(slab_number)
                self._caches[number].forget_pages()
                if slab is None:
                    path = self._caches[number].path
                    LOG.warning("%s: slab %d is damaged, so its images are encoded again", path, slab_number)
            return self._slabs[key]


def one_row(slab: Slab, row: int) -> Slab:
    """Copy one row of a slab into a slab of its own."""
    picked = slice(row, row + 1)
    return Slab(
        features=np.array(slab.features[:, picked]),  # (K, 1, V, D)
        embedding=np.array(slab.embedding[picked]),  # (1, V, E)
        tables={name: np.array(table[picked]) for name, table in slab.tables.items()},
    )


def _prefixes(content_sha256: NDArray[np.uint8]) -> NDArray[Any]:
    """Return the digests' first eight bytes as integers, shape (n,), uint64."""
    return np.ascontiguousarray(content_sha256[:, :8]).view("<u8").reshape(-1)  # (n,)
