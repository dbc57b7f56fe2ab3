from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rine_cache.errors import OutputError
from rine_cache.files import flush_to_disk, written_whole

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, text: str) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(text)


def fail_halfway(path: Path, error: BaseException) -> None:
    with written_whole(path) as temporary:
        temporary.write_text("half")
        raise error


def test_a_file_appears_with_what_was_written(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert list(tmp_path.iterdir()) == [tmp_path / "a.txt"]


def test_an_old_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old, and longer than the new")
    write(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_readers_see_the_old_file_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with path.open() as reader, written_whole(path) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "old"
        temporary.write_text("whole")
        assert path.read_text() == "old"
    assert path.read_text() == "whole"
    assert reader.closed


def test_a_reader_that_has_the_old_file_open_reads_it_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with path.open() as reader:
        write(path, "new")
        assert reader.read() == "old"


def test_folders_are_made(tmp_path: Path) -> None:
    write(tmp_path / "x" / "y" / "a.txt", "new")
    assert (tmp_path / "x" / "y" / "a.txt").read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_nothing_and_keeps_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error):
        fail_halfway(path, error())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_makes_no_file_where_there_was_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="full"):
        fail_halfway(tmp_path / "a.txt", ValueError("full"))
    assert list(tmp_path.iterdir()) == []


def test_a_block_that_writes_nothing_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OutputError, match="cannot write"), written_whole(path):
        pass
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_file_is_hidden_beside_the_target_and_no_other_process_s(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with written_whole(path) as temporary:
        assert temporary.parent == tmp_path, "a rename is whole within one file system only"
        assert temporary.name.startswith("."), "layouts and globs pass it over"
        assert str(os.getpid()) in temporary.name
        temporary.touch()


def test_bytes_are_on_disk_before_the_name_is_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    flushed: list[tuple[int, bool]] = []
    original = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append((os.fstat(descriptor).st_ino, path.exists()))
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write(path, "new")
    assert flushed == [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)]


def test_flushing_closes_the_file_even_where_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def fsync(descriptor: int) -> None:
        seen.append(descriptor)
        raise OSError("the disk is gone")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="the disk is gone"):
        flush_to_disk(tmp_path)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(seen[0])


def test_a_file_has_the_permissions_of_the_user_s_umask_whoever_wrote_it(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with written_whole(tmp_path / "private") as temporary:
        temporary.write_text("new")
        temporary.chmod(0o600)
    assert (tmp_path / "private").stat().st_mode == (tmp_path / "plain").stat().st_mode
