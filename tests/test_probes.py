from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rine_cache.calibration import calibrate
from rine_cache.errors import ConfigError, HeadError, TrainingError
from rine_cache.evaluate import evaluate, read_scores
from rine_cache.features import FeatureSet, open_part
from rine_cache.heads.head import build_network, load_head, load_heads
from rine_cache.heads.linear import LinearHead
from rine_cache.heads.neighbours import BankSize, NeighboursHead
from rine_cache.probes import fit_probe
from rine_cache.score import ScoredImages, score
from rine_cache.specs.base import parse
from rine_cache.specs.benchmark import BenchmarkSpec
from rine_cache.specs.encoding import EncoderSpec, TrainViewSpec
from rine_cache.specs.training import ExperimentSpec, NeighboursHeadSpec
from rine_cache.train import CURVES, train_experiment
from tests.conftest import SIZE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import MadeCache

PROBES: dict[str, Any] = {
    "logistic": {"head": {"kind": "logistic"}},
    "logistic-plain": {"head": {"kind": "logistic", "standardise": False, "C": 0.3}},
    "logistic-block": {"head": {"kind": "logistic", "blocks": 1}, "note": "block 1"},
    "logistic-blocks": {"head": {"kind": "logistic", "blocks": [0, 2], "C": 0.01}},
    "neighbours": {"head": {"kind": "neighbours"}},
    "neighbours-3": {"head": {"kind": "neighbours", "k": 3}},
}
BLOCKS = {"logistic-block": [1], "logistic-blocks": [0, 2]}


def experiment(methods: dict[str, Any] = PROBES, **changes: Any) -> ExperimentSpec:
    data = {"encoder": "stand-in", "training_set": "mine", "seeds": [3, 4], "methods": methods, **changes}
    return parse(ExperimentSpec, data, "test")


@pytest.fixture
def caches(make_cache: Callable[..., MadeCache]) -> dict[str, MadeCache]:
    view = TrainViewSpec(kind="train", size=SIZE, draws=2)
    return {
        "train": make_cache("train", per_class=14, view=view),
        "validation": make_cache("validation", per_class=8, seed=1),
        "test": make_cache("test", per_class=9, seed=2),
    }


@pytest.fixture
def data(caches: dict[str, MadeCache]) -> tuple[FeatureSet, FeatureSet]:
    return FeatureSet([open_part(*caches["train"][:2])]), FeatureSet([open_part(*caches["validation"][:2])])


def features_of(features: FeatureSet, method: str) -> np.ndarray:
    """Read what a probe reads straight from the cache: (N, W), float64."""
    (cache,) = features.caches
    if method in BLOCKS:
        return cache.features[BLOCKS[method], :, 0].astype(np.float64).mean(axis=0)
    return cache.embedding[:, 0].astype(np.float64)


@pytest.mark.parametrize("method", [name for name in PROBES if name.startswith("logistic")])
def test_a_logistic_probe_is_scikit_learns_on_the_first_draw(
    data: tuple[FeatureSet, FeatureSet], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rine_cache.probes._ROWS_AT_ONCE", 5)  # reading in several steps changes nothing
    train, validation = data
    head = fit_probe(experiment(), method, train, validation, "cpu")
    spec: dict[str, Any] = PROBES[method]["head"]
    steps = [] if spec.get("standardise") is False else [StandardScaler()]
    reference = make_pipeline(*steps, LogisticRegression(C=spec.get("C", 1.0), max_iter=1000))
    reference.fit(features_of(train, method), train.labels)
    expected = reference.decision_function(features_of(validation, method))
    rows = np.arange(len(validation))
    inputs = validation.tokens(rows, head.card.blocks, 0) if head.card.blocks else validation.embedding(rows, 0)
    with torch.no_grad():
        logits = head.network.eval()(inputs).logit.numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert isinstance(head.network, LinearHead)
    assert head.card.validation["loss"] == pytest.approx(log_loss(validation.labels, expected_chance(expected)))
    assert head.card.validation["ap"] == pytest.approx(average_precision_score(validation.labels, expected))


def expected_chance(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def test_a_feature_that_never_changes_is_left_alone(
    data: tuple[FeatureSet, FeatureSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    train, validation = data
    cached = train.embedding

    def constant(indices: np.ndarray, draw: int) -> torch.Tensor:
        found = cached(indices, draw)
        found[:, 2] = 0.75
        return found

    monkeypatch.setattr(train, "embedding", constant)
    head = fit_probe(experiment(), "logistic", train, validation, "cpu")
    assert isinstance(head.network, LinearHead)
    assert torch.isfinite(head.network.fc.weight).all()
    assert head.network.fc.weight[0, 2].abs() < 1e-6


def test_the_banks_are_the_cached_embeddings_bit_for_bit(data: tuple[FeatureSet, FeatureSet], tmp_path: Path) -> None:
    train, validation = data
    train_experiment(experiment(), train, validation, tmp_path / "heads", "cpu")
    head = load_head(tmp_path / "heads" / "neighbours" / "seed0.safetensors")
    cached = train.caches[0].embedding[:, 0]
    assert isinstance(head.network, NeighboursHead)
    np.testing.assert_array_equal(head.network.real.numpy(), cached[train.labels == 0])
    np.testing.assert_array_equal(head.network.fake.numpy(), cached[train.labels == 1])
    assert head.card.bank == BankSize(real=14, fake=28)
    assert head.trainable_parameters == 0


def test_a_card_says_what_a_probe_is_and_what_it_read(data: tuple[FeatureSet, FeatureSet], tmp_path: Path) -> None:
    train, validation = data
    train_experiment(experiment(), train, validation, tmp_path / "heads", "cpu")
    for head in load_heads(tmp_path / "heads"):
        card = head.card
        assert (card.seed, card.training_set, card.training, card.chosen_epoch) == (0, "mine", None, None)
        assert card.head == experiment().methods[card.method].head
        assert card.features == train.identity
        assert card.note == PROBES[card.method].get("note", "")
        assert list(card.blocks) == BLOCKS.get(card.method, [])
        assert card.passes.crops_read == len(train) + len(validation)
        rows = np.arange(len(validation))
        inputs = validation.tokens(rows, card.blocks, 0) if card.blocks else validation.embedding(rows, 0)
        with torch.no_grad():
            logits = head.network(inputs).logit.numpy()
        found = calibrate(validation.labels, logits)
        assert card.calibration is not None
        assert card.calibration.temperature == pytest.approx(found.temperature, rel=1e-4)
        assert [one.reason for one in card.calibration.thresholds] == [one.reason for one in found.thresholds]
        assert (card.importance, card.bank is None) == (None, card.head.kind == "logistic")


def test_a_probe_is_one_head_whatever_the_seeds_and_the_same_bytes(
    data: tuple[FeatureSet, FeatureSet], tmp_path: Path
) -> None:
    methods = {"RINE": {"head": {"kind": "rine", "width": 8, "layers": 1}}, **PROBES}
    shared = {"epochs": 2, "batch_size": 8}
    for name in ("a", "b"):
        train_experiment(experiment(methods, training=shared), *data, tmp_path / name, "cpu")
    paths = {path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.safetensors")}
    names = ["RINE/seed3", "RINE/seed4", *(f"{name}/seed0" for name in PROBES)]
    assert {path.as_posix() for path in paths} == {f"{name}.safetensors" for name in names}
    for path in paths:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()
    assert set(pl.read_parquet(tmp_path / "a" / CURVES)["method"]) == {"RINE"}


def test_an_experiment_of_probes_alone_has_curves_of_no_row(
    data: tuple[FeatureSet, FeatureSet], tmp_path: Path
) -> None:
    train_experiment(experiment(), *data, tmp_path / "heads", "cpu")
    curves = pl.read_parquet(tmp_path / "heads" / CURVES)
    assert curves.height == 0
    assert {"method", "seed", "epoch", "validation_loss"} <= set(curves.columns)


def test_a_fit_that_does_not_converge_is_refused_and_says_what_to_change(
    data: tuple[FeatureSet, FeatureSet], tmp_path: Path
) -> None:
    methods = {"hasty": {"head": {"kind": "logistic", "max_iter": 1, "C": 1000, "standardise": False}}}
    with pytest.raises(TrainingError, match=r"hasty: .* converge in 1 iterations; raise head.max_iter, .*1000.*stan"):
        train_experiment(experiment(methods), *data, tmp_path / "heads", "cpu")
    assert not list((tmp_path / "heads").rglob("*.safetensors"))


def test_more_neighbours_than_images_are_refused(data: tuple[FeatureSet, FeatureSet]) -> None:
    greedy = experiment({"greedy": {"head": {"kind": "neighbours", "k": 15}}})
    with pytest.raises(TrainingError, match="15 neighbours of each class, but the training data hold 14 real and 28"):
        fit_probe(greedy, "greedy", *data, "cpu")


def test_a_head_of_neighbours_without_a_bank_is_refused(data: tuple[FeatureSet, FeatureSet]) -> None:
    with pytest.raises(HeadError, match="does not state its bank's size"):
        build_network(NeighboursHeadSpec(kind="neighbours"), data[0].identity)


def test_probes_stand_in_the_metrics_like_other_methods(
    caches: dict[str, MadeCache], data: tuple[FeatureSet, FeatureSet], tmp_path: Path
) -> None:
    methods = {"linear": {"head": {"kind": "linear"}, "training": {"xi": 0}}, **PROBES}
    spec = experiment(methods)
    train_experiment(spec, *data, tmp_path / "heads", "cpu")
    part = open_part(*caches["test"][:2])
    heads = load_heads(tmp_path / "heads")
    score(heads, part, ScoredImages("mine", "center224"), tmp_path / "s.parquet", "cpu")
    described = {
        "name": "bench",
        "title": "bench",
        "test_sets": {"all": {"dataset": "mine"}},
        "protocols": {"p": {"test_sets": ["all"]}},
    }
    benchmark = parse(BenchmarkSpec, described, "test")
    encoder = parse(EncoderSpec, {"architecture": "stand-in", "weights": "random"}, "test")
    rows = evaluate("e", spec, encoder, [benchmark], [read_scores(tmp_path / "s.parquet")])
    rows = rows.filter(test_set="all", metric="auc")
    assert dict(rows.group_by("method").len().iter_rows()) == {"linear": 2, **dict.fromkeys(PROBES, 1)}
    columns = rows.unique("method").select("method", "head", "blocks", "trainable_parameters")
    assert set(columns.iter_rows()) == {
        ("linear", "linear", "embedding", 6),
        ("logistic", "logistic", "embedding", 6),
        ("logistic-plain", "logistic", "embedding", 6),
        ("logistic-block", "logistic", "1", 9),
        ("logistic-blocks", "logistic", "0,2", 9),
        ("neighbours", "neighbours", "embedding", 0),
        ("neighbours-3", "neighbours", "embedding", 0),
    }
    assert rows["value"].is_not_null().all()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"head": {"kind": "logistic", "blocks": "al"}}, r"'al' are not understood; .*or embedding"),
        ({"head": {"kind": "logistic", "c": 1}}, "unknown key 'c'; did you mean 'C'"),
        ({"head": {"kind": "logistic", "C": 0}}, r"head\.C: .*greater than 0"),
        ({"head": {"kind": "neighbours", "k": 0}}, r"head\.k: .*greater than or equal to 1"),
        ({"head": {"kind": "neighbours", "blocks": "all"}}, "unknown key 'blocks'"),
        ({"head": {"kind": "neighbour"}}, "did you mean 'neighbours'"),
        ({"head": {"kind": "logistic"}, "training": {"epochs": 3}}, "a logistic probe takes no training settings"),
    ],
)
def test_what_a_probe_cannot_be_is_refused(method: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        experiment({"m": method})


def test_blocks_that_the_encoder_has_not_are_refused(data: tuple[FeatureSet, FeatureSet]) -> None:
    far = experiment({"far": {"head": {"kind": "logistic", "blocks": 7}}})
    with pytest.raises(ConfigError, match="the encoder has blocks 0 to 2"):
        fit_probe(far, "far", *data, "cpu")


def test_an_experiment_written_out_whole_is_read_as_the_same() -> None:
    spec = experiment(training={"epochs": 9})
    assert parse(ExperimentSpec, spec.model_dump(mode="json"), "test") == spec
