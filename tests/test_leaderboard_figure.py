from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from PIL import Image

from rine_cache.errors import ConfigError
from rine_cache.leaderboard_figure import draw_lines
from rine_cache.paper_table import Choice, PaperTable, build_paper_table
from tests.boards import BENCHMARK, board, measured, published

if TYPE_CHECKING:
    from pathlib import Path


def table() -> PaperTable:
    rows = [
        make(method=method, test_set=test_set, metric=metric, rank=rank)
        for make, method, rank in ((measured, "our $RINE_1$", 1), (published, "their <RINE>", 2))
        for test_set in ("adm", "big_gan", "mean")
        for metric in ("acc", "ap")
    ]
    rows.append(measured(method="fitted", test_set="mean", oracle=True, rank=None))
    return build_paper_table(board(*rows), BENCHMARK, "bench-2", Choice())


def test_every_line_and_group_is_named_and_every_note_is_below(tmp_path: Path) -> None:
    draw_lines(table(), [tmp_path / "lines.svg", tmp_path / "lines.png"])
    with Image.open(tmp_path / "lines.png") as image:
        assert image.width > 600
    drawn = (tmp_path / "lines.svg").read_text(encoding="utf-8")
    for text in (
        "trained on sd14",
        "our $RINE_1$",
        "their &lt;RINE&gt; (a)",
        "not ranked",
        "fitted (1)",
        "accuracy, mean, %",
        "AP, mean, %",
        "measured, with its 95 % interval where it has one",
        "(a) a paper, Table 1",
    ):
        assert f"<!-- {text}" in drawn or text in drawn, text


def test_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        draw_lines(table(), [tmp_path / name])
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"its suffix is '\.pdf'; allowed: \.png, \.svg"):
        draw_lines(table(), [tmp_path / "lines.pdf"])
