"""OpenSDID, as the Hugging Face hub has it: Parquet files ``sd15-00000-of-00070.parquet``, read where they lie.

The subset stands in a file's name, the split in a folder's (``OpenSDI_train``, ``test``). Of the columns ``key``,
``image``, ``mask`` and ``label`` only the first and last are read for the listing, and the mask never. A fake whose key
begins with ``partial/`` is a local edit, any other a global one. Rows are sorted by label: a file's first rows are
of one class.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from rine_cache.containers import BrokenFileError
from rine_cache.errors import LayoutError
from rine_cache.layouts.entry import FAKE, REAL, Entry, Gap, Layout, Part, Stray
from rine_cache.layouts.folder import LABELS, SPLITS
from rine_cache.layouts.shards import PARQUET, lost_shards, parquet_file, rows_of
from rine_cache.layouts.walk import files_below, folders_below, items_in, own_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

LOG = logging.getLogger(__name__)

SUBSETS = ("sd15", "sd2", "sdxl", "sd3", "flux")
_NAME = re.compile(rf"({'|'.join(SUBSETS)})-\d{{5}}-of-\d{{5}}\.parquet")
_PARTS = tuple(
    Part(label, subset, split)
    for split, subsets in (("train", SUBSETS[:1]), ("test", SUBSETS))
    for subset in subsets
    for label in (REAL, FAKE)
)


def find(root: Path) -> Iterator[Entry | Stray | Gap]:
    """Yield every row of every file below `root`, and a gap for each file that is lost, or whose download is not whole.

    Raises
    ------
    LayoutError
        If a file's columns or labels are others than OpenSDID's.
    """
    shards = []
    for path, size in sorted(files_below(root, PARQUET)):
        if _subset(path):
            shards.append(path)
            try:
                yield from _rows(root, path, size)
            except BrokenFileError as error:
                LOG.warning("%s; its images are left out", error)
                yield Gap(path, _subset(path), _split(root, path))
        else:
            reason = f"no name such as sd15-00000-of-00070.parquet ({', '.join(SUBSETS)})"
            yield Stray(path, reason, split=_split(root, path))
    for path in lost_shards(shards):
        yield Gap(path, _subset(path), _split(root, path))


def _rows(root: Path, path: str, size: int) -> Iterator[Entry | Stray]:
    subset, split = _subset(path), _split(root, path)
    assert subset is not None, "named by the caller"
    with parquet_file(root / path) as file:
        absent = {"key", "image", "label"} - set(file.schema_arrow.names)
        if absent:
            raise LayoutError(
                f"{root / path} lacks the columns {', '.join(sorted(absent))} of OpenSDID (columns: "
                f"{', '.join(file.schema_arrow.names)}); fetch it again, or use the layout 'parquet'"
            )
        for row, values in rows_of(file, ["key", "label"]):
            key, label = values["key"], values["label"]
            image_id = f"{path}/{row:07d}/{key}"
            if label is None or key is None:
                yield Stray(image_id, "row without a label or a key", subset, split)
                continue
            if label not in (REAL, FAKE):
                raise LayoutError(f"{root / path}, row {row}: label {label!r}; allowed: 0 (real), 1 (fake)")
            variant = _variant(key) if label == FAKE else None
            yield Entry(image_id, int(label), subset, split, None, size, variant, path, row)


def subsets_at(root: Path) -> set[str]:
    """Name the subsets whose files lie below `root`, in none of the folders that other data sets have for images."""
    folders = folders_below(root, lambda name: name.lower() in LABELS)
    return {subset for folder in folders for item in items_in(root / folder) if (subset := _subset(item.name))}


def _subset(path: str) -> str | None:
    match = _NAME.fullmatch(path.rpartition("/")[2])
    return match[1] if match else None


def _split(root: Path, path: str) -> str | None:
    """Read the split from the innermost folder whose name is one or ends in one, the root's own included."""
    splits = [*own_names(root, lambda own: _splits(own[-1:])), *_splits(path.split("/")[:-1])]
    return splits[-1] if splits else None


def _splits(folders: Iterable[str]) -> list[str]:
    endings = [re.split(r"[_-]", name)[-1].lower() for name in folders]
    return [SPLITS[ending] for ending in endings if ending in SPLITS]


def _variant(key: str) -> str:
    return "partial" if key.startswith("partial/") else "global"


LAYOUT = Layout(
    "OpenSDID's Parquet files, <subset>-NNNNN-of-NNNNN.parquet, at any depth",
    find,
    _PARTS,
    subsets_at,
    PARQUET,
)
