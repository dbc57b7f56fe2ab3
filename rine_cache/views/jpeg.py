"""To JPEG and back, by either of two libraries."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from rine_cache.quarantine import Reason, UnreadableImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]  # (height, width, 3)


JPEG_MAX_SIDE = 65_500  # of libjpeg, in pixels


def check_jpeg_sides(pixels: Pixels) -> None:
    """Quarantine an image that JPEG cannot hold.

    Raises
    ------
    UnreadableImageError
        If a side is longer than `JPEG_MAX_SIDE`.
    """
    if max(pixels.shape) > JPEG_MAX_SIDE:
        raise UnreadableImageError(Reason.TOO_LARGE, f"JPEG holds at most {JPEG_MAX_SIDE:,} pixels a side")


def jpeg_by_pillow(pixels: Pixels, quality: int, subsampling: str = "4:2:0") -> Pixels:
    """Encode and decode with Pillow; its own default is 4:2:0 too."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(buffer))


def jpeg_by_opencv(pixels: Pixels, quality: int) -> Pixels:
    """Encode and decode with OpenCV, whose channels are in the order blue, green, red."""
    import cv2

    _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(pixels[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None, "what OpenCV encoded it decodes"
    return np.asarray(decoded[:, :, ::-1], np.uint8)
