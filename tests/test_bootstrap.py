from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from rine_cache.bootstrap import BLOCK, Chosen, bootstrap
from rine_cache.calibration import Calibration, ChosenThreshold
from rine_cache.metrics import METRICS, binary_metrics

CALIBRATION = Calibration(
    n_real=9,
    n_fake=9,
    temperature=1.7,
    most_accurate=0.3,
    thresholds=[
        ChosenThreshold(false_positive_percent=1, logit=1.0, real_above=0.01, fake_above=0.5),
        ChosenThreshold(false_positive_percent=5, logit=0.0, real_above=0.05, fake_above=0.7),
    ],
)


def drawn(images: int, replicates: int, seed: int) -> np.ndarray:
    """Draw from all images alike, so that a class may be missing."""
    rng = np.random.default_rng(seed)
    return np.stack([np.bincount(rng.integers(0, images, images), minlength=images) for _ in range(replicates)], axis=1)


def run(labels: np.ndarray, logits: np.ndarray, weights: np.ndarray, chosen: Chosen | None = None) -> np.ndarray:
    given = weights.astype(np.uint8)
    chosen = chosen or Chosen.nothing(len(logits))
    return bootstrap(labels, logits, chosen, lambda first, count: given[:, first : first + count], weights.shape[1])


def naive(labels: np.ndarray, logits: np.ndarray, weights: np.ndarray, calibration: Calibration | None) -> np.ndarray:
    """Copy each image as often as it was drawn, and measure that."""
    found = np.empty((len(METRICS), len(logits), weights.shape[1]))
    for head, own in enumerate(logits):
        for replicate, counts in enumerate(weights.T):
            copied = np.repeat(np.arange(len(labels)), counts)
            measured = binary_metrics(labels[copied], own[copied], calibration)
            for place, metric in enumerate(METRICS):
                value = measured[metric]
                found[place, head, replicate] = np.nan if value is None else value
    return found


@pytest.mark.parametrize("ties", [False, True], ids=["no ties", "many ties"])
@pytest.mark.parametrize("seed", range(4))
def test_every_metric_is_that_of_the_copied_images(seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([0, 1], [30 + 40 * seed, 45]))
    logits = rng.normal(labels - 0.5, 2, (3, len(labels)))
    logits = (np.round(logits) if ties else logits).astype(np.float32)
    weights = drawn(len(labels), 30, seed)
    found = run(labels, logits, weights, Chosen.of([CALIBRATION] * 3))
    np.testing.assert_allclose(found, naive(labels, logits, weights, CALIBRATION), rtol=0, atol=1e-12)


def test_replicates_without_a_class_are_undefined_where_the_metric_is() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    logits = np.array([[-2.0, 1.0, 0.0, 0.5, 3.0]], np.float32)
    weights = np.array([[2, 0, 0], [1, 0, 0], [2, 0, 0], [0, 4, 0], [0, 1, 0]])  # reals alone, fakes alone, nothing
    np.testing.assert_allclose(run(labels, logits, weights), naive(labels, logits, weights, None), atol=1e-12)


def test_with_every_image_drawn_once_the_numbers_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    logits = np.round(rng.normal(labels, 1, (4, 200)), 1).astype(np.float32)
    found = dict(zip(METRICS, run(labels, logits, np.ones((200, 1), np.int64))[..., 0], strict=True))
    for head, own in enumerate(logits):
        assert found["ap"][head] == pytest.approx(sklearn_metrics.average_precision_score(labels, own), abs=1e-12)
        assert found["auc"][head] == pytest.approx(sklearn_metrics.roc_auc_score(labels, own), abs=1e-12)
        assert found["acc"][head] == pytest.approx(sklearn_metrics.accuracy_score(labels, own > 0), abs=1e-12)


def test_weights_are_those_of_scikit_learns_sample_weight() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 120)
    logits = rng.integers(-3, 4, (1, 120)).astype(np.float32)
    weights = drawn(120, 5, 2)
    found = dict(zip(METRICS, run(labels, logits, weights)[:, 0], strict=True))
    for replicate, counts in enumerate(weights.T):
        by = {"sample_weight": counts}
        assert found["auc"][replicate] == pytest.approx(sklearn_metrics.roc_auc_score(labels, logits[0], **by))
        assert found["ap"][replicate] == pytest.approx(sklearn_metrics.average_precision_score(labels, logits[0], **by))


def test_heads_and_blocks_of_replicates_do_not_disturb_each_other() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 50)
    logits = rng.normal(size=(5, 50)).astype(np.float32)
    weights = drawn(50, 2 * BLOCK + 3, 4)
    together = run(labels, logits, weights)
    assert together.shape == (len(METRICS), 5, 2 * BLOCK + 3)
    for head in range(5):
        np.testing.assert_array_equal(run(labels, logits[[head]], weights)[:, 0], together[:, head])
    np.testing.assert_array_equal(run(labels, logits, weights[:, BLOCK + 1 :]), together[..., BLOCK + 1 :])


def test_no_images_and_no_heads_give_nothing() -> None:
    assert np.isnan(run(np.zeros(0, np.int64), np.zeros((2, 0), np.float32), np.zeros((0, 3), np.int64))).all()
    assert run(np.array([0, 1]), np.zeros((0, 2), np.float32), np.ones((2, 3), np.int64)).shape == (len(METRICS), 0, 3)


def test_what_validation_did_not_choose_is_undefined() -> None:
    labels, logits = np.array([0, 1]), np.array([[-1.0, 1.0], [1.0, -1.0]], np.float32)
    found = run(labels, logits, np.ones((2, 1), np.int64), Chosen.of([None, CALIBRATION]))
    place = METRICS.index("acc_validation_threshold")
    assert np.isnan(found[place, 0, 0])
    assert found[place, 1, 0] == 0.0
