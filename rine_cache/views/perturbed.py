"""The RINE authors' perturbations, as their code does them and as their names say.

Each image is perturbed with probability one half and cropped at its centre. Read from the authors' repository,
github.com/mever-team/rine, ``src/perturbation.py`` and ``src/data.py`` at commit 325a1c9:

========  ==================================================  ===========================================
          as-coded                                            as-named
========  ==================================================  ===========================================
blur      sigma 4: OpenCV's BORDER_DEFAULT, 4, passed as      the sigma that OpenCV derives from the
          sigma; kernel of 3, 5, 7 or 9 pixels                kernel: about .8, 1.1, 1.4 or 1.7
crop      5 to 20 % of each side cut away in all, then        resized to the image's own size
          resized with width and height swapped
compress  JPEG 95, OpenCV's default, with red and blue        JPEG of the drawn quality, 10 to 74
          swapped: the drawn quality is passed as the
          flag's number, which OpenCV ignores
noise     normal; the standard deviation, called variance,    rounded
          from 5 to 20; rounded down
combined  all four, in this order, each as above              all four, in this order, each as above
after     resized to 256x256 whatever the aspect; what is     nothing is resized
          not perturbed is not resized
========  ==================================================  ===========================================

Three things differ from their code even as coded. Random values are an image's own: theirs come from each process's
global generators. Noise is drawn in 32 bits, not 64. And where an image is so small that a crop of it would cut no
pixel, theirs raises and this cuts nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rine_cache.specs.encoding import RINE_RESIZED_SIDE
from rine_cache.views.crops import center
from rine_cache.views.jpeg import check_jpeg_sides, jpeg_by_opencv
from rine_cache.views.noise import add_noise
from rine_cache.views.resize import resize
from rine_cache.views.seeding import generator

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from rine_cache.specs.encoding import PerturbedViewSpec

    Pixels = NDArray[np.uint8]  # (height, width, 3)

PERTURBED_LIBRARIES = frozenset({"opencv", "numpy"})
OPENCV_DEFAULT_QUALITY = 95
_COMBINED = ("blur", "crop", "compress", "noise")


class Drawn(NamedTuple):
    """One image's random values, all drawn whether used or not, so that each has a fixed place in the stream."""

    perturbs: bool
    kernel: int  # side of the blur's kernel, in pixels
    cut: float  # share of each side that the crop cuts away
    quality: int
    std: float  # grey levels
    rng: np.random.Generator  # what the noise is drawn from, after the others


def draw(seed: int, content_sha256: bytes) -> Drawn:
    """Draw an image's values; they depend on nothing else."""
    rng = generator("perturbed", seed, content_sha256, 0)
    return Drawn(
        perturbs=rng.random() < 0.5,
        kernel=(3, 5, 7, 9)[rng.integers(4)],
        cut=rng.uniform(0.05, 0.2),
        quality=int(rng.integers(10, 75)),
        std=rng.uniform(5.0, 20.0),
        rng=rng,
    )


def perturb(pixels: Pixels, view: PerturbedViewSpec, content_sha256: bytes) -> NDArray[np.uint8]:
    """Render the one crop of a perturbed view.

    Returns
    -------
    The crop, shape (1, size, size, 3), uint8.

    Raises
    ------
    UnreadableImageError
        If the image is too large for a JPEG that is asked for.
    """
    names = _COMBINED if view.perturbation == "combined" else (view.perturbation,)
    if "compress" in names:  # whether or not the image is perturbed, so that the rule is the image's alone
        check_jpeg_sides(pixels)
    drawn = draw(view.seed, content_sha256)
    if drawn.perturbs:
        as_coded = view.how == "as-coded"
        for name in names:
            pixels = _PERTURBATIONS[name](pixels, drawn, as_coded)
        if as_coded:
            pixels = resize(pixels, RINE_RESIZED_SIDE, RINE_RESIZED_SIDE, "bilinear", antialias=True)
    return center(pixels, view.size)  # (1, size, size, 3)


def _blur(pixels: Pixels, drawn: Drawn, as_coded: bool) -> Pixels:
    import cv2

    derived_from_the_kernel = 0.0
    sigma = 4.0 if as_coded else derived_from_the_kernel
    return np.asarray(cv2.GaussianBlur(pixels, (drawn.kernel, drawn.kernel), sigma), np.uint8)


def _crop(pixels: Pixels, drawn: Drawn, as_coded: bool) -> Pixels:
    import cv2

    height, width = pixels.shape[:2]
    rows, columns = int(height * drawn.cut * 0.5), int(width * drawn.cut * 0.5)  # of each of two margins
    inside = pixels[rows : height - rows, columns : width - columns]
    width_and_height = (height, width) if as_coded else (width, height)
    return np.asarray(cv2.resize(inside, width_and_height, interpolation=cv2.INTER_CUBIC), np.uint8)


def _compress(pixels: Pixels, drawn: Drawn, as_coded: bool) -> Pixels:
    if as_coded:  # their RGB goes where OpenCV takes BGR
        return jpeg_by_opencv(pixels[:, :, ::-1], OPENCV_DEFAULT_QUALITY)[:, :, ::-1]
    return jpeg_by_opencv(pixels, drawn.quality)


def _noise(pixels: Pixels, drawn: Drawn, as_coded: bool) -> Pixels:
    return add_noise(pixels, drawn.std, drawn.rng, np.trunc if as_coded else np.rint)


_PERTURBATIONS: dict[str, Callable[[Pixels, Drawn, bool], Pixels]] = {
    "blur": _blur,
    "crop": _crop,
    "compress": _compress,
    "noise": _noise,
}
