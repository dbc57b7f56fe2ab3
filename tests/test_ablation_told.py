"""What `rine-cache info` and `rine-cache config check` say of ablations, their heads and what they lack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from rine_cache.ablation import ROUNDS, SUBSETS, count_heads, train_ablation
from rine_cache.ablation_table import COLUMNS
from rine_cache.describe import describe
from rine_cache.features import FeatureSet, open_part
from rine_cache.heads.index import INDEX
from rine_cache.specs.base import parse
from rine_cache.specs.training import ExperimentSpec
from tests.conftest import refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from rine_cache.specs.blocks import BlocksExpression
    from tests.conftest import Answer, MadeCache

EXPERIMENT: dict[str, Any] = {
    "encoder": "small",
    "training_set": "mine",
    "seeds": [0, 1],
    "training": {"epochs": 1, "batch_size": 8},
    "methods": {
        "RINE": {"head": {"kind": "rine", "width": 2, "layers": 1}},
        "probe": {"head": {"kind": "logistic", "blocks": "all"}},
    },
}
PART = {"dataset": "train", "view": "center224"}
CONFIG: dict[str, Any] = {
    "encoders": {"small": {"architecture": "ViT-S-32-alt", "weights": "random"}},
    "datasets": {name: {"root": name} for name in ("train", "test", "far")},
    "training_sets": {"mine": {"train": [PART], "validation": [{**PART, "dataset": "test"}]}},
    "experiments": {"first": EXPERIMENT},
    "benchmarks": ["tiny.json"],
    "ablations": {
        "blocks": {
            "title": "Blocks",
            "experiment": "first",
            "method": "RINE",
            "subsets": ["each", "greedy:2"],
            "benchmark": "tiny",
            "protocol": "tiny-2",
        }
    },
}
BENCHMARK: dict[str, Any] = {
    "name": "tiny",
    "title": "Tiny",
    "test_sets": {name: {"real": {"dataset": name}, "fake": {"dataset": name}} for name in ("test", "far")},
    "protocols": {"tiny-2": {"test_sets": ["test", "far"]}},
}


def experiment() -> ExperimentSpec:
    return parse(ExperimentSpec, EXPERIMENT, "test")


@pytest.fixture
def heads(make_cache: Callable[..., MadeCache], tmp_path: Path) -> Path:
    made = [make_cache(name, per_class=3, seed=seed) for seed, name in enumerate(("a", "b"))]
    train, validation = (FeatureSet([open_part(*cache[:2])]) for cache in made)
    train_ablation(experiment(), "RINE", ["each", "greedy:2", "all"], train, validation, tmp_path / "heads", "cpu")
    return tmp_path / "heads"


def test_the_heads_of_an_ablation_are_counted_by_family_and_what_they_lack_is_named(heads: Path) -> None:
    facts = describe(heads / SUBSETS)
    assert facts["kind"] == "subsets of an ablation"
    assert facts["subsets"] == {"each": 3, "greedy": 2, "all": 1}
    assert (facts["methods"], facts["heads"], facts["lacking"]) == (5, 10, [])
    rounds = describe(heads / ROUNDS)
    assert (rounds["kind"], rounds["rounds"], rounds["heads tried, times the seeds"]) == ("forward selection", 2, 5)
    assert len(rounds["chosen blocks"]) == len(rounds["validation loss"]) == 2
    folder = describe(heads)
    assert folder["heads"] == 10
    assert folder["ablation"] == {name: facts[name] for name in facts if name != "kind"}
    best = facts["lowest validation loss"]
    assert best["validation_loss"] == min(rounds["validation loss"] + [best["validation_loss"]])
    for path in heads.glob("RINE-all/*"):
        path.unlink()
    assert describe(heads / SUBSETS)["lacking"] == ["RINE-all"]


def test_a_drawn_ablation_says_what_was_not_measured(tmp_path: Path) -> None:
    rows = [
        {"family": "each", "block": block, "method": f"m{block}", "blocks": [block], "validation_loss": 1.0 - block}
        | {"test_set": name, "metric": "auc", "value": value, "seed_count": 2}
        for block in (0, 1)
        for name, value in (("test", 50.0), ("far", None))
    ]
    schema = dict.fromkeys(COLUMNS, pl.Float64) | dict.fromkeys(("family", "method", "test_set", "metric"), pl.String)
    schema |= {"block": pl.Int64, "blocks": pl.List(pl.Int64), "seed_count": pl.Int64}
    pl.DataFrame(rows, schema=schema).write_parquet(tmp_path / "blocks.parquet")
    assert describe(tmp_path / "blocks.parquet") == {
        "kind": "ablation",
        "subsets": {"each": 2},
        "methods": 2,
        "lowest validation loss": {"method": "m1", "blocks": [1], "validation_loss": 0.0},
        "seeds": 2,
        "test sets": ["test", "far"],
        "not measured": ["far"],
    }


@pytest.mark.parametrize(
    ("subsets", "method", "expected"),
    [
        (["each"], "RINE", 2 * 4),
        (["each", "greedy"], "RINE", 2 * (4 + 3 + 2 + 1)),
        (["greedy:2"], "RINE", 2 * (4 + 3)),
        (["prefixes", "all", "leave-one-out"], "RINE", 2 * (4 + 3)),
        (["each", "all"], "probe", 5),
    ],
)
def test_heads_are_counted_before_they_are_trained(subsets: list[BlocksExpression], method: str, expected: int) -> None:
    assert count_heads(experiment(), method, subsets, 4) == expected


def test_a_configuration_says_how_its_ablations_stand(
    rine_cache: Callable[..., Answer], make_images: Callable[..., Path], heads: Path
) -> None:
    Path("tiny.json").write_text(json.dumps(BENCHMARK))
    Path("config.json").write_text(json.dumps(CONFIG))

    def told() -> str:
        first, *_, last = rine_cache("config", "check", "config.json").out.splitlines()
        assert first == "config.json is valid: 1 experiments, 1 benchmarks, 1 ablations"
        return last

    planned = f"ablation blocks: RINE of first in {2 * (12 + 11)} heads at the most"
    assert told() == f"{planned}, none is trained; waits for train, test; empty without far, test"
    for name in ("train", "test"):
        make_images(per_class=1, name=name).rename(name)
    assert told() == f"{planned}, none is trained; empty without far"
    Path("results/heads").mkdir(parents=True)
    heads.rename("results/heads/blocks")
    assert told() == f"{planned}, 10 trained; empty without far"
    Path("results/heads/blocks", INDEX).unlink()
    assert told() == f"{planned}, 10 trained so far; empty without far"
    changed = {"blocks": {**CONFIG["ablations"]["blocks"], "subsets": ["greedy:13"]}}
    Path("config.json").write_text(json.dumps({**CONFIG, "ablations": changed}))
    assert "'greedy:13': 13 is not between 1 and 12" in refused(rine_cache("config", "check", "config.json"))
