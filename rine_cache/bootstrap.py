"""Every metric of every head on every resample of a test set.

A resample says how often each image was drawn, so that no image is copied: the images of a head are sorted by logit
once, and one walk down the sorted list makes every metric of a block of replicates, whose sums lie side by side in
vector registers. Tied logits are taken together, as in `rine_cache.metrics`, whose numbers these are with every image
drawn once. The time is that of heads x images x replicates, on as many threads as there are processors; they change
no digit.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import expit

from rine_cache.calibration import FALSE_POSITIVE_PERCENTS
from rine_cache.compiled import compiled
from rine_cache.metrics import CALIBRATION_BINS, METRICS, is_fake

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from rine_cache.calibration import Calibration
    from rine_cache.specs.benchmark import Metric

# How many replicates are walked at once: a cache line of weights per image.
BLOCK = 64
# Threshold accuracies by the order of `Chosen.thresholds`.
_AT_THRESHOLDS: tuple[Metric, ...] = ("acc_validation_threshold", "acc_validation_fpr1", "acc_validation_fpr5")
_PLACE = {metric: place for place, metric in enumerate(METRICS)}


class Chosen(NamedTuple):
    """What each head's calibration on validation data chose; NaN where it chose nothing."""

    temperatures: NDArray[np.float64]  # (H,), > 0
    thresholds: NDArray[np.float64]  # (H, 3), logits: the most accurate, that of 1 % and that of 5 % false positives

    @classmethod
    def nothing(cls, heads: int) -> Chosen:
        """Return what heads without calibration chose."""
        return cls(np.full(heads, np.nan), np.full((heads, len(_AT_THRESHOLDS)), np.nan))

    @classmethod
    def of(cls, calibrations: Sequence[Calibration | None]) -> Chosen:
        """Gather what the heads' calibrations chose."""
        chosen = cls.nothing(len(calibrations))
        for head, calibration in enumerate(calibrations):
            if calibration is None:
                continue
            by_percent = {one.false_positive_percent: one.logit for one in calibration.thresholds}
            logits = [calibration.most_accurate, *(by_percent.get(percent) for percent in FALSE_POSITIVE_PERCENTS)]
            chosen.thresholds[head] = [np.nan if logit is None else logit for logit in logits]
            if calibration.temperature is not None:
                chosen.temperatures[head] = calibration.temperature
        return chosen


def bootstrap(
    labels: NDArray[np.integer],
    logits: NDArray[np.floating],
    chosen: Chosen,
    weights: Callable[[int, int], NDArray[np.uint8]],
    replicates: int,
) -> NDArray[np.float64]:
    """Measure every head on every resample.

    Parameters
    ----------
    labels
        0 real, 1 fake, shape (n,).
    logits
        Fake logits, shape (H, n), finite.
    chosen
        For the metrics that need it.
    weights
        Given the number of a first replicate and how many, how often each image was drawn in each, (n, count), as
        `rine_cache.resampling.Resampling.weights` says.
    replicates
        How many resamples, R.

    Returns
    -------
    Shape (M, H, R), fractions, the metrics in the order of `METRICS`; NaN where one is undefined, as
    `rine_cache.metrics.binary_metrics` gives None. Beside it no more memory is taken than some numbers per head and
    image.
    """
    heads, images = logits.shape
    found = np.full((len(METRICS), heads, replicates), np.nan)
    if not images:
        return found
    with ThreadPoolExecutor(_processors()) as threads:
        ranked = list(threads.map(lambda head: _rank(labels, logits[head], chosen, head), range(heads)))
        for first in range(0, replicates, BLOCK):
            count = min(BLOCK, replicates - first)
            drawn = np.zeros((images, BLOCK), np.uint8)  # (n, BLOCK): the walk is compiled for whole blocks
            drawn[:, :count] = weights(first, count)
            totals = np.stack([drawn[labels == label].sum(axis=0, dtype=np.int64) for label in (0, 1)])  # (2, BLOCK)
            blocks = threads.map(lambda own, drawn=drawn, totals=totals: _measure(own, drawn, totals), ranked)
            for head, block in enumerate(blocks):
                found[:, head, first : first + count] = block[:, :count]
    return found


class _Ranked(NamedTuple):
    """A head's images from the highest logit to the lowest."""

    order: NDArray[np.int64]  # (n,)
    fake: NDArray[np.bool_]  # (n,)
    last: NDArray[np.bool_]  # (n,): whether the next logit is lower
    cuts: NDArray[np.int64]  # (4,): how many lie above each threshold, .5 first; -1 where there is none
    excess: NDArray[np.float64]  # (2, n): probability minus label; plain and calibrated
    bin_end: NDArray[np.bool_]  # (2, n): whether the next probability lies in another bin
    calibrated: bool


def _rank(labels: NDArray[np.integer], logits: NDArray[np.floating], chosen: Chosen, head: int) -> _Ranked:
    order = np.argsort(-logits, kind="stable")  # (n,)
    ordered = logits[order].astype(np.float64)  # (n,)
    fake = labels[order] == 1  # (n,)
    thresholds = chosen.thresholds[head]  # (3,)
    above = [int((ordered > threshold).sum()) if np.isfinite(threshold) else -1 for threshold in thresholds]
    temperature = chosen.temperatures[head]
    calibrated = bool(np.isfinite(temperature))
    probabilities = expit(np.stack([ordered, ordered / (temperature if calibrated else 1)]))  # (2, n)
    bins = np.ceil(probabilities * CALIBRATION_BINS).astype(np.int64).clip(1)  # (2, n)
    return _Ranked(
        order=order,
        fake=fake,
        last=_ends(ordered[None])[0],
        cuts=np.array([int(is_fake(ordered).sum()), *above]),
        excess=probabilities - fake,
        bin_end=_ends(bins),
        calibrated=calibrated,
    )


def _ends(values: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Say where the next value is another one, (k, n); the last has none."""
    ends = np.ones(values.shape, np.bool_)
    ends[:, :-1] = values[:, 1:] != values[:, :-1]
    return ends


def _measure(ranked: _Ranked, drawn: NDArray[np.uint8], totals: NDArray[np.int64]) -> NDArray[np.float64]:
    """Make a block's metrics of one head, (M, BLOCK)."""
    limits = np.stack([totals[0] * percent // 100 for percent in FALSE_POSITIVE_PERCENTS]).astype(np.float64)
    sums = _walk(ranked.order, ranked.fake, ranked.last, ranked.cuts, ranked.excess, ranked.bin_end, drawn, limits)
    auc, ap, best, above, errors, at_cuts = sums
    real, fake = totals.astype(np.float64)  # (BLOCK,) each
    found = np.full((len(METRICS), BLOCK), np.nan)

    def put(metric: Metric, value: NDArray[np.float64]) -> None:
        found[_PLACE[metric]] = value

    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 is what is undefined
        true, false = at_cuts[0]
        real_acc, fake_acc = (real - false) / real, true / fake
        put("acc", (true + real - false) / (real + fake))
        put("real_acc", real_acc)
        put("fake_acc", fake_acc)
        put("balanced_acc", (real_acc + fake_acc) / 2)
        put("f1", np.where(fake > 0, 2 * true / (true + false + fake), np.nan))
        put("ap", np.where(real > 0, ap / fake, np.nan))
        put("auc", auc / (real * fake))
        put("tpr_fpr1", np.where(real > 0, above[0] / fake, np.nan))
        put("tpr_fpr5", np.where(real > 0, above[1] / fake, np.nan))
        put("ece", errors[0] / (real + fake))
        if ranked.calibrated:
            put("ece_calibrated", errors[1] / (real + fake))
        for metric, cut, (true, false) in zip(_AT_THRESHOLDS, ranked.cuts[1:], at_cuts[1:], strict=True):
            if cut >= 0:
                put(metric, (true + real - false) / (real + fake))
        put("acc_best_threshold", (best + real) / (real + fake))
    return found


@compiled
def _walk(
    order: NDArray[np.int64],
    fake: NDArray[np.bool_],
    last: NDArray[np.bool_],
    cuts: NDArray[np.int64],
    excess: NDArray[np.float64],
    bin_end: NDArray[np.bool_],
    drawn: NDArray[np.uint8],
    limits: NDArray[np.float64],
) -> tuple[NDArray[np.float64], ...]:
    """Walk down a head's images, BLOCK replicates side by side.

    Returns
    -------
    The AUC times reals times fakes, (BLOCK,); the AP times fakes, (BLOCK,); the most fakes minus reals above any
    threshold, (BLOCK,); the fakes above the thresholds of the false-positive limits, (2, BLOCK); the calibration
    errors times images, (2, BLOCK); the fakes and reals above each cut, (4, 2, BLOCK). Counts are exact.
    """
    tp, fp = np.zeros(BLOCK), np.zeros(BLOCK)
    tied_tp, tied_fp = np.zeros(BLOCK), np.zeros(BLOCK)
    auc, ap, best = np.zeros(BLOCK), np.zeros(BLOCK), np.zeros(BLOCK)
    above = np.zeros((2, BLOCK))
    errors, plain, calibrated = np.zeros((2, BLOCK)), np.zeros(BLOCK), np.zeros(BLOCK)
    at_cuts = np.zeros((len(cuts), 2, BLOCK))
    most = limits.max()
    single, limited = True, True
    for place in range(len(order)):
        row = drawn[order[place]]
        off, off_calibrated = excess[0, place], excess[1, place]
        for k in range(BLOCK):
            plain[k] += row[k] * off
            calibrated[k] += row[k] * off_calibrated
        if bin_end[0, place]:
            for k in range(BLOCK):
                errors[0, k] += abs(plain[k])
                plain[k] = 0.0
        if bin_end[1, place]:
            for k in range(BLOCK):
                errors[1, k] += abs(calibrated[k])
                calibrated[k] = 0.0
        if single and last[place]:
            if fake[place]:
                for k in range(BLOCK):
                    tp[k] += row[k]
                    ap[k] += row[k] * tp[k] / max(tp[k] + fp[k], 1.0)
                    best[k] = max(best[k], tp[k] - fp[k])
            else:
                for k in range(BLOCK):
                    auc[k] += row[k] * tp[k]
                    fp[k] += row[k]
        else:
            if fake[place]:
                for k in range(BLOCK):
                    tied_tp[k] += row[k]
            else:
                for k in range(BLOCK):
                    tied_fp[k] += row[k]
            if last[place]:
                for k in range(BLOCK):
                    auc[k] += tied_fp[k] * (tp[k] + tied_tp[k] / 2)
                    tp[k] += tied_tp[k]
                    fp[k] += tied_fp[k]
                    ap[k] += tied_tp[k] * tp[k] / max(tp[k] + fp[k], 1.0)
                    best[k] = max(best[k], tp[k] - fp[k])
                    tied_tp[k] = 0.0
                    tied_fp[k] = 0.0
        single = last[place]
        if limited and last[place]:
            lowest = np.inf
            for k in range(BLOCK):
                for limit in range(2):
                    above[limit, k] = tp[k] if fp[k] <= limits[limit, k] else above[limit, k]
                lowest = min(lowest, fp[k])
            limited = lowest <= most
        for cut in range(len(cuts)):
            if cuts[cut] == place + 1:
                for k in range(BLOCK):
                    at_cuts[cut, 0, k] = tp[k]
                    at_cuts[cut, 1, k] = fp[k]
    return auc, ap, best, above, errors, at_cuts


def _processors() -> int:
    """Count the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
