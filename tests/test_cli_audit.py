"""The commands of audits, from a cache to pages and metrics."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import polars as pl
import pytest
from click.testing import CliRunner

from rine_cache.cli.audit import audit, baseline, duplicates
from rine_cache.duplicates import DISTANCE
from rine_cache.errors import CacheMismatchError, ConfigError
from rine_cache.evaluate import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import MadeCache


def test_from_a_cache_to_leaks_and_metrics(make_cache: Callable[..., MadeCache], tmp_path: Path) -> None:
    def run(command: object, *arguments: object) -> None:
        CliRunner().invoke(command, [*map(str, arguments)], catch_exceptions=False, standalone_mode=False)  # type: ignore[arg-type]

    for name in ("train", "test"):
        made = make_cache(name, seed=0)  # the same images: all leak
        made_of = [made.features, made.manifest_path]
        run(
            audit,
            *made_of,
            "--dataset",
            name,
            "--out",
            tmp_path / f"{name}.audit",
            "--markdown",
            tmp_path / f"{name}.md",
        )
    assert (tmp_path / "test.md").read_text().startswith("# Audit of test\n\n30 images: 10 real, 20 fake")

    audits = [tmp_path / "train.audit", tmp_path / "test.audit"]
    part = {"dataset": "train", "view": "center224"}
    training_set = json.dumps({"train": [part], "validation": [part]})
    spec = {
        "name": "b",
        "title": "b",
        "test_sets": {"t": {"dataset": "test"}},
        "protocols": {"p": {"test_sets": ["t"]}},
    }
    options = ["--benchmark", json.dumps(spec), "--out", tmp_path / "out.parquet"]
    run(duplicates, *audits, f"--training-set=mine={training_set}", *options, "--markdown", tmp_path / "out.md")
    leaks = pl.read_parquet(tmp_path / "out.parquet").filter(relation="leakage")
    assert set(leaks["found"]) == {30}
    assert "`test: 0_real/000.png` (real) is `train: 0_real/000.png` (real)" in (tmp_path / "out.md").read_text()

    run(baseline, *audits, *options)
    assert pl.read_parquet(tmp_path / "out.parquet").schema == SCHEMA

    with pytest.raises(CacheMismatchError):
        run(audit, tmp_path / "train-ln_2.h5", make_cache("other", 4).manifest_path, "--dataset", "x", "--out", "x")
    for wrong in ("mine", f"={training_set}"):
        with pytest.raises(ConfigError, match="give NAME=SPEC"):
            run(duplicates, *audits, "--training-set", wrong, *options)


def test_the_default_distance_is_the_measured_one() -> None:
    (distance,) = [option for option in duplicates.params if option.name == "distance"]
    assert distance.default == DISTANCE
