"""Layouts whose images lie in Parquet files and tars, and the table of paths: what is listed, told and refused."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rine_cache.containers import ContainerReader
from rine_cache.errors import LayoutError
from rine_cache.layouts import LAYOUTS, Listing, list_images, walk
from rine_cache.manifest import build_manifest
from rine_cache.specs.data import DatasetSpec
from tests import container_twins as twins

if TYPE_CHECKING:
    from pathlib import Path

MAKERS = {
    "opensdid": twins.opensdid,
    "parquet": twins.parquet_folder,
    "webdataset": twins.webdataset,
    "table": twins.table,
}


def listed(root: Path, layout: str, **settings: Any) -> Listing:
    return list_images(DatasetSpec.model_validate({"root": str(root), "layout": layout, **settings}))


def column(listing: Listing, name: str) -> list[Any]:
    return listing.table[name].to_list()


@pytest.mark.parametrize("layout", MAKERS)
def test_listings_are_whole_and_the_same_each_time(tmp_path: Path, layout: str) -> None:
    root = MAKERS[layout](tmp_path)
    first, second = listed(root, layout), listed(root, layout)
    assert first.table.equals(second.table)
    assert not first.strays
    assert not first.missing
    assert not first.lost_files
    assert len(build_manifest(first.table, first.root)) == first.table.height  # ids are unique


# --- OpenSDID


def test_opensdid_lists_what_a_naive_reading_of_its_files_finds(tmp_path: Path) -> None:
    listing = listed(twins.opensdid(tmp_path), "opensdid")
    expected = []
    for path in sorted(tmp_path.rglob("*.parquet")):
        relative = path.relative_to(tmp_path).as_posix()
        split = "train" if "train" in relative else "test"
        for row, values in enumerate(pq.read_table(path).to_pylist()):
            variant = values["key"].split("/")[0] if values["label"] else None
            image_id = f"{relative}/{row:07d}/{values['key']}"
            subset = path.name.partition("-")[0]
            expected.append((image_id, values["label"], subset, split, None, path.stat().st_size, variant))
    assert sorted(listing.table.select(listing.table.columns[:7]).rows()) == sorted(expected)


def test_opensdid_rows_lie_in_their_order_and_give_the_image_not_the_mask(tmp_path: Path) -> None:
    listing = listed(twins.opensdid(tmp_path), "opensdid")
    for (name,), rows in listing.table.group_by(["container"], maintain_order=True):
        assert rows["position"].to_list() == list(range(rows.height))
        images = pq.read_table(tmp_path / str(name))["image"].to_pylist()
        with ContainerReader(listing.root) as reader:
            found = [reader.read(*place) for place in rows.select("container", "position", "size").iter_rows()]
        assert found == [image["bytes"] for image in images]


def test_opensdid_keeps_both_classes_though_rows_are_sorted_by_label(tmp_path: Path) -> None:
    listing = listed(twins.opensdid(tmp_path), "opensdid", splits=["train"])
    assert listing.table.group_by("label").len().sort("label").rows() == [(0, 8), (1, 8)]
    assert set(column(listing, "subset")) == {"sd15"}


@pytest.mark.parametrize(
    ("folder", "split"),
    [("OpenSDI_test", "test"), ("OpenSDI-train/data", "train"), ("validation", "val"), ("plain", None)],
)
def test_opensdid_reads_the_split_from_a_folder(tmp_path: Path, folder: str, split: str | None) -> None:
    root = tmp_path / "root"
    twins.opensdid_shard(root / folder / "sd2-00000-of-00001.parquet", "sd2", 1, 1, seed=1)
    assert column(listed(root, "opensdid"), "split") == [split, split]


def test_opensdid_reads_the_split_from_the_roots_own_name(tmp_path: Path) -> None:
    twins.opensdid_shard(tmp_path / "OpenSDI_test" / "sd2-00000-of-00001.parquet", "sd2", 1, 1, seed=1)
    assert column(listed(tmp_path / "OpenSDI_test", "opensdid", splits=["test"]), "split") == ["test", "test"]


def test_opensdid_tells_which_parts_and_which_shards_are_missing(tmp_path: Path) -> None:
    root = twins.opensdid(tmp_path)
    (root / "OpenSDI_train/data/sd15-00001-of-00003.parquet").unlink()
    (root / "OpenSDI_test/data/flux-00000-of-00001.parquet").unlink()
    listing = listed(root, "opensdid")
    assert listing.lost_files == ["OpenSDI_train/data/sd15-00001-of-00003.parquet"]
    assert listing.missing == [(0, "flux", "test"), (1, "flux", "test")]
    assert not listed(root, "opensdid", splits=["test"]).lost_files
    assert not listed(root, "opensdid", splits=["test"], subsets=["sd15"]).missing


def test_opensdid_in_no_named_folder_lacks_no_split(tmp_path: Path) -> None:
    twins.opensdid_shard(tmp_path / "sd15-00000-of-00001.parquet", "sd15", 1, 1, seed=1)
    assert "sd15" not in {part.subset for part in listed(tmp_path, "opensdid").missing}


def test_opensdid_leaves_out_files_of_other_names_and_says_so(tmp_path: Path) -> None:
    root = twins.opensdid(tmp_path)
    twins.opensdid_shard(root / "sd16-00000-of-00001.parquet", "sd16", 1, 1, seed=99)
    ((reason, strays),) = listed(root, "opensdid").strays.items()
    assert "sd15-00000-of-00070.parquet" in reason
    assert (strays.images, strays.example) == (1, "sd16-00000-of-00001.parquet")


@pytest.mark.parametrize("layout", ["opensdid", "parquet"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty: its download did not begin; fetch it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "Git LFS pointer.*git lfs pull"),
        (b"PAR1 half a file", "no whole Parquet file, its download may have stopped half-way"),
        (b"<html>401</html>", "no whole Parquet file"),
    ],
)
def test_files_that_were_not_fetched_whole_are_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, layout: str, content: bytes, said: str
) -> None:
    root = MAKERS[layout](tmp_path)
    whole = listed(root, layout).table
    victim = sorted(root.rglob("*.parquet"))[-1]
    name = victim.relative_to(root).as_posix()
    victim.write_bytes(content)
    if set(whole["container"]) == {name}:
        with pytest.raises(LayoutError, match="holds no image"):
            listed(root, layout)
    else:
        listing = listed(root, layout)
        assert listing.lost_files == [name]
        assert listing.table["image_id"].equals(whole.filter(pl.col("container") != name)["image_id"])
    assert re.search(f"{victim.name} .*{said}.*; its images are left out", caplog.text)


def test_a_parquet_file_cut_at_its_end_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = twins.opensdid(tmp_path)
    victim = root / "OpenSDI_test/data/sd3-00000-of-00001.parquet"
    victim.write_bytes(victim.read_bytes()[:-100])
    listing = listed(root, "opensdid")
    assert listing.lost_files == ["OpenSDI_test/data/sd3-00000-of-00001.parquet"]
    assert {part.subset for part in listing.missing} == {"sd3"}
    assert re.search(rf"{victim.name} is no whole Parquet file.*fetch it again; its images are left out", caplog.text)


def test_opensdid_refuses_other_columns_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "sd2-00000-of-00001.parquet"
    image = twins.hub_images([b"1"], [None])
    twins.write_parquet(path, {"name": ["a"], "image": image, "label": [0]})
    with pytest.raises(LayoutError, match=r"lacks the columns key .*\(columns: name, image, label\)"):
        listed(tmp_path, "opensdid")
    twins.write_parquet(path, {"key": ["a"], "image": image, "label": [2]})
    with pytest.raises(LayoutError, match=r"sd2-00000-of-00001\.parquet, row 0: label 2; allowed: 0 \(real\)"):
        listed(tmp_path, "opensdid")


def test_opensdid_names_its_subsets_from_file_names(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/sdxl-00003-of-00009.parquet").touch()
    (tmp_path / "a/other.parquet").touch()
    subsets_at = LAYOUTS["opensdid"].subsets_at
    assert subsets_at is not None
    assert subsets_at(tmp_path) == {"sdxl"}


def test_opensdid_looks_at_few_names_below_a_root_that_is_not_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "MOST_ITEMS", 5)
    for folder in ("photos", "0_real"):
        (tmp_path / folder / "deep").mkdir(parents=True)
        for number in range(100):
            (tmp_path / folder / f"sd2-{number:05d}-of-00100.parquet").touch()
    (tmp_path / "0_real/deep/sd3-00000-of-00001.parquet").touch()
    (tmp_path / "flux-00000-of-00001.parquet").touch()
    seen = 0
    scandir = os.scandir

    class Counting:
        def __init__(self, path: Path) -> None:
            self._items = scandir(path)

        def __enter__(self) -> Counting:
            return self

        def __iter__(self) -> Counting:
            return self

        def __next__(self) -> os.DirEntry[str]:
            nonlocal seen
            item = next(self._items)
            seen += 1
            return item

        def __exit__(self, *error: object) -> None:
            self._items.close()

    monkeypatch.setattr(os, "scandir", Counting)
    assert LAYOUTS["opensdid"].subsets_at(tmp_path) == {"flux"}  # type: ignore[misc]
    assert seen < 30


@pytest.mark.parametrize(("link", "target"), [("OpenSDI_test", "shards"), ("shards", "OpenSDI_test")])
def test_opensdid_reads_the_split_from_a_linked_root_and_from_where_it_leads(
    tmp_path: Path, link: str, target: str
) -> None:
    twins.opensdid_shard(tmp_path / "x" / target / "sd2-00000-of-00001.parquet", "sd2", 1, 1, seed=1)
    (tmp_path / link).symlink_to(tmp_path / "x" / target)
    assert column(listed(tmp_path / link, "opensdid", splits=["test"]), "split") == ["test", "test"]


# --- Parquet


@pytest.mark.parametrize(("classes", "first"), [(("fake", "real"), 1), (("real", "fake"), 0), (("REAL", "AI"), 0)])
def test_class_names_in_the_schema_say_which_number_is_fake(
    tmp_path: Path, classes: tuple[str, str], first: int
) -> None:
    listing = listed(twins.parquet_folder(tmp_path, 2, classes), "parquet")
    assert column(listing, "label") == [first, first, 1 - first, 1 - first] * 2
    assert column(listing, "split") == ["test"] * 4 + ["train"] * 4
    assert column(listing, "image_id")[0] == "data/test-00000-of-00001.parquet/0000000/test_0.png"


def test_classes_that_are_no_labels_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"row 0, column 'label', class 0: 'cat' is no label; allowed: 0, 1, false"):
        listed(twins.parquet_folder(tmp_path, 1, ("cat", "dog")), "parquet")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("label", pa.array([0, 1], pa.int8())),
        ("Label", ["0_real", "1_fake"]),
        ("class", ["Nature", " ai "]),
        ("is_fake", [False, True]),
        ("fake", pa.array(["real", "fake"]).dictionary_encode()),
        ("labels", ["authentic", "AI-generated"]),
    ],
)
def test_labels_are_read_as_numbers_truths_or_words(tmp_path: Path, name: str, values: Any) -> None:
    twins.write_parquet(tmp_path / "a.parquet", {"img": pa.array([b"1", b"2"]), name: values})
    listing = listed(tmp_path, "parquet")
    assert column(listing, "label") == [0, 1]
    assert column(listing, "subset") == ["real", "fake"]


def test_a_column_that_says_fake_goes_before_one_of_classes(tmp_path: Path) -> None:
    columns = {"img": pa.array([b"1", b"2"]), "class": ["cat", "dog"], "is_fake": [1, 0]}
    twins.write_parquet(tmp_path / "a.parquet", columns)
    assert column(listed(tmp_path, "parquet"), "label") == [1, 0]


def test_further_columns_are_read(tmp_path: Path) -> None:
    columns = {
        "image": pa.array([b"1", b"2"]),
        "label": ["real", "fake"],
        "model": [None, "sdxl"],
        "split": ["validation", "test"],
        "group": pa.array([7, 8]),
        "variant": [None, "inpainted"],
    }
    twins.write_parquet(tmp_path / "glide" / "train-a.parquet", columns)
    rows = listed(tmp_path, "parquet").table.select("subset", "split", "group", "variant").rows()
    assert rows == [("glide", "val", "7", None), ("sdxl", "test", "8", "inpainted")]


def test_rows_without_a_label_are_left_out_and_told(tmp_path: Path) -> None:
    table = pa.table({"image": twins.hub_images([b"1", b"2", b"3"], ["a", "b", "c"]), "label": [0, -1, None]})
    pq.write_table(twins.hub_schema(table, "label", ["real", "fake"]), tmp_path / "a.parquet")
    listing = listed(tmp_path, "parquet")
    assert listing.table.height == 1
    assert listing.strays == {"row without a label": (2, "a.parquet/0000001/b")}


def test_unknown_labels_and_columns_are_named(tmp_path: Path) -> None:
    image = pa.array([b"1", b"2"])
    twins.write_parquet(tmp_path / "a.parquet", {"image": image, "label": [0, 2]})
    with pytest.raises(LayoutError, match=r"a\.parquet, row 1, column 'label': '2' is no label; allowed: 0, 1"):
        listed(tmp_path, "parquet")
    twins.write_parquet(tmp_path / "a.parquet", {"image": image, "lable": [0, 1]})
    with pytest.raises(LayoutError, match=r"no column of labels; did you mean 'label' by 'lable'\? \(columns: image"):
        listed(tmp_path, "parquet")
    twins.write_parquet(tmp_path / "a.parquet", {"image": image, "label": [0, 1], "split": ["dev", "test"]})
    with pytest.raises(LayoutError, match=r"row 0: 'dev' is no split; allowed: train, val"):
        listed(tmp_path, "parquet")


def test_lost_shards_of_any_name_are_told(tmp_path: Path) -> None:
    columns = {"image": pa.array([b"1"]), "label": [0]}
    for number in (0, 2):
        twins.write_parquet(tmp_path / f"train-{number:05d}-of-00004.parquet", columns)
    lost = listed(tmp_path, "parquet", subsets=["real"], splits=["train"]).lost_files
    assert lost == ["train-00001-of-00004.parquet", "train-00003-of-00004.parquet"]


def test_a_lost_shard_of_no_named_split_is_told_whichever_is_asked_for(tmp_path: Path) -> None:
    twins.write_parquet(tmp_path / "a-00000-of-00002.parquet", {"image": [b"1"], "label": [0], "split": ["train"]})
    assert listed(tmp_path, "parquet", splits=["train"]).lost_files == ["a-00001-of-00002.parquet"]


def test_rows_without_a_label_are_told_of_what_is_asked_for_only(tmp_path: Path) -> None:
    columns = {"label": [0, None, None], "subset": ["a", "a", "b"], "split": ["val", "train", "val"]}
    twins.write_parquet(tmp_path / "bytes/a.parquet", {"image": pa.array([b"1", b"2", b"3"]), **columns})
    (tmp_path / "paths").mkdir()
    (tmp_path / "paths/0.png").touch()
    pl.DataFrame({"path": ["0.png", "1.png", "2.png"], **columns}).write_csv(tmp_path / "paths/a.csv")
    for root, layout in ((tmp_path / "bytes", "parquet"), (tmp_path / "paths/a.csv", "table")):
        for settings, images in (({}, 2), ({"subsets": ["a"]}, 1), ({"splits": ["val"]}, 1)):
            assert listed(root, layout, **settings).strays["row without a label"].images == images
        assert not listed(root, layout, subsets=["a"], splits=["val"]).strays


# --- WebDataset


def test_webdataset_reads_labels_from_cls_json_and_folders(tmp_path: Path) -> None:
    about = {"label": "fake", "generator": "sdxl", "split": "test", "group": "g1", "caption": "x"}
    members = [
        ("a.jpg", b"1"),
        ("a.cls", b"1\n"),
        ("b.json", json.dumps(about).encode()),
        ("b.png", b"2"),
        ("sub/0_real/c.PNG", b"3"),
        ("./sub/1_fake/d.webp", b"4"),
    ]
    twins.write_tar(tmp_path / "x" / "val-0.tar", members)
    rows = listed(tmp_path, "webdataset").table.sort("image_id").select("image_id", "label", "subset", "split", "group")
    assert rows.rows() == [
        ("x/val-0.tar/a.jpg", 1, "x", "val", None),
        ("x/val-0.tar/b.png", 1, "sdxl", "test", "g1"),
        ("x/val-0.tar/sub/0_real/c.PNG", 0, "x", "val", None),
        ("x/val-0.tar/sub/1_fake/d.webp", 1, "x", "val", None),
    ]


def test_webdataset_label_folders_above_the_root_do_not_count(tmp_path: Path) -> None:
    root = tmp_path / "real"
    twins.write_tar(root / "fake" / "a.tar", [("1.png", b"1")])
    assert column(listed(root, "webdataset"), "label") == [1]


def test_webdataset_images_of_one_key(tmp_path: Path) -> None:
    members = [("a.jpg", b"1"), ("a.png", b"2"), ("a.mask.png", b"3"), ("a.cls", b"0"), ("b_0.5.png", b"4")]
    members += [("b_0.7.png", b"5"), ("c.png", b"6")]
    twins.write_tar(tmp_path / "real" / "a.tar", members)
    listing = listed(tmp_path, "webdataset")
    names = [image_id.rpartition("/")[2] for image_id in column(listing, "image_id")]
    assert names == ["a.jpg", "a.png", "b_0.5.png", "b_0.7.png", "c.png"]
    ((reason, strays),) = listing.strays.items()
    assert reason.startswith("beside the image")
    assert strays == (1, "real/a.tar/a.mask.png")


@pytest.mark.parametrize("ending", ["cls", "json"])
def test_webdataset_says_that_a_sample_s_name_ends_at_its_first_dot(tmp_path: Path, ending: str) -> None:
    label = {"cls": b"1", "json": b'{"label": 1}'}[ending]
    members = [("s1.0.png", b"1"), (f"s1.0.{ending}", label), ("s2.png", b"2"), (f"s2.{ending}", label)]
    twins.write_tar(tmp_path / "a.tar", [*members, ("s3.0.png", b"3")])
    listing = listed(tmp_path, "webdataset")
    assert column(listing, "image_id") == ["a.tar/s2.png"]
    examples = {reason: strays.example for reason, strays in listing.strays.items()}
    assert examples.pop("no label: a sample's name ends at its first dot, and its .cls or .json has another") == (
        "a.tar/s1.0.png"
    )
    assert list(examples.values()) == ["a.tar/s3.0.png"]


def test_webdataset_counts_strays_of_what_is_asked_for_only(tmp_path: Path) -> None:
    for split in ("train", "val"):
        twins.write_tar(tmp_path / f"{split}-0.tar", [("0_real/a.png", b"1"), ("b.png", b"2")])
    ((_, strays),) = listed(tmp_path, "webdataset", splits=["val"]).strays.items()
    assert strays == (1, "val-0.tar/b.png")


def test_webdataset_leaves_out_unlabelled_images_links_and_litter(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("a.png", "a.cls", "b.png", "._b.png", "__MACOSX/a.png"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"1"))
        for name, kind in (("h.png", tarfile.LNKTYPE), ("s.png", tarfile.SYMTYPE), ("d.png", tarfile.DIRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "a.png"
            tar.addfile(info)
    listing = listed(tmp_path, "webdataset")
    assert column(listing, "image_id") == ["a.tar/a.png"]
    assert sorted((strays.images, strays.example) for strays in listing.strays.values()) == [
        (1, "a.tar/b.png"),
        (2, "a.tar/h.png"),
    ]


@pytest.mark.parametrize("style", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_webdataset_long_names_are_whole(tmp_path: Path, style: int) -> None:
    name = f"{'folder' * 20}/{'name' * 50}ü.png"
    twins.write_tar(tmp_path / "fake" / "a.tar", [(name, b"12345")], style)
    listing = listed(tmp_path, "webdataset")
    (image_id, size, position) = listing.table.select("image_id", "size", "position").row(0)
    assert image_id == f"fake/a.tar/{name}"
    assert (tmp_path / "fake/a.tar").read_bytes()[position : position + size] == b"12345"


@pytest.mark.parametrize("kept", [0, 700, 1024, 1536, 2048, 3000])
def test_webdataset_names_a_shard_that_is_cut_wherever_that_is(tmp_path: Path, kept: int) -> None:
    path = twins.write_tar(tmp_path / "fake" / "a.tar", [(f"{n}.png", bytes([n]) * 1000) for n in range(1, 4)])
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(LayoutError, match=r"a\.tar is no whole, uncompressed tar .*fetch it again"):
        listed(tmp_path, "webdataset")


def test_webdataset_names_a_shard_that_is_damaged_between_members(tmp_path: Path) -> None:
    path = twins.write_tar(tmp_path / "fake" / "a.tar", [(f"{n}.png", bytes([n]) * 500) for n in range(1, 4)])
    content = path.read_bytes()
    path.write_bytes(content[:1024] + b"x" * 512 + content[1536:])
    with pytest.raises(LayoutError, match=r"a\.tar is no whole, uncompressed tar"):
        listed(tmp_path, "webdataset")


@pytest.mark.parametrize("name", ["a.tar.gz", "a.TGZ", "a.tar.zst", "a.tar.xz"])
def test_webdataset_refuses_compressed_shards(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"1")
    with pytest.raises(LayoutError, match=rf"{name} is compressed.*decompress it"):
        listed(tmp_path, "webdataset")


def test_webdataset_refuses_sparse_members(tmp_path: Path) -> None:
    path = twins.write_tar(tmp_path / "fake" / "a.tar", [("a.png", b"")])
    header = bytearray(path.read_bytes())
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header[:512])
    path.write_bytes(header)
    with pytest.raises(LayoutError, match=r"member a\.png: stored sparse"):
        listed(tmp_path, "webdataset")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("a.png", b"1"), ("a.cls", b"207")], r"a\.tar, member a\.cls: '207' is no label; allowed: 0, 1"),
        ([("a.png", b"1"), ("a.cls", b"\xff")], "not UTF-8"),
        ([("a.png", b"1"), ("a.json", b"{")], r"member a\.json is not JSON"),
        ([("a.png", b"1"), ("a.json", b"[1]")], "holds list, not an object"),
        ([("a.png", b"1"), ("a.json", b'{"label": 1}'), ("a.cls", b"0")], "labelled both real and fake"),
        ([("fake/a.png", b"1"), ("fake/a.cls", b"0")], "labelled both real and fake"),
    ],
)
def test_webdataset_names_labels_it_cannot_take(tmp_path: Path, members: list[tuple[str, bytes]], said: str) -> None:
    twins.write_tar(tmp_path / "a.tar", members)
    with pytest.raises(LayoutError, match=said):
        listed(tmp_path, "webdataset")


def test_webdataset_tells_lost_shards(tmp_path: Path) -> None:
    root = twins.webdataset(tmp_path, shards=3)
    (root / "train-00001-of-00003.tar").unlink()
    assert listed(root, "webdataset").lost_files == ["train-00001-of-00003.tar"]


# --- tables


def write_csv(root: Path, text: str, name: str = "a.csv", encoding: str = "utf-8") -> Path:
    for image in ("a.png", "b.png", "sub/c.png"):
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        (root / image).write_bytes(image.encode())
    (root / name).write_text(text, encoding)
    return root / name


def test_a_table_gives_paths_sizes_and_all_that_it_says(tmp_path: Path) -> None:
    listing = listed(twins.table(tmp_path, 1), "table")
    assert listing.root == tmp_path
    size = (tmp_path / "images/000.png").stat().st_size
    assert listing.table.rows() == [
        ("images/000.png", 0, "coco", "test", "g0", size, None, None, None),
        ("images/001.png", 1, "glide", "test", "g0", size, None, None, None),
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_table_may_have_other_separators_a_byte_order_mark_and_blank_lines(
    tmp_path: Path, separator: str, encoding: str
) -> None:
    text = "Path,Label\na.png,real\n\nsub/c.png,1\n\n".replace(",", separator)
    listing = listed(write_csv(tmp_path, text, encoding=encoding), "table")
    assert listing.table.select("image_id", "label", "subset").rows() == [
        ("a.png", 0, "real"),
        ("sub/c.png", 1, "fake"),
    ]


def test_paths_are_kept_as_given_but_for_dots_and_doubled_slashes(tmp_path: Path) -> None:
    text = f"path,label\n.//a.png,0\nsub/.//c.png,1\nsub/../b.png,1\n{tmp_path}/a.png,0\n"
    listing = listed(write_csv(tmp_path, text), "table")
    assert column(listing, "image_id") == sorted(["a.png", "sub/c.png", "sub/../b.png", f"{tmp_path}/a.png"])
    assert all(size > 0 for size in column(listing, "size"))


def test_a_path_that_does_not_exist_is_listed_without_bytes(tmp_path: Path) -> None:
    listing = listed(write_csv(tmp_path, "path,label\na.png,0\ngone.png,1\n"), "table")
    assert listing.table.select("image_id", "size").rows() == [("a.png", 5), ("gone.png", 0)]


def test_a_row_without_a_label_is_told(tmp_path: Path) -> None:
    listing = listed(write_csv(tmp_path, "path,label\na.png,0\nb.png,\n"), "table")
    assert listing.strays == {"row without a label": (1, "b.png")}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "path,label\na.png,0\n\nb.png,deepfake\n",
            r"a\.csv, line 4, column 'label': 'deepfake' is no label; allowed: 0",
        ),
        ("path,label\na.png,0\nb.png,1\n./a.png,1\n", r"line 4: 'a\.png' stands in line 2 already"),
        ("path,label\na.png,0\n,1\n", "line 3: no path"),
        ("paths,label\na.png,0\n", r"no column of paths; .*'path' by 'paths'\? \(columns: paths, label; allowed: path"),
        ("path,lable\na.png,0\n", r"no column of labels; did you mean 'label' by 'lable'\?"),
        ("path|label\na.png|0\n", r"no column of paths.*\(columns: path\|label"),
        ("path,label,split\na.png,0,dev\n", r"line 2: 'dev' is no split; allowed: train, val"),
        ("path,label\nx.png,0\ny.png,1\n", r"none of its paths exists, seen from .*; the first is x\.png"),
        ("path,label\n", "has no rows"),
        ("", "cannot read .* as a table"),
        ("path,label\na.png,0,1,2\n", "cannot read .* as a table"),
    ],
)
def test_a_table_that_cannot_be_taken_says_why(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(LayoutError, match=said):
        listed(write_csv(tmp_path, text), "table")


def test_a_table_in_another_encoding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"cannot read .* as a table"):
        listed(write_csv(tmp_path, "path,label\nä.png,0\n", encoding="latin-1"), "table")


@pytest.mark.parametrize("name", ["a.txt", "sub"])
def test_other_files_and_folders_are_no_tables(tmp_path: Path, name: str) -> None:
    write_csv(tmp_path, "path,label\na.png,0\n", "a.txt")
    with pytest.raises(LayoutError, match=r"is no table; set the data set's root to a \.csv or \.parquet file"):
        listed(tmp_path / name, "table")


def test_a_parquet_table_is_read_as_the_same_csv_would_be(tmp_path: Path) -> None:
    csv = twins.table(tmp_path)
    pl.read_csv(csv).write_parquet(tmp_path / "images.parquet")
    assert listed(tmp_path / "images.parquet", "table").table.equals(listed(csv, "table").table)


def test_a_parquet_table_may_name_its_classes(tmp_path: Path) -> None:
    write_csv(tmp_path, "")
    table = twins.hub_schema(pa.table({"path": ["a.png", "b.png"], "label": [0, 1]}), "label", ["fake", "real"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert column(listed(tmp_path / "a.parquet", "table"), "label") == [1, 0]


def test_a_parquet_table_of_bytes_is_not_one_of_paths(tmp_path: Path) -> None:
    twins.write_parquet(tmp_path / "a.parquet", {"image": pa.array([b"1"]), "label": [0]})
    with pytest.raises(LayoutError, match=r"'image' holds Binary, not paths as text.*layout 'parquet'"):
        listed(tmp_path / "a.parquet", "table")


def test_a_tables_name_is_no_pattern(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "path,label\na.png,0\n", "a[1].csv")
    assert column(listed(path, "table"), "image_id") == ["a.png"]
