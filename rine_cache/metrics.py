"""Metrics of a binary detector, as scikit-learn defines them; fake is the positive class.

A decision is fake when the score, the sigmoid of the logit, is strictly above .5, but for the accuracies that name
another threshold: `acc_validation_*` take one that was chosen on validation data, `acc_best_threshold` the best on
these very images, an oracle. AP, AUC and `tpr_fpr*` rank by logit, which the sigmoid would round to ties near 0 and 1.
A metric is None where a class it needs is absent (accuracies but `real_acc`, `fake_acc` and `balanced_acc` need any
image, calibration errors too, `real_acc` reals, `fake_acc` and `f1` fakes, the others both), or where what it needs
could not be chosen on validation data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np
from scipy.special import expit
from sklearn.metrics import average_precision_score, roc_auc_score

from rine_cache.specs.benchmark import Metric
from rine_cache.thresholds import best_accuracy, true_positive_rate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rine_cache.calibration import Calibration

METRICS: tuple[Metric, ...] = get_args(Metric)
# Those kept of validation data, beside the loss.
VALIDATION_METRICS: tuple[Metric, ...] = ("acc", "ap", "auc")
THRESHOLD = 0.5
# How many bins of equal width the calibration error sorts probabilities into.
CALIBRATION_BINS = 15


def is_fake(logits: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Decide at the threshold: score strictly above .5."""
    with np.errstate(over="ignore"):
        scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    decided: NDArray[np.bool_] = scores > THRESHOLD
    return decided


def binary_metrics(
    labels: NDArray[np.integer], logits: NDArray[np.floating], calibration: Calibration | None = None
) -> dict[Metric, float | None]:
    """Compute every metric of `METRICS`, as fractions.

    Parameters
    ----------
    labels
        0 real, 1 fake, shape (N,).
    logits
        Fake logits, shape (N,), finite.
    calibration
        What was chosen on validation data for the head that gave the logits; without it the metrics that need it are
        None.

    Returns
    -------
    A value in [0, 1] per metric, or None where it is undefined.
    """
    fake = labels == 1  # (N,)
    decided = is_fake(logits)  # (N,)
    reals, fakes = int((~fake).sum()), int(fake.sum())
    wide = logits.astype(np.float64)  # (N,)
    real_acc = float((~decided[~fake]).mean()) if reals else None
    fake_acc = float(decided[fake].mean()) if fakes else None
    metrics: dict[Metric, float | None] = {
        "acc": float((decided == fake).mean()) if len(labels) else None,
        "real_acc": real_acc,
        "fake_acc": fake_acc,
        "balanced_acc": None,
        "f1": 2 * int((decided & fake).sum()) / (int(decided.sum()) + fakes) if fakes else None,
        "ap": None,
        "auc": None,
        "tpr_fpr1": None,
        "tpr_fpr5": None,
        "ece": calibration_error(fake, expit(wide)) if len(labels) else None,
        **_by_calibration(fake, wide, calibration),
        "acc_best_threshold": best_accuracy(fake, wide) if len(labels) else None,
    }
    if real_acc is not None and fake_acc is not None:
        metrics["balanced_acc"] = (real_acc + fake_acc) / 2
        metrics["ap"] = float(average_precision_score(fake, logits))
        metrics["auc"] = float(roc_auc_score(fake, logits))
        metrics["tpr_fpr1"] = true_positive_rate(fake, logits, percent=1)
        metrics["tpr_fpr5"] = true_positive_rate(fake, logits, percent=5)
    return metrics


def calibration_error(fake: NDArray[np.bool_], probabilities: NDArray[np.float64]) -> float:
    """Compute the expected calibration error of probabilities of being fake.

    The probabilities fall into `CALIBRATION_BINS` bins of equal width, each of which holds its upper edge; in each the
    mean probability is set against the share of fakes, and the distances are averaged over the images.

    Parameters
    ----------
    fake
        Whether each image is, (N,); N > 0.
    probabilities
        Shape (N,).

    Notes
    -----
    Source: Naeini et al., AAAI 2015; for the binary case with the probability of one class, not the confidence in the
    class decided for.
    """
    bins = np.ceil(probabilities * CALIBRATION_BINS).astype(np.int64).clip(1)  # (N,)
    distances = np.bincount(bins, probabilities - fake)  # (bins + 1,): share times (mean probability - share of fakes)
    return float(np.abs(distances).sum() / len(fake))


def _by_calibration(
    fake: NDArray[np.bool_], logits: NDArray[np.float64], calibration: Calibration | None
) -> dict[Metric, float | None]:
    """Measure what was chosen on validation data."""
    chosen: dict[Metric, float | None] = dict.fromkeys(
        ("ece_calibrated", "acc_validation_threshold", "acc_validation_fpr1", "acc_validation_fpr5")
    )
    if calibration is None or not len(fake):
        return chosen
    if calibration.temperature is not None:
        chosen["ece_calibrated"] = calibration_error(fake, expit(logits / calibration.temperature))
    thresholds: dict[Metric, float | None] = {"acc_validation_threshold": calibration.most_accurate}
    for threshold in calibration.thresholds:
        match threshold.false_positive_percent:
            case 1:
                thresholds["acc_validation_fpr1"] = threshold.logit
            case 5:
                thresholds["acc_validation_fpr5"] = threshold.logit
    for metric, logit in thresholds.items():
        if logit is not None:
            chosen[metric] = float(((logits > logit) == fake).mean())
    return chosen


def validation_metrics(labels: NDArray[np.integer], logits: NDArray[np.floating]) -> dict[str, float | None]:
    """Measure a head on validation data as its card states it.

    Parameters
    ----------
    labels
        0 real, 1 fake, shape (N,).
    logits
        Fake logits, shape (N,).

    Returns
    -------
    `loss`, the mean binary cross-entropy per image, and the metrics of `VALIDATION_METRICS`, fractions or None. Where
    a logit is not finite the loss alone, not finite either.
    """
    if not np.isfinite(logits).all():
        return {"loss": float("nan")}
    measured = binary_metrics(labels, logits)
    signed = np.where(labels == 1, -logits, logits).astype(np.float64)  # (N,)
    return {"loss": float(np.logaddexp(0, signed).mean()), **{name: measured[name] for name in VALIDATION_METRICS}}
