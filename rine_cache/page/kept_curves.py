"""Curves as the page holds them: in whole thousandths, those of single test sets only as far as their budget goes.

A method's curves on one test set take half a kilobyte, those of 200 methods on 60 test sets 6 MB: too much for a phone.
So the methods with the largest areas go first.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from rine_cache.curves import HISTOGRAM, RELIABILITY, ROC, ROC_GRID
from rine_cache.specs.benchmark import MEAN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Characters that the curves of single test sets may take; deflated, a page grows by a quarter of it. Those of means are
# always kept.
BUDGET = 4_000_000
# What the points of all curves share.
GRIDS = {"roc": ROC_GRID.round(4).tolist()}

# By method and training set, then by test set.
_Found = dict[tuple[str, str], dict[str, dict[str, Any]]]


def kept_curves(curves: pl.DataFrame, budget: int = BUDGET) -> dict[tuple[str, str], dict[str, Any]]:
    """Describe the curves of each protocol, and choose those of single test sets.

    Parameters
    ----------
    curves
        Rows of `rine_cache.curves.SCHEMA`.
    budget
        Characters for the curves of single test sets, over all protocols.

    Returns
    -------
    By benchmark and protocol: its ``methods``, each with its training set, the largest area below the ROC first; per
    test set and for `MEAN`, in ``sets``, their curves in that order, None where there is none; and in ``left_out`` of
    how many methods, the last ones, single test sets are not kept. Every protocol keeps as many methods as any other,
    if it has them.
    """
    protocols = {name: _Protocol(found) for name, found in _by_protocol(curves).items()}
    most = max((len(protocol.methods) for protocol in protocols.values()), default=0)
    used = 0
    for place in range(most):
        used += sum(protocol.size(place) for protocol in protocols.values())
        if used > budget:
            most = place
            break
    return {name: protocol.payload(most) for name, protocol in protocols.items()}


def _by_protocol(curves: pl.DataFrame) -> dict[tuple[str, str], _Found]:
    """Sort points into benchmarks and protocols, methods, test sets; in whole thousandths."""
    keys = ("benchmark", "protocol", "method", "training_set", "test_set", "curve", "label")
    thousandths = (pl.col("x", "y") * 1000).round().cast(pl.Int64)
    lists = (
        curves.filter(pl.col("protocol").is_not_null())
        .with_columns(thousandths)
        .group_by(keys, maintain_order=True)
        .agg("x", "y", "n")
    )
    found: dict[tuple[str, str], _Found] = {}
    for benchmark, protocol, method, training_set, test_set, curve, label, x, y, n in lists.iter_rows():
        methods = found.setdefault((benchmark, protocol), {})
        points = methods.setdefault((method, training_set), {}).setdefault(test_set, {})
        if curve == ROC:
            points |= {"roc": y, "n": n[0]}
        elif curve == RELIABILITY:
            points["reliability"] = [x, y, n]
        elif curve == HISTOGRAM:
            points[label] = y
    return found


class _Protocol:
    """The curves of one protocol by method and test set."""

    def __init__(self, found: _Found) -> None:
        self._found = found
        self.methods = sorted(found, key=lambda method: -_area(found[method]))
        names = list(dict.fromkeys(name for of_sets in found.values() for name in of_sets))
        # A lone test set is the protocol's mean.
        self._means = MEAN in names
        self._single = [name for name in names if name != MEAN] if not self._means or len(names) > 2 else []

    def size(self, place: int) -> int:
        """Count the characters that the single test sets of the method at a place take."""
        found = self._found[self.methods[place]] if place < len(self.methods) else {}
        return sum(len(json.dumps(found[name], separators=(",", ":"))) for name in self._single if name in found)

    def payload(self, most: int) -> dict[str, Any]:
        """Describe the curves, those of single test sets of the first `most` methods."""
        names = [*([MEAN] if self._means else []), *self._single]
        return {
            "methods": self.methods,
            "sets": {
                name: [
                    self._found[method].get(name) if name == MEAN or place < most else None
                    for place, method in enumerate(self.methods)
                ]
                for name in names
            },
            "left_out": max(0, len(self.methods) - most) if self._single else 0,
        }


def _area(found: Mapping[str, Mapping[str, Sequence[int]]]) -> float:
    """Return the area below the mean's ROC, or, where there is none, the mean area over the test sets."""
    kept = [found[MEAN]] if MEAN in found else list(found.values())
    return float(np.mean([np.trapezoid(each["roc"], ROC_GRID) for each in kept]))
