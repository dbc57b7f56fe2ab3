"""Bytes to RGB pixels, with one stated rule for every kind of image.

===============================  ==================================================================
kind                             rule
===============================  ==================================================================
format                           by content, never by extension; see `FORMATS`
gray, palette, 1 bit, YCbCr      converted to RGB
transparency                     the alpha channel is dropped, as the RINE authors' code does
CMYK                             Pillow's plain conversion, no colour profile
16 bits a channel                the high byte
32-bit integer, floating point   quarantined: their range is not known
several frames                   the first
EXIF orientation                 not applied, as the RINE authors' code does; Pillow itself turns TIFFs
truncated or damaged             quarantined; never half gray
more than `MAX_PIXELS` pixels    quarantined before its pixels are decoded
===============================  ==================================================================
"""

from __future__ import annotations

import io
import warnings
from typing import NamedTuple

import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError, features

from rine_cache.facts import ImageFacts, facts_of
from rine_cache.quarantine import Reason, UnreadableImageError

Image.init()  # registers every plug-in; by itself Pillow does so only when a first guess fails
FORMATS: list[str] = [
    name
    for name in ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
    if name in Image.OPEN  # some builds of Pillow lack a codec
]
MAX_PIXELS = 2**28  # 16,384 x 16,384: 805 MB as RGB
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit is lower; the one above is checked before pixels are decoded
# Oddities in metadata, which is not used. For good: threads may decode, where warnings.catch_warnings is not safe.
warnings.filterwarnings("ignore", module=r"PIL\.")

_CONVERTIBLE = {"1", "L", "LA", "La", "P", "PA", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"}


class DecodedImage(NamedTuple):
    """An image's RGB pixels, before any view, and what its file said of it."""

    rgb: Image.Image
    facts: ImageFacts


def decode(content: bytes) -> DecodedImage:
    """Decode an image file's bytes by the rules above.

    Parameters
    ----------
    content
        The whole file.

    Raises
    ------
    UnreadableImageError
        With the reason for its quarantine.
    """
    if not content:
        raise UnreadableImageError(Reason.EMPTY, "the file holds no bytes")
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        _check_size(image)
        image.load()
        rgb = _to_rgb(image)
        return DecodedImage(rgb, facts_of(image, rgb))
    except (UnreadableImageError, MemoryError):  # a shortage of memory says nothing about the image
        raise
    except UnidentifiedImageError:
        raise UnreadableImageError(Reason.NOT_AN_IMAGE, "no known image format") from None
    except Exception as error:  # noqa: BLE001 - Pillow's plug-ins raise many kinds on malformed bytes
        raise UnreadableImageError(Reason.DAMAGED, f"{type(error).__name__}: {error}") from None


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImageError(
            Reason.TOO_LARGE, f"{image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are decoded"
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):  # 16 bits, whatever the mode
        high_byte = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)  # (height, width)
        return Image.fromarray(high_byte).convert("RGB")
    if image.mode in _CONVERTIBLE:
        return image.convert("RGB")
    raise UnreadableImageError(Reason.UNSUPPORTED_MODE, f"pixel mode {image.mode!r} has no known range")


def decoder_version() -> dict[str, str]:
    """Name what decodes pixels, and the rules that others choose otherwise: all of it is in the encoding key."""
    return {
        "alpha": "dropped",
        "exif_orientation": "not applied",
        "pillow": PIL.__version__,
        "libjpeg_turbo": features.version_feature("libjpeg_turbo") or "?",
        "webp": features.version_module("webp") or "?",
        "openjpeg": features.version_codec("jpg_2000") or "?",
        "avif": features.version_module("avif") or "?",
    }
