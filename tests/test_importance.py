from __future__ import annotations

import numpy as np
import pytest
import torch

from rine_cache.heads.importance import block_importance
from rine_cache.heads.rine import RineHead


def test_it_is_the_softmax_over_the_blocks_counted_channel_by_channel() -> None:
    alpha = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    means, leads = np.zeros(5), np.zeros(5)
    for channel in alpha.double().numpy().T:
        weights = np.exp(channel) / np.exp(channel).sum()
        means += weights / 40
        leads[int(np.argmax(channel))] += 1 / 40
    found = block_importance(alpha)
    np.testing.assert_allclose(found.mean, means, atol=1e-6)
    np.testing.assert_allclose(found.leads, leads, atol=1e-6)


def test_it_is_of_the_weights_that_the_head_applies() -> None:
    torch.manual_seed(0)
    network = RineHead(3, 6, layers=1, width=16, tie=True)
    assert network.alpha is not None
    found = block_importance(network.alpha[0])
    assert found.mean == pytest.approx(network.importance().mean(1).tolist(), abs=1e-6)
    assert sum(found.leads) == pytest.approx(1)


def test_of_equal_blocks_the_first_leads() -> None:
    found = block_importance(torch.zeros(4, 8))
    assert found.mean == (0.25,) * 4
    assert found.leads == (1.0, 0.0, 0.0, 0.0)
