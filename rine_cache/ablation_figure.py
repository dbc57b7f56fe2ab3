"""The plot of an ablation: curves over blocks, a row of panels per family and a column per metric."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from rine_cache.ablation_table import describe, families_of, remarks_on, spelt, test_sets_of
from rine_cache.figures import write_figure
from rine_cache.report import METRIC_TITLES
from rine_cache.specs.benchmark import MEAN
from rine_cache.specs.blocks import GREEDY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import polars as pl
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from rine_cache.specs.ablation import AblationSpec

# In inches.
_PANEL_WIDTH, _PANEL_HEIGHT, _BETWEEN_COLUMNS, _BETWEEN_ROWS = 3.3, 2.2, 0.45, 0.65
_LEGEND_LINE, _LEGEND_COLUMN = 0.2, 2.2
_TICKS = 14  # at most, side by side
# Metrics for which a coin toss gives 50, whatever the number of images of each class.
_CHANCE_IS_HALF = ("balanced_acc", "auc")
# Okabe and Ito's colours, which look different to everybody; the dashes tell them apart in print.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F7F7F")
_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1, 1, 1)))
_FAINT: dict[str, Any] = {"linewidth": 1.0, "alpha": 0.55, "zorder": 2}
_STRONG: dict[str, Any] = {"color": "black", "linewidth": 2.0, "marker": "o", "markersize": 3, "zorder": 4}
_SPREAD: dict[str, Any] = {"color": "black", "alpha": 0.15, "linewidth": 0, "zorder": 3}
_CHOSEN: dict[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 9,
    "markerfacecolor": "none",
    "markeredgecolor": "#D55E00",
    "markeredgewidth": 1.6,
    "zorder": 5,
}
_X_LABELS = {
    "each": "the one block read",
    "leave-one-out": "the one block left out",
    "prefixes": "how many of the first blocks are read",
    "suffixes": "how many of the last blocks are read",
    "greedy": "block added in each round",
    "": "blocks read",
}


def draw_ablation(table: pl.DataFrame, spec: AblationSpec, paths: Sequence[Path]) -> None:
    """Draw an ablation's table as curves, blocks counted from 1, and write them in each of the formats asked for.

    Single subsets, such as ``all``, are level lines across the families' panels; without a family they have a panel of
    their own.

    Parameters
    ----------
    table, spec
        What `rine_cache.ablation_table.build_ablation_table` made, and of what.
    paths
        Files to write, as `write_figure` takes them.

    Raises
    ------
    ConfigError
        If a suffix is another one.
    OutputError
        If a file cannot be written.
    """
    write_figure(lambda: _figure(table, spec), paths)


def _figure(table: pl.DataFrame, spec: AblationSpec) -> Figure:
    families = families_of(table)
    levels = families.pop("", table.clear()) if len(families) > 1 else table.clear()
    columns, lines = len(spec.metrics), len(families)
    width = columns * (_PANEL_WIDTH + _BETWEEN_COLUMNS) - _BETWEEN_COLUMNS
    height = lines * (_PANEL_HEIGHT + _BETWEEN_ROWS) - _BETWEEN_ROWS
    # The panels fill the figure; title, labels, legend and notes stand around it.
    figure = Figure(figsize=(width, height))
    panels = figure.subplots(
        lines,
        columns,
        sharey="col",
        squeeze=False,
        gridspec_kw={
            "left": 0,
            "right": 1,
            "bottom": 0,
            "top": 1,
            "wspace": _BETWEEN_COLUMNS / _PANEL_WIDTH,
            "hspace": _BETWEEN_ROWS / _PANEL_HEIGHT,
        },
    )
    for line, (family, rows) in zip(panels, families.items(), strict=True):
        for axes, metric in zip(line, spec.metrics, strict=True):
            _draw_panel(axes, rows.filter(metric=metric), family)
            _draw_levels(axes, levels.filter(metric=metric))
            axes.set_xlabel(_X_LABELS[family])
            if metric in _CHANCE_IS_HALF and axes.get_ylim()[0] < 55:
                axes.axhline(50, label="chance", color="#999999", linewidth=1.0, linestyle=(0, (1, 2)), zorder=1)
    for axes, metric in zip(panels[0], spec.metrics, strict=True):
        title = METRIC_TITLES[metric]
        axes.set_title(f"{title[0].upper()}{title[1:]}, %", loc="left", fontsize=10)
    _annotate(figure, table, spec, panels.ravel().tolist())
    return figure


def _draw_panel(axes: Axes, rows: pl.DataFrame, family: str) -> None:
    """Draw the test sets' curves, the mean's with its spread, and a ring at the lowest validation loss."""
    test_sets = test_sets_of(rows)
    mean = _means(rows)
    xs = np.arange(mean.height)
    unordered: dict[str, Any] = {} if family else {"linestyle": "none", "marker": "o"}
    if len(test_sets) > 1:
        for number, name in enumerate(test_sets):
            faint = rows.filter(test_set=name)["value"].to_numpy()  # (n,), NaN where null
            axes.plot(xs, faint, label=name, **{**_look(number), **_FAINT, **unordered})
    values = mean["value"].to_numpy()  # (n,)
    label = "mean of the test sets" if len(test_sets) > 1 else test_sets[0]
    axes.plot(xs, values, label=label, **{**_STRONG, **unordered})
    if mean["std"].null_count() < mean.height:
        std = mean["std"].to_numpy()  # (n,)
        if family:
            axes.fill_between(xs, values - std, values + std, label="± std", **_SPREAD)
        else:
            axes.errorbar(xs, values, std, linestyle="none", color="black", capsize=3, label="± std", zorder=4)
    best = mean["validation_loss"].arg_min()
    assert best is not None
    axes.plot(xs[best], values[best], label="lowest validation loss", **_CHOSEN)
    names = [_tick(row, family) for row in mean.iter_rows(named=True)]
    step = 1 if family in (GREEDY, "") else -(-len(names) // _TICKS)
    axes.set_xticks(xs[::step], names[::step])
    if family == GREEDY and len(names) > _TICKS:
        axes.tick_params(axis="x", rotation=90)
    if not family:
        axes.set_xticks(xs, ["\n".join(textwrap.wrap(name, 12)) for name in names])
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.grid(axis="y", color="#E5E5E5", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if np.isnan(values).all():
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", color="#666666")


def _draw_levels(axes: Axes, levels: pl.DataFrame) -> None:
    """Draw the mean of each single subset as a level line."""
    for number, row in enumerate(_means(levels).drop_nulls("value").iter_rows(named=True), 1):
        dashes = _DASHES[number % len(_DASHES)]
        axes.axhline(row["value"], label=_single(row), color="black", linestyle=dashes, linewidth=1.0, zorder=1)


def _means(rows: pl.DataFrame) -> pl.DataFrame:
    """Select the rows of the protocol's mean, or of its only test set."""
    test_sets = test_sets_of(rows)
    return rows.filter(test_set=test_sets[0] if len(test_sets) == 1 else MEAN)


def _look(number: int) -> dict[str, Any]:
    """Return colour and dashes of a test set's curve: more of them than there are colours differ in dashes."""
    dashes = _DASHES[(number + 2 * (number // len(_COLOURS))) % len(_DASHES)]
    return {"color": _COLOURS[number % len(_COLOURS)], "linestyle": dashes}


def _tick(row: dict[str, Any], family: str) -> str:
    if family in ("each", "leave-one-out"):
        return str(row["block"] + 1)
    if family == GREEDY:
        return f"+{row['block'] + 1}"
    return str(len(row["blocks"])) if family else _single(row)


def _single(row: dict[str, Any]) -> str:
    """Name a single subset by its expression if that is one of words, and else by its blocks, from 1."""
    return row["family"] if row["family"][0].isalpha() else spelt(row["blocks"], first=1)


def _annotate(figure: Figure, table: pl.DataFrame, spec: AblationSpec, panels: Sequence[Axes]) -> None:
    """Write the title, the legend and, below, what a reader must know."""
    width, height = figure.get_size_inches()
    letters = max(48, round(width / 0.068))  # a line about as long as the panels are wide
    title = "\n".join(textwrap.wrap(spec.title, letters * 3 // 4))
    figure.text(0, 1 + 0.4 / height, title, fontsize=12, va="bottom")
    handles: dict[str, Artist] = {}
    for axes in panels:
        handles |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    columns = max(1, round(width / _LEGEND_COLUMN))
    below = 0.7
    figure.legend(
        handles.values(),
        handles,
        loc="upper left",
        bbox_to_anchor=(0, -below / height),
        borderaxespad=0,
        ncols=columns,
        frameon=False,
    )
    below += -(-len(handles) // columns) * _LEGEND_LINE + 0.15
    notes = [f"{describe(spec)}. Blocks are counted from 1 here, and from 0 everywhere else.", *remarks_on(table)]
    lines = [line for note in notes for line in textwrap.wrap(note, letters)]
    figure.text(0, -below / height, "\n".join(lines), va="top", linespacing=1.4)
