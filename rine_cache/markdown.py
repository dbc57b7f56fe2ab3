"""Markdown that reads well in a terminal too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rine_cache.files import written_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def markdown_table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Lay out a Markdown table with its columns padded, so that it reads as plain text as well."""
    rows = [header, *([" ".join(cell.replace("|", "\\|").split()) for cell in line] for line in body)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    rendered = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([rendered[0], rule, *rendered[1:]]) + "\n"


def write_markdown(text: str, path: Path) -> None:
    """Write a rendered page."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
