"""RINE's training augmentation: blur, JPEG, random crop, flip."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rine_cache.views.crops import pad
from rine_cache.views.jpeg import check_jpeg_sides, jpeg_by_opencv, jpeg_by_pillow
from rine_cache.views.seeding import generator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rine_cache.specs.encoding import TrainViewSpec

    Pixels = NDArray[np.uint8]  # (height, width, 3)

TRAIN_LIBRARIES = frozenset({"opencv", "numpy", "scipy"})


def augment(pixels: Pixels, view: TrainViewSpec, content_sha256: bytes) -> NDArray[np.uint8]:
    """Render all draws of the training view.

    Random values come from nothing but a generator of the view's seed, the image's content and the draw.

    Returns
    -------
    Crops, shape (V, size, size, 3), uint8.

    Raises
    ------
    UnreadableImageError
        If the image is too large for JPEG.
    """
    check_jpeg_sides(pixels)  # whether or not JPEG is drawn, so that the rule is the image's alone
    draws = [
        _augment_once(pixels, view, generator("view", view.seed, content_sha256, draw)) for draw in range(view.draws)
    ]
    return np.stack(draws)  # (V, size, size, 3)


def _augment_once(pixels: Pixels, view: TrainViewSpec, rng: np.random.Generator) -> Pixels:
    """Augment as RINE's training does (arXiv:2402.19091, section 4.1): blur, JPEG, random crop, flip.

    Every random value is drawn whether used or not, so that each has a fixed place in the stream. Differs
    from the authors' code where an image is smaller than the crop: theirs raises, this pads with zeros.
    """
    blurs, sigma = rng.random() < 0.5, rng.uniform(0.0, 3.0)
    compresses, by_opencv = rng.random() < 0.5, rng.random() < 0.5
    end, in_range = (30, 100)[rng.integers(2)], rng.integers(30, 101)
    top_fraction, left_fraction, flips = rng.random(), rng.random(), rng.random() < 0.5

    if blurs:
        pixels = _blur(pixels, sigma)
    if compresses:
        quality = int(end if view.jpeg_quality == "ends" else in_range)
        pixels = jpeg_by_opencv(pixels, quality) if by_opencv else jpeg_by_pillow(pixels, quality)
    padded = pad(pixels, view.size)
    top = int(top_fraction * (padded.shape[0] - view.size + 1))
    left = int(left_fraction * (padded.shape[1] - view.size + 1))
    crop = padded[top : top + view.size, left : left + view.size]
    return crop[:, ::-1] if flips else crop


def _blur(pixels: Pixels, sigma: float) -> Pixels:
    from scipy.ndimage import gaussian_filter

    blurred = np.empty_like(pixels)
    for channel in range(3):
        gaussian_filter(pixels[:, :, channel], sigma=sigma, output=blurred[:, :, channel])
    return blurred
