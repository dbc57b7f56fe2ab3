"""How intervals were made, in a sentence, out of what each row says of its own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# As `rine_cache.sampler` writes it: "Wilson, 1,000 resamples of 8 groups", and of some metrics what follows.
_STATED = re.compile(
    r"(?P<kind>Wilson|logit), (?P<times>[\d,]+) resamples of (?P<size>[\d,]+) (?P<unit>images|groups)"
    r"(?P<one_sided>; from above alone, as fewer than [\d,]+ real (images|groups) do not bound its threshold)?"
)
_KINDS = {
    "Wilson": "Wilson's interval for shares of images, such as accuracies",
    "logit": "a t interval on the logit scale for areas and other metrics",
}
_UNITS = {
    "images": "test images",
    "groups": "groups of test images (what belongs together, such as crops of one photograph, is drawn together)",
}


def how_intervals_are_made(stated: Sequence[str]) -> str:
    """Say in a sentence how 95 % intervals were made, for readers who know the bootstrap.

    Parameters
    ----------
    stated
        What rows say of it, each distinct text once.

    Returns
    -------
    One or two sentences for all that `rine_cache.sampler` made; what it did not make is quoted. Empty without any.
    """
    found = [match for text in stated if (match := _STATED.fullmatch(text))]
    others = [text for text in stated if not _STATED.fullmatch(text)]
    parts = []
    if found:
        drawn = []
        for unit, name in _UNITS.items():
            sizes = {int(match["size"].replace(",", "")) for match in found if match["unit"] == unit}
            if sizes:
                drawn.append(f"{_range(sizes)} {name}")
        times = " or ".join(sorted({match["times"] for match in found}))
        kinds = [words for kind, words in _KINDS.items() if any(match["kind"] == kind for match in found)]
        parts.append(
            f"95 % intervals by a stratified bootstrap: {' or '.join(drawn)} are drawn again {times} times, and the "
            f"standard error over these resamples goes into {', and into '.join(kinds)}."
        )
    if any(match["one_sided"] for match in found):
        parts.append("Where too few reals bound a threshold, they begin at 0 and bound the number from above alone.")
    if others:
        parts.append(f"{'Others' if found else '95 % intervals'}, stated as {'; or '.join(others)}.")
    return " ".join(parts)


def _range(sizes: Iterable[int]) -> str:
    ordered = sorted(sizes)
    return f"{ordered[0]:,}" if len(ordered) == 1 else f"{ordered[0]:,} to {ordered[-1]:,}"
