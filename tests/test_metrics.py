from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from rine_cache.calibration import Calibration, ChosenThreshold
from rine_cache.metrics import METRICS, THRESHOLD, binary_metrics, is_fake
from rine_cache.report import METRIC_TITLES
from rine_cache.specs.benchmark import ERRORS, ORACLE_METRICS

if TYPE_CHECKING:
    from rine_cache.specs.benchmark import Metric


def by_scikit_learn(labels: np.ndarray, logits: np.ndarray) -> dict[Metric, float]:
    decided = [1 if 1 / (1 + np.exp(-float(logit))) > 0.5 else 0 for logit in logits]
    return {
        "acc": sklearn_metrics.accuracy_score(labels, decided),
        "real_acc": sklearn_metrics.recall_score(labels, decided, pos_label=0),
        "fake_acc": sklearn_metrics.recall_score(labels, decided, pos_label=1),
        "balanced_acc": sklearn_metrics.balanced_accuracy_score(labels, decided),
        "f1": sklearn_metrics.f1_score(labels, decided, zero_division=0),
        "ap": sklearn_metrics.average_precision_score(labels, logits),
        "auc": sklearn_metrics.roc_auc_score(labels, logits),
        "tpr_fpr1": recall_at(0.01, labels, logits),
        "tpr_fpr5": recall_at(0.05, labels, logits),
        "ece": calibration_error_in_a_loop(labels, logits),
        "ece_calibrated": calibration_error_in_a_loop(labels, logits.astype(np.float64) / 2.5),
        "acc_validation_threshold": sklearn_metrics.accuracy_score(labels, logits > 0.5),
        "acc_validation_fpr1": sklearn_metrics.accuracy_score(labels, logits > 2),
        "acc_validation_fpr5": sklearn_metrics.accuracy_score(labels, logits > 1),
        "acc_best_threshold": max(
            sklearn_metrics.accuracy_score(labels, logits > cut) for cut in (-np.inf, *logits.tolist())
        ),
    }


CALIBRATION = Calibration(
    n_real=100,
    n_fake=100,
    temperature=2.5,
    most_accurate=0.5,
    thresholds=(
        ChosenThreshold(false_positive_percent=1, logit=2.0),
        ChosenThreshold(false_positive_percent=5, logit=1.0),
    ),
)


def recall_at(rate: float, labels: np.ndarray, logits: np.ndarray) -> float:
    false_positives, true_positives, _ = sklearn_metrics.roc_curve(labels, logits, drop_intermediate=False)
    return float(true_positives[false_positives <= rate + 1e-12].max())


def calibration_error_in_a_loop(labels: np.ndarray, logits: np.ndarray) -> float:
    probabilities = [1 / (1 + np.exp(-float(logit))) for logit in logits]
    error = 0.0
    for low in np.arange(15) / 15:
        inside = [
            (probability, label)
            for probability, label in zip(probabilities, labels, strict=True)
            if low < probability <= low + 1 / 15
        ]
        if inside:
            mean, share = np.mean(inside, axis=0)
            error += len(inside) / len(labels) * abs(mean - share)
    return error


@pytest.mark.parametrize("seed", range(20))
def test_every_metric_is_that_of_scikit_learn_on_random_logits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.array([0, 1, *rng.integers(0, 2, rng.integers(0, 60))])
    logits = rng.normal(labels - 0.5, 2).astype(np.float32)
    assert binary_metrics(labels, logits, CALIBRATION) == pytest.approx(by_scikit_learn(labels, logits), abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_every_metric_is_that_of_scikit_learn_with_many_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.array([0, 1, *rng.integers(0, 2, 40)])
    logits = rng.integers(-2, 3, 42).astype(np.float32)
    assert binary_metrics(labels, logits, CALIBRATION) == pytest.approx(by_scikit_learn(labels, logits), abs=1e-12)


def test_metrics_of_four_images_worked_out_by_hand() -> None:
    labels = np.array([0, 0, 1, 1])
    logits = np.array([-1.0, 2.0, 1.0, 3.0], np.float32)
    # Ranked: fake 3, real 2, fake 1, real -1. Decided fake: 2, 1 and 3.
    expected = {
        "acc": 3 / 4,
        "real_acc": 1 / 2,
        "fake_acc": 1.0,
        "balanced_acc": 3 / 4,
        "f1": 2 * 2 / (3 + 2),
        "ap": (1 / 1 + 2 / 3) / 2,
        "auc": 3 / 4,
        "tpr_fpr1": 1 / 2,
        "tpr_fpr5": 1 / 2,
        "acc_best_threshold": 3 / 4,
    }
    measured = binary_metrics(labels, logits)
    assert {name: measured[name] for name in expected} == pytest.approx(expected)


def test_the_names_are_those_of_the_specification_in_its_order() -> None:
    assert set(METRICS) >= ORACLE_METRICS | ERRORS
    assert tuple(binary_metrics(np.array([0, 1]), np.array([0.0, 1.0]))) == METRICS
    assert set(METRIC_TITLES) == set(METRICS)


def test_without_a_calibration_what_needs_it_is_undefined() -> None:
    measured = binary_metrics(np.array([0, 1]), np.array([-1.0, 1.0], np.float32))
    undefined = {"ece_calibrated", "acc_validation_threshold", "acc_validation_fpr1", "acc_validation_fpr5"}
    assert {name for name, value in measured.items() if value is None} == undefined


def test_a_threshold_that_validation_could_not_give_leaves_its_accuracy_undefined() -> None:
    few = Calibration(n_real=4, n_fake=4, temperature=None, thresholds=CALIBRATION.thresholds[1:])
    measured = binary_metrics(np.array([0, 1]), np.array([-1.0, 2.0], np.float32), few)
    assert measured["acc_validation_fpr5"] == 1.0
    assert measured["acc_validation_fpr1"] is None
    assert measured["ece_calibrated"] is None


def test_a_logit_of_exactly_zero_is_real() -> None:
    """Its score is .5, and a decision is fake strictly above the threshold."""
    assert THRESHOLD == 0.5
    logits = np.array([0.0, -0.0, 1e-3, -1e-3], np.float32)
    assert is_fake(logits).tolist() == [False, False, True, False]
    measured = binary_metrics(np.array([0, 1]), np.array([0.0, 0.0], np.float32))
    assert (measured["real_acc"], measured["fake_acc"]) == (1.0, 0.0)


def test_decisions_are_those_of_the_sigmoid_for_many_logits() -> None:
    logits = np.random.default_rng(0).normal(0, 3, 1000).astype(np.float32)
    assert is_fake(logits).tolist() == [logit > 0 for logit in logits]


@pytest.mark.parametrize(
    ("label", "defined"),
    [
        (0, {"acc": 0.75, "real_acc": 0.75, "acc_best_threshold": 1.0}),
        (1, {"acc": 0.25, "fake_acc": 0.25, "f1": 0.4, "acc_best_threshold": 1.0}),
    ],
)
def test_one_class_alone_leaves_what_needs_the_other_undefined(label: int, defined: dict[Metric, float]) -> None:
    measured = binary_metrics(np.full(4, label), np.array([-2.0, -1.0, -0.5, 1.0], np.float32))
    assert measured.pop("ece") is not None
    defined = {name: defined.get(name) for name in measured}
    assert measured == pytest.approx(defined)


def test_no_images_leave_everything_undefined() -> None:
    empty = binary_metrics(np.zeros(0, np.int64), np.zeros(0, np.float32))
    assert empty == dict.fromkeys(METRICS)


def test_extreme_logits_overflow_nothing_and_warn_of_nothing() -> None:
    labels = np.array([0, 1, 0, 1])
    logits = np.array([-1e4, 1e4, 1e4, -1e4], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert is_fake(logits).tolist() == [False, True, True, False]
        measured = binary_metrics(labels, logits)
    assert measured["acc"] == 0.5
    assert measured["auc"] == 0.5


def test_ranks_are_those_of_logits_whose_scores_all_round_to_one() -> None:
    """The sigmoid of 40 and of 100 is 1.0; ranked by score they would tie, and AUC would be .5."""
    labels, logits = np.array([0, 1]), np.array([40.0, 100.0], np.float32)
    measured = binary_metrics(labels, logits)
    assert (measured["auc"], measured["ap"]) == (1.0, 1.0)


def test_the_order_of_images_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 2, 50), rng.integers(-3, 4, 50).astype(np.float32)
    order = rng.permutation(50)
    assert binary_metrics(labels[order], logits[order]) == pytest.approx(binary_metrics(labels, logits))
