"""Operations on the whole image, before it is cropped: one format, or one scale, for every class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from rine_cache.images import MAX_PIXELS
from rine_cache.quarantine import Reason, UnreadableImageError
from rine_cache.views.jpeg import check_jpeg_sides, jpeg_by_pillow

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from rine_cache.specs.encoding import JpegSpec, ResizeSpec

    Pixels = NDArray[np.uint8]  # (height, width, 3)


class Operation(NamedTuple):
    """How an operation is done, and which libraries' versions, Pillow apart, may change what it gives."""

    apply: Callable[[Pixels, Any], Pixels]
    libraries: Callable[[Any], frozenset[str]]


def _jpeg(pixels: Pixels, operation: JpegSpec) -> Pixels:
    check_jpeg_sides(pixels)
    return jpeg_by_pillow(pixels, operation.quality, operation.subsampling)


def _resize(pixels: Pixels, operation: ResizeSpec) -> Pixels:
    height, width = _resized_sides(pixels.shape[0], pixels.shape[1], operation.to)
    if height * width > MAX_PIXELS:
        raise UnreadableImageError(
            Reason.TOO_LARGE, f"resized to {width} x {height} pixels; at most {MAX_PIXELS:,} are held"
        )
    if (height, width) == pixels.shape[:2]:
        return pixels
    if operation.antialias:
        by_pillow = Image.Resampling[operation.interpolation.upper()]
        return np.asarray(Image.fromarray(pixels).resize((width, height), by_pillow))
    import cv2

    by_opencv = {
        "nearest": cv2.INTER_NEAREST,
        "bilinear": cv2.INTER_LINEAR,
        "bicubic": cv2.INTER_CUBIC,
        "lanczos": cv2.INTER_LANCZOS4,
    }
    resized = cv2.resize(pixels, (width, height), interpolation=by_opencv[operation.interpolation])
    return np.asarray(resized, np.uint8)


def _resized_sides(height: int, width: int, to: int | tuple[int, int]) -> tuple[int, int]:
    """Return height and width; a long side that follows from the short one is rounded down, as torchvision does."""
    if isinstance(to, tuple):
        return to
    if height < width:
        return to, int(to * width / height)
    return int(to * height / width), to


OPERATIONS: dict[str, Operation] = {
    "jpeg": Operation(_jpeg, lambda _: frozenset()),
    "resize": Operation(_resize, lambda resize: frozenset() if resize.antialias else frozenset({"opencv"})),
}
