"""Which contents a cache holds already, and in which row: 16 bytes a row, in memory."""

from __future__ import annotations

import numpy as np

# Rows that are kept in a dictionary before they are merged into the sorted arrays.
_RECENT = 2**16


class SeenContent:
    """Finds the first row of a content by the first eight bytes of its digest; the caller compares the rest."""

    def __init__(self) -> None:
        self._recent: dict[int, int] = {}
        self._prefixes = np.empty(0, np.uint64)  # (n,), sorted
        self._rows = np.empty(0, np.uint32)  # (n,), in the same order

    def find(self, content_sha256: bytes) -> int | None:
        """Return the row of the first content whose digest begins with the same eight bytes, or None."""
        prefix = _prefix(content_sha256)
        if (recent := self._recent.get(prefix)) is not None:
            return recent
        at = int(np.searchsorted(self._prefixes, np.uint64(prefix)))
        if at < len(self._prefixes) and self._prefixes[at] == prefix:
            return int(self._rows[at])
        return None

    def add(self, content_sha256: bytes, row: int) -> None:
        """Remember where a content stands, unless one that begins alike is known."""
        if self.find(content_sha256) is not None:
            return
        self._recent[_prefix(content_sha256)] = row
        if len(self._recent) == _RECENT:
            self._merge()

    def _merge(self) -> None:
        recent = np.fromiter(self._recent, np.uint64, len(self._recent))  # (m,)
        rows = np.fromiter(self._recent.values(), np.uint32, len(self._recent))  # (m,)
        prefixes = np.concatenate([self._prefixes, recent])  # (n + m,)
        order = np.argsort(prefixes, kind="stable")  # (n + m,)
        self._prefixes, self._rows = prefixes[order], np.concatenate([self._rows, rows])[order]
        self._recent = {}


def _prefix(content_sha256: bytes) -> int:
    return int.from_bytes(content_sha256[:8], "little")
