"""Leaderboards made of a few rows, for what is done with a leaderboard that was built."""

from __future__ import annotations

from typing import Any

import polars as pl

from rine_cache.leaderboard import SCHEMA
from rine_cache.specs.base import parse
from rine_cache.specs.benchmark import BenchmarkSpec

BENCHMARK = parse(
    BenchmarkSpec,
    {
        "name": "bench",
        "title": "Bench",
        "test_sets": {"adm": {"dataset": "adm"}, "big_gan": {"dataset": "big_gan"}},
        "protocols": {
            "bench-2": {
                "test_sets": ["adm", "big_gan"],
                "headline": ["acc", "ap"],
                "training_sets": ["sd14"],
            }
        },
    },
    "the test's benchmark",
)
_MEASURED = {
    "kind": "measured",
    "benchmark": "bench",
    "protocol": "bench-2",
    "training_set": "sd14",
    "method": "RINE",
    "test_set": "mean",
    "metric": "acc",
    "value": 80.0,
    "ci_low": 79.0,
    "ci_high": 81.0,
    "seed_count": 3,
    "rank": 1,
    "coverage": "2/2",
    "n_real": 400,
    "n_fake": 400,
    "n_quarantined": 0,
    "encoder": "clip-vit-l14",
    "weights": "openai",
    "tap": "ln_2",
    "view": "center224",
    "blocks": "all",
    "head": "rine",
    "source_kind": "measured",
    "source": "rine-cache 0.1.0",
    "oracle": False,
    "code_version": "0.1.0",
    "data_fingerprint": "dddd",
    "encoder_fingerprint": "eeee",
    "training_fingerprint": "tttt",
    "head_fingerprint": "aaaa",
}
_PUBLISHED = {
    **{name: _MEASURED[name] for name in ("benchmark", "protocol", "training_set", "method", "test_set", "metric")},
    "kind": "published",
    "value": 80.5,
    "rank": 1,
    "coverage": "2/2",
    "source_kind": "primary",
    "source": "a paper, Table 1",
    "oracle": False,
    "benchmark_as_published": "Bench",
    "protocol_as_published": "SD v1.4",
    "test_set_as_published": "Avg.",
    "metric_as_published": "Acc",
}


def measured(**changes: Any) -> dict[str, Any]:
    return {**_MEASURED, **changes}


def published(**changes: Any) -> dict[str, Any]:
    return {**_PUBLISHED, **changes}


def board(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame([{**dict.fromkeys(SCHEMA.names()), **row} for row in rows], SCHEMA)
