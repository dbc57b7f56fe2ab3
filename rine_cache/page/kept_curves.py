"""Curves as the page holds them: in whole thousandths, those of single test sets only as far as their budget goes.

A method's curves on one test set take half a kilobyte. Of 200 methods on 60 test sets they would be several times as
large as the rest of the page, which nobody could open on a phone, so the methods with the largest areas go first.
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

# Characters that the curves of single test sets may take of a page; those of means are always kept.
BUDGET = 1_000_000
# What the points of all curves share.
GRIDS = {"roc": ROC_GRID.round(4).tolist()}

_OF_METHOD = ("method", "training_set")


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
    protocols = {
        (str(benchmark), str(protocol)): _Protocol(rows)
        for (benchmark, protocol), rows in curves.filter(pl.col("protocol").is_not_null()).group_by(
            "benchmark", "protocol", maintain_order=True
        )
    }
    most = max((len(protocol.methods) for protocol in protocols.values()), default=0)
    used = 0
    for place in range(most):
        used += sum(protocol.size(place) for protocol in protocols.values())
        if used > budget:
            most = place
            break
    return {name: protocol.payload(most) for name, protocol in protocols.items()}


class _Protocol:
    """The curves of one protocol by method and test set."""

    def __init__(self, rows: pl.DataFrame) -> None:
        self._found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
        for (*method, test_set), own in rows.group_by(*_OF_METHOD, "test_set", maintain_order=True):
            self._found.setdefault((str(method[0]), str(method[1])), {})[str(test_set)] = _points(own)
        self.methods = sorted(self._found, key=lambda method: -_area(self._found[method]))
        names = rows["test_set"].unique(maintain_order=True).to_list()
        # A lone test set is the protocol's mean.
        self._single = [name for name in names if name != MEAN] if len(names) != 2 else []
        self._means = MEAN in names

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


def _points(rows: pl.DataFrame) -> dict[str, Any]:
    roc, reliability = rows.filter(curve=ROC), rows.filter(curve=RELIABILITY)
    histograms = {label: _thousandths(rows.filter(curve=HISTOGRAM, label=label)["y"]) for label in ("real", "fake")}
    return {
        "n": roc["n"].first(),
        "roc": _thousandths(roc["y"]),
        "reliability": [_thousandths(reliability["x"]), _thousandths(reliability["y"]), reliability["n"].to_list()],
        **histograms,
    }


def _thousandths(values: pl.Series) -> list[int]:
    return (values * 1000).round().cast(pl.Int64).to_list()


def _area(found: Mapping[str, Mapping[str, Sequence[int]]]) -> float:
    """Return the area below the mean's ROC, or, where there is none, the mean area over the test sets."""
    kept = [found[MEAN]] if MEAN in found else list(found.values())
    return float(np.mean([np.trapezoid(each["roc"], ROC_GRID) for each in kept]))
