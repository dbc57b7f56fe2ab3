from __future__ import annotations

import os
from pathlib import Path

import pytest

from rine_cache.errors import ConfigError
from rine_cache.image_paths import counted, find_images, read_list


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.PNG", "a.jpg", "deep/er/c.webp", "notes.txt", "deep/x.db", "deep/README", ".hidden.png"):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "pictures"


def test_folders_give_their_images_sorted_and_say_what_was_passed_over(folder: Path) -> None:
    found = find_images([folder])
    assert found.images == [folder / "a.jpg", folder / "b.PNG", folder / "deep/er/c.webp"]
    assert dict(found.passed_over) == {".txt": 1, ".db": 1, "no suffix": 1}


def test_a_file_that_is_named_is_taken_whatever_it_is(folder: Path) -> None:
    named = [folder / "notes.txt", folder / "nowhere.png", folder / "notes.txt"]
    assert find_images(named).images == named


def test_a_folder_without_images_is_told_with_what_it_holds(folder: Path) -> None:
    (folder / "deep/er/c.webp").unlink()
    with pytest.raises(ConfigError, match=r"there is no image in .*deep, only 1 \.db, 1 no suffix; allowed suffixes: "):
        find_images([folder / "deep"])


def test_nothing_named_is_refused() -> None:
    with pytest.raises(ConfigError, match="the list names no image; give one path a line"):
        find_images([])


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"a.png\nb c.png\n", ["a.png", "b c.png"]),
        (b"a.png\r\n\r\n  \nb.png", ["a.png", "b.png"]),
        (b"a\nb.png\0c.png\0", ["a\nb.png", "c.png"]),
        (b"", []),
        (b"\xff.png\n", [os.fsdecode(b"\xff.png")]),
    ],
)
def test_lists_are_one_path_a_line_or_separated_by_zero_bytes(content: bytes, names: list[str]) -> None:
    assert read_list(content) == [Path(name) for name in names]


def test_many_kinds_of_files_are_summed_up(folder: Path) -> None:
    for number in range(9):
        (folder / f"x.k{number}").touch()
    assert counted(find_images([folder]).passed_over).endswith("and 7 more kinds")
