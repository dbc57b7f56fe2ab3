"""What every head returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch


class HeadOutput(NamedTuple):
    """Fake logits, shape (B,), and what the contrastive loss compares, shape (B, P), where a head has it."""

    logit: torch.Tensor
    z: torch.Tensor | None
