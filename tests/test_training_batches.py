from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from rine_cache.feature_windows import ReadImages
from rine_cache.features import FeatureSet, open_part
from rine_cache.heads.coins import Coins
from rine_cache.training_batches import BatchMaker
from tests.plain_training import flipped

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import MadeCache

ROWS = np.array([4, 0, 7, 2, 5])


@pytest.fixture
def features(make_cache: Callable[..., MadeCache]) -> FeatureSet:
    return FeatureSet([open_part(*make_cache("train", per_class=3)[:2])])


def read(features: FeatureSet, rows: np.ndarray, blocks: tuple[int, ...]) -> ReadImages:
    """Read some images as `FeatureWindows` does."""
    tokens = features.stored_tokens(rows, blocks, 0).float()  # (K', B, D)
    return ReadImages(rows, torch.from_numpy(features.labels[rows]), tokens, features.embedding(rows, 0))


@pytest.mark.parametrize("subset", [(0, 1, 2), (1, 2), (0, 2), (1,)])
def test_a_subset_gets_its_blocks_after_its_own_coins(features: FeatureSet, subset: tuple[int, ...]) -> None:
    """A block's coins are its own, whatever else is read."""
    for subsets in ({subset}, {subset, (0, 1, 2)}):
        maker = BatchMaker(subsets)
        maker.begin_epoch(seed=3, epoch=2)
        coins = {block: Coins.for_tokens(3, 2, block) for block in subset}
        for rows in (ROWS, ROWS[:2]):  # the last batch is smaller
            batch = maker.for_training(read(features, rows, maker.blocks))
            plain = features.tokens(rows, subset, 0).transpose(0, 1)  # (K', B, D)
            size = plain[0].numel()
            masks = [flipped(coins[block].toss(1, size, "cpu")[0].numpy(), size) for block in subset]
            assert torch.equal(batch.tokens(subset), plain * torch.stack(masks).view_as(plain))
            assert batch.labels.tolist() == features.labels[rows].tolist()


def test_heads_of_one_subset_share_its_tokens(features: FeatureSet) -> None:
    maker = BatchMaker({(0, 2), (1,)})
    batch = maker.for_scoring(read(features, ROWS, maker.blocks))
    assert batch.tokens((0, 2)) is batch.tokens((0, 2))
    assert torch.equal(batch.tokens((0, 2)), features.tokens(ROWS, (0, 2), 0).transpose(0, 1))
    assert batch.columns((0, 2)) is batch.columns((0, 2))
    assert torch.equal(batch.columns((0, 2)), batch.tokens((0, 2)).flatten(0, 1).mT)


@pytest.mark.parametrize(
    ("subsets", "blocks", "with_embedding"),
    [({(0,), (2,)}, (0, 2), False), ({()}, (), True), ({(), (1,)}, (1,), True)],
)
def test_only_what_some_head_needs_is_asked_for(
    subsets: set[tuple[int, ...]], blocks: tuple[int, ...], with_embedding: bool
) -> None:
    maker = BatchMaker(subsets)
    assert (maker.blocks, maker.with_embedding) == (blocks, with_embedding)


def test_embeddings_are_not_masked(features: FeatureSet) -> None:
    maker = BatchMaker({()})
    maker.begin_epoch(0, 1)
    batch = maker.for_training(read(features, ROWS, ()))
    assert torch.equal(batch.embedding, features.embedding(ROWS, 0))
