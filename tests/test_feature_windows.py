"""Training's order of images, and what is read for it, against reading one batch at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import rine_cache.feature_windows as feature_windows
from rine_cache.feature_windows import FeatureWindows, training_order
from rine_cache.features import FeatureSet, open_part
from rine_cache.specs.encoding import TrainViewSpec
from tests.conftest import SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import MadeCache

BLOCKS = [2, 0]
AMPLE = 2**30


@pytest.fixture
def features(make_cache: Callable[..., MadeCache]) -> FeatureSet:
    """Images of two data sets, one of one draw and one of two."""
    view = TrainViewSpec(kind="train", size=SIZE, draws=2)
    made = [make_cache("a", per_class=9), make_cache("b", per_class=5, seed=1, view=view)]
    return FeatureSet([open_part(*part[:2]) for part in made])


@pytest.fixture(autouse=True)
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_windows, "RUN_ROWS", 4)


def image_bytes(features: FeatureSet) -> int:
    identity = features.identity
    return 2 * (identity.block_count * identity.token_width + (identity.embedding_width or 0))


def windows(features: FeatureSet, budget: int, blocks: list[int] = BLOCKS) -> FeatureWindows:
    return FeatureWindows(features, blocks, with_embedding=True, memory_budget=budget, device="cpu")


def budget_for(features: FeatureSet, rows: int) -> int:
    """Return a budget that windows of so many rows exhaust."""
    return 2 * rows * image_bytes(features)


@pytest.mark.parametrize("rows", [4, 8, 20, None])
@pytest.mark.parametrize("batch_size", [1, 5, 8, 13, 100])
def test_batches_hold_what_is_read_one_at_a_time(features: FeatureSet, rows: int | None, batch_size: int) -> None:
    reader = windows(features, budget_for(features, rows) if rows else AMPLE)
    assert reader.window_rows == (rows or len(features))
    for epoch in (1, 2, 3):
        seen = []
        sizes = []
        for batch in reader.batches(7, epoch, batch_size):
            expected = features.tokens(batch.indices, BLOCKS, epoch - 1).transpose(0, 1)  # (K', B, D)
            assert batch.tokens.dtype == torch.float32
            torch.testing.assert_close(batch.tokens, expected, rtol=0, atol=0)
            torch.testing.assert_close(batch.embedding, features.embedding(batch.indices, epoch - 1), rtol=0, atol=0)
            seen += batch.indices.tolist()
            sizes.append(len(batch.indices))
        order = np.concatenate(training_order(len(features), reader.window_rows, 7, epoch))
        assert seen == order.tolist()
        assert sorted(seen) == list(range(len(features)))
        assert set(sizes[:-1]) <= {batch_size}


def test_what_fits_is_one_permutation() -> None:
    (order,) = training_order(100, 100, 3, 2)
    np.testing.assert_array_equal(order, np.random.default_rng([3, 2]).permutation(100))


@pytest.mark.parametrize("images", [1, 5, 63, 64, 65])
@pytest.mark.parametrize("window_rows", [4, 12, 40])
def test_windows_are_whole_runs_and_hold_every_image_once(images: int, window_rows: int) -> None:
    orders = training_order(images, window_rows, 0, 1)
    assert sorted(np.concatenate(orders).tolist()) == list(range(images))
    for order in orders:
        assert len(order) <= max(window_rows, images if window_rows >= images else 0)
        if len(orders) > 1:
            for run in {index // 4 for index in order.tolist()}:
                members = set(range(4 * run, min(4 * run + 4, images)))
                assert members <= set(order.tolist()), "a run stays together"


def test_the_order_follows_seed_epoch_and_budget_and_not_the_blocks(features: FeatureSet) -> None:
    def order(budget: int, blocks: list[int], seed: int, epoch: int) -> list[int]:
        batches = windows(features, budget, blocks).batches(seed, epoch, 6)
        return [index for batch in batches for index in batch.indices.tolist()]

    small = budget_for(features, 8)
    first = order(small, BLOCKS, 0, 1)
    assert order(small, [1], 0, 1) == first
    assert order(small, [0, 1, 2], 0, 1) == first
    others = [order(AMPLE, BLOCKS, 0, 1), order(small, BLOCKS, 1, 1), order(small, BLOCKS, 0, 2)]
    assert first not in others


@pytest.mark.parametrize("runs", [2, 3, 5])
def test_no_more_is_held_than_the_budget(features: FeatureSet, runs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted where features are read: the window in use, and the one that is read meanwhile."""
    budget = runs * 4 * image_bytes(features) + 1
    reader = windows(features, budget, list(range(features.identity.block_count)))
    largest: list[int] = []
    read = FeatureWindows._read

    def counted(self: FeatureWindows, order: np.ndarray, draw: int) -> feature_windows._Window:
        window = read(self, order, draw)
        assert window.embedding is not None
        largest.append(window.tokens.nbytes + window.embedding.nbytes)
        return window

    monkeypatch.setattr(FeatureWindows, "_read", counted)
    for _ in reader.batches(0, 1, 5):
        pass
    assert len(largest) > 1
    assert 2 * max(largest) <= max(budget, 2 * 4 * image_bytes(features))


def test_all_images_are_read_once_for_all_epochs_of_a_draw(
    features: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    read = FeatureWindows._read
    monkeypatch.setattr(
        FeatureWindows, "_read", lambda self, order, draw: (reads.append(draw), read(self, order, draw))[1]
    )
    reader = windows(features, AMPLE)
    for epoch, seed in ((1, 0), (1, 1), (3, 0), (2, 0), (4, 0)):
        for _ in reader.batches(seed, epoch, 8):
            pass
    assert reads == [0, 1], "epochs 1 and 3 see one draw, 2 and 4 the other"


def test_trouble_while_the_next_window_is_read_reaches_the_trainer(
    features: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = FeatureSet.stored_tokens
    calls: list[int] = []

    def failing(self: FeatureSet, *arguments: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise OSError("the disk has gone")
        return read(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(FeatureSet, "stored_tokens", failing)
    with pytest.raises(OSError, match="the disk has gone"):
        for _ in windows(features, budget_for(features, 8)).batches(0, 1, 3):
            pass
