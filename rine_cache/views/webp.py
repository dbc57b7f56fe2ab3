"""To WebP and back, by Pillow."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, features

from rine_cache.errors import ConfigError
from rine_cache.quarantine import Reason, UnreadableImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]  # (height, width, 3)

WEBP_MAX_SIDE = 16_383  # of the format, in pixels


def webp(pixels: Pixels, quality: int) -> Pixels:
    """Encode as lossy WebP and decode.

    Raises
    ------
    UnreadableImageError
        If a side is longer than `WEBP_MAX_SIDE`.
    ConfigError
        If this Pillow cannot write WebP.
    """
    if max(pixels.shape) > WEBP_MAX_SIDE:
        raise UnreadableImageError(Reason.TOO_LARGE, f"WebP holds at most {WEBP_MAX_SIDE:,} pixels a side")
    if not features.check("webp"):
        raise ConfigError("a view asks for op: webp, and Pillow was built here without libwebp; install its wheel")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="WEBP", quality=quality, lossless=False, method=4)
    return np.asarray(Image.open(buffer))
