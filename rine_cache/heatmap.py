"""Heat maps of cross-generator matrices."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke

from rine_cache.figures import write_figure
from rine_cache.matrix import OVERALL, TRAINING_SET, UNSEEN, describe, remarks_on, test_sets_of
from rine_cache.report import METRIC_TITLES
from rine_cache.specs.benchmark import MEAN

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import polars as pl
    from matplotlib.axes import Axes

    from rine_cache.specs.matrix import MatrixSpec

# Metrics for which a coin toss gives 50 on two classes of one size; the others start at 0.
_FROM_CHANCE = ("acc", "balanced_acc", "ap", "auc")
_COLOURS = "cividis"  # made to look alike with and without colour vision deficiency
_CELL_WIDTH, _CELL_HEIGHT = 0.62, 0.42  # inches
_GAP = 0.2  # between cells and their means, in cells
_MISSING: dict[str, Any] = {
    "facecolor": "white",
    "edgecolor": "#999999",
    "linewidth": 0.6,
    "hatch": "////",
    "clip_on": False,
}
# Black within white shows on dark and on light cells.
_TRAINED: dict[str, Any] = {
    "edgecolor": "black",
    "linewidth": 1.4,
    "path_effects": [withStroke(linewidth=3.4, foreground="white")],
}


def draw_matrix(matrix: pl.DataFrame, spec: MatrixSpec, paths: Sequence[Path]) -> None:
    """Draw a matrix as a heat map, once, and write it in each of the formats asked for.

    The colours' range does not depend on the numbers, so that two heat maps can be compared.

    Parameters
    ----------
    matrix, spec
        What `rine_cache.matrix.build_matrix` made, and of what.
    paths
        Files to write, as `write_figure` takes them.

    Raises
    ------
    ConfigError
        If a suffix is another one.
    OutputError
        If a file cannot be written.
    """
    write_figure(lambda: _figure(matrix, spec), paths)


def _figure(matrix: pl.DataFrame, spec: MatrixSpec) -> Figure:
    """Lay the grid out in the unit square of a figure of its size; labels, bar and notes stand around it."""
    test_sets = test_sets_of(matrix)
    columns = [*test_sets, MEAN, UNSEEN]
    xs = [index + (_GAP if name in (MEAN, UNSEEN) else 0) for index, name in enumerate(columns)]
    ys = [index + (_GAP if name == OVERALL else 0) for index, name in enumerate(matrix[TRAINING_SET])]
    width, height = xs[-1] + 1, ys[-1] + 1  # in cells
    figure = Figure(figsize=(width * _CELL_WIDTH, height * _CELL_HEIGHT))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0), xlabel="tested on", ylabel="trained on")
    axes.set_xticks([x + 0.5 for x in xs], columns, rotation=40, ha="left", rotation_mode="anchor")
    axes.set_yticks([y + 0.5 for y in ys], matrix[TRAINING_SET].to_list())
    axes.xaxis.set_label_position("top")
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)

    lowest = 50 if spec.metric in _FROM_CHANCE else 0
    for y, row in zip(ys, matrix.iter_rows(named=True), strict=True):
        seen = spec.trained_on.get(row[TRAINING_SET], ())
        for x, name in zip(xs, columns, strict=True):
            if name == UNSEEN and set(test_sets) <= set(seen):
                continue  # every test set is of its training set: there is nothing to average
            _draw_cell(axes, x, y, row[name], lowest)
            if name in seen:
                axes.add_patch(Rectangle((x + 0.07, y + 0.1), 0.86, 0.8, fill=False, zorder=3, **_TRAINED))

    values = matrix.select(columns).to_numpy()  # (rows, columns), NaN where null
    below = bool((values < lowest).any())
    bar = figure.colorbar(
        ScalarMappable(Normalize(lowest, 100), _COLOURS),
        cax=figure.add_axes((1 + 0.15 / figure.get_figwidth(), 0, 0.16 / figure.get_figwidth(), 1)),
        extend="min" if below else "neither",
        label=f"{METRIC_TITLES[spec.metric]}, %",
    )
    bar.outline.set_visible(False)
    notes = [f"{describe(spec)}.", f"{UNSEEN.title()}: the mean over test sets that are not framed."]
    notes += [f"Values below {lowest} share the darkest colour."] if below else []
    notes += remarks_on(matrix)
    _annotate(figure, axes, spec, notes)
    return figure


def _draw_cell(axes: Axes, x: float, y: float, value: float | None, lowest: int) -> None:
    """Draw one cell with its number, or hatched with a dash where there is none."""
    if value is None:
        axes.add_patch(Rectangle((x, y), 1, 1, **_MISSING))
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        axes.text(x + 0.5, y + 0.5, "\N{EN DASH}", ha="center", va="center", bbox=box)
        return
    red, green, blue, _ = colormaps[_COLOURS]((value - lowest) / (100 - lowest))
    colour = (red, green, blue)
    axes.add_patch(Rectangle((x, y), 1, 1, facecolor=colour, edgecolor="white"))
    axes.text(x + 0.5, y + 0.5, f"{value:.1f}", ha="center", va="center", color=_ink(colour))


def _ink(background: tuple[float, float, float]) -> str:
    """Choose black or white, whichever contrasts more by WCAG 2's relative luminance."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in background]
    luminance = sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return "black" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "white"


def _annotate(figure: Figure, axes: Axes, spec: MatrixSpec, notes: Sequence[str]) -> None:
    """Write the title above the grid and, below it, what its marks mean and what a reader must know."""
    width, height = figure.get_size_inches()
    letters = max(48, round(width / 0.068))  # a line about as long as the grid is wide
    axes.set_title("\n".join(textwrap.wrap(spec.title, letters * 3 // 4)), loc="left", fontsize=12, pad=12)
    handles = [Patch(facecolor="white", label="tested on a generator of its training set", **_TRAINED)]
    handles += [Patch(label="not measured, or a mean over what was not", **_MISSING)]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, -0.06 / height), ncols=2, frameon=False)
    lines = [line for note in notes for line in textwrap.wrap(note, letters)]
    axes.text(0, -0.4 / height, "\n".join(lines), transform=axes.transAxes, va="top", linespacing=1.4)
