"""From a number and its bootstrap replicates to a 95 % interval.

The replicates give the number's standard error, which is what they are good at; their quantiles are not taken, as near
100 %, where detectors are compared, these miss the truth too often (AUC .9977 of 100 images: 77 of 100 intervals held
it). From the standard error follows what the number is **worth**: as many independent images, each right or wrong,
would vary as much, v (1 - v) / error². The interval is that of such a share:

- **Accuracies and F1**: Wilson's interval (JASA 1927), of as many images as the number is worth, at most the true ones
  (of the balanced accuracy twice those of the larger class, as all errors may be there).
- **All others**: on the scale of the logit, so that it stays within 0 and 1 and is longer towards 50 %. AUC and AP,
  whose replicates may be more skewed than a share's (few reals that score high weigh on all), are moved down by how
  much they are (Johnson's modified t, JASA 1978; Hall, The Bootstrap and Edgeworth Expansion, 1992, section 3.5), as
  far as the interval still holds the number; not up, as AP near chance comes out too high already.
  Neither end lies outside Wilson's interval for as many units as the smaller class has, unless the number varies more
  than a share of so many does: AUC never does (Birnbaum and Klose, Annals of Mathematical Statistics 1957).

**What was not seen.** The fewer events (wrong images or pairs) a number rests on, the less they tell what one weighs:
three wrong images in three groups do not show that groups do not fall as wholes. So a third of an event more is
reckoned with, of the largest there may be: a whole unit for shares, an image of the smaller class for the others.
A third is what a neutral prior distribution adds to the events (Kerman, Electronic Journal of Statistics 2011); with a
quarter or a half the shares below would differ by one point or two. Without any event it is all there is.

All take a quantile of Student's t with as many degrees of freedom as units were drawn, less their strata. The variance
is multiplied by units / (units - strata), which drawing with replacement within strata takes from it.

**Where the replicates do not vary** (100 %, or a detector that calls everything real) the interval is Wilson's for so
many units, groups rather than images where there are groups; of unequal weights, as in a mean over test sets, their
effective number (Kish, 1965). AUC, AP and true-positive rates take the number of the smaller class. It so has a
width: 100 % of 100 images is 96.2 to 100.

**Where the lower end is 0.** The threshold of `tpr_fpr1` and `tpr_fpr5` is that of these very reals, and resamples know
none above the highest. Where even that one may be too low, which has the probability (1 - rate) ^ reals, with more than
2.5 %, the reals do not bound the threshold on both sides, whatever their distribution (order statistics: Wilks, Annals
of Mathematical Statistics 1941): with fewer than 368 reals at 1 % and 72 at 5 %, in a mean those of any test set. The
number is then bounded from above alone.

**What is covered.** An interval holds the value that ever more images like these would give; seeds and training data
do not vary in it. Calibration errors and the accuracy at the best threshold depend on the number of images itself
(both are larger for fewer, as chance fills bins and moves thresholds): theirs holds the mean over samples of the same
size, which is comparable between methods on the same images and with nothing else.

**How often it holds.** `benchmarks/interval_coverage.py` draws 2,000 samples of each of 109 cases, so that a share is
known to one percentage point. Of test sets of 100 to 4,500 images, half of them fakes, whose logits are normal,
exponential, bimodal, of unequal deviation or mostly tied, 93 to 97 % of the intervals held the truth for accuracies,
F1, AP and AUC; so did those of means over test sets that share 100 to 1,000 reals, and of 20 to 100 groups. But

- one image is a step over the level: real accuracy 99 of 50 images 90 %, 99.9 of 90 images 89 %;
- AUC and AP 99.95 held 95 to 98 %, AP of 90 reals against 900 fakes, where it is 99.6 or more, 98 to 100 %;
- ten groups 95 to 99 %; accuracies of 93 to 98 on 20 to 30 groups up to 98, that of one class up to 99 %;
- AUC and AP 98 on 60 groups of 1 to 30 images 91 %; AP 68 on groups that hold both classes, and 90 in the mean of eight
  test sets, 92 %; the balanced accuracy of 90 images of one class and 900 of the other 92 to 96 %;
- of logits with heavy tails (Student's t, 3 degrees of freedom), where one real in a hundred scores above most fakes
  and a sample may hold none, AP 75 to 93 %, AUC on 90 images of one class 88 %, on 200 shared reals 91 %; AP of
  exponential logits in the mean of eight test sets that share 200 reals 85 %;
- true-positive rates that are bounded from above alone 93 to 100 % (400 samples each); `tpr_fpr1` on 450 to 500 reals
  91 to 98 %, on more, and `tpr_fpr5`, 92 to 98 % (where it is 100: 100 %);
- `ece` up to 98 % where the detector is calibrated, on groups 91 to 99 %; `acc_best_threshold` 88 to 98 %.
"""

from __future__ import annotations

import math
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
# The events that are reckoned with beside those seen: Kerman's neutral prior is Beta(1/3, 1/3).
UNSEEN = 1 / 3
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
# The fewest reals that bound the threshold of a true-positive rate on both sides, by order statistics.
NEEDED_REALS: dict[Metric, int] = {
    "tpr_fpr1": math.ceil(math.log((1 - LEVEL) / 2) / math.log(1 - 0.01)),
    "tpr_fpr5": math.ceil(math.log((1 - LEVEL) / 2) / math.log(1 - 0.05)),
}


class Size(NamedTuple):
    """How much stands behind a number: effective numbers of images and of units, and the units as they are counted."""

    images: float
    units: float
    counted: int
    strata: int


class Support(NamedTuple):
    """The sizes behind the numbers of a test set or of a mean over several.

    Attributes
    ----------
    real, fake, both
        Of the numbers that are made of these images.
    fewest_reals
        The effective number of units of real images, of the test set that has the fewest.
    """

    real: Size
    fake: Size
    both: Size
    fewest_reals: float

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
        classes = self.real, self.fake
        images, units = [size.images for size in classes], min(size.units for size in classes)
        if metric in _OF_HALVES:  # an error takes half of what it does from its class's accuracy, the larger's least
            return self.both._replace(images=2 * max(images), units=2 * units)
        return self.both._replace(images=min(images), units=units)


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
    fewest = min((_size(units, strata, [[reals]]).units for reals, _ in test_sets), default=0.0)
    return Support(real, fake, _size(units, strata, test_sets), fewest)


def lacks_reals(metric: Metric, support: Support) -> bool:
    """Say whether a number's threshold, chosen on the reals measured, is known on one side only."""
    return round(support.fewest_reals) < NEEDED_REALS.get(metric, 0)


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
    tenth of the resamples. The lower one is 0 where `lacks_reals` says so.
    """
    low, high = _two_sided(metric, values, replicates, support)
    return np.where(np.isfinite(low) & lacks_reals(metric, support), 0.0, low), high


def _two_sided(
    metric: Metric, values: NDArray[np.float64], replicates: NDArray[np.float64], support: Support
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    size = support.of(metric)
    free = max(size.counted - size.strata, 1)
    error, skewness = _moments(replicates)  # (...,)
    error *= np.sqrt(max(size.counted, free) / free)
    quantile = student.ppf((1 + LEVEL) / 2, free)
    share = metric in _SHARES
    with np.errstate(all="ignore"):  # at 0 and 1, and without variance, numbers are infinite and not used
        spread = values * (1 - values)
        worth = spread / error**2  # (...,): independent images
        inside = (error > 0) & (spread > 0)
        scale = error / spread  # (...,): the standard error of the logit
        surplus = skewness - (1 - 2 * values) * scale  # what a share of as many independent images would not have
        if share:
            worth = np.minimum(worth, size.images)
        inflation = np.where(inside, _inflation(values, worth, size.units if share else size.images), 1)  # (...,)
        count = np.where(inside, worth / inflation, size.units)
        low, high = _wilson(values, error * np.sqrt(inflation), count, quantile)
        if share:
            return low, high
        centre, reach = logit(values), quantile * scale * np.sqrt(inflation)
        if metric in _SKEWED:
            move = surplus * (2 * norm.ppf((1 + LEVEL) / 2) ** 2 + 1) / 6 * scale * np.sqrt(inflation)
            centre += np.clip(move, -reach, 0)
        units = np.asarray(size.units)
        least, most = _wilson(values, np.sqrt(spread / units), units, quantile)
        bounded = worth >= units
        lower = np.where(bounded, np.maximum(expit(centre - reach), least), expit(centre - reach))
        upper = np.where(bounded, np.minimum(expit(centre + reach), most), expit(centre + reach))
        return np.where(inside, np.minimum(lower, values), low), np.where(inside, np.maximum(upper, values), high)


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


def _inflation(values: NDArray[np.float64], worth: NDArray[np.float64], fewest: float) -> NDArray[np.float64]:
    """Say by how much the variance grows, (...,), with `UNSEEN` events beside those seen that weigh most.

    An event of a number that is worth n images weighs 1 / n: so much it adds to the variance, of what it adds to the
    number. Those seen weigh 1 / worth, the others 1 / fewest; the mean counts.
    """
    rarer = np.minimum(values, 1 - values)  # (...,)
    grown: NDArray[np.float64] = (1 + UNSEEN / (fewest * rarer)) / (1 + UNSEEN / (worth * rarer))
    return np.maximum(grown, 1)


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
