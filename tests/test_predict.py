from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from rine_cache.calibration import calibrate
from rine_cache.errors import CacheMismatchError
from rine_cache.heads.head import FeatureIdentity, Head, HeadCard, build_network
from rine_cache.heads.linear import LinearHead
from rine_cache.predict import Prediction, _compatible_with, block_weights, predict
from rine_cache.specs.training import HeadSpec, LinearHeadSpec, LogisticHeadSpec, RineHeadSpec
from tests.conftest import CENTER, SIZE, StandInEncoder

if TYPE_CHECKING:
    from pathlib import Path


def head_for(encoder: StandInEncoder, spec: HeadSpec) -> Head:
    torch.manual_seed(0)
    features = FeatureIdentity(encoder=encoder.identity, tap="ln_2", block_count=3, token_width=8, embedding_width=5)
    return Head(HeadCard(method="m", head=spec, features=features), build_network(spec, features).eval())


@pytest.mark.parametrize("spec", [RineHeadSpec(kind="rine", width=8, blocks=(0, 2)), LinearHeadSpec(kind="linear")])
def test_a_prediction_is_the_sigmoid_of_the_heads_logit(tmp_path: Path, spec: HeadSpec) -> None:
    encoder = StandInEncoder(batch_size=1)
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    head = head_for(encoder, spec)
    (found,) = predict([tmp_path / "a.png"], head, encoder, CENTER)
    encoded = encoder.encode(pixels[None])
    inputs = encoded.embedding if spec.kind == "linear" else encoded.tokens["ln_2"][[0, 2], 0][None]
    with torch.no_grad():
        logit = head.network(torch.from_numpy(inputs.astype(np.float32))).logit.item()
    assert found.score == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)


def test_an_image_that_cannot_be_read_has_no_score_and_stops_nothing(tmp_path: Path) -> None:
    encoder = StandInEncoder(batch_size=1)
    Image.new("RGB", (4, 4)).save(tmp_path / "tiny.png")
    (tmp_path / "text.jpg").write_text("no image")
    paths = [tmp_path / "text.jpg", tmp_path / "none.png", tmp_path / "tiny.png"]
    found = list(predict(paths, head_for(encoder, RineHeadSpec(kind="rine", width=8)), encoder, CENTER))
    assert [row.score is None for row in found] == [True, True, False]
    assert found[0].problem.startswith("not_an_image")
    assert found[1].problem.startswith("missing")


def test_another_encoder_than_the_heads_is_refused(tmp_path: Path) -> None:
    head = head_for(StandInEncoder(seed=1), RineHeadSpec(kind="rine", width=8))
    with pytest.raises(CacheMismatchError, match="weights_sha256"):
        predict([tmp_path / "a.png"], head, StandInEncoder(batch_size=1), CENTER)


def test_block_weights_add_to_one_over_the_blocks_that_are_read() -> None:
    encoder = StandInEncoder()
    weights = block_weights(head_for(encoder, RineHeadSpec(kind="rine", width=8, blocks=(0, 2))))
    assert weights is not None
    assert list(weights) == [0, 2]
    assert sum(weights.values()) == pytest.approx(1)
    equal = block_weights(head_for(encoder, RineHeadSpec(kind="rine", width=8, tie=False)))
    assert equal == pytest.approx({0: 1 / 3, 1: 1 / 3, 2: 1 / 3})
    assert block_weights(head_for(encoder, LinearHeadSpec(kind="linear"))) is None


def test_the_calibrated_probability_is_the_sigmoid_of_the_logit_over_the_temperature(tmp_path: Path) -> None:
    encoder = StandInEncoder(batch_size=1)
    Image.new("RGB", (SIZE, SIZE), "olive").save(tmp_path / "a.png")
    head = head_for(encoder, RineHeadSpec(kind="rine", width=8))
    rng = np.random.default_rng(0)
    calibration = calibrate(np.arange(60) % 2, rng.normal(np.arange(60) % 2, 2.0))
    (plain,) = predict([tmp_path / "a.png"], head, encoder, CENTER)
    assert plain.score is not None
    assert plain.calibrated is None
    calibrated = head._replace(card=head.card.model_copy(update={"calibration": calibration}))
    (found,) = predict([tmp_path / "a.png"], calibrated, encoder, CENTER)
    assert found.score == plain.score
    logit = np.log(plain.score / (1 - plain.score))
    assert calibration.temperature is not None
    assert found.calibrated == pytest.approx(1 / (1 + np.exp(-logit / calibration.temperature)))


def test_a_probe_on_several_blocks_predicts_from_their_mean(tmp_path: Path) -> None:
    encoder = StandInEncoder(batch_size=1)
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    head = head_for(encoder, LogisticHeadSpec(kind="logistic", blocks=(0, 2)))
    (found,) = predict([tmp_path / "a.png"], head, encoder, CENTER)
    tokens = torch.from_numpy(encoder.encode(pixels[None]).tokens["ln_2"][[0, 2], 0].astype(np.float32))  # (K', D)
    assert isinstance(head.network, LinearHead)
    with torch.no_grad():
        logit = head.network.fc(tokens.mean(0)).item()
    assert found.score == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)


def scored(folder: Path, head: Head, encoder: StandInEncoder, count: int = 6) -> list[Prediction]:
    rng = np.random.default_rng(1)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return list(predict(sorted(folder.glob("*.png")), head, encoder, CENTER))


def test_images_are_answered_in_their_order_whatever_runs_at_once(tmp_path: Path) -> None:
    encoder = StandInEncoder(batch_size=1)
    head = head_for(encoder, RineHeadSpec(kind="rine", width=8))
    alone = scored(tmp_path, head, encoder)
    (tmp_path / "2.png").write_text("no image")
    encoder.in_flight = 3
    together = list(predict(sorted(tmp_path.glob("*.png")), head, encoder, CENTER))
    assert [found.path.name for found in together] == [f"{number}.png" for number in range(6)]
    assert together[2].problem
    kept = [number for number in range(6) if number != 2]
    assert [together[number] for number in kept] == [alone[number] for number in kept]


def test_a_score_stands_beside_those_of_the_validation_images(tmp_path: Path) -> None:
    encoder = StandInEncoder(batch_size=1)
    head = head_for(encoder, RineHeadSpec(kind="rine", width=8))
    logits = np.array([found.logit for found in scored(tmp_path, head, encoder)])
    middle = float(np.median(logits))
    labels = np.repeat([0, 1], 50)
    validation = np.concatenate([np.full(50, middle - 1), np.full(50, middle + 1)])
    validation[:5] = middle + 9  # a tenth of the reals score higher than everything
    card = head.card.model_copy(update={"calibration": calibrate(labels, validation)})
    (found, *_) = scored(tmp_path, head._replace(card=card), encoder)
    assert found.logit is not None
    assert found.real_above == np.mean(validation[:50] > found.logit)
    assert found.fake_above == np.mean(validation[50:] > found.logit)


@pytest.mark.parametrize(
    ("real_above", "fake_above", "compatible"),
    [
        (0.5, 1.0, "real"),
        (0.0, 0.5, "fake"),
        (0.05, 0.95, "real or fake"),
        (0.04, 0.96, "neither"),
        (None, 0.5, ""),
    ],
)
def test_what_a_score_is_compatible_with(real_above: float | None, fake_above: float, compatible: str) -> None:
    assert _compatible_with(real_above, fake_above) == compatible
