"""What `rine-cache info` says of each kind of file, of a folder of results, and of what is neither."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
import torch

from rine_cache.cache import FeatureCache, join_shards, shard_path
from rine_cache.describe import describe
from rine_cache.errors import ConfigError, ResultsError, RineCacheError
from rine_cache.evaluate import SCHEMA as METRICS_SCHEMA
from rine_cache.evaluate import write_metrics
from rine_cache.extract import Target, extract
from rine_cache.features import feature_identity, open_part
from rine_cache.heads.head import Head, HeadCard, build_network, load_heads, save_head
from rine_cache.leaderboard import SCHEMA as LEADERBOARD_SCHEMA
from rine_cache.leaderboard import write_leaderboard
from rine_cache.passes import EncoderPasses, passes_of, total_passes
from rine_cache.score import ScoredImages, score
from rine_cache.specs.encoding import TrainViewSpec
from rine_cache.specs.training import LinearHeadSpec
from tests.conftest import CENTER, SIZE, StandInEncoder, refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Answer, MadeCache

PASSES = EncoderPasses(crops_read=500, caches={"a": 30, "b": 7})
FACTS = {"crops read": 500, "crops encoded": 37, "encoder passes saved": 463}
METRICS_ROW = {"experiment": "e", "benchmark": "bench", "method": "m"}


def save_heads(made: MadeCache, folder: Path, seeds: tuple[int, ...], passes: EncoderPasses) -> None:
    spec, identity = LinearHeadSpec(kind="linear"), feature_identity(FeatureCache(made.features))
    for seed in seeds:
        torch.manual_seed(seed)
        card = HeadCard(method="linear", seed=seed, head=spec, features=identity, passes=passes)
        save_head(Head(card, build_network(spec, identity)), folder / f"seed{seed}.safetensors")


@pytest.fixture
def scored(make_cache: Callable[..., MadeCache], tmp_path: Path) -> MadeCache:
    """Score a cache of 6 images in 3 draws with two heads: ``heads`` and ``scores.parquet`` lie beside it."""
    made = make_cache(per_class=2, view=TrainViewSpec(kind="train", size=SIZE, draws=3))
    save_heads(made, tmp_path / "heads", (0, 1), PASSES)
    part = open_part(made.features, made.manifest_path)
    score(load_heads(tmp_path / "heads"), part, ScoredImages("images", "aug"), tmp_path / "scores.parquet", "cpu")
    return made


def test_a_head_says_what_its_training_read_and_saved(scored: MadeCache, tmp_path: Path) -> None:
    facts = describe(tmp_path / "heads" / "seed1.safetensors")
    assert (facts["kind"], facts["method"], facts["seed"]) == ("head", "linear", 1)
    assert {name: facts[name] for name in FACTS} == FACTS


def test_a_cache_says_what_was_encoded_for_it(scored: MadeCache) -> None:
    facts = describe(scored.features)
    assert (facts["kind"], facts["images"], facts["draws"], facts["crops encoded"]) == ("sealed cache", 6, 3, 18)


def test_scores_say_what_their_heads_read_for_them(scored: MadeCache, tmp_path: Path) -> None:
    assert describe(tmp_path / "scores.parquet") == {
        "kind": "scores",
        "data set": "images",
        "view": "aug",
        "images": 6,
        "heads": ["linear seed 0", "linear seed 1"],
        "crops read": 36,
        "crops encoded": 18,
        "encoder passes saved": 18,
    }


def test_metrics_say_what_their_experiment_read(tmp_path: Path) -> None:
    rows = [{**METRICS_ROW, "seed": seed, "metric": metric} for seed in (0, 1) for metric in ("acc", "auc")]
    write_metrics(pl.DataFrame(rows, schema=METRICS_SCHEMA), tmp_path / "m.parquet", PASSES)
    assert describe(tmp_path / "m.parquet") == {
        "kind": "metrics",
        "experiments": ["e"],
        "rows": 4,
        "benchmarks": ["bench"],
        "heads": 2,
        **FACTS,
    }


def test_a_leaderboard_says_what_stands_in_it_and_what_its_heads_read(tmp_path: Path) -> None:
    rows = [{"kind": kind, "method": method} for kind, method in (("measured", "a"), *[("published", "b")] * 2)]
    write_leaderboard(pl.DataFrame(rows, schema=LEADERBOARD_SCHEMA), tmp_path / "l.parquet", PASSES)
    assert describe(tmp_path / "l.parquet") == {
        "kind": "leaderboard",
        "rows": 3,
        "measured": 1,
        "published": 2,
        "methods": 2,
        **FACTS,
    }


def test_a_folder_counts_training_and_scoring_and_each_cache_once(scored: MadeCache, tmp_path: Path) -> None:
    facts = describe(tmp_path)
    assert facts == {
        "kind": "folder",
        "caches": 1,
        "images": 6,
        "heads": 2,
        "score files": 1,
        "crops read": 2 * 500 + 36,
        "crops encoded": 30 + 7 + 18,  # those of training, whose caches lie elsewhere, too
        "encoder passes saved": 2 * 500 + 36 - 55,
    }


def test_caches_that_heads_name_and_that_lie_in_the_folder_are_the_same(
    make_cache: Callable[..., MadeCache], tmp_path: Path
) -> None:
    made = make_cache(per_class=2)
    again = make_cache("images", per_class=2, tap="block")
    passes = [passes_of([FeatureCache(one.features)], 100) for one in (made, again)]
    save_heads(made, tmp_path / "heads", (0, 1), total_passes(passes))
    facts = describe(tmp_path)
    assert (facts["caches"], facts["images"], facts["crops encoded"], facts["crops read"]) == (2, 6, 12, 400)


@pytest.mark.parametrize("count", [1, 2])
def test_a_cache_of_shards_is_one_cache(
    make_cache: Callable[..., MadeCache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr("rine_cache.extraction_plan.BATCHES_PER_SLAB", 1)  # shards hold whole slabs
    encoder = StandInEncoder(batch_size=2)
    made = make_cache(per_class=2, encoder=encoder)
    whole = tmp_path / "sharded" / "c.h5"
    targets = [Target(encoder, "ln_2", CENTER, whole)]
    for number in range(1, count + 1):
        extract(made.manifest, targets, workers=1, shard=(number, count))
    before = describe(whole.parent)
    assert (before["caches"], before["images"], before["crops encoded"]) == (count, 6, 6)
    join_shards(whole, count)
    assert shard_path(whole, 1, count).exists()
    after = describe(whole.parent)
    assert (after["caches"], after["images"], after["crops encoded"]) == (1, 6, 6)
    assert passes_of([FeatureCache(whole)], 0) == passes_of([FeatureCache(made.features)], 0)


def write_text(path: Path) -> None:
    path.write_text("text")


def write_other_table(path: Path) -> None:
    pl.DataFrame({"a": [1]}).write_parquet(path)


MISTAKES: dict[str, tuple[str, Callable[[Path], object], type[RineCacheError], str]] = {
    "an ending": (
        "a.txt",
        write_text,
        ConfigError,
        r"ending '\.txt'; allowed: \.h5, \.parquet, \.safetensors, or",
    ),
    "no Parquet": ("a.parquet", write_text, ResultsError, r"a\.parquet is not a Parquet file, or not whole"),
    "another table": (
        "a.parquet",
        write_other_table,
        ConfigError,
        "none of .*: manifest, scores, metrics, leader",
    ),
    "nothing there": ("a.parquet", lambda _: None, ResultsError, r"no file at .*a\.parquet"),
    "an empty folder": ("a", lambda path: path.mkdir(), ConfigError, "holds no cache, head or scores"),
    "a broken cache": ("a.h5", write_text, RineCacheError, "not a rine-cache file"),
    "a broken head": ("a.safetensors", write_text, RineCacheError, "cannot read the head"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_none_of_the_pipelines_is_refused(mistake: str, tmp_path: Path) -> None:
    name, make, error, message = MISTAKES[mistake]
    make(tmp_path / name)
    with pytest.raises(error, match=message):
        describe(tmp_path / name)


@pytest.mark.parametrize("name", ["a.h5", "a.parquet", "a.safetensors"])
def test_nothing_broken_below_a_folder_is_passed_over(name: str, scored: MadeCache, tmp_path: Path) -> None:
    (tmp_path / name).write_text("text")
    with pytest.raises(RineCacheError, match=name):
        describe(tmp_path)


def test_other_tables_below_a_folder_do_not_count(scored: MadeCache, tmp_path: Path) -> None:
    before = describe(tmp_path)
    write_other_table(tmp_path / "audit.parquet")
    assert describe(tmp_path) == before


def test_the_command_prints_the_facts_of_a_folder(
    scored: MadeCache, tmp_path: Path, rine_cache: Callable[..., Answer]
) -> None:
    facts: dict[str, Any] = describe(tmp_path)
    assert json.loads(rine_cache("info", tmp_path, "--json").out) == facts
    lines = rine_cache("info", tmp_path).out.splitlines()
    assert [line.split("  ")[0] for line in lines] == list(facts)
    assert f"encoder passes saved  {facts['encoder passes saved']}" in lines
    assert "holds no cache, head or scores" in refused(rine_cache("info", "."))
