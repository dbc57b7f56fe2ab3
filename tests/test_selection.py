"""Which images a training set takes."""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl
import pytest

from rine_cache.errors import ManifestError
from rine_cache.selection import chosen, in_share

IMAGES = pl.DataFrame(
    {
        "subset": ["a", "b"] * 200,
        "split": ["train", "train", "val", None] * 100,
        "group": [None if index % 3 else f"g{index // 30}" for index in range(400)],
    }
)


def test_subsets_and_splits_are_kept_together() -> None:
    assert chosen(IMAGES, ["a"], ["val"], "x").tolist() == [index % 4 == 2 for index in range(400)]
    assert chosen(IMAGES, [], [], "x").all()
    assert chosen(IMAGES, [], ["train", "val"], "x").sum() == 300


def test_shares_divide_the_images_and_keep_groups_and_copies_whole() -> None:
    content = np.random.default_rng(0).integers(0, 256, (400, 32)).astype(np.uint8)
    content[2::3] = content[1::3][: len(content[2::3])]  # every third is a copy of the one before
    low, high = (in_share(IMAGES["group"], content, share) for share in ((0.0, 0.75), (0.75, 1.0)))
    assert np.array_equal(low, ~high)
    assert 0.6 < low.mean() < 0.9
    assert np.array_equal(low[2::3], low[1::3][: len(low[2::3])])
    sides = IMAGES.with_columns(low=pl.Series(low)).drop_nulls("group").group_by("group").agg(pl.col("low").n_unique())
    assert set(sides["low"]) == {1}


@pytest.mark.parametrize("groups", [IMAGES["group"], IMAGES["group"].clear().extend_constant(None, 400)])
def test_a_place_is_the_beginning_of_a_groups_digest_or_of_a_contents(groups: pl.Series) -> None:
    content = np.random.default_rng(1).integers(0, 256, (400, 32)).astype(np.uint8)
    digests = [
        content[row].tobytes() if group is None else hashlib.sha256(group.encode()).digest()
        for row, group in enumerate(groups)
    ]
    places = [int.from_bytes(digest[:4], "big") / 2**32 for digest in digests]
    for low, high in ((0.0, 0.3), (0.3, 0.31), (0.31, 1.0)):
        assert in_share(groups, content, (low, high)).tolist() == [low <= place < high for place in places]


def test_an_unknown_subset_is_refused_with_the_nearest() -> None:
    with pytest.raises(ManifestError, match="data set x has no split 'vall'; did you mean 'val'"):
        chosen(IMAGES, [], ["vall"], "data set x")
