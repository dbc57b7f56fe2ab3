"""Walking below a folder: every file of some kind, in bounded memory; or folders' names alone, in bounded time."""

from __future__ import annotations

import os
from itertools import islice
from operator import itemgetter
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from rine_cache.errors import LayoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    Ancestors = frozenset[tuple[int, int]]  # device and inode of every folder on the way down

IMAGE_SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pnm",
        ".jp2",
        ".avif",
    ]
)

# Bounds of a look at folders' names. Published trees have at most 7 folders above an image, wrappers included.
DEPTH = 9
MOST_FOLDERS = 5_000
MOST_ITEMS = 10_000  # a folder that holds more is one of images


def is_litter(name: str) -> bool:
    """Tell whether a file or folder is none of a data set's: hidden, or left behind by a packing program."""
    return name.startswith(".") or name == "__MACOSX"


def files_below(root: Path, suffixes: Collection[str] = IMAGE_SUFFIXES) -> Iterator[tuple[str, int]]:
    """Yield the path below `root` and the size in bytes of every file with one of the suffixes, whatever their case.

    Links are followed unless they lead into themselves, hidden files and archive litter passed over.

    Raises
    ------
    LayoutError
        If a folder cannot be listed, or a file's name is not UTF-8.
    """
    pending: list[tuple[str, Ancestors]] = [("", frozenset())]
    while pending:
        relative, ancestors = pending.pop()
        folder = root / relative
        try:
            within = _entered(folder, ancestors)
            if within is None:
                continue
            with os.scandir(folder) as listing:  # item by item: a folder may hold a million
                for item in listing:
                    if is_litter(item.name):
                        continue
                    path = f"{relative}/{item.name}" if relative else item.name
                    if _is_folder(item):
                        pending.append((path, within))
                    elif PurePosixPath(item.name).suffix.lower() in suffixes:
                        yield path, _size(item, path)
        except OSError as error:
            raise LayoutError(f"cannot list the folder {folder}: {error.strerror}") from None


def folders_below(root: Path, holds_images: Callable[[str], bool] = lambda name: False) -> Iterator[str]:  # noqa: ARG005
    """Yield the paths of folders below a root, its own ("") first, a level at a time and sorted.

    Not those below a folder whose name says that it holds images, nor below a link into itself, nor more than `DEPTH`
    levels or `MOST_FOLDERS`, nor those in a folder that `items_in` takes to be empty.
    """
    level: list[tuple[str, Ancestors]] = [("", frozenset())]
    remaining = MOST_FOLDERS
    for _ in range(DEPTH):
        below = []
        for path, ancestors in sorted(level, key=itemgetter(0))[:remaining]:
            try:
                within = _entered(root / path, ancestors)
            except OSError:
                continue
            if within is None:
                continue
            remaining -= 1
            yield path
            if not (path and holds_images(path.rpartition("/")[2])):
                names = (item.name for item in items_in(root / path) if _is_folder(item))
                below += [(f"{path}/{name}" if path else name, within) for name in names]
        level = below


def items_in(folder: Path) -> list[os.DirEntry[str]]:
    """Return what a folder holds but litter; nothing if that is more than `MOST_ITEMS`, or cannot be listed."""
    try:
        with os.scandir(folder) as listing:
            items = list(islice(listing, MOST_ITEMS + 1))
    except OSError:
        return []
    return [item for item in items if not is_litter(item.name)] if len(items) <= MOST_ITEMS else []


def own_names(root: Path, telling: Callable[[tuple[str, ...]], list[str]]) -> list[str]:
    """Return what the root's own path tells: a link's, or where that tells nothing, that of what it leads to."""
    return telling(root.absolute().parts) or telling(root.resolve().parts)


def _entered(folder: Path, ancestors: Ancestors) -> Ancestors | None:
    """Return the ancestors of what lies in a folder; None of one that is its own ancestor, by a link."""
    status = folder.stat()
    itself = (status.st_dev, status.st_ino)
    return None if itself in ancestors else ancestors | {itself}


def _is_folder(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir()
    except OSError:
        return False  # a link to itself: listed, and quarantined as missing when it is read


def _size(item: os.DirEntry[str], path: str) -> int:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise LayoutError(f"the file name {path!r} is not UTF-8; rename it") from None
    try:
        return item.stat().st_size
    except OSError:
        return 0  # a dangling link: listed, and quarantined as missing when it is read
