from __future__ import annotations

import torch

from rine_cache.heads.adam import StackedAdam


def test_each_head_moves_as_torchs_adam_alone_would_move_it() -> None:
    """Four heads, two of them at one rate, over steps with a drop of the rates in between."""
    torch.manual_seed(0)
    rates = [1e-3, 1e-2, 1e-2, 0.1]
    stacked = {"weight": torch.randn(4, 5, 3), "bias": torch.randn(4, 3)}
    alone = [{name: tensor[head].clone() for name, tensor in stacked.items()} for head in range(4)]
    optimisers = [torch.optim.Adam(own.values(), lr=rate) for own, rate in zip(alone, rates, strict=True)]
    together = StackedAdam(stacked, rates)
    for step in range(6):
        if step == 3:
            together.set_learning_rates([rate / 10 for rate in rates])
            for optimiser, rate in zip(optimisers, rates, strict=True):
                optimiser.param_groups[0]["lr"] = rate / 10
        gradients = {name: torch.randn_like(tensor) for name, tensor in stacked.items()}
        for name, tensor in stacked.items():
            tensor.grad = gradients[name]
            for head, own in enumerate(alone):
                own[name].grad = gradients[name][head]
        together.step()
        for optimiser in optimisers:
            optimiser.step()
        assert all(tensor.grad is None for tensor in stacked.values())
    for head, own in enumerate(alone):
        for name, tensor in own.items():
            torch.testing.assert_close(stacked[name][head], tensor, rtol=1e-5, atol=1e-6)
