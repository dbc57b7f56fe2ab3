"""Crops of the whole image: which windows, in which order. What is smaller is padded with zeros first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from PIL import Image

    from rine_cache.specs.encoding import CenterViewSpec, PatchesViewSpec, TenCropViewSpec

    Pixels = NDArray[np.uint8]  # (height, width, 3)
    Crops = NDArray[np.uint8]  # (V, size, size, 3)


def pad(pixels: Pixels, size: int) -> Pixels:
    """Pad what is smaller than a crop of `size` with zeros on both sides, the odd pixel right and below."""
    missing = [max(size - side, 0) for side in pixels.shape[:2]]
    if not any(missing):
        return pixels
    (above, below), (before, after) = ((gap // 2, gap - gap // 2) for gap in missing)
    return np.pad(pixels, ((above, below), (before, after), (0, 0)))


def only_centre(image: Image.Image, size: int) -> Image.Image:
    """Drop what no centre crop of `size` shows: turning an image into an array costs time by its size."""
    left, top = (max(_middle(side, size), 0) for side in image.size)
    return image.crop((left, top, min(left + size, image.width), min(top + size, image.height)))


def center(pixels: Pixels, size: int) -> Crops:
    """Crop the centre, as torchvision's CenterCrop."""
    padded = pad(pixels, size)
    return _windows(padded, size, [_centre_of(padded, size)])  # (1, size, size, 3)


def _center(pixels: Pixels, view: CenterViewSpec) -> Crops:
    return center(pixels, view.size)


def _tencrop(pixels: Pixels, view: TenCropViewSpec) -> Crops:
    """Crop the four corners and the centre of the image and of its mirror image, in the order of torchvision's."""
    padded = pad(pixels, view.size)
    bottom, right = padded.shape[0] - view.size, padded.shape[1] - view.size
    five = [(0, 0), (0, right), (bottom, 0), (bottom, right), _centre_of(padded, view.size)]
    upright, mirrored = (_windows(whole, view.size, five) for whole in (padded, padded[:, ::-1]))
    return np.concatenate([upright, mirrored])  # (10, size, size, 3)


def _patches(pixels: Pixels, view: PatchesViewSpec) -> Crops:
    """Crop a grid that reaches from the top left to the bottom right corner, row by row."""
    padded = pad(pixels, view.size)
    middle_top, middle_left = _centre_of(padded, view.size)
    tops = _spread(padded.shape[0] - view.size, view.rows, middle_top)
    lefts = _spread(padded.shape[1] - view.size, view.columns, middle_left)
    return _windows(padded, view.size, [(top, left) for top in tops for left in lefts])  # (V, size, size, 3)


CROPS: dict[str, Callable[[Pixels, Any], Crops]] = {"center": _center, "tencrop": _tencrop, "patches": _patches}


def _windows(whole: Pixels, size: int, corners: list[tuple[int, int]]) -> Crops:
    return np.stack([whole[top : top + size, left : left + size] for top, left in corners])  # (V, size, size, 3)


def _centre_of(whole: Pixels, size: int) -> tuple[int, int]:
    """Return the top left corner of the centre crop."""
    return _middle(whole.shape[0], size), _middle(whole.shape[1], size)


def _middle(side: int, size: int) -> int:
    """Return where the middle of a side begins, as torchvision's CenterCrop: halves are rounded to even."""
    return round((side - size) / 2)


def _spread(last: int, count: int, middle: int) -> list[int]:
    """Spread `count` offsets evenly from 0 to `last`, rounded down; a single one is in the middle."""
    return [middle] if count == 1 else [index * last // (count - 1) for index in range(count)]
