from __future__ import annotations

import torch

from rine_cache.heads.adam import StackedAdam


def test_each_head_moves_as_torchs_adam_alone_would_move_it() -> None:
    """Four heads, two of them at one rate, over steps with a drop of the rates in between."""
    torch.manual_seed(0)
    rates = [1e-3, 1e-2, 1e-2, 0.1]
    stacked = torch.randn(4, 37)
    alone = [head.clone() for head in stacked]
    optimisers = [torch.optim.Adam([head]) for head in alone]
    together = StackedAdam(stacked)
    for factor in (1, 1, 1, 0.1, 0.1):
        gradients = torch.randn_like(stacked)
        together.set_learning_rates([rate * factor for rate in rates])
        together.step(gradients)
        for head, optimiser, rate, gradient in zip(alone, optimisers, rates, gradients, strict=True):
            optimiser.param_groups[0]["lr"] = rate * factor
            head.grad = gradient
            optimiser.step()
    torch.testing.assert_close(stacked, torch.stack(alone), rtol=1e-5, atol=1e-6)


def test_a_head_moves_by_the_same_bits_in_any_company() -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(5, 1003), torch.randn(3, 5, 1003)
    found = []
    for heads in (slice(0, 5), slice(3, 4)):
        parameters = start[heads].clone()
        adam = StackedAdam(parameters)
        adam.set_learning_rates([0.01] * len(parameters))
        for gradient in gradients:
            adam.step(gradient[heads].clone())
        found.append(parameters)
    assert torch.equal(found[0][3], found[1][0])
