"""Any folder of Parquet files that hold images' bytes and their labels, a row an image.

`rine_cache.containers.image_column` finds the images, `rine_cache.layouts.columns` the label and what else a row says.
Without a column of subsets, the subset is the outermost folder that names neither split nor label (``data``, as the
Hugging Face hub has it, is passed over), or else the label; without one of splits, a file's name may begin with it.
"""

from __future__ import annotations

import logging
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from rine_cache.containers import BrokenFileError, image_column
from rine_cache.layouts.columns import COLUMNS, class_names, columns_of, read_traits, require
from rine_cache.layouts.entry import Entry, Gap, Layout, Stray
from rine_cache.layouts.folder import subset_of
from rine_cache.layouts.shards import PARQUET, lost_shards, parquet_file, rows_of, split_of
from rine_cache.layouts.walk import files_below

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOG = logging.getLogger(__name__)


def find(root: Path) -> Iterator[Entry | Stray | Gap]:
    """Yield every row of every Parquet file below `root`, and a gap for each that is lost, or not whole.

    Raises
    ------
    LayoutError
        If a file has no column of images or of labels, or a label is no known word.
    """
    files = sorted(files_below(root, PARQUET))
    for path, size in files:
        try:
            yield from _rows(root, path, size)
        except BrokenFileError as error:
            LOG.warning("%s; its images are left out", error)
            yield Gap(path, None, split_of(path))
    for path in lost_shards(path for path, _ in files):
        yield Gap(path, None, split_of(path))


def _rows(root: Path, path: str, size: int) -> Iterator[Entry | Stray]:
    folders = [name for name in path.split("/")[:-1] if name.lower() != "data"]
    with parquet_file(root / path) as file:
        schema = file.schema_arrow
        image = image_column(schema, root / path)
        label = require("labels", COLUMNS["label"], schema.names, str(root / path))
        columns, classes = columns_of(schema.names), class_names(schema, label)
        names = [f"{image}.path"] if _has_names(schema.field(image).type) else []
        for row, values in rows_of(file, [*columns.values(), *names]):
            traits = read_traits(values, columns, classes, f"{root / path}, row {row}")
            split = traits.split or split_of(path)
            image_id = f"{path}/{row:07d}{_name(values.get(image))}"
            if traits.label is None:
                yield Stray(image_id, "row without a label", traits.subset, split)
                continue
            yield Entry(
                image_id,
                traits.label,
                traits.subset or subset_of(folders, traits.label),
                split,
                traits.group,
                size,
                traits.variant,
                path,
                row,
            )


def _has_names(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind) and kind.get_field_index("path") >= 0)


def _name(image: dict[str, Any] | None) -> str:
    """Return the name that an image's file had, for people and for `group_pattern`."""
    return f"/{PurePosixPath(image['path']).name}" if image and image["path"] else ""


LAYOUT = Layout("a folder of Parquet files with a column of images' bytes and one of labels", find, suffixes=PARQUET)
