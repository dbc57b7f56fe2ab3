from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rine_cache.errors import ManifestError
from rine_cache.layouts.entry import FAKE, REAL, Entry
from rine_cache.manifest import SCHEMA, Manifest, as_table, build_manifest, read_manifest, write_manifest

if TYPE_CHECKING:
    from collections.abc import Callable

ENTRIES = [
    Entry("a/0_real/1.png", REAL, "a", None, None, 10),
    Entry("a/0_real/2.png", REAL, "a", "val", "cat", 20),
    Entry("b/1_fake/ä 雪\n3.png", FAKE, "b", "train", "cat", 0),
    Entry("b/1_fake/4.png", FAKE, "b", None, None, 5_000_000_000),
]
ROOT = Path("data/set")


def built(entries: list[Entry] | None = None, root: Path = ROOT) -> Manifest:
    return build_manifest(as_table(ENTRIES if entries is None else entries), root)


def refused(path: Path) -> str:
    """Return what the reader says of a file that it refuses: always its path, and what to run."""
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    message = str(caught.value)
    assert str(path) in message
    assert "`rine-cache manifest`" in message
    return message


def replaced(row: int, **changes: Any) -> list[Entry]:
    return [entry._replace(**changes) if index == row else entry for index, entry in enumerate(ENTRIES)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "manifests" / "set.parquet"


@pytest.fixture
def alter(path: Path) -> Callable[..., None]:
    """Rewrite a written manifest with other rows or another header, all else kept."""

    def rewrite(change: Callable[[pa.Table], pa.Table] = lambda table: table, header: object = None) -> None:
        write_manifest(built(), path)
        table = pq.read_table(path)
        metadata = table.schema.metadata if header is None else {b"rine_cache": json.dumps(header).encode()}
        pq.write_table(change(table).replace_schema_metadata(metadata), path)

    return rewrite


def test_rows_are_the_entries_in_the_order_given() -> None:
    manifest = built()
    assert [Entry(*row) for row in manifest.table.iter_rows()] == ENTRIES
    assert manifest.table.schema == SCHEMA
    assert len(manifest) == 4
    assert manifest.root == ROOT


def test_columns_without_a_value_keep_their_type() -> None:
    manifest = built([Entry("a.png", REAL, "real", None, None, 1)])
    assert manifest.table.schema == SCHEMA


def test_a_manifest_comes_back_as_it_was_written(path: Path) -> None:
    manifest = built()
    write_manifest(manifest, path)
    found = read_manifest(path)
    assert found.table.equals(manifest.table, null_equal=True)
    assert found.table.schema == SCHEMA
    assert (found.root, found.digest) == (ROOT, manifest.digest)


def test_other_programs_can_read_it(path: Path) -> None:
    write_manifest(built(), path)
    assert pl.read_parquet(path)["image_id"].to_list() == [entry.image_id for entry in ENTRIES]


def test_the_same_images_give_the_same_bytes(path: Path, tmp_path: Path) -> None:
    write_manifest(built(), path)
    write_manifest(built(list(ENTRIES)), tmp_path / "again.parquet")
    assert path.read_bytes() == (tmp_path / "again.parquet").read_bytes()
    write_manifest(read_manifest(path), path)
    assert path.read_bytes() == (tmp_path / "again.parquet").read_bytes()


def test_writing_leaves_nothing_else_behind(path: Path) -> None:
    write_manifest(built(), path)
    write_manifest(built(), path)
    assert list(path.parent.iterdir()) == [path]


def test_the_digest_is_one_of_sha256_and_the_same_every_time() -> None:
    assert built().digest == built(list(ENTRIES)).digest
    assert len(built().digest) == 64
    int(built().digest, 16)


def test_the_digest_is_the_one_that_earlier_caches_hold() -> None:
    assert built().digest == "56537805969441c46cedaa54fad214e721f3fe9e127579af8d4640a156f9ec8e"


@pytest.mark.parametrize(
    "entries",
    [
        [ENTRIES[1], ENTRIES[0], *ENTRIES[2:]],
        ENTRIES[:-1],
        [*ENTRIES, Entry("c.png", REAL, "c", None, None, 1)],
        replaced(0, image_id="a/0_real/0.png"),
        replaced(0, label=FAKE),
        replaced(0, subset="other"),
        replaced(0, split="test"),
        replaced(1, split=None),
        replaced(0, group="dog"),
        replaced(0, size=11),
        replaced(0, group="", split=None),
    ],
    ids=["order", "fewer", "more", "id", "label", "subset", "split", "no split", "group", "size", "empty is not null"],
)
def test_the_digest_changes_with_every_change_of_the_images(entries: list[Entry]) -> None:
    assert built(entries).digest != built().digest


def test_the_digest_keeps_columns_apart() -> None:
    one, other = (built([Entry("x.png", REAL, subset, split, None, 1)]) for subset, split in (("ab", "c"), ("a", "bc")))
    assert one.digest != other.digest


def test_the_digest_says_nothing_of_where_the_images_lie() -> None:
    assert built(root=Path("elsewhere")).digest == built().digest


def test_no_images_are_refused() -> None:
    with pytest.raises(ManifestError, match=f"no images in {ROOT}"):
        built([])


def test_an_id_that_stands_twice_is_refused_by_name() -> None:
    with pytest.raises(ManifestError, match=r"'a/0_real/1.png' stands twice in data/set"):
        built([*ENTRIES, ENTRIES[0]._replace(label=FAKE, subset="b")])


def test_a_missing_file_is_told_how_to_make_it(path: Path) -> None:
    assert "no manifest at" in refused(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"image_id,label\na.png,0\n", b"PAR1" + bytes(40) + b"PAR1"],
    ids=["empty", "text", "no footer"],
)
def test_a_file_that_is_no_parquet_is_refused(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    assert "is not a manifest" in refused(path)


def test_a_truncated_file_is_refused(path: Path) -> None:
    write_manifest(built(), path)
    path.write_bytes(path.read_bytes()[:-10])
    assert "is not a manifest" in refused(path)


def test_a_table_of_something_else_is_refused(path: Path) -> None:
    path.parent.mkdir()
    pq.write_table(pa.table({"image_id": ["a.png"], "label": [0]}), path)
    assert "is not a manifest" in refused(path)


def test_a_folder_is_refused(path: Path) -> None:
    path.mkdir(parents=True)
    assert "is not a manifest" in refused(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.slice(1),
        lambda table: table.take([1, 0, 2, 3]),
        lambda table: table.set_column(1, "label", pa.array([1, 0, 1, 1], pa.int8())),
        lambda table: table.set_column(1, "label", pa.array([None, 0, 1, 1], pa.int8())),
        lambda table: table.set_column(2, "subset", pa.array(["b", "a", "b", "b"])),
        lambda table: table.slice(0, 0),
    ],
    ids=["row gone", "order", "label", "no label", "subset", "no rows"],
)
def test_an_altered_table_is_refused(
    path: Path, alter: Callable[..., None], change: Callable[[pa.Table], pa.Table]
) -> None:
    alter(change)
    message = refused(path)
    assert "was altered" in message
    assert built().digest[:12] in message


def test_a_rewritten_table_of_the_same_rows_is_read(path: Path, alter: Callable[..., None]) -> None:
    alter(lambda table: table.select(list(reversed(table.column_names))))
    assert read_manifest(path).table.equals(built().table, null_equal=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.drop_columns(["group"]),
        lambda table: table.set_column(1, "label", pa.array(["real", "real", "fake", "fake"])),
        lambda table: table.set_column(1, "label", pa.array([0, 0, 1, 300])),
    ],
    ids=["column gone", "text for a number", "number too large"],
)
def test_a_table_of_other_columns_is_refused(
    path: Path, alter: Callable[..., None], change: Callable[[pa.Table], pa.Table]
) -> None:
    alter(change)
    refused(path)


@pytest.mark.parametrize("header", [{"root": "data/set"}, {"digest": built().digest}, [], "text"])
def test_a_header_that_lacks_something_is_refused(path: Path, alter: Callable[..., None], header: object) -> None:
    alter(header=header)
    refused(path)
