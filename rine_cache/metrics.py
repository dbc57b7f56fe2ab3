"""Metrics of a binary detector, as scikit-learn defines them; fake is the positive class.

A decision is fake when the score, the sigmoid of the logit, is strictly above .5. AP and AUC rank by logit,
which the sigmoid would round to ties near 0 and 1. A metric is None where a class it needs is absent:
accuracy needs any image, `real_acc` reals, `fake_acc` and `f1` fakes, the others both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from rine_cache.specs.benchmark import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

METRICS: tuple[Metric, ...] = get_args(Metric)
# Those kept of validation data, beside the loss.
VALIDATION_METRICS: tuple[Metric, ...] = ("acc", "ap", "auc")
THRESHOLD = 0.5


def is_fake(logits: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Decide at the threshold: score strictly above .5."""
    with np.errstate(over="ignore"):
        scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    decided: NDArray[np.bool_] = scores > THRESHOLD
    return decided


def binary_metrics(labels: NDArray[np.integer], logits: NDArray[np.floating]) -> dict[Metric, float | None]:
    """Compute every metric of `METRICS`, as fractions.

    Parameters
    ----------
    labels
        0 real, 1 fake, shape (N,).
    logits
        Fake logits, shape (N,), finite.

    Returns
    -------
    A value in [0, 1] per metric, or None where it is undefined.
    """
    fake = labels == 1
    decided = is_fake(logits)
    reals, fakes = int((~fake).sum()), int(fake.sum())
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
    }
    if real_acc is not None and fake_acc is not None:
        metrics["balanced_acc"] = (real_acc + fake_acc) / 2
        metrics["ap"] = float(average_precision_score(fake, logits))
        metrics["auc"] = float(roc_auc_score(fake, logits))
    return metrics


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
