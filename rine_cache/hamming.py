"""Pairs of 64-bit words that differ in a few bits, all of them, among millions."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]

_PAIRS_AT_ONCE = 200_000


def close_pairs(words: NDArray[np.uint64], limit: int) -> Iterator[Pairs]:
    """Find every pair of words whose Hamming distance is at most `limit`, each pair once.

    Of `limit` + 2 chunks of bits, `limit` differing bits leave at least two alike. So the words are sorted once for
    every two chunks, and compared within runs that have both in common: a run of length r costs r * (r - 1) / 2
    comparisons, vectorised over all runs. Nothing is missed, and memory stays linear in the number of words,
    however many of them are alike.

    Parameters
    ----------
    words
        Distinct, shape (N,).
    limit
        Bits in which a pair may differ, 0 to 62. The smaller, the longer the chunks and the faster.

    Yields
    ------
    Some pairs at a time: the smaller indices, the larger ones and the distances, each shape (n,).
    """
    chunks = [sum(1 << bit for bit in range(part, 64, limit + 2)) for part in range(limit + 2)]
    masks = np.array(chunks, np.uint64)  # (limit + 2,)
    found: list[Pairs] = []
    waiting = 0
    for first, second in combinations(range(limit + 2), 2):
        for pairs in _pairs_alike_in(words, limit, masks, first, second):
            found.append(pairs)
            waiting += len(pairs[0])
            if waiting >= _PAIRS_AT_ONCE:
                yield _joined(found)
                found, waiting = [], 0
    if found:
        yield _joined(found)


def _pairs_alike_in(
    words: NDArray[np.uint64], limit: int, masks: NDArray[np.uint64], first: int, second: int
) -> Iterator[Pairs]:
    """Yield the close pairs that are alike in two chunks, and in no two that come before these."""
    earlier = [chunk for chunk in range(second) if chunk != first]
    order = np.argsort(words & (masks[first] | masks[second]))  # (N,)
    ordered = words[order]  # (N,)
    keys = ordered & (masks[first] | masks[second])  # (N,)
    step = 0
    lefts = np.arange(len(words))  # (n,): places whose run goes on for another `step`
    while lefts.size:
        step += 1
        lefts = lefts[: np.searchsorted(lefts, len(words) - step)]
        lefts = lefts[keys[lefts] == keys[lefts + step]]
        differing = ordered[lefts] ^ ordered[lefts + step]  # (n,)
        distances = np.bitwise_count(differing)  # (n,)
        close = np.flatnonzero(distances <= limit)
        for chunk in earlier:
            close = close[(differing[close] & masks[chunk]) != 0]
        if close.size:
            pair = order[lefts[close]], order[lefts[close] + step]
            yield np.minimum(*pair), np.maximum(*pair), distances[close]


def _joined(found: list[Pairs]) -> Pairs:
    lefts, rights, distances = zip(*found, strict=True)
    return np.concatenate(lefts), np.concatenate(rights), np.concatenate(distances)
