"""Prediction: a head's scores of images that belong to no data set.

A score is no certainty: a head knows the generators and the photographs that it was trained on. Beside it stands how
the head's validation images scored, by which a person can tell what the score is compatible with.
"""

from __future__ import annotations

import hashlib
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy.special import expit

from rine_cache.errors import CacheMismatchError
from rine_cache.heads.head import FeatureIdentity, Head
from rine_cache.heads.rine import RineHead
from rine_cache.images import decode
from rine_cache.layouts.entry import FAKE, REAL
from rine_cache.quarantine import Reason, UnreadableImageError
from rine_cache.views import render

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from rine_cache.encoders import Encoder
    from rine_cache.encoders.encoder import Encoded, Running
    from rine_cache.specs.encoding import ViewSpec


# A score is called compatible with a class if at least this share of its validation images scored as far out.
COMPATIBLE = 0.05


class Prediction(NamedTuple):
    """A head's answer for one image, or why there is none.

    Attributes
    ----------
    path
        The image.
    score
        The sigmoid of the mean logit: the head's output, not a calibrated chance.
    logit
        The mean logit over the view's crops.
    calibrated
        The chance of being fake, as far as the head's validation data could tell.
    real_above, fake_above
        The shares of the real and of the fake validation images that scored higher.
    compatible_with
        ``real``, ``fake``, ``real or fake`` or ``neither``: the classes of which at least `COMPATIBLE` of the
        validation images scored as far out. Empty where those scores were not kept.
    problem
        Why the image could not be read; empty where it was. All the others are then null or empty.
    """

    path: Path
    score: float | None = None
    logit: float | None = None
    calibrated: float | None = None
    real_above: float | None = None
    fake_above: float | None = None
    compatible_with: str = ""
    problem: str = ""


def predict(paths: Iterable[Path], head: Head, encoder: Encoder, view: ViewSpec) -> Iterator[Prediction]:
    """Score image files, one after the other, in their order; what cannot be read is told and stops nothing.

    Images are read while others are encoded. Each is encoded in a batch of its own, so that its score does not depend
    on which others there are.

    Raises
    ------
    CacheMismatchError
        At once, if the encoder is not the head's, or the view's crops are not of its size.
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
    return _predictions(paths, head, encoder, view)


def block_weights(head: Head) -> dict[int, float] | None:
    """Return how much TIE weighs each block that a head reads, the mean over its channels; they add to 1."""
    if not isinstance(head.network, RineHead):
        return None
    weights = head.network.importance().mean(1)  # (K',)
    return dict(zip(head.card.blocks, weights.tolist(), strict=True))


def _predictions(paths: Iterable[Path], head: Head, encoder: Encoder, view: ViewSpec) -> Iterator[Prediction]:
    """Keep as many batches running as the encoder has use for, and answer in order."""
    begun: deque[tuple[Path, list[Running], str]] = deque()
    for path in paths:
        try:
            running = [_start(crop, encoder) for crop in _crops(path, view)]
        except UnreadableImageError as error:
            begun.append((path, [], f"{error.reason.name.lower()}: {error.detail}"))
        else:
            begun.append((path, running, ""))
        while sum(len(batches) for _, batches, _ in begun) > encoder.in_flight:
            yield _finish(*begun.popleft(), head)
    while begun:
        yield _finish(*begun.popleft(), head)


def _finish(path: Path, running: list[Running], problem: str, head: Head) -> Prediction:
    if problem:
        return Prediction(path, problem=problem)
    logit = float(np.mean([_logit(batch.result(), head) for batch in running]))
    calibration = head.card.calibration
    if calibration is None:
        return Prediction(path, float(expit(logit)), logit)
    real_above, fake_above = (calibration.share_above(label, logit) for label in (REAL, FAKE))
    return Prediction(
        path,
        float(expit(logit)),
        logit,
        calibration.probability(logit),
        real_above,
        fake_above,
        _compatible_with(real_above, fake_above),
    )


def _compatible_with(real_above: float | None, fake_above: float | None) -> str:
    """Name the classes whose validation images score like this: reals as high, fakes as low."""
    if real_above is None or fake_above is None:
        return ""
    names = [name for name, share in (("real", real_above), ("fake", 1 - fake_above)) if share >= COMPATIBLE]
    return " or ".join(names) or "neither"


def _crops(path: Path, view: ViewSpec) -> NDArray[np.uint8]:
    if path.exists() and not path.is_file():
        raise UnreadableImageError(Reason.MISSING, "no regular file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(Reason.MISSING, error.strerror or str(error)) from None
    return render(view, decode(content).rgb, hashlib.sha256(content).digest())  # (V, S, S, 3)


def _start(crop: NDArray[np.uint8], encoder: Encoder) -> Running:
    batch = encoder.new_batch()  # (B, S, S, 3)
    batch[0] = crop
    return encoder.start(batch)


@torch.inference_mode()
def _logit(encoded: Encoded, head: Head) -> float:
    """Return the head's logit of a batch's first crop."""
    if not head.card.blocks:
        inputs = torch.from_numpy(encoded.embedding[:1]).float()  # (1, E)
    else:
        tokens = encoded.tokens[head.card.features.tap][list(head.card.blocks), :1]  # (K', 1, D)
        inputs = torch.from_numpy(tokens).float().transpose(0, 1)  # (1, K', D)
    return float(head.network(inputs).logit)
