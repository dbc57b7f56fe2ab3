"""Write the sample's images: real crops, and fakes blended from what the autoencoders make of them."""

from __future__ import annotations

import json
import logging
import shutil
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from rine_cache.errors import ConfigError
from rine_cache.files import refusals_told, written_whole
from rine_cache.progress import progress
from rine_cache.sample.autoencoders import UPSAMPLERS, reconstruct, train_autoencoder
from rine_cache.sample.photographs import PHOTOGRAPHS, Crop, crops

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import nn

    from rine_cache.specs.data import Operator, SampleSpec

LOG = logging.getLogger(__name__)
PROVENANCE = "provenance.json"
_MARKER = ".rine-cache-sample"
_PARTS = ("train", "validation", "test")


def subset_name(operator: Operator, strength: float) -> str:
    """Name the subset of an operator's fakes at a strength, e.g. ``transposed-s05``."""
    return f"{operator}-s{round(100 * strength):02d}"


def build_sample(spec: SampleSpec) -> int:
    """Write the sample below `spec.root`, replacing an earlier one, and ``provenance.json`` last of all.

    Returns
    -------
    How many images were written.

    Raises
    ------
    ConfigError
        If the folder holds anything that is not a sample, or the photographs do not suffice.
    """
    parts = {
        "train": crops("train", spec.train_crops, spec.crop),
        "validation": crops("validation", spec.validation_crops, spec.crop),
        "test": crops("test", spec.test_real_crops, spec.crop),
    }
    chosen = _spread_over_photographs(parts["test"], spec.test_fake_crops)
    root = _clear(Path(spec.root))
    written = sum(_write_reals(root / part, found) for part, found in parts.items())
    with _one_thread():
        generators = _train_generators(spec, parts["train"])
        for part in ("train", "validation"):
            written += _write_fakes(root / part, parts[part], generators, spec.train_operator, spec.train_strength)
        for operator in UPSAMPLERS:
            for strength in spec.test_strengths:
                written += _write_fakes(root / "test", chosen, generators, operator, strength)
    with written_whole(root / PROVENANCE) as temporary:
        temporary.write_text(json.dumps(_provenance(spec, written), indent=2, sort_keys=True) + "\n")
    LOG.info("sample: %d images in %s", written, root)
    return written


def _clear(root: Path) -> Path:
    """Remove an earlier sample, and nothing else."""
    marker = root / _MARKER
    if root.exists() and not root.is_dir():
        raise ConfigError(f"{root} is a file, not a folder; set sample.root to another")
    if root.exists() and any(root.iterdir()) and not marker.exists():
        raise ConfigError(f"{root} holds files that are no sample of rine-cache's; set sample.root to another")
    with refusals_told(root):
        root.mkdir(parents=True, exist_ok=True)
        marker.touch()
        (root / PROVENANCE).unlink(missing_ok=True)  # it says that the sample is whole
        for part in _PARTS:
            if (root / part).exists():
                shutil.rmtree(root / part)
    return root


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread, so that the images do not depend on the number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _train_generators(spec: SampleSpec, training_crops: list[Crop]) -> dict[Operator, nn.Module]:
    images = _to_tensor(np.stack([crop.pixels for crop in training_crops]))  # (N, 3, S, S)
    generators: dict[Operator, nn.Module] = {}
    with progress("sample: autoencoders", len(UPSAMPLERS), "generators") as bar:
        for index, operator in enumerate(UPSAMPLERS):
            seed = 1000 * spec.seed + index
            generators[operator] = train_autoencoder(operator, images, steps=spec.autoencoder_steps, seed=seed)
            bar.advance()
    return generators


def _write_reals(folder: Path, found: list[Crop]) -> int:
    for crop in found:
        _save(folder / "0_real" / f"{crop.name}.png", crop.pixels)
    return len(found)


def _write_fakes(
    folder: Path, found: list[Crop], generators: dict[Operator, nn.Module], operator: Operator, strength: float
) -> int:
    """Write ``x + s * (AE(x) - x)`` for each crop x, rounded to 8 bits."""
    for crop in found:
        real = _to_tensor(crop.pixels[None])  # (1, 3, S, S)
        with torch.inference_mode():
            fake = real + strength * (reconstruct(generators[operator], real) - real)  # (1, 3, S, S)
        pixels = (fake[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()  # (S, S, 3)
        _save(folder / "1_fake" / subset_name(operator, strength) / f"{crop.name}.png", pixels)
    return len(found)


def _spread_over_photographs(found: list[Crop], count: int) -> list[Crop]:
    """Take `count` crops, the first of every photograph before the second of any."""
    rank: dict[str, int] = {}
    ordered = []
    for crop in found:
        photograph = crop.name.partition("__")[0]
        rank[photograph] = rank.get(photograph, -1) + 1
        ordered.append((rank[photograph], crop))
    return [crop for _, crop in sorted(ordered, key=lambda pair: (pair[0], pair[1].name))[:count]]


def _to_tensor(pixels: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2).float() / 255  # (B, 3, S, S)


def _save(path: Path, pixels: NDArray[np.uint8]) -> None:
    with refusals_told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, optimize=False)


def _provenance(spec: SampleSpec, images: int) -> dict[str, object]:
    packages = ("scikit-image", "scikit-learn", "torch", "pillow")
    return {
        "about": "rine-cache sample: shows the method at work on this machine; not a result",
        "images": images,
        "settings": spec.model_dump(mode="json"),
        "photographs": PHOTOGRAPHS,
        "packages": {name: metadata.version(name) for name in packages},
    }
