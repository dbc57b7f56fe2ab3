"""Gaussian blur as it is meant; the RINE authors' two blurs are in `train` and `perturbed`."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]  # (height, width, 3)

REACH = 4  # of the kernel, in standard deviations; 6e-5 of the weight lies beyond


def blur(pixels: Pixels, sigma: float) -> Pixels:
    """Blur each channel by OpenCV, with a standard deviation of `sigma` pixels; mirrored at the border (cba|abc).

    In floating point, since OpenCV's blur of 8-bit numbers has weights of 8 bits, and SciPy's rounds down twice.
    """
    import cv2

    side = 2 * ceil(REACH * sigma) + 1
    blurred = np.empty_like(pixels)
    for channel in range(pixels.shape[2]):  # one at a time, to hold a third of the floating-point numbers
        exact = cv2.GaussianBlur(
            pixels[:, :, channel].astype(np.float32), (side, side), sigma, borderType=cv2.BORDER_REFLECT
        )
        blurred[:, :, channel] = np.rint(exact).reshape(pixels.shape[:2])
    return blurred
