"""One linear layer: the linear probe of UniversalFakeDetect, and what logistic regression fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from rine_cache.heads.output import HeadOutput

if TYPE_CHECKING:
    import torch


class LinearHead(nn.Module):
    """One linear layer, embedding or CLS tokens to fake logit.

    Parameters
    ----------
    width
        Width of what it reads: E of an embedding, D of CLS tokens.

    Notes
    -----
    Source: Ojha et al., arXiv:2302.10174, section 4 (linear classification), and its code, which does not normalise
    the embedding either.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, 1)

    def forward(self, features: torch.Tensor) -> HeadOutput:
        """Score images from embeddings, shape (B, E), or from the mean of CLS tokens, (B, K', D); not normalised."""
        if features.ndim == 3:
            features = features.mean(1)  # (B, D)
        return HeadOutput(self.fc(features).squeeze(1), None)
