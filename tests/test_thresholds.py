from __future__ import annotations

import numpy as np
import pytest

from rine_cache.thresholds import best_accuracy, lowest_threshold, most_accurate_threshold


@pytest.mark.parametrize("seed", range(20))
def test_the_most_accurate_threshold_is_as_good_as_any_and_nearest_to_zero(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fake = rng.integers(0, 2, 30).astype(bool)
    logits = rng.normal(2.0 * fake + rng.normal(0, 3), 2, 30)
    logits = np.round(logits) if seed % 2 else logits
    cut = most_accurate_threshold(fake, logits)

    def right(at: float) -> int:
        return int(((logits > at) == fake).sum())

    grid = np.linspace(logits.min() - 2, logits.max() + 2, 4001)
    assert right(cut) == max(map(right, grid))
    assert right(cut) / 30 == best_accuracy(fake, logits)
    if right(0.0) == right(cut):
        assert cut == 0.0
    else:  # no threshold between 0 and the one nearest to it, of a whole stretch of equals, is as good
        nearest = min(logits[np.argsort(np.abs(logits - cut))][:2], key=abs)
        assert all(right(at) < right(cut) for at in np.linspace(0, nearest, 200)[:-1] if abs(at) < abs(nearest))


@pytest.mark.parametrize("percent", [1, 5, 50])
def test_the_lowest_threshold_is_that_of_trying_every_real_logit(percent: int) -> None:
    real = np.round(np.random.default_rng(percent).normal(0, 2, 137), 1)
    fine = [cut for cut in real if np.count_nonzero(real > cut) * 100 <= percent * len(real)]
    assert lowest_threshold(real, percent=percent) == min(fine)


@pytest.mark.parametrize(
    ("fake", "logits", "cut"),
    [
        ([False, True], [1.0, 3.0], 2.0),
        ([False, True], [-3.0, -1.0], -2.0),
        ([False, True], [-1.0, 3.0], 0.0),
        ([True, True], [-3.0, -2.0], -3.5),
        ([False, False], [2.0, 3.0], 3.5),
        ([True, False], [1.0, 1.0], 0.0),
    ],
)
def test_thresholds_worked_out_by_hand(fake: list[bool], logits: list[float], cut: float) -> None:
    assert most_accurate_threshold(np.array(fake), np.array(logits)) == cut
