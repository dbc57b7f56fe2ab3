"""Operations on the whole image, before it is cropped: one format or scale for every class, or a perturbation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rine_cache.views.blur import blur
from rine_cache.views.jpeg import check_jpeg_sides, jpeg_by_pillow
from rine_cache.views.noise import add_noise
from rine_cache.views.resize import resize, scaled_sides, sides_of
from rine_cache.views.webp import webp

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rine_cache.specs.encoding import BlurSpec, DownscaleSpec, JpegSpec, NoiseSpec, ResizeSpec, WebpSpec

    Pixels = NDArray[np.uint8]  # (height, width, 3)

# Gives this image's generator at this place in the list, from the operation's own seed.
GeneratorOf = Callable[[int], np.random.Generator]


class Operation(NamedTuple):
    """How an operation is done, and which libraries' versions, Pillow apart, may change what it gives."""

    apply: Callable[[Pixels, Any, GeneratorOf], Pixels]
    libraries: Callable[[Any], frozenset[str]]


def _jpeg(pixels: Pixels, operation: JpegSpec, _: GeneratorOf) -> Pixels:
    check_jpeg_sides(pixels)
    return jpeg_by_pillow(pixels, operation.quality, operation.subsampling)


def _webp(pixels: Pixels, operation: WebpSpec, _: GeneratorOf) -> Pixels:
    return webp(pixels, operation.quality)


def _resize(pixels: Pixels, operation: ResizeSpec, _: GeneratorOf) -> Pixels:
    height, width = sides_of(pixels.shape[0], pixels.shape[1], operation.to)
    return resize(pixels, height, width, operation.interpolation, antialias=operation.antialias)


def _downscale(pixels: Pixels, operation: DownscaleSpec, _: GeneratorOf) -> Pixels:
    height, width = scaled_sides(pixels.shape[0], pixels.shape[1], operation.factor)
    return resize(pixels, height, width, operation.interpolation, antialias=operation.antialias)


def _blur(pixels: Pixels, operation: BlurSpec, _: GeneratorOf) -> Pixels:
    return blur(pixels, operation.sigma)


def _noise(pixels: Pixels, operation: NoiseSpec, generator_of: GeneratorOf) -> Pixels:
    return add_noise(pixels, operation.std, generator_of(operation.seed))


def _libraries_of_resize(operation: ResizeSpec | DownscaleSpec) -> frozenset[str]:
    return frozenset() if operation.antialias else frozenset({"opencv"})


OPERATIONS: dict[str, Operation] = {
    "jpeg": Operation(_jpeg, lambda _: frozenset()),
    "webp": Operation(_webp, lambda _: frozenset()),
    "resize": Operation(_resize, _libraries_of_resize),
    "downscale": Operation(_downscale, _libraries_of_resize),
    "blur": Operation(_blur, lambda _: frozenset({"opencv"})),
    "noise": Operation(_noise, lambda _: frozenset({"numpy"})),
}
