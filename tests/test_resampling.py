from __future__ import annotations

import numpy as np
import pytest

from rine_cache.resampling import FEW_UNITS, Resampling


def images(count: int, prefix: str = "d") -> list[str]:
    return [f"{prefix}/{number:05d}" for number in range(count)]


def everything(resampling: Resampling, replicates: int = 50) -> np.ndarray:
    return resampling.weights(np.arange(len(resampling.unit_of)), 0, replicates)


def test_each_class_of_each_test_set_keeps_its_number_of_images() -> None:
    names = images(300)
    cells = [np.arange(100), np.arange(100, 200), np.arange(100), np.arange(200, 300)]
    weights = everything(Resampling(names, names, cells))
    for cell in cells:
        assert (weights[cell].sum(axis=0) == 100).all()


def test_images_are_drawn_as_often_as_chance_has_it() -> None:
    names = images(200)
    weights = everything(Resampling(names, names, [np.arange(200)]), 4000)
    assert weights.mean() == 1.0
    # A count is binomial: of mean 1, variance 1 - 1/200, and 0 with chance (1 - 1/200)^200.
    assert abs(weights.var(axis=1).mean() - 0.995) < 0.01
    assert abs((weights == 0).mean() - (1 - 1 / 200) ** 200) < 0.003
    assert np.abs(weights.mean(axis=1) - 1).max() < 5 / np.sqrt(4000)
    covariance = np.cov(weights[:100].astype(float)) - np.diag(np.full(100, 0.995))
    assert abs(covariance[~np.eye(100, dtype=bool)].mean() + 1 / 200) < 0.001


def test_real_images_that_test_sets_share_are_drawn_once_for_both() -> None:
    names = images(120)
    shared, first, second = np.arange(40), np.arange(40, 80), np.arange(80, 120)
    resampling = Resampling(names, names, [shared, first, shared, second])
    assert resampling.stratum_count == 3
    np.testing.assert_array_equal(
        resampling.weights(np.concatenate([shared, first]), 0, 20)[:40],
        resampling.weights(np.concatenate([shared, second]), 0, 20)[:40],
    )


def test_a_pool_is_drawn_the_same_whatever_stands_beside_it() -> None:
    """So that a test set has one interval, in whichever protocol it stands."""
    names = images(120)
    cells = [np.arange(40), np.arange(40, 80), np.arange(40), np.arange(80, 120)]
    alone = Resampling(names[:80], names[:80], cells[:2])
    beside = Resampling(names, names, cells)
    np.testing.assert_array_equal(everything(alone), everything(beside)[:80])
    assert alone.digest(cells[:2]) == beside.digest(cells[:2]) != beside.digest(cells[2:])


def test_the_images_of_a_group_come_and_go_together() -> None:
    names = images(120)
    units = [f"g{number // 3:03d}" for number in range(120)]
    resampling = Resampling(names, units, [np.arange(0, 120, 2), np.arange(1, 120, 2)])
    weights = everything(resampling)
    assert resampling.grouped
    assert resampling.unit_count == 40
    assert (weights.reshape(40, 3, -1) == weights.reshape(40, 3, -1)[:, :1]).all()


def test_the_order_of_images_and_the_chunks_change_nothing() -> None:
    names = images(90)
    order = np.random.default_rng(0).permutation(90)
    cells = [np.arange(45), np.arange(45, 90)]
    place = np.argsort(order)
    straight = Resampling(names, names, cells)
    moved = [place[cell] for cell in cells]
    shuffled = Resampling([names[i] for i in order], [names[i] for i in order], moved)
    assert straight.digest(cells) == shuffled.digest(moved)
    np.testing.assert_array_equal(everything(straight), shuffled.weights(place, 0, 50))
    np.testing.assert_array_equal(everything(straight)[:, 30:37], straight.weights(np.arange(90), 30, 7))


def test_the_draws_are_the_same_in_every_version() -> None:
    """Results that were computed apart are compared resample by resample, so that these may never change."""
    names = images(8)
    weights = everything(Resampling(names, names, [np.arange(8)]), 3)
    assert weights.T.tolist() == [[0, 1, 1, 2, 1, 0, 2, 1], [1, 0, 0, 1, 0, 1, 1, 4], [0, 0, 2, 0, 2, 1, 0, 3]]


@pytest.mark.parametrize("change", ["image", "unit", "cell", "stratum"])
def test_the_digest_tells_other_images_groups_cells_and_strata(change: str) -> None:
    names, units, others = images(60), images(60), []
    cells = [np.arange(30), np.arange(30, 60)]
    before = Resampling(names, units, cells).digest(cells)
    match change:
        case "image":
            names = [*names[:-1], "d/another"]
        case "unit":
            units = [*units[:-1], units[-2]]
        case "cell":
            cells = [np.arange(29), np.arange(30, 60)]
        case "stratum":
            others = [np.arange(15)]
    few = Resampling(names, units, [*cells, *others]).digest(cells)
    assert (few == before) == (change == "stratum")  # those 15 are too few for a stratum of their own
    others = [np.arange(FEW_UNITS)] if others else []
    names, units = [*names, *images(20, "e")], [*units, *images(20, "e")]
    more = [np.concatenate([cells[0], np.arange(60, 80)]), cells[1]]
    before = Resampling(images(60) + images(20, "e"), images(60) + images(20, "e"), more).digest(more)
    assert (Resampling(names, units, [*more, *others]).digest(more) != before) or change == "cell"


def strata(resampling: Resampling) -> list[int]:
    return sorted(np.bincount(resampling.stratum_of).tolist())


def test_strata_of_few_units_that_have_a_cell_in_common_become_one() -> None:
    """Prompts of which some generators lack an image: 12 combinations of two prompts each."""
    names = images(24)
    cells = [np.array([i, i + 1, *range(i + 2, 24, 3)]) for i in range(0, 24, 2)]
    assert strata(Resampling(names, names, cells)) == [24]


def test_a_few_units_join_the_large_stratum_that_they_share_most_cells_with() -> None:
    count = 3 * FEW_UNITS + 2
    names = images(count)
    first, second, third = (np.arange(n * FEW_UNITS, (n + 1) * FEW_UNITS) for n in range(3))
    two = np.array([count - 2, count - 1])
    cells = [np.concatenate([first, two]), np.concatenate([second, two]), np.concatenate([second, two]), third]
    resampling = Resampling(names, names, cells)
    assert strata(resampling) == [FEW_UNITS, FEW_UNITS, FEW_UNITS + 2]
    assert resampling.stratum_of[two[0]] == resampling.stratum_of[second[0]]


def test_a_lone_real_image_is_not_exchanged_for_a_fake() -> None:
    names = images(31)
    weights = everything(Resampling(names, names, [np.array([0]), np.arange(1, 31)]))
    assert (weights[0] == 1).all()
