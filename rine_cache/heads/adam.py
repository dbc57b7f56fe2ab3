"""Adam over stacked parameters, each head at a learning rate of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class StackedAdam:
    """torch's fused Adam, which reads and writes memory once, over heads of which each is one vector.

    A head is a tensor of its own here, so that it moves by the same bits in any company. `torch.optim.Adam` calls the
    same operator, after more work in Python than a small head's products take.
    """

    def __init__(self, parameters: Tensor) -> None:
        """Prepare for H heads of N parameters each, shape (H, N); a rate must be set before the first step."""
        self._parameters = parameters
        self._means, self._squares = torch.zeros_like(parameters), torch.zeros_like(parameters)  # each (H, N)
        self._steps = torch.zeros((), device=parameters.device)
        self._rates: Sequence[float] = []

    def set_learning_rates(self, learning_rates: Sequence[float]) -> None:
        """Set the H heads' learning rates."""
        self._rates = learning_rates

    @torch.no_grad()
    def step(self, gradients: Tensor) -> None:
        """Update the parameters by their gradients, shape (H, N)."""
        self._steps += 1
        heads = zip(self._parameters, gradients, self._means, self._squares, self._rates, strict=True)
        for own, gradient, mean, square, rate in heads:
            torch._fused_adam_(
                [own],
                [gradient],
                [mean],
                [square],
                [],
                [self._steps],
                lr=rate,
                beta1=0.9,
                beta2=0.999,
                weight_decay=0.0,
                eps=1e-8,
                amsgrad=False,
                maximize=False,
            )
