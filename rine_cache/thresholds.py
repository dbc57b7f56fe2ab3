"""Decision points: where to cut logits, fake strictly above, and what is told rightly there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def lowest_threshold(real: NDArray[np.floating], *, percent: int) -> float:
    """Return the lowest logit that at most so many percent of the real images lie above.

    Parameters
    ----------
    real
        Logits of real images, shape (n,), n > 0; the threshold is one of them.
    percent
        The false-positive rate allowed.
    """
    return float(np.sort(real)[-(len(real) * percent // 100) - 1])


def true_positive_rate(fake: NDArray[np.bool_], logits: NDArray[np.floating], *, percent: int) -> float:
    """Return the largest share of fakes above a logit that at most so many percent of the reals are above.

    Parameters
    ----------
    fake
        Whether each image is, (N,); both classes are there.
    logits
        Shape (N,).
    percent
        The false-positive rate allowed.
    """
    return float((logits[fake] > lowest_threshold(logits[~fake], percent=percent)).mean())


def best_accuracy(fake: NDArray[np.bool_], logits: NDArray[np.floating]) -> float:
    """Return the accuracy at the logit threshold that suits these images best, (N,) both, N > 0."""
    right, ends = _right_above(fake, logits)
    return float(right[ends].max() / len(fake))


def most_accurate_threshold(fake: NDArray[np.bool_], logits: NDArray[np.float64]) -> float:
    """Choose the logit threshold, fake strictly above, at which most images are told rightly.

    Of equally good ones the nearest to 0 is taken: 0 itself where it is as good as any, else a point half-way between
    two logits, or half a unit outside them all.

    Parameters
    ----------
    fake
        Whether each image is, (N,); N > 0.
    logits
        Shape (N,), finite.
    """
    right, ends = _right_above(fake, logits)
    best = right[ends].max()
    if int(((logits > 0) == fake).sum()) == best:
        return 0.0
    edges = np.concatenate([[-np.inf], np.sort(logits), [np.inf]])  # (N + 2,)
    low, high = edges[ends], edges[ends + 1]  # (M,), thresholds of equal decisions lie between
    low, high = np.where(np.isinf(low), high - 1, low), np.where(np.isinf(high), low + 1, high)
    middle = ((low + high) / 2)[right[ends] == best]
    return float(middle[np.abs(middle).argmin()])


def _right_above(fake: NDArray[np.bool_], logits: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the images told rightly if the k lowest are called real, (N + 1,), and the k that ties allow, (M,)."""
    order = np.argsort(logits, kind="stable")  # (N,)
    right = np.concatenate([[0], np.where(fake[order], -1, 1).cumsum()]) + int(fake.sum())  # (N + 1,)
    ordered = logits[order]  # (N,)
    ends = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1], [True]]))  # (M,)
    return right, ends
