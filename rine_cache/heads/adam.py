"""Adam over stacked parameters, each head at a learning rate of its own."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


class StackedAdam:
    """torch's fused Adam, which reads and writes memory once, over runs of heads of one learning rate.

    Heads that stand beside each other at one rate are updated as one tensor: order them so.
    """

    def __init__(self, parameters: Mapping[str, Tensor], learning_rates: Sequence[float]) -> None:
        """Prepare for parameters of shapes (H, ...), whose ``grad`` each step reads, and the H heads' first rates."""
        self._parameters = list(parameters.values())
        self._runs = []
        start = 0
        for _, heads in itertools.groupby(learning_rates):
            self._runs.append(slice(start, start := start + len(list(heads))))
        groups = [
            {"params": [parameter[run] for parameter in self._parameters], "lr": learning_rates[run.start]}
            for run in self._runs
        ]
        self._adam = torch.optim.Adam(groups, fused=True)

    def set_learning_rates(self, learning_rates: Sequence[float]) -> None:
        """Set the H heads' rates; heads that began at one rate go on at one rate."""
        for run, group in zip(self._runs, self._adam.param_groups, strict=True):
            assert len(set(learning_rates[run])) == 1
            group["lr"] = learning_rates[run.start]

    def step(self) -> None:
        """Update the parameters by their gradients, and drop these."""
        for run, group in zip(self._runs, self._adam.param_groups, strict=True):
            for parameter, part in zip(self._parameters, group["params"], strict=True):
                assert parameter.grad is not None
                part.grad = parameter.grad[run]
        self._adam.step()
        self._adam.zero_grad()
        for parameter in self._parameters:
            parameter.grad = None
