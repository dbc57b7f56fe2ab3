"""What the page shows of a leaderboard: per benchmark and protocol its lines, and per metric their cells, column-wise.

A line is a measured method with its training set, or one source's account of a published one. Values are rounded to
what is shown of them, and lists that hold nothing are left out: this is most of the page's size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from rine_cache.metadata_baseline import METHOD as METADATA_ONLY
from rine_cache.report import METRIC_TITLES
from rine_cache.specs.benchmark import ERRORS, MEAN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rine_cache.specs.benchmark import BenchmarkSpec, ProtocolSpec

# Metrics for which a coin toss gives 50 on two classes of one size: their colours begin there.
_FROM_CHANCE = ("acc", "balanced_acc", "ap", "auc", "acc_validation_threshold", "acc_best_threshold")
# What tells lines apart. Two sources' accounts of a method both stand.
_LINE = (
    "kind",
    "source_kind",
    "method",
    "training_set",
    "oracle",
    "source",
    "note",
    "protocol_as_published",
    "encoder",
    "weights",
    "tap",
    "view",
    "blocks",
    "head",
)
# Columns of a cell and the decimals kept of them.
_CELL = {
    "value": 2,
    "std": 2,
    "ci_low": 2,
    "ci_high": 2,
    "best_difference": 2,
    "best_difference_low": 2,
    "best_difference_high": 2,
    "best_p_value": 4,
    "tied_with_best": 0,
}
# Of a published row what was measured of the same; with the verdict, and what differs, a cell's `beside`.
_BESIDE = ("measured_value", "measured_ci_low", "measured_ci_high", "measured_difference")
_COUNTS = ("n_real", "n_fake", "n_quarantined", "n_leaked")


class _Filled(NamedTuple):
    """A protocol's rows, sorted.

    Attributes
    ----------
    lines
        One per row of the table.
    cells
        By metric, test set and column of `_CELL`, a value per line; and, by line, in `beside` what was measured of the
        same as a published cell: the columns of `_BESIDE`, the method, the verdict, and the place of its remark. In
        `interval_note` what else is said of intervals: the same of all methods, as all are of the same images.
    counts
        By test set.
    remarks
        In what the protocols of published and measured cells differ, each text once.
    """

    lines: list[dict[str, Any]]
    cells: dict[str, dict[str, dict[str, Any]]]
    counts: dict[str, dict[str, Any]]
    remarks: list[str]


def benchmark_payloads(leaderboard: pl.DataFrame, benchmarks: Sequence[BenchmarkSpec]) -> list[dict[str, Any]]:
    """Describe every benchmark that has a line, in the order given; those that no file defines come last.

    Parameters
    ----------
    leaderboard
        Rows of `rine_cache.leaderboard.SCHEMA`.
    benchmarks
        Benchmarks whose titles, protocols and order are used.

    Returns
    -------
    JSON-like dictionaries; the page's program reads them as they are.
    """
    parts = leaderboard.partition_by("benchmark", "protocol", as_dict=True, maintain_order=True)
    specs = {benchmark.name: benchmark for benchmark in benchmarks}
    payloads = []
    for name in dict.fromkeys([*specs, *(str(name) for name, _ in parts)]):
        spec = specs.get(name)
        found = [protocol for owner, protocol in parts if owner == name]
        order = [protocol for protocol in (spec.protocols if spec else ()) if protocol in found]
        protocols = [
            _protocol(protocol, spec.protocols.get(protocol) if spec else None, parts[name, protocol])
            for protocol in dict.fromkeys([*order, *found])
        ]
        if protocols:
            payloads.append(
                {
                    "id": name,
                    "title": spec.title if spec else name,
                    "about": spec.about if spec else "No benchmark file of this configuration defines it.",
                    "note": spec.note if spec else "",
                    "ranked": spec.ranked if spec else True,
                    "measured": any(line["status"] == "measured" for each in protocols for line in each["lines"]),
                    "protocols": protocols,
                }
            )
    return payloads


def metric_title(metric: str) -> str:
    """Name a metric for people, also one that only papers report."""
    return METRIC_TITLES.get(metric, metric.replace("_", " "))


def _protocol(name: str, spec: ProtocolSpec | None, rows: pl.DataFrame) -> dict[str, Any]:
    own = list(spec.test_sets) if spec else []
    lone = own[0] if len(own) == 1 else None
    if lone is not None:  # a lone test set is its own mean
        rows = rows.with_columns(pl.col("test_set").replace(lone, MEAN))
        own = []
    found = rows["test_set"].unique(maintain_order=True)
    columns = [MEAN, *own, *(each for each in found if each != MEAN and each not in own)]
    filled = _fill(rows)
    cells = filled.cells
    headline = list(spec.headline) if spec else []
    metrics = [metric for metric in dict.fromkeys([*headline, *METRIC_TITLES, *cells]) if metric in cells]
    return {
        "id": name,
        "lone": lone,
        "heading": _heading(spec, [each for each in columns if each != MEAN]),
        "columns": [each for each in columns if each == MEAN or any(each in by_set for by_set in cells.values())],
        "lines": filled.lines,
        "metrics": [
            {
                "id": metric,
                "title": metric_title(metric),
                "from": 50 if metric in _FROM_CHANCE else 0,
                "lower": metric in ERRORS,
            }
            for metric in metrics
        ],
        "cells": {metric: cells[metric] for metric in metrics},
        "counts": filled.counts,
        "remarks": filled.remarks,
    }


def _heading(spec: ProtocolSpec | None, test_sets: Sequence[str]) -> str:
    if spec is None:
        return f"{len(test_sets)} test sets as published" if test_sets else "as published"
    size = len(spec.test_sets)
    parts = [f"test set {spec.test_sets[0]}" if size == 1 else f"mean of {size} test sets"]
    if spec.cap is not None:
        parts.append(f"at most {spec.cap.per_class:,} images a class")
    if spec.view is not None:
        parts.append(f"through {spec.view}")
    if spec.training_sets:
        parts.append(f"asks for training on {' or '.join(spec.training_sets)}")
    return ", ".join(parts)


def _fill(rows: pl.DataFrame) -> _Filled:
    """Sort a protocol's rows into lines, and cells by metric and test set."""
    lines: list[dict[str, Any]] = []
    index_of: dict[tuple[Any, ...], int] = {}
    filled: set[tuple[int, str, str]] = set()
    table: dict[str, dict[str, dict[str, dict[int, Any]]]] = {}
    counts: dict[str, dict[int, tuple[Any, ...]]] = {}
    said: dict[tuple[str, str], dict[str, Any]] = {}
    remarks: dict[str, int] = {}
    used = [*_LINE, *_COUNTS, *_CELL, *_BESIDE, "measured_method", "measured_verdict", "measured_remarks", "ci_method"]
    used += ["metric", "test_set", "rank", "coverage", "seed_count", "trainable_parameters"]
    for row in rows.select(used).iter_rows(named=True):
        key = tuple(row[column] for column in _LINE)
        place = (row["metric"], row["test_set"])
        while (index := index_of.setdefault(key, len(index_of)), *place) in filled:
            # A source that states a number twice, differently, has two lines.
            if row["value"] in (None, table.get(place[0], {}).get(place[1], {}).get("value", {}).get(index)):
                break
            key = (*key, "again")
        filled.add((index, *place))
        if index == len(lines):
            lines.append(_line(row))
        line = lines[index]
        line["seeds"] = max(line["seeds"] or 0, row["seed_count"] or 0) or None
        line["parameters"] = line["parameters"] or row["trainable_parameters"]
        if row["value"] is not None and line["status"] == "unmeasured":
            line["status"] = "measured"
        if row["n_real"] is not None:
            counts.setdefault(row["test_set"], {})[index] = tuple(row[name] for name in _COUNTS)
        if row["value"] is None:
            continue
        by_set = table.setdefault(row["metric"], {})
        cell = by_set.setdefault(row["test_set"], {})
        for field, decimals in _CELL.items():
            if row[field] is not None and row[field] == row[field]:  # of the best itself a difference may be NaN
                cell.setdefault(field, {})[index] = _short(row[field], decimals)
        if note := (row["ci_method"] or "").partition("; ")[2]:
            said.setdefault(place, {})["interval_note"] = note
        if row["measured_verdict"] is not None:
            remark = row["measured_remarks"]
            numbers = [None if row[name] is None else _short(row[name], 2) for name in _BESIDE]
            known = remarks.setdefault(remark, len(remarks)) if remark else None
            stated = (row["measured_method"], row["measured_verdict"])
            said.setdefault(place, {}).setdefault("beside", {})[index] = [*numbers, *stated, known]
        if row["test_set"] == MEAN:
            cell.setdefault("rank", {})[index] = row["rank"]
            cell.setdefault("coverage", {})[index] = row["coverage"]
        elif row["coverage"] is not None:
            by_set.setdefault(MEAN, {}).setdefault("coverage", {}).setdefault(index, row["coverage"])
    size = len(lines)
    cells = {
        metric: {
            test_set: {
                **{field: _dense(values, size) for field, values in cell.items() if any(_known(values))},
                **said.get((metric, test_set), {}),
            }
            for test_set, cell in by_set.items()
        }
        for metric, by_set in table.items()
    }
    counted = {test_set: _coded(of_set, size) for test_set, of_set in counts.items()}
    return _Filled(lines, cells, counted, list(remarks))


def _known(values: dict[int, Any]) -> Iterator[bool]:
    return (value is not None for value in values.values())


def _line(row: dict[str, Any]) -> dict[str, Any]:
    status = "unmeasured" if row["kind"] == "measured" else "published"
    return {
        "method": row["method"],
        "status": status,
        "training": row["training_set"],
        "oracle": bool(row["oracle"]),
        "baseline": row["kind"] == "measured" and row["method"] == METADATA_ONLY,
        "encoder": row["encoder"],
        "weights": row["weights"],
        "tap": row["tap"],
        "view": row["view"],
        "blocks": row["blocks"],
        "head": row["head"],
        "parameters": None,
        "seeds": None,
        "source": row["source"],
        "aggregator": row["source_kind"] == "aggregator",
        "note": row["note"],
        "as_published": row["protocol_as_published"],
    }


def _short(value: float, decimals: int) -> float | int:
    """Round for JSON: ``93.5`` takes less room than ``93.50000000001``, and ``93`` than ``93.0``."""
    rounded = round(float(value), decimals)
    return int(rounded) if rounded == int(rounded) else rounded


def _dense(values: dict[int, Any], size: int) -> list[Any]:
    return [values.get(index) for index in range(size)]


def _coded(values: dict[int, tuple[Any, ...]], size: int) -> dict[str, Any]:
    """Write each distinct tuple once: most lines of a test set count the same images."""
    distinct = list(dict.fromkeys(values.values()))
    place = {value: index for index, value in enumerate(distinct)}
    return {"distinct": distinct, "of": [place[values[i]] if i in values else None for i in range(size)]}
