"""Operations on the whole image before the crop, and what a user sees when one is described wrongly."""

from __future__ import annotations

import hashlib
import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torchvision.transforms import InterpolationMode, functional

from rine_cache import images
from rine_cache.cache import FeatureCache
from rine_cache.cli.features import _caches, _view
from rine_cache.errors import ConfigError
from rine_cache.extraction_plan import encoding_key
from rine_cache.quarantine import Reason, UnreadableImageError
from rine_cache.specs.base import parse
from rine_cache.specs.config import config_from
from rine_cache.specs.encoding import BUILTIN_VIEWS, VIEW, CenterViewSpec
from rine_cache.views import libraries, prepare, render, resize
from rine_cache.views.crops import CROPS
from tests.conftest import SIZE, StandInEncoder
from tests.test_specs import CONFIG

if TYPE_CHECKING:
    from collections.abc import Callable

    from rine_cache.specs.encoding import ViewSpec
    from tests.conftest import MadeCache

JPEG = {"op": "jpeg", "quality": 50}
RESIZE = {"op": "resize", "to": 24, "interpolation": "bicubic", "antialias": True}
DOWNSCALE = {"op": "downscale", "factor": 0.5, "interpolation": "bicubic", "antialias": True}
GRID = {"rows": 2, "columns": 3}
INTERPOLATIONS = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
INTERPOLATIONS["lanczos"] = InterpolationMode.LANCZOS


def view_of(*operations: dict[str, Any], kind: str = "center", size: int = SIZE, **settings: Any) -> ViewSpec:
    return parse(VIEW, {"kind": kind, "size": size, "prepare": list(operations), **settings}, "here")


def picture(height: int, width: int) -> np.ndarray:
    """Waves and noise, so that neither a resize nor JPEG leaves it as it was."""
    rows, columns = np.mgrid[:height, :width]
    waves = np.stack([np.sin(rows / 3), np.cos(columns / 5), np.sin((rows + columns) / 7)], axis=2)
    noise = np.random.default_rng(0).normal(0, 20, (height, width, 3))
    return np.clip(128 + 80 * waves + noise, 0, 255).astype(np.uint8)


def rendered(view: ViewSpec, pixels: np.ndarray) -> np.ndarray:
    return render(view, Image.fromarray(pixels), hashlib.sha256(b"an image").digest())


def on_the_command_line(argument: str) -> ViewSpec:
    encoder = {"architecture": "any", "weights": "random"}
    (cache,) = _caches({"out": "c.h5", "encoder": encoder, "tap": "ln_2", "view": _view(argument)}, ())
    return cache.view


def prepared(pixels: np.ndarray, *operations: dict[str, Any]) -> np.ndarray:
    """Return the whole image after the operations: the crop is taken off."""
    for operation in view_of(*operations).prepare:
        pixels = prepare.OPERATIONS[operation.op].apply(pixels, operation, np.random.default_rng)
    return pixels


def by_pillow(pixels: np.ndarray, **options: Any) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg", **options)
    return np.array(Image.open(buffer).convert("RGB"))


# JPEG


@pytest.mark.parametrize("quality", [1, 50, 96, 100])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_jpeg_is_pillows(quality: int, subsampling: str) -> None:
    pixels = picture(31, 45)
    found = prepared(pixels, {"op": "jpeg", "quality": quality, "subsampling": subsampling})
    np.testing.assert_array_equal(found, by_pillow(pixels, quality=quality, subsampling=subsampling))


def test_jpeg_subsamples_as_pillow_does_by_default_and_other_subsampling_gives_other_pixels() -> None:
    pixels = picture(31, 45)
    found = {name: prepared(pixels, {**JPEG, "subsampling": name}).tobytes() for name in ("4:4:4", "4:2:2", "4:2:0")}
    assert len(set(found.values())) == 3
    assert prepared(pixels, JPEG).tobytes() == found["4:2:0"] == by_pillow(pixels, quality=50).tobytes()


def test_an_image_too_long_for_jpeg_is_quarantined_and_one_that_just_fits_is_not() -> None:
    with pytest.raises(UnreadableImageError, match="JPEG holds at most 65,500 pixels a side") as caught:
        rendered(view_of(JPEG), np.zeros((1, 65_501, 3), np.uint8))
    assert caught.value.reason is Reason.TOO_LARGE
    assert rendered(view_of(JPEG), np.zeros((1, 65_500, 3), np.uint8)).shape == (1, SIZE, SIZE, 3)


# Resize


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("shape", [(24, 24), (61, 45), (45, 61), (33, 100), (7, 5), (1, 1), (24, 50)])
@pytest.mark.parametrize("to", [24, 17, [30, 20], [8, 64]])
def test_an_antialiased_resize_is_torchvisions_on_pillow_images(
    interpolation: str, shape: tuple[int, int], to: int | list[int]
) -> None:
    pixels = picture(*shape)
    found = prepared(pixels, {**RESIZE, "to": to, "interpolation": interpolation})
    expected = functional.resize(Image.fromarray(pixels), to, INTERPOLATIONS[interpolation])
    np.testing.assert_array_equal(found, np.asarray(expected))


@pytest.mark.parametrize("shape", [(61, 45), (45, 61), (100, 33)])
def test_a_resize_without_antialiasing_is_torchs_to_within_the_rounding(shape: tuple[int, int]) -> None:
    pixels = picture(*shape)
    found = prepared(pixels, {**RESIZE, "interpolation": "bilinear", "antialias": False})
    planes = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float()  # (3, height, width)
    expected = functional.resize(planes, 24, antialias=False).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, expected, atol=1)
    antialiased = prepared(pixels, {**RESIZE, "interpolation": "bilinear"})
    assert np.abs(found.astype(int) - antialiased).max() > 20, "this image's detail aliases"


@pytest.mark.parametrize(
    ("interpolation", "flag"),
    [
        ("nearest", cv2.INTER_NEAREST),
        ("bilinear", cv2.INTER_LINEAR),
        ("bicubic", cv2.INTER_CUBIC),
        ("lanczos", cv2.INTER_LANCZOS4),
    ],
)
def test_a_resize_without_antialiasing_is_opencvs(interpolation: str, flag: int) -> None:
    pixels = picture(61, 45)
    found = prepared(pixels, {"op": "resize", "to": [20, 30], "interpolation": interpolation, "antialias": False})
    np.testing.assert_array_equal(found, cv2.resize(pixels, (30, 20), interpolation=flag))


@pytest.mark.parametrize("antialias", [True, False])
def test_a_resize_keeps_the_channels_in_place(antialias: bool) -> None:
    colour = np.broadcast_to(np.array([200, 100, 20], np.uint8), (50, 60, 3)).copy()
    found = prepared(colour, {**RESIZE, "antialias": antialias})
    np.testing.assert_array_equal(found, np.broadcast_to(np.array([200, 100, 20]), (24, 28, 3)))


@pytest.mark.parametrize("antialias", [True, False])
def test_a_resize_beyond_the_pixels_that_are_held_is_quarantined(
    antialias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    strip, view = picture(1, 20), view_of({**RESIZE, "to": 16, "antialias": antialias})  # becomes 16 x 320
    monkeypatch.setattr(resize, "MAX_PIXELS", 16 * 320)
    assert rendered(view, strip).shape == (1, SIZE, SIZE, 3)
    monkeypatch.setattr(resize, "MAX_PIXELS", 16 * 320 - 1)
    with pytest.raises(UnreadableImageError, match="resized to 320 x 16 pixels; at most 5,119 are held") as caught:
        rendered(view, strip)
    assert caught.value.reason is Reason.TOO_LARGE


def test_a_strip_whose_resize_no_memory_holds_is_quarantined_before_it_is_tried() -> None:
    with pytest.raises(UnreadableImageError):
        rendered(view_of({**RESIZE, "to": 16_384}), picture(1, 60_000))


def test_both_sides_may_be_as_large_as_an_image_may_be() -> None:
    assert view_of({**RESIZE, "to": [16_384, 16_384]}).prepare[0].to == (16_384, 16_384)
    assert images.MAX_PIXELS == 16_384**2


# Order, crops, determinism


def test_operations_are_done_in_their_order() -> None:
    pixels = picture(61, 45)
    jpeg_first, resize_first = view_of(JPEG, RESIZE), view_of(RESIZE, JPEG)
    small = functional.resize(Image.fromarray(pixels), 24, InterpolationMode.BICUBIC)
    expected = by_pillow(np.asarray(small), quality=50)
    np.testing.assert_array_equal(prepared(pixels, RESIZE, JPEG), expected)
    assert not np.array_equal(rendered(jpeg_first, pixels), rendered(resize_first, pixels))


def test_an_operation_may_be_repeated() -> None:
    pixels = picture(40, 40)
    once = by_pillow(pixels, quality=50)
    np.testing.assert_array_equal(prepared(pixels, JPEG, JPEG), by_pillow(once, quality=50))


@pytest.mark.parametrize("kind", sorted(CROPS))
@pytest.mark.parametrize("shape", [(61, 45), (1, 1), (3, 50)])
def test_every_kind_crops_the_prepared_image(kind: str, shape: tuple[int, int]) -> None:
    pixels, grid = picture(*shape), GRID if kind == "patches" else {}
    operations = (RESIZE, JPEG) if min(shape) > 1 else (JPEG,)
    found = rendered(view_of(*operations, kind=kind, **grid), pixels)
    np.testing.assert_array_equal(found, rendered(view_of(kind=kind, **grid), prepared(pixels, *operations)))


def test_padding_comes_after_the_operations() -> None:
    crop = rendered(view_of(JPEG), np.full((4, 4, 3), 255, np.uint8))[0]
    assert crop[6:10, 6:10].min() > 250
    assert crop.sum() == crop[6:10, 6:10].sum(), "JPEG lets no light into the padding"


def test_a_prepared_view_is_the_same_every_time_and_whatever_the_files_bytes() -> None:
    image, view = Image.fromarray(picture(61, 45)), view_of({**RESIZE, "antialias": False}, JPEG, kind="tencrop")
    before = image.tobytes()
    crops = {render(view, image, hashlib.sha256(b"%d" % index).digest()).tobytes() for index in range(5)}
    assert len(crops) == 1
    assert image.tobytes() == before


def test_clip224_is_the_preprocessing_of_clip() -> None:
    pixels = picture(300, 411)
    small = functional.resize(Image.fromarray(pixels), 224, InterpolationMode.BICUBIC)
    expected = functional.center_crop(small, [224, 224])
    np.testing.assert_array_equal(rendered(BUILTIN_VIEWS["clip224"], pixels)[0], np.asarray(expected))


# The cache's key


def test_every_setting_changes_the_encoding_key() -> None:
    views = [
        *BUILTIN_VIEWS.values(),
        *(view_of(kind=kind) for kind in ("center", "tencrop")),
        *(view_of(kind="patches", rows=rows, columns=columns) for rows, columns in ((2, 3), (3, 2), (1, 6))),
        *(view_of(JPEG, kind=kind) for kind in ("center", "tencrop")),
        *(view_of({**JPEG, **changed}) for changed in ({"quality": 51}, {"subsampling": "4:4:4"})),
        *(view_of(*operations) for operations in ((JPEG, JPEG), (JPEG, RESIZE), (RESIZE, JPEG), (RESIZE,))),
        *(view_of({**RESIZE, **changed}) for changed in ({"to": 25}, {"to": [24, 24]}, {"antialias": False})),
        view_of({**RESIZE, "interpolation": "lanczos"}),
        *(view_of({**DOWNSCALE, **changed}) for changed in ({}, {"factor": 0.4}, {"antialias": False})),
        *(view_of({"op": "noise", "std": std, "seed": seed}) for std, seed in ((5, 0), (5, 1), (6, 0))),
        *(view_of({"op": "blur", "sigma": sigma}) for sigma in (1, 2)),
        *(view_of({"op": "webp", "quality": quality}) for quality in (1, 2)),
        view_of(size=17),
    ]
    keys = {json.dumps(encoding_key(StandInEncoder(), "ln_2", view), sort_keys=True) for view in views}
    assert len(keys) == len(views)


def test_a_view_in_a_key_reads_back_as_itself() -> None:
    for view in (*BUILTIN_VIEWS.values(), view_of({**RESIZE, "to": [20, 30]}, JPEG, kind="tencrop")):
        described = json.dumps(view.model_dump(mode="json"))
        assert parse(VIEW, json.loads(described), "here") == view
        assert on_the_command_line(described) == view


def test_an_operation_names_the_libraries_that_its_pixels_come_from() -> None:
    # Pillow and its libjpeg are named by the decoder.
    assert {"pillow", "libjpeg_turbo"} <= set(images.decoder_version())
    assert libraries(view_of(JPEG, RESIZE)) == {}
    assert libraries(view_of(JPEG, {**RESIZE, "antialias": False})) == {"opencv": cv2.__version__}
    assert libraries(view_of({"op": "webp", "quality": 80}, DOWNSCALE)) == {}
    assert libraries(view_of({**DOWNSCALE, "antialias": False})) == {"opencv": cv2.__version__}
    both = view_of({"op": "blur", "sigma": 1}, {"op": "noise", "std": 5})
    assert libraries(both) == {"opencv": cv2.__version__, "numpy": np.__version__}


def test_every_operation_is_rendered() -> None:
    schema = CenterViewSpec.model_json_schema()["properties"]["prepare"]["items"]
    assert set(prepare.OPERATIONS) == set(schema["discriminator"]["mapping"])


@pytest.mark.parametrize(("kind", "grid"), [("tencrop", {}), ("patches", GRID)])
def test_a_cache_holds_the_crops_of_a_prepared_view_in_their_order(
    kind: str, grid: dict[str, int], make_cache: Callable[..., MadeCache]
) -> None:
    view, encoder = view_of(RESIZE, JPEG, kind=kind, **grid), StandInEncoder()
    made = make_cache(per_class=2, view=view)
    cache = FeatureCache(made.features)
    assert cache.shape.draws == view.draws
    for row, image_id in enumerate(made.manifest.table["image_id"]):
        crops = rendered(view, np.asarray(Image.open(made.manifest.root / image_id)))
        alone = [encoder.encode(np.stack([crop] * encoder.batch_size)).embedding[0] for crop in crops]
        np.testing.assert_array_equal(cache.embedding[row], alone)


# What users write


def test_a_config_may_name_a_prepared_view() -> None:
    text = """
    mine:
      kind: patches
      rows: 2
      columns: 4
      prepare:
        - {op: resize, to: [512, 768], interpolation: bilinear, antialias: false}
        - {op: jpeg, quality: 90, subsampling: "4:4:4"}
    """
    mine = config_from({**CONFIG, "views": {**CONFIG["views"], **yaml.safe_load(text)}}).all_views["mine"]
    assert (mine.kind, mine.size, mine.draws) == ("patches", 224, 8)
    assert [operation.op for operation in mine.prepare] == ["resize", "jpeg"]


def test_the_documentation_names_every_built_in_view_and_its_examples_are_valid() -> None:
    text = (Path(__file__).parent.parent / "config" / "README.md").read_text(encoding="utf-8")
    chapter = text.split("\n## Views\n")[1].split("\n## ")[0]
    named = set(re.findall(r"`([^`]+)`", chapter))
    assert {name.removesuffix("-as-named") for name in BUILTIN_VIEWS} <= named
    (example,) = re.findall(r"```yaml\nviews:\n(.*?)```", chapter, flags=re.DOTALL)
    views = config_from({**CONFIG, "views": {**CONFIG["views"], **yaml.safe_load(example)}}).all_views
    assert views["train224-4draws"].draws == 4
    operations = {operation.op for view in views.values() for operation in getattr(view, "prepare", ())}
    assert operations == set(prepare.OPERATIONS)


def test_a_view_on_the_command_line_is_a_name_or_json() -> None:
    assert on_the_command_line("tencrop224") == BUILTIN_VIEWS["tencrop224"]
    inline = '{"kind": "center", "prepare": [{"op": "jpeg", "quality": 96}]}'
    assert on_the_command_line(inline) == BUILTIN_VIEWS["center224-jpeg96"]


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (
            {"kind": "centre"},
            ".kind: did you mean 'center'? allowed: center, patches, perturbed, tencrop, train; found 'centre'",
        ),
        ({"kind": 5}, ".kind: allowed: center, patches, perturbed, tencrop, train; found 5"),
        ({"size": 64}, ".kind: Field required"),
        ({"knid": "center"}, ": unknown key 'knid'; did you mean 'kind'?"),
        ("center224", ": Input should be a valid dictionary"),
        ({"prepare": JPEG}, ".prepare: Input should be a valid tuple"),
        ({"draws": 3}, ": unknown key 'draws'; allowed: kind, prepare, size"),
        ({"kind": "train", "prepare": [JPEG]}, ": unknown key 'prepare'; allowed: draws, jpeg_quality, kind, "),
        ({"kind": "tencrop", "prepair": [JPEG]}, ": unknown key 'prepair'; did you mean 'prepare'? allowed: kind, "),
        ({"kind": "tencrop", "size": 8}, ".size: Input should be greater than or equal to 16; found 8"),
        ({"kind": "patches", "rows": 2}, ".columns: Field required"),
        ({"kind": "patches", "rows": 9, "columns": 9}, ": 9 rows of 9 columns are 81 crops; from 2 to 64 are allowed"),
        (
            {"kind": "perturbed", "perturbation": "blurr", "how": "as-coded"},
            ".perturbation: did you mean 'blur'? allowed",
        ),
        ({"kind": "perturbed", "perturbation": "blur", "how": "honest"}, ".how: allowed: as-coded, as-named; found"),
        ({"kind": "perturbed", "perturbation": "blur"}, ".how: Field required"),
        (
            {"kind": "perturbed", "perturbation": "blur", "how": "as-coded", "size": 336},
            ": size 336 is more than the 256 pixels that the authors' code resizes a perturbed image to; set a smaller",
        ),
        ({"kind": "patches", "rows": 1, "columns": 1}, ": 1 rows of 1 columns are 1 crops; from 2 to 64 are allowed"),
    ],
)
def test_a_wrong_view_is_refused_by_the_path_that_the_user_wrote(view: Any, expected: str) -> None:
    described = {"kind": "center", **view} if isinstance(view, dict) and not {"size", "knid"} & {*view} else view
    with pytest.raises(ConfigError) as caught:
        config_from({**CONFIG, "views": {**CONFIG["views"], "mine": described}})
    (line,) = str(caught.value).splitlines()[1:]
    assert line.startswith(f"  views.mine{expected}")


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("jpeg", ": Input should be a valid dictionary"),
        (
            {"op": "jpg", "quality": 96},
            ".op: did you mean 'jpeg'? allowed: blur, downscale, jpeg, noise, resize, webp; found 'jpg'",
        ),
        ({"quality": 96}, ".op: Field required"),
        ({"opp": "jpeg"}, ": unknown key 'opp'; did you mean 'op'?"),
        ({"op": "jpeg"}, ".quality: Field required"),
        ({**JPEG, "qualty": 3}, ": unknown key 'qualty'; did you mean 'quality'? allowed: op, quality, subsampling"),
        ({**JPEG, "quality": 0}, ".quality: Input should be greater than or equal to 1; found 0"),
        ({**JPEG, "quality": 101}, ".quality: Input should be less than or equal to 100; found 101"),
        ({**JPEG, "subsampling": "420"}, ".subsampling: did you mean '4:2:0'? allowed: 4:2:0, 4:2:2, 4:4:4; found"),
        ({**JPEG, "subsampling": yaml.safe_load("4:2:0")}, ".subsampling: put '4:2:0' in quotes; without them"),
        ({**JPEG, "subsampling": [4, 2, 0]}, ".subsampling: Input should be '4:4:4'"),
        ({**JPEG, "subsampling": 420}, ".subsampling: Input should be '4:4:4', '4:2:2' or '4:2:0'; found 420"),
        ({**RESIZE, "to": "256"}, ".to: '256' is neither the short side nor [height, width], in whole pixels from 1"),
        ({**RESIZE, "to": True}, ".to: True is neither the short side nor [height, width]"),
        ({**RESIZE, "to": 0}, ".to: 0 is neither the short side nor [height, width]"),
        ({**RESIZE, "to": [256]}, ".to: [256] is neither the short side nor [height, width]"),
        ({**RESIZE, "to": [256, 16_385]}, ".to: [256, 16385] is neither the short side nor [height, width]"),
        ({**RESIZE, "interpolation": "bicubik"}, ".interpolation: did you mean 'bicubic'? allowed: bicubic, bilinear"),
        ({**RESIZE, "interpolation": "nearest"}, ": interpolation: nearest copies pixels and antialiases nothing; set"),
        ({**RESIZE, "antialias": "perhaps"}, ".antialias: Input should be a valid boolean"),
        ({"op": "blurr", "sigma": 1}, ".op: did you mean 'blur'? allowed: blur, downscale, jpeg"),
        ({"op": "blur", "sigma": 0}, ".sigma: Input should be greater than 0; found 0"),
        ({"op": "blur", "sigma": 65}, ".sigma: Input should be less than or equal to 64; found 65"),
        ({"op": "blur", "radius": 2}, ": unknown key 'radius'; allowed: op, sigma"),
        ({"op": "noise", "std": 0}, ".std: Input should be greater than 0; found 0"),
        ({"op": "noise", "std": 256}, ".std: Input should be less than or equal to 255; found 256"),
        ({"op": "noise", "std": 5, "seed": -1}, ".seed: Input should be greater than or equal to 0; found -1"),
        ({"op": "webp", "quality": 101}, ".quality: Input should be less than or equal to 100; found 101"),
        ({"op": "webp", "quality": 80, "lossless": True}, ": unknown key 'lossless'; allowed: op, quality"),
        ({**DOWNSCALE, "factor": 1}, ".factor: Input should be less than 1; found 1"),
        ({**DOWNSCALE, "factor": 0}, ".factor: Input should be greater than 0; found 0"),
        ({**DOWNSCALE, "interpolation": "nearest"}, ": interpolation: nearest copies pixels and antialiases nothing"),
        ({key: DOWNSCALE[key] for key in ("op", "factor", "antialias")}, ".interpolation: Field required"),
        ({key: RESIZE[key] for key in ("op", "to", "interpolation")}, ".antialias: Field required"),
        ({key: RESIZE[key] for key in ("op", "to", "antialias")}, ".interpolation: Field required"),
    ],
)
def test_a_wrong_operation_is_refused_by_the_path_that_the_user_wrote(operation: Any, expected: str) -> None:
    view = {"kind": "center", "prepare": [JPEG, operation]}
    with pytest.raises(ConfigError) as caught:
        config_from({**CONFIG, "views": {**CONFIG["views"], "mine": view}})
    (line,) = str(caught.value).splitlines()[1:]
    assert line.startswith(f"  views.mine.prepare.1{expected}")
    with pytest.raises(ConfigError) as caught:
        on_the_command_line(json.dumps(view))
    assert str(caught.value).splitlines()[1].startswith(f"  view.prepare.1{expected}")
