"""Rows that say what an image is: which columns are read, and what their words mean.

One rule for tables, Parquet files and the JSON beside a tar's members. Columns are found by name, whatever its case;
of several names for one thing, the first that is there is read. Words are read whatever their case. Numbers are 0 for
real and 1 for fake, unless the file names its classes itself: the Hugging Face hub stores numbers whose names stand
in the schema, in any order.
"""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple

from rine_cache.errors import LayoutError
from rine_cache.layouts.entry import FAKE, REAL
from rine_cache.layouts.folder import LABELS, SPLITS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import pyarrow as pa

COLUMNS = {
    "label": ("is_fake", "fake", "label", "labels", "class"),
    "subset": ("subset", "generator", "model", "source"),
    "split": ("split",),
    "group": ("group",),
    "variant": ("variant",),
}
LABEL_WORDS = {
    "0": REAL,
    "1": FAKE,
    "false": REAL,
    "true": FAKE,
    **LABELS,
    "natural": REAL,
    "human": REAL,
    "authentic": REAL,
    "artificial": FAKE,
    "synthetic": FAKE,
    "generated": FAKE,
    "ai_generated": FAKE,
}
_NO_CLASS = -1  # the hub's number for a row without a label


class Traits(NamedTuple):
    """What a row says of its image; null where it says nothing."""

    label: int | None
    subset: str | None
    split: str | None
    group: str | None
    variant: str | None


def require(what: str, known: Collection[str], names: Collection[str], where: str) -> str:
    """Return the column whose name comes first in `known`, in its own spelling.

    Raises
    ------
    LayoutError
        If there is none; names the columns that are there, and those that are nearly it.
    """
    if found := first_of(known, names):
        return found
    near = {name: get_close_matches(name.lower(), known, n=1, cutoff=0.7) for name in names}
    advice = "; ".join(f"did you mean {match[0]!r} by {name!r}?" for name, match in near.items() if match)
    raise LayoutError(
        f"{where} has no column of {what}{f'; {advice}' if advice else ''} (columns: {', '.join(names)}; "
        f"allowed: {', '.join(known)})"
    )


def columns_of(names: Iterable[str]) -> dict[str, str]:
    """Find the columns of `COLUMNS`: by what they say, the name of the column."""
    return {what: found for what, known in COLUMNS.items() if (found := first_of(known, names))}


def first_of(known: Collection[str], names: Iterable[str]) -> str | None:
    """Return the column whose name comes first in `known`, in its own spelling."""
    spelled = {name.strip().lower(): name for name in names}
    return next((spelled[name] for name in known if name in spelled), None)


def class_names(schema: pa.Schema, column: str | None) -> tuple[str, ...]:
    """Return the names of a column's classes, by number, as the Hugging Face hub keeps them in a schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        feature = features[column]
        return tuple(map(str, feature["names"])) if feature["_type"] == "ClassLabel" else ()
    except (LookupError, TypeError, ValueError):
        return ()  # another writer's file: numbers are what they are


def read_traits(row: Mapping[str, object], columns: Mapping[str, str], classes: Sequence[str], where: str) -> Traits:
    """Read what a row says of its image.

    Parameters
    ----------
    row
        Values by column.
    columns
        Columns by what they say, see `columns_of`.
    classes
        Names of the label's classes by number; empty if it has none.
    where
        The row, for messages.

    Raises
    ------
    LayoutError
        If its label or its split is none of the words that are allowed.
    """
    texts = {what: _text(row[name]) for what, name in columns.items()}
    label, split = texts.get("label"), texts.get("split")
    return Traits(
        label=None if label is None else _label(label, classes, f"{where}, column {columns['label']!r}"),
        subset=texts.get("subset"),
        split=None if split is None else _split(split, where),
        group=texts.get("group"),
        variant=texts.get("variant"),
    )


def read_label(text: str, where: str) -> int:
    """Read a label's word: 0 real, 1 fake.

    Raises
    ------
    LayoutError
        If it is none of `LABEL_WORDS`.
    """
    found = LABEL_WORDS.get(text.strip().lower().replace(" ", "_").replace("-", "_"))
    if found is None:
        raise LayoutError(f"{where}: {text!r} is no label; allowed: {', '.join(LABEL_WORDS)}")
    return found


def _label(text: str, classes: Sequence[str], where: str) -> int | None:
    if classes and text == str(_NO_CLASS):
        return None
    if not classes or not text.isdecimal():
        return read_label(text, where)
    if int(text) >= len(classes):
        raise LayoutError(f"{where}: class {text} has no name; the file names {', '.join(classes)}")
    return read_label(classes[int(text)], f"{where}, class {text}")


def _split(text: str, where: str) -> str:
    found = SPLITS.get(text.lower())
    if found is None:
        raise LayoutError(f"{where}: {text!r} is no split; allowed: {', '.join(SPLITS)}")
    return found


def _text(value: object) -> str | None:
    return None if value is None else str(value).strip() or None
