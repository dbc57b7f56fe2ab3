"""What TIE learnt: how much each block weighs in a head, over its channels."""

from __future__ import annotations

import torch

from rine_cache.specs.base import Spec

_DECIMALS = 6


class BlockImportance(Spec):
    """TIE's weights, one number a block that the head reads, in their order; each list adds up to 1.

    Attributes
    ----------
    mean
        The block's weight, averaged over the channels.
    leads
        The share of channels in which it weighs more than any other block; of equals the first.
    """

    mean: tuple[float, ...]
    leads: tuple[float, ...]


def block_importance(alpha: torch.Tensor) -> BlockImportance:
    """Summarise a trained TIE.

    Parameters
    ----------
    alpha
        TIE's parameters, shape (K', P), before the softmax over the blocks.

    Notes
    -----
    Source: RINE, arXiv:2402.19091, section 3.2; its figure of importances counts channels by their leading block.
    """
    weights = torch.softmax(alpha.detach().double().cpu(), dim=0)  # (K', P)
    leaders = torch.bincount(weights.argmax(0), minlength=len(weights)) / weights.shape[1]  # (K',)
    return BlockImportance(mean=_rounded(weights.mean(1)), leads=_rounded(leaders))


def _rounded(values: torch.Tensor) -> tuple[float, ...]:
    return tuple(round(value, _DECIMALS) for value in values.tolist())
