"""Which images a person means: files, folders, and lists of both."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rine_cache.errors import ConfigError
from rine_cache.layouts.walk import IMAGE_SUFFIXES, files_below

if TYPE_CHECKING:
    from collections.abc import Iterable

_SHOWN = 5


class ImagePaths(NamedTuple):
    """Images in order, and by suffix how many files of the folders were passed over as they are none."""

    images: list[Path]
    passed_over: Counter[str]


class _EverySuffix(frozenset[str]):
    """Holds whatever is asked for."""

    def __contains__(self, _: object) -> bool:
        return True


def find_images(named: Iterable[Path]) -> ImagePaths:
    """List files as they are named, whatever their suffix, and the images below folders, sorted by path.

    Raises
    ------
    LayoutError
        If a folder cannot be listed.
    ConfigError
        If there is no image.
    """
    images: list[Path] = []
    passed_over: Counter[str] = Counter()
    folders = []
    for path in named:
        if not path.is_dir():
            images.append(path)  # one that does not exist is told where it is read
            continue
        folders.append(path)
        for below in sorted(below for below, _ in files_below(path, _EverySuffix())):
            suffix = Path(below).suffix.lower()
            if suffix in IMAGE_SUFFIXES:
                images.append(path / below)
            else:
                passed_over[suffix or "no suffix"] += 1
    if not images and not folders:
        raise ConfigError("the list names no image; give one path a line")
    if not images:
        others = f", only {counted(passed_over)}" if passed_over else ""
        raise ConfigError(
            f"there is no image in {' and '.join(map(str, folders))}{others}; allowed suffixes: "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}; a file that is named itself is tried whatever its suffix"
        )
    return ImagePaths(images, passed_over)


def read_list(content: bytes) -> list[Path]:
    """Read a list of paths, one a line, or separated by zero bytes as ``find -print0`` writes them.

    Blank lines are none. Paths are taken as they are, relative ones from the current folder.
    """
    separator = b"\0" if b"\0" in content else b"\n"
    lines = content.split(separator)
    if separator == b"\n":
        lines = [line.removesuffix(b"\r") for line in lines]
    return [Path(os.fsdecode(line)) for line in lines if line.strip()]


def counted(suffixes: Counter[str]) -> str:
    """Say how many files there are of each suffix, the most frequent first."""
    ordered = sorted(suffixes.items(), key=lambda item: (-item[1], item[0]))
    told = [f"{count:,} {suffix}" for suffix, count in ordered[:_SHOWN]]
    others = len(suffixes) - _SHOWN
    return ", ".join(told) + (f" and {others} more kinds" if others > 0 else "")
