from __future__ import annotations

from math import log

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_curve

from rine_cache.calibration import KEPT_LOGITS, Calibration, calibrate


def drawn(real: int = 400, fake: int = 300, scale: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels and overlapping logits, float32."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [real, fake])
    return labels, (scale * rng.normal(2.0 * labels - 1.2, 1.5)).astype(np.float32)


@pytest.mark.parametrize("scale", [0.01, 1.0, 300.0])
def test_the_temperature_minimises_cross_entropy_whatever_the_logits_scale(scale: float) -> None:
    labels, logits = drawn(scale=scale)
    found = calibrate(labels, logits)
    assert found.temperature is not None
    assert found.reason == ""

    def loss(log_temperature: float) -> float:
        return float(log_loss(labels, expit(logits.astype(np.float64) / np.exp(log_temperature))))

    best = minimize_scalar(loss, bounds=(np.log(scale) - 4, np.log(scale) + 4), options={"xatol": 1e-10})
    assert found.temperature == pytest.approx(np.exp(best.x), rel=1e-4)
    grid = np.log(found.temperature) + np.linspace(-3, 3, 301)
    assert min(map(loss, grid)) == pytest.approx(loss(np.log(found.temperature)), abs=1e-12)


def test_the_temperature_is_the_slope_of_a_logistic_regression_without_intercept() -> None:
    labels, logits = drawn(seed=3)
    plain = LogisticRegression(C=1e10, fit_intercept=False, tol=1e-10).fit(logits[:, None].astype(np.float64), labels)
    assert calibrate(labels, logits).temperature == pytest.approx(1 / plain.coef_[0, 0], rel=1e-5)


def test_logits_that_are_log_odds_need_no_temperature() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, 40_000)
    found = calibrate((rng.random(40_000) < expit(logits)).astype(np.int64), logits)
    assert found.temperature == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(("real", "fake"), [(1, 1), (3, 2), (24, 24)])
def test_without_an_error_the_temperature_is_bounded_by_how_many_images_there_were(real: int, fake: int) -> None:
    labels = np.repeat([0, 1], [real, fake])
    found = calibrate(labels, np.where(labels == 1, 6.0, -6.0))
    count = real + fake
    assert found.temperature == pytest.approx(6 / log(count + 1))
    assert found.probability(6.0) == pytest.approx((count + 1) / (count + 2))  # Laplace's rule of succession
    assert "no error" in found.reason


def test_one_error_by_a_hair_leaves_it_bounded_too() -> None:
    labels, logits = np.repeat([0, 1], 20), np.repeat([-3.0, 3.0], 20)
    logits[0] = 1e-30
    found = calibrate(labels, logits)
    assert found.temperature is not None
    assert 0.01 < found.temperature < 3


@pytest.mark.parametrize(
    ("labels", "logits", "reason"),
    [
        ([0, 0], [1.0, 2.0], "one class"),
        ([1, 1], [1.0, 2.0], "one class"),
        ([0, 1], [0.0, 0.0], "are 0"),
        ([0, 1], [2.0, -2.0], "say nothing"),
        ([0, 1, 0, 1], [1.0, 1.0, -1.0, -1.0], "say nothing"),
    ],
)
def test_where_there_is_no_temperature_it_is_null_with_a_reason(
    labels: list[int], logits: list[float], reason: str
) -> None:
    found = calibrate(np.array(labels), np.array(logits))
    assert found.temperature is None
    assert reason in found.reason
    assert found.probability(1.0) is None


@pytest.mark.parametrize("rounded", [False, True])
def test_thresholds_are_those_of_the_roc_curve(*, rounded: bool) -> None:
    """The most fakes found, of all thresholds that few enough reals pass, ties among the logits included."""
    labels, logits = drawn(real=530, fake=210, seed=1)
    logits = np.round(logits) if rounded else logits
    false_positives, true_positives, _ = roc_curve(labels, logits, drop_intermediate=False)
    for chosen in calibrate(labels, logits).thresholds:
        allowed = false_positives <= chosen.false_positive_percent / 100
        assert chosen.real_above == pytest.approx(false_positives[allowed].max())
        assert chosen.fake_above == pytest.approx(true_positives[allowed].max())
        decided = logits > np.float64(chosen.logit or 0)
        assert decided[labels == 0].mean() == chosen.real_above
        assert decided[labels == 1].mean() == chosen.fake_above


def test_thresholds_are_those_of_trying_every_logit() -> None:
    labels, logits = drawn(real=203, fake=50, seed=2)
    real = logits[labels == 0]
    for chosen in calibrate(labels, logits).thresholds:
        fine = [cut for cut in real if np.count_nonzero(real > cut) * 100 <= chosen.false_positive_percent * len(real)]
        assert chosen.logit == min(fine)


@pytest.mark.parametrize(("real", "known"), [(19, []), (20, [5]), (99, [5]), (100, [1, 5])])
def test_a_rate_that_no_single_image_is_has_no_threshold(real: int, known: list[int]) -> None:
    labels, logits = drawn(real=real, fake=30)
    found = calibrate(labels, logits)
    assert [chosen.false_positive_percent for chosen in found.thresholds if chosen.logit is not None] == known
    for chosen in found.thresholds:
        if chosen.logit is None:
            assert chosen.reason.startswith(f"{real} real validation images; {100 // chosen.false_positive_percent} ")
        else:
            assert chosen.real_above is not None
            assert 0 < chosen.real_above <= chosen.false_positive_percent / 100


def test_it_survives_being_written_as_json_bit_for_bit() -> None:
    found = calibrate(*drawn())
    assert Calibration.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(("count", "tolerance"), [(1, 0.0), (7, 0.0), (101, 0.0), (102, 0.011), (5000, 0.011)])
def test_the_share_of_validation_images_above_a_logit(count: int, tolerance: float) -> None:
    rng = np.random.default_rng(count)
    real, fake = rng.normal(-1, 1, count), rng.normal(1, 2, 40).round(1)
    labels = np.repeat([0, 1], [count, 40])
    found = Calibration.model_validate_json(calibrate(labels, np.concatenate([real, fake])).model_dump_json())
    assert len(found.real_logits) == min(count, KEPT_LOGITS)
    for logit in (*rng.normal(0, 2, 50), -99.0, 99.0):
        assert found.share_above(0, logit) == pytest.approx((real > logit).mean(), abs=tolerance + 1e-12)
        assert found.share_above(1, logit) == pytest.approx((fake > logit).mean())


def test_no_share_is_told_where_no_logits_were_kept() -> None:
    found = calibrate(np.zeros(5, np.int64), np.zeros(5))
    assert found.share_above(1, 0.0) is None
    old = Calibration.model_validate(found.model_dump(exclude={"real_logits", "fake_logits"}))
    assert old.share_above(0, 0.0) is None
