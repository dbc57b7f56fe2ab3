from __future__ import annotations

import io
import random
import struct
import threading
import time
import warnings
import zlib
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import numpy as np
import pytest
from PIL import Image

from rine_cache import images
from rine_cache.images import decode, decoder_version
from rine_cache.quarantine import Reason, UnreadableImageError


def encoded(image: Image.Image | np.ndarray, file_format: str, **settings: object) -> bytes:
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, file_format, **settings)
    return buffer.getvalue()


def pixels(content: bytes) -> np.ndarray:
    image = decode(content).rgb
    assert image.mode == "RGB"
    return np.asarray(image)


def reason(content: bytes) -> Reason:
    with pytest.raises(UnreadableImageError) as caught:
        decode(content)
    assert caught.value.detail, "a quarantine says why"
    return caught.value.reason


def png(width: int, height: int, depth: int, color_type: int, rows: bytes, before_data: bytes = b"") -> bytes:
    """Craft a PNG: Pillow writes no 16-bit colour, and no header that lies."""
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + before_data + png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunks + png_chunk(b"IEND", b"")


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def huge_png(width: int, height: int) -> bytes:
    return png(width, height, 8, 2, b"")


def smooth(height: int = 40, width: int = 56) -> np.ndarray:
    """Make pixels of natural smoothness, so that lossy formats keep them nearly."""
    rows, columns = np.mgrid[:height, :width]
    channels = (4 * rows, 3 * columns, 2 * rows + columns)
    return np.stack(channels, axis=2).astype(np.uint8)


def noise() -> np.ndarray:
    """Make pixels that no format compresses to almost nothing."""
    return np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


GRAY = np.array([[0, 1, 127], [128, 254, 255]], np.uint8)
GRAY_AS_RGB = np.repeat(GRAY[:, :, None], 3, axis=2)
GRAY_16 = np.array([[0x0000, 0x00FF, 0x0100], [0x1234, 0x80FF, 0xFFFF]], np.uint16)
HIGH_BYTES_AS_RGB = np.repeat((GRAY_16 >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
COLOURS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 20, 30]]], np.uint8)
ALPHA = np.array([[0, 255], [128, 1]], np.uint8)
LOSSLESS = ["PNG", "BMP", "TIFF", "PPM"]


@pytest.mark.parametrize("file_format", LOSSLESS)
def test_rgb_comes_back_as_it_is(file_format: str) -> None:
    image = decode(encoded(COLOURS, file_format))
    np.testing.assert_array_equal(np.asarray(image.rgb), COLOURS)
    assert (image.facts.width, image.facts.height, image.facts.format) == (2, 2, file_format)


def test_width_and_height_are_not_confused() -> None:
    image = decode(encoded(smooth(40, 56), "PNG"))
    assert (image.facts.width, image.facts.height) == (56, 40)
    assert image.rgb.size == (56, 40)


@pytest.mark.parametrize("settings", [("JPEG", {"quality": 95}), ("WEBP", {}), ("AVIF", {}), ("JPEG2000", {})])
def test_lossy_formats_come_back_nearly(settings: tuple[str, dict[str, object]]) -> None:
    file_format, options = settings
    if file_format not in images.FORMATS:
        pytest.skip(f"this Pillow has no {file_format}")
    image = decode(encoded(smooth(), file_format, **options))
    difference = np.asarray(image.rgb).astype(int) - smooth()
    assert np.abs(difference).mean() < 6
    assert image.facts.format == file_format


@pytest.mark.parametrize("file_format", LOSSLESS)
def test_gray_is_repeated_over_the_channels(file_format: str) -> None:
    np.testing.assert_array_equal(pixels(encoded(GRAY, file_format)), GRAY_AS_RGB)


def test_one_bit_is_black_and_white() -> None:
    bits = np.array([[True, False, True]])
    np.testing.assert_array_equal(pixels(encoded(bits, "PNG"))[0], [[255] * 3, [0] * 3, [255] * 3])


@pytest.mark.parametrize(("depth", "row", "levels"), [(2, b"\x1b", [0, 85, 170, 255]), (4, b"\x1f", [17, 255])])
def test_gray_of_few_bits_is_stretched_to_the_whole_range(depth: int, row: bytes, levels: list[int]) -> None:
    decoded = pixels(png(len(levels), 1, depth, 0, b"\0" + row))
    assert decoded[0, :, 0].tolist() == levels


@pytest.mark.parametrize("file_format", ["PNG", "GIF", "BMP", "TIFF"])
def test_a_palette_gives_its_colours(file_format: str) -> None:
    image = Image.fromarray(COLOURS).quantize(4)
    assert image.mode == "P"
    np.testing.assert_array_equal(pixels(encoded(image, file_format)), COLOURS)


def test_a_transparent_palette_entry_keeps_its_colour() -> None:
    image = Image.fromarray(COLOURS).quantize(4)
    transparent = image.getpixel((0, 0))
    np.testing.assert_array_equal(pixels(encoded(image, "PNG", transparency=transparent)), COLOURS)


def test_a_palette_with_an_alpha_per_entry_keeps_its_colours() -> None:
    image = Image.fromarray(COLOURS).quantize(4)
    np.testing.assert_array_equal(pixels(encoded(image, "PNG", transparency=b"\x00\x40\x80\xff")), COLOURS)


@pytest.mark.parametrize("settings", [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})])
def test_alpha_is_dropped_not_blended(settings: tuple[str, dict[str, object]]) -> None:
    file_format, options = settings
    image = Image.fromarray(np.dstack([COLOURS, ALPHA]))
    assert image.mode == "RGBA"
    np.testing.assert_array_equal(pixels(encoded(image, file_format, **options)), COLOURS)


def test_alpha_of_gray_is_dropped_not_blended() -> None:
    image = Image.merge("LA", (Image.fromarray(GRAY[:, :2]), Image.fromarray(ALPHA)))
    np.testing.assert_array_equal(pixels(encoded(image, "PNG")), GRAY_AS_RGB[:, :2])


def test_a_colour_key_is_dropped() -> None:
    key = png_chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))
    assert pixels(png(1, 1, 8, 2, b"\0\x01\x02\x03", before_data=key)).tolist() == [[[1, 2, 3]]]


def test_a_cmyk_jpeg_is_converted_without_a_profile() -> None:
    cyan, magenta, yellow, black = 10, 120, 130, 40
    content = encoded(Image.new("CMYK", (16, 16), (cyan, magenta, yellow, black)), "JPEG", quality=100)
    expected = [(255 - ink) * (255 - black) / 255 for ink in (cyan, magenta, yellow)]
    np.testing.assert_allclose(pixels(content)[8, 8], expected, atol=2)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_gray_of_16_bits_gives_its_high_byte(file_format: str) -> None:
    np.testing.assert_array_equal(pixels(encoded(GRAY_16, file_format)), HIGH_BYTES_AS_RGB)


def test_colour_of_16_bits_gives_its_high_byte() -> None:
    content = png(2, 1, 16, 2, b"\0" + struct.pack(">6H", 0x12FF, 0x3400, 0x56FE, 0x00FF, 0x0100, 0xFFFF))
    assert pixels(content).tolist() == [[[0x12, 0x34, 0x56], [0x00, 0x01, 0xFF]]]


def test_colour_of_16_bits_with_alpha_gives_its_high_byte() -> None:
    content = png(1, 1, 16, 6, b"\0" + struct.pack(">4H", 0x12FF, 0x3400, 0x56FE, 0x1000))
    assert pixels(content).tolist() == [[[0x12, 0x34, 0x56]]]


def test_gray_of_16_bits_with_alpha_gives_its_high_byte() -> None:
    assert pixels(png(1, 1, 16, 4, b"\0" + struct.pack(">2H", 0x12FF, 0x3400))).tolist() == [[[0x12] * 3]]


def test_a_pgm_of_16_bits_gives_its_high_byte() -> None:
    assert pixels(b"P5 2 1 65535\n" + struct.pack(">2H", 0x12FF, 0xFFFF)).tolist() == [[[0x12] * 3, [0xFF] * 3]]


@pytest.mark.parametrize(
    "content",
    [
        encoded(np.array([[1, 70_000]], np.int32), "TIFF"),
        encoded(np.array([[0.0, 0.5]], np.float32), "TIFF"),
        b"Pf 1 1 -1.0\n" + struct.pack("<f", 0.5),
    ],
    ids=["32-bit integer TIFF", "float TIFF", "float PFM"],
)
def test_pixels_of_unknown_range_are_refused(content: bytes) -> None:
    assert reason(content) is Reason.UNSUPPORTED_MODE


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_of_several_frames_the_first_is_taken(file_format: str) -> None:
    first, second = (Image.new("RGB", (16, 16), colour) for colour in ((200, 30, 40), (5, 220, 10)))
    lossless = {"lossless": True} if file_format == "WEBP" else {}
    content = encoded(first, file_format, save_all=True, append_images=[second], **lossless)
    assert Image.open(io.BytesIO(content)).n_frames == 2
    np.testing.assert_allclose(pixels(content)[8, 8], (200, 30, 40), atol=2)


@pytest.mark.parametrize(
    "file_format",
    [
        "JPEG",
        "PNG",
        "WEBP",
    ],
)
def test_the_exif_orientation_is_not_applied(file_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to show
    image = decode(encoded(smooth(40, 56), file_format, exif=exif))
    assert Image.open(io.BytesIO(encoded(smooth(40, 56), file_format, exif=exif))).getexif()[0x0112] == 6
    assert (image.facts.width, image.facts.height, image.rgb.size) == (56, 40, (56, 40))
    assert np.abs(np.asarray(image.rgb).astype(int) - smooth(40, 56)).mean() < 6


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_one_pixel_decodes(file_format: str) -> None:
    image = decode(encoded(np.full((1, 1, 3), 77, np.uint8), file_format))
    assert (image.facts.width, image.facts.height) == (1, 1)
    np.testing.assert_allclose(np.asarray(image.rgb), 77, atol=2)


@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_000), (20_000, 3)])
def test_a_long_strip_decodes(size: tuple[int, int]) -> None:
    strip = np.arange(size[0] * size[1] * 3, dtype=np.uint32).astype(np.uint8).reshape(size[1], size[0], 3)
    np.testing.assert_array_equal(pixels(encoded(strip, "PNG")), strip)


def test_no_bytes_are_empty() -> None:
    assert reason(b"") is Reason.EMPTY


@pytest.mark.parametrize(
    "content",
    [
        b"a\n",
        b"Dear reader, this is no image.\n" * 100,
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.4",
        bytes(64),
    ],
    ids=["one letter", "text", "svg", "pdf", "zeros"],
)
def test_what_is_no_image_is_called_so(content: bytes) -> None:
    assert reason(content) is Reason.NOT_AN_IMAGE


def test_a_format_that_is_not_listed_is_refused() -> None:
    content = encoded(Image.new("RGB", (16, 16)), "ICO")
    assert Image.open(io.BytesIO(content)).format == "ICO"
    assert reason(content) is Reason.NOT_AN_IMAGE


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_the_format_is_told_by_content(file_format: str) -> None:
    # decode() is given no name, so that an extension cannot mislead it: the bytes alone must do.
    assert decode(encoded(Image.new("RGB", (8, 8)), file_format)).facts.format == file_format


@pytest.mark.parametrize(
    "settings", [("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {}), ("BMP", {}), ("TIFF", {}), ("PPM", {})]
)
def test_a_truncated_file_is_quarantined_wherever_it_is_cut(settings: tuple[str, dict[str, object]]) -> None:
    content = encoded(noise(), settings[0], **settings[1])
    for length in range(1, len(content) // 2, len(content) // 100):
        assert reason(content[:length]) in {Reason.NOT_AN_IMAGE, Reason.DAMAGED}, length
    for length in [*range(len(content) // 2, len(content), len(content) // 100), len(content) - 1]:
        assert reason(content[:length]) is Reason.DAMAGED, length


def test_a_truncated_png_gives_all_its_pixels_or_none() -> None:
    content = encoded(noise(), "PNG")
    data_end = len(content) - 20  # two checksums of the data and the last chunk; every pixel stands before them
    for length in [*range(60, data_end - 20, 37), *range(data_end - 20, data_end)]:
        assert reason(content[:length]) is Reason.DAMAGED, length
    for length in range(len(content) - 12, len(content)):
        np.testing.assert_array_equal(pixels(content[:length]), noise())


def test_a_png_whose_data_fail_their_checksum_is_damaged() -> None:
    content = bytearray(encoded(smooth(), "PNG"))
    content[len(content) // 2] ^= 0xFF
    assert reason(bytes(content)) is Reason.DAMAGED


def test_too_many_pixels_are_refused_before_they_are_decoded() -> None:
    start = time.perf_counter()
    assert reason(huge_png(60_000, 60_000)) is Reason.TOO_LARGE
    assert reason(huge_png(2**31 - 1, 2**31 - 1)) is Reason.TOO_LARGE
    assert time.perf_counter() - start < 1


def test_one_pixel_above_the_limit_is_too_large_and_says_how_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 40 * 56)
    np.testing.assert_array_equal(pixels(encoded(smooth(40, 56), "PNG")), smooth(40, 56))
    with pytest.raises(UnreadableImageError, match=r"57 x 40 pixels; at most 2,240 are decoded") as caught:
        decode(encoded(smooth(40, 57), "PNG"))
    assert caught.value.reason is Reason.TOO_LARGE


def test_the_stated_limit_is_the_one_that_holds() -> None:
    # The header alone is right, so that a size within the limit gets as far as the missing pixels.
    assert reason(huge_png(2**14, 2**14)) is Reason.DAMAGED
    assert reason(huge_png(2**14, 2**14 + 1)) is Reason.TOO_LARGE


@pytest.mark.parametrize(
    "settings",
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("WEBP", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("PPM", {}),
    ],
)
def test_mutated_bytes_give_an_image_or_a_quarantine(settings: tuple[str, dict[str, object]]) -> None:
    original = encoded(smooth(), settings[0], **settings[1])
    chance = random.Random(settings[0])  # a string seeds it the same in every process
    outcomes = set()
    for _ in range(150):
        content = bytearray(original)
        for _ in range(chance.randint(1, 8)):
            content[chance.randrange(min(len(content), 400))] = chance.randrange(256)
        try:
            image = decode(bytes(content))
        except UnreadableImageError as error:
            outcomes.add(error.reason)
        else:
            assert image.rgb.mode == "RGB"
            assert image.rgb.size == (image.facts.width, image.facts.height)
            outcomes.add(Reason.NONE)
    assert outcomes - {Reason.NONE}, "the mutations hit something"
    assert outcomes <= {Reason.NONE, Reason.NOT_AN_IMAGE, Reason.DAMAGED, Reason.TOO_LARGE, Reason.UNSUPPORTED_MODE}


@pytest.mark.parametrize(
    "start", [b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF....WEBPVP8 ", b"II*\0"]
)
def test_random_bytes_give_a_quarantine(start: bytes) -> None:
    chance = random.Random(3)
    for _ in range(100):
        assert reason(start + chance.randbytes(chance.randint(1, 300))) is not Reason.NONE


def test_a_shortage_of_memory_is_not_the_image_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr(images, "_check_size", fail)
    with pytest.raises(MemoryError):
        decode(encoded(smooth(), "PNG"))


def test_decoding_in_threads_leaves_the_warning_filters_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(smooth(), "PNG")
    both_within, first_done = threading.Barrier(2, timeout=10), threading.Event()

    def meet(image: Image.Image) -> None:
        if both_within.wait() == 1:  # one of the two leaves after the other
            first_done.wait(10)

    monkeypatch.setattr(images, "_check_size", meet)
    with warnings.catch_warnings(), ThreadPoolExecutor(2) as pool:
        before = list(warnings.filters)
        for _ in range(5):
            first_done.clear()
            pending = [pool.submit(decode, content) for _ in range(2)]
            wait(pending, return_when=FIRST_COMPLETED)
            first_done.set()
            wait(pending)
        assert list(warnings.filters) == before


def test_the_decoder_is_named_with_versions() -> None:
    version = decoder_version()
    rules = {"alpha": "dropped", "exif_orientation": "not applied"}
    assert rules.items() <= version.items()
    assert set(version) - set(rules) == {"pillow", "libjpeg_turbo", "webp", "openjpeg", "avif"}
    assert version["pillow"] == Image.__version__
    assert all(value[0].isdigit() for name, value in version.items() if name in {"pillow", "libjpeg_turbo"})
