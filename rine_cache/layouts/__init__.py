"""Layouts: how label, subset and split are read from the way images lie on disk.

Each layout is one small module with a `LAYOUT`; `list_images` picks it by name, keeps what the data set asks for,
sorts, and says what has no place and what is missing.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rine_cache.errors import LayoutError
from rine_cache.layouts import (
    aigcdetectbenchmark,
    chameleon,
    folder,
    forensynths,
    genimage,
    ldm_train,
    opensdid,
    parquet,
    synthbuster,
    table,
    ufd_diffusion,
    webdataset,
)
from rine_cache.layouts.entry import LABEL_NAMES, Entry, Gap, Part, Stray
from rine_cache.manifest import as_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

    from rine_cache.layouts.entry import Layout
    from rine_cache.specs.data import DatasetSpec

# By name, the most specific first: where several fit a folder, the first one is meant.
LAYOUTS: dict[str, Layout] = {
    "forensynths-train": forensynths.TRAIN,
    "forensynths-test": forensynths.TEST,
    "ufd-diffusion": ufd_diffusion.LAYOUT,
    "genimage": genimage.LAYOUT,
    "chameleon": chameleon.LAYOUT,
    "opensdid": opensdid.LAYOUT,
    "synthbuster": synthbuster.LAYOUT,
    "ldm-train": ldm_train.LAYOUT,
    "aigcdetectbenchmark": aigcdetectbenchmark.LAYOUT,
    "folder": folder.LAYOUT,
    "table": table.LAYOUT,
    "webdataset": webdataset.LAYOUT,
    "parquet": parquet.LAYOUT,
}


class Strays(NamedTuple):
    """How many images a layout could not place for one reason, and the first of them by name."""

    images: int
    example: str


class Listing(NamedTuple):
    """What a data set's root holds.

    `table` has the manifest's columns, one row per image, in the manifest's order; `strays` by reason what has no
    place in the layout, and is left out; `missing` what a whole copy would hold as well, of the subsets and splits
    that the data set asks for; `lost_files` the paths of files that are not there though others' names tell of them, or
    that are not whole.
    """

    table: pl.DataFrame
    root: Path
    strays: dict[str, Strays]
    missing: list[Part]
    lost_files: list[str]


def list_images(spec: DatasetSpec) -> Listing:
    """List a data set's images by its layout.

    Images that are files of their own come in order of their ids, then those inside other files in the order in which
    they lie there, so that such a file is read from front to back.

    Raises
    ------
    LayoutError
        If the root is absent or holds no image in this layout.
    """
    root = Path(spec.root)
    if not root.exists():
        raise LayoutError(f"{root} does not exist; set the data set's root to where its images lie")
    layout = LAYOUTS[spec.layout]
    find = partial(folder.find, label=LABEL_NAMES.index(spec.label)) if spec.label else layout.find
    sieve = _Sieve(spec)
    table = as_table(sieve.entries(find(root)))
    wanted = [part for part in layout.parts if _wants(spec, part.subset, part.split)]
    if table.is_empty():
        raise LayoutError(_nothing_found(spec, sieve.strays))
    table = table.sort("container", "position", "image_id", nulls_last=False)
    folder_of_ids = root if root.is_dir() else root.parent
    return Listing(table, folder_of_ids, dict(sorted(sieve.strays.items())), _absent(wanted, table), sorted(sieve.lost))


class _Sieve:
    """Keeps of what a layout finds what the data set asks for: the entries, the strays counted, the files lost."""

    def __init__(self, spec: DatasetSpec) -> None:
        self.strays: dict[str, Strays] = {}
        self.lost: list[str] = []
        self._spec = spec
        self._pattern = re.compile(spec.group_pattern) if spec.group_pattern else None

    def entries(self, found: Iterator[Entry | Stray | Gap]) -> Iterator[Entry]:
        """Yield the entries, with their groups; `strays` and `lost` are whole once all is found."""
        for item in found:
            if not _wants(self._spec, item.subset, item.split):
                continue
            if isinstance(item, Gap):
                self.lost.append(item.path)
            elif isinstance(item, Stray):
                self._count(item.path, item.reason)
            elif self._spec.splits and item.split is None:
                self._count(item.image_id, "of no named split, though splits are asked for")
            else:
                yield item._replace(group=self._group(item.image_id)) if self._pattern else item

    def _count(self, path: str, reason: str) -> None:
        earlier = self.strays.get(reason, Strays(0, path))
        self.strays[reason] = Strays(earlier.images + 1, min(earlier.example, path))

    def _group(self, image_id: str) -> str | None:
        match = self._pattern.search(image_id.rpartition("/")[2]) if self._pattern else None
        return match[1] if match else None


def _wants(spec: DatasetSpec, subset: str | None, split: str | None) -> bool:
    """Tell whether a data set asks for what is of a subset and a split; null is not known, and may be any."""
    return all(
        not asked or name is None or name in asked for name, asked in ((subset, spec.subsets), (split, spec.splits))
    )


def _absent(wanted: list[Part], table: pl.DataFrame) -> list[Part]:
    found = set(table.select("label", "subset", "split").unique().iter_rows())
    undivided = {(label, subset) for label, subset, split in found if split is None}  # of whichever split is wanted
    found |= {(label, subset, None) for label, subset, _ in found}  # a part of no named split may be in any
    return [part for part in wanted if part not in found and (part.label, part.subset) not in undivided]


def _nothing_found(spec: DatasetSpec, strays: dict[str, Strays]) -> str:
    kept = " and ".join(
        f"{what} {', '.join(names)}" for what, names in (("subsets", spec.subsets), ("splits", spec.splits)) if names
    )
    text = f"{spec.root} holds no image in the layout {spec.layout!r}{f' of {kept}' if kept else ''}"
    left = [f"{found.images} {reason}, e.g. {found.example}" for reason, found in strays.items()]
    return (
        f"{text} ({LAYOUTS[spec.layout].about})"
        + (f"; found {'; '.join(left)}" if left else "; found none at all")
        + f"; allowed layouts: {', '.join(LAYOUTS)}"
    )
