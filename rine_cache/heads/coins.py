"""Dropout's coins: fair, reproducible, and shared by the heads of one seed.

A coin depends on the seed, the epoch, what it is for and where it falls, and on nothing else: not on which other heads
are trained, nor on the device. Heads of one seed get the same coins for the same block's tokens, and those of one shape
for their hidden layers too. So settings are compared in pairs, without the noise that coins of their own would add
between them, and tokens are masked once for all; how much luck matters is what seeds are for.

One random bit is one coin: torch's `bernoulli_` takes 9 ns an element on a CPU, which is most of a small head's time.
"""

from __future__ import annotations

import functools

import numpy as np
import torch

_BITS = 16
_TWO = 0x40000000  # as float32: 2.0
_TOKENS, _HIDDEN = 1, 2  # what coins are for; 0 would give the bits of the order of batches


class Coins:
    """A sequence of coins of one purpose in one epoch."""

    def __init__(self, seed: int, epoch: int, *purpose: int) -> None:
        self._bits = np.random.SFC64([seed, epoch, *purpose])

    @classmethod
    def for_tokens(cls, seed: int, epoch: int, block: int) -> Coins:
        """Begin the coins of one block's tokens."""
        return cls(seed, epoch, _TOKENS, block)

    @classmethod
    def for_hidden_layers(cls, seed: int, epoch: int) -> Coins:
        """Begin the coins of a head's hidden layers."""
        return cls(seed, epoch, _HIDDEN)

    def toss(self, masks: int, size: int, device: torch.device | str) -> torch.Tensor:
        """Return the next coins for `masks` masks of `size` elements each, packed: shape (masks, W), int16."""
        words = -(-size // _BITS)
        raw = self._bits.random_raw(-(-masks * words // 4)).view(np.int16)[: masks * words]
        return torch.from_numpy(raw.reshape(masks, words)).to(device)  # (masks, W)


class Masks:
    """Unpacks coins into factors, 0 or 2 with equal odds, in memory that the next call takes again."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.int32)

    def __call__(self, coins: torch.Tensor, size: int) -> torch.Tensor:
        """Return the factors of packed coins, shape (masks, size), float32; valid until the next call."""
        masks, words = coins.shape
        needed = masks * _BITS * words
        if self._memory.numel() < needed or self._memory.device != coins.device:
            self._memory = torch.empty(needed, dtype=torch.int32, device=coins.device)
        factors = self._memory[:needed].view(masks, _BITS, words)
        # Each of a word's bits in turn goes to where it alone makes 2.0.
        torch.bitwise_left_shift(coins.int().unsqueeze(1), _shifts(coins.device), out=factors)
        return factors.bitwise_and_(_TWO).view(torch.float32).flatten(1)[:, :size]  # (masks, size)


@functools.cache
def _shifts(device: torch.device) -> torch.Tensor:
    return torch.arange(30, 30 - _BITS, -1, dtype=torch.int32, device=device).unsqueeze(1)  # (16, 1)
