from __future__ import annotations

import hashlib

import pytest

from rine_cache import seen_content
from rine_cache.seen_content import SeenContent


def digest(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


@pytest.mark.parametrize("recent", [1, 7, 10**6])
def test_contents_are_found_as_by_a_dictionary(monkeypatch: pytest.MonkeyPatch, recent: int) -> None:
    """Whether they are still in the dictionary, in the sorted arrays, or in both."""
    monkeypatch.setattr(seen_content, "_RECENT", recent)
    seen, naive = SeenContent(), {}
    for row, number in enumerate([*range(60), *range(30, 90), *range(5)]):
        assert seen.find(digest(number)) == naive.get(number)
        seen.add(digest(number), row)
        naive.setdefault(number, row)
    assert [seen.find(digest(number)) for number in range(100)] == [naive.get(number) for number in range(100)]


def test_digests_that_begin_alike_are_one_to_the_index() -> None:
    """So the caller compares the whole digest."""
    seen = SeenContent()
    seen.add(b"12345678" + bytes(24), 3)
    seen.add(b"12345678" + b"x" * 24, 4)
    assert seen.find(b"12345678" + b"x" * 24) == 3
    assert seen.find(b"12345679" + bytes(24)) is None


def test_the_largest_and_the_smallest_digest_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_content, "_RECENT", 2)
    seen = SeenContent()
    seen.add(b"\xff" * 32, 0)
    seen.add(bytes(32), 1)
    assert (seen.find(b"\xff" * 32), seen.find(bytes(32)), seen.find(b"\x01" * 32)) == (0, 1, None)
