"""The plot of what heads learnt of the blocks: TIE's weights, as in RINE's figure of importances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from rine_cache.errors import HeadError
from rine_cache.figures import write_figure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rine_cache.heads.head import HeadCard
    from rine_cache.heads.importance import BlockImportance

_PANEL_WIDTH, _PANEL_HEIGHT = 3.8, 2.6  # inches
_TICKS = 14  # at most
# Okabe and Ito's colours, which look different to everybody; the dashes tell them apart in print.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1, 1, 1)))


def importance_of(card: HeadCard) -> BlockImportance:
    """Return what a head's TIE learnt.

    Raises
    ------
    HeadError
        If it has none, or was made before it was kept.
    """
    if card.importance is None:
        why = "was made before they were kept; train it again" if _has_tie(card) else "has no TIE, and no block weights"
        raise HeadError(f"head {card.method} (seed {card.seed}) {why}")
    return card.importance


def draw_importance(cards: Sequence[HeadCard], paths: Sequence[Path]) -> None:
    """Draw the weights of heads' blocks, counted from 1, and write them in each of the formats asked for.

    Parameters
    ----------
    cards
        Of heads with a TIE, one curve each.
    paths
        Files to write, as `write_figure` takes them.

    Raises
    ------
    HeadError
        If a head has no TIE, or was made before its weights were kept.
    ConfigError
        If a suffix is none that can be drawn.
    OutputError
        If a file cannot be written.
    """
    curves = [(card, importance_of(card)) for card in cards]
    write_figure(lambda: _figure(curves), paths)


def _figure(curves: Sequence[tuple[HeadCard, BlockImportance]]) -> Figure:
    figure = Figure(figsize=(2 * _PANEL_WIDTH, _PANEL_HEIGHT), layout="constrained")
    panels = figure.subplots(1, 2)
    block_count = max(card.features.block_count for card, _ in curves)
    titles = {"mean": "Weight, mean over the channels", "leads": "Share of channels that it leads"}
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
        for number, (card, importance) in enumerate(curves):
            axes.plot(
                [block + 1 for block in card.blocks],
                getattr(importance, name),
                color=_COLOURS[number % len(_COLOURS)],
                linestyle=_DASHES[number // len(_COLOURS) % len(_DASHES)],
                marker="o",
                markersize=3,
                linewidth=1.2,
                label=f"{card.method} (seed {card.seed}), trained on {card.training_set or 'what is not stated'}",
            )
        axes.axhline(1 / block_count, color="#999999", linewidth=0.8, linestyle=(0, (1, 2)), label="all blocks alike")
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xlabel("block, counted from 1")
        axes.set_xticks(range(1, block_count + 1, -(-block_count // _TICKS)))
        axes.set_xlim(0.5, block_count + 0.5)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=2, frameon=False)
    return figure


def _has_tie(card: HeadCard) -> bool:
    return card.head.kind == "rine" and card.head.tie
