"""Our forward pass against the library's own with hooks, and the lanes that run it."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import _build_vision_tower, convert_weights_to_lp

from rine_cache.encoders import Encoder, forward
from rine_cache.encoders.forward import ClassTokens, Forward, require_plain
from rine_cache.encoders.lanes import CudaLane, ThreadLane
from rine_cache.errors import EncoderError

if TYPE_CHECKING:
    from collections.abc import Iterator

MEAN, STD = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
TINY = {"layers": 3, "width": 64, "head_width": 32, "patch_size": 8, "image_size": 32}
SIZES = {*TINY, "mlp_ratio"}


def listed_variants() -> list[str]:
    """List what open_clip's own vision transformers differ in, apart from their sizes."""
    found = set()
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        vision = config["vision_cfg"]
        if "timm_model_name" in vision or isinstance(vision["layers"], list):
            continue
        kind = {key: value for key, value in vision.items() if key not in SIZES}
        found.add(json.dumps([kind, config.get("quick_gelu", False)], sort_keys=True))
    return sorted(found)


# Those that a user's own configuration may ask for besides.
OTHERS = [
    json.dumps([kind, False])
    for kind in (
        {"pool_type": "avg"},
        {"pos_embed_type": "sin_cos_2d"},
        {"patch_dropout": 0.5},
        {"norm_kwargs": {"eps": 1e-3}, "act_kwargs": {"approximate": "tanh"}},
        {"final_ln_after_pool": True},
        {"attentional_pool": True, "pool_type": "avg"},
    )
]
VARIANTS = [*listed_variants(), *OTHERS]
PLAIN = json.dumps([{}, True])


def tiny_tower(variant: str, dtype: torch.dtype = torch.float32) -> Any:
    kind, quick_gelu = json.loads(variant)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tower = _build_vision_tower(32, {**TINY, **kind}, quick_gelu, cast_dtype=dtype)
        with torch.no_grad():
            for parameter in tower.parameters():  # no bias or norm that stays at 0 or 1 and so tests nothing
                parameter.add_(0.1 * torch.randn_like(parameter))
    if dtype != torch.float32:
        convert_weights_to_lp(tower, dtype)
    return tower.eval().requires_grad_(requires_grad=False)


def some_crops(count: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def tiny_encoder(batch_size: int = 6, *, variant: str = PLAIN, compiled: bool = False) -> Encoder:
    identity = {"image_size": 32, "mean": MEAN, "std": STD, "architecture": "tiny"}
    return Encoder(tiny_tower(variant), identity, "float32", batch_size, "cpu", compiled=compiled)


def hooked(tower: Any, crops: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """The naive way: the library's forward pass, and hooks that keep what leaves its modules."""
    kept: dict[str, list[torch.Tensor]] = {"ln_2": [], "block": []}
    for block in tower.transformer.resblocks:
        block.ln_2.register_forward_hook(lambda _module, _inputs, output: kept["ln_2"].append(output[:, 0].float()))
        block.register_forward_hook(lambda _module, _inputs, output: kept["block"].append(output[:, 0].float()))
    pixels = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
    pixels = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        output = tower(pixels.to(tower.conv1.weight.dtype))
    embedding = output[0] if isinstance(output, tuple) else output
    return torch.stack([torch.stack(tokens) for tokens in kept.values()]), embedding.float()


def farthest(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest max|a-b| / max|b| over the leading axes."""
    return float(((found - expected).abs().amax(-1) / expected.abs().amax(-1)).max())


@pytest.fixture
def kept_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the forward pass return float32: rounding to float16 would hide a difference below 5e-4."""
    monkeypatch.setattr(forward, "_KEPT", torch.float32)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("kept_whole")
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kind_of_tower_gives_what_the_librarys_own_forward_pass_gives(variant: str) -> None:
    crops = some_crops()
    found = Forward(tiny_tower(variant), MEAN, STD, compiled=False)(torch.from_numpy(crops))
    tokens, embedding = hooked(tiny_tower(variant), crops)
    assert farthest(found.tokens, tokens) < 2e-5
    assert farthest(found.embedding, embedding) < 2e-5


@pytest.mark.usefixtures("kept_whole")
def test_without_onednn_the_same_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    crops = torch.from_numpy(some_crops())
    usual = Forward(tiny_tower(PLAIN), MEAN, STD, compiled=False)(crops)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    plain = Forward(tiny_tower(PLAIN), MEAN, STD, compiled=False)(crops)
    assert farthest(plain.tokens, usual.tokens) < 2e-5
    assert farthest(plain.embedding, usual.embedding) < 2e-5


@pytest.mark.usefixtures("kept_whole")
@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 0.05), (torch.float16, 0.006)])
@pytest.mark.parametrize("variant", [v for v in VARIANTS if "ls_init_value" not in v and "attentional" not in v])
def test_in_half_precision_it_is_as_near_as_rounding_allows(variant: str, dtype: torch.dtype, bound: float) -> None:
    crops = some_crops()
    found = Forward(tiny_tower(variant, dtype), MEAN, STD, compiled=False)(torch.from_numpy(crops))
    tokens, embedding = hooked(tiny_tower(variant, dtype), crops)
    assert farthest(found.tokens, tokens) < bound
    assert farthest(found.embedding, embedding) < bound


@pytest.mark.usefixtures("kept_whole")
def test_half_precision_with_layer_scale_which_the_library_itself_refuses() -> None:
    (variant,) = [variant for variant in VARIANTS if "ls_init_value" in variant]
    crops = some_crops()
    with pytest.raises(RuntimeError):
        hooked(tiny_tower(variant, torch.bfloat16), crops)
    found = Forward(tiny_tower(variant, torch.bfloat16), MEAN, STD, compiled=False)(torch.from_numpy(crops))
    tokens, _ = hooked(tiny_tower(variant), crops)
    assert farthest(found.tokens, tokens) < 0.05


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ({"qk_norm": True}, "'mine' is made of CustomResidualAttentionBlock, whose forward pass is not implemented"),
        ({"pool_type": "none"}, "gives no single embedding; allowed are the pool types tok and avg"),
        ({"attentional_pool": "cascade"}, "gives no single embedding"),
    ],
)
def test_a_tower_of_another_kind_is_refused(kind: dict[str, Any], message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        require_plain(tiny_tower(json.dumps([kind, False])), "mine", "float32")


def test_attentional_pooling_is_refused_in_half_precision_which_the_library_cannot_compute() -> None:
    variant = json.dumps([{"attentional_pool": True}, False])
    with pytest.raises(RuntimeError):
        hooked(tiny_tower(variant, torch.bfloat16), some_crops())
    with pytest.raises(
        EncoderError, match=r"'mine' does not compute in bfloat16: .* set the encoder's precision: float32"
    ):
        require_plain(tiny_tower(variant), "mine", "bfloat16")
    require_plain(tiny_tower(variant), "mine", "float32")


@pytest.mark.usefixtures("kept_whole", "threads")
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_crop_has_the_same_bits_wherever_it_stands_and_whatever_stands_beside_it(variant: str) -> None:
    torch.set_num_threads(1)  # as in each thread of a lane
    compute = Forward(tiny_tower(variant), MEAN, STD, compiled=False)
    crops = torch.from_numpy(some_crops())
    order = [3, 5, 0, 4, 1, 2]
    other = crops.clone()
    other[1:] = 0
    straight, shuffled, alone = compute(crops), compute(crops[order]), compute(other)
    assert torch.equal(straight.tokens[:, :, order], shuffled.tokens)
    assert torch.equal(straight.embedding[order], shuffled.embedding)
    assert torch.equal(straight.tokens[:, :, 0], alone.tokens[:, :, 0])


@pytest.mark.usefixtures("threads", "kept_whole")
@pytest.mark.parametrize("batch_size", [1, 6, 7, 202])
def test_the_number_of_threads_changes_no_bit(batch_size: int) -> None:
    crops = some_crops(batch_size)
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        with tiny_encoder(batch_size) as encoder:
            found.append(encoder.encode(crops))
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].tokens["ln_2"], other.tokens["ln_2"])
        np.testing.assert_array_equal(found[0].tokens["block"], other.tokens["block"])
        np.testing.assert_array_equal(found[0].embedding, other.embedding)


def test_batches_started_together_come_back_each_as_its_own() -> None:
    with tiny_encoder(4) as encoder:
        batches = [np.roll(some_crops(4), shift, axis=0) for shift in range(4)]
        running = [encoder.start(batch) for batch in batches]
        straight = running[0].result()
        for shift, later in reversed(list(enumerate(running))):
            np.testing.assert_array_equal(later.result().embedding, np.roll(straight.embedding, shift, axis=0))
        assert encoder.new_batch().shape == (4, 32, 32, 3)
        assert encoder.in_flight >= 2


@pytest.mark.usefixtures("threads")
def test_a_lane_computes_with_one_thread_each_and_leaves_all_others_theirs() -> None:
    torch.set_num_threads(2)

    def compute(crops: torch.Tensor) -> ClassTokens:
        count = len(crops)
        return ClassTokens(torch.zeros(2, 1, count, 1), torch.full((count, 1), torch.get_num_threads()))

    lane = ThreadLane(compute, "cpu", part=1, parts=8, threads=2)
    computed = lane.start(np.zeros((8, 2, 2, 3), np.uint8))()
    lane.close()
    assert computed.embedding.ravel().tolist() == [1] * 8
    assert torch.get_num_threads() == 2
    with ThreadPoolExecutor(1) as new_thread:
        assert new_thread.submit(torch.get_num_threads).result() == 2


def test_want_of_memory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("no")

    with tiny_encoder(2) as encoder:
        monkeypatch.setattr(Forward, "__call__", fail)
        running = encoder.start(encoder.new_batch())
        with pytest.raises(
            EncoderError, match="cpu has no memory for a batch of 2 crops; lower the encoder's batch_size"
        ):
            running.result()


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="torch.compile needs a C++ compiler")
def test_compiled_it_gives_the_same_but_for_last_bits() -> None:
    shallow = json.dumps([{"layers": 1}, True])
    with tiny_encoder(4, variant=shallow) as plain, tiny_encoder(4, variant=shallow, compiled=True) as compiled:
        expected, found = plain.encode(some_crops(4)), compiled.encode(some_crops(4))
        again = compiled.encode(some_crops(4))
    np.testing.assert_allclose(
        found.tokens["block"].astype(float), expected.tokens["block"].astype(float), rtol=0, atol=0.01
    )
    np.testing.assert_array_equal(found.tokens["ln_2"], again.tokens["ln_2"])


def test_what_torch_compile_cannot_do_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(Forward, "__call__", fail)
    with (
        tiny_encoder(2, compiled=True) as encoder,
        pytest.raises(
            EncoderError, match=r"not made by torch.compile \(RuntimeError: no compiler\); set .*compile: false"
        ),
    ):
        encoder.encode(encoder.new_batch())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_lane_of_a_cuda_device_gives_what_threads_give() -> None:
    batches = [np.roll(some_crops(4), shift, axis=0) for shift in range(5)]
    on_device = CudaLane(Forward(tiny_tower(PLAIN).to("cuda"), MEAN, STD, compiled=False), "cuda")
    pinned = [on_device.new_batch(batch.shape) for batch in batches]
    for empty, batch in zip(pinned, batches, strict=True):
        empty[:] = batch
    waiting = [on_device.start(batch) for batch in pinned]
    with tiny_encoder(4) as encoder:
        for wait, batch in zip(waiting, batches, strict=True):
            found, expected = wait(), encoder.encode(batch)
            np.testing.assert_allclose(found.embedding.astype(float), expected.embedding.astype(float), atol=0.01)
            np.testing.assert_allclose(found.tokens[0].astype(float), expected.tokens["ln_2"].astype(float), atol=0.01)
    on_device.close()
