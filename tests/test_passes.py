"""Encoder passes saved: counted by hand from settings and sizes, and followed from caches to the leaderboard."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from rine_cache.cache import FeatureCache
from rine_cache.errors import ConfigError, ResultsError
from rine_cache.evaluate import count_passes, evaluate, read_scores, write_metrics
from rine_cache.features import FeatureSet, open_part
from rine_cache.heads.head import load_heads
from rine_cache.leaderboard import build_leaderboard, count_all_passes, write_leaderboard
from rine_cache.passes import EncoderPasses, passes_of, read_passes, stated_passes, total_passes
from rine_cache.report import render_markdown
from rine_cache.score import ScoredImages, score
from rine_cache.specs.benchmark import BenchmarkSpec
from rine_cache.specs.encoding import EncoderSpec, TrainViewSpec
from rine_cache.specs.training import ExperimentSpec
from rine_cache.train import train_experiment
from tests.conftest import SIZE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import MadeCache

SOURCE = {"dataset": "test"}
BENCHMARK = BenchmarkSpec.model_validate(
    {
        "name": "bench",
        "title": "Bench",
        "test_sets": {"all": {"real": SOURCE, "fake": SOURCE}},
        "protocols": {"all": {"test_sets": ["all"]}},
    }
)
ENCODER = EncoderSpec(architecture="ViT-B-16-quickgelu", weights="wheel")
# Sizes of the data below. `make_cache` makes real, gen-a and gen-b: three images for each of `per_class`.
TRAIN, VALIDATION, TEST = 3 * 4, 3 * 3, 3 * 2
TRAIN_DRAWS, TEST_DRAWS = 2, 3


def experiment(methods: tuple[str, ...], seeds: tuple[int, ...], epochs: int) -> ExperimentSpec:
    specs: dict[str, Any] = {
        "RINE": {"head": {"kind": "rine", "width": 4}},
        "UnivFD": {"head": {"kind": "linear"}, "training": {"xi": 0}},
    }
    return ExperimentSpec.model_validate(
        {
            "encoder": "stand-in",
            "training_set": "-".join(methods),
            "seeds": seeds,
            "training": {"epochs": epochs, "batch_size": 8},
            "methods": {method: specs[method] for method in methods},
        }
    )


class Run:
    """Trains, scores and evaluates experiments on three caches, whose bytes are made once."""

    def __init__(self, make_cache: Callable[..., MadeCache], folder: Path) -> None:
        many, few = (TrainViewSpec(kind="train", size=SIZE, draws=draws) for draws in (TRAIN_DRAWS, TEST_DRAWS))
        self.train = make_cache("train", per_class=4, view=many)
        self.validation = make_cache("validation", per_class=3, seed=1)
        self.test = make_cache("test", per_class=2, seed=2, view=few)
        self.folder = folder

    def __call__(self, name: str, spec: ExperimentSpec) -> Path:
        """Return the experiment's metrics; its heads and scores lie beside them."""
        train, validation = (FeatureSet([open_part(*made[:2])]) for made in (self.train, self.validation))
        heads, scores, metrics = (self.folder / name / part for part in ("heads", "scores.parquet", "metrics.parquet"))
        train_experiment(spec, train, validation, heads, "cpu")
        score(load_heads(heads), open_part(*self.test[:2]), ScoredImages("test", "center224"), scores, "cpu")
        read = [read_scores(scores)]
        write_metrics(evaluate(name, spec, ENCODER, [BENCHMARK], read), metrics, count_passes(read))
        return metrics


@pytest.fixture
def run(make_cache: Callable[..., MadeCache], tmp_path: Path) -> Run:
    return Run(make_cache, tmp_path / "results")


def test_reads_add_up_over_methods_seeds_epochs_and_draws_and_shared_caches_count_once(run: Run) -> None:
    first = run("first", experiment(("RINE", "UnivFD"), (0, 1), epochs=5))
    second = run("second", experiment(("UnivFD",), (7,), epochs=3))
    encoded = TRAIN * TRAIN_DRAWS + VALIDATION + TEST * TEST_DRAWS
    # A head reads one draw of each image an epoch, and every draw of each when it scores.
    reads_of_first = 2 * 2 * (5 * (TRAIN + VALIDATION) + TEST * TEST_DRAWS)
    reads_of_second = 3 * (TRAIN + VALIDATION) + TEST * TEST_DRAWS
    assert [(passes.crops_read, passes.crops_encoded) for passes in map(read_passes, (first, second))] == [
        (reads_of_first, encoded),
        (reads_of_second, encoded),
    ]
    both = count_all_passes([first, second])
    assert (both.crops_read, both.crops_encoded, len(both.caches)) == (reads_of_first + reads_of_second, encoded, 3)
    assert both.saved == reads_of_first + reads_of_second - encoded
    path = run.folder / "leaderboard.parquet"
    table = build_leaderboard([first, second], [], [BENCHMARK])
    write_leaderboard(table, path, both)
    assert read_passes(path) == both
    footer = render_markdown(table, [BENCHMARK], both).splitlines()[-1]
    assert footer == (
        f"The encoder ran once over {encoded} crops; the heads behind this leaderboard read "
        f"{reads_of_first + reads_of_second} crops: {both.saved} encoder passes were saved."
    )


def test_a_card_says_what_its_training_read_and_a_header_what_each_head_read_of_it(run: Run) -> None:
    run("e", experiment(("RINE",), (0, 1), epochs=4))
    cards = [head.card for head in load_heads(run.folder / "e" / "heads")]
    trained_on = [FeatureCache(made.features) for made in (run.train, run.validation)]
    assert [card.passes for card in cards] == [passes_of(trained_on, 4 * (TRAIN + VALIDATION))] * 2
    assert sorted(cards[0].passes.caches.values()) == [VALIDATION, TRAIN * TRAIN_DRAWS]
    header = read_scores(run.folder / "e" / "scores.parquet").header
    assert header["passes"] == passes_of([FeatureCache(run.test.features)], TEST * TEST_DRAWS).model_dump()
    assert [head["passes"] for head in header["heads"]] == [card.passes.model_dump() for card in cards]


def test_a_cache_read_by_two_parts_counts_once_and_its_reads_as_they_are(run: Run) -> None:
    parts = [open_part(*run.train[:2], subsets=[subset]) for subset in ("real", "gen-a")]
    validation = FeatureSet([open_part(*run.validation[:2])])
    train_experiment(experiment(("UnivFD",), (0,), 2), FeatureSet(parts), validation, run.folder, "cpu")
    (head,) = load_heads(run.folder)
    assert head.card.passes.crops_read == 2 * (TRAIN * 2 // 3 + VALIDATION)
    assert head.card.passes.crops_encoded == TRAIN * TRAIN_DRAWS + VALIDATION


def test_an_image_that_cannot_be_read_is_no_pass(
    make_cache: Callable[..., MadeCache], make_images: Callable[..., Path]
) -> None:
    (make_images("images", 2) / "0_real" / "bad.png").write_bytes(b"")
    cache = FeatureCache(make_cache("images", per_class=2).features)
    assert (cache.shape.images, passes_of([cache], 0).crops_encoded) == (7, 6)


def test_caches_of_other_images_taps_or_encoders_are_others(make_cache: Callable[..., MadeCache]) -> None:
    made = [make_cache("a", 2), make_cache("a", 2, tap="block"), make_cache("b", 2, seed=1)]
    caches = [FeatureCache(one.features) for one in made]
    assert len(passes_of(caches, 0).caches) == 3
    assert passes_of([*caches, *caches], 0) == passes_of(caches, 0)


def test_the_metrics_of_what_reads_no_cache_state_that_nothing_was_read(tmp_path: Path) -> None:
    write_metrics(pl.DataFrame({"a": [1]}), tmp_path / "m.parquet")
    assert read_passes(tmp_path / "m.parquet") == EncoderPasses()


def test_files_made_before_passes_were_counted_state_nothing(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "old.parquet")
    assert read_passes(tmp_path / "old.parquet") == EncoderPasses()
    assert stated_passes({"heads": []}, "an old header") == EncoderPasses()


def test_nothing_is_saved_while_less_was_read_than_encoded() -> None:
    assert EncoderPasses(crops_read=5, caches={"a": 8}).saved == 0
    assert EncoderPasses(crops_read=9, caches={"a": 8}).saved == 1


def test_the_total_does_not_depend_on_the_order() -> None:
    parts = [EncoderPasses(crops_read=1, caches={"b": 2}), EncoderPasses(crops_read=4, caches={"a": 1, "b": 2})]
    assert json.dumps(total_passes(parts).model_dump()) == json.dumps(total_passes(parts[::-1]).model_dump())
    assert total_passes(parts) == EncoderPasses(crops_read=5, caches={"a": 1, "b": 2})
    assert total_passes([]) == EncoderPasses()


def test_a_count_that_is_none_is_refused_with_its_place() -> None:
    with pytest.raises(ConfigError, match=r"`passes` of s\.parquet is not valid:\n.*crops_read"):
        stated_passes({"passes": {"crops_read": -1}}, "s.parquet")


def test_what_is_no_parquet_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.parquet").write_text("text")
    with pytest.raises(ResultsError, match=r"cannot read the header of .*m\.parquet"):
        read_passes(tmp_path / "m.parquet")
