from __future__ import annotations

import numpy as np
import pytest
import torch

from rine_cache.heads.coins import Coins, Masks
from tests.plain_training import flipped


@pytest.mark.parametrize("size", [1, 15, 16, 17, 1000])
def test_masks_are_the_coins_bit_by_bit(size: int) -> None:
    coins = Coins.for_hidden_layers(3, 1).toss(4, size, "cpu")
    masks = Masks()(coins, size)
    assert masks.shape == (4, size)
    assert masks.dtype == torch.float32
    for mask, words in zip(masks, coins.numpy(), strict=True):
        assert torch.equal(mask, flipped(words, size))


def test_coins_are_fair_and_independent() -> None:
    """Means and correlations of neighbours in every direction stay within five standard deviations."""
    tossed = Masks()(Coins.for_tokens(0, 1, 5).toss(64, 4096, "cpu"), 4096).numpy() - 1  # (64, 4096): -1 or 1
    count = tossed.size
    assert set(np.unique(tossed)) == {-1.0, 1.0}
    assert abs(tossed.mean()) < 5 / np.sqrt(count)
    assert np.abs(tossed.mean(1)).max() < 5 / np.sqrt(4096)
    for step in (1, 2, 16, 256, 2048):  # 256 words: neighbouring bits of one word stand 256 apart
        assert abs((tossed[:, step:] * tossed[:, :-step]).mean()) < 5 / np.sqrt(count / 2)
    assert abs((tossed[1:] * tossed[:-1]).mean()) < 5 / np.sqrt(count)


def test_coins_depend_on_seed_epoch_and_block_and_on_nothing_else() -> None:
    def tossed(*of: int) -> list[int]:
        return Coins.for_tokens(*of).toss(2, 100, "cpu").flatten().tolist()

    assert tossed(0, 1, 2) == tossed(0, 1, 2)
    others = [tossed(1, 1, 2), tossed(0, 2, 2), tossed(0, 1, 3), tossed(0, 1, 0)]
    hidden = Coins.for_hidden_layers(0, 1).toss(2, 100, "cpu").flatten().tolist()
    assert all(other != tossed(0, 1, 2) for other in [*others, hidden])
    order = np.random.SFC64([0, 1]).random_raw(4).view(np.int16).tolist()  # seeded as the order of batches is
    assert hidden[:7] != order[:7]


def test_later_coins_are_others() -> None:
    coins = Coins.for_hidden_layers(0, 1)
    assert not torch.equal(coins.toss(1, 256, "cpu"), coins.toss(1, 256, "cpu"))
