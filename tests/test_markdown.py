"""Markdown tables."""

from __future__ import annotations

from rine_cache.markdown import markdown_table


def test_columns_are_padded_and_bars_escaped() -> None:
    assert markdown_table(["a", "long"], [["x|y", "1"], ["two\nlines", ""]]) == (
        "| a         | long |\n|-----------|------|\n| x\\|y      | 1    |\n| two lines |      |\n"
    )
