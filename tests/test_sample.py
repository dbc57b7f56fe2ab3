from __future__ import annotations

import hashlib
import json
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rine_cache.errors import ConfigError
from rine_cache.layouts import list_images
from rine_cache.sample import build, photographs
from rine_cache.sample.autoencoders import UPSAMPLERS, reconstruct, train_autoencoder
from rine_cache.sample.build import PROVENANCE, build_sample, subset_name
from rine_cache.sample.photographs import PHOTOGRAPHS, crops
from rine_cache.specs.data import DatasetSpec, SampleSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Spec = Callable[..., SampleSpec]

PARTS = ("train", "validation", "test")
SIZE = 64
OPERATORS = ("transposed", "nearest", "subpixel", "bilinear")
STRENGTHS = (0.1, 0.2)
COUNTS = {"train": 9, "validation": 4, "test": 10, "fake": 5}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small only lose by threads, and much where other programs run beside them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    """Describe a sample that takes a second; a folder of its own unless one is given."""

    def make(root: Path | None = None, **changes: Any) -> SampleSpec:
        settings = {
            "root": str(root or tmp_path_factory.mktemp("sample")),
            "crop": SIZE,
            "train_crops": COUNTS["train"],
            "validation_crops": COUNTS["validation"],
            "test_real_crops": COUNTS["test"],
            "test_fake_crops": COUNTS["fake"],
            "test_strengths": STRENGTHS,
            "autoencoder_steps": 2,
        }
        return SampleSpec.model_validate(settings | changes)

    return make


@pytest.fixture(scope="module")
def sample(spec: Spec) -> Path:
    """Build the sample once, with real autoencoders, for the tests that only look at it."""
    described = spec()
    build_sample(described)
    return Path(described.root)


class Inverting(nn.Module):
    """A generator whose reconstruction is known: the negative."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 1 - images


@pytest.fixture
def inverting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the known generator in the place of every trained one."""
    monkeypatch.setattr(build, "train_autoencoder", lambda *args, **settings: Inverting())


def images(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))


def pixels(path: Path) -> np.ndarray:
    image = Image.open(path)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def photograph_of(crop_name: str) -> str:
    return crop_name.partition("__")[0]


# Photographs


def test_no_photograph_is_in_two_parts_by_name() -> None:
    counted = Counter(path for part in PARTS for path in PHOTOGRAPHS[part])
    assert set(counted.values()) == {1}
    stems = Counter(Path(path).stem for path in counted)
    assert set(stems.values()) == {1}, "crops' names and groups would run together"


def test_no_photograph_is_in_two_parts_by_content() -> None:
    files = [path for part in PARTS for path in PHOTOGRAPHS[part]]
    digests = {
        hashlib.sha256((resources.files(path.split("/")[0]) / path.partition("/")[2]).read_bytes()).digest()
        for path in files
    }
    assert len(digests) == len(files)


def test_of_the_stereo_pair_one_half_is_used() -> None:
    assert sum("motorcycle" in path for part in PARTS for path in PHOTOGRAPHS[part]) == 1


# Crops


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(("count", "size"), [(2, 64), (8, 64), (17, 96), (24, 224)])
def test_crops_have_the_count_and_size_asked_for_and_names_of_their_own(part: Any, count: int, size: int) -> None:
    found = crops(part, count, size)
    assert len(found) == count
    assert {crop.pixels.shape for crop in found} == {(size, size, 3)}
    assert {crop.pixels.dtype for crop in found} == {np.dtype(np.uint8)}
    assert len({crop.name for crop in found}) == count


@pytest.mark.parametrize("part", PARTS)
def test_a_crop_s_name_says_what_it_was_cut_from_and_where(part: Any) -> None:
    by_stem = {Path(path).stem: path for path in PHOTOGRAPHS[part]}
    for crop in crops(part, 20, 64):
        stem, _, position = crop.name.partition("__")
        top, left = map(int, position.split("_"))
        package, _, inside = by_stem[stem].partition("/")
        whole = np.asarray(Image.open(str(resources.files(package) / inside)).convert("RGB"))
        np.testing.assert_array_equal(crop.pixels, whole[top : top + 64, left : left + 64])


@pytest.mark.parametrize("part", PARTS)
def test_crops_are_spread_evenly_over_the_photographs(part: Any) -> None:
    for count in (len(PHOTOGRAPHS[part]), 2 * len(PHOTOGRAPHS[part]) + 1, 30):
        per_photograph = Counter(photograph_of(crop.name) for crop in crops(part, count, 64))
        assert len(per_photograph) == len(PHOTOGRAPHS[part])
        assert max(per_photograph.values()) - min(per_photograph.values()) <= 1


def test_fewer_crops_than_photographs_come_one_from_each_of_the_first() -> None:
    found = [photograph_of(crop.name) for crop in crops("train", 3, 64)]
    assert found == [Path(path).stem for path in PHOTOGRAPHS["train"][:3]]


def test_positions_lie_as_far_apart_as_the_naive_search_finds() -> None:
    height, width, size = 150, 210, 64
    grid = [(top, left) for top in range(0, height - size + 1, 16) for left in range(0, width - size + 1, 16)]

    def gap(position: tuple[int, int], chosen: list[tuple[int, int]]) -> int:
        return min((position[0] - top) ** 2 + (position[1] - left) ** 2 for top, left in chosen)

    chosen = [(0, 0)]
    while len(chosen) < len(grid):
        chosen.append(max((position for position in grid), key=lambda position: gap(position, chosen)))
    assert photographs._spread(height, width, size, len(grid), "x") == chosen
    assert chosen[1] == (80, 144), "the opposite corner comes second"
    assert len(set(chosen)) == len(grid)


def test_few_crops_do_not_overlap() -> None:
    positions: dict[str, list[tuple[int, int]]] = {}
    for crop in crops("train", 4 * 7, 64):
        stem, _, position = crop.name.partition("__")
        positions.setdefault(stem, []).append(tuple(map(int, position.split("_"))))  # type: ignore[arg-type]
    for found in positions.values():
        for index, one in enumerate(found):
            assert all(max(abs(one[0] - other[0]), abs(one[1] - other[1])) >= 64 for other in found[:index])


def test_a_gray_photograph_becomes_three_equal_channels() -> None:
    gray = next(crop for crop in crops("train", 7, 64) if photograph_of(crop.name) == "camera")
    assert (gray.pixels == gray.pixels[:, :, :1]).all()


@pytest.mark.parametrize(("count", "size"), [(100_000, 64), (8, 5_000)])
def test_more_crops_than_a_photograph_holds_are_refused_with_what_it_holds(count: int, size: int) -> None:
    with pytest.raises(ConfigError, match=r"cell.png is 550 x 660: it holds \d+ crops .* lower the sample's counts"):
        crops("test", count, size)


def test_a_photograph_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PHOTOGRAPHS, "validation", ("skimage/data/no_such.png",))
    with pytest.raises(ConfigError, match=r"the installed skimage carries no data/no_such\.png"):
        crops("validation", 2, 64)


# The tree


def test_the_tree_holds_what_the_spec_says(sample: Path) -> None:
    expected = {
        "train/0_real": COUNTS["train"],
        "train/1_fake/transposed-s30": COUNTS["train"],
        "validation/0_real": COUNTS["validation"],
        "validation/1_fake/transposed-s30": COUNTS["validation"],
        "test/0_real": COUNTS["test"],
    }
    expected |= {f"test/1_fake/{operator}-s{s}": COUNTS["fake"] for operator in OPERATORS for s in (10, 20)}
    assert Counter(str(Path(image).parent) for image in images(sample)) == expected


def test_every_image_is_rgb_and_of_the_crop_s_size(sample: Path) -> None:
    for image in images(sample):
        assert pixels(sample / image).shape == (SIZE, SIZE, 3)


def test_reals_are_the_crops(sample: Path) -> None:
    for part, count in [("train", 9), ("validation", 4), ("test", 10)]:
        for crop in crops(part, count, SIZE):  # type: ignore[arg-type]
            np.testing.assert_array_equal(pixels(sample / part / "0_real" / f"{crop.name}.png"), crop.pixels)


def test_every_fake_has_the_real_that_it_was_made_of(sample: Path) -> None:
    for part in PARTS:
        reals = {path.name for path in (sample / part / "0_real").iterdir()}
        for folder in (sample / part / "1_fake").iterdir():
            fakes = {path.name for path in folder.iterdir()}
            assert fakes <= reals
            assert part == "test" or fakes == reals


def test_the_folder_layout_reads_the_tree(sample: Path) -> None:
    table = list_images(DatasetSpec(root=str(sample / "test"), group_pattern=r"^(.+)__")).table
    assert set(table["subset"]) == {"real"} | {f"{o}-s{s}" for o in OPERATORS for s in (10, 20)}
    assert Counter(table["label"]) == {0: 10, 1: 40}
    assert set(table["group"]) == {Path(path).stem for path in PHOTOGRAPHS["test"]}


def test_no_group_is_in_two_parts(sample: Path) -> None:
    groups = [{photograph_of(Path(image).name) for image in images(sample / part)} for part in PARTS]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]


def test_test_fakes_are_spread_over_the_photographs(spec: Spec, inverting: None) -> None:
    described = spec(test_real_crops=24, test_fake_crops=11)
    build_sample(described)
    names = [path.name for path in (Path(described.root) / "test/1_fake/nearest-s10").iterdir()]
    per_photograph = Counter(map(photograph_of, names))
    assert len(per_photograph) == len(PHOTOGRAPHS["test"])
    assert max(per_photograph.values()) == 2


@pytest.mark.parametrize(
    ("strength", "name"),
    [(0.05, "nearest-s05"), (0.1, "nearest-s10"), (0.29, "nearest-s29"), (0.3, "nearest-s30"), (1.0, "nearest-s100")],
)
def test_a_subset_is_named_after_operator_and_strength(strength: float, name: str) -> None:
    assert subset_name("nearest", strength) == name


# Fakes


def test_a_fake_is_the_real_moved_by_the_strength_towards_the_reconstruction(spec: Spec, inverting: None) -> None:
    described = spec(test_strengths=(0.05, 0.25, 1.0), train_strength=0.4)
    build_sample(described)
    root = Path(described.root)
    folders = [("test", "subpixel-s05", 0.05), ("test", "bilinear-s25", 0.25), ("test", "nearest-s100", 1.0)]
    for part, name, strength in [*folders, ("train", "transposed-s40", 0.4), ("validation", "transposed-s40", 0.4)]:
        for path in (root / part / "1_fake" / name).iterdir():
            real = pixels(root / part / "0_real" / path.name)
            exact = real + strength * ((255 - real) - real)
            assert np.abs(pixels(path) - exact).max() <= 0.5 + 1e-3, "rounded to the nearest"


def test_a_fainter_fake_lies_between_the_real_and_a_stronger_one(sample: Path) -> None:
    moved = 0
    for operator in OPERATORS:
        for path in (sample / f"test/1_fake/{operator}-s20").iterdir():
            real = pixels(sample / "test/0_real" / path.name)
            strong, faint = pixels(path), pixels(sample / f"test/1_fake/{operator}-s10" / path.name)
            assert (faint >= np.minimum(real, strong) - 1).all()
            assert (faint <= np.maximum(real, strong) + 1).all()
            unclipped = (strong > 0) & (strong < 255)
            twice = real + 2 * (faint - real)
            assert np.abs(strong - twice)[unclipped].max() <= 2
            moved += int(np.abs(strong - real).max() > 2)
    assert moved == len(OPERATORS) * COUNTS["fake"]


def test_values_beyond_8_bits_are_clipped_not_wrapped(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    class Beyond(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.where(images > 0.5, 3.0, -3.0)

    monkeypatch.setattr(build, "train_autoencoder", lambda *args, **settings: Beyond())
    described = spec(train_strength=1.0)
    build_sample(described)
    root = Path(described.root)
    for path in (root / "train/1_fake/transposed-s100").iterdir():
        real = pixels(root / "train/0_real" / path.name)
        np.testing.assert_array_equal(pixels(path), np.where(real > 127, 255, 0))


def test_every_operator_leaves_another_trace(sample: Path) -> None:
    name = next((sample / "test/1_fake/nearest-s20").iterdir()).name
    fakes = {pixels(sample / f"test/1_fake/{operator}-s20" / name).tobytes() for operator in OPERATORS}
    assert len(fakes) == len(OPERATORS)


def test_generators_see_the_training_crops_only(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, torch.Tensor] = {}
    seeds = []

    def train(operator: str, images: torch.Tensor, *, steps: int, seed: int) -> nn.Module:
        seen[operator] = images
        seeds.append(seed)
        assert steps == 2
        return Inverting()

    monkeypatch.setattr(build, "train_autoencoder", train)
    build_sample(spec())
    expected = np.stack([crop.pixels for crop in crops("train", COUNTS["train"], SIZE)])
    assert set(seen) == set(OPERATORS)
    for images_seen in seen.values():
        found = (images_seen.permute(0, 2, 3, 1) * 255).round().byte().numpy()
        np.testing.assert_array_equal(found, expected)
    assert len(set(seeds)) == len(OPERATORS)


# Building again


def test_the_same_seed_gives_the_same_bytes(sample: Path, spec: Spec) -> None:
    described = spec()
    build_sample(described)
    again = contents(Path(described.root))
    first = contents(sample)
    del again[PROVENANCE], first[PROVENANCE]  # it names the folder
    assert again == first


def test_another_seed_gives_other_fakes_of_the_same_reals(sample: Path, spec: Spec) -> None:
    described = spec(seed=1)
    build_sample(described)
    first, other = contents(sample), contents(Path(described.root))
    assert set(first) == set(other)
    for image in images(sample):
        assert (first[image] == other[image]) == ("0_real" in image), image


def test_building_again_replaces_the_earlier_sample(spec: Spec, inverting: None, tmp_path: Path) -> None:
    build_sample(spec(tmp_path, train_crops=20, test_strengths=(0.1, 0.5)))
    written = build_sample(spec(tmp_path))
    fresh = spec()
    build_sample(fresh)
    assert images(tmp_path) == images(Path(fresh.root))
    assert len(images(tmp_path)) == written
    assert json.loads((tmp_path / PROVENANCE).read_text())["images"] == written


def test_building_again_keeps_what_a_user_put_beside_the_sample(spec: Spec, inverting: None, tmp_path: Path) -> None:
    build_sample(spec(tmp_path))
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/1.png").write_bytes(b"mine")
    build_sample(spec(tmp_path))
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "other/1.png").read_bytes() == b"mine"


@pytest.mark.parametrize("foreign", ["photo.jpg", "train/0_real/photo.png", ".hidden", PROVENANCE])
def test_a_folder_of_other_files_is_refused_and_left_as_it_is(spec: Spec, tmp_path: Path, foreign: str) -> None:
    (tmp_path / foreign).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / foreign).write_bytes(b"mine")
    with pytest.raises(ConfigError, match="holds files that are no sample of rine-cache's; set sample"):
        build_sample(spec(tmp_path))
    assert contents(tmp_path) == {foreign: b"mine"}


def test_an_absent_or_an_empty_folder_is_taken(spec: Spec, inverting: None, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert build_sample(spec(tmp_path / "empty")) == build_sample(spec(tmp_path / "absent/deep"))
    assert images(tmp_path / "empty") == images(tmp_path / "absent/deep")


# Provenance


def test_provenance_says_what_the_sample_is(sample: Path) -> None:
    provenance = json.loads((sample / PROVENANCE).read_text())
    assert provenance["images"] == len(images(sample)) == 2 * 9 + 2 * 4 + 10 + 8 * 5
    assert SampleSpec.model_validate(provenance["settings"]).root == str(sample)
    assert provenance["photographs"] == {part: list(PHOTOGRAPHS[part]) for part in PARTS}
    assert provenance["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert "not a result" in provenance["about"]


def test_provenance_is_written_after_everything_else(sample: Path) -> None:
    written = (sample / PROVENANCE).stat().st_mtime_ns
    assert all((sample / image).stat().st_mtime_ns <= written for image in images(sample))


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the last subset of fakes fail."""
    original = build._write_fakes

    def write(folder: Path, found: Any, generators: Any, operator: str, strength: float) -> int:
        if folder.name == "test" and (operator, strength) == (OPERATORS[-1], STRENGTHS[-1]):
            raise OSError("the disk is full")
        return original(folder, found, generators, operator, strength)  # type: ignore[arg-type]

    monkeypatch.setattr(build, "_write_fakes", write)


def test_an_interrupted_build_has_no_provenance_and_can_be_run_again(
    spec: Spec, inverting: None, full_disk: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OSError, match="the disk is full"):
        build_sample(spec(tmp_path))
    assert images(tmp_path)
    assert not (tmp_path / PROVENANCE).exists()
    monkeypatch.undo()
    monkeypatch.setattr(build, "train_autoencoder", lambda *args, **settings: Inverting())
    assert build_sample(spec(tmp_path)) == len(images(tmp_path))
    assert (tmp_path / PROVENANCE).exists()


def test_an_interrupted_rebuild_has_no_provenance(
    sample: Path, spec: Spec, inverting: None, full_disk: None, tmp_path: Path
) -> None:
    for path, content in contents(sample).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    with pytest.raises(OSError, match="the disk is full"):
        build_sample(spec(tmp_path))
    assert not (tmp_path / PROVENANCE).exists()


# What a user can ask for in error


def test_more_fakes_than_real_test_crops_are_refused(spec: Spec) -> None:
    with pytest.raises(ValueError, match="test_fake_crops 11 exceed 10 test_real_crops"):
        spec(test_fake_crops=11)


@pytest.mark.parametrize("changes", [{"train_crops": 100_000}, {"test_real_crops": 100_000}])
def test_a_spec_that_cannot_be_built_leaves_the_earlier_sample(
    spec: Spec, inverting: None, tmp_path: Path, changes: dict[str, int]
) -> None:
    build_sample(spec(tmp_path))
    before = contents(tmp_path)
    with pytest.raises(ConfigError):
        build_sample(spec(tmp_path, **changes))
    assert contents(tmp_path) == before


@pytest.mark.parametrize("size", [32, 60, 66])
def test_crops_that_the_autoencoders_cannot_take_are_refused(spec: Spec, size: int) -> None:
    with pytest.raises((ConfigError, ValueError), match="crop"):
        build_sample(spec(crop=size))


def test_strengths_of_one_name_are_refused_or_kept_apart(spec: Spec, inverting: None, tmp_path: Path) -> None:
    try:
        written = build_sample(spec(tmp_path, test_strengths=(0.101, 0.104)))
    except (ConfigError, ValueError):  # by the builder or by the spec
        return
    assert len(images(tmp_path)) == written


@pytest.mark.parametrize("strength", [-0.5, 0.0, 1.5])
def test_strengths_outside_0_to_1_are_refused(spec: Spec, strength: float) -> None:
    with pytest.raises(ValueError, match="test_strengths"):
        spec(test_strengths=(strength,))


def test_a_root_that_is_a_file_is_refused(spec: Spec, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file"):
        build_sample(spec(tmp_path / "file"))


# Autoencoders


@pytest.fixture(scope="module")
def training_images() -> torch.Tensor:
    stacked = np.stack([crop.pixels for crop in crops("train", 7, 96)])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 255


def test_the_sample_has_an_autoencoder_of_every_operator() -> None:
    assert tuple(UPSAMPLERS) == OPERATORS


@pytest.mark.parametrize("operator", OPERATORS)
def test_autoencoders_keep_the_shape_and_wait_in_evaluation_mode(operator: Any, training_images: torch.Tensor) -> None:
    network = train_autoencoder(operator, training_images, steps=1, seed=0)
    assert not network.training
    for height, width in [(96, 96), (64, 128), (8, 8)]:
        assert network(torch.zeros(2, 3, height, width)).shape == (2, 3, height, width)


@pytest.mark.parametrize("operator", OPERATORS)
def test_autoencoders_learn_to_reconstruct(operator: Any, training_images: torch.Tensor) -> None:
    def loss(steps: int) -> float:
        network = train_autoencoder(operator, training_images, steps=steps, seed=0)
        with torch.inference_mode():
            return float((network(training_images) - training_images).abs().mean())

    assert loss(40) < 0.6 * loss(1)


def test_a_seed_fixes_an_autoencoder_and_touches_no_other_random_state(training_images: torch.Tensor) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, same, other = (train_autoencoder("nearest", training_images, steps=2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [
        torch.cat([value.flatten() for value in network.state_dict().values()]) for network in (one, same, other)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2])


def test_reconstructing_takes_every_pixel_to_its_place() -> None:
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(reconstruct(Inverting(), images), 1 - images)


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_reconstruction_has_no_trace_of_the_border(operator: Any, training_images: torch.Tensor) -> None:
    network = train_autoencoder(operator, training_images, steps=5, seed=0)
    flat = torch.full((1, 3, 64, 64), 0.5)
    with torch.inference_mode():
        plain, found = network(flat), reconstruct(network, flat)
    period = 8  # of a flat image only the upsampling's pattern is left, and it repeats
    assert not torch.allclose(plain[..., period:], plain[..., :-period], atol=1e-3)
    torch.testing.assert_close(found[..., period:], found[..., :-period], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[..., period:, :], found[..., :-period, :], atol=1e-5, rtol=0)
