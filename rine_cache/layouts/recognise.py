"""Which layouts a folder, or a table, is in: the question that `rine-cache dataset add` asks.

It is answered from a look, not from a listing: of a layout that reads every image's place from its folders, at most
`IMAGES_A_FOLDER` of each folder's images and `IMAGES` in all, the same ones for all such layouts; of any other, the
first `IMAGES` that it finds. A layout is tried only where names speak for it.
"""

from __future__ import annotations

import os
from itertools import islice
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from rine_cache.errors import LayoutError
from rine_cache.layouts import LAYOUTS
from rine_cache.layouts.entry import Entry, Stray
from rine_cache.layouts.named_folders import TreeLayout
from rine_cache.layouts.table import SUFFIXES as TABLES
from rine_cache.layouts.walk import IMAGE_SUFFIXES, folders_below, is_litter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from rine_cache.layouts.entry import Gap, Layout

IMAGES = 100_000
IMAGES_A_FOLDER = 1_000


class Fit(NamedTuple):
    """How well a layout fits, by the images looked at.

    Attributes
    ----------
    layout
        Its name.
    placed, strays
        How many images it places, and how many lie below the root that it does not.
    parts
        How many of the parts of a whole copy are there, of the layout's `parts`.
    more
        Whether there are images that were not looked at; all numbers are then lower bounds.
    problem
        Why the root cannot be listed in this layout; empty if it can.
    """

    layout: str
    placed: int
    strays: int
    parts: int
    more: bool
    problem: str = ""


class _Look(NamedTuple):
    """Some of the images below a root, with their sizes; the suffixes of all files met; whether there are more."""

    images: list[tuple[str, int]]
    suffixes: set[str]
    more: bool


def recognise(root: Path) -> list[Fit]:
    """Return the layouts that fit a root, best first; none if it holds nothing that any layout places.

    Generators' names occur in many data sets. So a layout stands before the generic folder only if it places half of
    all images, and nine tenths of what that would place or half of the parts of a whole copy; and tells their split
    where its folders are to name one. Of several such, that is first which so places most; then the order in `LAYOUTS`
    decides. Those that cannot list the root at all, though its files are of their kind, come last with their `problem`.

    Raises
    ------
    LayoutError
        If the root is absent.
    """
    if not root.exists():
        raise LayoutError(f"{root} does not exist; give the folder, or the table, that holds the images")
    look = _look(root)
    tried = {name: layout for name, layout in LAYOUTS.items() if _speaks_for(name, layout, root, look)}
    found = [_fit(name, layout, root, look) for name, layout in tried.items()]
    generic = sum(fit.placed for fit, _ in found if fit.layout == "folder")
    found = [(fit, sure) for fit, sure in found if fit.placed or fit.problem]
    ranked = sorted(found, key=lambda item: _rank(item[0], item[1], generic))  # equal ones stay in LAYOUTS' order
    return [fit for fit, _ in ranked]


def _rank(fit: Fit, sure: int, generic: int) -> tuple[float, ...]:
    """Order a fit among others, the smallest first; `generic` is how many images the generic folder places."""
    seen = max(fit.placed + fit.strays, 1)
    nearly_all = 2 * sure >= seen and 10 * sure >= 9 * generic
    half_of_a_whole_copy = 2 * sure >= seen and 2 * fit.parts >= max(len(LAYOUTS[fit.layout].parts), 1)
    if fit.problem:
        group = 3
    elif fit.layout == "folder":
        group = 1
    else:
        group = 0 if nearly_all or half_of_a_whole_copy else 2
    return group, -sure / seen, -fit.placed / seen


def _speaks_for(name: str, layout: Layout, root: Path, look: _Look) -> bool:
    if root.is_file():
        return name == "table" and root.suffix.lower() in TABLES
    if layout.suffixes:
        return bool(layout.suffixes & look.suffixes)
    if isinstance(layout, TreeLayout):
        return bool(layout.subsets_named(root))
    return name != "table" and (layout.subsets_at is None or bool(layout.subsets_at(root)))


def _fit(name: str, layout: Layout, root: Path, look: _Look) -> tuple[Fit, int]:
    """Return how a layout fits, and how many images it places for sure: in a split, if its folders name those."""
    loose = len(look.images) if layout.suffixes else 0  # images that a layout of containers cannot see
    found: dict[tuple[int, str, str | None], int] = {}
    strays = 0
    try:
        items: Iterable[Entry | Stray | Gap]
        items = layout.place(root, look.images) if isinstance(layout, TreeLayout) else islice(layout.find(root), IMAGES)
        for item in items:
            if isinstance(item, Entry):
                place = (item.label, item.subset, item.split)
                found[place] = found.get(place, 0) + 1
            else:
                strays += isinstance(item, Stray)
    except LayoutError as error:
        return Fit(name, 0, 0, 0, more=False, problem=str(error)), 0
    placed = sum(found.values())
    of_folders = isinstance(layout, TreeLayout)
    sure = sum(count for (_, _, split), count in found.items() if split or not of_folders)
    more = look.more if of_folders else placed + strays >= IMAGES
    return Fit(name, placed, strays + loose, _parts_there(layout, set(found)), more), sure


def _parts_there(layout: Layout, found: set[tuple[int, str, str | None]]) -> int:
    anywhere = {(label, subset) for label, subset, _ in found}
    return sum(part in found or (part.split is None and (part.label, part.subset) in anywhere) for part in layout.parts)


def _look(root: Path) -> _Look:
    images: list[tuple[str, int]] = []
    suffixes: set[str] = set()
    more = False
    for folder in folders_below(root) if root.is_dir() else ():
        before = len(images)
        for item in _items(root / folder):
            suffix = PurePosixPath(item.name).suffix.lower()
            suffixes.add(suffix)
            if suffix not in IMAGE_SUFFIXES or is_litter(item.name) or item.is_dir():
                continue
            if len(images) - before == IMAGES_A_FOLDER or len(images) == IMAGES:
                more = True
                break
            images.append((f"{folder}/{item.name}" if folder else item.name, _size(item)))
    return _Look(images, suffixes, more)


def _items(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as listing:
            yield from listing
    except OSError as error:
        raise LayoutError(f"cannot list the folder {folder}: {error.strerror}") from None


def _size(item: os.DirEntry[str]) -> int:
    try:
        return item.stat().st_size
    except OSError:
        return 0
