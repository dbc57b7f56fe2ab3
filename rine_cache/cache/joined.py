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


def joined(parts: Sequence[np.memmap[Any, Any]], axis: int) -> Rows:
    """Join mapped arrays that differ in the length of one axis only; a single one is returned as it is."""
    return parts[0] if len(parts) == 1 else JoinedRows(parts, axis)


class JoinedRows:
    """Mapped arrays as one along an axis, of which only what is asked for is read.

    Indexed as an array is, by integers and slices, and along the joined axis by an array of row numbers or booleans
    too.
    """

    def __init__(self, parts: Sequence[np.memmap[Any, Any]], axis: int) -> None:
        self._parts, self._axis = parts, axis
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
        # An integer becomes a slice of one, and goes at the end: so rows alone are indexed by an array, and stay where
        # they are.
        scalars = tuple(axis for axis, part in enumerate(whole) if isinstance(part, int | np.integer))
        for axis in scalars:
            whole[axis] = _slice_of_one(int(whole[axis]), self.shape[axis])
        rows = self._rows(whole[self._axis])  # (n,)
        owners = np.searchsorted(self._starts, rows, side="right") - 1  # (n,)
        pieces, order = [], []
        for number in np.unique(owners):
            places = np.flatnonzero(owners == number)  # (m,)
            local = rows[places] - self._starts[number]  # (m,)
            whole[self._axis] = _as_slice(local)
            pieces.append(self._parts[number][tuple(whole)])
            order.append(places)
        if not pieces:
            whole[self._axis] = slice(0, 0)
            pieces, order = [self._parts[0][tuple(whole)]], [rows]
        found = np.concatenate(pieces, axis=self._axis)
        back = np.argsort(np.concatenate(order), kind="stable")  # (n,)
        if (np.diff(back) != 1).any():
            found = np.take(found, back, axis=self._axis)
        return found.squeeze(scalars)

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


def _slice_of_one(index: int, length: int) -> slice:
    if not -length <= index < length:
        raise IndexError(f"index {index} is beyond {length}")
    index %= length
    return slice(index, index + 1)


def _as_slice(rows: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Return rows that follow each other as a slice: that maps pages instead of copying row by row."""
    if len(rows) and (np.diff(rows) == 1).all():
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows
