"""Normal noise, a block of rows at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]  # (height, width, 3)

BLOCK_VALUES = 2**20  # drawn at a time, so that a large image needs no second of floating-point numbers


def add_noise(
    pixels: Pixels,
    std: float,
    rng: np.random.Generator,
    to_whole: Callable[[NDArray[np.float32]], NDArray[np.float32]] = np.rint,
) -> Pixels:
    """Add independent normal noise to every pixel and channel, clip to 0 to 255, and make it whole.

    Parameters
    ----------
    pixels
        Shape (height, width, 3), uint8.
    std
        Standard deviation in grey levels.
    rng
        Draws one number per pixel and channel, row by row.
    to_whole
        Rounds; `np.trunc` as a bare conversion to 8 bits does.
    """
    noisy = np.empty_like(pixels)
    rows = max(1, BLOCK_VALUES // (pixels.shape[1] * pixels.shape[2]))
    for top in range(0, pixels.shape[0], rows):
        block = pixels[top : top + rows]
        values = block + np.float32(std) * rng.standard_normal(block.shape, np.float32)  # (rows, width, 3)
        noisy[top : top + rows] = to_whole(np.clip(values, 0, 255))
    return noisy
