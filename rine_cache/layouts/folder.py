"""The generic layout: a label folder at any depth, generator folders above or below it.

``0_real`` and ``1_fake``, ``real`` and ``fake``, ``nature`` and ``ai`` name the labels, whatever their case.
The subset is the outermost folder above the label folder, or else the first one below it, or else the label
itself; folders named train, val, valid, validation or test give the split and are passed over. So
``progan/cat/0_real/1.png`` is subset ``progan``, ``1_fake/glide/1.png`` is ``glide``, and
``val/nature/1.JPEG`` is ``real`` in split ``val``.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from rine_cache.errors import LayoutError
from rine_cache.layouts.entry import FAKE, REAL, Entry

if TYPE_CHECKING:
    from collections.abc import Iterator

LOG = logging.getLogger(__name__)

LABELS = {"0_real": REAL, "real": REAL, "nature": REAL, "1_fake": FAKE, "fake": FAKE, "ai": FAKE}
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
SUFFIXES = frozenset(
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


def entries(root: Path) -> Iterator[Entry]:
    """Yield every image below `root` that lies under a label folder.

    Images under none are counted in a warning, since a data set that silently lost a folder is a wrong result.

    Raises
    ------
    LayoutError
        If no image lies under a label folder, or one lies under folders of both labels.
    """
    labelled = 0
    strays: list[str] = []
    for image_id, size in _image_files(root):
        folders = image_id.split("/")[:-1]
        labels = {LABELS[name.lower()] for name in folders if name.lower() in LABELS}
        if len(labels) == 2:
            raise LayoutError(f"{root / image_id} lies under folders of both labels, real and fake; keep one of them")
        if not labels:
            strays.append(image_id)
            continue
        labelled += 1
        yield Entry(image_id, labels.pop(), _subset(folders), _split(folders), None, size)
    if not labelled:
        found = f"{len(strays)} images, e.g. {strays[0]}, but none under a label folder" if strays else "no images"
        raise LayoutError(f"{root} holds {found}; allowed as label folders: {', '.join(LABELS)}, at any depth")
    if strays:
        LOG.warning("%s: %d images lie under no label folder and are left out, e.g. %s", root, len(strays), strays[0])


def _subset(folders: list[str]) -> str:
    label_at = next(index for index, name in enumerate(folders) if name.lower() in LABELS)
    others = [
        name
        for name in folders[:label_at] + folders[label_at + 1 :]
        if name.lower() not in SPLITS and name.lower() not in LABELS
    ]
    return others[0] if others else ("real", "fake")[LABELS[folders[label_at].lower()]]


def _split(folders: list[str]) -> str | None:
    return next((SPLITS[name.lower()] for name in folders if name.lower() in SPLITS), None)


def _image_files(root: Path) -> Iterator[tuple[str, int]]:
    """Walk below `root`, links followed unless they lead into themselves, hidden files and archive litter passed over.

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
            with os.scandir(folder) as listing:
                items = list(listing)
        except OSError as error:
            raise LayoutError(f"cannot list the folder {folder}: {error.strerror}") from None
        itself = (status.st_dev, status.st_ino)
        if itself not in ancestors:
            for item in items:
                if item.name.startswith(".") or item.name == "__MACOSX":
                    continue
                path = f"{relative}/{item.name}" if relative else item.name
                if _is_folder(item):
                    pending.append((path, ancestors | {itself}))
                elif Path(item.name).suffix.lower() in SUFFIXES:
                    yield path, _size(item, path)


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
