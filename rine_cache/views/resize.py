"""Other sizes, by either of two libraries, and never beyond the pixels that are held."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from rine_cache.images import MAX_PIXELS
from rine_cache.quarantine import Reason, UnreadableImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rine_cache.specs.encoding import Interpolation

    Pixels = NDArray[np.uint8]  # (height, width, 3)


def resize(pixels: Pixels, height: int, width: int, interpolation: Interpolation, *, antialias: bool) -> Pixels:
    """Resize to `height` x `width`: by Pillow if antialiased, by OpenCV if not.

    Raises
    ------
    UnreadableImageError
        If the result would have more than `MAX_PIXELS` pixels.
    """
    if height * width > MAX_PIXELS:
        raise UnreadableImageError(
            Reason.TOO_LARGE, f"resized to {width} x {height} pixels; at most {MAX_PIXELS:,} are held"
        )
    if (height, width) == pixels.shape[:2]:
        return pixels
    if antialias:
        by_pillow = Image.Resampling[interpolation.upper()]
        return np.asarray(Image.fromarray(pixels).resize((width, height), by_pillow))
    import cv2

    by_opencv = {
        "nearest": cv2.INTER_NEAREST,
        "bilinear": cv2.INTER_LINEAR,
        "bicubic": cv2.INTER_CUBIC,
        "lanczos": cv2.INTER_LANCZOS4,
    }
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=by_opencv[interpolation]), np.uint8)


def sides_of(height: int, width: int, to: int | tuple[int, int]) -> tuple[int, int]:
    """Return height and width; a long side that follows from the short one is rounded down, as torchvision does."""
    if isinstance(to, tuple):
        return to
    if height < width:
        return to, int(to * width / height)
    return int(to * height / width), to


def scaled_sides(height: int, width: int, factor: float) -> tuple[int, int]:
    """Return height and width times `factor`, rounded, halves to even, at least 1."""
    return max(1, round(height * factor)), max(1, round(width * factor))
