"""What the published folder trees have in common: folders whose names tell subset, split and label.

Names are compared without case, spaces, dots, dashes and underscores. Of an image's path, the folders above its label
folder name the subset and the split; folders that name neither are wrappers and passed over. What the path below the
root leaves open, the end of the root's own path may tell: its last folders, up to the first that names nothing. So a
root ``genimage/val`` tells the split and ``/home/test/GenImage`` tells nothing. A subset is taken from there only where
nothing but splits and classes lies between the root and the label folder: below a root ``midjourney``, the folder
``sd_xl`` is not Midjourney's.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from rine_cache.layouts import folder as generic
from rine_cache.layouts.entry import FAKE, REAL, Entry, Layout, Part, Stray
from rine_cache.layouts.walk import files_below

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    # Makes entries and strays of a root's images: of their paths below it and sizes in bytes.
    Place = Callable[[Path, Iterable[tuple[str, int]]], Iterator[Entry | Stray]]

# Bounds of a look at folders' names. Published trees have at most 7 folders above an image, wrappers included.
DEPTH = 9
MOST_FOLDERS = 5_000
MOST_ITEMS = 10_000  # a folder that holds more is one of images


def folded(name: str) -> str:
    """Return a folder's name without what copies of a data set change: case, spaces, dots, dashes, underscores."""
    return re.sub(r"[\s._-]+", "", name).lower()


LABELS = {folded(name): label for name, label in generic.LABELS.items()}
SPLITS = generic.SPLITS


def named(folders: Mapping[str, Iterable[str]]) -> Callable[[str], str | None]:
    """Return a look-up by folded name of subsets that are given with the other names of their folders."""
    return {folded(name): subset for subset, others in folders.items() for name in (subset, *others)}.get


def both_classes(subsets: Iterable[str], splits: Iterable[str]) -> tuple[Part, ...]:
    """Return the parts of a copy that holds real and fake images of every subset in every split."""
    return tuple(Part(label, subset, split) for subset in subsets for split in splits for label in (REAL, FAKE))


class Placing(NamedTuple):
    """What its folders tell of an image."""

    label: int
    subset: str
    split: str | None


class _Names(NamedTuple):
    """The names of folders at one root.

    `own` holds the folded names at the end of the root's own path that count, `holding` the folders that hold images,
    and `beside` those that hold folders of subsets right above label folders.
    """

    own: list[str]
    holding: list[list[str]]
    beside: set[str]


@dataclass(frozen=True)
class NamedFolders:
    """How one data set's folders are read.

    Attributes
    ----------
    subset_named
        The subset that a folder is of, given its folded name; None if it names none.
    splits
        The splits of the data set. Where it has one, every image is of that; where it has several and no folder names
        one, the split stays null.
    label_of
        The label of the subsets that have one class only.
    label_folders
        Whether the tree has label folders, as all but Synthbuster do. Without them, `label_of` names every subset.
    real_subset
        The subset of the real images in a subset's folder, where that is not the same.
    classes
        Folded names of the class folders that may lie between a subset's folder and the label folder.
    is_class_train
        ProGAN has a class named ``train``. Given the folded names of the folders above, outermost first: whether a
        folder of that name right above a label folder is the class. It is, too, where it lies beside a subset's folder
        that is right above a label folder; otherwise it is the split.
    split_names
        The splits by folded folder names.
    passed
        Folded names passed over at the end of the root's own path.
    sole
        The subset of every image, unless a folder below the root is named after it.
    """

    subset_named: Callable[[str], str | None]
    splits: tuple[str, ...]
    label_of: Mapping[str, int] = field(default_factory=dict)
    label_folders: bool = True
    real_subset: Mapping[str, str] = field(default_factory=dict)
    classes: Collection[str] = frozenset()
    is_class_train: Callable[[list[str]], bool] = lambda above: False  # noqa: ARG005
    split_names: Mapping[str, str] = field(default_factory=lambda: generic.SPLITS)
    passed: Collection[str] = frozenset()
    sole: str | None = None

    def place(self, root: Path, files: Iterable[tuple[str, int]]) -> Iterator[Entry | Stray]:
        """Yield an entry or a stray for each image below the root, given with its path there and its size in bytes."""
        names = self._names_at(root)
        homes = [folders for folders, _ in self._placed(names)]
        wrappers = {"/".join(folders[:depth]) for folders in homes for depth in range(len(folders) + 1)}
        sole = None if homes else self.sole
        folder: str | None = None
        placing: Placing | str = ""
        for path, size in files:
            above = path.rpartition("/")[0]
            if above != folder:
                folder, folders = above, above.split("/") if above else []
                placing = self._placing(folders, names, sole) or self._unexpected(folders, wrappers)
            yield Stray(path, placing) if isinstance(placing, str) else Entry(path, *placing, None, size)

    def subsets_named(self, root: Path) -> set[str]:
        """Return the subsets that the names of folders tell, at the root or below it."""
        return {placing.subset for _, placing in self._placed(self._names_at(root))}

    def subsets_at(self, root: Path) -> set[str]:
        """Return the subsets that the root seems to hold, from the names of folders alone."""
        names = self._names_at(root)
        placed = list(self._placed(names)) or self._placed(names, self.sole)
        return {placing.subset for _, placing in placed}

    def _names_at(self, root: Path) -> _Names:
        holding = [path.split("/") if path else [] for path in folders_below(root, self._holds_images)]
        holding = [folders for folders in holding if not folders or self._holds_images(folders[-1])]
        beside = {"/".join(folders[:-2]) for folders in holding if self._is_subset(folders[-2:-1])}
        own = [folded(part) for part in root.resolve().parts]
        start = len(own)
        while start and (
            own[start - 1] in self.passed
            or own[start - 1] in self.split_names
            or self._is_subset(own[start - 1 : start])
        ):
            start -= 1
        return _Names(own[start:], holding, beside)

    def _holds_images(self, name: str) -> bool:
        return folded(name) in LABELS if self.label_folders else self._is_subset([name])

    def _is_subset(self, names: list[str]) -> bool:
        return any(folded(name) != "train" and self.subset_named(folded(name)) is not None for name in names)

    def _placed(self, names: _Names, sole: str | None = None) -> Iterator[tuple[list[str], Placing]]:
        """Yield the folders that hold images of a known place: label folders or, where there are none, subsets'."""
        for folders in names.holding:
            placing = self._placing(folders, names, sole)
            if isinstance(placing, Placing):
                yield folders, placing

    def _placing(self, folders: list[str], names: _Names, sole: str | None) -> Placing | str:
        """Return what folders below the root tell, or why that is not enough; an empty text if they name no subset."""
        tokens = [folded(folder) for folder in folders]
        at = next((at for at, name in enumerate(tokens) if self.label_folders and name in LABELS), len(tokens))
        labels = {LABELS[name] for name in tokens if name in LABELS}
        above, path = tokens[:at], names.own + tokens[:at]
        in_class_train = (
            bool(labels)
            and path[-1:] == ["train"]
            and (self.is_class_train(path[:-1]) or (at > 0 and "/".join(folders[: at - 1]) in names.beside))
        )
        subsets, splits = self._told(above, in_class_train)
        own_subsets, own_splits = self._told(names.own, in_class_train and not above)
        if not subsets and all(name in self.split_names or name in self.classes for name in above):
            subsets = own_subsets[-1:]
        subset = subsets[0] if subsets else sole
        splits = splits or own_splits[-1:]
        if len(labels) == 2:
            return "under folders of both labels, real and fake"
        if len(set(subsets)) > 1:
            return f"under folders of several subsets: {', '.join(sorted(set(subsets)))}"
        if subset is None:
            return ""
        if self.label_folders and not labels:
            return f"under no label folder ({', '.join(generic.LABELS)})"
        if len(set(splits)) > 1:
            return f"under folders of several splits: {', '.join(sorted(set(splits)))}"
        if splits and splits[0] not in self.splits:
            return f"in the split {splits[0]}, which this layout does not have"
        if labels == {REAL}:
            subset = self.real_subset.get(subset, subset)
        labels |= {self.label_of[subset]} if subset in self.label_of else set()
        if len(labels) == 2:
            return f"under a label folder that {subset} does not have"
        split = splits[0] if splits else None
        return Placing(labels.pop(), subset, self.splits[0] if len(self.splits) == 1 else split)

    def _told(self, names: list[str], last_is_class: bool) -> tuple[list[str], list[str]]:
        """Return the subsets and the splits that folders name, outermost first; ``train`` may be a class at the end."""
        classes = names[-1:] if last_is_class else []
        others = names[: len(names) - len(classes)]
        candidates = [name for name in others if name not in self.split_names] + classes
        subsets = [subset for name in candidates if (subset := self.subset_named(name)) is not None]
        return subsets, [self.split_names[name] for name in others if name in self.split_names]

    def _unexpected(self, folders: list[str], wrappers: Collection[str]) -> str:
        """Name the outermost folder that is no wrapper around images of a known place."""
        for depth, name in enumerate(folders):
            if folded(name) in LABELS:
                break
            if folded(name) not in self.split_names and "/".join(folders[: depth + 1]) not in wrappers:
                return f"in the unexpected folder {name}"
        return "under no subset's folder"


def folders_below(root: Path, holds_images: Callable[[str], bool]) -> Iterator[str]:
    """Yield the paths of folders below a root, its own ("") first, a level at a time and sorted.

    Not those below a folder whose name says that it holds images, nor below a link into itself, nor more than `DEPTH`
    levels or `MOST_FOLDERS`; a folder of more than `MOST_ITEMS` items, or one that cannot be listed, is taken to have
    none.
    """
    level: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    remaining = MOST_FOLDERS
    for _ in range(DEPTH):
        below = []
        for path, ancestors in sorted(level, key=itemgetter(0))[:remaining]:
            try:
                status = (root / path).stat()
            except OSError:
                continue
            itself = (status.st_dev, status.st_ino)
            if itself in ancestors:
                continue
            remaining -= 1
            yield path
            if not (path and holds_images(path.rpartition("/")[2])):
                names = _folders_in(root / path)
                below += [(f"{path}/{name}" if path else name, ancestors | {itself}) for name in names]
        level = below


def _folders_in(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as listing:
            items = list(islice(listing, MOST_ITEMS + 1))
            names = [item.name for item in items if item.is_dir()]
    except OSError:
        return []
    if len(items) > MOST_ITEMS:
        return []
    return [name for name in names if not name.startswith(".") and name != "__MACOSX"]


@dataclass(frozen=True, kw_only=True)
class TreeLayout(Layout):
    """A layout that reads every image's place from its folders, so that a few images tell whether it fits.

    Attributes
    ----------
    place
        Like `NamedFolders.place`, of any of the images below a root.
    subsets_named
        Like `NamedFolders.subsets_named`.
    """

    place: Place
    subsets_named: Callable[[Path], set[str]]


def tree_layout(
    about: str,
    tree: NamedFolders,
    parts: tuple[Part, ...],
    place: Place | None = None,
) -> TreeLayout:
    """Return the layout of a tree, with a placing of its own where its folders do not tell all."""
    placed = place or tree.place
    return TreeLayout(
        about,
        lambda root: placed(root, files_below(root)),
        parts,
        tree.subsets_at,
        place=placed,
        subsets_named=tree.subsets_named,
    )
