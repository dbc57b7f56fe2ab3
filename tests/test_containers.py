"""Bytes read from tar and Parquet files are those that were put in, in whatever order they are asked for."""

from __future__ import annotations

import random
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rine_cache import containers
from rine_cache.containers import ContainerReader, image_column
from rine_cache.errors import LayoutError, ManifestError
from rine_cache.layouts import list_images
from rine_cache.quarantine import Reason, UnreadableImageError
from rine_cache.specs.data import DatasetSpec
from tests import container_twins as twins

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONTENTS = [bytes([index]) * (index % 5 + 1) for index in range(50)]
ORDERS: dict[str, Callable[[list[int]], list[int]]] = {
    "forwards": list,
    "backwards": lambda rows: rows[::-1],
    "at random": lambda rows: random.Random(0).choices(rows, k=200),
    "every ninth": lambda rows: rows[::9],
}


def parquet(root: Path, contents: list[bytes | None], rows_per_group: int) -> tuple[str, int]:
    columns = {
        "image": twins.hub_images(contents, [None] * len(contents)),
        "mask": twins.hub_images([b"mask"] * len(contents), [None] * len(contents)),
    }
    path = twins.write_parquet(root / "a.parquet", columns, rows_per_group)
    return path.name, path.stat().st_size


@pytest.mark.parametrize("rows_per_group", [1, 7, 8, 50])
@pytest.mark.parametrize("order", ORDERS)
def test_rows_of_a_parquet_file_are_as_written(tmp_path: Path, rows_per_group: int, order: str) -> None:
    name, size = parquet(tmp_path, CONTENTS, rows_per_group)
    naive = pq.read_table(tmp_path / name)["image"].to_pylist()
    with ContainerReader(tmp_path) as reader:
        for row in ORDERS[order](list(range(50))):
            assert reader.read(name, row, size) == CONTENTS[row] == naive[row]["bytes"]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_a_column_of_plain_bytes_is_read(tmp_path: Path, kind: pa.DataType) -> None:
    path = twins.write_parquet(tmp_path / "a.parquet", {"jpg": pa.array(CONTENTS, kind)}, 7)
    with ContainerReader(tmp_path) as reader:
        found = [reader.read(path.name, row, path.stat().st_size) for row in range(50)]
    assert found == CONTENTS


def test_several_files_take_turns(tmp_path: Path) -> None:
    sizes = {}
    for number in range(6):
        columns = {"image": pa.array([bytes([number, row]) for row in range(20)])}
        path = twins.write_parquet(tmp_path / f"{number}.parquet", columns, 6)
        sizes[path.name] = path.stat().st_size
    with ContainerReader(tmp_path) as reader:
        for row in range(20):
            for number, (name, size) in enumerate(sizes.items()):
                assert reader.read(name, row, size) == bytes([number, row])


def test_a_row_without_bytes_is_quarantined_and_the_next_is_read(tmp_path: Path) -> None:
    name, size = parquet(tmp_path, [b"first", None, b"", b"last"], 4)
    with ContainerReader(tmp_path) as reader:
        assert reader.read(name, 0, size) == b"first"
        with pytest.raises(UnreadableImageError, match=r"image\.bytes is null in row 1") as caught:
            reader.read(name, 1, size)
        assert caught.value.reason is Reason.MISSING
        assert reader.read(name, 2, size) == b""
        assert reader.read(name, 3, size) == b"last"


def test_a_whole_null_struct_is_quarantined(tmp_path: Path) -> None:
    images = pa.array([{"bytes": b"first", "path": None}, None], twins.HUB_IMAGE)
    path = twins.write_parquet(tmp_path / "a.parquet", {"image": images})
    with ContainerReader(tmp_path) as reader, pytest.raises(UnreadableImageError, match="is null"):
        reader.read(path.name, 1, path.stat().st_size)


@pytest.mark.parametrize("row", [-1, 50, 10**9])
def test_a_row_that_is_not_there_is_quarantined(tmp_path: Path, row: int) -> None:
    name, size = parquet(tmp_path, CONTENTS, 7)
    with ContainerReader(tmp_path) as reader, pytest.raises(UnreadableImageError, match="50 rows, none at"):
        reader.read(name, row, size)


def test_containers_that_changed_or_have_gone_stop_the_run(tmp_path: Path) -> None:
    name, size = parquet(tmp_path, CONTENTS, 7)
    with ContainerReader(tmp_path) as reader:
        with pytest.raises(ManifestError, match=r"not the file that was listed.*rine-cache manifest"):
            reader.read(name, 0, size + 1)
        with pytest.raises(ManifestError, match=r"b\.parquet has gone; bring it back and run the same command again"):
            reader.read("b.parquet", 0, size)


def test_damage_within_a_parquet_file_is_the_files_fault_and_reading_goes_on_when_mended(tmp_path: Path) -> None:
    contents = [bytes(np.random.default_rng(row).bytes(5000)) for row in range(50)]
    name, size = parquet(tmp_path, contents, 50)
    path = tmp_path / name
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + bytes(60_000) + whole[60_004:])
    with ContainerReader(tmp_path) as reader:
        with pytest.raises(ManifestError, match=r"cannot read .*; mend that and run the same command again"):
            reader.read(name, 3, size)
        path.write_bytes(whole)
        assert reader.read(name, 3, size) == contents[3]


@pytest.mark.parametrize("style", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("order", ORDERS)
def test_members_of_a_tar_are_as_written(tmp_path: Path, style: int, order: str) -> None:
    names = [f"{'long' * 60 if index % 3 else ''}é{index:03d}.png" for index in range(50)]
    path = twins.write_tar(tmp_path / "a.tar", zip(names, CONTENTS, strict=True), style)
    with tarfile.open(path) as tar:
        places = [(info.offset_data, info.size) for info in tar.getmembers()]
    with ContainerReader(tmp_path) as reader:
        for row in ORDERS[order](list(range(50))):
            assert reader.read("a.tar", *places[row]) == CONTENTS[row]


@pytest.mark.parametrize(("position", "size"), [(1024, 5), (512, 4), (100_000, 5)])
def test_a_tar_that_changed_stops_the_run(tmp_path: Path, position: int, size: int) -> None:
    twins.write_tar(tmp_path / "a.tar", [("a.png", b"12345")])
    with ContainerReader(tmp_path) as reader:
        assert reader.read("a.tar", 512, 5) == b"12345"
        with pytest.raises(ManifestError, match="not the file that was listed"):
            reader.read("a.tar", position, size)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["image"], "image"),
        (["mask", "image"], "image"),
        (["thumbnail_hash", "PNG"], "PNG"),
        (["picture"], "picture"),
    ],
)
def test_the_image_column_is_found_by_name_or_because_it_is_alone(tmp_path: Path, names: list[str], found: str) -> None:
    schema = pa.schema([("label", pa.int64()), *((name, pa.binary()) for name in names)])
    assert image_column(schema, tmp_path) == found


@pytest.mark.parametrize(
    ("names", "said"),
    [(["jpg", "png"], "any of jpg, png"), (["one", "two"], "any of one, two"), ([], "no column of images' bytes")],
)
def test_an_image_column_that_is_not_clear_is_refused(tmp_path: Path, names: list[str], said: str) -> None:
    schema = pa.schema([("label", pa.int64()), *((name, pa.binary()) for name in names)])
    with pytest.raises(LayoutError, match=rf"{said} \(columns: label"):
        image_column(schema, tmp_path)


@pytest.mark.parametrize(
    ("layout", "make"),
    [("opensdid", twins.opensdid), ("parquet", twins.parquet_folder), ("webdataset", twins.webdataset)],
)
def test_what_a_layout_lists_is_what_the_reader_reads(
    tmp_path: Path, layout: str, make: Callable[[Path], Path]
) -> None:
    listing = list_images(DatasetSpec.model_validate({"root": str(make(tmp_path)), "layout": layout}))
    places = list(listing.table.select("container", "position", "size").iter_rows())
    with ContainerReader(listing.root) as reader:
        forwards = [reader.read(*place) for place in places]
        backwards = [reader.read(*place) for place in reversed(places)]
    assert backwards[::-1] == forwards
    assert len(set(forwards)) == len(forwards)
    assert all(content.startswith(b"\x89PNG") for content in forwards)


MEASURE = """
import sys
from pathlib import Path
import pyarrow
from rine_cache.containers import ContainerReader
path, rows = Path(sys.argv[1]), int(sys.argv[2])
with ContainerReader(path.parent) as reader:
    for row in range(rows):
        reader.read(path.name, row, path.stat().st_size)
print(pyarrow.default_memory_pool().max_memory())
"""


def test_memory_does_not_grow_with_a_row_group(tmp_path: Path) -> None:
    """One row group of 160 MB in pages of 1 MB: far less than the row group may be held."""
    rows, path = 1600, tmp_path / "a.parquet"
    content = np.random.default_rng(0).bytes(100_000)
    images = pa.array([content] * rows, pa.binary())
    pq.write_table(
        pa.table({"image": images}),
        path,
        row_group_size=rows,
        write_batch_size=8,
        use_dictionary=False,
        compression="none",
    )
    assert pq.ParquetFile(path).metadata.num_row_groups == 1
    finished = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), str(rows)], capture_output=True, text=True, check=True
    )
    assert int(finished.stdout) < 20e6
    assert path.stat().st_size > 150e6


def test_one_file_is_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def noted(path: Path) -> pq.ParquetFile:
        opened.append(containers_open(path))
        return opened[-1]

    containers_open = containers.open_parquet
    monkeypatch.setattr(containers, "open_parquet", noted)
    for number in range(3):
        twins.write_parquet(tmp_path / f"{number}.parquet", {"image": pa.array([b"1"])})
    with ContainerReader(tmp_path) as reader:
        for number in range(3):
            reader.read(f"{number}.parquet", 0, (tmp_path / f"{number}.parquet").stat().st_size)
            assert [file.closed for file in opened] == [True] * number + [False]
    assert all(file.closed for file in opened)
