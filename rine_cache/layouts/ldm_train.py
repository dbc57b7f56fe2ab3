"""The latent-diffusion training set of DMimageDetection (arXiv:2211.00680): fakes in folders, reals by lists.

The root holds ``latent_diffusion_trainingset/{train,valid}/<folder>/*``, the fakes, and what the lists of reals beside
these folders name: ``real_coco.txt`` COCO's images of 2014 (in ``train2014`` and ``val2014``) and ``real_lsun.txt``
ProGAN's training reals (in ``{class}/0_real``), wherever below the root these lie; links to them will do. Of several
folders of ProGAN's reals those below a folder named ``..train`` count, and none below one named ``..val`` or
``..test``. Nothing else below the root is of this data set.
"""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING, NamedTuple

from rine_cache.errors import LayoutError
from rine_cache.layouts.entry import FAKE, REAL, Entry, Layout, Part, Stray
from rine_cache.layouts.forensynths import PROGAN_CLASSES
from rine_cache.layouts.named_folders import LABELS, SPLITS, Placing, Unplaced, folded
from rine_cache.layouts.walk import IMAGE_SUFFIXES, files_below, folders_below, own_names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOME = "latentdiffusiontrainingset"
LISTS = {folded("real_coco.txt"): "coco", folded("real_lsun.txt"): "lsun"}
_SPLITS = ("train", "val")
_COCO = ("train2014", "val2014")
_OF_OTHER_SPLITS = ("val", "valid", "validation", "test", "testset")


class _Sources(NamedTuple):
    """Folders below the root: the trees of fakes, COCO's images by their set, ProGAN's reals by their class.

    Where several folders hold a set or a class, all are looked in, in order.
    """

    homes: list[str]
    coco: dict[str, list[str]]
    lsun: dict[str, list[str]]


def find(root: Path) -> Iterator[Entry | Stray]:
    """Yield the fakes, and every real that a list names: one that two lists name is of the training split."""
    sources = _sources(root)
    lists: list[tuple[str, str]] = []
    for home in sources.homes:
        yield from _fakes(root, home, sources, lists)
    seen: set[str] = set()
    for split, path in sorted(lists):
        yield from _reals(root, path, split, sources, seen)


def subsets_at(root: Path) -> set[str]:
    """Return the folders of fakes, and the sources of reals whose images are there."""
    sources = _sources(root)
    if not sources.homes:
        return set()
    last = _last_folders(root)
    places = (_place(_inside(last, path) or []) for path in folders_below(root, _holds_images))
    fakes = {subset for split, subset in places if split in _SPLITS and subset is not None}
    return fakes | ({"coco"} if sources.coco else set()) | ({"lsun"} if sources.lsun else set())


def _sources(root: Path) -> _Sources:
    homes: list[str] = []
    coco: dict[str, list[str]] = {}
    lsun: dict[str, dict[bool, list[str]]] = {}
    last = _last_folders(root)
    for path in folders_below(root, _holds_images):
        names = [folded(name) for name in path.split("/")]
        if _inside(last, path) is not None and not any(f"{path}/".startswith(f"{home}/") or not home for home in homes):
            homes.append(path)
        elif names[-1] in _COCO:
            coco.setdefault(names[-1], []).append(path)
        elif LABELS.get(names[-1]) == REAL and names[-2:-1] and names[-2] in PROGAN_CLASSES:
            above = names[:-2]
            if not any(name.endswith(_OF_OTHER_SPLITS) for name in above):
                of_train = any(name.endswith("train") for name in above)
                lsun.setdefault(names[-2], {}).setdefault(of_train, []).append(path)
    known = any(True in folders for folders in lsun.values())
    return _Sources(homes, coco, {name: folders[known] for name, folders in lsun.items() if known in folders})


def _holds_images(name: str) -> bool:
    return folded(name) in LABELS or folded(name) in _COCO


def _last_folders(root: Path) -> list[str]:
    """Return the end of the root's own path, if the root lies in the tree of fakes, up to three folders deep."""
    return own_names(root, lambda own: [*own[-4:]] if HOME in map(folded, own[-4:]) else [])


def _inside(last: list[str], path: str) -> list[str] | None:
    """Return the folders below the innermost ``latent_diffusion_trainingset``; None if the path is not in one."""
    folders = [*last, *filter(None, path.split("/"))]
    at = max((index for index, name in enumerate(folders) if folded(name) == HOME), default=None)
    return None if at is None else folders[at + 1 :]


def _place(names: list[str]) -> tuple[str | None, str | None]:
    """Return the split and the subset, the first folder below the split's, of folders inside a tree of fakes."""
    at = next((index for index, name in enumerate(names) if folded(name) in SPLITS), None)
    if at is None:
        return None, None
    below = [name for name in names[at + 1 :] if folded(name) not in SPLITS and LABELS.get(folded(name)) != FAKE]
    return SPLITS[folded(names[at])], below[0] if below else None


def _fakes(root: Path, home: str, sources: _Sources, lists: list[tuple[str, str]]) -> Iterator[Entry | Stray]:
    """Yield the images of one tree of fakes, and add its lists of reals to `lists`, with their splits."""
    stores = tuple(f"{folder}/" for kind in (sources.coco, sources.lsun) for found in kind.values() for folder in found)
    last = _last_folders(root)
    folder: str | None = None
    inside: list[str] = []
    placing: Placing | Unplaced = _placing(inside)
    for below, size in files_below(root / home, IMAGE_SUFFIXES | {".txt"}):
        path = f"{home}/{below}" if home else below
        above, _, name = path.rpartition("/")
        if above != folder:
            folder, inside = above, _inside(last, above) or []
            placing = _placing(inside)
        if name.lower().endswith(".txt"):
            split, subset = _place(inside)
            if folded(name) in LISTS and split in _SPLITS and subset is None:
                lists.append((split, path))
        elif not path.startswith(stores):  # what lists name is no fake
            yield Stray(path, *placing) if isinstance(placing, Unplaced) else Entry(path, *placing, None, size)


def _placing(folders: list[str]) -> Placing | Unplaced:
    """Return what folders inside the tree tell of a fake, or why it has no place."""
    split, subset = _place(folders)
    if split is None:
        reason = "under no split's folder (train, valid)"
    elif split not in _SPLITS:
        reason = f"in the split {split}, which this layout does not have"
    elif subset is None:
        reason = "under no generator's folder"
    elif any(LABELS.get(folded(name)) == REAL for name in folders):
        reason = "under a label folder of reals, which this layout takes from lists"
    else:
        return Placing(FAKE, subset, split)
    return Unplaced(reason, subset, split)


def _reals(root: Path, path: str, split: str, sources: _Sources, seen: set[str]) -> Iterator[Entry | Stray]:
    """Yield the images that a list names, a line at a time; `seen` holds the ids listed so far."""
    shown = "/".join(path.split("/")[-2:])
    subset = LISTS[folded(path.rpartition("/")[2])]
    candidates = _of_coco if subset == "coco" else _of_lsun
    for name in _lines(root / path):
        found = ((image, _size(root / image)) for image in candidates(re.split(r"[/\\]", name)[-1], sources))
        image, size = next(((image, size) for image, size in found if size is not None), ("", 0))
        if not image:
            yield Stray(name, f"listed in {shown}, not found", subset, split)
        elif image in seen:
            yield Stray(image, f"listed again in {shown}", subset, split)
        else:
            seen.add(image)
            yield Entry(image, REAL, subset, split, None, size)


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as lines:
            yield from filter(None, map(str.strip, lines))
    except OSError as error:
        raise LayoutError(f"cannot read {path}: {error.strerror}") from None


def _of_coco(name: str, sources: _Sources) -> Iterator[str]:
    own = re.match("COCO_(train2014|val2014)_", name)
    for images, folders in sorted(sources.coco.items()):
        if own is None or own[1] == images:
            yield from (f"{folder}/{name if own else f'COCO_{images}_{name}'}" for folder in folders)


def _of_lsun(name: str, sources: _Sources) -> Iterator[str]:
    of_class, _, file = name.partition("_")
    yield from (f"{folder}/{file}" for folder in sources.lsun.get(of_class, ()))


def _size(path: Path) -> int | None:
    try:
        status = path.stat()
    except (OSError, ValueError):  # a name that no file can have
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


LAYOUT = Layout(
    "the latent-diffusion training set: latent_diffusion_trainingset/{train,valid}, with the reals of its COCO and "
    "LSUN lists below the same root",
    find,
    tuple(Part(REAL, subset, split) for subset in ("coco", "lsun") for split in _SPLITS),
    subsets_at,
)
