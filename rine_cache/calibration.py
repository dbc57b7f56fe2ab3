"""Calibration on validation data: what a head's logit means as a chance, and where to cut for few false alarms.

Kept with the head, and used by the metrics that say so; all others take the plain threshold. The same
validation images chose the head's epoch, so that what is read off them is rather too good.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from rine_cache.specs.base import Spec
from rine_cache.thresholds import lowest_threshold, most_accurate_threshold

if TYPE_CHECKING:
    from numpy.typing import NDArray

# False-positive rates that thresholds are chosen for, in percent.
FALSE_POSITIVE_PERCENTS = (1, 5)
# Between which the root mean square of the calibrated logits is looked for; see `_temperature`.
_FLATTEST, _SHARPEST = 0.01, 100.0


class ChosenThreshold(Spec):
    """A decision point, chosen so that few real validation images lie above it.

    Attributes
    ----------
    false_positive_percent
        The share of real images, in percent, that may lie above it.
    logit
        An image is called fake if its logit is strictly above this. Null where it cannot be told.
    real_above, fake_above
        The shares of the validation images above it: the false and the true positive rate there.
    reason
        Why there is none.
    """

    false_positive_percent: int
    logit: float | None = None
    real_above: float | None = None
    fake_above: float | None = None
    reason: str = ""


class Calibration(Spec):
    """What was fitted on a head's validation logits.

    Attributes
    ----------
    n_real, n_fake
        How many validation images there were.
    temperature
        The chance of being fake is the sigmoid of the logit over this, as far as the validation data can tell; null
        where they cannot.
    reason
        Why the temperature is null or bounded; empty where it is the minimum of the cross-entropy.
    most_accurate
        The logit threshold at which most validation images are told rightly, the nearest to 0 of equals; null where
        one class is lacking.
    thresholds
        One for each of `FALSE_POSITIVE_PERCENTS`.
    """

    n_real: int
    n_fake: int
    temperature: float | None
    reason: str = ""
    most_accurate: float | None = None
    thresholds: tuple[ChosenThreshold, ...]

    def probability(self, logit: float) -> float | None:
        """Return the calibrated chance that an image of this logit is fake."""
        return None if self.temperature is None else float(expit(logit / self.temperature))


def calibrate(labels: NDArray[np.integer], logits: NDArray[np.floating]) -> Calibration:
    """Fit a temperature and choose thresholds.

    Parameters
    ----------
    labels
        0 real, 1 fake, shape (N,).
    logits
        A head's fake logits on the validation images, shape (N,), finite.
    """
    fake = labels == 1  # (N,)
    wide = logits.astype(np.float64)  # (N,)
    temperature, reason = _temperature(fake, wide)
    return Calibration(
        n_real=int((~fake).sum()),
        n_fake=int(fake.sum()),
        temperature=temperature,
        reason=reason,
        most_accurate=most_accurate_threshold(fake, wide) if fake.any() and not fake.all() else None,
        thresholds=tuple(_threshold(percent, wide[~fake], wide[fake]) for percent in FALSE_POSITIVE_PERCENTS),
    )


def _temperature(fake: NDArray[np.bool_], logits: NDArray[np.float64]) -> tuple[float | None, str]:
    """Return the temperature that minimises the mean binary cross-entropy, and why it does not where it does not.

    The cross-entropy is convex in 1 / temperature, so that its slope has one root at most. It has none where the
    logits tell the classes apart without an error: the sharper, the better. Then the logits' root mean square gets the
    chance (N + 1) / (N + 2), which is what N images without an error support by Laplace's rule of succession.

    Notes
    -----
    Source of temperature scaling: Guo et al., arXiv:1706.04599, section 4.2.
    """
    if fake.all() or not fake.any():
        return None, "validation data of one class"
    scale = float(np.sqrt((logits**2).mean()))
    if scale == 0:
        return None, "all validation logits are 0"
    unit = logits / scale  # (N,), of root mean square 1

    def slope(sharpness: float) -> float:
        return float(((expit(sharpness * unit) - fake) * unit).mean())

    if slope(_FLATTEST) >= 0:
        return None, "the logits say nothing of the class on validation data"
    if slope(_SHARPEST) <= 0:
        return scale / log(len(logits) + 1), "no error on validation data: bounded by their number"
    return scale / brentq(slope, _FLATTEST, _SHARPEST), ""


def _threshold(percent: int, real: NDArray[np.float64], fake: NDArray[np.float64]) -> ChosenThreshold:
    """Choose the lowest logit that at most so many percent of the real images are strictly above."""
    allowed = len(real) * percent // 100
    if not allowed:
        needed = -(-100 // percent)
        reason = f"{len(real)} real validation images; {needed} are needed, that one of them is {percent} %"
        return ChosenThreshold(false_positive_percent=percent, reason=reason)
    logit = lowest_threshold(real, percent=percent)
    return ChosenThreshold(
        false_positive_percent=percent,
        logit=logit,
        real_above=float((real > logit).mean()),
        fake_above=float((fake > logit).mean()) if len(fake) else None,
    )
