from __future__ import annotations

import os
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

from rine_cache.cache import (
    CacheIdentity,
    CacheShape,
    CacheWriter,
    FeatureCache,
    RowRange,
    Slab,
    Status,
    open_writer,
    part_path,
)
from rine_cache.cache import reader as reading
from rine_cache.cache import writer as writing
from rine_cache.errors import (
    CacheBusyError,
    CacheCorruptError,
    CacheError,
    CacheMismatchError,
    CacheUnsealedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import MadeCache

SHAPE = CacheShape(blocks=3, images=10, draws=2, width=4, embedding_width=5, slab_rows=4)
IDENTITY = CacheIdentity({"tap": "ln_2", "view": {"seed": 0}}, "d" * 64, {"torch": "2"}, "cpu", RowRange(0, 10))


def slab_of(shape: CacheShape, slab: int) -> Slab:
    rng = np.random.default_rng(slab)
    rows = shape.rows(slab)
    content = Slab.empty(shape, rows.stop - rows.start)
    content.features[:] = rng.normal(size=content.features.shape)
    content.embedding[:] = rng.normal(size=content.embedding.shape)
    content.tables["status"][:] = Status.DONE
    content.tables["content_sha256"][:] = rng.integers(0, 256, (len(content.embedding), 32))
    content.tables["width"][:], content.tables["height"][:] = 300 + slab, 200
    content.tables["format"][:] = b"JPEG"
    return content


def write_all(path: Path, shape: CacheShape = SHAPE, identity: CacheIdentity = IDENTITY) -> Path:
    with open_writer(path, shape, identity) as writer:
        for slab in writer.pending_slabs():
            writer.write(slab, slab_of(shape, slab))
        writer.seal()
    return path


def test_what_is_written_is_read_by_the_reader_and_by_plain_h5py(tmp_path: Path) -> None:
    path = write_all(tmp_path / "x.h5")
    slabs = [slab_of(SHAPE, slab) for slab in range(SHAPE.slabs)]
    expected = np.concatenate([slab.features for slab in slabs], axis=1)
    found = FeatureCache(path)
    np.testing.assert_array_equal(found.features, expected)
    np.testing.assert_array_equal(found.embedding, np.concatenate([slab.embedding for slab in slabs]))
    np.testing.assert_array_equal(
        found.content_sha256, np.concatenate([slab.tables["content_sha256"] for slab in slabs])
    )
    assert found.identity == IDENTITY
    assert found.shape == SHAPE
    assert found.readable.all()
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["features"][:], expected)
        assert file["features"].chunks is None, "contiguous"
        assert file["width"][:].tolist() == [300] * 4 + [301] * 4 + [302] * 2
        assert h5py.check_enum_dtype(file["status"].dtype)["DONE"] == 1
        assert file.attrs["sealed"] == 1


def test_the_part_file_is_gone_once_it_is_sealed(tmp_path: Path) -> None:
    path = write_all(tmp_path / "x.h5")
    assert not part_path(path).exists()


def test_equal_content_gives_equal_bytes_whatever_the_order_of_slabs(tmp_path: Path) -> None:
    first = write_all(tmp_path / "a.h5")
    with open_writer(tmp_path / "b.h5", SHAPE, IDENTITY) as writer:
        for slab in reversed(writer.pending_slabs()):
            writer.write(slab, slab_of(SHAPE, slab))
        writer.seal()
    assert first.read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_the_whole_space_is_reserved_before_the_first_slab(tmp_path: Path) -> None:
    shape = SHAPE._replace(images=4000, width=256)
    with open_writer(tmp_path / "x.h5", shape, IDENTITY):
        status = part_path(tmp_path / "x.h5").stat()
    assert status.st_size > 3 * 4000 * 2 * 256 * 2
    assert status.st_blocks * 512 >= status.st_size, "no holes"


def test_writing_goes_on_from_the_first_slab_that_is_not_done(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with open_writer(path, SHAPE, IDENTITY) as writer:
        assert writer.pending_slabs() == [0, 1, 2]
        writer.write(0, slab_of(SHAPE, 0))
    with open_writer(path, SHAPE, IDENTITY) as writer:
        assert writer.pending_slabs() == [1, 2]
    write_all(path)
    assert path.read_bytes() == write_all(tmp_path / "y.h5").read_bytes()


def test_a_done_slab_whose_bytes_changed_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with open_writer(path, SHAPE, IDENTITY) as writer:
        writer.write(0, slab_of(SHAPE, 0))
        writer.write(1, slab_of(SHAPE, 1))
    with h5py.File(part_path(path), "r+") as file:
        file["features"][1, 5] += 1
    with open_writer(path, SHAPE, IDENTITY) as writer:
        assert writer.pending_slabs() == [1, 2]


def test_a_part_file_killed_during_its_creation_is_created_again(tmp_path: Path) -> None:
    whole = write_all(tmp_path / "whole.h5").read_bytes()
    for kept in (0, 1, 511, 700, 3000):
        path = tmp_path / f"cut{kept}.h5"
        # The state word is the last thing creation writes: before it there are zeros.
        part_path(path).write_bytes(b"\0" * min(kept, 512) + whole[512:kept])
        assert write_all(path).read_bytes() == whole


def test_a_cache_that_is_not_sealed_is_refused_with_what_to_run(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with open_writer(path, SHAPE, IDENTITY) as writer:
        writer.write(0, slab_of(SHAPE, 0))
        with pytest.raises(CacheCorruptError, match="slab 1"):
            writer.seal()
    with pytest.raises(CacheError, match="has not finished"):
        FeatureCache(path)
    part_path(path).rename(path)
    with pytest.raises(CacheUnsealedError, match="rine-cache extract"):
        FeatureCache(path)


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="no cache at"):
        FeatureCache(tmp_path / "none.h5")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["features"] = np.zeros(600)
    with pytest.raises(CacheError, match="not a rine-cache file"):
        FeatureCache(tmp_path / "foreign.h5")


def test_a_file_that_cannot_be_read_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_all(tmp_path / "x.h5")

    def forbidden(*_: object) -> bytes:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(reading, "read_bytes", forbidden)
    with pytest.raises(CacheError, match=r"cannot read .*x\.h5: Permission denied"):
        FeatureCache(path)


def test_an_open_cache_outlives_its_file(tmp_path: Path) -> None:
    path = write_all(tmp_path / "x.h5")
    found = FeatureCache(path)
    path.unlink()
    slab = found.read_slab(1)
    assert slab is not None
    np.testing.assert_array_equal(slab.checksums(), slab_of(SHAPE, 1).checksums())
    assert list(found.damaged_slabs()) == []


def test_any_flipped_byte_is_found(tmp_path: Path) -> None:
    path = write_all(tmp_path / "x.h5")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in [0, 20, 300, 512, 520, *rng.integers(0, len(whole), 600).tolist(), len(whole) - 1]:
        changed = bytearray(whole)
        changed[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            faults = list(FeatureCache(path).damaged_slabs())
        except CacheError:
            continue
        assert faults, f"byte {position} of {len(whole)} was flipped unseen"


def test_a_file_cut_short_or_grown_is_found(tmp_path: Path) -> None:
    path = write_all(tmp_path / "x.h5")
    whole = path.read_bytes()
    for changed in (whole[:-1], whole[: len(whole) // 2], whole + b"\0"):
        path.write_bytes(changed)
        with pytest.raises(CacheCorruptError):
            FeatureCache(path)


def test_damage_is_named_by_slab_and_block(tmp_path: Path) -> None:
    path = write_all(tmp_path / "x.h5")
    with h5py.File(path, "r+") as file:
        file["features"][2, 9, 1, 3] += 1
        file["width"][0] = 7
    faults = dict(FeatureCache(path).damaged_slabs())
    assert faults == {2: ["block 2"], 0: ["row tables"]}


def test_another_manifest_is_refused_naming_both_digests(tmp_path: Path) -> None:
    found = FeatureCache(write_all(tmp_path / "x.h5"))
    with pytest.raises(CacheMismatchError, match=r"dddddddddddd.*eeeeeeeeeeee"):
        found.require_manifest("e" * 64, tmp_path / "m.parquet")


@pytest.mark.parametrize(
    ("identity", "what"),
    [
        (IDENTITY._replace(key={"tap": "block"}), "key"),
        (IDENTITY._replace(manifest_digest="e" * 64), "manifest_digest"),
        (IDENTITY._replace(libraries={"torch": "3"}), "libraries"),
    ],
)
def test_a_part_file_begun_for_something_else_is_kept_and_refused(
    tmp_path: Path, identity: CacheIdentity, what: str
) -> None:
    path = tmp_path / "x.h5"
    with open_writer(path, SHAPE, IDENTITY) as writer:
        writer.write(0, slab_of(SHAPE, 0))
    before = part_path(path).read_bytes()
    with pytest.raises(CacheMismatchError, match=what), open_writer(path, SHAPE, identity):
        pass
    assert part_path(path).read_bytes() == before


def test_a_kill_between_the_seal_and_the_rename_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.h5"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(path), "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write_all(path)
    with open_writer(path, SHAPE, IDENTITY) as writer:
        assert writer.pending_slabs() == []
        writer.seal()
    assert path.read_bytes() == write_all(tmp_path / "y.h5").read_bytes()


def test_a_file_system_without_locks_is_not_taken_for_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(38, os.strerror(38))

    monkeypatch.setattr(writing.fcntl, "flock", no_locks)
    with pytest.raises(CacheError, match="cannot lock"), open_writer(tmp_path / "x.h5", SHAPE, IDENTITY):
        pass


def test_a_second_writer_says_so_and_stops(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with (
        open_writer(path, SHAPE, IDENTITY),
        pytest.raises(CacheBusyError, match="another process"),
        open_writer(path, SHAPE, IDENTITY),
    ):
        pass
    write_all(path)


def test_a_full_disk_is_one_clear_error_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.h5"

    def full(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(writing.os, "posix_fallocate", full)
        with pytest.raises(CacheError, match="no room"), open_writer(path, SHAPE, IDENTITY):
            pass
    assert not part_path(path).exists()
    with open_writer(path, SHAPE, IDENTITY) as writer:
        writer.write(0, slab_of(SHAPE, 0))
        with monkeypatch.context() as patch:
            patch.setattr(writing.os, "pwrite", full)
            with pytest.raises(CacheError, match="no room"):
                writer.write(1, slab_of(SHAPE, 1))
    with open_writer(path, SHAPE, IDENTITY) as writer:
        assert writer.pending_slabs() == [1, 2]


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CacheError, match="cannot write"), open_writer(tmp_path / "file" / "x.h5", SHAPE, IDENTITY):
        pass


def test_one_block_is_read_without_touching_the_others(make_cache: Callable[..., MadeCache]) -> None:
    """Block-major and contiguous: block k is one run of bytes, b of K blocks are b/K of them."""
    found = FeatureCache(make_cache().features)
    block = found.features[1]
    assert block.flags.c_contiguous
    assert block.nbytes * found.shape.blocks == found.features.nbytes


def test_put_refuses_pending_rows(tmp_path: Path) -> None:
    with open_writer(tmp_path / "x.h5", SHAPE, IDENTITY) as writer:
        assert isinstance(writer, CacheWriter)
        with pytest.raises(AssertionError):
            writer.write(0, Slab.empty(SHAPE, 4))
