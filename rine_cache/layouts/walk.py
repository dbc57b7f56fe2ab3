"""Walking below a folder: every file of some kind, with its size, in bounded memory."""

from __future__ import annotations

import os
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from rine_cache.errors import LayoutError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

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


def files_below(root: Path, suffixes: Collection[str] = IMAGE_SUFFIXES) -> Iterator[tuple[str, int]]:
    """Yield the path below `root` and the size in bytes of every file with one of the suffixes, whatever their case.

    Links are followed unless they lead into themselves, hidden files and archive litter passed over.

    Raises
    ------
    LayoutError
        If a folder cannot be listed, or a file's name is not UTF-8.
    """
    pending: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while pending:
        relative, ancestors = pending.pop()
        folder = root / relative
        try:
            status = folder.stat()
            itself = (status.st_dev, status.st_ino)
            if itself in ancestors:
                continue
            with os.scandir(folder) as listing:  # item by item: a folder may hold a million
                for item in listing:
                    if item.name.startswith(".") or item.name == "__MACOSX":
                        continue
                    path = f"{relative}/{item.name}" if relative else item.name
                    if _is_folder(item):
                        pending.append((path, ancestors | {itself}))
                    elif PurePosixPath(item.name).suffix.lower() in suffixes:
                        yield path, _size(item, path)
        except OSError as error:
            raise LayoutError(f"cannot list the folder {folder}: {error.strerror}") from None


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
