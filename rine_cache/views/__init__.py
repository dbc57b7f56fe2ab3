"""Views: deterministic ways to turn one decoded image into V square crops of 8-bit RGB.

Most views prepare the whole image (`prepare`) and crop it (`crops`); the training view augments it (`train`), and
the RINE authors' robustness test perturbs every second one (`perturbed`).

To add a kind of crop, add its settings to `rine_cache.specs.encoding.ViewSpec` and a function to `crops.CROPS`.
To add an operation that comes before the crop, add its settings to `rine_cache.specs.encoding.PrepareSpec` and an
entry to `prepare.OPERATIONS`, with the libraries that it draws on.

A view's pixels depend on its settings, the image and, where they are random, the image's content and the draw:
order, workers, shards and interruptions change nothing.
"""

from __future__ import annotations

from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np

from rine_cache.views.crops import CROPS, only_centre
from rine_cache.views.perturbed import PERTURBED_LIBRARIES, perturb
from rine_cache.views.prepare import OPERATIONS
from rine_cache.views.seeding import generator
from rine_cache.views.train import TRAIN_LIBRARIES, augment

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from rine_cache.specs.encoding import ViewSpec


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
    ConfigError
        If a library was built here without what the view asks for.
    """
    if view.kind == "center" and not view.prepare:
        image = only_centre(image, view.size)
    pixels = np.asarray(image)  # (height, width, 3)
    if view.kind == "train":
        return augment(pixels, view, content_sha256)
    if view.kind == "perturbed":
        return perturb(pixels, view, content_sha256)
    for position, operation in enumerate(view.prepare):
        generator_of = partial(generator, "prepare", content_sha256=content_sha256, index=position)
        pixels = OPERATIONS[operation.op].apply(pixels, operation, generator_of)  # (height, width, 3), of any size
    return CROPS[view.kind](pixels, view)  # (V, size, size, 3)


def libraries(view: ViewSpec) -> dict[str, str]:
    """Name the libraries, decoder (and so Pillow) apart, whose version may change a view's pixels."""
    if view.kind == "train":
        names = TRAIN_LIBRARIES
    elif view.kind == "perturbed":
        names = PERTURBED_LIBRARIES
    else:
        names = frozenset[str]().union(*(OPERATIONS[step.op].libraries(step) for step in view.prepare))
    return {name: _version(name) for name in sorted(names)}


def _version(library: str) -> str:
    if library == "opencv":  # several distributions carry it
        import cv2

        return str(cv2.__version__)
    return metadata.version(library)
