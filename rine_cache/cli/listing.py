"""How a listing, and any small table, is shown in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rine_cache.layouts import Listing


def listing_text(listing: Listing) -> str:
    """Show what was found, what is missing and what has no place, in one table."""
    from rine_cache.layouts.entry import LABEL_NAMES

    counts = (
        listing.table.group_by("subset", "split", "variant", "label").len().sort("subset", "split", "variant", "label")
    )
    rows = [
        ("found", subset, split or "", variant or "", LABEL_NAMES[label], f"{count:,}")
        for subset, split, variant, label, count in counts.iter_rows()
    ]
    rows += [("MISSING", part.subset, part.split or "", "", LABEL_NAMES[part.label], "0") for part in listing.missing]
    rows += [
        ("UNEXPECTED", f"{reason}, e.g. {strays.example}", "", "", "", f"{strays.images:,}")
        for reason, strays in listing.strays.items()
    ]
    rows += [("LOST FILE", path, "", "", "", "") for path in listing.lost_files]
    return as_text(("", "subset", "split", "variant", "label", "images"), rows)


def as_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table in columns, without those that are empty."""
    kept = [column for column in range(len(header)) if any(row[column] for row in rows)]
    lines = [[row[column] for column in kept] for row in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(kept))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
