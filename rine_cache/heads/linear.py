"""A linear probe on the encoder's embedding: the method of UniversalFakeDetect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from rine_cache.heads.output import HeadOutput

if TYPE_CHECKING:
    import torch


class LinearHead(nn.Module):
    """One linear layer, embedding to fake logit.

    Parameters
    ----------
    embedding_width
        E, width of the embedding.

    Notes
    -----
    Source: Ojha et al., arXiv:2302.10174, section 4 (linear classification), and its code, which does not normalise
    the embedding either.
    """

    def __init__(self, embedding_width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(embedding_width, 1)

    def forward(self, embedding: torch.Tensor) -> HeadOutput:
        """Score images from their embeddings, shape (B, E), float32, not normalised."""
        return HeadOutput(self.fc(embedding).squeeze(1), None)
