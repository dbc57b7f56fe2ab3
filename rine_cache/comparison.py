"""Whether methods differ from the best on the same images: differences with intervals, tested together.

Two methods' replicates come from the same resamples, so that what an easy or hard draw does to both cancels in their
difference. How far the difference's interval reaches follows from the half-widths h of the methods' own intervals and
from how their replicates correlate, r: the square root of h₁² + h₂² - 2 r h₁ h₂ (the method of variance estimates
recovery, Zou and Donner, Statistics in Medicine 2008; Newcombe's method 10 for paired shares, ibid. 1998; here with
half the width on either side, as what makes one side longer is common to both methods). So it knows of what was not
seen, as `rine_cache.intervals` says: two methods that are right on all of ten images are not known to be equal. It
reaches no less far than Student's t with the standard error of the paired replicates.

The p-value is that of the difference over its reach, as multiples of Student's t with the degrees of freedom of the
units drawn. The p-values of a family, all methods against the best one of the same table, are corrected by Holm's
step-down method (Scandinavian Journal of Statistics, 1979). As the best was picked because it came out best, not only
the pairs with it count but all pairs that might have been looked at: m (m - 1) / 2 for the m methods that are not told
apart yet. Counting m - 1 would tell one of ten equal methods from the best in one family of seven; so it is one of
twenty or fewer, whatever m is. A method is **tied with the best** where it is not told apart.

`benchmarks/interval_coverage.py` simulates it, with 1,000 samples a case: where both methods rest on some ten events,
93 to 97 % of the intervals held the difference (with 40 groups or exponential logits 92.6 to 97), and nearer 100 %, 97
to 100 %. Of two equal methods one was told from the other in 0 to 5 % of the families (AP of logits with heavy tails
7), of twenty in 0 to 5 %.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.stats import t as student

from rine_cache.intervals import LEVEL

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Comparison(NamedTuple):
    """How each method of a family stands to the best; of the best itself the differences and p are NaN, and it ties."""

    difference: NDArray[np.float64]  # (F,), method minus best, as fractions
    low: NDArray[np.float64]  # (F,), 95 % interval of the difference, not corrected
    high: NDArray[np.float64]  # (F,)
    p_value: NDArray[np.float64]  # (F,), corrected
    tied: NDArray[np.bool_]  # (F,)


def compare_with_best(
    values: NDArray[np.float64],
    halves: NDArray[np.float64],
    replicates: NDArray[np.float64],
    best: int,
    free: int,
    counted: int,
) -> Comparison:
    """Compare the methods of a family with the best of it.

    Parameters
    ----------
    values
        Fractions, (F,), none missing.
    halves
        Half the width of the interval of each, (F,).
    replicates
        Of each, on the same resamples, (F, R).
    best
        Its place.
    free, counted
        The units drawn less their strata, and the units drawn, as `rine_cache.intervals.Size` has them.

    Returns
    -------
    Two methods that differ on no image, and are wrong on some, have a difference of 0 that is certain, and tie.
    """
    free = max(free, 1)
    difference = values - values[best]  # (F,)
    quantile = student.ppf((1 + LEVEL) / 2, free)
    paired = np.nanstd(replicates - replicates[best], axis=1, ddof=1)  # (F,)
    own = np.nanstd(replicates, axis=1, ddof=1)  # (F,)
    with np.errstate(all="ignore"):  # what does not vary correlates with nothing
        alike = np.nan_to_num((own**2 + own[best] ** 2 - paired**2) / (2 * own * own[best]), posinf=0, neginf=0)  # (F,)
        recovered = halves**2 + halves[best] ** 2 - 2 * np.clip(alike, -1, 1) * halves * halves[best]  # (F,)
        reach = np.maximum(np.sqrt(np.maximum(recovered, 0)), quantile * paired * np.sqrt(max(counted, free) / free))
        reach = np.where(reach > 1e-9, reach, 0.0)  # rounding is no variance
        ratio = np.where(reach > 0, np.abs(difference) / reach, np.where(difference == 0, 0.0, np.inf)) * quantile
    others = np.arange(len(values)) != best
    p_value = np.full(len(values), np.nan)
    p_value[others] = corrected(2 * student.sf(ratio[others], free))
    unknown = np.where(others, 0.0, np.nan)
    return Comparison(
        difference=difference + unknown,
        low=np.maximum(difference - reach, -1) + unknown,
        high=np.minimum(difference + reach, 1) + unknown,
        p_value=p_value,
        tied=~others | (np.nan_to_num(p_value, nan=1.0) >= 1 - LEVEL),
    )


def corrected(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correct the p-values of comparisons with the best, (m - 1,), for all pairs among the m methods, step by step."""
    order = np.argsort(p_values)  # (m - 1,)
    left = np.arange(len(p_values) + 1, 1, -1)  # (m - 1,): methods not told apart yet, the best among them
    stepped = p_values[order] * left * (left - 1) / 2
    found = np.empty(len(p_values))
    found[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return found
