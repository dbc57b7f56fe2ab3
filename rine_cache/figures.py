"""Figures written without a display, the same bytes for the same numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib import style

from rine_cache.errors import ConfigError
from rine_cache.files import written_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

FORMATS = (".png", ".svg")
_SETTINGS: Any = {
    "font.size": 8.5,
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "rine-cache",
    "text.parse_math": False,  # a dollar sign in a title or note is one
}


def write_figure(draw: Callable[[], Figure], paths: Sequence[Path]) -> None:
    """Draw a figure once, and write it in each of the formats asked for.

    Parameters
    ----------
    draw
        Makes the figure, under the house's settings, whatever a user's matplotlibrc says.
    paths
        Files to write; the suffix, one of `FORMATS`, says how.

    Raises
    ------
    ConfigError
        If a suffix is another one.
    OutputError
        If a file cannot be written.
    """
    for path in paths:
        if path.suffix not in FORMATS:
            raise ConfigError(f"cannot draw {path}: its suffix is {path.suffix!r}; allowed: {', '.join(FORMATS)}")
    with style.context("default"), mpl.rc_context(_SETTINGS):
        figure = draw()
        for path in paths:
            with written_whole(path) as temporary:
                figure.savefig(
                    temporary,
                    format=path.suffix[1:],
                    dpi=160,
                    bbox_inches="tight",  # grows with the labels: a long name is never cut
                    pad_inches=0.15,
                    metadata={"Date": None} if path.suffix == ".svg" else None,
                )
