"""What the published folder trees have in common: folders whose names tell subset, split and label.

Names are compared without case, spaces, dots, dashes and underscores. Of an image's path, the folders above its label
folder name the subset and the split; folders that name neither are wrappers and passed over. What the path below the
root leaves open, the end of the root's own path may tell: its last folders, up to the first that names nothing. So a
root ``genimage/val`` tells the split and ``/home/test/GenImage`` tells nothing. A subset is taken from there only where
nothing but splits and classes lies between the root and the label folder: below a root ``midjourney``, the folder
``sd_xl`` is not Midjourney's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from rine_cache.layouts import folder as generic
from rine_cache.layouts.entry import FAKE, REAL, Entry, Layout, Part, Stray
from rine_cache.layouts.walk import files_below, folders_below, own_names

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    # Makes entries and strays of a root's images: of their paths below it and sizes in bytes.
    Place = Callable[[Path, Iterable[tuple[str, int]]], Iterator[Entry | Stray]]

_NO_SUBSET = "under no subset's folder"


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


class Unplaced(NamedTuple):
    """Why its folders do not place an image, and the subset and the split that they tell all the same."""

    reason: str
    subset: str | None
    split: str | None


class _Told(NamedTuple):
    """All labels, subsets and splits that the folders above an image name."""

    labels: set[int]
    subsets: list[str]
    splits: list[str]


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
        placing: Placing | Unplaced = Unplaced(_NO_SUBSET, None, None)
        for path, size in files:
            above = path.rpartition("/")[0]
            if above != folder:
                folder, folders = above, above.split("/") if above else []
                placing = self._placing(folders, names, sole)
                if isinstance(placing, Unplaced) and placing.reason == _NO_SUBSET:
                    placing = placing._replace(reason=self._unexpected(folders, wrappers))
            yield Stray(path, *placing) if isinstance(placing, Unplaced) else Entry(path, *placing, None, size)

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
        return _Names(own_names(root, self._counting), holding, beside)

    def _counting(self, path: Iterable[str]) -> list[str]:
        """Return the names at the end of a path that name subsets or splits, or are passed over."""
        names = [folded(part) for part in path]
        start = len(names)
        while start and (
            names[start - 1] in self.passed
            or names[start - 1] in self.split_names
            or self._is_subset(names[start - 1 : start])
        ):
            start -= 1
        return names[start:]

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

    def _placing(self, folders: list[str], names: _Names, sole: str | None) -> Placing | Unplaced:
        """Return what folders below the root tell, or why that is not enough."""
        told = self._told(folders, names, sole)
        subset = told.subsets[0] if len(told.subsets) == 1 else None
        if subset is not None and told.labels == {REAL}:
            subset = self.real_subset.get(subset, subset)
        labels = told.labels | {label for name, label in self.label_of.items() if name == subset}
        split = told.splits[0] if len(told.splits) == 1 else None
        problem = self._problem(told)
        if not problem and len(labels) == 2:
            problem = f"under a label folder that {subset} does not have"
        if problem or subset is None:
            return Unplaced(problem, subset, split)
        return Placing(labels.pop(), subset, self.splits[0] if len(self.splits) == 1 else split)

    def _told(self, folders: list[str], names: _Names, sole: str | None) -> _Told:
        """Read the folders above an image; what those below the root leave open, from the root's own."""
        tokens = [folded(folder) for folder in folders]
        at = next((at for at, name in enumerate(tokens) if self.label_folders and name in LABELS), len(tokens))
        labels = {LABELS[name] for name in tokens if name in LABELS}
        above = tokens[:at]
        in_class_train = bool(labels) and self._is_in_class_train(folders[:at], names)
        subsets, splits = self._named(above, in_class_train)
        own_subsets, own_splits = self._named(names.own, in_class_train and not above)
        if not subsets and all(name in self.split_names or name in self.classes for name in above):
            subsets = own_subsets[-1:]
        if not subsets and sole is not None:
            subsets = [sole]
        return _Told(labels, sorted(set(subsets)), sorted(set(splits)) or own_splits[-1:])

    def _is_in_class_train(self, above: list[str], names: _Names) -> bool:
        """Tell whether a label folder lies in ProGAN's class ``train``, of the folders above it below the root."""
        path = [*names.own, *map(folded, above)]
        beside_a_subset = bool(above) and "/".join(above[:-1]) in names.beside
        return path[-1:] == ["train"] and (self.is_class_train(path[:-1]) or beside_a_subset)

    def _named(self, names: list[str], last_is_class: bool) -> tuple[list[str], list[str]]:
        """Return the subsets and the splits that folders name, outermost first; ``train`` may be a class at the end."""
        classes = names[-1:] if last_is_class else []
        others = names[: len(names) - len(classes)]
        candidates = [name for name in others if name not in self.split_names] + classes
        subsets = [subset for name in candidates if (subset := self.subset_named(name)) is not None]
        return subsets, [self.split_names[name] for name in others if name in self.split_names]

    def _problem(self, told: _Told) -> str:
        """Say where folders contradict each other, or what they lack, or the data set does; empty if nothing."""
        if len(told.labels) == 2:
            return "under folders of both labels, real and fake"
        if len(told.subsets) > 1:
            return f"under folders of several subsets: {', '.join(told.subsets)}"
        if not told.subsets:
            return _NO_SUBSET
        if self.label_folders and not told.labels:
            return f"under no label folder ({', '.join(generic.LABELS)})"
        if len(told.splits) > 1:
            return f"under folders of several splits: {', '.join(told.splits)}"
        if told.splits and told.splits[0] not in self.splits:
            return f"in the split {told.splits[0]}, which this layout does not have"
        return ""

    def _unexpected(self, folders: list[str], wrappers: Collection[str]) -> str:
        """Name the outermost folder that is no wrapper around images of a known place."""
        for depth, name in enumerate(folders):
            if folded(name) in LABELS:
                break
            if folded(name) not in self.split_names and "/".join(folders[: depth + 1]) not in wrappers:
                return f"in the unexpected folder {name}"
        return _NO_SUBSET


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
