"""The page's scale of colours: one hue, so that it reads the same to everybody, and an ink that shows on each step."""

from __future__ import annotations

from typing import NamedTuple

# From low to high. Lightness alone orders the steps; on dark paper the scale runs the other way.
_LIGHT = "#f4f6f4 #e6efeb #d5e6e1 #c0dbd6 #a5cdca #86bcbd #63a7ac #418f99 #27758a #165a75 #0c415d"
_DARK = "#20272b #21303a #223c49 #244a59 #275a69 #2d6c79 #388088 #4b9698 #69aea9 #90c6bc #bfdfd3"
_INKS = ("#0d1417", "#ffffff")


class Step(NamedTuple):
    """Colours of one step of the scale, on light and on dark paper."""

    light: str
    light_ink: str
    dark: str
    dark_ink: str


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, ``#rrggbb``, by WCAG 2: from 1 to 21, and 4.5 is enough for text."""
    brighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _ink(background: str) -> str:
    return max(_INKS, key=lambda ink: contrast(ink, background))


_PAIRS = tuple(zip(_LIGHT.split(), _DARK.split(), strict=True))
SCALE = tuple(Step(light, _ink(light), dark, _ink(dark)) for light, dark in _PAIRS)
