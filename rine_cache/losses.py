"""RINE's loss: binary cross-entropy summed over the batch, plus xi times the supervised contrastive loss."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

from rine_cache.heads.products import linear

_SMALLEST_NORM = 1e-12  # as torch's `normalize` has it


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


class LossGradient(NamedTuple):
    """A loss of each of H heads, shape (H,), and its gradient with respect to what the heads gave."""

    loss: torch.Tensor
    gradient: torch.Tensor


def contrastive_gradient(z: torch.Tensor, labels: torch.Tensor, temperature: torch.Tensor) -> LossGradient:
    """Compute `supervised_contrastive_loss` and its gradient for H heads at once.

    Parameters
    ----------
    z
        Projections, shape (H, B, P), not normalised.
    labels
        0 real, 1 fake, shape (B,).
    temperature
        Of each head, shape (H,).

    Returns
    -------
    The loss, shape (H,), and its gradient, shape (H, B, P).
    """
    count = len(labels)
    norm = torch.linalg.vector_norm(z, dim=2, keepdim=True).clamp_(min=_SMALLEST_NORM)  # (H, B, 1)
    unit = z / norm  # (H, B, P)
    similarity = linear(unit, unit).div_(temperature[:, None, None])  # (H, B, B)
    similarity.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    log_probability = torch.log_softmax(similarity, dim=2)  # (H, B, B)
    positive = labels[:, None] == labels[None, :]  # (B, B)
    positive.fill_diagonal_(fill_value=False)
    positives = positive.sum(1, keepdim=True)  # (B, 1)
    share = positive.to(z.dtype) / positives.clamp(
        min=1
    )  # (B, B): each anchor's positives share one, or there are none
    loss = -torch.where(positive, log_probability * share, 0.0).sum((1, 2)) / count  # (H,)
    # A batch of one image has no probabilities, and no positives either.
    by_similarity = torch.where(positives > 0, log_probability.exp_(), 0.0).sub_(share)  # (H, B, B)
    by_similarity = (by_similarity + by_similarity.mT).div_(count * temperature[:, None, None])  # (H, B, B)
    by_unit = linear(by_similarity, unit.mT)  # (H, B, P)
    along = (by_unit * unit).sum(2, keepdim=True)  # (H, B, 1)
    return LossGradient(loss, by_unit.addcmul_(unit, along, value=-1).div_(norm))


def bce_gradient(logits: torch.Tensor, labels: torch.Tensor) -> LossGradient:
    """Compute `bce_sum` and its gradient for H heads at once; logits and gradient have shape (H, B)."""
    targets = labels.to(logits.dtype).expand_as(logits)  # (H, B)
    loss = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1)  # (H,)
    # Not torch's sigmoid, whose last bits depend on where a head stands in the stack.
    probability = functional.logsigmoid(logits).exp_()  # (H, B)
    return LossGradient(loss, probability.sub_(targets))


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
