from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from rine_cache.cache import (
    CacheIdentity,
    CacheShape,
    FeatureCache,
    RowRange,
    SealedRows,
    Slab,
    Status,
    join_shards,
    merge_shards,
    open_writer,
    part_path,
    shard_path,
    shard_rows,
)
from rine_cache.cache.hdf5 import read_layout
from rine_cache.cache.joined import joined
from rine_cache.cache.slab import ROW_TABLES
from rine_cache.errors import CacheCorruptError, CacheError, CacheMismatchError, CacheUnsealedError
from tests.conftest import CENTER, StandInEncoder

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Answer, MadeCache

IMAGES = 22  # six slabs, the last of two rows: some of seven shards have none
SHAPE = CacheShape(blocks=3, images=IMAGES, draws=2, width=4, embedding_width=5, slab_rows=4)
IDENTITY = CacheIdentity({"tap": "ln_2"}, "d" * 64, {"torch": "2"}, "cpu", RowRange(0, IMAGES))
COUNTS = (1, 2, 3, 7)


def whole_content(seed: int = 0) -> Slab:
    rng = np.random.default_rng(seed)
    content = Slab.empty(SHAPE, IMAGES)
    content.features[:] = rng.normal(size=content.features.shape)
    content.embedding[:] = rng.normal(size=content.embedding.shape)
    for table in content.tables.values():
        table[:] = rng.integers(1, 100, table.shape).astype(table.dtype)
    content.tables["status"][:] = Status.DONE
    content.tables["status"][5] = Status.UNREADABLE
    return content


def part_of(content: Slab, rows: slice) -> Slab:
    tables = {name: table[rows] for name, table in content.tables.items()}
    return Slab(content.features[:, rows], content.embedding[rows], tables)


def write(path: Path, rows: slice, identity: CacheIdentity = IDENTITY, seed: int = 0) -> Path:
    """Write a file of some rows of the whole, as extraction does."""
    content = whole_content(seed)
    shape = SHAPE._replace(images=rows.stop - rows.start)
    with open_writer(path, shape, identity._replace(rows=RowRange(rows.start, IMAGES))) as writer:
        for slab in writer.pending_slabs():
            own = shape.rows(slab)
            writer.write(slab, part_of(content, slice(rows.start + own.start, rows.start + own.stop)))
        writer.seal()
    return path


def write_shard(path: Path, number: int, count: int, **settings: Any) -> Path:
    rows = shard_rows(IMAGES, SHAPE.slab_rows, number, count)
    return write(shard_path(path, number, count), rows, **settings)


def write_sharded(path: Path, count: int) -> Path:
    for number in range(1, count + 1):
        write_shard(path, number, count)
    join_shards(path, count)
    return path


def split(path: Path, count: int) -> FeatureCache:
    """Make an index and shards of a cache that is one file; return what it was."""
    whole = FeatureCache(path)
    for number in range(1, count + 1):
        rows = shard_rows(whole.shape.images, whole.shape.slab_rows, number, count)
        identity = whole.identity._replace(rows=RowRange(rows.start, whole.shape.images))
        shape = whole.shape._replace(images=rows.stop - rows.start)
        with open_writer(shard_path(path, number, count), shape, identity) as writer:
            for slab in writer.pending_slabs():
                content = whole.read_slab(slab + rows.start // shape.slab_rows)
                assert content is not None
                writer.write(slab, content)
            writer.seal()
    join_shards(path, count)
    return whole


@pytest.fixture
def whole(tmp_path: Path) -> FeatureCache:
    return FeatureCache(write(tmp_path / "whole.h5", slice(0, IMAGES)))


@pytest.mark.parametrize("count", range(1, 12))
@pytest.mark.parametrize("images", [0, 1, 4, 5, 22, 100])
def test_shards_are_successive_whole_slabs_as_even_as_can_be(images: int, count: int) -> None:
    ranges = [shard_rows(images, 4, number, count) for number in range(1, count + 1)]
    assert [row for rows in ranges for row in range(images)[rows]] == list(range(images))
    assert all(rows.start % 4 == 0 or rows.start == rows.stop == images for rows in ranges)
    slabs = [-(-(rows.stop - rows.start) // 4) for rows in ranges]
    assert max(slabs) - min(slabs) <= 1
    assert ranges[0].stop > 0 or not images, "the first is empty only where all are"


@pytest.mark.parametrize("count", COUNTS)
def test_a_sharded_cache_is_read_as_one_that_is_whole(tmp_path: Path, whole: FeatureCache, count: int) -> None:
    found = FeatureCache(write_sharded(tmp_path / "x.h5", count))
    assert (found.shape, found.identity) == (whole.shape, whole.identity)
    assert (found.fingerprint, found.content_digest) == (whole.fingerprint, whole.content_digest)
    assert len(found.files) == sum(
        rows.start < rows.stop for rows in (shard_rows(IMAGES, 4, number, count) for number in range(1, count + 1))
    )
    found.require_manifest("d" * 64, tmp_path / "m.parquet")
    for name in ROW_TABLES:
        np.testing.assert_array_equal(found.tables[name], whole.tables[name])
    np.testing.assert_array_equal(found.readable, whole.readable)
    for name in ("features", "embedding"):
        ours, theirs = getattr(found, name), getattr(whole, name)
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        np.testing.assert_array_equal(ours, theirs)
    for slab in range(SHAPE.slabs):
        ours, theirs = found.read_slab(slab), whole.read_slab(slab)
        assert ours is not None
        assert theirs is not None
        np.testing.assert_array_equal(ours.checksums(), theirs.checksums())
    assert list(found.damaged_slabs()) == []


@pytest.mark.parametrize("count", COUNTS)
def test_rows_are_read_in_any_order_from_any_shard(tmp_path: Path, whole: FeatureCache, count: int) -> None:
    found = FeatureCache(write_sharded(tmp_path / "x.h5", count))
    rng = np.random.default_rng(0)
    indices: list[Any] = [
        1,
        -1,
        (slice(None), 9),
        (2, -1),
        (1, rng.integers(0, IMAGES, 40), 1),
        (slice(None), rng.random(IMAGES) < 0.5, 0),
        (slice(0, 2), slice(3, 20, 5)),
        (slice(None), slice(20, 1, -3)),
        (1, []),
        (1, [-1, 0, -1]),
    ]
    for index in indices:
        np.testing.assert_array_equal(found.features[index], whole.features[index], err_msg=str(index), strict=True)
    rows = rng.permutation(IMAGES)
    np.testing.assert_array_equal(found.embedding[rows, 1], whole.embedding[rows, 1])


def test_indices_beyond_a_joined_array_are_refused() -> None:
    array = joined([np.zeros((3, 4)), np.ones((3, 2))], axis=1)
    for index in [(0, 6), (0, [6]), (0, [-7]), 3, (0, 0, 0), (slice(None), np.ones(5, bool)), (0, [0.5]), ([0, 1], 0)]:
        with pytest.raises(IndexError):
            array[index]


def test_merged_shards_are_the_file_that_one_extraction_gives(tmp_path: Path, whole: FeatureCache) -> None:
    merge_shards(FeatureCache(write_sharded(tmp_path / "x.h5", 3)), tmp_path / "merged.h5")
    assert (tmp_path / "merged.h5").read_bytes() == whole.path.read_bytes()


def test_plain_h5py_walks_from_the_index_to_the_arrays(tmp_path: Path, whole: FeatureCache) -> None:
    path = write_sharded(tmp_path / "x.h5", 3)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    path.rename(moved / "x.h5")
    (tmp_path / "x.shards").rename(moved / "x.shards")
    with h5py.File(moved / "x.h5") as file:
        features = np.concatenate([file[str(number)]["features"][:] for number in (1, 2, 3)], axis=1)
        assert file.attrs["shards"] == 3
    np.testing.assert_array_equal(features, whole.features)
    np.testing.assert_array_equal(FeatureCache(moved / "x.h5").features, whole.features)


def test_an_index_has_the_same_bytes_whenever_it_is_made(tmp_path: Path) -> None:
    path = write_sharded(tmp_path / "x.h5", 7)
    before = path.read_bytes()
    join_shards(path, 7)
    assert path.read_bytes() == before


def test_more_shards_than_an_attribute_could_list_are_joined(tmp_path: Path, whole: FeatureCache) -> None:
    """HDF5 limits an attribute to 64 KiB; here most shards are empty, yet numbers are large."""
    found = FeatureCache(write_sharded(tmp_path / "x.h5", 40))
    assert found.content_digest == whole.content_digest
    assert len(found.files) == SHAPE.slabs


def test_an_index_replaces_a_whole_cache_and_another_index(tmp_path: Path, whole: FeatureCache) -> None:
    path = tmp_path / "x.h5"
    shutil.copy(whole.path, path)
    for count in (3, 1, 2):
        write_sharded(path, count)
        assert FeatureCache(path).files[0].samefile(shard_path(path, 1, count))


def test_a_file_that_is_no_cache_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_bytes(b"precious")
    with pytest.raises(CacheError, match="not a rine-cache file"):
        write_sharded(tmp_path / "x.h5", 2)
    assert (tmp_path / "x.h5").read_bytes() == b"precious"


def test_a_lone_shard_can_be_checked_but_not_used(tmp_path: Path, whole: FeatureCache) -> None:
    found = FeatureCache(write_shard(tmp_path / "x.h5", 2, 3))
    rows = shard_rows(IMAGES, 4, 2, 3)
    np.testing.assert_array_equal(found.features, whole.features[:, rows])
    assert list(found.damaged_slabs()) == []
    with pytest.raises(CacheMismatchError, match="rine-cache join"):
        found.require_manifest("d" * 64, tmp_path / "m.parquet")


def test_a_shard_without_rows_is_a_file_like_the_others(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "x.h5", 1, 7)
    empty = next(n for n in range(1, 8) if shard_rows(IMAGES, 4, n, 7).start == shard_rows(IMAGES, 4, n, 7).stop)
    path = write_shard(tmp_path / "x.h5", empty, 7)
    found = FeatureCache(path)
    assert found.shape.images == 0
    assert list(found.damaged_slabs()) == []
    assert len(SealedRows([path], found.fingerprint)) == 0
    with pytest.raises(CacheMismatchError, match="0 of 22"):
        found.require_manifest("d" * 64, tmp_path / "m.parquet")


@pytest.mark.parametrize("count", COUNTS)
def test_rows_are_reused_from_indexes_and_lone_shards(tmp_path: Path, whole: FeatureCache, count: int) -> None:
    path = write_sharded(tmp_path / "x.h5", count)
    for paths in ([path], [shard_path(path, number, count) for number in range(1, count + 1)]):
        sealed = SealedRows(paths, whole.fingerprint)
        assert len(sealed) == IMAGES - 1
        for row in (0, 4, 13, 21):
            found = sealed.find(whole.content_sha256[row].tobytes())
            assert found is not None
            np.testing.assert_array_equal(found.features[:, 0], whole.features[:, row])
        assert sealed.find(whole.content_sha256[5].tobytes()) is None, "it is unreadable"


def test_a_replaced_shard_stays_for_reuse_until_all_are_joined(tmp_path: Path, whole: FeatureCache) -> None:
    """Where the rows shift between shards, a later job needs rows of a shard that an earlier one replaced."""
    path = write_sharded(tmp_path / "x.h5", 2)
    other = IDENTITY._replace(manifest_digest="e" * 64)
    write_shard(path, 1, 2, identity=other, seed=1)
    kept = sorted(shard_path(path, 1, 2).parent.glob("*.h5"))
    assert len(kept) == 3
    assert SealedRows(kept, whole.fingerprint).find(whole.content_sha256[0].tobytes()) is not None
    write_shard(path, 2, 2, identity=other, seed=1)
    join_shards(path, 2)
    assert sorted(shard_path(path, 1, 2).parent.iterdir()) == [shard_path(path, number, 2) for number in (1, 2)]
    assert FeatureCache(path).identity.manifest_digest == "e" * 64


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"identity": IDENTITY._replace(key={"tap": "block"})}, "another encoder, view or manifest"),
        ({"identity": IDENTITY._replace(manifest_digest="e" * 64)}, "another encoder, view or manifest"),
    ],
)
def test_shards_of_two_caches_are_not_joined(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    path = tmp_path / "x.h5"
    write_shard(path, 1, 2)
    write_shard(path, 2, 2, **settings)
    with pytest.raises(CacheMismatchError, match=rf"2-of-2\.h5 .*{message}"):
        join_shards(path, 2)
    assert not path.exists()


def test_shards_of_other_rows_are_not_joined(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    write_shard(path, 1, 2)
    write(shard_path(path, 2, 2), slice(16, IMAGES))
    with pytest.raises(CacheMismatchError, match="holds other rows"):
        join_shards(path, 2)


def test_shards_of_two_machines_are_joined(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    write_shard(path, 1, 2)
    write_shard(path, 2, 2, identity=IDENTITY._replace(libraries={"torch": "3"}, device="cuda"))
    join_shards(path, 2)
    assert FeatureCache(path).shape == SHAPE


def test_missing_and_unfinished_shards_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    write_shard(path, 1, 2)
    with pytest.raises(CacheError, match=r"no sealed shard at .*2-of-2\.h5; .*extract --shard"):
        join_shards(path, 2)
    second = write_shard(path, 2, 2)
    second.rename(part_path(second))
    with pytest.raises(CacheError, match=r"no sealed shard at .*2-of-2\.h5"):
        join_shards(path, 2)
    with pytest.raises(CacheError, match="shards are not joined"):
        FeatureCache(path)


def test_a_shard_that_goes_or_is_exchanged_after_the_join_is_noticed(tmp_path: Path) -> None:
    path = write_sharded(tmp_path / "x.h5", 3)
    second = shard_path(path, 2, 3)
    second.unlink()
    with pytest.raises(CacheError, match=r"joined from shards, and .*2-of-3\.h5 is missing; .*rine-cache join"):
        FeatureCache(path)
    write_shard(path, 2, 3, seed=1)
    with pytest.raises(CacheMismatchError, match=r"2-of-3\.h5 is not the file that was joined .*rine-cache join"):
        FeatureCache(path)
    join_shards(path, 3)
    assert list(FeatureCache(path).damaged_slabs()) == []


def faults_of(path: Path) -> list[Any]:
    try:
        return list(FeatureCache(path).damaged_slabs())
    except CacheError as error:
        return [str(error)]


def test_any_flipped_byte_of_an_index_is_found(tmp_path: Path) -> None:
    path = write_sharded(tmp_path / "x.h5", 2)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        assert faults_of(path), f"byte {position} of {len(content)} was flipped unseen"
    for cut in (content[:-1], content[:600], content[:100], b"", content + b"\0"):
        path.write_bytes(cut)
        assert faults_of(path)


def test_any_flipped_byte_of_a_shard_is_found(tmp_path: Path) -> None:
    path = write_sharded(tmp_path / "x.h5", 3)
    rng = np.random.default_rng(0)
    for number in (1, 2, 3):
        shard = shard_path(path, number, 3)
        content = shard.read_bytes()
        for position in [0, 20, 300, 512, *rng.integers(0, len(content), 100).tolist(), len(content) - 1]:
            changed = bytearray(content)
            changed[position] ^= 1 << int(rng.integers(8))
            shard.write_bytes(changed)
            assert faults_of(path), f"byte {position} of {len(content)} of shard {number} was flipped unseen"
        shard.write_bytes(content)


def test_of_a_damaged_shard_only_the_shard_goes(
    make_cache: Callable[..., MadeCache], rine_cache: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What verify says is done to the letter."""
    monkeypatch.setattr("rine_cache.encoders.load_encoder", lambda *_: StandInEncoder())
    made = make_cache("set", per_class=16)
    Path("x.h5").write_bytes(made.features.read_bytes())
    whole = split(Path("x.h5"), 3)
    before = {path.name: path.stat() for path in Path("x.shards").iterdir()}
    assert rine_cache("verify", "x.h5") == (0, "x.h5: whole\n", "")
    content = bytearray(Path("x.shards/2-of-3.h5").read_bytes())
    layout = read_layout(Path("x.shards/2-of-3.h5"))
    content[layout.extents["features"][0]] ^= 1  # block 0 of the shard's first row
    Path("x.shards/2-of-3.h5").write_bytes(content)
    answer = rine_cache("verify", "x.h5")
    assert answer.status == 1
    assert answer.out == (
        "x.h5: not whole: x.shards/2-of-3.h5 is damaged: slab 1 (block 0); delete x.shards/2-of-3.h5 and x.h5, which "
        "is joined from it, and no other shard; then run snakemake, or `rine-cache extract --out x.h5 --shard 2/3` "
        "with the options of before and `rine-cache join x.h5 --shards 3`\n"
    )
    Path("x.shards/2-of-3.h5").unlink()
    Path("x.h5").unlink()
    options = ("--view", CENTER.model_dump_json(), "--workers", "1", "--out", "x.h5", "--shard", "2/3")
    assert rine_cache("extract", made.manifest_path, *options).status == 0
    assert rine_cache("join", "x.h5", "--shards", "3").status == 0
    assert rine_cache("verify", "x.h5").out == "x.h5: whole\n"
    np.testing.assert_array_equal(FeatureCache(Path("x.h5")).features, whole.features)
    for number in (1, 3):
        name = f"{number}-of-3.h5"
        assert Path("x.shards", name).stat().st_mtime_ns == before[name].st_mtime_ns


def test_of_a_damaged_lone_shard_its_own_path_is_named_not_only_the_link(tmp_path: Path) -> None:
    path = write_sharded(tmp_path / "x.h5", 1)
    with h5py.File(shard_path(path, 1, 1), "r+") as file:
        file["features"][0, 0, 0, 0] += 1
    (said,) = FeatureCache(path).damage()
    assert (
        f"{tmp_path}/x.shards/1-of-1.h5 is damaged: slab 0 (block 0); delete {tmp_path}/x.shards/1-of-1.h5 and" in said
    )


def test_damage_is_named_by_its_slab_in_the_whole(tmp_path: Path) -> None:
    path = write_sharded(tmp_path / "x.h5", 3)
    with h5py.File(shard_path(path, 3, 3), "r+") as file:
        file["features"][2, 5, 1, 3] += 1  # row 5 of the last two slabs
    found = FeatureCache(path)
    assert list(found.damaged_slabs()) == [(5, ["block 2"])]
    assert found.read_slab(5) is None
    with pytest.raises(CacheCorruptError, match="slab 5"):
        merge_shards(found, tmp_path / "merged.h5")


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("there_before", [False, True])
def test_a_kill_during_a_join_leaves_what_was_there(tmp_path: Path, count: int, there_before: bool) -> None:
    path = tmp_path / "x.h5"
    if there_before:
        write(path, slice(0, IMAGES))
    for number in range(1, count + 1):
        write_shard(path, number, count)
    before = path.read_bytes() if there_before else None
    child = os.fork()
    if not child:
        Path.replace = lambda *_: os._exit(9)  # type: ignore[method-assign]
        join_shards(path, count)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert (path.read_bytes() if path.exists() else None) == before
    join_shards(path, count)
    assert FeatureCache(path).shape == SHAPE


def test_two_joins_at_once_are_harmless(tmp_path: Path, whole: FeatureCache) -> None:
    path = write_sharded(tmp_path / "x.h5", 3)
    children = []
    for _ in range(4):
        child = os.fork()
        if not child:
            status = 1
            try:
                for _ in range(20):
                    join_shards(path, 3)
                    assert FeatureCache(path).content_digest == whole.content_digest
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_a_join_on_a_full_disk_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_sharded(tmp_path / "x.h5", 2)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CacheError, match="No space left"):
        join_shards(path, 2)
    assert path.read_bytes() == before


def test_a_disk_without_room_is_told_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(CacheError, match=r"no room .* MB are free in"):
        write_shard(tmp_path / "x.h5", 1, 2)
    assert list(shard_path(tmp_path / "x.h5", 1, 2).parent.iterdir()) == []


def test_a_file_system_that_cannot_reserve_space_is_written_to_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, whole: FeatureCache
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    path = write(tmp_path / "x.h5", slice(0, IMAGES))
    assert "cannot be reserved" in caplog.text
    assert path.read_bytes() == whole.path.read_bytes()


def test_a_part_file_of_another_version_or_damaged_is_to_be_deleted(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with open_writer(path, SHAPE, IDENTITY):
        pass
    begun = part_path(path).read_bytes()
    with h5py.File(part_path(path), "r+") as file:
        file.attrs.modify("schema_version", np.uint32(2))
    with pytest.raises(CacheMismatchError, match=r"x\.h5\.part .*delete it"), open_writer(path, SHAPE, IDENTITY):
        pass
    part_path(path).write_bytes(begun[:512] + b"?" * 400 + begun[912:])
    with pytest.raises(CacheCorruptError, match=r"x\.h5\.part .*delete it"), open_writer(path, SHAPE, IDENTITY):
        pass


def test_an_unsealed_file_among_shards_is_refused(tmp_path: Path) -> None:
    path = write_sharded(tmp_path / "x.h5", 2)
    with open_writer(tmp_path / "y.h5", SHAPE, IDENTITY):
        pass
    part_path(tmp_path / "y.h5").rename(shard_path(path, 2, 2))
    with pytest.raises(CacheUnsealedError, match="not sealed"):
        FeatureCache(path)


def test_a_sharded_cache_is_packed_as_the_file_that_it_stands_for(
    make_cache: Callable[..., MadeCache], tmp_path: Path
) -> None:
    from rine_cache.packs import read_pack, write_pack

    made = make_cache("set", per_class=8)
    results = tmp_path / "results"
    place = results / "features" / "stand-in" / "ln_2" / "center16" / "set.h5"
    place.parent.mkdir(parents=True)
    (results / "manifests").mkdir()
    made.manifest_path.rename(results / "manifests" / "set.parquet")
    made.features.rename(place)
    write_pack(results, tmp_path / "one.tar")
    whole = split(place, 2)
    place.unlink()
    with pytest.raises(CacheError, match="shards are not joined"):
        write_pack(results, tmp_path / "two.tar")
    join_shards(place, 2)
    write_pack(results, tmp_path / "new" / "two.tar")
    assert (tmp_path / "new" / "two.tar").read_bytes() == (tmp_path / "one.tar").read_bytes()
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["two.tar"], "what was merged for it is gone"
    read_pack(tmp_path / "new" / "two.tar", tmp_path / "there")
    there = FeatureCache(tmp_path / "there" / place.relative_to(results))
    np.testing.assert_array_equal(there.features, whole.features)
