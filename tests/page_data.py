"""Leaderboards made up for the page's tests: as large as wanted, with intervals, comparisons and hostile names."""

from __future__ import annotations

import base64
import json
import re
import zlib
from typing import Any

import numpy as np
import polars as pl

from rine_cache.curves import SCHEMA as CURVES
from rine_cache.curves import histogram_points, reliability_points, roc_points
from rine_cache.leaderboard import SCHEMA
from rine_cache.specs.benchmark import MEAN, BenchmarkSpec

HOSTILE = "<script>window.hacked = true</script>"


def benchmark(name: str = "made-up", test_sets: int = 3, **settings: Any) -> BenchmarkSpec:
    names = [f"generator-{number:02d}" for number in range(test_sets)]
    sources = {each: {"dataset": "images", "subsets": [each]} for each in names}
    protocols = {"all": {"test_sets": names, "headline": ["acc", "auc"]}}
    if test_sets > 1:
        protocols["first"] = {"test_sets": names[:1], "headline": ["acc"]}
    return BenchmarkSpec.model_validate(
        {"name": name, "title": name.title(), "test_sets": sources, "protocols": protocols, **settings}
    )


def row(**columns: Any) -> dict[str, Any]:
    """Make a row of the leaderboard, measured unless said otherwise."""
    value = columns.get("value")
    defaults = {
        **dict.fromkeys(SCHEMA.names()),
        "kind": "measured",
        "source_kind": "measured",
        "benchmark": "made-up",
        "protocol": "all",
        "training_set": "train-a",
        "test_set": MEAN,
        "metric": "acc",
        "coverage": "3/3",
        "oracle": False,
        "encoder": "clip-vit-b16",
        "weights": "openai",
        "tap": "ln_2",
        "view": "center224",
        "head": "rine",
        "blocks": "all",
        "n_real": 1000,
        "n_fake": 1000,
        "n_quarantined": 0,
        "source": "rine-cache 0.1.0",
        "code_version": "0.1.0",
        "seed_count": 1,
        "trainable_parameters": 1000,
        "ci_low": value and max(0.0, value - 1.5),
        "ci_high": value and min(100.0, value + 1.5),
    }
    return {**defaults, **columns}


def published(method: str, **columns: Any) -> dict[str, Any]:
    """Make a row as papers state it: a value with its source, and little else."""
    unknown = ("encoder", "weights", "tap", "view", "head", "blocks", "n_real", "n_fake", "n_quarantined")
    unknown += ("code_version", "seed_count", "trainable_parameters", "ci_low", "ci_high")
    columns = {"source": "arXiv:0000.00000, Table 1", **columns}
    return row(kind="published", source_kind="primary", method=method, **dict.fromkeys(unknown), **columns)


def table(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA)


def large(methods: int, spec: BenchmarkSpec, metrics: tuple[str, ...] = ("acc", "auc"), seed: int = 0) -> pl.DataFrame:
    """Make a leaderboard of so many methods on all of a benchmark's test sets."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(methods):
        skill = rng.uniform(55, 98)
        for metric in metrics:
            for test_set in (MEAN, *spec.test_sets):
                value = float(np.clip(skill + rng.normal(0, 5), 1, 100))
                rows.append(
                    row(
                        method=f"method-{number:03d}",
                        training_set=f"train-{'ab'[number % 2]}",
                        benchmark=spec.name,
                        test_set=test_set,
                        metric=metric,
                        value=value,
                        std=0.4,
                        seed_count=3,
                        coverage=f"{len(spec.test_sets)}/{len(spec.test_sets)}",
                        rank=number + 1,
                        trainable_parameters=1000 * (1 + number),
                        ci_method="stratified bootstrap over images, 1,000 resamples",
                        best_difference=value - 98,
                        best_difference_low=value - 99,
                        best_difference_high=value - 97,
                        best_p_value=0.2,
                        tied_with_best=value > 96,
                    )
                )
    return table(rows)


def curves_of(methods: int, test_sets: int, images: int = 60, seed: int = 0) -> pl.DataFrame:
    """Draw the curves of so many methods, the last the best, of protocol ``all`` and each of its test sets."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], images // 2)  # (n,)
    tables = [pl.DataFrame(schema=CURVES)]
    for number in range(methods):
        parts = [(labels, rng.normal(size=images) + 2 * number * labels / methods) for _ in range(test_sets)]
        own = {f"generator-{place:02d}": [part] for place, part in enumerate(parts)}
        for test_set, scored in {MEAN: parts, **own}.items():
            tables += [
                make(scored).with_columns(
                    benchmark=pl.lit("made-up"),
                    protocol=pl.lit("all"),
                    test_set=pl.lit(test_set),
                    training_set=pl.lit("train-a"),
                    method=pl.lit(f"method-{number}"),
                )
                for make in (roc_points, reliability_points, histogram_points)
            ]
    return pl.concat(tables, how="diagonal_relaxed")


def unpacked(page: str) -> list[Any]:
    """Read the data that a page carries for its panels."""
    blocks = re.findall(r'<script type="text/plain" class="payload">(.*?)</script>', page)
    return [json.loads(zlib.decompress(base64.b64decode(block, validate=True))) for block in blocks]
