from __future__ import annotations

import numpy as np
import pytest

from rine_cache.comparison import compare_with_best, corrected


def test_the_best_itself_ties_and_has_no_difference() -> None:
    rng = np.random.default_rng(0)
    values = np.array([0.9, 0.8, 0.7])
    replicates = values[:, None] + 0.001 * rng.normal(size=(3, 500))
    found = compare_with_best(values, np.full(3, 0.002), replicates, 0, free=100, counted=102)
    assert np.isnan(found.difference[0])
    assert np.isnan(found.p_value[0])
    assert found.tied.tolist() == [True, False, False]
    assert found.difference[1:] == pytest.approx([-0.1, -0.2])
    assert (found.low[1:] < found.difference[1:]).all()
    assert (found.high[1:] < 0).all()


def test_what_both_methods_get_from_a_draw_cancels() -> None:
    """Two methods whose own errors are 10 points differ by 1 point, certainly."""
    shared = np.random.default_rng(1).normal(0, 0.1, 1000)
    own = np.random.default_rng(2).normal(0, 0.001, (2, 1000))
    values = np.array([0.70, 0.69])
    found = compare_with_best(values, np.full(2, 0.1965), values[:, None] + shared + own, 0, free=500, counted=502)
    assert not found.tied[1]
    assert found.high[1] - found.low[1] == pytest.approx(2 * 1.965 * 0.001 * 2**0.5, rel=0.1)


def test_what_the_methods_own_intervals_reckon_with_is_reckoned_with() -> None:
    """Half-widths twice as long as replicates say, as where few images are wrong, double the difference's."""
    own = np.random.default_rng(2).normal(0, 0.01, (2, 1000))
    values = np.array([0.99, 0.98])
    short, long = (
        compare_with_best(values, np.full(2, half), values[:, None] + own, 0, free=500, counted=502)
        for half in (0.01965, 0.0393)
    )
    assert (long.high[1] - long.low[1]) / (short.high[1] - short.low[1]) == pytest.approx(2, rel=0.01)
    assert long.p_value[1] > short.p_value[1]


@pytest.mark.parametrize("other", [0.0, 1.0])
def test_methods_whose_replicates_do_not_vary_are_as_uncertain_as_their_intervals(other: float) -> None:
    """One is right on both of two images, the other on neither or both as well: two images tell nothing."""
    values = np.array([1.0, other])
    found = compare_with_best(values, np.full(2, 0.4), np.tile(values[:, None], (1, 50)), 0, free=2, counted=4)
    reach = 0.4 * 2**0.5
    assert found.low[1] == pytest.approx(max(other - 1 - reach, -1))
    assert found.high[1] == pytest.approx(other - 1 + reach)
    assert found.p_value[1] == pytest.approx(1.0 if other == 1.0 else 0.0164, abs=0.001)


def test_methods_that_agree_on_every_image_tie() -> None:
    replicates = np.tile(np.random.default_rng(0).uniform(size=50), (3, 1))
    found = compare_with_best(np.full(3, 0.5), np.full(3, 0.3), replicates, 1, free=10, counted=12)
    assert found.tied.all()
    assert found.p_value[[0, 2]].tolist() == [1.0, 1.0]
    assert (found.low[[0, 2]] == 0).all()


def test_the_correction_worked_out_by_hand() -> None:
    """Four methods: 6 pairs, then 3 among three, then 1; never below a smaller one's."""
    assert corrected(np.array([0.03, 0.001, 0.02])) == pytest.approx([0.06, 0.006, 0.06])
    assert corrected(np.array([0.5, 0.9])) == pytest.approx([1.0, 1.0])
    assert corrected(np.zeros(0)).tolist() == []


@pytest.mark.parametrize("methods", [2, 3, 10, 30])
def test_equal_methods_are_told_apart_in_one_family_of_twenty_at_most(methods: int) -> None:
    """The best is the one that came out best, which makes every other look worse than it is."""
    rng = np.random.default_rng(methods)
    images, families = 200, 400
    # The bootstrap's replicates of a mean, to second order: normal, with the images' covariance.
    drawn = rng.normal(size=(images, 100)) / images
    drawn -= drawn.mean(axis=0)
    told = 0
    for _ in range(families):
        hard = rng.normal(size=images)
        right = (hard + rng.normal(size=(methods, images)) > -1).astype(float)  # (F, n)
        values = right.mean(axis=1)
        replicates = values[:, None] + right @ drawn
        halves = 1.97 * replicates.std(axis=1)
        found = compare_with_best(values, halves, replicates, int(values.argmax()), free=images - 1, counted=images)
        told += not found.tied.all()
    assert told / families <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / families)
    assert told  # and not never


def test_a_difference_is_found_as_often_as_its_size_allows() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(1000, 100)) / 1000
    told = 0
    for _ in range(200):
        right = rng.random((2, 1000)) < np.array([[0.9], [0.8]])
        values = right.mean(axis=1)
        replicates = values[:, None] + (right - values[:, None]) @ drawn
        halves = 1.96 * replicates.std(axis=1)
        best = int(values.argmax())
        told += not compare_with_best(values, halves, replicates, best, free=999, counted=1000).tied.all()
    assert told > 190  # the difference is 6 standard errors
