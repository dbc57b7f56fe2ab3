"""The head of RINE: Q1 on every block's CLS token, TIE over the blocks, Q2, classifier."""

from __future__ import annotations

import torch
from torch import nn

from rine_cache.heads.output import HeadOutput

_DROPOUT = 0.5


class RineHead(nn.Module):
    """RINE's trainable part. Its parameters' names are those of the authors' checkpoints.

    Parameters
    ----------
    block_count
        K', how many blocks it reads.
    token_width
        D, width of their CLS tokens.
    layers
        Q, linear layers per projection (the paper's q).
    width
        P, width of the projections (the paper's d').
    tie
        Whether importances are trained; otherwise the blocks are averaged and there is no `alpha`.

    Notes
    -----
    Source: arXiv:2402.19091, sections 3.2 and 3.3, and the authors' released code, which agree.
    """

    _equal_importance: torch.Tensor

    def __init__(self, block_count: int, token_width: int, *, layers: int, width: int, tie: bool) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.randn(1, block_count, width)) if tie else None  # (1, K', P)
        equal = torch.full((block_count, 1), 1 / block_count)  # (K', 1)
        self.register_buffer("_equal_importance", equal, persistent=False)
        self.proj1 = _projection(token_width, width, layers)
        self.proj2 = _projection(width, width, layers)
        self.head = nn.Sequential(
            *(nn.Linear(width, width), nn.ReLU(), nn.Dropout(_DROPOUT)),
            *(nn.Linear(width, width), nn.ReLU(), nn.Dropout(_DROPOUT)),
            nn.Linear(width, 1),
        )

    def forward(self, tokens: torch.Tensor) -> HeadOutput:
        """Score images from their CLS tokens.

        Parameters
        ----------
        tokens
            CLS tokens at the tap, shape (B, K', D), float32, not normalised.
        """
        projected = self.proj1(tokens)  # (B, K', P)
        weighed = (self.importance() * projected).sum(1)  # (B, P)
        z = self.proj2(weighed)  # (B, P)
        return HeadOutput(self.head(z).squeeze(1), z)

    def importance(self) -> torch.Tensor:
        """Return TIE's weights, shape (K', P): softmax over blocks per channel; without TIE (K', 1), equal."""
        if self.alpha is None:
            return self._equal_importance  # (K', 1)
        return torch.softmax(self.alpha[0], dim=0)  # (K', P)


def _projection(inputs: int, width: int, layers: int) -> nn.Sequential:
    modules: list[nn.Module] = [nn.Dropout(_DROPOUT)]
    for layer in range(layers):
        modules += [nn.Linear(width if layer else inputs, width), nn.ReLU(), nn.Dropout(_DROPOUT)]
    return nn.Sequential(*modules)
