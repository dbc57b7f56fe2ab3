"""Facts of image files, against what was told to the libraries that wrote them."""

from __future__ import annotations

import io
from typing import Any

import cv2
import imagehash
import numpy as np
import pytest
from PIL import Image

from rine_cache.images import decode

NOISE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


def photo(height: int = 96, width: int = 128, seed: int = 0) -> Image.Image:
    """Make an image that is smooth, as photographs are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, file_format: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **settings)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("settings", [{}, {"progressive": True, "optimize": True}, {"subsampling": 0}])
def test_every_quality_of_pillow_is_recovered(mode: str, settings: dict[str, Any]) -> None:
    image = Image.fromarray(NOISE).convert(mode)
    found = [decode(encoded(image, "JPEG", quality=quality, **settings)).facts for quality in range(1, 101)]
    assert [facts.jpeg_quality for facts in found] == list(range(1, 101))
    assert {facts.mode for facts in found} == {mode}


def test_every_quality_of_opencv_is_recovered() -> None:
    for quality in range(1, 101):
        written, content = cv2.imencode(".jpg", NOISE, [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert written
        assert decode(content.tobytes()).facts.jpeg_quality == quality


def test_tables_of_no_quality_give_the_nearest() -> None:
    image = Image.fromarray(NOISE)
    tables = Image.open(io.BytesIO(encoded(image, "JPEG", quality=60))).quantization
    other = [[value + (index % 7 == 0) for index, value in enumerate(table)] for table in tables.values()]
    assert decode(encoded(image, "JPEG", qtables=other)).facts.jpeg_quality == 60
    assert decode(encoded(image, "JPEG", qtables=[[255] * 64, [1] * 64])).facts.jpeg_quality == 1, "luminance alone"


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF"])
def test_what_is_no_jpeg_has_no_jpeg_quality(file_format: str) -> None:
    facts = decode(encoded(Image.fromarray(NOISE), file_format)).facts
    assert (facts.jpeg_quality, facts.format) == (0, file_format)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_exif_data_are_noticed(file_format: str) -> None:
    exif = Image.Exif()
    exif[0x8769] = {0x829A: (1, 60)}  # an exposure time
    exif = Image.open(io.BytesIO(encoded(photo(), "JPEG", exif=exif))).getexif()  # as read, which TIFFs need
    assert decode(encoded(photo(), file_format, exif=exif)).facts.exif is True
    assert decode(encoded(photo(), file_format)).facts.exif is False


@pytest.mark.parametrize(
    ("mode", "file_format"),
    [
        *(("1", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("RGB", "PNG"), ("RGBA", "PNG"), ("I;16", "PNG")),
        *(("P", "GIF"), ("RGBA", "WEBP"), ("RGB", "WEBP"), ("L", "JPEG"), ("CMYK", "TIFF")),
    ],
)
def test_mode_and_size_are_those_of_the_file(mode: str, file_format: str) -> None:
    content = encoded(Image.new(mode, (7, 5)), file_format)
    facts = decode(content).facts
    assert (facts.mode, facts.format) == (Image.open(io.BytesIO(content)).mode, file_format)
    assert facts.mode == mode
    assert (facts.width, facts.height) == (7, 5)


def distance(first: int, second: int) -> int:
    return (first ^ second).bit_count()


def test_the_perceptual_hash_is_imagehashs() -> None:
    for seed in range(5):
        found = decode(encoded(photo(seed=seed), "PNG")).facts.perceptual_hash
        assert f"{found:016x}" == str(imagehash.phash(photo(seed=seed)))


def test_the_perceptual_hash_outlives_encoding_and_scaling_but_tells_images_apart() -> None:
    hashes = []
    for seed in range(20):
        image = photo(seed=seed)
        original = decode(encoded(image, "PNG")).facts.perceptual_hash
        lossless = [("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("PNG", {"compress_level": 0})]
        for file_format, settings in lossless:
            assert decode(encoded(image, file_format, **settings)).facts.perceptual_hash == original
        assert distance(decode(encoded(image, "JPEG", quality=90)).facts.perceptual_hash, original) <= 4
        smaller = image.resize((64, 48), Image.Resampling.LANCZOS)
        assert distance(decode(encoded(smaller, "JPEG", quality=90)).facts.perceptual_hash, original) <= 6
        hashes.append(original)
    assert min(distance(first, second) for first in hashes for second in hashes if first != second) > 8
    assert len(set(hashes)) == 20
