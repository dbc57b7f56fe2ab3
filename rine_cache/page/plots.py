"""What the page's plots show beside the leaderboard's numbers and its curves: robustness, blocks, matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from rine_cache.ablation_table import describe as describe_ablation
from rine_cache.ablation_table import families_of, remarks_on, spelt, test_sets_of
from rine_cache.curves import BLOCK_WEIGHT
from rine_cache.matrix import NOTE, OVERALL, TRAINING_SET, UNSEEN
from rine_cache.matrix import describe as describe_matrix
from rine_cache.matrix import remarks_on as remarks_on_matrix
from rine_cache.matrix import test_sets_of as matrix_test_sets_of
from rine_cache.page.payload import metric_title
from rine_cache.specs.benchmark import MEAN
from rine_cache.specs.blocks import GREEDY
from rine_cache.specs.encoding import BUILTIN_VIEWS, CenterViewSpec, PerturbedViewSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import polars as pl

    from rine_cache.specs.ablation import AblationSpec
    from rine_cache.specs.benchmark import BenchmarkSpec
    from rine_cache.specs.encoding import ViewSpec
    from rine_cache.specs.matrix import MatrixSpec

# What an operation is called, and the key of its strength: first the weakest where it is greatest.
_STRENGTHS = {
    "jpeg": ("JPEG quality", "quality", True),
    "webp": ("WebP quality", "quality", True),
    "blur": ("Gaussian blur, sigma in pixels", "sigma", False),
    "downscale": ("downscaled to this share of the side", "factor", True),
    "noise": ("Gaussian noise, standard deviation of 255", "std", False),
}
_RINE = "RINE's perturbations, of every second image"
_FAMILIES = {
    "each": ("Each block alone", "the one block read"),
    "leave-one-out": ("All blocks but one", "the one block left out"),
    "prefixes": ("The first blocks", "how many of the first blocks are read"),
    "suffixes": ("The last blocks", "how many of the last blocks are read"),
    GREEDY: ("Forward selection", "block added in each round"),
    "": ("Single subsets", "blocks read"),
}


class Strength(NamedTuple):
    """What a view does to an image before the crop, and how much of it."""

    operation: str
    label: str
    order: float


def block_weights(curves: pl.DataFrame) -> list[dict[str, Any]]:
    """Describe how each method's TIE weighs the blocks, counted from 1."""
    lines = curves.filter(curve=BLOCK_WEIGHT).group_by("method", "training_set", maintain_order=True)
    return [
        {
            "method": method,
            "training": training_set,
            "x": [int(block) + 1 for block in points["x"]],
            "y": _rounded(points["y"]),
        }
        for (method, training_set), points in lines
        if points.height > 1  # of one block alone the weight is 1
    ]


def strength_of(view: ViewSpec) -> Strength | None:
    """Say what a view perturbs and how strongly, or None for one that is no step of a sweep."""
    if isinstance(view, PerturbedViewSpec):
        as_named = view.how == "as-named"
        names = ("blur", "crop", "compress", "noise", "combined")
        return Strength(f"{_RINE}{', as named' if as_named else ''}", view.perturbation, names.index(view.perturbation))
    if isinstance(view, CenterViewSpec) and len(view.prepare) == 1:
        operation = view.prepare[0]
        if operation.op in _STRENGTHS:
            title, key, descending = _STRENGTHS[operation.op]
            value = float(getattr(operation, key))
            return Strength(title, f"{value:g}", -value if descending else value)
    return None


def robustness(benchmarks: Sequence[BenchmarkSpec], views: Mapping[str, ViewSpec]) -> dict[str, list[dict[str, Any]]]:
    """Find, by benchmark, its protocols that differ in one thing alone, and so are the steps of a sweep.

    Those that test the same images under a perturbation at several strengths are found by their views; others say so
    themselves (`rine_cache.specs.benchmark.SweepSpec`).

    Returns
    -------
    Per sweep its title and, in order, what stands at each step and the protocol that holds the values: of a
    perturbation from none to the strongest. An operation of one step is no sweep.
    """
    known = {**BUILTIN_VIEWS, **views}
    found = {benchmark.name: [*_stated(benchmark), *_perturbed(benchmark, known)] for benchmark in benchmarks}
    return {name: sweeps for name, sweeps in found.items() if sweeps}


def _stated(benchmark: BenchmarkSpec) -> Iterator[dict[str, Any]]:
    for along, steps in benchmark.sweeps().items():
        yield {"title": along, "steps": [{"label": f"{at:g}", "protocol": protocol} for at, protocol in steps]}


def _perturbed(benchmark: BenchmarkSpec, views: Mapping[str, ViewSpec]) -> Iterator[dict[str, Any]]:
    sweeps: dict[tuple[tuple[str, ...], str], list[tuple[float, str, str]]] = {}
    clean: dict[tuple[str, ...], str] = {}
    for protocol, spec in benchmark.protocols.items():
        view = views.get(benchmark.view_of(protocol))
        if view is None or spec.cap is not None:
            continue
        if isinstance(view, CenterViewSpec) and not view.prepare:
            clean.setdefault(spec.test_sets, protocol)
        if strength := strength_of(view):
            steps = sweeps.setdefault((spec.test_sets, strength.operation), [])
            steps.append((strength.order, strength.label, protocol))
    for (test_sets, operation), steps in sweeps.items():
        if len(steps) > 1:
            first = [{"label": "none", "protocol": clean[test_sets]}] if test_sets in clean else []
            rest = [{"label": label, "protocol": protocol} for _, label, protocol in sorted(steps)]
            yield {"title": operation, "steps": [*first, *rest]}


def ablation_payload(table: pl.DataFrame, spec: AblationSpec) -> dict[str, Any]:
    """Describe an ablation: per family and metric, values by subset, for each test set and their mean.

    Single subsets, such as ``all``, are levels to compare the families with; without a family they are one themselves.
    """
    test_sets = test_sets_of(table)
    columns = [MEAN, *test_sets] if len(test_sets) > 1 else test_sets
    families = []
    parts = families_of(table)
    levels = parts.pop("") if len(parts) > 1 and "" in parts else table.clear()
    for family, rows in parts.items():
        title, axis = _FAMILIES[family]
        curves = []
        for metric in spec.metrics:
            for test_set in columns:
                points = rows.filter(metric=metric, test_set=test_set)
                curves.append(
                    {
                        "metric": metric,
                        "test_set": test_set,
                        "x": [_subset_label(row, family) for row in points.iter_rows(named=True)],
                        "y": _rounded(points["value"], 2),
                        "std": _rounded(points["std"], 2),
                        "loss": _rounded(points["validation_loss"]),
                    }
                )
        families.append({"title": title, "axis": axis, "curves": curves})
    single = [
        {"metric": row["metric"], "label": _subset_label(row, ""), "y": row["value"], "std": row["std"]}
        for row in levels.filter(test_set=columns[0]).drop_nulls("value").iter_rows(named=True)
    ]
    return {
        "title": spec.title,
        "about": " ".join([f"{describe_ablation(spec)}. Blocks are counted from 1 here.", *remarks_on(table)]),
        "metrics": [{"id": metric, "title": metric_title(metric)} for metric in spec.metrics],
        "families": families,
        "levels": single,
    }


def matrix_payload(matrix: pl.DataFrame, spec: MatrixSpec) -> dict[str, Any]:
    """Describe a cross-generator matrix: its cells, which of them are of a generator that was trained on."""
    test_sets = matrix_test_sets_of(matrix)
    columns = [*test_sets, MEAN, UNSEEN]
    rows = []
    for row in matrix.drop(NOTE).iter_rows(named=True):
        seen = spec.trained_on.get(row[TRAINING_SET], ())
        blank = set(test_sets) <= set(seen)
        cells = [{"value": row[name], "seen": name in seen, "blank": name == UNSEEN and blank} for name in columns]
        rows.append({"name": row[TRAINING_SET], "cells": cells, "overall": row[TRAINING_SET] == OVERALL})
    return {
        "title": spec.title,
        "about": " ".join([f"{describe_matrix(spec)}, in percent.", *remarks_on_matrix(matrix)]),
        "columns": columns,
        "metric": spec.metric,
        "rows": rows,
    }


def _subset_label(row: dict[str, Any], family: str) -> str:
    if family in ("each", "leave-one-out"):
        return str(row["block"] + 1)
    if family == GREEDY:
        return f"+{row['block'] + 1}"
    if family:
        return str(len(row["blocks"]))
    return row["family"] if row["family"][0].isalpha() else spelt(row["blocks"], first=1)


def _rounded(values: pl.Series, decimals: int = 4) -> list[float | None]:
    return values.round(decimals).to_list()
