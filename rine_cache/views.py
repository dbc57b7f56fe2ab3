"""Views: deterministic ways to turn one decoded image into V square crops of 8-bit RGB.

To add a view, add its kind to `rine_cache.specs.encoding.ViewSpec`, a function here that renders it, and an
entry in `RENDERERS`. Random values must come from the generator that the function is given and from nowhere
else: it depends on the view's seed, the image's content and the draw, so that order, workers, shards and
interruptions change nothing.
"""

from __future__ import annotations

import hashlib
import io
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from rine_cache.quarantine import Reason, UnreadableImageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from rine_cache.specs.encoding import ViewSpec

    Pixels = NDArray[np.uint8]  # (height, width, 3)
    Renderer = Callable[[Pixels, ViewSpec, int, np.random.Generator], Pixels]  # of one draw, by its number


JPEG_MAX_SIDE = 65_500  # of libjpeg, in pixels


def render(view: ViewSpec, image: Image.Image, content_sha256: bytes) -> NDArray[np.uint8]:
    """Render all draws of a view.

    Parameters
    ----------
    view
        What to do.
    image
        RGB, any size.
    content_sha256
        The 32-byte digest of the image file; seeds random views.

    Returns
    -------
    Crops, shape (V, size, size, 3), uint8, not normalised.

    Raises
    ------
    UnreadableImageError
        If the image is beyond what the view can take.
    """
    pixels = np.asarray(image)  # (height, width, 3)
    renderer = RENDERERS[view.kind]
    draws = [renderer(pixels, view, draw, _generator(view.seed, content_sha256, draw)) for draw in range(view.draws)]
    return np.stack(draws)  # (V, size, size, 3)


def libraries(view: ViewSpec) -> dict[str, str]:
    """Name the libraries, decoder apart, whose version may change a view's pixels."""
    if view.kind == "center":
        return {}
    import cv2

    return {"opencv": cv2.__version__, **{name: metadata.version(name) for name in ("numpy", "scipy")}}


def _generator(seed: int, content_sha256: bytes, draw: int) -> np.random.Generator:
    digest = hashlib.sha256(b"rine-cache view|%d|%b|%d" % (seed, content_sha256, draw)).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def _center(pixels: Pixels, view: ViewSpec, _draw: int, _rng: np.random.Generator) -> Pixels:
    """Crop the centre as torchvision's CenterCrop does: halves are rounded to even."""
    padded = _pad(pixels, view.size)
    top = round((padded.shape[0] - view.size) / 2)
    left = round((padded.shape[1] - view.size) / 2)
    return padded[top : top + view.size, left : left + view.size]


def _train(pixels: Pixels, view: ViewSpec, _draw: int, rng: np.random.Generator) -> Pixels:
    """Augment as RINE's training does (arXiv:2402.19091, section 4.1): blur, JPEG, random crop, flip.

    Every random value is drawn whether used or not, so that each has a fixed place in the stream. Differs
    from the authors' code where an image is smaller than the crop: theirs raises, this pads with zeros.
    """
    blurs, sigma = rng.random() < 0.5, rng.uniform(0.0, 3.0)
    compresses, by_opencv = rng.random() < 0.5, rng.random() < 0.5
    end, in_range = (30, 100)[rng.integers(2)], rng.integers(30, 101)
    top_fraction, left_fraction, flips = rng.random(), rng.random(), rng.random() < 0.5

    if max(pixels.shape) > JPEG_MAX_SIDE:  # whether or not JPEG is drawn, so that the rule is the image's alone
        raise UnreadableImageError(Reason.TOO_LARGE, f"JPEG holds at most {JPEG_MAX_SIDE:,} pixels a side")
    if blurs:
        pixels = _blur(pixels, sigma)
    if compresses:
        quality = int(end if view.jpeg_quality == "ends" else in_range)
        pixels = _jpeg_opencv(pixels, quality) if by_opencv else _jpeg_pillow(pixels, quality)
    padded = _pad(pixels, view.size)
    top = int(top_fraction * (padded.shape[0] - view.size + 1))
    left = int(left_fraction * (padded.shape[1] - view.size + 1))
    crop = padded[top : top + view.size, left : left + view.size]
    return crop[:, ::-1] if flips else crop


RENDERERS: dict[str, Renderer] = {"center": _center, "train": _train}


def _pad(pixels: Pixels, size: int) -> Pixels:
    """Pad what is smaller than the crop with zeros on both sides, the odd pixel right and below."""
    missing = [max(size - side, 0) for side in pixels.shape[:2]]
    if not any(missing):
        return pixels
    (above, below), (before, after) = ((gap // 2, gap - gap // 2) for gap in missing)
    return np.pad(pixels, ((above, below), (before, after), (0, 0)))


def _blur(pixels: Pixels, sigma: float) -> Pixels:
    from scipy.ndimage import gaussian_filter

    blurred = np.empty_like(pixels)
    for channel in range(3):
        gaussian_filter(pixels[:, :, channel], sigma=sigma, output=blurred[:, :, channel])
    return blurred


def _jpeg_opencv(pixels: Pixels, quality: int) -> Pixels:
    import cv2

    _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(pixels[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None, "what OpenCV encoded it decodes"
    return np.asarray(decoded[:, :, ::-1], np.uint8)


def _jpeg_pillow(pixels: Pixels, quality: int) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality)
    return np.asarray(Image.open(buffer))
