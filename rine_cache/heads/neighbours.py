"""Nearest neighbours in the embedding: a bank of real and one of fake training images, and nothing learnt."""

from __future__ import annotations

import torch
from pydantic import PositiveInt
from torch import nn
from torch.nn import functional

from rine_cache.heads.output import HeadOutput
from rine_cache.specs.base import Spec

# Bounds of what is held at once in float32: 64 MiB of similarities, and of width 768 48 MiB of a bank's rows.
_SIMILARITIES_AT_ONCE = 2**24
_BANK_ROWS_AT_ONCE = 2**14


class BankSize(Spec):
    """How many training images of each class a head compares with."""

    real: PositiveInt
    fake: PositiveInt


class NeighboursHead(nn.Module):
    """The mean cosine distance to the k nearest real images, less that to the k nearest fake ones.

    Above 0 where the fake ones are nearer. It is a difference of distances, between -2 and 2, and no log odds: ranks
    and the decision at 0 mean something, its sigmoid lies near .5 always, unless calibrated.

    Parameters
    ----------
    bank
        How many images each bank holds.
    embedding_width
        E.
    k
        How many of each bank are compared.

    Notes
    -----
    Source: Ojha et al., arXiv:2302.10174, section 4 (nearest neighbour): fake if the least cosine distance to the fake
    bank is below the least to the real bank, which is this with k = 1, decision for decision. Their code for it was
    never released. For more neighbours they speak of voting; a mean over each bank is graded, and does not lean
    towards the class that has more images.
    """

    real: torch.Tensor
    fake: torch.Tensor

    def __init__(self, bank: BankSize, embedding_width: int, *, k: int) -> None:
        super().__init__()
        self._k = k
        # Embeddings as they are cached, not normalised, so that no bit of them is lost.
        self.register_buffer("real", torch.zeros(bank.real, embedding_width, dtype=torch.float16))  # (M, E)
        self.register_buffer("fake", torch.zeros(bank.fake, embedding_width, dtype=torch.float16))  # (M, E)

    def forward(self, embedding: torch.Tensor) -> HeadOutput:
        """Score images from their embeddings, shape (B, E), float32, not normalised."""
        queries = functional.normalize(embedding)  # (B, E)
        nearest = [self._nearest(queries, bank).mean(1) for bank in (self.real, self.fake)]  # (B,), twice
        return HeadOutput(nearest[1] - nearest[0], None)  # distances are 1 less similarities

    def _nearest(self, queries: torch.Tensor, bank: torch.Tensor) -> torch.Tensor:
        """Return the k largest cosine similarities with a bank, shape (B, k), from one tile of it after the other."""
        rows = min(_BANK_ROWS_AT_ONCE, max(1, _SIMILARITIES_AT_ONCE // max(1, len(queries))))
        best = queries.new_empty(len(queries), 0)  # (B, 0)
        for tile in torch.split(bank, rows):
            similarities = queries @ functional.normalize(tile.float()).T  # (B, rows)
            largest = torch.topk(similarities, min(self._k, len(tile))).values  # (B, <= k)
            both = torch.cat([best, largest], dim=1)  # (B, <= 2 k)
            best = torch.topk(both, min(self._k, both.shape[1])).values  # (B, <= k)
        return best
