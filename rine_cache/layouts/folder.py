"""The generic layout: a label folder at any depth, generator folders above or below it.

``0_real`` and ``1_fake``, ``real`` and ``fake``, ``nature`` and ``ai`` name the labels, whatever their case.
The subset is the outermost folder above the label folder, or else the first one below it, or else the label
itself; folders named train, val, valid, validation or test give the split and are passed over. So
``progan/cat/0_real/1.png`` is subset ``progan``, ``1_fake/glide/1.png`` is ``glide``, and
``val/nature/1.JPEG`` is ``real`` in split ``val``. A folder of one class needs no label folders where the data set
says its label: the subset is then the outermost folder, or the label.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rine_cache.errors import LayoutError
from rine_cache.layouts.entry import FAKE, LABEL_NAMES, REAL, Entry, Layout, Stray
from rine_cache.layouts.walk import files_below

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LABELS = {"0_real": REAL, "real": REAL, "nature": REAL, "1_fake": FAKE, "fake": FAKE, "ai": FAKE}
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def find(root: Path, label: int | None = None) -> Iterator[Entry | Stray]:
    """Yield every image below `root`: an entry where its label is known, else a stray.

    Parameters
    ----------
    root
        Folder of the data set.
    label
        The label of every image, where no folder says it.

    Raises
    ------
    LayoutError
        If an image lies under folders of both labels, or under one that contradicts `label`.
    """
    for path, size in files_below(root):
        folders = path.split("/")[:-1]
        labels = {LABELS[name.lower()] for name in folders if name.lower() in LABELS}
        labels |= {label} if label is not None else set()
        if len(labels) == 2:
            raise LayoutError(f"{root / path} lies under folders of both labels, real and fake; keep one of them")
        if labels:
            yield Entry(path, labels.pop(), subset_of(folders, label), split_of_folders(folders), None, size)
        else:
            yield Stray(path, f"under no label folder ({', '.join(LABELS)})", split=split_of_folders(folders))


def subset_of(folders: list[str], label: int | None) -> str:
    """Read the subset from the folders of an image whose label they say, or else `label` does."""
    at = [index for index, name in enumerate(folders) if name.lower() in LABELS]
    above, below = (folders[: at[0]], folders[at[0] + 1 :]) if at else (folders, [])
    others = [name for name in above + below if name.lower() not in SPLITS and name.lower() not in LABELS]
    known = LABELS[folders[at[0]].lower()] if at else label
    assert known is not None, "an entry has a label"
    return others[0] if others else LABEL_NAMES[known]


def split_of_folders(folders: list[str]) -> str | None:
    """Read the split from the folders of an image, if one names it."""
    return next((SPLITS[name.lower()] for name in folders if name.lower() in SPLITS), None)


LAYOUT = Layout("any folder with label folders (0_real|1_fake, real|fake, nature|ai) at any depth", find)
