"""Prediction: a probability of being fake for images that belong to no data set."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy.special import expit

from rine_cache.errors import CacheMismatchError
from rine_cache.heads.head import FeatureIdentity, Head
from rine_cache.heads.rine import RineHead
from rine_cache.images import decode
from rine_cache.quarantine import Reason, UnreadableImageError
from rine_cache.views import render

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from rine_cache.encoders import Encoder
    from rine_cache.specs.encoding import ViewSpec


class Prediction(NamedTuple):
    """The head's answer for one image, or why there is none.

    `probability` is the sigmoid of the mean logit: the head's output, not a calibrated chance. That is `calibrated`,
    as far as the head's validation data could tell; null where they could not, or are not known.
    """

    path: Path
    probability: float | None
    calibrated: float | None
    problem: str


@torch.inference_mode()
def predict(paths: Sequence[Path], head: Head, encoder: Encoder, view: ViewSpec) -> list[Prediction]:
    """Score image files.

    Raises
    ------
    CacheMismatchError
        If the encoder is not the head's, or the view's crops are not of its size.
    """
    found = FeatureIdentity(
        encoder=encoder.identity,
        tap=head.card.features.tap,
        compute_dtype=encoder.compute_dtype,
        block_count=encoder.block_count,
        token_width=encoder.width,
        embedding_width=encoder.embedding_width,
    )
    head.require_features(found, f"encoder {encoder.identity['architecture']}")
    if view.size != encoder.image_size:
        raise CacheMismatchError(f"the view gives crops of {view.size} pixels, the encoder takes {encoder.image_size}")
    return [_predict_one(path, head, encoder, view) for path in paths]


def block_weights(head: Head) -> dict[int, float] | None:
    """Return how much TIE weighs each block that a head reads, the mean over its channels; they add to 1."""
    if not isinstance(head.network, RineHead):
        return None
    weights = head.network.importance().mean(1)  # (K',)
    return dict(zip(head.card.blocks, weights.tolist(), strict=True))


def _predict_one(path: Path, head: Head, encoder: Encoder, view: ViewSpec) -> Prediction:
    try:
        crops = _crops(path, view)  # (V, S, S, 3)
    except UnreadableImageError as error:
        return Prediction(path, None, None, f"{error.reason.name.lower()}: {error.detail}")
    logit = float(np.mean([_logit(crop, head, encoder) for crop in crops]))
    calibration = head.card.calibration
    calibrated = calibration.probability(logit) if calibration is not None else None
    return Prediction(path, float(expit(logit)), calibrated, "")


def _crops(path: Path, view: ViewSpec) -> NDArray[np.uint8]:
    if path.exists() and not path.is_file():
        raise UnreadableImageError(Reason.MISSING, "no regular file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(Reason.MISSING, error.strerror or str(error)) from None
    return render(view, decode(content).rgb, hashlib.sha256(content).digest())  # (V, S, S, 3)


def _logit(crop: NDArray[np.uint8], head: Head, encoder: Encoder) -> float:
    batch = np.zeros((encoder.batch_size, *crop.shape), np.uint8)  # (B, S, S, 3)
    batch[0] = crop
    encoded = encoder.encode(batch)
    if not head.card.blocks:
        inputs = torch.from_numpy(encoded.embedding[:1]).float()  # (1, E)
    else:
        tokens = encoded.tokens[head.card.features.tap][list(head.card.blocks), :1]  # (K', 1, D)
        inputs = torch.from_numpy(tokens).float().transpose(0, 1)  # (1, K', D)
    return float(head.network(inputs).logit)
