from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from rine_cache.sampling_error import as_replicates
from rine_cache.ties import SCHEMA, with_ties

KEYS = ("test_set", "metric")
SHARED = np.random.default_rng(0).normal(0, 0.02, 1000)


def row(method: str, value: float | None, seed: int = 0, **given: Any) -> dict[str, Any]:
    own = np.random.default_rng(seed).normal(0, 0.002, 1000)
    replicates = None if value is None else as_replicates((SHARED + own).astype(np.float16))
    return {
        "method": method, "test_set": "a", "metric": "acc", "value": value, "oracle": False,
        "ci_low": None if value is None else value - 4, "ci_high": None if value is None else value + 4,
        "ci_units": 500, "ci_strata": 2, "ci_digest": "x", "replicates": replicates, **given,
    }  # fmt: skip


def compared(*rows: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = with_ties(pl.DataFrame(rows, infer_schema_length=None), KEYS)
    assert found.select(rows[0].keys()).rows() == pl.DataFrame(rows, infer_schema_length=None).rows()
    assert found.select(SCHEMA.names()).schema == SCHEMA
    return {one["method"]: one for one in found.iter_rows(named=True)}


def test_methods_are_set_against_the_best_in_percentage_points() -> None:
    found = compared(row("far", 80.0, 1), row("best", 90.0, 2), row("near", 89.8, 3))
    assert found["best"]["tied_with_best"]
    assert found["best"]["best_difference"] is None
    assert found["best"]["best_p_value"] is None
    assert found["near"]["tied_with_best"]
    assert found["near"]["best_difference"] == pytest.approx(-0.2)
    assert found["near"]["best_difference_low"] < -0.2 < 0 < found["near"]["best_difference_high"]
    assert not found["far"]["tied_with_best"]
    assert found["far"]["best_difference_high"] < 0
    assert found["far"]["best_p_value"] < 1e-6


def test_of_an_error_the_smallest_is_the_best() -> None:
    found = compared(row("small", 2.0, 1, metric="ece"), row("large", 12.0, 2, metric="ece"))
    assert found["small"]["best_difference"] is None
    assert found["large"]["best_difference"] == pytest.approx(10.0)


def test_an_oracle_is_not_compared_and_no_best() -> None:
    found = compared(row("oracle", 95.0, 1, oracle=True), row("best", 90.0, 2), row("other", 80.0, 3))
    assert [found["oracle"][name] for name in SCHEMA.names()] == [None] * len(SCHEMA)
    assert found["other"]["best_difference"] == pytest.approx(-10.0)


def test_what_was_resampled_otherwise_is_not_compared() -> None:
    found = compared(row("best", 90.0, 1), row("alike", 80.0, 2), row("else", 85.0, 3, ci_digest="y"))
    assert found["else"]["tied_with_best"] is None
    assert found["alike"]["best_difference"] == pytest.approx(-10.0)
    found = compared(row("best", 90.0, 1, ci_digest="z"), row("one", 80.0, 2), row("two", 85.0, 3))
    assert {found[name]["tied_with_best"] for name in found} == {None}  # the best is alone with its images


def test_a_method_alone_is_not_compared() -> None:
    found = compared(row("one", 90.0, 1), row("other", 80.0, 2, test_set="b"), row("none", None, 3))
    assert {found[name]["tied_with_best"] for name in found} == {None}


def test_equal_methods_tie() -> None:
    found = compared(row("one", 90.0, 1), row("same", 90.0, 1))
    assert found["one"]["best_difference"] is None
    assert (found["same"]["best_difference"], found["same"]["tied_with_best"]) == (0.0, True)
