from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from rine_cache.errors import LayoutError
from rine_cache.layouts import LAYOUTS, Listing, list_images
from rine_cache.layouts.entry import FAKE, REAL, Part
from rine_cache.layouts.forensynths import PROGAN_CLASSES
from rine_cache.layouts.recognise import IMAGES_A_FOLDER, recognise
from rine_cache.layouts.walk import MOST_ITEMS
from rine_cache.specs.data import DatasetSpec
from tests import twins

if TYPE_CHECKING:
    from collections.abc import Iterable

TREES = {
    "forensynths-train": twins.forensynths_train(),
    "forensynths-test": twins.forensynths_test(),
    "ufd-diffusion": twins.ufd_diffusion(),
    "genimage": twins.genimage(),
    "chameleon": twins.chameleon(),
    "synthbuster": twins.synthbuster(),
    "aigcdetectbenchmark": twins.aigcdetectbenchmark(),
}
NAMES = (*TREES, "ldm-train")


def build(name: str, root: Path) -> Path:
    return twins.build(root, TREES[name]) if name in TREES else twins.build_ldm_train(root)


def listing(root: Path, layout: str, **settings: object) -> Listing:
    return list_images(DatasetSpec.model_validate({"root": str(root), "layout": layout, **settings}))


def places(found: Listing) -> dict[str, tuple[int, str, str | None]]:
    """Return label, subset and split by image id."""
    columns = found.table.select("image_id", "label", "subset", "split").iter_rows()
    return {image_id: (label, subset, split) for image_id, label, subset, split in columns}


def place_of(root: Path, layout: str, path: str) -> tuple[int, str, str | None] | str:
    """Return where a layout places one image, or the reason why it does not."""
    twins.build(root, [path])
    (item,) = LAYOUTS[layout].find(root)
    return item.reason if hasattr(item, "reason") else (item.label, item.subset, item.split)  # type: ignore[union-attr]


def counts(found: Listing) -> dict[tuple[int, str, str | None], int]:
    return dict(Counter(places(found).values()))


def reasons(found: Listing) -> dict[str, int]:
    return {reason: strays.images for reason, strays in found.strays.items()}


# Whole copies


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("wrapper", ["", "deep/er/", "{data}/"])
def test_a_whole_copy_has_every_part_and_no_stray(name: str, wrapper: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    twins.build(root, [wrapper.format(data="data") + path for path in TREES[name]])
    found = listing(root, name)
    images = [path for path in TREES[name] if not path.endswith((".txt", ".py"))]
    assert found.table.height == len(images)
    assert (found.strays, found.missing) == ({}, [])
    assert {*places(found).values()} == {(part.label, part.subset, part.split) for part in LAYOUTS[name].parts}
    assert LAYOUTS[name].subsets_at(root) == {part.subset for part in LAYOUTS[name].parts}  # type: ignore[misc]


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("change", [str.upper, str.lower, str.title, lambda folder: folder.replace("_", "-")])
def test_case_and_separators_of_folders_do_not_matter(name: str, change: object, tmp_path: Path) -> None:
    changed = [f"{change(Path(path).parent.as_posix())}/{Path(path).name}" for path in TREES[name]]  # type: ignore[operator]
    found = listing(twins.build(tmp_path / "data", changed), name)
    assert counts(found) == counts(listing(twins.build(tmp_path / "plain", TREES[name]), name))
    assert not found.strays


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_the_walk_changes_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = build(name, tmp_path / "data")
    twins.build(root, ["sd_xl/1.png", "other/val/ai/2.png", "3.png", "sd_xl/0.png"])
    if name == "ufd-diffusion":
        twins.build(root, twins.ufd_with_reals_everywhere())
    expected = listing(root, name)
    scandir = os.scandir

    class Shuffled:
        def __init__(self, path: Path) -> None:
            with scandir(path) as items:
                self._items = list(items)
            random.shuffle(self._items)

        def __enter__(self) -> Shuffled:
            return self

        def __iter__(self) -> object:
            return iter(self._items)

        def __next__(self) -> os.DirEntry[str]:
            return self._items.pop()

        def __exit__(self, *error: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Shuffled)
    for seed in range(3):
        random.seed(seed)
        again = listing(root, name)
        assert again.table.equals(expected.table)
        assert (again.strays, again.missing) == (expected.strays, expected.missing)


def test_empty_files_and_odd_endings_are_listed(tmp_path: Path) -> None:
    paths = ["Midjourney/val/ai/a.PNG", "Midjourney/val/ai/b.webp", "Midjourney/val/nature/c.JPEG"]
    root = twins.build(tmp_path / "data", paths)
    (root / paths[0]).write_bytes(b"")
    assert dict(listing(root, "genimage").table.select("image_id", "size").iter_rows()) == dict(
        zip(paths, (0, 3, 3), strict=True)
    )


# GenImage


def test_the_names_of_the_unpacked_archives_give_the_same_subsets(tmp_path: Path) -> None:
    published = listing(twins.build(tmp_path / "published", twins.genimage()), "genimage")
    unpacked = listing(twins.build(tmp_path / "unpacked", twins.genimage(unpacked=True)), "genimage")
    assert counts(published) == counts(unpacked)
    assert len(counts(published)) == 2 * 2 * 8
    assert not unpacked.strays


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("Stable Diffusion V1.4/train/ai/033_sdv4_00152.png", (FAKE, "sdv14", "train")),
        ("GenImage/Midjourney/imagenet_midjourney/val/ai/1.png", (FAKE, "midjourney", "val")),
        ("imagenet_ai_0424_sdv5/val/nature/1.JPEG", (REAL, "sdv15", "val")),
        ("val/SDv1.4/nature/1.JPEG", (REAL, "sdv14", "val")),
        ("adm/valid/0_real/1.JPEG", (REAL, "adm", "val")),
        ("glide/val/val/ai/ai/1.png", (FAKE, "glide", "val")),
        ("glide/val/nature/n01440764/1.JPEG", (REAL, "glide", "val")),
        # of no named split: null, never guessed
        ("glide/ai/1.png", (FAKE, "glide", None)),
        # strays
        ("sd_xl/val/ai/1.png", "in the unexpected folder sd_xl"),
        ("train/sd_xl/ai/1.png", "in the unexpected folder sd_xl"),
        ("train/ai/1.png", "under no subset's folder"),
        ("1.png", "under no subset's folder"),
        ("glide/val/1.png", "under no label folder (0_real, real, nature, 1_fake, fake, ai)"),
        ("glide/val/ai/nature/1.png", "under folders of both labels, real and fake"),
        ("glide/Midjourney/val/ai/1.png", "under folders of several subsets: glide, midjourney"),
        ("glide/test/ai/1.png", "in the split test, which this layout does not have"),
        ("train/glide/val/ai/1.png", "under folders of several splits: train, val"),
    ],
)
def test_genimage_is_placed_by_its_folders(path: str, expected: object, tmp_path: Path) -> None:
    assert place_of(tmp_path / "data", "genimage", path) == expected


def test_unexpected_folders_are_told_from_wrappers(tmp_path: Path) -> None:
    paths = [f"GenImage/{path}" for path in twins.genimage(generators=["adm", "glide"])]
    paths += [
        "GenImage/sd_xl/val/ai/1.png",
        "GenImage/sd_xl/train/ai/2.png",
        "GenImage/samples/3.png",
        "GenImage/4.png",
    ]
    found = listing(twins.build(tmp_path / "data", paths), "genimage")
    assert {reason: tuple(strays) for reason, strays in found.strays.items()} == {
        "in the unexpected folder samples": (1, "GenImage/samples/3.png"),
        "in the unexpected folder sd_xl": (2, "GenImage/sd_xl/train/ai/2.png"),
        "under no subset's folder": (1, "GenImage/4.png"),
    }


def test_missing_generators_and_halves_are_named(tmp_path: Path) -> None:
    paths = twins.genimage(generators=["adm", "glide", "vqdm"])
    paths = [path for path in paths if not path.startswith(("GLIDE/val/nature", "VQDM/train"))]
    root = twins.build(tmp_path / "data", paths)
    missing = listing(root, "genimage").missing
    assert Part(REAL, "glide", "val") in missing
    assert {part for part in missing if part.subset == "vqdm"} == {
        Part(REAL, "vqdm", "train"),
        Part(FAKE, "vqdm", "train"),
    }
    assert {part.subset for part in missing if part.label == FAKE and part.split == "val"} == {
        *("midjourney", "sdv14", "sdv15", "wukong", "biggan")
    }
    assert not [part for part in missing if part.subset == "adm"]
    # of what a data set asks for only
    assert listing(root, "genimage", subsets=["adm", "glide"], splits=["val"]).missing == [Part(REAL, "glide", "val")]
    assert LAYOUTS["genimage"].subsets_at(root) == {"adm", "glide", "vqdm"}  # type: ignore[misc]


def test_strays_known_to_be_of_what_is_not_asked_for_are_not_counted(tmp_path: Path) -> None:
    paths = [*twins.genimage(generators=["adm", "glide"]), "sd_xl/val/ai/1.png"]
    paths += ["ADM/train/2.png", "GLIDE/val/3.png", "ADM/test/ai/4.png", "ADM/train/val/ai/5.png"]
    root = twins.build(tmp_path / "data", paths)
    of_no_label = "under no label folder (0_real, real, nature, 1_fake, fake, ai)"
    of_no_such_split = "in the split test, which this layout does not have"
    of_two_splits = "under folders of several splits: train, val"
    unexpected = {"in the unexpected folder sd_xl": 1}  # of which generator it is, nobody knows
    every = {of_no_label: 2, of_no_such_split: 1, of_two_splits: 1} | unexpected
    assert reasons(listing(root, "genimage")) == every
    assert reasons(listing(root, "genimage", subsets=["glide"])) == {of_no_label: 1} | unexpected
    assert reasons(listing(root, "genimage", splits=["val"])) == {of_no_label: 1, of_two_splits: 1} | unexpected
    train = listing(root, "genimage", subsets=["adm"], splits=["train"])
    assert reasons(train) == {of_no_label: 1, of_two_splits: 1}


# A root that was given too deep, and folders above it that say nothing


@pytest.mark.parametrize(
    ("layout", "above", "path", "expected"),
    [
        ("genimage", "genimage/val", "Midjourney/ai/1.png", (FAKE, "midjourney", "val")),
        ("genimage", "Midjourney/imagenet_midjourney", "val/ai/1.png", (FAKE, "midjourney", "val")),
        ("genimage", "GenImage/ADM/imagenet_ai_0508_adm/train", "ai/1.PNG", (FAKE, "adm", "train")),
        ("genimage", "val/glide", "ai/1.png", (FAKE, "glide", "val")),
        # what lies below wins
        ("genimage", "train", "glide/val/ai/1.png", (FAKE, "glide", "val")),
        ("genimage", "glide", "Midjourney/val/ai/1.png", (FAKE, "midjourney", "val")),
        # not the subset of what has a folder of its own
        ("genimage", "midjourney", "sd_xl/val/ai/1.png", "in the unexpected folder sd_xl"),
        # a folder that names nothing ends the look
        ("genimage", "test/GenImage", "glide/ai/1.png", (FAKE, "glide", None)),
        ("genimage", "glide/images", "val/ai/1.png", "under no subset's folder"),
        # a label is never taken from above
        ("genimage", "glide/val/ai", "1.png", "under no subset's folder"),
        ("forensynths-test", "test/progan", "cat/0_real/1.png", (REAL, "progan", "test")),
        ("forensynths-test", "progan", "train/0_real/1.png", (REAL, "progan", "test")),
        ("forensynths-test", "train/progan", "cat/0_real/1.png", "in the split train, which this layout does not have"),
        ("forensynths-train", "train/progan", "cat/0_real/1.png", (REAL, "cat", "train")),
        ("forensynths-train", "ForenSynths/val", "cat/1_fake/1.png", (FAKE, "cat", "val")),
        ("forensynths-train", "train", "train/1_fake/1.png", (FAKE, "train", "train")),
        ("forensynths-train", "val/train", "1_fake/1.png", (FAKE, "train", "val")),
        ("ufd-diffusion", "diffusion_datasets/ldm_200", "0_real/1.jpg", (REAL, "laion", "test")),
        ("synthbuster", "synthbuster/dalle2", "1.png", (FAKE, "dalle2", "test")),
        ("chameleon", "Chameleon/test", "0_real/1.jpg", (REAL, "chameleon", "test")),
        ("chameleon", "Chameleon/train", "0_real/1.jpg", "in the split train, which this layout does not have"),
    ],
)
def test_the_end_of_the_root_s_own_path_tells_what_lies_below_leaves_open(
    layout: str, above: str, path: str, expected: object, tmp_path: Path
) -> None:
    assert place_of(tmp_path / "x" / above, layout, path) == expected


@pytest.mark.parametrize(
    ("layout", "link", "target", "path", "expected"),
    [
        ("genimage", "images", "genimage/val", "glide/ai/1.png", (FAKE, "glide", "val")),
        ("genimage", "genimage/val", "images", "glide/ai/1.png", (FAKE, "glide", "val")),
        ("genimage", "genimage/val", "store/train", "glide/ai/1.png", (FAKE, "glide", "val")),
        ("forensynths-train", "progan/train", "store/tr", "car/0_real/1.png", (REAL, "car", "train")),
        ("forensynths-train", "progan/tr", "store/train", "car/0_real/1.png", (REAL, "car", "train")),
        ("ldm-train", "latent_diffusion_trainingset/train", "store/tr", "ffhq/1.png", (FAKE, "ffhq", "train")),
        ("ldm-train", "tr", "latent_diffusion_trainingset/train", "ffhq/1.png", (FAKE, "ffhq", "train")),
    ],
)
def test_a_root_that_is_a_link_is_read_by_its_own_path_then_by_where_it_leads(
    layout: str, link: str, target: str, path: str, expected: object, tmp_path: Path
) -> None:
    store, root = tmp_path / "x" / target, tmp_path / "y" / link
    store.mkdir(parents=True)
    root.parent.mkdir(parents=True)
    root.symlink_to(store)
    assert place_of(root, layout, path) == expected
    assert LAYOUTS[layout].subsets_at(root) == {expected[1]}  # type: ignore[misc, index]
    assert list(places(listing(root, layout, splits=[expected[2]]))) == [path]  # type: ignore[index]


# ForenSynths


@pytest.mark.parametrize("above", ["", "progan/", "dataset/progan/"])
@pytest.mark.parametrize("classes", [["horse"], ["chair", "horse"], ["car", "cat", "chair", "horse"], ["train"]])
def test_forensynths_training_sets_of_some_classes(above: str, classes: list[str], tmp_path: Path) -> None:
    paths = twins.forensynths_train(classes, above)
    found = listing(twins.build(tmp_path / "data", paths), "forensynths-train")
    expected = {(label, name, split): 2 for label in (0, 1) for name in classes for split in ("train", "val")}
    assert counts(found) == expected
    assert not found.strays
    assert {part.subset for part in found.missing} == {*PROGAN_CLASSES} - {*classes}


@pytest.mark.parametrize(
    ("layout", "path", "expected"),
    [
        ("forensynths-train", "car/0_real/1.png", (REAL, "car", None)),
        ("forensynths-train", "progan/train/0_real/1.png", (REAL, "train", None)),
        ("forensynths-train", "progan_train/train/0_real/1.png", (REAL, "train", "train")),
        ("forensynths-train", "progan_val/progan/car/0_real/1.png", (REAL, "car", "val")),
        ("forensynths-train", "train/0_real/1.png", "under no subset's folder"),
        ("forensynths-train", "horse/train/ai/1.png", (FAKE, "horse", "train")),
        ("forensynths-train", "progan/val/train/0_real/1.png", (REAL, "train", "val")),
        ("forensynths-train", "train/car/car/0_real/1.png", (REAL, "car", "train")),
        ("forensynths-train", "test/car/0_real/1.png", "in the split test, which this layout does not have"),
        ("forensynths-train", "train/table/0_real/1.png", "in the unexpected folder table"),
        ("forensynths-test", "progan/train/0_real/1.png", (REAL, "progan", "test")),
        ("forensynths-test", "test/progan/train/0_real/1.png", (REAL, "progan", "test")),
        ("forensynths-test", "train/progan/cat/0_real/1.png", "in the split train, which this layout does not have"),
        ("forensynths-test", "progan/train/cat/0_real/1.png", "in the split train, which this layout does not have"),
        ("forensynths-test", "biggan/train/0_real/1.png", "in the split train, which this layout does not have"),
        ("forensynths-test", "CNN_synth_testset/Which Face Is Real/1_fake/1.png", (FAKE, "whichfaceisreal", "test")),
        ("forensynths-test", "diffusion_datasets/guided/1_fake/1.png", "in the unexpected folder diffusion_datasets"),
        ("aigcdetectbenchmark", "sd_xl/1_fake/1.png", (FAKE, "sdxl", "test")),
        ("aigcdetectbenchmark", "test/stable_diffusion_v_1_4/0_real/1.png", (REAL, "sdv14", "test")),
        ("aigcdetectbenchmark", "crn/0_real/1.png", "in the unexpected folder crn"),
    ],
)
def test_a_class_named_like_a_split_is_told_from_it(layout: str, path: str, expected: object, tmp_path: Path) -> None:
    assert place_of(tmp_path / "data", layout, path) == expected


def test_the_class_train_is_known_by_its_neighbours(tmp_path: Path) -> None:
    root = twins.build(tmp_path / "data", [f"x/{name}/0_real/1.png" for name in PROGAN_CLASSES])
    assert counts(listing(root, "forensynths-train")) == {(REAL, name, None): 1 for name in PROGAN_CLASSES}
    assert LAYOUTS["forensynths-train"].subsets_at(root) == {*PROGAN_CLASSES}  # type: ignore[misc]


# Chameleon


def test_chameleon_needs_no_name_but_keeps_out_what_lies_beside_it(tmp_path: Path) -> None:
    unnamed = listing(twins.build(tmp_path / "data", ["test/0_real/1.jpg", "1_fake/2.jpg"]), "chameleon")
    assert counts(unnamed) == {(REAL, "chameleon", "test"): 1, (FAKE, "chameleon", "test"): 1}
    paths = ["Chameleon/Chameleon/test/0_real/1.jpg", "progan/0_real/2.png"]
    named = listing(twins.build(tmp_path / "both", paths), "chameleon")
    assert places(named) == {paths[0]: (REAL, "chameleon", "test")}
    assert reasons(named) == {"in the unexpected folder progan": 1}
    assert named.missing == [Part(FAKE, "chameleon", "test")]


# Synthbuster


@pytest.mark.parametrize("folder", ["RAISEpng", "RAISE", "raise", "RAISE-1k", "real_RAISE_1k", "real/RAISE"])
def test_raise_is_known_by_the_beginning_of_its_name(folder: str, tmp_path: Path) -> None:
    assert place_of(tmp_path / "data", "synthbuster", f"x/{folder}/r0.png") == (REAL, "raise", "test")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("dalle2/0_real/1.png", "under a label folder that dalle2 does not have"),
        ("fake/dalle2/1.png", (FAKE, "dalle2", "test")),
        ("midjourney/1.png", "in the unexpected folder midjourney"),
        ("train/dalle2/1.png", "in the split train, which this layout does not have"),
    ],
)
def test_synthbuster_s_fakes_are_not_taken_for_reals(path: str, expected: object, tmp_path: Path) -> None:
    assert place_of(tmp_path / "data", "synthbuster", path) == expected


# UniversalFakeDetect's diffusion sets


def test_reals_held_by_every_generator_s_folder_are_listed_once(tmp_path: Path) -> None:
    found = listing(twins.build(tmp_path / "data", twins.ufd_with_reals_everywhere()), "ufd-diffusion")
    reals = {image_id: subset for image_id, (label, subset, _) in places(found).items() if label == REAL}
    assert reals == {
        **{f"guided/0_real/imagenet{number:04d}.jpg": "imagenet" for number in range(3)},
        **{f"dalle/0_real/laion{number:04d}.jpg": "laion" for number in range(3)},
    }
    assert reasons(found) == {"copies of laion's real images": 6 * 3}
    assert not found.missing
    assert LAYOUTS["ufd-diffusion"].subsets_at(tmp_path / "data") == {*twins.UFD, "imagenet", "laion"}  # type: ignore[misc]


def test_reals_are_listed_from_the_folder_that_holds_most_of_them_the_sources_own_first(tmp_path: Path) -> None:
    own = ["laion/0_real/a.jpg", "laion/0_real/b.jpg"]
    copies = ["dalle/0_real/a.jpg", "dalle/0_real/renamed.jpg", "ldm_100/0_real/b.jpg", "ldm_200/0_real/b.jpg"]
    root = twins.build(tmp_path / "data", [*own, *copies, "guided/0_real/a.jpg"])
    (root / "ldm_200/0_real/b.jpg").write_bytes(b"encoded again on the way")
    found = listing(root, "ufd-diffusion")
    assert sorted(places(found)) == sorted([*own, "guided/0_real/a.jpg"])
    assert found.strays == {"copies of laion's real images": (4, "dalle/0_real/a.jpg")}
    for name in ("c", "d", "e"):
        (root / f"ldm_100/0_real/{name}.jpg").write_bytes(b"x")
    found = listing(root, "ufd-diffusion")  # laion's own folder is half copied
    assert {path.split("/")[0] for path in places(found)} == {"guided", "ldm_100"}


def test_copies_of_a_source_that_is_not_asked_for_are_not_counted(tmp_path: Path) -> None:
    root = twins.build(tmp_path / "data", twins.ufd_with_reals_everywhere())
    assert not listing(root, "ufd-diffusion", subsets=["imagenet", "guided"]).strays
    assert listing(root, "ufd-diffusion", subsets=["laion"]).strays


def test_a_source_of_reals_holds_no_fakes(tmp_path: Path) -> None:
    reason = "under a label folder that laion does not have"
    assert place_of(tmp_path / "data", "ufd-diffusion", "laion/1_fake/1.png") == reason


# The latent-diffusion training set


def test_the_lists_of_reals_are_resolved(tmp_path: Path) -> None:
    found = listing(twins.build_ldm_train(tmp_path / "data"), "ldm-train")
    assert {image_id: place for image_id, place in places(found).items() if place[0] == REAL} == {
        "coco/train2014/COCO_train2014_000000000001.jpg": (REAL, "coco", "train"),
        "coco/train2014/COCO_train2014_000000000002.jpg": (REAL, "coco", "train"),
        "coco/val2014/COCO_val2014_000000000004.jpg": (REAL, "coco", "val"),
        "coco/val2014/COCO_val2014_000000000006.jpg": (REAL, "coco", "val"),
        "train/progan/car/0_real/00001.png": (REAL, "lsun", "train"),
        "train/progan/train/0_real/00001.png": (REAL, "lsun", "train"),
        "train/progan/car/0_real/00002.png": (REAL, "lsun", "val"),
        "train/progan/train/0_real/00002.png": (REAL, "lsun", "val"),
    }
    fakes = {place: count for place, count in counts(found).items() if place[0] == FAKE}
    assert fakes == {(FAKE, folder, split): 2 for folder in twins.LDM_FOLDERS for split in ("train", "val")}
    assert (found.strays, found.missing) == ({}, [])
    assert LAYOUTS["ldm-train"].subsets_at(tmp_path / "data") == {*twins.LDM_FOLDERS, "coco", "lsun"}  # type: ignore[misc]


@pytest.mark.parametrize(
    "progan", ["progan_train", "train", "ForenSynths/train", "train/progan", "images", "a/b/train"]
)
def test_progan_s_training_reals_are_found_wherever_they_lie(progan: str, tmp_path: Path) -> None:
    decoys = ["val/car/0_real/00001.png", "CNN_synth_testset/progan/car/0_real/00001.png", "test/car/0_real/00001.png"]
    root = twins.build(tmp_path / "data", [f"{progan}/car/0_real/00001.png", *decoys])
    home = root / "latent_diffusion_trainingset/train"
    home.mkdir(parents=True)
    (home / "real_lsun.txt").write_text("car_00001.png\n")
    assert list(places(listing(root, "ldm-train"))) == [f"{progan}/car/0_real/00001.png"]


def test_linked_folders_hold_the_reals(tmp_path: Path) -> None:
    store = twins.build_ldm_train(tmp_path / "store")
    root = tmp_path / "data"
    root.mkdir()
    for name, target in [("latent_diffusion_trainingset",) * 2, ("coco", "coco"), ("progan_train", "train/progan")]:
        (root / name).symlink_to(store / target)
    found = listing(root, "ldm-train")
    assert counts(found) == counts(listing(store, "ldm-train"))
    assert "progan_train/car/0_real/00001.png" in places(found)


def test_what_is_listed_and_not_there_is_a_stray(tmp_path: Path) -> None:
    root = twins.build_ldm_train(tmp_path / "data")
    with (root / "latent_diffusion_trainingset/train/real_coco.txt").open("ab") as file:
        file.write(b"000000000999.jpg\nCOCO_val2014_000000000001.jpg\n../../secret.png\n\x00\xff\ncoco/train2014\n")
    with (root / "latent_diffusion_trainingset/valid/real_lsun.txt").open("a") as file:
        file.write("car_00001.png\nzebra_00001.png\ncar\n")
    twins.build(root, ["latent_diffusion_trainingset/train/loose.png", "latent_diffusion_trainingset/test/ffhq/1.png"])
    found = listing(root, "ldm-train")
    assert reasons(found) == {
        "listed in train/real_coco.txt, not found": 5,
        "listed again in valid/real_lsun.txt": 1,
        "listed in valid/real_lsun.txt, not found": 2,
        "under no generator's folder": 1,
        "in the split test, which this layout does not have": 1,
    }


def test_what_the_lists_of_another_split_or_source_lack_is_not_told(tmp_path: Path) -> None:
    root = twins.build_ldm_train(tmp_path / "data")
    with (root / "latent_diffusion_trainingset/valid/real_coco.txt").open("a") as file:
        file.write("000000000999.jpg\n")
    lacking = {"listed in valid/real_coco.txt, not found": 1}
    assert reasons(listing(root, "ldm-train", splits=["val"])) == lacking
    assert reasons(listing(root, "ldm-train", splits=["val"], subsets=["coco"])) == lacking
    assert not listing(root, "ldm-train", splits=["train"]).strays
    assert not listing(root, "ldm-train", subsets=["lsun"]).strays


def test_a_training_set_without_its_reals_names_them_as_missing(tmp_path: Path) -> None:
    root = twins.build_ldm_train(tmp_path / "data")
    (root / "coco").rename(tmp_path / "coco")
    found = listing(root, "ldm-train")
    assert found.missing == [Part(REAL, "coco", "train"), Part(REAL, "coco", "val")]
    assert reasons(found)["listed in train/real_coco.txt, not found"] == 2


# Looking at names alone


@pytest.mark.parametrize("name", NAMES)
def test_subsets_are_named_without_listing_images(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = build(name, tmp_path / "data")
    scandir = os.scandir
    looked_into = []

    def spy(path: Path) -> object:
        looked_into.append(Path(path).name)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", spy)
    assert LAYOUTS[name].subsets_at(root)  # type: ignore[misc]
    images = {"0_real", "1_fake", "ai", "nature", "train2014", "val2014", "RAISEpng", "dalle2"}
    assert not images & set(looked_into)


def test_a_folder_of_very_many_items_is_no_folder_of_folders(tmp_path: Path) -> None:
    root = twins.build(tmp_path / "data", ["glide/val/ai/1.png", *(f"{number}.txt" for number in range(MOST_ITEMS))])
    assert LAYOUTS["genimage"].subsets_at(root) == set()  # type: ignore[misc]


def test_a_link_to_itself_hides_no_folder_beside_it(tmp_path: Path) -> None:
    root = twins.build(tmp_path / "data", ["glide/val/ai/1.png"])
    (root / "self").symlink_to("self")
    assert LAYOUTS["genimage"].subsets_at(root) == {"glide"}  # type: ignore[misc]


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_root_holds_no_subset_and_is_refused(name: str, tmp_path: Path) -> None:
    assert LAYOUTS[name].subsets_at(tmp_path) == set()  # type: ignore[misc]
    with pytest.raises(LayoutError, match="found none at all"):
        listing(tmp_path, name)


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    root = twins.build(tmp_path / "data", twins.genimage(generators=["adm"]))
    (root / "ADM/again").symlink_to("..")
    assert LAYOUTS["genimage"].subsets_at(root) == {"adm"}  # type: ignore[misc]
    assert listing(root, "genimage").table.height == 8


# Recognising


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_copy_is_recognised(name: str, tmp_path: Path) -> None:
    root = build(name, tmp_path / {"chameleon": "Chameleon"}.get(name, "data"))
    best, *_ = recognise(root)
    whole = listing(root, name)
    assert (best.layout, best.placed, best.strays) == (name, whole.table.height, 0)
    assert best.parts == len(LAYOUTS[name].parts)
    assert not best.more


@pytest.mark.parametrize(
    ("paths", "layout", "parts"),
    [
        (twins.genimage(generators=["adm", "glide"], splits=["val"]), "genimage", 4),
        (twins.genimage(unpacked=True, generators=["midjourney"]), "genimage", 4),
        (twins.forensynths_test(["progan"]), "forensynths-test", 2),
        (twins.forensynths_test(["progan", "stylegan"]), "forensynths-test", 4),
        (twins.aigcdetectbenchmark(["progan", "dalle2", "adm"]), "aigcdetectbenchmark", 6),
        (twins.forensynths_train(["car", "train"], "progan/"), "forensynths-train", 8),
        ([f"ForenSynths/{path}" for path in twins.forensynths_test(["crn", "progan"])], "forensynths-test", 4),
        (["dalle/1_fake/1.png", "laion/0_real/1.jpg"], "ufd-diffusion", 2),
        (["synthbuster/dalle3/1.png", "synthbuster/firefly/1.png"], "synthbuster", 2),
        (["Chameleon/Chameleon/test/0_real/1.jpg"], "chameleon", 1),
        (twins.genimage(generators=["midjourney", "wukong"]), "genimage", 8),
        (twins.forensynths_test(["crn", "imle", "deepfake"]), "forensynths-test", 6),
    ],
)
def test_a_part_of_a_copy_is_recognised(paths: list[str], layout: str, parts: int, tmp_path: Path) -> None:
    best = recognise(twins.build(tmp_path / "data", paths))[0]
    assert (best.layout, best.placed, best.strays, best.parts) == (layout, len(paths), 0, parts)


@pytest.mark.parametrize(
    "paths",
    [
        ["0_real/1.png", "1_fake/1.png"],
        ["test/0_real/1.jpg", "test/1_fake/1.jpg"],  # as Chameleon's, but nothing names it
        ["train/0_real/1.png", "train/1_fake/2.png", "val/0_real/3.png", "val/1_fake/4.png"],  # no class of ProGAN's
        ["cat/0_real/1.png", "cat/1_fake/2.png", "dog/0_real/3.png"],  # of no split, so maybe not ProGAN's
        # generators of several benchmarks, and new ones
        [
            f"{name}/{label}/1.png"
            for name in ("midjourney", "sdxl", "dalle3", "flux")
            for label in ("0_real", "1_fake")
        ],
        [f"{name}/{label}/1.png" for name in ("midjourney", "dalle3") for label in ("0_real", "1_fake")],
        ["new_one/0_real/1.png", "new_two/1_fake/1.png", "new_three/1_fake/1.png", "glide/1_fake/1.png"],
    ],
)
def test_the_generic_folder_is_for_what_nothing_else_fits(paths: list[str], tmp_path: Path) -> None:
    best = recognise(twins.build(tmp_path / "data", paths))[0]
    assert (best.layout, best.placed) == ("folder", len(paths))


def test_strays_are_told_apart_from_what_is_placed(tmp_path: Path) -> None:
    root = twins.build(tmp_path / "data", [*twins.genimage(generators=["adm", "glide"]), "sd_xl/val/ai/1.png"])
    best = recognise(root)[0]
    assert (best.layout, best.placed, best.strays) == ("genimage", 16, 1)


def test_a_whole_copy_is_recognised_beside_a_generator_that_it_does_not_have(tmp_path: Path) -> None:
    new = [
        f"sd_xl/{split}/{label}/{number}.png"
        for split in ("train", "val")
        for label in ("ai", "nature")
        for number in range(8)
    ]
    root = twins.build(tmp_path / "data", [*twins.genimage(), *new])
    best = recognise(root)[0]
    assert (best.layout, best.strays, best.parts) == ("genimage", 32, 32)
    assert 10 * best.placed < 9 * (best.placed + best.strays)  # so it is by its parts that it is known


def test_a_look_at_a_large_folder_is_bounded_and_says_so(tmp_path: Path) -> None:
    many = [f"glide/val/ai/{number}.png" for number in range(IMAGES_A_FOLDER + 5)]
    best = recognise(twins.build(tmp_path / "data", [*many, "ADM/val/nature/1.JPEG"]))[0]
    assert (best.layout, best.placed, best.more, best.parts) == ("genimage", IMAGES_A_FOLDER + 1, True, 2)


def test_what_holds_no_image_is_not_recognised(tmp_path: Path) -> None:
    assert recognise(tmp_path) == []
    with pytest.raises(LayoutError, match="does not exist; give the folder, or the table"):
        recognise(tmp_path / "nowhere")


def test_a_table_is_recognised_and_a_broken_one_says_why(tmp_path: Path) -> None:
    twins.build(tmp_path, ["a.png", "b.png"])
    (tmp_path / "images.csv").write_text("path,label\na.png,real\nb.png,fake\n")
    assert [fit[:3] for fit in recognise(tmp_path / "images.csv")] == [("table", 2, 0)]
    (tmp_path / "images.csv").write_text("path,size\na.png,1\n")
    (fit,) = recognise(tmp_path / "images.csv")
    assert (fit.layout, fit.placed) == ("table", 0)
    assert "label" in fit.problem


# The configured benchmarks


def _sources(benchmark: dict[str, dict[str, dict[str, object]]]) -> Iterable[dict[str, object]]:
    for test_set in benchmark["test_sets"].values():
        sides = [test_set[side] for side in ("real", "fake") if side in test_set] or [test_set]
        yield from sides  # type: ignore[misc]


def test_the_configured_benchmarks_name_subsets_that_the_layouts_have() -> None:
    checked = set()
    for path in sorted((Path(__file__).parent.parent / "config/benchmarks").glob("*.yaml")):
        for source in _sources(yaml.safe_load(path.read_text())):
            name = str(source["dataset"])
            parts = LAYOUTS[name].parts if name in LAYOUTS else ()
            if not parts:
                continue  # a data set of another name, or of a layout whose subsets are not known beforehand
            known = {part.subset for part in parts} | ({"sdxl"} if name == "aigcdetectbenchmark" else set())
            assert set(source.get("subsets", ())) <= known, path  # type: ignore[call-overload]
            checked.add(name)
    assert checked >= {"genimage", "ufd-diffusion", "forensynths-test", "chameleon"}
