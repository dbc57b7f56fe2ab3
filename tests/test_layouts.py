from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from rine_cache.errors import LayoutError
from rine_cache.layouts import LAYOUTS, Strays, list_images
from rine_cache.layouts.entry import FAKE, REAL, Entry
from rine_cache.layouts.folder import LABELS, SPLITS
from rine_cache.layouts.walk import IMAGE_SUFFIXES
from rine_cache.specs.data import DatasetSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Tree = Callable[..., Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Make files of 3 bytes below a data set's root; a layout looks at no pixels."""

    def make(*paths: str, root: Path = tmp_path / "data") -> Path:
        for path in paths:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(b"abc")
        return root

    return make


def listed(root: Path, **settings: object) -> list[Entry]:
    spec = DatasetSpec.model_validate({"root": str(root), **settings})
    return [Entry(*row) for row in list_images(spec).table.iter_rows()]


def ids(root: Path) -> list[str]:
    return [entry.image_id for entry in listed(root)]


@pytest.mark.parametrize(
    ("path", "label", "subset", "split"),
    [
        # the three examples of the module's docstring
        ("progan/cat/0_real/1.png", REAL, "progan", None),
        ("1_fake/glide/1.png", FAKE, "glide", None),
        ("val/nature/1.JPEG", REAL, "real", "val"),
        # every pair of names, alone: the label is the subset
        ("0_real/1.png", REAL, "real", None),
        ("1_fake/1.png", FAKE, "fake", None),
        ("real/1.png", REAL, "real", None),
        ("fake/1.png", FAKE, "fake", None),
        ("nature/1.png", REAL, "real", None),
        ("ai/1.png", FAKE, "fake", None),
        # case
        ("1_FAKE/1.png", FAKE, "fake", None),
        ("Real/1.png", REAL, "real", None),
        ("Nature/Glide/1.png", REAL, "Glide", None),
        ("TRAIN/AI/1.png", FAKE, "fake", "train"),
        # depth: the outermost folder above wins over those nearer and over those below
        ("a/b/c/d/1_fake/1.png", FAKE, "a", None),
        ("a/b/1_fake/c/d/1.png", FAKE, "a", None),
        ("1_fake/c/d/e/1.png", FAKE, "c", None),
        # splits are passed over, wherever they stand
        ("test/progan/0_real/1.png", REAL, "progan", "test"),
        ("progan/valid/0_real/1.png", REAL, "progan", "val"),
        ("progan/0_real/validation/1.png", REAL, "progan", "val"),
        ("1_fake/train/glide/1.png", FAKE, "glide", "train"),
        ("imagenet_ai_0419_sdv4/train/ai/1.png", FAKE, "imagenet_ai_0419_sdv4", "train"),
        ("test/1_fake/1.png", FAKE, "fake", "test"),
        # a name that only contains a label or a split is neither
        ("real-life/0_real/1.png", REAL, "real-life", None),
        ("1_fake/fake-gan/1.png", FAKE, "fake-gan", None),
        ("testing/1_fake/1.png", FAKE, "testing", None),
        # the same label twice is no conflict, nor a subset
        ("fake/ai/glide/1.png", FAKE, "glide", None),
        ("real/0_real/1.png", REAL, "real", None),
    ],
)
def test_label_subset_and_split_follow_from_the_path(
    tree: Tree, path: str, label: int, subset: str, split: str | None
) -> None:
    assert listed(tree(path)) == [Entry(path, label, subset, split, None, 3)]


def test_the_folders_above_the_root_say_nothing(tree: Tree, tmp_path: Path) -> None:
    root = tree("0_real/1.png", root=tmp_path / "fake" / "val" / "glide")
    assert listed(root) == [Entry("0_real/1.png", REAL, "real", None, None, 3)]


def test_a_file_s_own_name_is_no_label(tree: Tree) -> None:
    with pytest.raises(LayoutError, match="found 2 under no label folder"):
        listed(tree("real.png", "photos/1_fake.png"))


@pytest.mark.parametrize(
    "suffix", sorted(IMAGE_SUFFIXES) + [suffix.upper() for suffix in sorted(IMAGE_SUFFIXES)] + [".JpEg"]
)
def test_every_suffix_is_taken_in_any_case(tree: Tree, suffix: str) -> None:
    assert ids(tree(f"0_real/a{suffix}")) == [f"0_real/a{suffix}"]


def test_other_files_are_passed_over(tree: Tree) -> None:
    root = tree("0_real/a.png", "0_real/a.txt", "0_real/png", "0_real/b.png.json", "0_real/Thumbs.db", "readme.md")
    assert ids(root) == ["0_real/a.png"]


def test_only_the_last_suffix_counts(tree: Tree) -> None:
    assert ids(tree("0_real/a.b.c.jpg", "0_real/a.jpg.zip")) == ["0_real/a.b.c.jpg"]


def test_hidden_files_and_archive_litter_are_passed_over(tree: Tree) -> None:
    root = tree(
        "0_real/a.png",
        "0_real/._a.png",
        "0_real/.b.png",
        ".cache/0_real/c.png",
        "0_real/.thumbnails/d.png",
        "__MACOSX/0_real/e.png",
        "0_real/__MACOSX/f.png",
    )
    assert ids(root) == ["0_real/a.png"]


def test_images_are_sorted_by_id_whatever_order_the_disk_gives(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["b/0_real/2.png", "a/1_fake/10.png", "a/1_fake/9.png", "B/0_real/1.png", "a/0_real/1.png", "a-/ai/1.png"]
    root = tree(*names)
    assert ids(root) == sorted(names)

    class Reversed:
        def __init__(self, path: Path) -> None:
            self._items = list(scandir(path))[::-1]

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self._items

        def __exit__(self, *error: object) -> None:
            pass

    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", Reversed)
    assert ids(root) == sorted(names)


def test_size_is_that_of_the_file(tree: Tree) -> None:
    root = tree("0_real/a.png", "0_real/empty.png")
    (root / "0_real/empty.png").write_bytes(b"")
    assert [entry.size for entry in listed(root)] == [3, 0]


def test_names_may_hold_anything_but_bytes_that_are_no_text(tree: Tree) -> None:
    root = tree("0_real/a b.png", "0_real/ä-雪.png", "0_real/c\nd.png", "a folder/1_fake/e.png")
    assert len(listed(root)) == 4
    (root / "0_real" / os.fsdecode(b"\xff.png")).write_bytes(b"abc")
    with pytest.raises(LayoutError, match=r"'0_real/\\udcff.png' is not UTF-8; rename it"):
        listed(root)


def test_both_labels_in_one_path_are_refused_by_name(tree: Tree) -> None:
    with pytest.raises(LayoutError, match=r"0_real/progan/1_fake/a.png lies under folders of both labels"):
        listed(tree("0_real/progan/1_fake/a.png", "0_real/b.png"))


def test_strays_are_left_out_and_counted(tree: Tree) -> None:
    root = tree("0_real/a.png", "1_fake/b.png", "reals/c.png", "d.png", "notes.txt")
    listing = list_images(DatasetSpec(root=str(root)))
    assert listing.table["image_id"].to_list() == ["0_real/a.png", "1_fake/b.png"]
    assert listing.strays == {f"under no label folder ({', '.join(LABELS)})": Strays(2, "d.png")}


def test_no_strays_where_all_is_placed(tree: Tree) -> None:
    assert list_images(DatasetSpec(root=str(tree("0_real/a.png", "readme.txt")))).strays == {}


@pytest.mark.parametrize(("paths", "found"), [(["reals/a.png", "b.png"], "found 2 under"), (["0_real/a.txt"], "none")])
def test_a_folder_without_a_labelled_image_is_refused_and_told_what_is_allowed(
    tree: Tree, paths: list[str], found: str
) -> None:
    root = tree(*paths)
    with pytest.raises(LayoutError) as caught:
        listed(root)
    message = str(caught.value)
    assert str(root) in message
    assert found in message
    assert "0_real|1_fake, real|fake, nature|ai" in message
    assert all(name in message for name in LAYOUTS)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"holds no image in the layout 'folder'.*found none at all"):
        listed(tmp_path)


def test_an_absent_root_is_refused_by_name(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with pytest.raises(LayoutError, match=re.escape(f"{root} does not exist; set the data set's root")):
        listed(root)


def test_a_root_that_is_a_file_is_refused_by_name(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.write_bytes(b"")
    with pytest.raises(LayoutError, match=re.escape(f"cannot list the folder {root}")):
        listed(root)


# What a data set asks for


def test_subsets_and_splits_keep_what_they_name(tree: Tree) -> None:
    root = tree("a/train/0_real/1.png", "a/val/0_real/2.png", "b/val/1_fake/3.png", "c/1_fake/4.png")
    assert [entry.image_id for entry in listed(root, subsets=["a"])] == ["a/train/0_real/1.png", "a/val/0_real/2.png"]
    assert [entry.image_id for entry in listed(root, splits=["val"])] == ["a/val/0_real/2.png", "b/val/1_fake/3.png"]
    assert [entry.image_id for entry in listed(root, subsets=["a"], splits=["val"])] == ["a/val/0_real/2.png"]
    with pytest.raises(LayoutError, match="of subsets c and splits val"):
        listed(root, subsets=["c"], splits=["val"])


def test_images_of_no_split_are_told_where_splits_are_asked_for(tree: Tree) -> None:
    root = tree("a/val/0_real/1.png", "a/train/0_real/2.png", "c/1_fake/3.png", "c/1_fake/4.png")

    def strays(**settings: object) -> dict[str, Strays]:
        return list_images(DatasetSpec.model_validate({"root": str(root), **settings})).strays

    told = {"of no named split, though splits are asked for": Strays(2, "c/1_fake/3.png")}
    assert strays(splits=["val"]) == told
    assert strays(splits=["val"], subsets=["a", "c"]) == told
    assert strays(splits=["val"], subsets=["a"]) == strays() == {}


def test_strays_known_to_be_of_another_split_are_not_counted(tree: Tree) -> None:
    root = tree("val/0_real/1.png", "val/photos/2.png", "train/photos/3.png", "photos/4.png")
    ((_, strays),) = list_images(DatasetSpec(root=str(root), splits=["val"])).strays.items()
    assert strays == Strays(2, "photos/4.png")  # the first may be of any split
    ((_, strays),) = list_images(DatasetSpec(root=str(root))).strays.items()
    assert strays.images == 3


def test_a_label_is_that_of_every_image(tree: Tree) -> None:
    root = tree("glide/1.png", "train/2.png", "3.png", "glide/deep/4.png")
    assert [entry[:4] for entry in listed(root, label="fake")] == [
        ("3.png", FAKE, "fake", None),
        ("glide/1.png", FAKE, "glide", None),
        ("glide/deep/4.png", FAKE, "glide", None),
        ("train/2.png", FAKE, "fake", "train"),
    ]


def test_a_label_that_a_folder_contradicts_is_refused(tree: Tree) -> None:
    root = tree("1_fake/1.png")
    assert [entry.label for entry in listed(root, label="fake")] == [FAKE]
    with pytest.raises(LayoutError, match="folders of both labels"):
        listed(root, label="real")


# Links


def test_linked_folders_and_files_are_followed(tree: Tree, tmp_path: Path) -> None:
    store = tree("photos/a.png", root=tmp_path / "store")
    root = tree("1_fake/b.png")
    (root / "0_real").symlink_to(store / "photos")
    (root / "1_fake/c.png").symlink_to(store / "photos/a.png")
    assert [(entry.image_id, entry.size) for entry in listed(root)] == [
        ("0_real/a.png", 3),
        ("1_fake/b.png", 3),
        ("1_fake/c.png", 3),
    ]


@pytest.mark.parametrize("target", ["..", ".", "../.."])
def test_a_loop_of_links_ends(tree: Tree, target: str) -> None:
    root = tree("x/0_real/a.png")
    (root / "x/0_real/again").symlink_to(target)
    assert ids(root) == ["x/0_real/a.png"]


def test_a_dangling_link_is_listed_with_size_0(tree: Tree) -> None:
    root = tree("0_real/a.png")
    (root / "0_real/gone.png").symlink_to("nowhere.png")
    assert [(entry.image_id, entry.size) for entry in listed(root)] == [("0_real/a.png", 3), ("0_real/gone.png", 0)]


def test_a_link_to_itself_is_listed_with_size_0(tree: Tree) -> None:
    root = tree("0_real/a.png")
    (root / "0_real/self.png").symlink_to("self.png")
    assert [(entry.image_id, entry.size) for entry in listed(root)] == [("0_real/a.png", 3), ("0_real/self.png", 0)]


def test_a_folder_that_two_subsets_link_to_is_listed_in_both(tree: Tree, tmp_path: Path) -> None:
    store = tree("a.png", root=tmp_path / "store")
    root = tree("glide/1_fake/b.png", "progan/1_fake/c.png")
    for generator in ("glide", "progan"):
        (root / generator / "0_real").symlink_to(store)
    assert [entry.subset for entry in listed(root) if entry.label == REAL] == ["glide", "progan"]


# Groups


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        ("", [None, None, None]),
        (r"^(.+)__", ["cat", "cat", None]),
        (r"(\d+)\.png$", ["0001", "0002", "7"]),
        (r"(0_real)", [None, None, None]),  # of the file's name, not of its folders'
    ],
)
def test_a_pattern_s_first_group_names_the_group(tree: Tree, pattern: str, groups: list[str | None]) -> None:
    root = tree("0_real/cat__0001.png", "0_real/cat__0002.png", "0_real/dog7.png")
    assert [entry.group for entry in listed(root, group_pattern=pattern)] == groups


def test_a_pattern_changes_nothing_but_the_group(tree: Tree) -> None:
    root = tree("train/0_real/cat__1.png", "progan/1_fake/dog__2.png")
    with_groups = listed(root, group_pattern=r"^(.+)__")
    assert [entry._replace(group=None) for entry in with_groups] == listed(root)


def test_the_layouts_are_those_that_a_config_may_name() -> None:
    allowed = DatasetSpec.model_json_schema()["properties"]["layout"]
    assert set(LAYOUTS) == set(allowed.get("enum", [allowed.get("const")]))


def test_no_split_is_a_label() -> None:
    assert not set(SPLITS) & set(LABELS)
    assert set(SPLITS.values()) == {"train", "val", "test"}
