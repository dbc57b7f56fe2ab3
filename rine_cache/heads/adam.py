"""Adam over stacked parameters, each head at a learning rate of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class StackedAdam:
    """torch's fused Adam, which reads and writes memory once, over heads of which each is one vector.

    A head is a tensor of its own here, so that it moves by the same bits in any company.
    """

    def __init__(self, parameters: Tensor) -> None:
        """Prepare for H heads of N parameters each, shape (H, N); a rate must be set before the first step."""
        self._adam = torch.optim.Adam([{"params": [head]} for head in parameters], fused=True)

    def set_learning_rates(self, learning_rates: Sequence[float]) -> None:
        """Set the H heads' learning rates."""
        for group, rate in zip(self._adam.param_groups, learning_rates, strict=True):
            group["lr"] = rate

    def step(self, gradients: Tensor) -> None:
        """Update the parameters by their gradients, shape (H, N)."""
        for group, gradient in zip(self._adam.param_groups, gradients, strict=True):
            group["params"][0].grad = gradient
        self._adam.step()
        self._adam.zero_grad()
