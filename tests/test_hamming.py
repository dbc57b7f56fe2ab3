"""Close pairs against the loop over all pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from rine_cache import hamming
from rine_cache.hamming import close_pairs


def clustered(count: int, bits: int, seed: int = 0) -> np.ndarray:
    """Distinct words in clusters, each `bits` bits or fewer from the middle of its own."""
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 2**63, count // 8, np.uint64).repeat(8)
    for _ in range(bits):
        moved = rng.integers(0, 2, len(words), np.uint64)  # some stay, so that odd distances occur as well
        words ^= moved << rng.integers(0, 64, len(words), np.uint64)
    return np.unique(words)


def found_in(words: np.ndarray, limit: int) -> list[tuple[int, int, int]]:
    return [
        triple
        for left, right, distance in close_pairs(words, limit)
        for triple in zip(left.tolist(), right.tolist(), distance.tolist(), strict=True)
    ]


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 4, 5, 8, 12])
def test_finds_every_close_pair_once(limit: int) -> None:
    words = clustered(400, bits=limit)
    expected = {
        (i, j, (words[i] ^ words[j]).item().bit_count())
        for i, j in combinations(range(len(words)), 2)
        if (words[i] ^ words[j]).item().bit_count() <= limit
    }
    found = found_in(words, limit)
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert {distance for *_, distance in expected} >= {limit} - {0}


def test_words_that_are_all_alike_are_found_in_bounded_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hamming, "_PAIRS_AT_ONCE", 1000)
    words = (np.uint64(0xFFFF0000FFFF) ^ (np.arange(256).astype(np.uint64) << np.uint64(50))).astype(np.uint64)
    pieces = [len(left) for left, _, _ in close_pairs(words, 8)]
    assert sum(pieces) == 256 * 255 // 2
    assert max(pieces) < 1000 + 256


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_for_a_pair(count: int) -> None:
    assert found_in(np.arange(count, dtype=np.uint64), 4) == []
