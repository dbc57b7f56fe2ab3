from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from rine_cache.features import FeatureSet, open_part
from rine_cache.heads.coins import Coins
from rine_cache.training_batches import BatchReader
from tests.plain_training import flipped

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import MadeCache

ROWS = np.array([4, 0, 7, 2, 5])


@pytest.fixture
def features(make_cache: Callable[..., MadeCache]) -> FeatureSet:
    return FeatureSet([open_part(*make_cache("train", per_class=3)[:2])])


@pytest.mark.parametrize("subset", [(0, 1, 2), (1, 2), (0, 2), (1,)])
def test_a_subset_gets_its_blocks_after_its_own_coins(features: FeatureSet, subset: tuple[int, ...]) -> None:
    """A block's coins are its own, whatever else is read."""
    for subsets in ({subset}, {subset, (0, 1, 2)}):
        reader = BatchReader(subsets, "cpu")
        reader.begin_epoch(seed=3, epoch=2)
        coins = {block: Coins.for_tokens(3, 2, block) for block in subset}
        for rows in (ROWS, ROWS[:2]):  # the last batch is smaller
            batch = reader.for_training(features, rows, 0)
            plain = features.tokens(rows, subset, 0).transpose(0, 1)  # (K', B, D)
            size = plain[0].numel()
            masks = [flipped(coins[block].toss(1, size, "cpu")[0].numpy(), size) for block in subset]
            assert torch.equal(batch.tokens(subset), plain * torch.stack(masks).view_as(plain))
            assert batch.labels.tolist() == features.labels[rows].tolist()


def test_heads_of_one_subset_share_its_tokens(features: FeatureSet) -> None:
    reader = BatchReader({(0, 2), (1,)}, "cpu")
    batch = reader.for_scoring(features, ROWS, 0)
    assert batch.tokens((0, 2)) is batch.tokens((0, 2))
    assert torch.equal(batch.tokens((0, 2)), features.tokens(ROWS, (0, 2), 0).transpose(0, 1))


def test_only_what_some_head_needs_is_read(features: FeatureSet, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    tokens, embedding = features.tokens, features.embedding
    monkeypatch.setattr(
        features, "tokens", lambda rows, blocks, draw: (read.append(blocks), tokens(rows, blocks, draw))[1]
    )
    monkeypatch.setattr(features, "embedding", lambda *a: (read.append("embedding"), embedding(*a))[1])
    for subsets, expected in (({(0,), (2,)}, [(0, 2)]), ({()}, ["embedding"]), ({(), (1,)}, [(1,), "embedding"])):
        read.clear()
        reader = BatchReader(subsets, "cpu")
        reader.begin_epoch(0, 1)
        reader.for_training(features, ROWS, 0)
        assert read == expected
    assert torch.equal(reader.for_scoring(features, ROWS, 0).embedding, embedding(ROWS, 0))
