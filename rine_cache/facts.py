"""What an image's file says without its content being understood: size, format, mode, compression, a perceptual hash.

Cached for every image while its bytes are in memory anyway, so that audits need no second read.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

import imagehash
import numpy as np
from PIL import ExifTags

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

# The luminance table of the JPEG standard's annex K, in natural order; libjpeg scales it by the quality.
_ANNEX_K = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.int64,
).reshape(-1)  # (64,)


class ImageFacts(NamedTuple):
    """What is known of one image file.

    Attributes
    ----------
    width, height
        In pixels, before any view.
    format, mode
        Pillow's names: the format by content, the mode before conversion to RGB.
    jpeg_quality
        libjpeg's quality, 1 to 100, whose luminance table is nearest to the file's; 0 for what is no JPEG.
    exif
        Whether the file holds EXIF data.
    perceptual_hash
        64-bit pHash (ImageHash's `phash`) of the RGB pixels: few bits change when an image is encoded or scaled again.
    """

    width: int
    height: int
    format: str
    mode: str
    jpeg_quality: int
    exif: bool
    perceptual_hash: int


NO_FACTS = ImageFacts(0, 0, "", "", 0, exif=False, perceptual_hash=0)


def facts_of(opened: Image.Image, rgb: Image.Image) -> ImageFacts:
    """Gather the facts of an image as it was opened, and as its RGB pixels are."""
    return ImageFacts(
        width=rgb.width,
        height=rgb.height,
        format=opened.format or "?",
        mode=opened.mode,
        jpeg_quality=_jpeg_quality(getattr(opened, "quantization", None)),
        exif=_holds_exif(opened),
        perceptual_hash=int.from_bytes(np.packbits(imagehash.phash(rgb).hash).tobytes(), "big"),
    )


def _holds_exif(opened: Image.Image) -> bool:
    in_tiff = ExifTags.Base.ExifOffset in getattr(opened, "tag_v2", ())  # a TIFF is made of tags itself
    return in_tiff or bool(opened.info.get("exif"))


def _jpeg_quality(tables: dict[int, list[int]] | None) -> int:
    """Find the quality whose table differs least from a file's first, its luminance table."""
    if not tables:
        return 0
    found = np.array(next(iter(tables.values())), np.int64)  # (64,)
    return int(np.abs(_scaled_tables() - found).sum(axis=1).argmin()) + 1


@functools.cache
def _scaled_tables() -> NDArray[np.int64]:
    """Scale the standard's table as libjpeg's jpeg_quality_scaling does, for qualities 1 to 100, shape (100, 64)."""
    quality = np.arange(1, 101)[:, None]  # (100, 1)
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)  # (100, 1)
    return ((_ANNEX_K * scale + 50) // 100).clip(1, 255)  # (100, 64)
