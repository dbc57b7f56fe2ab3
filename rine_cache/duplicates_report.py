"""Duplicates for people: leakage first, by name. Markdown that reads well in a terminal too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rine_cache.duplicates import ACROSS, EXACT, LEAKAGE, LISTED, NEAR, WITHIN
from rine_cache.layouts.entry import LABEL_NAMES
from rine_cache.markdown import markdown_table

if TYPE_CHECKING:
    import polars as pl

    from rine_cache.duplicates import Duplicates

_NAMED = 5


def render_duplicates(duplicates: Duplicates) -> str:
    """Render what was found: training images in test sets, then across data sets, then within them."""
    header = duplicates.header
    images = sum(header["datasets"].values())
    training = list(dict.fromkeys(name for name, _, _ in header["training_sets"]))
    absent = [*header["absent_training_sets"], *(f"test set {name}" for name in header["absent_test_sets"])]
    parts = [
        "# Duplicates\n",
        f"Among {images:,} readable images of {_count(len(header['datasets']), 'data set')}, "
        f"{_count(len(training), 'training set')} and {_count(len(header['test_sets']), 'test set')}.\n\n"
        f"Exact: the files' bytes are equal. Near: they are not, but the 64-bit perceptual hashes (pHash) of their\n"
        f"pixels differ in at most {header['distance']} bits, as those of an image saved again, or scaled, do. "
        f"{header['flat']:,} of the images\nare too flat for such a hash, and compared by their bytes only. "
        f"Up to {_NAMED} images of a kind are named here,\n"
        f"up to {LISTED:,} in the Parquet file; the counts are whole.\n",
        f"## Leakage: training images in test sets\n\n{twins_section(duplicates, LEAKAGE)}",
        f"## Across data sets\n\n{twins_section(duplicates, ACROSS)}",
        f"## Within data sets\n\n{twins_section(duplicates, WITHIN)}",
    ]
    if absent:
        listed = "\n".join(f"- {name}" for name in absent)
        parts.append(f"## Not compared\n\nTheir images are not here:\n\n{listed}\n")
    return "\n".join(parts)


def twins_section(duplicates: Duplicates, relation: str) -> str:
    """Make the table of one relation and name the first images of each of its lines."""
    rows = duplicates.table.filter(relation=relation)
    if rows.is_empty():
        return _nothing(duplicates, relation)
    lines = rows.partition_by("reference", "side", "collection", maintain_order=True)
    columns = {
        LEAKAGE: ["test set", "images", "in training set", "side"],
        ACROSS: ["images of", "images", "in data set"],
        WITHIN: ["data set", "images"],
    }[relation]
    body = [_line(duplicates, relation, line) for line in lines]
    table = markdown_table([*columns, "exact", "near", "share", "other label: exact", "near"], body)
    if relation == LEAKAGE:
        table += "\n" + _both_sides(duplicates)
    return "\n".join([table, *(_names(relation, line) for line in lines)])


def _nothing(duplicates: Duplicates, relation: str) -> str:
    header = duplicates.header
    if relation == LEAKAGE:
        if not header["training_sets"] or not header["test_sets"]:
            return "No training set and test set to compare are here.\n"
        return "None: no test set holds an image of a training set.\n"
    if relation == ACROSS and len(header["datasets"]) < 2:
        return f"There is {'one data set only' if header['datasets'] else 'no data set'}.\n"
    return "None.\n"


def _line(duplicates: Duplicates, relation: str, line: pl.DataFrame) -> list[str]:
    header = duplicates.header
    first = line.row(0, named=True)
    total = header["test_sets" if relation == LEAKAGE else "datasets"][first["collection"]]
    found = {kind: dict.fromkeys(("found", "found_conflicts"), 0) for kind in (EXACT, NEAR)}
    for row in line.unique("kind").iter_rows(named=True):
        found[row["kind"]] = row
    both = found[EXACT]["found"] + found[NEAR]["found"]
    names = [first["collection"], f"{total:,}"]
    names += {LEAKAGE: [first["reference"], first["side"]], ACROSS: [first["reference"]], WITHIN: []}[relation]
    counts = [f"{found[kind][what]:,}" for what in ("found", "found_conflicts") for kind in (EXACT, NEAR)]
    return [*names, *counts[:2], f"{100 * both / total:.1f} %", *counts[2:]]


def _both_sides(duplicates: Duplicates) -> str:
    """Make the table of what leaked from both sides of each training set together."""
    header = duplicates.header
    body = [
        [test_set, training_set, f"{leaked:,}", f"{100 * leaked / header['test_sets'][test_set]:.1f} %"]
        for training_set, test_set, leaked in header["leaked"]
        if leaked
    ]
    table = markdown_table(["test set", "in training set", "leaked", "share"], body)
    return (
        f"An image with twins on both sides stands in both lines; here, and in leaderboards, it counts once:\n\n{table}"
    )


def _names(relation: str, line: pl.DataFrame) -> str:
    """Name the first images of a line and their twins."""
    first = line.row(0, named=True)
    titles = {
        LEAKAGE: f"{first['collection']} and {first['reference']} ({first['side']})",
        ACROSS: f"{first['collection']} and {first['reference']}",
        WITHIN: first["collection"],
    }
    named: list[str] = []
    for kind in (EXACT, NEAR):
        rows = line.filter(kind=kind)
        named += [f"- {_pair(row)}" for row in rows.head(_NAMED).iter_rows(named=True)]
        if not rows.is_empty() and (more := rows["found"][0] - _NAMED) > 0:
            named.append(f"- and {more:,} more {kind}")
    return f"{titles[relation]}:\n\n" + "\n".join(named) + "\n"


def _pair(row: dict[str, object]) -> str:
    kind = "is" if row["kind"] == EXACT else f"is near ({row['distance']} bits)"
    conflict = "; **the labels differ**" if row["label_conflict"] else ""
    return f"{_image(row, 'collection')} {kind} {_image(row, 'reference')}{conflict}"


def _image(row: dict[str, object], role: str) -> str:
    label = LABEL_NAMES[int(str(row[f"{role}_label"]))]
    return f"`{row[f'{role}_dataset']}: {row[f'{role}_image_id']}` ({label})"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
