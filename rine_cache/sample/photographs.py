"""Photographs from the scikit-image and scikit-learn wheels, and where to cut crops from them.

A photograph belongs to one part only, so that no head is tested on a picture it has seen. Of the stereo pair
`motorcycle` only the left half is taken: both are one photograph.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from PIL import Image

from rine_cache.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Part = Literal["train", "validation", "test"]

PHOTOGRAPHS: dict[Part, tuple[str, ...]] = {
    "train": (
        "skimage/data/astronaut.png",
        "skimage/data/brick.png",
        "skimage/data/camera.png",
        "skimage/data/coffee.png",
        "skimage/data/grass.png",
        "skimage/data/hubble_deep_field.jpg",
        "skimage/data/retina.jpg",
    ),
    "validation": (
        "skimage/data/clock_motion.png",
        "skimage/data/ihc.png",
        "skimage/data/moon.png",
    ),
    "test": (
        "skimage/data/cell.png",
        "skimage/data/chelsea.png",
        "skimage/data/coins.png",
        "skimage/data/gravel.png",
        "skimage/data/motorcycle_left.png",
        "skimage/data/rocket.jpg",
        "sklearn/datasets/images/china.jpg",
        "sklearn/datasets/images/flower.jpg",
    ),
}
_GRID_STEP = 16  # pixels between the positions a crop may take


class Crop(NamedTuple):
    """A square cut from a photograph; `name` says which and where."""

    name: str
    pixels: NDArray[np.uint8]  # (size, size, 3)


def crops(part: Part, count: int, size: int) -> list[Crop]:
    """Cut `count` crops from a part's photographs, as evenly over them and as far apart as can be.

    Crops of one photograph may overlap; their names share what stands before ``__``, which the manifest keeps
    as their group.

    Raises
    ------
    ConfigError
        If a photograph is missing from the installed packages, or too small for the crop.
    """
    paths = PHOTOGRAPHS[part]
    quotas = [count // len(paths) + (index < count % len(paths)) for index in range(len(paths))]
    found = []
    for relative, quota in zip(paths, quotas, strict=True):
        photograph = _read(relative)
        for top, left in _spread(photograph.shape[0], photograph.shape[1], size, quota, relative):
            pixels = photograph[top : top + size, left : left + size]
            found.append(Crop(f"{Path(relative).stem}__{top:04d}_{left:04d}", pixels))
    return found


def _read(relative: str) -> NDArray[np.uint8]:
    package, _, inside = relative.partition("/")
    path = Path(str(resources.files(package))) / inside
    try:
        return np.asarray(Image.open(path).convert("RGB"))  # (height, width, 3)
    except FileNotFoundError:
        raise ConfigError(
            f"the installed {package} carries no {inside}, of which the sample is cut; install a version within "
            f"pyproject.toml's bounds"
        ) from None


def _spread(height: int, width: int, size: int, count: int, name: str) -> list[tuple[int, int]]:
    """Choose positions on a grid: the first in the corner, each next one farthest from those chosen."""
    rows, columns = (range(0, side - size + 1, _GRID_STEP) for side in (height, width))
    if len(rows) * len(columns) < count:
        raise ConfigError(
            f"{name} is {width} x {height}: it holds {len(rows) * len(columns)} crops of {size} pixels, the sample "
            f"asks for {count}; lower the sample's counts or its crop"
        )
    grid = np.array([(top, left) for top in rows for left in columns])  # (positions, 2)
    chosen = [0]
    distance = np.full(len(grid), np.inf)  # (positions,)
    while len(chosen) < count:
        distance = np.minimum(distance, ((grid - grid[chosen[-1]]) ** 2).sum(1))
        chosen.append(int(distance.argmax()))
    return [(int(top), int(left)) for top, left in grid[chosen[:count]]]
