"""The page's plots as Vega-Lite specifications, made by Altair; the page's program fills their data, named ``points``.

Colours are the style sheet's own, by name, so that a plot follows the page from light to dark.
"""

from __future__ import annotations

from typing import Any, Literal

import altair as alt

_LINES = [f"var(--line-{number})" for number in range(1, 9)]
_DASHES = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [1, 0], [6, 3], [2, 2], [8, 3, 2, 3]]
_CLASSES = alt.Scale(domain=["real", "fake"], range=["var(--real)", "var(--fake)"])
_HEIGHT = 250
_Chart = alt.LayerChart | alt.FacetChart  # what `alt.layer` is typed to return
_PERCENT = ".0%"
# On which side of its point a name stands, how it is aligned, and how far off it is, in pixels.
_SIDES: tuple[tuple[str, Literal["left", "right"], int], ...] = (("right", "left", 7), ("left", "right", -7))


def chart_specifications() -> dict[str, dict[str, Any]]:
    """Make the specifications by name.

    Each reads rows of ``points``: ``line``, ``x``, ``y`` and what else its encodings name. Of several lines those with
    ``shown`` have a colour, and the others are a grey background.
    """
    charts = {
        "roc": _curves(
            _axis_x("false-positive rate", (0, 1), percent=True),
            _axis_y("true-positive rate", (0, 1), percent=True),
            _diagonal(),
        ),
        "reliability": _reliability(),
        "histogram": _histogram(),
        "size": _size(),
        "robustness": _curves(_steps("strength"), _axis_y("mean, %"), points=True),
        "ablation": _ablation(),
        "weights": _curves(
            alt.X("x:Q", title="block, counted from 1", axis=alt.Axis(tickMinStep=1, grid=False, format="d")),
            _axis_y("weight, mean over channels", zero=True),
            points=True,
        ),
    }
    return {name: _finished(chart) for name, chart in charts.items()}


def _finished(chart: _Chart) -> dict[str, Any]:
    styled = (
        chart.properties(width="container", height=_HEIGHT, data=alt.NamedData(name="points"))
        .configure(
            background="transparent",
            font="system-ui, sans-serif",
            autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
        )
        .configure_view(stroke=None)
        .configure_axis(
            labelColor="var(--muted)",
            titleColor="var(--muted)",
            gridColor="var(--rule)",
            domainColor="var(--rule-strong)",
            tickColor="var(--rule-strong)",
            labelFontSize=11,
            titleFontSize=11,
            titleFontWeight="normal",
            titlePadding=8,
        )
        .configure_legend(
            labelColor="var(--ink)",
            labelFontSize=11,
            orient="bottom",
            direction="horizontal",
            columns=2,
            title=None,
            labelLimit=240,
            symbolStrokeWidth=2,
        )
    )
    specification: dict[str, Any] = styled.to_dict()
    return specification


def _axis_x(title: str, domain: tuple[float, float], *, percent: bool = False) -> alt.X:
    axis = alt.Axis(grid=False, tickCount=5, format=_PERCENT) if percent else alt.Axis(grid=False, tickCount=5)
    return alt.X("x:Q", title=title, scale=alt.Scale(domain=list(domain)), axis=axis)


def _axis_y(
    title: str, domain: tuple[float, float] | None = None, *, percent: bool = False, zero: bool = False
) -> alt.Y:
    scale = alt.Scale(domain=list(domain)) if domain else alt.Scale(zero=zero, nice=True)
    axis = alt.Axis(tickCount=5, format=_PERCENT) if percent else alt.Axis(tickCount=5)
    return alt.Y("y:Q", title=title, scale=scale, axis=axis)


def _steps(title: str) -> alt.X:
    return alt.X("x:N", title=title, sort=None, axis=alt.Axis(labelAngle=0, grid=False))


def _coloured() -> dict[str, Any]:
    """Tell lines apart by colour and by dashes, the chosen one by its width."""
    return {
        "color": alt.Color("line:N", sort=None, scale=alt.Scale(range=_LINES)),
        "strokeDash": alt.StrokeDash("line:N", sort=None, scale=alt.Scale(range=_DASHES)),
        "strokeWidth": alt.condition("datum.chosen", alt.value(3), alt.value(1.6)),
    }


def _curves(x: alt.X, y: alt.Y, *further: alt.Chart, points: bool = False) -> _Chart:
    tooltip = [
        alt.Tooltip("line:N", title="method"),
        alt.Tooltip("x:N", title="x"),
        alt.Tooltip("y:Q", title="y", format=".3f"),
    ]
    base = alt.Chart().encode(x=x, y=y)
    background = (
        base.transform_filter("!datum.shown")
        .mark_line(strokeWidth=0.8, opacity=0.45, color="var(--muted)")
        .encode(detail="line:N", tooltip=tooltip)
    )
    front = base.transform_filter("datum.shown").mark_line(strokeJoin="round", point={"size": 28} if points else False)
    return alt.layer(background, front.encode(**_coloured(), tooltip=tooltip), *further)


def _diagonal() -> alt.Chart:
    """Draw what chance gives, or what a calibrated method would."""
    ends = alt.InlineData(values=[{"x": 0, "y": 0}, {"x": 1, "y": 1}])
    line = alt.Chart(ends).mark_line(strokeDash=[3, 3], strokeWidth=1, color="var(--muted)")
    encoded: alt.Chart = line.encode(x="x:Q", y="y:Q")
    return encoded


def _reliability() -> _Chart:
    tooltip = [
        alt.Tooltip("x:Q", title="mean score", format=".3f"),
        alt.Tooltip("y:Q", title="share of fakes", format=".3f"),
        alt.Tooltip("n:Q", title="images", format=","),
    ]
    base = alt.Chart().encode(
        x=_axis_x("mean score", (0, 1), percent=True), y=_axis_y("share that is fake", (0, 1), percent=True)
    )
    line = base.mark_line(color="var(--accent)", strokeWidth=2)
    dots = base.mark_point(filled=True, color="var(--accent)", opacity=1, stroke="var(--paper)").encode(
        size=alt.Size("n:Q", legend=None, scale=alt.Scale(type="sqrt", range=[30, 240])), tooltip=tooltip
    )
    return alt.layer(line, dots, _diagonal())


def _histogram() -> _Chart:
    tooltip = [
        alt.Tooltip("label:N", title="class"),
        alt.Tooltip("x:Q", title="score from", format=".2f"),
        alt.Tooltip("x2:Q", title="to", format=".2f"),
        alt.Tooltip("y:Q", title="share of the class", format=".1%"),
    ]
    bars = (
        alt.Chart()
        .mark_bar(opacity=0.55, binSpacing=0)
        .encode(
            x=alt.X("x:Q", bin="binned", title="score", axis=alt.Axis(grid=False, tickCount=5)),
            x2="x2:Q",
            y=alt.Y("y:Q", stack=None, title="share of the class", axis=alt.Axis(format=_PERCENT, tickCount=5)),
            color=alt.Color("label:N", scale=_CLASSES),
            tooltip=tooltip,
        )
    )
    threshold = (
        alt.Chart(alt.InlineData(values=[{"x": 0.5}]))
        .mark_rule(strokeDash=[3, 3], color="var(--muted)")
        .encode(x="x:Q")
    )
    return alt.layer(bars, threshold)


def _size() -> _Chart:
    base = alt.Chart().encode(
        x=alt.X(
            "x:Q",
            title="trainable parameters",
            scale=alt.Scale(type="log", padding=24),
            axis=alt.Axis(grid=False, format="~s", tickCount=5),
        ),
        y=alt.Y("y:Q", title="mean, %", scale=alt.Scale(zero=False, padding=14), axis=alt.Axis(tickCount=5)),
    )
    whiskers = base.mark_rule(color="var(--muted)", opacity=0.7).encode(y=alt.Y("low:Q", title="mean, %"), y2="high:Q")
    dots = base.mark_point(filled=True, size=70, opacity=1).encode(
        color=alt.condition("datum.chosen", alt.value("var(--accent)"), alt.value("var(--line-6)")),
        tooltip=[
            alt.Tooltip("line:N", title="method"),
            alt.Tooltip("x:Q", title="parameters", format=","),
            alt.Tooltip("y:Q", title="mean, %", format=".2f"),
        ],
    )
    names = [
        base.transform_filter(f"datum.name === '{side}'")
        .mark_text(align=align, dx=dx, dy=-7, fontSize=11, color="var(--ink)", limit=170)
        .encode(text="line:N")
        for side, align, dx in _SIDES
    ]
    return alt.layer(whiskers, dots, *names)


def _ablation() -> _Chart:
    base = alt.Chart().encode(
        x=alt.X("x:N", title="blocks", sort=None, axis=alt.Axis(labelAngle=0, grid=False, labelOverlap="greedy")),
        y=_axis_y("%"),
    )
    tooltip = [
        alt.Tooltip("line:N", title="test set"),
        alt.Tooltip("x:N", title="blocks"),
        alt.Tooltip("y:Q", title="%", format=".2f"),
        alt.Tooltip("std:Q", title="std over seeds", format=".2f"),
        alt.Tooltip("loss:Q", title="validation loss", format=".4f"),
    ]
    band = (
        base.transform_filter("datum.mean && !datum.level")
        .mark_area(opacity=0.14, color="var(--ink)")
        .encode(y=alt.Y("low:Q", title="%"), y2="high:Q")
    )
    faint = (
        base.transform_filter("!datum.mean && !datum.level")
        .mark_line(opacity=0.8)
        .encode(**_coloured(), tooltip=tooltip)
    )
    strong = (
        base.transform_filter("datum.mean && !datum.level")
        .mark_line(color="var(--ink)", strokeWidth=2.4, point={"filled": True, "color": "var(--ink)", "size": 26})
        .encode(tooltip=tooltip)
    )
    level = alt.Chart().transform_filter("datum.level").encode(y=alt.Y("y:Q", title="%"))
    rule = level.mark_rule(strokeDash=[5, 3], color="var(--ink)", opacity=0.7).encode(tooltip=tooltip)
    name = level.mark_text(align="left", x=6, dy=-7, fontSize=11, color="var(--ink)").encode(text="x:N")
    ring = (
        base.transform_filter("datum.lowest && !datum.level")
        .mark_point(size=130, color="var(--accent)", strokeWidth=2, filled=False)
        .encode(tooltip=tooltip)
    )
    return alt.layer(band, faint, strong, ring, rule, name)
