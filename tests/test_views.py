from __future__ import annotations

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from math import floor
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torchvision.transforms import functional

from rine_cache.images import decode
from rine_cache.quarantine import UnreadableImageError
from rine_cache.specs.base import parse
from rine_cache.specs.encoding import BUILTIN_VIEWS, VIEW, CenterViewSpec, PatchesViewSpec, TenCropViewSpec
from rine_cache.views import libraries, render, train
from rine_cache.views.crops import CROPS
from rine_cache.views.jpeg import jpeg_by_opencv, jpeg_by_pillow

if TYPE_CHECKING:
    from collections.abc import Callable

    from rine_cache.specs.encoding import ViewSpec

CONTENT = hashlib.sha256(b"an image").digest()
SIZE = 16
MANY = 600  # of such a count, a share of one half is found within .08, four standard deviations


def content(index: int) -> bytes:
    return hashlib.sha256(b"%d" % index).digest()


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 2, columns * 2, rows + columns], axis=2).astype(np.uint8)


def rendered(view: ViewSpec, pixels: np.ndarray, digest: bytes = CONTENT) -> np.ndarray:
    return render(view, Image.fromarray(pixels), digest)


def center(pixels: np.ndarray, size: int) -> np.ndarray:
    return rendered(CenterViewSpec(kind="center", size=size), pixels)[0]


def view_of(kind: str, **settings: object) -> ViewSpec:
    required = {
        "patches": {"rows": 2, "columns": 2},
        "perturbed": {"perturbation": "combined", "how": "as-coded"},
    }
    return parse(VIEW, {"kind": kind, "size": SIZE, **required.get(kind, {}), **settings}, "here")


def train_view(**settings: object) -> ViewSpec:
    return view_of("train", **settings)


class Calls(NamedTuple):
    """What the train view asked for: names in order, and the values by name, over many images."""

    order: list[list[str]]
    sigmas: list[float]
    opencv: list[int]
    pillow: list[int]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Let blur and JPEG change nothing and write down that they were called."""
    recorded = Calls([], [], [], [])

    def recorder(name: str, values: list) -> Callable[[np.ndarray, float], np.ndarray]:
        def record(pixels: np.ndarray, value: float) -> np.ndarray:
            recorded.order[-1].append(name)
            values.append(value)
            return pixels

        return record

    monkeypatch.setattr(train, "_blur", recorder("blur", recorded.sigmas))
    monkeypatch.setattr(train, "jpeg_by_opencv", recorder("jpeg", recorded.opencv))
    monkeypatch.setattr(train, "jpeg_by_pillow", recorder("jpeg", recorded.pillow))
    return recorded


def render_many(view: ViewSpec, pixels: np.ndarray, calls: Calls) -> np.ndarray:
    crops = []
    for index in range(MANY):
        calls.order.append([])
        crops.append(rendered(view, pixels, content(index))[0])
    return np.stack(crops)


def share(flags: list[bool] | np.ndarray) -> float:
    return float(np.mean(flags))


# The centre crop


@pytest.mark.parametrize("size", [16, 17, 224])
@pytest.mark.parametrize("height_minus_size", [-15, -2, -1, 0, 1, 2, 3, 4, 5, 30])
def test_the_centre_crop_is_torchvisions(size: int, height_minus_size: int) -> None:
    for width_minus_size in (-13, -3, -1, 0, 1, 2, 3, 5, 6, 41):
        pixels = noise(size + height_minus_size, size + width_minus_size)
        of_image = np.asarray(functional.center_crop(Image.fromarray(pixels), [size, size]))
        np.testing.assert_array_equal(center(pixels, size), of_image)
        of_tensor = functional.center_crop(torch.from_numpy(pixels.copy()).permute(2, 0, 1), [size, size])
        np.testing.assert_array_equal(center(pixels, size), of_tensor.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (15, 17), (3, 16)])
def test_the_centre_crop_of_extreme_shapes_is_torchvisions(shape: tuple[int, int]) -> None:
    pixels = noise(*shape)
    expected = np.asarray(functional.center_crop(Image.fromarray(pixels), [SIZE, SIZE]))
    np.testing.assert_array_equal(center(pixels, SIZE), expected)


def test_padding_is_zero_and_its_odd_pixel_lies_right_and_below() -> None:
    crop = center(np.full((13, 11, 3), 200, np.uint8), 16)
    rows, columns = np.nonzero(crop[:, :, 0])
    assert (rows.min(), rows.max()) == (1, 13), "1 row of zeros above, 2 below"
    assert (columns.min(), columns.max()) == (2, 12), "2 columns of zeros before, 3 after"
    assert set(np.unique(crop)) == {0, 200}


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "I;16"])
def test_the_centre_crop_is_that_of_the_whole_image_as_an_array(mode: str) -> None:
    rng, view = np.random.default_rng(0), CenterViewSpec(kind="center", size=SIZE)
    for height, width in rng.integers(1, 3 * SIZE, (100, 2)):
        if mode == "I;16":
            image = Image.fromarray(rng.integers(0, 2**16, (height, width), dtype=np.uint16))
        else:
            image = Image.fromarray(noise(height, width, seed=int(height))).convert(mode)
        stored = io.BytesIO()
        image.save(stored, "TIFF")
        decoded = decode(stored.getvalue()).rgb
        whole = CROPS["center"](np.asarray(decoded), view)  # (1, SIZE, SIZE, 3)
        np.testing.assert_array_equal(render(view, decoded, CONTENT), whole)


def test_of_a_large_image_only_the_centre_becomes_an_array(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = Image.Image.tobytes

    def tobytes(image: Image.Image, *arguments: object) -> bytes:
        seen.append(image.size)
        return original(image, *arguments)

    image = Image.new("RGB", (4000, 3000))
    monkeypatch.setattr(Image.Image, "tobytes", tobytes)
    render(CenterViewSpec(kind="center", size=224), image, CONTENT)
    assert seen == [(224, 224)]


def test_the_centre_crop_does_not_depend_on_the_file_s_bytes() -> None:
    pixels, view = noise(40, 50), CenterViewSpec(kind="center", size=SIZE)
    np.testing.assert_array_equal(rendered(view, pixels, content(0)), rendered(view, pixels, content(1)))


# Every view


@pytest.mark.parametrize("shape", [(224, 224), (300, 260), (1, 1), (10, 400), (400, 10)])
@pytest.mark.parametrize(
    ("view", "draws"),
    [
        ({"kind": "center", "size": 16}, 1),
        ({"kind": "center", "size": 336}, 1),
        ({"kind": "train", "size": 16, "draws": 3}, 3),
        ({"kind": "train", "size": 224, "draws": 2}, 2),
        ({"kind": "train", "size": 336}, 1),
        ({"kind": "tencrop", "size": 224}, 10),
        ({"kind": "patches", "size": 100, "rows": 2, "columns": 3}, 6),
        ({"kind": "perturbed", "size": 100, "perturbation": "combined", "how": "as-coded"}, 1),
        ({"kind": "perturbed", "size": 336, "perturbation": "combined", "how": "as-named"}, 1),
    ],
)
def test_crops_have_the_promised_shape_and_type(view: dict, shape: tuple[int, int], draws: int) -> None:
    spec = parse(VIEW, view, "here")
    crops = rendered(spec, noise(*shape))
    assert spec.draws == draws
    assert crops.shape == (draws, spec.size, spec.size, 3)
    assert crops.dtype == np.uint8


@pytest.mark.parametrize("kind", [*sorted(CROPS), "train", "perturbed"])
def test_rendering_leaves_the_image_alone(kind: str) -> None:
    image = Image.fromarray(noise(30, 30))
    before = image.tobytes()
    for index in range(10):
        render(view_of(kind), image, content(index))
    assert image.tobytes() == before


def test_every_kind_of_view_is_rendered() -> None:
    assert {*CROPS, "train", "perturbed"} == set(VIEW.json_schema()["discriminator"]["mapping"])


@pytest.mark.parametrize("name", BUILTIN_VIEWS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 1000), (223, 224), (500, 375)])
def test_a_built_in_view_takes_any_image(name: str, shape: tuple[int, int]) -> None:
    view = BUILTIN_VIEWS[name]
    if (name, shape) == ("center224-short256-jpeg96", (3, 1000)):  # becomes 256 x 85,333
        with pytest.raises(UnreadableImageError, match="JPEG holds at most"):
            rendered(view, noise(*shape))
        return
    for index in range(2):
        assert rendered(view, noise(*shape), content(index)).shape == (view.draws, 224, 224, 3)


def test_a_built_in_view_is_named_after_its_size_or_after_a_perturbation_at_224() -> None:
    for name, view in BUILTIN_VIEWS.items():
        assert view.size == 224
        if view.kind == "perturbed":
            assert name == f"rine-{view.perturbation}{'' if view.how == 'as-coded' else '-as-named'}"
        elif "224" not in name:
            (operation,) = view.prepare
            strength = name.removeprefix(operation.op)
            assert float(strength) in operation.model_dump().values()


def test_a_view_names_the_libraries_that_its_pixels_come_from() -> None:
    assert [libraries(view_of(kind)) for kind in ("center", "tencrop", "patches")] == [{}, {}, {}]
    assert libraries(train_view())["opencv"] == cv2.__version__
    assert set(libraries(train_view())) == {"opencv", "numpy", "scipy"}
    assert set(libraries(view_of("perturbed"))) == {"opencv", "numpy"}


# Ten crops


@pytest.mark.parametrize("shape", [(16, 16), (17, 16), (16, 19), (33, 40), (21, 18), (100, 17)])
def test_ten_crops_are_torchvisions_in_its_order(shape: tuple[int, int]) -> None:
    pixels = noise(*shape)
    expected = [np.asarray(crop) for crop in functional.ten_crop(Image.fromarray(pixels), SIZE)]
    np.testing.assert_array_equal(rendered(TenCropViewSpec(kind="tencrop", size=SIZE), pixels), expected)


@pytest.mark.parametrize("shape", [(1, 1), (15, 16), (13, 40), (40, 13), (9, 6)])
def test_ten_crops_of_small_images_are_those_of_the_image_padded_as_by_the_centre_crop(shape: tuple[int, int]) -> None:
    pixels = noise(*shape)
    padded = functional.center_crop(Image.fromarray(pixels), [max(SIZE, side) for side in shape])
    expected = [np.asarray(crop) for crop in functional.ten_crop(padded, SIZE)]
    crops = rendered(TenCropViewSpec(kind="tencrop", size=SIZE), pixels)
    np.testing.assert_array_equal(crops, expected)
    np.testing.assert_array_equal(crops[4], center(pixels, SIZE))


# Patches


def naive_patches(pixels: np.ndarray, rows: int, columns: int) -> list[np.ndarray]:
    """Walk the grid; a window's offset is its share of the way to the last one, rounded down."""
    crops = []
    for row in range(rows):
        for column in range(columns):
            top = floor(Fraction(row, rows - 1) * (pixels.shape[0] - SIZE))
            left = floor(Fraction(column, columns - 1) * (pixels.shape[1] - SIZE))
            crops.append(pixels[top : top + SIZE, left : left + SIZE])
    return crops


@pytest.mark.parametrize("shape", [(16, 16), (17, 18), (50, 61), (200, 33)])
@pytest.mark.parametrize("grid", [(2, 2), (3, 3), (4, 7), (8, 8)])
def test_patches_are_a_grid_from_the_top_left_to_the_bottom_right(
    shape: tuple[int, int], grid: tuple[int, int]
) -> None:
    pixels = noise(*shape)
    crops = rendered(PatchesViewSpec(kind="patches", size=SIZE, rows=grid[0], columns=grid[1]), pixels)
    np.testing.assert_array_equal(crops, naive_patches(pixels, *grid))
    np.testing.assert_array_equal(crops[0], pixels[:SIZE, :SIZE])
    np.testing.assert_array_equal(crops[-1], pixels[-SIZE:, -SIZE:])


def test_a_grid_that_fits_covers_every_pixel_once() -> None:
    pixels = noise(3 * SIZE, 2 * SIZE)
    crops = rendered(PatchesViewSpec(kind="patches", size=SIZE, rows=3, columns=2), pixels)
    whole = crops.reshape(3, 2, SIZE, SIZE, 3).transpose(0, 2, 1, 3, 4).reshape(pixels.shape)
    np.testing.assert_array_equal(whole, pixels)


def test_a_single_row_or_column_of_patches_lies_in_the_middle() -> None:
    pixels = noise(41, 70)
    row = rendered(PatchesViewSpec(kind="patches", size=SIZE, rows=1, columns=3), pixels)
    column = rendered(PatchesViewSpec(kind="patches", size=SIZE, rows=3, columns=1), pixels)
    np.testing.assert_array_equal(row[1], center(pixels, SIZE))
    np.testing.assert_array_equal(column[1], center(pixels, SIZE))
    np.testing.assert_array_equal(row[0], pixels[12:28, :SIZE])


@pytest.mark.parametrize("shape", [(1, 1), (9, 6)])
def test_patches_of_a_small_image_are_all_its_padded_self(shape: tuple[int, int]) -> None:
    pixels = noise(*shape)
    for crop in rendered(PatchesViewSpec(kind="patches", size=SIZE, rows=2, columns=3), pixels):
        np.testing.assert_array_equal(crop, center(pixels, SIZE))


# The train view: what it depends on


def test_the_train_view_is_the_same_every_time() -> None:
    pixels = noise(40, 50)
    for index in range(20):
        np.testing.assert_array_equal(
            rendered(train_view(draws=2), pixels, content(index)), rendered(train_view(draws=2), pixels, content(index))
        )


def test_the_train_view_depends_on_no_order_and_no_thread() -> None:
    pixels = noise(40, 50)
    view = train_view(draws=2)
    forwards = [rendered(view, pixels, content(index)) for index in range(40)]
    np.random.seed(0)  # noqa: NPY002 - a legacy global state that nothing may use
    backwards = [rendered(view, pixels, content(index)) for index in reversed(range(40))][::-1]
    with ThreadPoolExecutor(4) as pool:
        in_threads = list(pool.map(lambda index: rendered(view, pixels, content(index)), range(40)))
    np.testing.assert_array_equal(forwards, backwards)
    np.testing.assert_array_equal(forwards, in_threads)


def test_draws_differ_and_the_first_ones_stay_when_more_are_asked_for() -> None:
    pixels = noise(60, 60)
    few, many = rendered(train_view(draws=3), pixels), rendered(train_view(draws=8), pixels)
    np.testing.assert_array_equal(few, many[:3])
    assert len({crop.tobytes() for crop in many}) == 8


def test_seeds_and_contents_give_other_crops() -> None:
    pixels = noise(60, 60)
    crops = {
        rendered(train_view(seed=seed), pixels, content(index)).tobytes() for seed in range(4) for index in range(4)
    }
    assert len(crops) == 16


def test_the_random_values_and_their_use_are_those_of_earlier_caches(calls: Calls) -> None:
    # A cache's key names the view, its seed and the libraries' versions; it cannot tell that this has changed.
    rows, columns = np.mgrid[: SIZE + 40, : SIZE + 40]
    where = np.stack([rows, columns, 0 * rows], axis=2).astype(np.uint8)
    found = []
    for index in range(6):
        calls.order.append([])
        for values in (calls.sigmas, calls.opencv, calls.pillow):
            values.clear()
        crop = rendered(train_view(seed=3, jpeg_quality="range"), where, content(index))[0]
        corner = tuple(map(int, crop[0, 0, :2]))
        found.append((np.round(calls.sigmas, 6).tolist(), calls.opencv[:], calls.pillow[:], corner))
    assert found == [
        ([], [], [88], (31, 25)),
        ([0.417999], [], [88], (9, 34)),
        ([], [], [], (12, 38)),
        ([1.376888], [], [], (19, 48)),
        ([], [62], [], (20, 25)),
        ([], [], [89], (31, 31)),
    ]


# The train view: how often and how much


def test_half_of_the_images_are_blurred_by_up_to_3_pixels(calls: Calls) -> None:
    render_many(train_view(), noise(SIZE, SIZE), calls)
    assert share(["blur" in names for names in calls.order]) == pytest.approx(0.5, abs=0.08)
    assert 0 <= min(calls.sigmas) < 0.05
    assert 2.95 < max(calls.sigmas) < 3
    quarters = np.quantile(calls.sigmas, [0.25, 0.5, 0.75])
    assert quarters == pytest.approx([0.75, 1.5, 2.25], abs=0.25)


def test_half_of_the_images_are_compressed_by_opencv_or_pillow_with_equal_odds(calls: Calls) -> None:
    render_many(train_view(), noise(SIZE, SIZE), calls)
    assert share(["jpeg" in names for names in calls.order]) == pytest.approx(0.5, abs=0.08)
    assert len(calls.opencv) / (len(calls.opencv) + len(calls.pillow)) == pytest.approx(0.5, abs=0.12)


def test_blur_and_compression_are_independent_and_the_blur_comes_first(calls: Calls) -> None:
    render_many(train_view(), noise(SIZE, SIZE), calls)
    shares = {names: share([found == list(names) for found in calls.order]) for names in {*map(tuple, calls.order)}}
    assert shares == {names: pytest.approx(0.25, abs=0.07) for names in [(), ("blur",), ("jpeg",), ("blur", "jpeg")]}


def test_qualities_are_the_two_ends_as_in_the_authors_code(calls: Calls) -> None:
    render_many(train_view(jpeg_quality="ends"), noise(SIZE, SIZE), calls)
    for qualities in (calls.opencv, calls.pillow):
        assert set(qualities) == {30, 100}
        assert share([quality == 30 for quality in qualities]) == pytest.approx(0.5, abs=0.16)


def test_qualities_are_spread_over_the_range_where_it_is_asked_for(calls: Calls) -> None:
    render_many(train_view(jpeg_quality="range", draws=4), noise(SIZE, SIZE), calls)
    qualities = calls.opencv + calls.pillow
    assert set(qualities) == set(range(30, 101))
    assert np.mean(qualities) == pytest.approx(65, abs=2.5)


def test_half_of_the_images_are_mirrored_left_to_right(calls: Calls) -> None:
    pixels = noise(SIZE, SIZE)
    crops = render_many(train_view(), pixels, calls)
    mirrored = np.array([np.array_equal(crop, pixels[:, ::-1]) for crop in crops])
    upright = np.array([np.array_equal(crop, pixels) for crop in crops])
    assert (mirrored ^ upright).all(), "nothing but a mirror where nothing else is done"
    assert share(mirrored) == pytest.approx(0.5, abs=0.08)


def test_every_position_of_the_crop_is_as_likely(calls: Calls) -> None:
    rows, columns = np.mgrid[: SIZE + 2, : SIZE + 3]
    crops = render_many(train_view(), np.stack([rows, columns, 0 * rows], axis=2).astype(np.uint8), calls)
    tops, lefts = crops[:, 0, 0, 0], crops[:, :, :, 1].min(axis=(1, 2))
    counts = np.zeros((3, 4))
    np.add.at(counts, (tops, lefts), 1)
    assert counts.sum() == MANY
    np.testing.assert_allclose(counts / MANY, 1 / 12, atol=0.045)
    for crop, top, left in zip(crops, tops, lefts, strict=True):
        window = crop if crop[0, 0, 1] == left else crop[:, ::-1]
        np.testing.assert_array_equal(window[:, :, 0], rows[top : top + SIZE, left : left + SIZE])
        np.testing.assert_array_equal(window[:, :, 1], columns[top : top + SIZE, left : left + SIZE])


def test_a_quality_that_is_not_used_moves_no_other_random_value(calls: Calls) -> None:
    pixels = noise(SIZE + 9, SIZE + 9)
    ends = render_many(train_view(jpeg_quality="ends"), pixels, calls)
    in_range = render_many(train_view(jpeg_quality="range"), pixels, calls)
    np.testing.assert_array_equal(ends, in_range)
    assert calls.order[:MANY] == calls.order[MANY:]


def test_images_smaller_than_the_crop_are_padded_with_zeros(calls: Calls) -> None:
    pixels = noise(11, 9)
    for crop in render_many(train_view(), pixels, calls)[:50]:
        assert np.array_equal(crop, center(pixels, SIZE)) or np.array_equal(crop, center(pixels, SIZE)[:, ::-1])


def test_an_image_small_one_way_only_is_padded_that_way_and_cropped_the_other(calls: Calls) -> None:
    crops = render_many(train_view(), noise(SIZE - 4, SIZE + 20), calls)
    assert not crops[:, [0, 1, -2, -1]].any()
    assert crops[:, 2:-2].all(), "noise() has no zeros"
    assert len({crop.tobytes() for crop in crops}) > 30


def test_padding_is_added_after_blur_and_compression() -> None:
    for index in range(40):
        crop = rendered(train_view(), np.full((8, 8, 3), 255, np.uint8), content(index))[0]
        assert not crop[:4].any(), "no light leaks into the padding"
        assert not crop[:, -4:].any()
        assert crop[4:12, 4:12].min() > 250


def test_the_view_is_blur_then_jpeg_then_crop_then_flip_of_the_whole_image(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, tuple[float, tuple[int, ...]]] = {}
    for name in ("_blur", "jpeg_by_opencv", "jpeg_by_pillow"):
        original = getattr(train, name)

        def note(pixels: np.ndarray, value: float, name: str = name, original: Callable = original) -> np.ndarray:
            asked[name] = (value, pixels.shape)
            return original(pixels, value)

        monkeypatch.setattr(train, name, note)
    pixels = noise(40, 50)
    seen = set()
    for index in range(60):
        asked.clear()
        crop = rendered(train_view(jpeg_quality="range"), pixels, content(index))[0]
        assert all(shape == pixels.shape for _, shape in asked.values()), "the crop comes after"
        whole = pixels
        if "_blur" in asked:
            whole = naive_blur(whole, asked["_blur"][0])
        if "jpeg_by_opencv" in asked:
            whole = naive_opencv(whole, int(asked["jpeg_by_opencv"][0]))
        if "jpeg_by_pillow" in asked:
            whole = naive_pillow(whole, int(asked["jpeg_by_pillow"][0]))
        windows = np.lib.stride_tricks.sliding_window_view(whole, (SIZE, SIZE), axis=(0, 1)).transpose(0, 1, 3, 4, 2)
        found = [(windows == other).all(axis=(2, 3, 4)).sum() for other in (crop, crop[:, ::-1])]
        assert sum(found) == 1
        seen.add(tuple(sorted(asked)))
    assert len(seen) == 6, "all combinations came up"


# Blur and JPEG


def naive_blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Blur as the RINE authors' code does: each channel in place."""
    blurred = pixels.copy()
    gaussian_filter(blurred[:, :, 0], output=blurred[:, :, 0], sigma=sigma)
    gaussian_filter(blurred[:, :, 1], output=blurred[:, :, 1], sigma=sigma)
    gaussian_filter(blurred[:, :, 2], output=blurred[:, :, 2], sigma=sigma)
    return blurred


def naive_opencv(pixels: np.ndarray, quality: int) -> np.ndarray:
    _, code = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.cvtColor(cv2.imdecode(code, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def naive_pillow(pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg", quality=quality)
    return np.array(Image.open(buffer).convert("RGB"))


@pytest.mark.parametrize("sigma", [0.0, 0.2, 1.0, 2.999])
@pytest.mark.parametrize("shape", [(30, 41), (1, 1), (2, 60)])
def test_the_blur_is_the_authors(sigma: float, shape: tuple[int, int]) -> None:
    pixels = noise(*shape)
    before = pixels.copy()
    np.testing.assert_array_equal(train._blur(pixels, sigma), naive_blur(pixels, sigma))
    np.testing.assert_array_equal(pixels, before)


def test_the_blur_mixes_no_channels() -> None:
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[:, :, 1] = noise(20, 20)[:, :, 1]
    blurred = train._blur(pixels, 2.0)
    assert not blurred[:, :, [0, 2]].any()
    assert blurred[:, :, 1].std() < pixels[:, :, 1].std() / 2


@pytest.mark.parametrize("quality", [30, 65, 100])
def test_jpeg_is_that_of_the_library_it_is_named_after(quality: int) -> None:
    pixels = smooth(40, 50)
    np.testing.assert_array_equal(jpeg_by_opencv(pixels, quality), naive_opencv(pixels, quality))
    np.testing.assert_array_equal(jpeg_by_pillow(pixels, quality), naive_pillow(pixels, quality))


@pytest.mark.parametrize("jpeg", [jpeg_by_opencv, jpeg_by_pillow])
def test_jpeg_keeps_the_channels_in_place_and_loses_more_at_lower_quality(jpeg: Callable) -> None:
    colour = np.broadcast_to(np.array([200, 100, 20], np.uint8), (32, 32, 3)).copy()
    np.testing.assert_allclose(jpeg(colour, 100), colour, atol=2)
    pixels = smooth(64, 64) + noise(64, 64) // 16
    lost = {quality: np.abs(jpeg(pixels, quality).astype(int) - pixels).mean() for quality in (30, 100)}
    assert 0 < lost[100] < lost[30] < 10


def test_an_image_too_long_for_jpeg_stops_no_run() -> None:
    strip = noise(4, 70_000)
    for index in range(12):
        try:
            crops = rendered(train_view(), strip, content(index))
        except UnreadableImageError:
            continue
        assert crops.shape == (1, SIZE, SIZE, 3)
