"""Which images a bootstrap draws: with replacement, by units that belong together, within strata, reproducibly.

A **unit** is what is drawn: an image, or a group of images where the manifest names one (crops of one photograph,
variants of one prompt), whose images come and go together. A **cell** is one class of one test set. Real images that
several test sets share are one pool, drawn once for all of them, so that a mean over the test sets varies as it
should. Units are drawn within **strata**: a stratum is all units whose images lie in the same cells, so that each test
set keeps its number of images of each class, exactly where units are images and nearly where groups differ in size.

Strata of few units say little of how units vary: one of a single unit says nothing. Those of fewer than `FEW_UNITS`
units that have a cell in common, directly or through others of them, are made one; if that is still too few it joins
the large stratum that it shares most cells with (of equals the largest). A stratum that shares a cell with no other
stays as it is, however small: a test set's only real image is not exchanged for a fake. Where strata are joined, a
test set's class counts vary between replicates by what those units contribute.

What is drawn depends on the names of a stratum's units and on the number of the replicate alone, not on the order of
the images, on other strata, on threads or on how many replicates are made at once: whoever resamples the same images
draws the same, and results computed apart can be compared image by image. `Resampling.digest` tells whether they can.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from rine_cache.compiled import compiled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FEW_UNITS = 20


class Stratum(NamedTuple):
    """Units that are drawn from among themselves: their numbers in order of their names, and what seeds the draws."""

    units: NDArray[np.int64]  # (m,)
    seed: int


class Resampling:
    """How the images of some test sets are drawn.

    Attributes
    ----------
    unit_count, stratum_count
        How many there are.
    grouped
        Whether a unit holds several images.
    unit_of
        Each image's unit, (N,).
    stratum_of
        Each unit's stratum, (U,).
    """

    def __init__(self, images: Sequence[str], units: Sequence[str], cells: Sequence[NDArray[np.int64]]) -> None:
        """Lay out the strata.

        Parameters
        ----------
        images
            The names of the N distinct images, no two alike.
        units
            The name of each image's unit, N; no unit may be named like one that is meant to be another.
        cells
            For each class of each test set its images, as places in `images`. One that has none is left out of account.
        """
        names, self.unit_of = np.unique(np.asarray(units, dtype=np.str_), return_inverse=True)  # (U,), (N,)
        self.unit_count = len(names)
        self.grouped = self.unit_count < len(images)
        signatures = _signatures(self.unit_of, cells, self.unit_count)  # (U, C)
        number = _strata(signatures)  # (U,)
        by_stratum = np.split(np.argsort(number, kind="stable"), np.bincount(number).cumsum()[:-1])
        self._strata = [Stratum(members, _seed(names[members])) for members in by_stratum if len(members)]
        self.stratum_count = len(self._strata)
        self.stratum_of = number  # (U,)
        self._names = np.asarray(images, dtype=np.str_)  # (N,)
        self._seeds = np.array([stratum.seed for stratum in self._strata], np.uint64)  # (S,)
        self._places = np.empty(self.unit_count, np.int64)  # (U,): each unit's place in its stratum
        for stratum in self._strata:
            self._places[stratum.units] = np.arange(len(stratum.units))

    def weights(self, images: NDArray[np.int64], first: int, count: int) -> NDArray[np.uint8]:
        """Draw how often each image is in each of some replicates.

        Parameters
        ----------
        images
            Places in the list of images, (n,).
        first, count
            The number of the first replicate, and how many.

        Returns
        -------
        Shape (n, count). A count above 255 is given as 255; none of 10^70 is.
        """
        units = self.unit_of[images]  # (n,)
        strata = self.stratum_of[units]  # (n,)
        drawn = np.empty((len(images), count), np.uint8)  # (n, count)
        for number in np.unique(strata):
            ours = np.flatnonzero(strata == number)
            counts = _draw(len(self._strata[number].units), self._seeds[number], first, count)  # (m, count)
            drawn[ours] = counts[self._places[units[ours]]]
        return drawn

    def digest(self, cells: Sequence[NDArray[np.int64]]) -> str:
        """Identify some images as they are drawn: those of a test set, its reals first, or of any cells.

        Alike only where the same images lie in the same cells and each is in every replicate as often.
        """
        found = hashlib.sha256()
        for cell in cells:
            images = cell[np.argsort(self._names[cell])]  # (n,), in order of their names
            units = self.unit_of[images]  # (n,)
            found.update(f"{len(images)}\n".encode())
            found.update("\n".join(self._names[images].tolist()).encode())
            found.update(self._seeds[self.stratum_of[units]].tobytes())
            found.update(self._places[units].tobytes())
        return found.hexdigest()


def _signatures(unit_of: NDArray[np.int64], cells: Sequence[NDArray[np.int64]], units: int) -> csr_array:
    """Say which cells each unit's images lie in, (U, C), 0 or 1."""
    rows = np.concatenate([unit_of[cell] for cell in cells] or [np.zeros(0, np.int64)])
    columns = np.repeat(np.arange(len(cells)), [len(cell) for cell in cells])
    found = csr_array(coo_array((np.ones(len(rows), np.int32), (rows, columns)), shape=(units, len(cells))))
    found.data[:] = 1  # duplicates were summed
    found.sort_indices()
    return found


def _strata(signatures: csr_array) -> NDArray[np.int64]:
    """Give the units' strata numbers, (U,): first by their cells alone, then those of few units joined."""
    bounds = zip(signatures.indptr[:-1], signatures.indptr[1:], strict=True)
    keys = [signatures.indices[low:high].tobytes() for low, high in bounds]
    numbers: dict[bytes, int] = {}
    first = np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)  # (U,)
    touched = np.zeros((len(numbers), signatures.shape[1]), np.int64)  # (S, C)
    for key, number in numbers.items():
        touched[number, np.frombuffer(key, signatures.indices.dtype)] = 1
    sizes = np.bincount(first, minlength=len(numbers))  # (S,)
    joined = np.arange(len(numbers))  # (S,)
    small = np.flatnonzero(sizes < FEW_UNITS)
    joined[small] = small[_first_of_component(csr_array(touched[small]))]
    large = np.flatnonzero(sizes >= FEW_UNITS)
    for number in np.unique(joined[small]):
        members = np.flatnonzero(joined == number)
        if sizes[members].sum() >= FEW_UNITS or not len(large):
            continue
        shared = touched[large] @ touched[members].max(axis=0)  # (L,)
        best = large[np.lexsort((-large, sizes[large], shared))[-1]]
        if shared.max():
            joined[members] = best
    return np.unique(joined, return_inverse=True)[1][first]


def _first_of_component(touched: csr_array) -> NDArray[np.int64]:
    """Name each row, (S,), by the first of those that it has a column in common with, directly or through others."""
    rows, columns = touched.nonzero()
    count = touched.shape[0]
    edges = coo_array((np.ones(len(rows), np.int8), (rows, columns + count)), shape=(sum(touched.shape),) * 2)
    component = connected_components(edges, directed=False)[1][:count]
    first, numbers = np.unique(component, return_index=True, return_inverse=True)[1:]
    return np.asarray(first[numbers], np.int64)


def _seed(names: NDArray[np.str_]) -> int:
    text = "\n".join(names.tolist())
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


@compiled
def _mixed(state: np.uint64) -> np.uint64:
    """Mix 64 bits (the finaliser of splitmix64: Steele, Lea and Flood, OOPSLA 2014)."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@compiled
def _draw(units: int, seed: np.uint64, first: int, count: int) -> NDArray[np.uint8]:
    """Draw as many units as there are with replacement, for each replicate, and count how often each was drawn.

    Each replicate has a splitmix64 of its own. A place is the upper half of 64 bits times the number of units, shifted
    down: its chances differ by less than one part in 2^32 / units.
    """
    counts = np.zeros((units, count), np.uint8)  # (m, R)
    step = np.uint64(0x9E3779B97F4A7C15)
    for replicate in range(count):
        state = _mixed(seed ^ _mixed(np.uint64(first + replicate + 1) * step))
        for _ in range(units):
            state += step
            drawn = ((_mixed(state) >> np.uint64(32)) * np.uint64(units)) >> np.uint64(32)
            if counts[drawn, replicate] < 255:
                counts[drawn, replicate] += 1
    return counts
