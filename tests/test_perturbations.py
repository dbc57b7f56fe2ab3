"""The operations of the robustness sweep, and the RINE authors' perturbations, as coded and as named."""

from __future__ import annotations

import hashlib
import io
import json
from concurrent.futures import ThreadPoolExecutor
from math import erf, exp, sqrt
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from torchvision.transforms import functional

from rine_cache.errors import ConfigError
from rine_cache.quarantine import Reason, UnreadableImageError
from rine_cache.specs.base import parse
from rine_cache.specs.encoding import BUILTIN_VIEWS, VIEW
from rine_cache.views import noise, perturbed, render, webp

if TYPE_CHECKING:
    from collections.abc import Callable

    from rine_cache.specs.encoding import PerturbedViewSpec, ViewSpec

SIZE = 64
MANY = 600  # of such a count, a share of one half is found within .08, four standard deviations


def content(index: int) -> bytes:
    return hashlib.sha256(b"%d" % index).digest()


def picture(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    waves = np.stack([np.sin(rows / 3), np.cos(columns / 5), np.sin((rows + columns) / 7)], axis=2)
    return np.clip(128 + 80 * waves + np.random.default_rng(0).normal(0, 20, waves.shape), 0, 255).astype(np.uint8)


def gray(height: int, width: int, level: int = 128) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def view_of(*operations: dict[str, Any], size: int = SIZE, **settings: Any) -> ViewSpec:
    return parse(VIEW, {"kind": "center", "size": size, "prepare": list(operations), **settings}, "here")


def rendered(view: ViewSpec, pixels: np.ndarray, digest: bytes = content(0)) -> np.ndarray:
    return render(view, Image.fromarray(pixels), digest)


def crop_of(pixels: np.ndarray, size: int = SIZE) -> np.ndarray:
    return np.asarray(functional.center_crop(Image.fromarray(pixels), [size, size]))


# WebP


@pytest.mark.parametrize("quality", [0, 50, 80, 100])
def test_webp_is_pillows(quality: int) -> None:
    pixels, buffer = picture(SIZE, SIZE), io.BytesIO()
    Image.fromarray(pixels).save(buffer, "webp", quality=quality)
    expected = np.asarray(Image.open(buffer).convert("RGB"))
    found = rendered(view_of({"op": "webp", "quality": quality}), pixels)[0]
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(found, pixels), "it is lossy at every quality"


def test_an_image_too_long_for_webp_is_quarantined_and_one_that_just_fits_is_not() -> None:
    view = view_of({"op": "webp", "quality": 80})
    assert rendered(view, gray(1, 16_383)).shape == (1, SIZE, SIZE, 3)
    with pytest.raises(UnreadableImageError, match="WebP holds at most 16,383 pixels a side") as caught:
        rendered(view, gray(1, 16_384))
    assert caught.value.reason is Reason.TOO_LARGE


def test_a_pillow_without_webp_is_no_fault_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webp.features, "check", lambda _: False)
    with pytest.raises(ConfigError, match="built here without libwebp"):
        rendered(view_of({"op": "webp", "quality": 80}), gray(9, 9))


# Blur


def naive_blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Weigh every pixel's neighbours, mirrored at the border, in double precision."""
    reach = int(np.ceil(4 * sigma))
    weights = np.array([exp(-(at**2) / (2 * sigma**2)) for at in range(-reach, reach + 1)])
    weights /= weights.sum()
    exact = pixels.astype(float)
    for axis in (0, 1):
        padded = np.pad(exact, [(reach, reach) if at == axis else (0, 0) for at in range(3)], mode="symmetric")
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=axis)
        exact = windows @ weights
    return exact


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1, 2.3, 4])
@pytest.mark.parametrize("shape", [(SIZE, SIZE), (70, 91)])
def test_blur_weighs_the_neighbours_and_rounds_once(sigma: float, shape: tuple[int, int]) -> None:
    pixels = picture(*shape)
    found = rendered(view_of({"op": "blur", "sigma": sigma}), pixels)[0].astype(float)
    blurred = naive_blur(pixels, sigma)
    expected = crop_of(np.rint(blurred).astype(np.uint8))
    assert np.mean(found != expected) < 0.001, "floating-point numbers may fall on the other side of a half"
    np.testing.assert_allclose(found, expected, atol=1)


@pytest.mark.parametrize("sigma", [0.5, 1, 2, 4])
def test_blur_is_scipys_in_floating_point(sigma: float) -> None:
    pixels = picture(SIZE, SIZE)
    exact = gaussian_filter(pixels.astype(float), sigma, axes=(0, 1), truncate=4)
    np.testing.assert_allclose(rendered(view_of({"op": "blur", "sigma": sigma}), pixels)[0], exact, atol=0.501)


def test_blur_leaves_a_plain_colour_and_its_channels_alone() -> None:
    plain = np.broadcast_to(np.array([250, 3, 77], np.uint8), (SIZE, SIZE, 3)).copy()
    np.testing.assert_array_equal(rendered(view_of({"op": "blur", "sigma": 4}), plain)[0], plain)


# Downscale


@pytest.mark.parametrize(
    ("shape", "factor", "sides"), [((61, 45), 0.5, (30, 22)), ((63, 45), 0.5, (32, 22)), ((1, 300), 0.25, (1, 75))]
)
@pytest.mark.parametrize("antialias", [True, False])
def test_a_downscale_is_a_resize_to_the_rounded_sides(
    shape: tuple[int, int], factor: float, sides: tuple[int, int], antialias: bool
) -> None:
    kernel = {"interpolation": "bicubic", "antialias": antialias}
    down = {"op": "downscale", "factor": factor, **kernel}
    resize = {"op": "resize", "to": list(sides), **kernel}
    pixels = picture(*shape)
    np.testing.assert_array_equal(rendered(view_of(down, size=80), pixels), rendered(view_of(resize, size=80), pixels))


def test_no_side_vanishes() -> None:
    down = {"op": "downscale", "factor": 0.001, "interpolation": "bilinear", "antialias": True}
    assert np.count_nonzero(rendered(view_of(down), gray(3, 400))[0][:, :, 0]) == 1


# Noise


def noisy(std: float = 10, seed: int = 0, image: int = 0, pixels: np.ndarray | None = None) -> np.ndarray:
    view = view_of({"op": "noise", "std": std, "seed": seed})
    return rendered(view, gray(SIZE, SIZE) if pixels is None else pixels, content(image))[0]


@pytest.mark.parametrize("std", [1, 5, 20])
def test_noise_is_normal_with_the_given_deviation_and_no_bias(std: float) -> None:
    added = np.concatenate([noisy(std, image=index).astype(float) - 128 for index in range(20)])  # 245,760 values
    assert added.mean() == pytest.approx(0, abs=4.5 * std / sqrt(added.size))
    assert added.var() == pytest.approx(std**2 + 1 / 12, rel=0.015), "the twelfth is the rounding's"
    for deviations in (1, 2, 3):  # whole numbers within so many, so the bounds lie half a level further out
        within = erf((deviations * std + 0.5) / (std * sqrt(2)))
        assert np.mean(np.abs(added) <= deviations * std) == pytest.approx(within, abs=0.005)


def test_noise_is_independent_of_place_channel_and_pixel_value() -> None:
    added = noisy(20).astype(float) - 128
    for neighbour in (np.roll(added, 1, 0), np.roll(added, 1, 1), np.roll(added, 1, 2)):
        assert abs(np.corrcoef(added.ravel(), neighbour.ravel())[0, 1]) < 0.04
    np.testing.assert_array_equal(noisy(5, pixels=gray(SIZE, SIZE, 100)) + 28, noisy(5))


def test_noise_is_clipped_not_wrapped() -> None:
    assert noisy(20, pixels=gray(SIZE, SIZE, 254)).min() > 128
    assert noisy(20, pixels=gray(SIZE, SIZE, 1)).max() < 128


def test_noise_depends_on_seed_content_and_place_in_the_list_and_on_nothing_else() -> None:
    different = {noisy(seed=seed, image=image).tobytes() for seed in range(4) for image in range(4)}
    assert len(different) == 16
    step, plain = {"op": "noise", "std": 10}, {"op": "resize", "to": SIZE, "interpolation": "nearest"}
    second = rendered(view_of({**plain, "antialias": False}, step), gray(SIZE, SIZE))[0]
    twice = rendered(view_of(step, step), gray(SIZE, SIZE))[0].astype(float) - 128
    assert not np.array_equal(second, noisy())
    assert twice.std() == pytest.approx(10 * np.sqrt(2), rel=0.03), "the same noise twice would give 20"
    np.random.seed(0)  # noqa: NPY002 - a legacy global state that nothing may use
    with ThreadPoolExecutor(4) as pool:
        in_threads = list(pool.map(lambda index: noisy(image=index), reversed(range(20))))[::-1]
    np.testing.assert_array_equal(in_threads, [noisy(image=index) for index in range(20)])


def test_strength_only_scales_the_noise() -> None:
    weak, strong = (noisy(std).astype(float) - 128 for std in (5, 20))
    np.testing.assert_allclose(strong, 4 * weak, atol=0.5 + 4 * 0.5)


def test_every_crop_of_an_image_is_of_the_same_noisy_image() -> None:
    step = {"op": "noise", "std": 10}
    crops = rendered(view_of(step, kind="tencrop"), gray(SIZE, SIZE))
    np.testing.assert_array_equal(crops[:5], [noisy()] * 5)
    np.testing.assert_array_equal(crops[5:], [noisy()[:, ::-1]] * 5)


@pytest.mark.parametrize("values", [1, 7 * 3, 1000, 2**20])
def test_noise_does_not_depend_on_the_blocks_it_is_drawn_in(values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = picture(50, 7)
    monkeypatch.setattr(noise, "BLOCK_VALUES", values)
    drawn = np.random.default_rng(3).standard_normal(pixels.shape, np.float32)
    expected = np.rint(np.clip(pixels + np.float32(12.5) * drawn, 0, 255)).astype(np.uint8)
    np.testing.assert_array_equal(noise.add_noise(pixels, 12.5, np.random.default_rng(3)), expected)


# The RINE authors' perturbations, transcribed one line at a time from what they are said to do


def their_blur(pixels: np.ndarray, drawn: perturbed.Drawn) -> np.ndarray:
    assert cv2.BORDER_DEFAULT == 4
    return cv2.GaussianBlur(pixels, (drawn.kernel, drawn.kernel), sigmaX=4)


def their_crop(pixels: np.ndarray, drawn: perturbed.Drawn) -> np.ndarray:
    height, width, _ = pixels.shape
    down, right = int(height * drawn.cut * 0.5), int(width * drawn.cut * 0.5)
    return cv2.resize(pixels[down:-down, right:-right], dsize=(height, width), interpolation=cv2.INTER_CUBIC)


def their_compress(pixels: np.ndarray, drawn: perturbed.Drawn) -> np.ndarray:
    _, encoded = cv2.imencode(".jpg", pixels)  # the quality does not arrive: OpenCV's default
    return cv2.imdecode(encoded, 1)


def their_noise(pixels: np.ndarray, drawn: perturbed.Drawn) -> np.ndarray:
    noise = drawn.std * drawn.rng.standard_normal(pixels.shape, np.float32).astype(np.float64)
    return np.clip(pixels + noise, 0.0, 255.0).astype(np.uint8)


def named_blur(pixels: np.ndarray, drawn: perturbed.Drawn) -> np.ndarray:
    return cv2.GaussianBlur(pixels, (drawn.kernel, drawn.kernel), 0, borderType=cv2.BORDER_DEFAULT)


def named_crop(pixels: np.ndarray, drawn: perturbed.Drawn) -> np.ndarray:
    height, width, _ = pixels.shape
    down, right = int(height * drawn.cut / 2), int(width * drawn.cut / 2)
    inside = pixels[down : height - down, right : width - right]
    return cv2.resize(inside, dsize=(width, height), interpolation=cv2.INTER_CUBIC)


def named_compress(pixels: np.ndarray, drawn: perturbed.Drawn) -> np.ndarray:
    as_opencv = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", as_opencv, [cv2.IMWRITE_JPEG_QUALITY, drawn.quality])
    return cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def named_noise(pixels: np.ndarray, drawn: perturbed.Drawn) -> np.ndarray:
    noise = drawn.std * drawn.rng.standard_normal(pixels.shape, np.float32).astype(np.float64)
    return np.rint(np.clip(pixels + noise, 0, 255)).astype(np.uint8)


STEPS: dict[str, list[Callable[[np.ndarray, perturbed.Drawn], np.ndarray]]] = {
    "rine-blur": [their_blur],
    "rine-crop": [their_crop],
    "rine-compress": [their_compress],
    "rine-noise": [their_noise],
    "rine-combined": [their_blur, their_crop, their_compress, their_noise],
    "rine-blur-as-named": [named_blur],
    "rine-crop-as-named": [named_crop],
    "rine-compress-as-named": [named_compress],
    "rine-noise-as-named": [named_noise],
    "rine-combined-as-named": [named_blur, named_crop, named_compress, named_noise],
}


def perturbed_view(name: str, **changed: Any) -> PerturbedViewSpec:
    return parse(VIEW, {**BUILTIN_VIEWS[name].model_dump(), **changed}, "here")


@pytest.mark.parametrize("name", STEPS)
def test_a_perturbation_is_what_it_is_said_to_be(name: str) -> None:
    pixels, halves = picture(130, 190), {True: 0, False: 0}
    view = BUILTIN_VIEWS[name]
    for index in range(24):
        drawn = perturbed.draw(0, content(index))
        expected = Image.fromarray(pixels)
        if drawn.perturbs:
            whole = pixels
            for step in STEPS[name]:
                whole = step(whole, drawn)
            expected = Image.fromarray(whole)
            if view.how == "as-coded":
                expected = functional.resize(expected, [256, 256])  # bilinear, as is its default
        crop = np.asarray(functional.center_crop(expected, [224, 224]))
        found = rendered(view, pixels, content(index))[0]
        # A 32-bit product may fall on the other side of a whole number than a 64-bit one.
        assert np.mean(found != crop) < (0.001 if "noise" in name or "combined" in name else 1e-9)
        np.testing.assert_allclose(found.astype(int), crop, atol=1)
        halves[drawn.perturbs] += 1
    assert min(halves.values()) >= 4


def test_every_perturbation_is_built_in_both_ways() -> None:
    assert set(STEPS) == {name for name, view in BUILTIN_VIEWS.items() if view.kind == "perturbed"}


def test_opencv_takes_a_drawn_quality_as_an_unknown_flag_and_compresses_at_95(capfd: pytest.CaptureFixture) -> None:
    pixels = picture(40, 30)
    at_95 = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, perturbed.OPENCV_DEFAULT_QUALITY])[1].tobytes()
    for drawn_quality in (10, 42, 74):
        assert cv2.imencode(".jpg", pixels, [drawn_quality, 90])[1].tobytes() == at_95


def test_half_of_the_images_are_perturbed_by_values_spread_over_their_ranges() -> None:
    drawn = [perturbed.draw(0, content(index)) for index in range(MANY)]
    assert np.mean([one.perturbs for one in drawn]) == pytest.approx(0.5, abs=0.08)
    kernels = [one.kernel for one in drawn]
    assert {kernel: kernels.count(kernel) / MANY for kernel in kernels} == {
        kernel: pytest.approx(0.25, abs=0.07) for kernel in (3, 5, 7, 9)
    }
    for values, low, high in (
        ([one.cut for one in drawn], 0.05, 0.2),
        ([one.quality for one in drawn], 10, 74),
        ([one.std for one in drawn], 5, 20),
    ):
        span = high - low
        assert low <= min(values) < low + 0.02 * span
        assert high - 0.02 * span < max(values) <= high
        assert np.mean(values) == pytest.approx((low + high) / 2, abs=4 * span / np.sqrt(12 * MANY))
        perturbs = [one.perturbs for one in drawn]
        assert abs(np.corrcoef(values, perturbs)[0, 1]) < 4 / np.sqrt(MANY), "strength and choice are independent"


def test_half_of_the_crops_are_those_of_the_test_view() -> None:
    pixels = gray(SIZE, SIZE)
    view = perturbed_view("rine-noise", size=SIZE)
    untouched = [np.array_equal(rendered(view, pixels, content(index))[0], pixels) for index in range(MANY)]
    assert np.mean(untouched) == pytest.approx(0.5, abs=0.08)


def test_all_perturbations_both_ways_touch_the_same_images_and_another_seed_others() -> None:
    pixels = picture(SIZE, SIZE)
    touched = {
        (name, seed): tuple(
            not np.array_equal(rendered(perturbed_view(name, size=SIZE, seed=seed), pixels, content(index))[0], pixels)
            for index in range(30)
        )
        for name in STEPS
        for seed in (0, 1)
    }
    by_seed = [{flags for (_, used), flags in touched.items() if used == seed} for seed in (0, 1)]
    assert [len(flags) for flags in by_seed] == [1, 1]
    assert by_seed[0] != by_seed[1]


def test_a_perturbed_view_is_the_same_in_any_order_and_thread() -> None:
    pixels, view = picture(70, 80), perturbed_view("rine-combined", size=SIZE)
    forwards = [rendered(view, pixels, content(index)) for index in range(30)]
    np.random.seed(1)  # noqa: NPY002 - a legacy global state that nothing may use
    with ThreadPoolExecutor(4) as pool:
        in_threads = list(pool.map(lambda index: rendered(view, pixels, content(index)), reversed(range(30))))[::-1]
    np.testing.assert_array_equal(forwards, in_threads)


@pytest.mark.parametrize("name", ["rine-crop", "rine-combined", "rine-crop-as-named"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 1000), (9, 9)])
def test_an_image_too_small_to_cut_is_kept_whole_where_the_authors_code_raises(
    name: str, shape: tuple[int, int]
) -> None:
    for index in range(6):
        assert rendered(BUILTIN_VIEWS[name], picture(*shape), content(index)).shape == (1, 224, 224, 3)


@pytest.mark.parametrize("name", ["rine-compress", "rine-combined", "rine-compress-as-named"])
def test_an_image_too_long_for_jpeg_is_quarantined_whether_or_not_it_is_drawn(name: str) -> None:
    for index in range(4):
        with pytest.raises(UnreadableImageError, match="JPEG holds at most"):
            rendered(BUILTIN_VIEWS[name], gray(1, 65_501), content(index))


# The sweep


def test_the_sweep_is_built_in_one_operation_and_strength_each() -> None:
    expected = "jpeg95 jpeg90 jpeg75 jpeg50 jpeg30 webp80 webp50 blur0.5 blur1 blur2 blur4"
    expected += " downscale0.75 downscale0.5 downscale0.25 noise5 noise10 noise20"
    assert set(expected.split()) <= set(BUILTIN_VIEWS)
    pixels, seen = picture(300, 280), set()
    for name in expected.split():
        view = BUILTIN_VIEWS[name]
        assert (view.kind, view.size, len(view.prepare)) == ("center", 224, 1)
        assert name.startswith(view.prepare[0].op)
        seen.add(rendered(view, pixels).tobytes())
    assert len(seen) == len(expected.split())


@pytest.mark.parametrize("family", [("jpeg95", "jpeg75", "jpeg30"), ("webp80", "webp50"), ("noise5", "noise20")])
def test_a_stronger_one_changes_more(family: tuple[str, ...]) -> None:
    pixels = picture(240, 240)
    clean = crop_of(pixels, 224).astype(float)
    errors = [np.abs(rendered(BUILTIN_VIEWS[name], pixels)[0] - clean).mean() for name in family]
    assert errors == sorted(errors)
    assert len(set(errors)) == len(errors)


def test_the_views_of_earlier_caches_are_described_as_they_were() -> None:
    def described(name: str) -> str:
        return json.dumps(BUILTIN_VIEWS[name].model_dump(mode="json"), sort_keys=True)

    assert described("center224") == '{"kind": "center", "prepare": [], "size": 224}'
    assert described("center224-short256-jpeg96") == (
        '{"kind": "center", "prepare": [{"antialias": true, "interpolation": "bicubic", "op": "resize", "to": 256}, '
        '{"op": "jpeg", "quality": 96, "subsampling": "4:2:0"}], "size": 224}'
    )
