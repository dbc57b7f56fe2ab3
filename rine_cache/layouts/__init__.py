"""Layouts: how label, subset and split are read from the way images lie on disk.

Each layout is one small module with a function ``entries(root) -> Iterator[Entry]``; `list_images` picks it
by name, sorts what it yields, and adds the groups.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rine_cache.errors import LayoutError
from rine_cache.layouts import folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rine_cache.layouts.entry import Entry

LAYOUTS: dict[str, Callable[[Path], Iterator[Entry]]] = {"folder": folder.entries}


def list_images(root: Path, layout: str, group_pattern: str = "") -> list[Entry]:
    """List a data set's images by a layout, sorted by image id.

    Parameters
    ----------
    root
        Folder of the data set.
    layout
        Name of a layout.
    group_pattern
        Regular expression on file names whose first group names an image's group; see
        `rine_cache.specs.data.DatasetSpec`. Empty for none.

    Raises
    ------
    LayoutError
        If the folder is absent, or holds no image in this layout.
    """
    if not root.is_dir():
        raise LayoutError(f"{root} is not a folder; set the data set's root to where its images lie")
    found = sorted(LAYOUTS[layout](root), key=lambda entry: entry.image_id)
    if not group_pattern:
        return found
    pattern = re.compile(group_pattern)
    return [entry._replace(group=_group(entry.image_id, pattern)) for entry in found]


def _group(image_id: str, pattern: re.Pattern[str]) -> str | None:
    match = pattern.search(image_id.rpartition("/")[2])
    return match[1] if match else None
