"""A protocol's table as a figure: one line a method, its mean with its interval, and a dot for each test set."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from rine_cache.figures import write_figure
from rine_cache.report import METRIC_TITLES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from rine_cache.paper_table import Column, Line, PaperTable

_LINE_HEIGHT, _PANEL_WIDTH = 0.21, 3.4  # inches
_MEASURED, _PUBLISHED = "#0b5fa5", "#8a4b00"  # apart in lightness too, and in their markers
_DOTS = "#9a9a9a"


def draw_lines(table: PaperTable, paths: Sequence[Path]) -> None:
    """Draw a table once, and write it in each of the formats asked for.

    A panel per metric, whose x axis need not begin at zero. The large marker is the last column's value, the mean of
    the protocol unless other test sets were chosen, filled where it was measured and hollow where it was published.

    Parameters
    ----------
    table
        What `rine_cache.paper_table.build_paper_table` made.
    paths
        Files to write, as `write_figure` takes them.

    Raises
    ------
    ConfigError
        If a suffix is another one.
    OutputError
        If a file cannot be written.
    """
    write_figure(lambda: _figure(table), paths)


def _figure(table: PaperTable) -> Figure:
    metrics = list(dict.fromkeys(column.metric for column in table.columns))
    rows: list[tuple[str, Line | None]] = []
    for group in table.groups:
        rows.append((group.title, None))
        rows += [(_name(table, line), line) for line in group.lines]
    height = len(rows) * _LINE_HEIGHT + 0.5
    figure = Figure(figsize=(_PANEL_WIDTH * len(metrics), height))
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    figure.subplots_adjust(left=0, right=1, bottom=0, top=1, wspace=0.06)
    for axes, metric in zip(panels, metrics, strict=True):
        columns = [column for column in table.columns if column.metric == metric]
        for y, (_, line) in enumerate(rows):
            if line is not None:
                _draw_line(axes, y, line, columns)
        lead = columns[-1].test_set
        axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel=f"{METRIC_TITLES.get(metric, metric)}, {lead}, %")
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="#e2e2e2", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
    for label, (_, line) in zip(panels[0].get_yticklabels(), rows, strict=True):
        if line is None:
            label.set_style("italic")
            label.set_color("#555555")
    _annotate(figure, panels, table)
    return figure


def _name(table: PaperTable, line: Line) -> str:
    marks = table.marks_of(line)
    return f"{line.method} ({marks})" if marks else line.method


def _draw_line(axes: Axes, y: int, line: Line, columns: list[Column]) -> None:
    *others, lead = (line.cells[column] for column in columns)
    values = [cell.value for cell in others if cell.value is not None]
    axes.plot(values, [y] * len(values), "|", color=_DOTS, markersize=5, markeredgewidth=0.9)
    if lead.value is None:
        return
    measured = line.kind == "measured"
    colour = _MEASURED if measured else _PUBLISHED
    if lead.low is not None and lead.high is not None:
        axes.plot([lead.low, lead.high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt")
    face = colour if measured else "white"
    axes.plot([lead.value], [y], "o" if measured else "D", color=colour, markerfacecolor=face, markersize=5)


def _annotate(figure: Figure, panels: Sequence[Axes], table: PaperTable) -> None:
    """Write what the marks mean, the caption and the sources below the panels."""
    width, height = figure.get_size_inches()
    letters = max(60, round((width + 2) / 0.068))
    kinds = {line.kind == "measured" for group in table.groups for line in group.lines}
    marks = [("o", _MEASURED, _MEASURED, "measured, with its 95 % interval where it has one")] if True in kinds else []
    marks += [("D", _PUBLISHED, "white", "published")] if False in kinds else []
    if len({column.test_set for column in table.columns}) > 1:
        marks.append(("|", _DOTS, _DOTS, "a test set"))
    for form, colour, face, label in marks:
        panels[0].plot([], [], form, color=colour, markerfacecolor=face, markersize=5, label=label)
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0, -0.45 / height), "borderaxespad": 0}
    panels[0].legend(**place, ncols=len(marks), frameon=False, handletextpad=0.3)
    marked = "; ".join(f"({mark}) {text}" for mark, text in table.notes())
    notes = [f"{table.subject} {table.provenance}", *([f"{marked}."] if marked else [])]
    lines = [line for note in notes for line in textwrap.wrap(note, letters)]
    figure.text(0, -0.75 / height, "\n".join(lines), va="top", linespacing=1.4)
