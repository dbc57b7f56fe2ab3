from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
import torch

from rine_cache.errors import ConfigError, HeadError
from rine_cache.heads.head import FeatureIdentity, Head, HeadCard, build_network, save_head
from rine_cache.heads.importance import block_importance
from rine_cache.importance_figure import draw_importance
from rine_cache.specs.training import LinearHeadSpec, RineHeadSpec
from tests.conftest import refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Answer

FEATURES = FeatureIdentity(encoder={"architecture": "x"}, tap="ln_2", block_count=5, token_width=6, embedding_width=4)


def card(method: str, seed: int = 0, **spec: Any) -> HeadCard:
    head = RineHeadSpec(kind="rine", width=8, **spec)
    made = HeadCard(method=method, seed=seed, head=head, features=FEATURES, training_set="progan-2")
    if not head.tie:
        return made
    alpha = torch.randn(len(made.blocks), 8, generator=torch.Generator().manual_seed(seed))
    return made.model_copy(update={"importance": block_importance(alpha)})


def test_a_figure_shows_each_head_and_is_the_same_bytes_again(tmp_path: Path) -> None:
    cards = [card("RINE"), card("two-blocks", 1, blocks=(0, 3))]
    paths = [tmp_path / "a.svg", tmp_path / "b.svg", tmp_path / "c.png"]
    for path in paths:
        draw_importance(cards, [path])
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    ET.parse(paths[0])
    text = paths[0].read_text()
    for shown in ("RINE (seed 0), trained on progan-2", "two-blocks (seed 1)", "block, counted from 1", "all blocks"):
        assert shown in text


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (card("flat", tie=False), r"flat \(seed 0\) has no TIE"),
        (HeadCard(method="l", head=LinearHeadSpec(kind="linear"), features=FEATURES), "has no TIE"),
        (card("old").model_copy(update={"importance": None}), "before they were kept; train it again"),
    ],
)
def test_a_head_without_weights_is_refused(made: HeadCard, message: str, tmp_path: Path) -> None:
    with pytest.raises(HeadError, match=message):
        draw_importance([made], [tmp_path / "a.svg"])
    assert not (tmp_path / "a.svg").exists()


def test_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"allowed: \.png, \.svg"):
        draw_importance([card("RINE")], [tmp_path / "a.pdf"])


def test_the_command_prints_every_block_that_some_head_reads(tmp_path: Path, rine_cache: Callable[..., Answer]) -> None:
    cards = [card("RINE", blocks=(1, 3)), card("RINE", 1, blocks=(3, 4)), card("flat", tie=False)]
    paths = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for made, path in zip(cards, paths, strict=True):
        save_head(Head(made, build_network(made.head, made.features)), path)
    answer = rine_cache("head", "weights", *paths[:2], "--figure", tmp_path / "w.svg")
    assert answer.status == 0
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in answer.out.strip().splitlines()]
    assert rows[0] == ["block", "RINE 0: weight", "RINE 0: leads", "RINE 1: weight", "RINE 1: leads"]
    assert [row[0] for row in rows[2:]] == ["1", "3", "4"]
    learnt = cards[0].importance
    assert learnt is not None
    assert rows[3][1:3] == [f"{learnt.mean[1]:.4f}", f"{learnt.leads[1]:.4f}"]
    assert rows[4][1:3] == ["", ""]
    assert (tmp_path / "w.svg").exists()
    assert "flat (seed 0) has no TIE" in refused(rine_cache("head", "weights", paths[2]))
