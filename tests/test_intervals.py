from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from rine_cache.bootstrap import Chosen, bootstrap
from rine_cache.intervals import Size, Support, interval, measure_support
from rine_cache.metrics import METRICS
from rine_cache.resampling import Resampling


def whole(images: int, units: int | None = None) -> Support:
    half = Size(images / 2, (units or images) / 2, (units or images) // 2, 1)
    return Support(half, half, Size(images, units or images, units or images, 2), half.units)


def binomial(share: float, images: int) -> np.ndarray:
    return np.random.default_rng(0).binomial(images, share, (1, 2000)) / images


def test_an_accuracy_has_wilsons_interval() -> None:
    """Of 81 in 263, from Newcombe, Statistics in Medicine 1998: .2553 to .3662."""
    low, high = interval("acc", np.array([81 / 263]), binomial(81 / 263, 263), whole(263))
    assert (low[0], high[0]) == pytest.approx((0.2553, 0.3662), abs=0.003)


@pytest.mark.parametrize(("value", "expected"), [(1.0, (0.9630, 1.0)), (0.0, (0.0, 0.0370))])
def test_where_all_or_none_is_right_the_interval_has_wilsons_width(value: float, expected: tuple[float, float]) -> None:
    """z²/(n + z²) of n = 100 is .0370; Student's t makes it a little more."""
    for metric in ("acc", "balanced_acc", "f1"):
        low, high = interval(metric, np.array([value]), np.full((1, 100), value), whole(100))
        assert (low[0], high[0]) == pytest.approx(expected, abs=0.002)
    low, high = interval("auc", np.array([value]), np.full((1, 100), value), whole(100))
    assert high[0] - low[0] == pytest.approx(2 * 0.037, abs=0.006)  # 50 of the smaller class


def test_groups_without_errors_count_as_groups() -> None:
    of_images = interval("acc", np.ones(1), np.ones((1, 100)), whole(1000))[0]
    of_groups = interval("acc", np.ones(1), np.ones((1, 100)), whole(1000, units=40))[0]
    assert of_groups[0] < 0.93 < 0.99 < of_images[0]


def test_one_wrong_image_does_not_make_images_of_groups() -> None:
    """That it stands alone in its group does not show that groups do not fall as wholes."""
    wrong = np.random.default_rng(0).binomial(1, 1 / 20, (1, 2000)) / 200  # one image in one of 20 groups of ten
    support = whole(200, units=20)
    none_wrong = interval("acc", np.ones(1), np.ones((1, 100)), support)[0]
    one_wrong, upper = interval("acc", np.array([199 / 200]), 1 - wrong, support)
    as_if_alone = interval("acc", np.array([199 / 200]), 1 - wrong, whole(200))[0]
    assert none_wrong[0] < one_wrong[0] < 0.935 < 0.965 < as_if_alone[0]
    assert upper[0] >= 199 / 200


def test_what_was_not_seen_matters_less_the_more_was() -> None:
    """Groups that differ as images alone would: 2,000 images in 200 groups, a tenth of them wrong."""
    grouped = interval("acc", np.array([0.9]), binomial(0.9, 2000), whole(2000, units=200))
    alone = interval("acc", np.array([0.9]), binomial(0.9, 2000), whole(2000))
    assert 1 <= (grouped[1] - grouped[0]) / (alone[1] - alone[0]) < 1.03


@pytest.mark.parametrize(("metric", "needed"), [("tpr_fpr1", 368), ("tpr_fpr5", 72)])
def test_too_few_reals_for_a_threshold_bound_its_number_from_above_alone(metric: str, needed: int) -> None:
    """The highest of n reals is too low for a rate with the probability (1 - rate)^n: here just under 2.5 %."""
    assert (1 - int(metric[-1]) / 100) ** needed < 0.025 < (1 - int(metric[-1]) / 100) ** (needed - 1)
    replicates = 0.7 + np.linspace(-0.1, 0.1, 100)[None]
    for reals, known in ((needed - 1, False), (needed, True)):
        low, high = interval(metric, np.array([0.7]), replicates, whole(4000)._replace(fewest_reals=float(reals)))
        assert (low[0] > 0.5) if known else (low[0] == 0)
        assert 0.75 < high[0] < 0.85


def test_every_test_set_of_a_mean_needs_its_reals() -> None:
    rows = np.arange(1000)
    many, few, fakes = rows[:500], rows[500:550], rows[550:]
    support = measure_support(rows, np.zeros(1000, np.int64), [(many, fakes), (few, fakes)])
    assert support.fewest_reals == pytest.approx(50)
    grouped = measure_support(rows // 10, np.zeros(100, np.int64), [(many, fakes)])
    assert grouped.fewest_reals == pytest.approx(50)


def test_a_detector_that_calls_everything_real_has_an_interval_with_width() -> None:
    low, high = interval("acc", np.array([0.5]), np.full((1, 100), 0.5), whole(200))
    assert 0.47 < low[0] < 0.5 < high[0] < 0.53


def test_what_is_undefined_has_no_interval() -> None:
    replicates = np.full((3, 100), 0.7) + np.linspace(-0.1, 0.1, 100)
    replicates[1, :20] = np.nan
    replicates[2, :5] = np.nan
    for metric in METRICS:
        low, high = interval(metric, np.array([np.nan, 0.7, 0.7]), replicates, whole(100))
        assert np.isnan(low).tolist() == [True, True, False]
        assert np.isnan(high).tolist() == [True, True, False]


@pytest.mark.parametrize("metric", METRICS)
def test_an_interval_holds_its_value_and_stays_within_0_and_1(metric: str) -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 1, 300) ** rng.choice([0.02, 1, 30], 300)
    replicates = np.clip(values[:, None] + rng.choice([0.001, 0.1], (300, 1)) * rng.standard_t(3, (300, 50)), 0, 1)
    low, high = interval(metric, values, replicates, whole(60)._replace(fewest_reals=1000))
    assert ((low >= 0) & (low <= values) & (values <= high) & (high <= 1)).all()
    assert (high > low).all()


def test_what_stands_behind_a_mean_of_test_sets_that_share_reals() -> None:
    """Reals weigh 1/2 of 1/2 each in both: together as much as the fakes of either, which are half as many each."""
    units = np.arange(30)
    reals, first, second = np.arange(10), np.arange(10, 20), np.arange(20, 30)
    strata = np.repeat([0, 1, 2], 10)
    support = measure_support(units, strata, [(reals, first), (reals, second)])
    assert support.real == Size(pytest.approx(10), pytest.approx(10), 10, 1)
    assert support.fake == Size(pytest.approx(20), pytest.approx(20), 20, 2)
    # 10 weights of 2/40 and 20 of 1/40: (sum)^2 / sum of squares.
    assert support.both.images == pytest.approx(1 / (10 * (2 / 40) ** 2 + 20 * (1 / 40) ** 2))
    assert support.both[2:] == (30, 3)


def test_what_stands_behind_groups_of_unequal_size() -> None:
    units = np.array([0, 0, 0, 1, 2, 3])
    support = measure_support(units, np.zeros(4, np.int64), [(np.arange(4), np.arange(4, 6))])
    assert support.real == Size(pytest.approx(4), pytest.approx(16 / 10), 2, 1)
    assert support.of("real_acc") == support.real
    assert support.of("auc").units == pytest.approx(16 / 10)


# Of 600 samples the share of intervals that hold the truth is 95 % give or take .9: within 3 of its errors.
SAMPLES = 600


@pytest.mark.parametrize(
    ("distance", "images", "group"),
    [(1.0, 200, 1), (2.0, 200, 1), (3.29, 400, 1), (1.5, 800, 8), (3.0, 400, 10)],
    ids=str,
)
def test_intervals_hold_the_truth_in_95_of_100_samples(distance: float, images: int, group: int) -> None:
    rng = np.random.default_rng(round(10 * distance) + images)
    owner = np.arange(images) // group
    labels = owner % 2
    noise = np.sqrt(0.5) * rng.normal(size=(SAMPLES, owner[-1] + 1))[:, owner]
    noise += np.sqrt(0.5) * rng.normal(size=(SAMPLES, images))
    logits = distance * (labels - 0.5) + noise
    classes = np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)
    names = [f"{n:05d}" for n in range(images)]
    resampling = Resampling(names, [names[own] for own in owner], classes)
    support = measure_support(resampling.unit_of, resampling.stratum_of, [classes])

    def run(weights: object, replicates: int) -> np.ndarray:
        return bootstrap(labels, logits, Chosen.nothing(SAMPLES), weights, replicates)

    values = run(lambda first, count: np.ones((images, count), np.uint8), 1)[..., 0]  # (M, S)
    replicates = run(lambda first, count: resampling.weights(np.arange(images), first, count), 400)  # (M, S, R)
    truths = {"acc": norm.cdf(distance / 2), "real_acc": norm.cdf(distance / 2), "auc": norm.cdf(distance / 2**0.5)}
    for metric, true in truths.items():
        place = METRICS.index(metric)
        low, high = interval(metric, values[place], replicates[place], support)
        held = np.mean((low <= true) & (true <= high))
        assert 0.923 <= held <= 0.977, metric
        if group > 1:  # as if images stood alone, which is far too narrow
            width = np.mean(high - low) / (2 * norm.ppf(0.975) * np.sqrt(true * (1 - true) / images))
            assert metric != "acc" or width > 1.5


def test_errors_of_the_larger_class_alone_do_not_pull_the_balanced_accuracy_to_chance() -> None:
    """A detector that is right on all of 90 fakes and on 95 % of 900 reals."""
    rng = np.random.default_rng(0)
    reals = rng.binomial(900, 0.95, SAMPLES) / 900  # (S,)
    drawn = rng.binomial(900, np.repeat(reals[:, None], 300, axis=1)) / 900  # (S, R)
    units = np.arange(990)
    support = measure_support(units, (units >= 900).astype(np.int64), [(units[:900], units[900:])])
    low, high = interval("balanced_acc", (1 + reals) / 2, (1 + drawn) / 2, support)
    assert 0.923 <= np.mean((low <= 0.975) & (high >= 0.975)) <= 0.977


def test_a_mean_over_test_sets_that_share_reals_holds_the_truth() -> None:
    """Resampled apart in each test set, the shared reals' error would be averaged away."""
    rng = np.random.default_rng(5)
    labels = np.repeat([0, 1], [80, 400])
    logits = rng.normal(2.0 * labels - 1.0, 1, (SAMPLES, 480))
    test_sets = [(np.arange(80), np.arange(80 + 100 * n, 180 + 100 * n)) for n in range(4)]
    names = [f"{n:05d}" for n in range(480)]
    resampling = Resampling(names, names, [cell for test_set in test_sets for cell in test_set])
    support = measure_support(resampling.unit_of, resampling.stratum_of, test_sets)
    values, replicates = [], []
    once = lambda first, count: np.ones((180, count), np.uint8)  # noqa: E731
    for images in map(np.concatenate, test_sets):
        own = labels[images], logits[:, images], Chosen.nothing(SAMPLES)
        values.append(bootstrap(*own, once, 1)[..., 0])
        draw = lambda first, count, images=images: resampling.weights(images, first, count)  # noqa: E731
        replicates.append(bootstrap(*own, draw, 400))
    place, true = METRICS.index("auc"), norm.cdf(2**0.5)
    value = np.mean(values, axis=0)[place]
    low, high = interval("auc", value, np.mean(replicates, axis=0)[place], support)
    assert 0.923 <= np.mean((low <= true) & (true <= high)) <= 0.977
    apart = np.sqrt(np.mean([drawn[place].var(axis=-1) for drawn in replicates], axis=0) / 4)
    wrong = np.abs(value - true) <= norm.ppf(0.975) * apart
    assert wrong.mean() < 0.85
