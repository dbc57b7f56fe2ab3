from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn import functional

import rine_cache.feature_windows as feature_windows
from rine_cache.calibration import calibrate
from rine_cache.errors import TrainingError
from rine_cache.feature_windows import FeatureWindows, ReadImages
from rine_cache.features import FeatureSet, open_part
from rine_cache.heads.head import load_head, load_heads
from rine_cache.heads.rine import RineHead
from rine_cache.specs.base import parse
from rine_cache.specs.encoding import TrainViewSpec
from rine_cache.specs.training import ExperimentSpec
from rine_cache.train import CURVES, TrainedHead, train_experiment, train_heads
from tests.conftest import SIZE
from tests.plain_training import train_alone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from tests.conftest import MadeCache

pytestmark = pytest.mark.usefixtures("one_thread")

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


GRID: dict[str, Any] = {
    f"{name}-{suffix}": {"head": {"kind": "rine", "width": 12, "layers": 2, **head}, "training": training}
    for name, head in {
        "all": {},
        "some": {"blocks": [0, 2]},
        "first": {"blocks": "first:2"},
        "last": {"blocks": "last", "layers": 1},
        "mean": {"tie": False},
        "wide": {"width": 17, "layers": 3},
    }.items()
    for suffix, training in {
        "xi0.3": {"xi": 0.3},
        "xi0": {"xi": 0},
        "slow": {"xi": 0.5, "temperature": 0.2, "learning_rate": 0.002, "learning_rate_drops": [2, 3]},
        "short": {"xi": 0.3, "epochs": 2},
    }.items()
} | {
    "linear": {"head": {"kind": "linear"}, "training": {"xi": 0}},
    "linear-slow": {"head": {"kind": "linear"}, "training": {"xi": 0, "learning_rate": 0.003}},
    "small-batches": {"head": {"kind": "rine", "width": 12, "layers": 1}, "training": {"batch_size": 5}},
}


def by_key(trained: Iterable[TrainedHead]) -> dict[tuple[str, int], TrainedHead]:
    return {(one.trainee.method, one.trainee.seed): one for one in trained}


@pytest.fixture
def double_precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make what is made float64, and what is read too."""

    def doubled(read: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda *arguments: read(*arguments).double()

    for name in ("tokens", "embedding"):
        monkeypatch.setattr(FeatureSet, name, doubled(getattr(FeatureSet, name)))
    on_its_way = FeatureWindows._on_its_way

    def doubled_too(self: FeatureWindows, parts: Any) -> ReadImages:
        read = on_its_way(self, parts)
        embedding = None if read.embedding is None else read.embedding.double()
        return read._replace(tokens=read.tokens.double(), embedding=embedding)

    monkeypatch.setattr(FeatureWindows, "_on_its_way", doubled_too)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def compare_with_the_plain_loop(
    spec: ExperimentSpec,
    data: tuple[FeatureSet, FeatureSet],
    tolerance: float,
    methods: Iterable[str],
    window_rows: int = 1 << 30,
) -> None:
    trained = by_key(train_heads(spec, *data, "cpu"))
    assert set(trained) == {(method, seed) for method in spec.methods for seed in spec.seeds}
    for method in methods:
        for seed in spec.seeds:
            found, (network, curve) = trained[method, seed], train_alone(spec, method, seed, *data, window_rows)
            assert len(found.curve) == len(curve)
            for row, expected in zip(found.curve, curve, strict=True):
                for name, value in expected.items():
                    assert row[name] == pytest.approx(value, rel=tolerance), (method, row["epoch"], name)
            assert found.head is not None
            for name, tensor in network.state_dict().items():
                state = found.head.network.state_dict()[name]
                torch.testing.assert_close(state, tensor, rtol=tolerance, atol=tolerance, msg=f"{method} {name}")


@pytest.mark.usefixtures("double_precision")
def test_each_of_many_heads_is_what_it_would_be_alone(data: tuple[FeatureSet, FeatureSet]) -> None:
    """Every kind of setting at once, two seeds, dropout on, a last batch that is not full: against the plain loop.

    In float64, where what they have in common can't hide behind rounding, which Adam magnifies.
    """
    settings = {"epochs": 4, "batch_size": 14, "learning_rate": 0.01, "learning_rate_drops": [3]}
    compare_with_the_plain_loop(experiment(training=settings, methods=GRID), data, 1e-7, GRID)


def test_in_float32_too_a_head_is_what_it_would_be_alone(data: tuple[FeatureSet, FeatureSet]) -> None:
    methods = {name: GRID[name] for name in ("all-xi0.3", "some-xi0.3", "wide-xi0", "linear")}
    settings = {"epochs": 3, "batch_size": 14, "learning_rate": 0.001, "learning_rate_drops": [3]}
    compare_with_the_plain_loop(experiment(training=settings, methods=methods), data, 1e-4, methods)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("fakes", [2, 18])
def test_unequal_classes_and_batches_of_one_class_are_learnt_from_as_they_come(
    data: tuple[FeatureSet, FeatureSet], fakes: int
) -> None:
    """Nothing is weighed or drawn anew; an anchor without a partner adds nothing to the contrastive loss."""
    train = data[0]
    train.labels[:] = 0
    train.labels[:: len(train) // fakes][:fakes] = 1
    settings = {"epochs": 2, "batch_size": 2, "learning_rate": 0.01}
    order = [np.random.default_rng([0, epoch]).permutation(len(train)) for epoch in (1, 2)]
    assert any(len(set(train.labels[rows])) == 1 for epoch in order for rows in np.split(epoch, len(train) // 2))
    methods = {name: GRID[name] for name in ("all-xi0.3", "some-xi0", "linear")}
    compare_with_the_plain_loop(experiment(training=settings, methods=methods), data, 1e-7, methods)


@pytest.mark.usefixtures("double_precision")
def test_features_beyond_the_budget_are_learnt_from_window_after_window(
    data: tuple[FeatureSet, FeatureSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_windows, "RUN_ROWS", 4)
    methods = {name: GRID[name] for name in ("all-xi0.3", "some-xi0.3", "linear")}
    settings = {"epochs": 3, "batch_size": 5, "learning_rate": 0.01, "memory_budget": 1500}
    spec = experiment(training=settings, methods=methods)
    compare_with_the_plain_loop(spec, data, 1e-7, methods, window_rows=12)
    ample = experiment(training={**settings, "memory_budget": "1 GiB"}, methods=methods)
    small, large = (by_key(train_heads(one, *data, "cpu"))["linear", 0] for one in (spec, ample))
    assert small.curve != large.curve, "the order is another"
    assert small.head is not None
    assert small.head.card.training is not None
    assert small.head.card.training.memory_budget == 1500


def test_a_head_is_the_same_bit_for_bit_in_any_company(data: tuple[FeatureSet, FeatureSet]) -> None:
    """Among others, alone, or where memory is so small that each is trained by itself."""
    methods = {name: method for name, method in GRID.items() if name.partition("-")[0] in {"all", "some", "linear"}}
    among = by_key(train_heads(experiment(methods=methods), *data, "cpu"))
    apart = by_key(train_heads(experiment(methods=methods), *data, "cpu", heads_budget=1))
    for method in ("some-xi0.3", "linear"):
        alone = by_key(train_heads(experiment(methods={method: GRID[method]}, seeds=[1]), *data, "cpu"))
        for found in (among, apart):
            one, other = alone[method, 1], found[method, 1]
            assert one.curve == other.curve
            assert one.head is not None
            assert other.head is not None
            for name, tensor in one.head.network.state_dict().items():
                assert torch.equal(tensor, other.head.network.state_dict()[name])


def test_learning_rates_drop_when_they_are_told_to(data: tuple[FeatureSet, FeatureSet]) -> None:
    (trained,) = train_heads(experiment(methods={"RINE": METHODS["RINE"]}, seeds=[0]), *data, "cpu")
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


def test_the_global_random_state_is_left_alone(data: tuple[FeatureSet, FeatureSet]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    list(train_heads(experiment(), *data, "cpu"))
    assert torch.equal(torch.rand(3), expected)


def test_a_loss_that_is_not_finite_is_named_and_disturbs_no_other_head(
    data: tuple[FeatureSet, FeatureSet], tmp_path: Path
) -> None:
    wild = {**METHODS["RINE"], "training": {"learning_rate": 1e30}}
    with pytest.raises(
        TrainingError, match=r"wild \(seed 0\) diverged in epoch \d.*; wild \(seed 1\).*The 2 others of 4"
    ):
        train_experiment(experiment(methods={"wild": wild, "RINE": METHODS["RINE"]}), *data, tmp_path / "heads", "cpu")
    assert not (tmp_path / "heads" / CURVES).exists()
    train_experiment(experiment(methods={"RINE": METHODS["RINE"]}), *data, tmp_path / "alone", "cpu")
    for seed in (0, 1):
        name = f"RINE/seed{seed}.safetensors"
        assert (tmp_path / "heads" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    assert len(load_heads(tmp_path / "heads")) == 2


def test_training_and_validation_may_share_no_image(data: tuple[FeatureSet, FeatureSet], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="36 images stand in both"):
        train_experiment(experiment(), data[0], data[0], tmp_path / "heads", "cpu")


def test_a_missing_class_is_refused(make_cache: Callable[..., MadeCache], tmp_path: Path) -> None:
    made = make_cache("train", per_class=3)
    fakes = FeatureSet([open_part(*made[:2], ("gen-a", "gen-b"))])
    whole = FeatureSet([open_part(*make_cache("other", per_class=3, seed=1)[:2])])
    with pytest.raises(TrainingError, match="no readable real images"):
        train_experiment(experiment(), fakes, whole, tmp_path / "heads", "cpu")


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
