from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn import functional

from rine_cache.calibration import calibrate
from rine_cache.errors import TrainingError
from rine_cache.features import FeatureSet, open_part
from rine_cache.heads.head import load_head, load_heads
from rine_cache.heads.rine import RineHead
from rine_cache.specs.base import parse
from rine_cache.specs.encoding import TrainViewSpec
from rine_cache.specs.training import ExperimentSpec
from rine_cache.train import CURVES, train_experiment, train_head
from tests.conftest import SIZE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import MadeCache

METHODS: dict[str, Any] = {
    "RINE": {"head": {"kind": "rine", "width": 16, "layers": 1}},
    "linear": {"head": {"kind": "linear"}, "training": {"xi": 0}},
}


def experiment(**changes: Any) -> ExperimentSpec:
    data = {
        "encoder": "stand-in",
        "training_set": "mine",
        "seeds": [0, 1],
        "training": {"epochs": 6, "batch_size": 8, "learning_rate": 0.01, "learning_rate_drops": [4]},
        "methods": METHODS,
        **changes,
    }
    return parse(ExperimentSpec, data, "test")


@pytest.fixture
def data(make_cache: Callable[..., MadeCache]) -> tuple[FeatureSet, FeatureSet]:
    train = make_cache("train", per_class=12, view=TrainViewSpec(kind="train", size=SIZE, draws=2))
    validation = make_cache("validation", per_class=6, seed=1)
    return FeatureSet([open_part(*train[:2])]), FeatureSet([open_part(*validation[:2])])


def test_heads_learn_and_the_epoch_of_lowest_validation_loss_is_kept(
    data: tuple[FeatureSet, FeatureSet], tmp_path: Path
) -> None:
    train_experiment(experiment(), *data, tmp_path / "heads", "cpu")
    curves = pl.read_parquet(tmp_path / "heads" / CURVES)
    assert curves.height == 2 * 2 * 6
    for head in load_heads(tmp_path / "heads"):
        curve = curves.filter(method=head.card.method, seed=head.card.seed)
        losses = curve["validation_loss"].to_list()
        assert head.card.chosen_epoch == 1 + int(np.argmin(losses))
        assert head.card.validation["loss"] == min(losses)
        assert min(losses[1:]) < losses[0]
        # The stored parameters are those of the chosen epoch: they give its loss again.
        validation = data[1]
        rows = np.arange(len(validation))
        inputs = (
            validation.embedding(rows, 0)
            if head.card.head.kind == "linear"
            else validation.tokens(rows, head.card.blocks, 0)
        )
        logits = head.network(inputs).logit
        loss = functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(validation.labels).float())
        assert loss.item() == pytest.approx(min(losses), rel=1e-5)


def test_a_card_says_what_the_head_is_and_what_it_was_trained_on(
    data: tuple[FeatureSet, FeatureSet], tmp_path: Path
) -> None:
    train_experiment(experiment(), *data, tmp_path / "heads", "cpu")
    card = load_head(tmp_path / "heads" / "RINE" / "seed1.safetensors").card
    assert (card.method, card.seed, card.training_set) == ("RINE", 1, "mine")
    assert card.features == data[0].identity
    assert card.training == experiment().methods["RINE"].training
    assert card.training_fingerprint is not None
    assert len(card.training_fingerprint) == 64
    assert card.code_version


def test_training_equals_the_plain_loop(data: tuple[FeatureSet, FeatureSet]) -> None:
    """The linear head against gradient descent written out: Adam on summed cross-entropy, the same batches."""
    train, validation = data
    trained = train_head(experiment(), "linear", 0, train, validation, "cpu")
    torch.manual_seed(0)
    layer = torch.nn.Linear(5, 1)
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.01)
    losses = []
    for epoch in range(1, 7):
        optimiser.param_groups[0]["lr"] = 0.01 if epoch < 4 else 0.001
        order = np.random.default_rng([0, epoch]).permutation(len(train))
        total = 0.0
        for start in range(0, len(order), 8):
            rows = order[start : start + 8]
            logits = layer(train.embedding(rows, epoch - 1))[:, 0]
            loss = functional.binary_cross_entropy_with_logits(
                logits, torch.from_numpy(train.labels[rows]).float(), reduction="sum"
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item()
        losses.append(total / len(train))
    assert [row["train_loss"] for row in trained.curve] == pytest.approx(losses, rel=1e-6)
    assert [row["learning_rate"] for row in trained.curve] == pytest.approx([0.01] * 3 + [0.001] * 3)


def test_one_seed_gives_one_head_bit_for_bit_and_another_gives_another(
    data: tuple[FeatureSet, FeatureSet], tmp_path: Path
) -> None:
    for name in ("a", "b"):
        train_experiment(experiment(), *data, tmp_path / name, "cpu")
    for path in (tmp_path / "a").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
    seeds = [load_head(tmp_path / "a" / "RINE" / f"seed{seed}.safetensors").network.state_dict() for seed in (0, 1)]
    assert not torch.equal(seeds[0]["proj1.1.weight"], seeds[1]["proj1.1.weight"])


def test_the_order_of_training_heads_does_not_change_them(data: tuple[FeatureSet, FeatureSet]) -> None:
    alone = train_head(experiment(), "RINE", 1, *data, "cpu")
    train_head(experiment(), "RINE", 0, *data, "cpu")
    again = train_head(experiment(), "RINE", 1, *data, "cpu")
    assert alone.curve == again.curve


def test_the_global_random_state_is_left_alone(data: tuple[FeatureSet, FeatureSet]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_head(experiment(), "RINE", 0, *data, "cpu")
    assert torch.equal(torch.rand(3), expected)


def test_a_loss_that_is_not_finite_stops_with_method_seed_and_epoch(data: tuple[FeatureSet, FeatureSet]) -> None:
    wild = experiment(training={"learning_rate": 1e30, "epochs": 3, "batch_size": 8})
    with pytest.raises(TrainingError, match=r"RINE \(seed 0\) diverged in epoch \d"):
        train_head(wild, "RINE", 0, *data, "cpu")


def test_training_and_validation_may_share_no_image(data: tuple[FeatureSet, FeatureSet], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="36 images stand in both"):
        train_experiment(experiment(), data[0], data[0], tmp_path / "heads", "cpu")


def test_a_missing_class_is_refused(make_cache: Callable[..., MadeCache], tmp_path: Path) -> None:
    made = make_cache("train", per_class=3)
    fakes = FeatureSet([open_part(*made[:2], ("gen-a", "gen-b"))])
    whole = FeatureSet([open_part(*make_cache("other", per_class=3, seed=1)[:2])])
    with pytest.raises(TrainingError, match="no readable real images"):
        train_experiment(experiment(), fakes, whole, tmp_path / "heads", "cpu")


def test_a_folder_with_other_heads_is_refused_and_left_alone(
    data: tuple[FeatureSet, FeatureSet], tmp_path: Path
) -> None:
    train_experiment(experiment(seeds=[7]), *data, tmp_path / "heads", "cpu")
    with pytest.raises(TrainingError, match=r"seed7\.safetensors"):
        train_experiment(experiment(), *data, tmp_path / "heads", "cpu")
    assert len(load_heads(tmp_path / "heads")) == 2


def test_a_card_keeps_what_the_head_learnt_at_its_chosen_epoch(
    data: tuple[FeatureSet, FeatureSet], tmp_path: Path
) -> None:
    train_experiment(experiment(), *data, tmp_path / "heads", "cpu")
    validation = data[1]
    rows = np.arange(len(validation))
    for head in load_heads(tmp_path / "heads"):
        card = head.card
        inputs = validation.tokens(rows, card.blocks, 0) if card.blocks else validation.embedding(rows, 0)
        with torch.no_grad():
            found = calibrate(validation.labels, head.network(inputs).logit.numpy())
        assert card.calibration is not None
        assert card.calibration.temperature == pytest.approx(found.temperature, rel=1e-4)
        assert (card.calibration.n_real, card.calibration.n_fake) == (6, 12)
        if isinstance(head.network, RineHead):
            assert card.importance is not None
            assert card.importance.mean == pytest.approx(head.network.importance().mean(1).tolist(), abs=1e-6)
        else:
            assert card.importance is None
