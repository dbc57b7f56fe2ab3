"""Arrays of several files, read as one along their rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike, NDArray


class Rows(Protocol):
    """What a mapped array and a joined one have in common."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its dtype."""
        ...

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Read what is asked for."""
        ...


def joined(parts: Sequence[NDArray[Any]], axis: int) -> Rows:
    """Join mapped arrays that differ in the length of one axis only; a single one is returned as it is."""
    return parts[0] if len(parts) == 1 else JoinedRows(parts, axis)


class JoinedRows:
    """Mapped arrays as one along an axis, of which only what is asked for is read.

    Indexed as an array is, by integers and slices, and along the joined axis by an array of row numbers or booleans
    too.
    """

    def __init__(self, parts: Sequence[NDArray[Any]], axis: int) -> None:
        self._parts, self._axis = [np.asarray(part) for part in parts], axis  # plain views are indexed faster
        self._starts = np.cumsum([0, *(part.shape[axis] for part in parts)])
        self.dtype = parts[0].dtype
        self.shape: tuple[int, ...] = (*parts[0].shape[:axis], int(self._starts[-1]), *parts[0].shape[axis + 1 :])

    def __len__(self) -> int:
        """Return the length of the first axis."""
        return self.shape[0]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Read everything into memory."""
        return np.asarray(self[()], dtype)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Read what is asked for; the result is a copy."""
        given = index if isinstance(index, tuple) else (index,)
        whole = [*given, *[slice(None)] * (len(self.shape) - len(given))]
        if len(whole) > len(self.shape):
            raise IndexError(f"{len(given)} indices for {len(self.shape)} axes")
        picked, whole[self._axis] = whole[self._axis], slice(None)
        if not all(isinstance(part, slice | int | np.integer) for part in whole):
            raise IndexError(f"axes other than {self._axis}, which is joined, are indexed by integers and slices")
        views = [part[tuple(whole)] for part in self._parts]  # nothing is read yet
        before = tuple(slice(None) for part in whole[: self._axis] if isinstance(part, slice))
        axis = len(before)
        one = isinstance(picked, int | np.integer)
        rows = self._rows([picked] if one else picked)  # (n,)
        found = np.empty((*views[0].shape[:axis], len(rows), *views[0].shape[axis + 1 :]), self.dtype)
        owners = np.searchsorted(self._starts, rows, side="right") - 1  # (n,)
        for number in np.unique(owners):
            places = np.flatnonzero(owners == number)  # (m,)
            local = rows[places] - self._starts[number]  # (m,)
            found[(*before, _as_slice(places))] = views[number][(*before, _as_slice(local))]
        return found.squeeze(axis) if one else found

    def _rows(self, index: Any) -> NDArray[np.int64]:
        """Turn whatever picks rows into their numbers, shape (n,)."""
        total = self.shape[self._axis]
        if isinstance(index, slice):
            return np.arange(*index.indices(total))  # (n,)
        picked = np.asarray(index) if len(index) else np.empty(0, np.int64)
        if picked.dtype == bool:
            if picked.shape != (total,):
                raise IndexError(f"booleans of shape {picked.shape} for {total} rows")
            return np.flatnonzero(picked)  # (n,)
        if picked.ndim != 1 or picked.dtype.kind not in "iu":
            raise IndexError("rows are picked by an integer, a slice, or one axis of integers or booleans")
        if picked.size and not (-total <= picked.min() and picked.max() < total):
            raise IndexError(f"row {picked.max()} or {picked.min()} is beyond {total} rows")
        return np.where(picked < 0, picked + total, picked)  # (n,)


def _as_slice(rows: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Return rows that follow each other as a slice: it is copied at once."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows
