"""RINE's loss: binary cross-entropy summed over the batch, plus xi times the supervised contrastive loss."""

from __future__ import annotations

import torch
from torch.nn import functional


def supervised_contrastive_loss(z: torch.Tensor, labels: torch.Tensor, temperature: float) -> torch.Tensor:
    """Pull together what shares a label, push apart what does not.

    Parameters
    ----------
    z
        Projections, shape (B, P), float32, not normalised; they are L2-normalised here.
    labels
        0 real, 1 fake, shape (B,), integer.
    temperature
        Dimensionless, > 0.

    Returns
    -------
    The mean over all B anchors, a scalar. An anchor that shares its label with no other counts as zero and
    stays in the mean.

    Notes
    -----
    Source: Khosla et al., arXiv:2004.11362, equation 2, as the RINE authors' code computes it
    (arXiv:2402.19091, equation 8).
    """
    unit = functional.normalize(z, dim=1)  # (B, P)
    similarity = unit @ unit.T / temperature  # (B, B)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)  # (B, B)
    log_probability = similarity - torch.logsumexp(
        similarity.masked_fill(itself, -torch.inf), dim=1, keepdim=True
    )  # (B, B)
    positive = (labels[:, None] == labels[None, :]) & ~itself  # (B, B)
    positives = positive.sum(1)  # (B,)
    total = torch.where(positive, log_probability, 0.0).sum(1)  # (B,)
    return -(total / positives.clamp(min=1)).mean()


def bce_sum(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the binary cross-entropy summed over the batch (arXiv:2402.19091, equation 7).

    Parameters
    ----------
    logits
        Shape (B,), float32; positive is fake.
    labels
        0 real, 1 fake, shape (B,).
    """
    return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="sum")
