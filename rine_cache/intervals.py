"""From a number and its bootstrap replicates to a 95 % interval.

The replicates give the number's standard error, which is what they are good at; their quantiles are not taken, as near
100 %, where detectors are compared, these miss the truth too often (AUC .9977 of 100 images: 77 of 100 intervals held
it). Which interval is made of the standard error depends on the metric, chosen by simulation with known truth
(`benchmarks/interval_coverage.py` prints the table):

- **Accuracies and F1**: Wilson's interval (JASA 1927) with the bootstrap's standard error in place of the binomial
  one, and as its number of images the one whose binomial error that would be, at most the true one.
- **All others**: on the scale of the logit, so that it stays within 0 and 1 and is longer towards 50 %. It is symmetric
  there, but for AUC and AP, whose replicates may be more skewed than a share's (few reals that score high weigh on
  all): by how much they are, it is moved as Edgeworth's expansion of a studentised mean says (Hall, The Bootstrap and
  Edgeworth Expansion, 1992, section 3.5). Where they rest on fewer than `FEW_EVENTS` events
  these two reach no farther than Wilson's interval for as many images as the smaller class has: no AUC varies more than
  a share of so many (Birnbaum and Klose, 1957).

Both take a quantile of Student's t. Its degrees of freedom are the units drawn less their strata, and for the others at
most `PER_EVENT` times what the number's rarer side is worth in independent events (an AUC of .998 rests on few pairs
out of order, and the standard error itself is then uncertain). The variance is multiplied by units / (units - strata),
which drawing with replacement within strata takes from it.

**Where the replicates do not vary** (100 %, or a detector that calls everything real) the interval is Wilson's for so
many units, groups rather than images where there are groups; of unequal weights, as in a mean over test sets, their
effective number (Kish, 1965). AUC, AP and true-positive rates take the number of the smaller class. It so has a
width: 100 % of 100 images is 96.2 to 100.

**What is covered.** An interval holds the value that ever more images like these would give; seeds and training data
do not vary in it. Calibration errors and the accuracy at the best threshold depend on the number of images itself
(both are larger for fewer, as chance fills bins and moves thresholds): theirs holds the mean over samples of the same
size, which is comparable between methods on the same images and with nothing else.

**Where it fails.** Of 1,000 to 2,000 simulated samples each, 93 to 97 % of the intervals held the truth for
accuracies, F1, AP and AUC between 50 and 99 % on 100 to 4,500 images, give or take the simulation's 1 %, but for: 20
to 40 groups of ten images alike, near 93 % (89 to 93 %; with ten groups they are too wide); AP of 50 groups that hold
both classes (92 %); of a mean of eight test sets over the same 100 reals (AUC 93, AP 89 %), or of 90 reals against
900 fakes (AUC 92, AP 91 %); numbers so near 100 % that one image more or less is a step over the level (90 to 99 %);
`tpr_fpr1` on fewer than 1,000 reals (78 to 92 %). Of a calibrated detector, 98 % of the intervals of `ece` hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm
from scipy.stats import t as student

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rine_cache.specs.benchmark import Metric

LEVEL = 0.95
# Degrees of freedom for each event that a number near 0 or 1 rests on.
PER_EVENT = 6.0
FEW_EVENTS = 3
# An interval is moved down by this share of its half-width at most: the skewness of few units is hardly known. It is
# never moved up, as AP, near chance, comes out too high already.
FARTHEST = 0.25
# Of the replicates so many must be defined, else there is no interval.
_DEFINED = 0.9

_OF_REALS = frozenset({"real_acc"})
_OF_FAKES = frozenset({"fake_acc"})
_OF_HALVES = frozenset({"balanced_acc"})
_OF_ALL = frozenset(
    {"acc", "acc_validation_threshold", "acc_validation_fpr1", "acc_validation_fpr5", "acc_best_threshold"}
    | {"ece", "ece_calibrated"}
)
# Made of what is right or wrong of each image at a given threshold; that of `acc_best_threshold` moves with the sample.
_SHARES = (_OF_REALS | _OF_FAKES | _OF_HALVES | _OF_ALL | {"f1"}) - {"acc_best_threshold", "ece", "ece_calibrated"}
_SKEWED = frozenset({"ap", "auc"})


class Size(NamedTuple):
    """How much stands behind a number: effective numbers of images and of units, and the units as they are counted."""

    images: float
    units: float
    counted: int
    strata: int


class Support(NamedTuple):
    """The sizes behind the numbers of a test set or of a mean over several."""

    real: Size
    fake: Size
    both: Size

    def of(self, metric: Metric) -> Size:
        """Return what stands behind a metric."""
        if metric in _OF_REALS:
            return self.real
        if metric in _OF_FAKES:
            return self.fake
        if metric in _OF_ALL:
            return self.both
        if metric == "f1":  # an error takes 1 / (2 fakes) from it
            return self.both._replace(images=2 * self.fake.images, units=2 * self.fake.units)
        smaller = 2 if metric in _OF_HALVES else 1
        return self.both._replace(
            images=smaller * min(self.real.images, self.fake.images),
            units=smaller * min(self.real.units, self.fake.units),
        )


def measure_support(
    units: NDArray[np.int64], strata: NDArray[np.int64], test_sets: Sequence[Sequence[NDArray[np.int64]]]
) -> Support:
    """Find what stands behind an unweighted mean over test sets, or behind the numbers of one.

    Parameters
    ----------
    units
        The unit of each of N images, (N,).
    strata
        The stratum of each unit, (U,).
    test_sets
        Of each the images of either class, reals first, as places in `units`.
    """
    real = _size(units, strata, [[reals] for reals, _ in test_sets])
    fake = _size(units, strata, [[fakes] for _, fakes in test_sets])
    return Support(real, fake, _size(units, strata, test_sets))


def interval(
    metric: Metric, values: NDArray[np.float64], replicates: NDArray[np.float64], support: Support
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find the 95 % intervals of several numbers of one metric.

    Parameters
    ----------
    metric
        Chooses the interval.
    values
        Fractions, (...,), NaN where there is none.
    replicates
        Of each, (..., R). For a mean over seeds or test sets the mean of their replicates, resample by resample.
    support
        Of what the values were measured on.

    Returns
    -------
    The lower and upper ends, fractions, (...,); NaN where there is no value, or where it is undefined on more than a
    tenth of the resamples.
    """
    size = support.of(metric)
    free = max(size.counted - size.strata, 1)
    error, skewness = _moments(replicates)  # (...,)
    error *= np.sqrt(max(size.counted, free) / free)
    quantile = student.ppf((1 + LEVEL) / 2, free)
    with np.errstate(all="ignore"):  # at 0 and 1, and without variance, numbers are infinite and not used
        spread = values * (1 - values)
        worth = spread / error**2  # (...,): independent images
        inside = (error > 0) & (spread > 0)
        if metric in _SHARES:
            return _wilson(values, error, np.where(inside, np.minimum(worth, size.images), size.units), quantile)
        low, high = _wilson(values, error, np.asarray(size.units), quantile)
        events = worth * np.minimum(values, 1 - values)
        quantile = student.ppf((1 + LEVEL) / 2, np.clip(PER_EVENT * events, 1, free))  # (...,)
        centre, scale = logit(values), error / spread
        if metric in _SKEWED:
            surplus = skewness - (1 - 2 * values) * scale  # what a share of as many independent images would not have
            move = surplus * (2 * norm.ppf((1 + LEVEL) / 2) ** 2 + 1) / 6
            centre += np.clip(move, -FARTHEST * quantile, 0) * scale
        lower, upper = expit(centre - quantile * scale), expit(centre + quantile * scale)
        if metric in _SKEWED:
            fewest = np.asarray(size.units)
            least, most = _wilson(values, np.sqrt(spread / fewest), fewest, student.ppf((1 + LEVEL) / 2, free))
            few = events < FEW_EVENTS
            lower = np.where(few, np.maximum(lower, least), lower)
            upper = np.where(few, np.minimum(upper, most), upper)
        return np.where(inside, lower, low), np.where(inside, upper, high)


def interval_name(metric: Metric) -> str:
    """Name the kind of interval that a metric has."""
    return "Wilson" if metric in _SHARES else "logit"


def _moments(replicates: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the standard deviation and skewness of the replicates that are defined; NaN where too few are."""
    defined = np.isfinite(replicates)  # (..., R)
    count = defined.sum(axis=-1)  # (...,)
    known = np.where(defined, replicates, 0.0)  # (..., R)
    with np.errstate(all="ignore"):
        centred = np.where(defined, known - (known.sum(axis=-1) / count)[..., None], 0.0)
        error = np.sqrt((centred**2).sum(axis=-1) / (count - 1))
        error = np.where(error > 1e-12, error, 0.0)  # rounding is no variance
        skewness = np.where(error > 0, (centred**3).sum(axis=-1) / count / error**3, 0.0)
    enough = count >= max(2, _DEFINED * replicates.shape[-1])
    return np.where(enough, error, np.nan), skewness


def _wilson(
    values: NDArray[np.float64], error: NDArray[np.float64], count: NDArray[np.float64], quantile: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Make Wilson's interval with a given standard error, which holds the value."""
    pull = quantile**2 / count
    centre = (values + pull / 2) / (1 + pull)
    reach = quantile / (1 + pull) * np.sqrt(error**2 + (quantile / (2 * count)) ** 2)
    return (
        np.clip(np.minimum(centre - reach, values), 0, 1),
        np.clip(np.maximum(centre + reach, values), 0, 1),
    )


def _size(
    units: NDArray[np.int64], strata: NDArray[np.int64], test_sets: Sequence[Sequence[NDArray[np.int64]]]
) -> Size:
    weight = np.zeros(len(units))  # (N,)
    for parts in test_sets:
        images = np.concatenate(parts)
        weight[images] += 1 / max(len(images), 1)
    of_units = np.bincount(units, weight, len(strata)).astype(np.float64)  # (U,)
    touched = of_units > 0
    return Size(_effective(weight), _effective(of_units), int(touched.sum()), len(np.unique(strata[touched])))


def _effective(weights: NDArray[np.float64]) -> float:
    """Return how many equal weights would vary as these do (Kish, Survey Sampling, 1965)."""
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0
