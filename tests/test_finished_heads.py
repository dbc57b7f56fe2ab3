"""Training that is interrupted, fails in part, or is asked for more: what is finished is kept, and is the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
import torch

import rine_cache.files as files
from rine_cache.ablation import EXPERIMENT, ROUNDS, SUBSETS, TRIED, train_ablation
from rine_cache.errors import ConfigError, HeadError, TrainingError
from rine_cache.features import FeatureSet, open_part
from rine_cache.finished_heads import finished_heads
from rine_cache.heads.head import load_heads, read_card
from rine_cache.heads.index import INDEX
from rine_cache.specs.base import parse
from rine_cache.specs.training import ExperimentSpec
from rine_cache.train import CURVES, train_experiment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import MadeCache

Data = tuple[FeatureSet, FeatureSet]

METHODS: dict[str, Any] = {
    "RINE": {"head": {"kind": "rine", "width": 4, "layers": 1}},
    "short": {"head": {"kind": "rine", "width": 4, "layers": 1}, "training": {"epochs": 1}},
    "linear": {"head": {"kind": "linear"}, "training": {"xi": 0}},
    "logistic": {"head": {"kind": "logistic"}},
}


def experiment(**changes: Any) -> ExperimentSpec:
    settings = {
        "encoder": "stand-in",
        "training_set": "mine",
        "seeds": [0, 1],
        "training": {"epochs": 2, "batch_size": 8, "learning_rate": 0.01},
        "methods": METHODS,
    }
    return parse(ExperimentSpec, settings | changes, "test")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def caches(make_cache: Callable[..., MadeCache]) -> tuple[MadeCache, MadeCache]:
    return make_cache("train", per_class=6), make_cache("validation", per_class=3, seed=1)


@pytest.fixture
def data(caches: tuple[MadeCache, MadeCache]) -> Data:
    train, validation = (FeatureSet([open_part(*cache[:2])]) for cache in caches)
    return train, validation


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note which heads are trained or fitted, as they are written."""
    noted = []
    save = files.written_whole

    def note(path: Path) -> Any:
        if path.suffix == ".safetensors":
            noted.append(f"{path.parent.name}/{path.stem}")
        return save(path)

    monkeypatch.setattr("rine_cache.heads.head.written_whole", note)
    return noted


class Killed(BaseException):
    """Stands for SIGKILL: no one handles it."""


def killed_at(monkeypatch: pytest.MonkeyPatch, flush: int) -> None:
    """Stop at a flush to disk: of a file before it gets its name if even, of its folder afterwards if odd."""
    left = flush

    def stop(_: Path) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed

    monkeypatch.setattr(files, "flush_to_disk", stop)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.safetensors"))


def stopped(monkeypatch: pytest.MonkeyPatch, flush: int, run: Callable[[], None]) -> None:
    """Run something that is stopped at a flush."""
    with monkeypatch.context() as patch:
        killed_at(patch, flush)
        with pytest.raises(Killed):
            run()


def test_training_stopped_anywhere_goes_on_and_gives_the_same_files(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[str]
) -> None:
    """Seven heads, hence 14 flushes, and 4 for curves and index."""

    def train(name: str) -> None:
        train_experiment(experiment(), *data, tmp_path / name, "cpu")

    train("whole")
    assert sorted(trained) == sorted(f"{method}/seed{seed}" for method, seed in experiment().heads)
    for flush in (0, 1, 4, 9, 12, 13, 14, 16):
        stopped(monkeypatch, flush, lambda name=str(flush): train(name))  # type: ignore[misc]
        assert not (tmp_path / str(flush) / INDEX).exists()
        there = names(tmp_path / str(flush))
        trained.clear()
        train(str(flush))
        assert not {f"{name}.safetensors" for name in trained} & set(there)
        assert contents(tmp_path / str(flush)) == contents(tmp_path / "whole")


def test_a_further_method_or_seed_trains_only_itself_and_the_others_are_as_if_trained_together(
    data: Data, tmp_path: Path, trained: list[str]
) -> None:
    few = {name: METHODS[name] for name in ("RINE", "logistic")}
    train_experiment(experiment(methods=few, seeds=[0]), *data, tmp_path / "heads", "cpu")
    assert sorted(trained) == ["RINE/seed0", "logistic/seed0"]
    trained.clear()
    train_experiment(experiment(seeds=[0]), *data, tmp_path / "heads", "cpu")
    assert sorted(trained) == ["linear/seed0", "short/seed0"]
    trained.clear()
    train_experiment(experiment(), *data, tmp_path / "heads", "cpu")
    assert sorted(trained) == ["RINE/seed1", "linear/seed1", "short/seed1"]
    trained.clear()
    train_experiment(experiment(), *data, tmp_path / "heads", "cpu")
    assert trained == []
    train_experiment(experiment(), *data, tmp_path / "whole", "cpu")
    assert contents(tmp_path / "heads") == contents(tmp_path / "whole")


def test_a_head_that_is_no_longer_named_is_kept_and_does_not_count(
    data: Data, tmp_path: Path, trained: list[str]
) -> None:
    train_experiment(experiment(), *data, tmp_path / "heads", "cpu")
    fewer = experiment(methods={"linear": METHODS["linear"]}, seeds=[1])
    train_experiment(fewer, *data, tmp_path / "heads", "cpu")
    assert [(head.card.method, head.card.seed) for head in load_heads(tmp_path / "heads")] == [("linear", 1)]
    assert [head.card.method for head in load_heads(tmp_path)] == ["linear"], "of a folder above too"
    assert set(pl.read_parquet(tmp_path / "heads" / CURVES)["method"]) == {"linear"}
    trained.clear()
    train_experiment(experiment(), *data, tmp_path / "heads", "cpu")
    assert trained == []
    assert len(load_heads(tmp_path / "heads")) == len(experiment().heads)


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({"training": {"epochs": 2, "batch_size": 8, "learning_rate": 0.02}}, {"RINE", "short", "linear"}),
        ({"methods": METHODS | {"RINE": {"head": {"kind": "rine", "width": 5, "layers": 1}}}}, {"RINE"}),
        ({"methods": METHODS | {"RINE": {**METHODS["RINE"], "note": "mine"}}}, {"RINE"}),
        ({"training_set": "other"}, set(METHODS)),
    ],
)
def test_other_settings_train_again_what_they_are_of(
    data: Data, tmp_path: Path, trained: list[str], changes: dict[str, Any], again: set[str]
) -> None:
    train_experiment(experiment(), *data, tmp_path / "heads", "cpu")
    trained.clear()
    train_experiment(experiment(**changes), *data, tmp_path / "heads", "cpu")
    assert {name.partition("/")[0] for name in trained} == again


def test_other_data_and_what_is_no_whole_head_are_trained_again(
    data: Data, caches: tuple[MadeCache, MadeCache], tmp_path: Path, trained: list[str]
) -> None:
    train_experiment(experiment(), *data, tmp_path / "heads", "cpu")
    fewer = FeatureSet([open_part(*caches[0][:2], ("real", "gen-a"))])
    assert finished_heads(experiment(), *data, tmp_path / "heads").keys() == set(experiment().heads)
    assert finished_heads(experiment(), fewer, data[1], tmp_path / "heads") == {}
    assert finished_heads(experiment(), data[0], fewer, tmp_path / "heads") == {}
    before = contents(tmp_path / "heads")
    for name, content in (("RINE", b""), ("linear", before["linear/seed0.safetensors"][:-1]), ("short", b"{" * 99)):
        (tmp_path / "heads" / name / "seed0.safetensors").write_bytes(content)
    trained.clear()
    train_experiment(experiment(), *data, tmp_path / "heads", "cpu")
    assert sorted(trained) == ["RINE/seed0", "linear/seed0", "short/seed0"]
    assert contents(tmp_path / "heads") == before


def test_heads_that_were_trained_again_do_not_pass_for_those_of_the_index(data: Data, tmp_path: Path) -> None:
    train_experiment(experiment(), *data, tmp_path / "heads", "cpu")
    wild = {**METHODS["short"], "training": {"learning_rate": 1e30, "epochs": 3}}
    changed = {"short": wild, "RINE": {"head": {"kind": "rine", "width": 5, "layers": 1}}}
    with pytest.raises(TrainingError, match=r"short \(seed 0\) diverged"):
        train_experiment(experiment(methods=changed), *data, tmp_path / "heads", "cpu")
    with pytest.raises(
        HeadError, match=r"RINE/seed0.safetensors was trained again since .*run the same training again"
    ):
        load_heads(tmp_path / "heads")
    (tmp_path / "heads" / "RINE" / "seed0.safetensors").unlink()
    with pytest.raises(HeadError, match=r"cannot read the head .*RINE/seed0.safetensors"):
        load_heads(tmp_path / "heads")


def test_what_cannot_be_trained_costs_no_other_head_and_is_named_with_what_to_do(
    data: Data, tmp_path: Path, trained: list[str]
) -> None:
    bad = {
        "wild": {**METHODS["RINE"], "training": {"learning_rate": 1e30}},
        "hasty": {"head": {"kind": "logistic", "max_iter": 1, "C": 1000, "standardise": False}},
    }
    with pytest.raises(TrainingError) as told:
        train_experiment(experiment(methods=bad | METHODS), *data, tmp_path / "heads", "cpu")
    said = str(told.value)
    for part in ("hasty: the logistic", "wild (seed 0) diverged in epoch", "wild (seed 1)", "The 7 others of 10 heads"):
        assert part in said
    assert said.endswith("mend or take out what failed, and run the same again")
    trained.clear()
    train_experiment(experiment(), *data, tmp_path / "heads", "cpu")
    assert trained == []
    train_experiment(experiment(), *data, tmp_path / "whole", "cpu")
    assert contents(tmp_path / "heads") == contents(tmp_path / "whole")


def test_blocks_that_do_not_fit_are_named_before_anything_is_trained(
    data: Data, tmp_path: Path, trained: list[str]
) -> None:
    train_experiment(experiment(), *data, tmp_path / "heads", "cpu")
    before = contents(tmp_path / "heads")
    trained.clear()
    for head in ({"kind": "rine", "blocks": [1, 9]}, {"kind": "logistic", "blocks": 9}):
        with pytest.raises(
            ConfigError, match=r"method odd: blocks .* name block 9.*heads that were finished .*are kept"
        ):
            train_experiment(experiment(methods=METHODS | {"odd": {"head": head}}), *data, tmp_path / "heads", "cpu")
    assert trained == []
    assert contents(tmp_path / "heads") == before


def test_a_memory_budget_that_is_too_small_is_refused_with_what_is_enough(data: Data, tmp_path: Path) -> None:
    """18 images of 3 blocks of 8 numbers and an embedding of 5, 2 bytes each."""
    enough = 18 * 2 * (3 * 8 + 5)
    for budget, fits in ((enough, True), (enough - 1, False)):
        spec = experiment(methods={"mine": METHODS["short"]}, training={"batch_size": 8, "memory_budget": budget})
        if fits:
            train_experiment(spec, *data, tmp_path / "heads", "cpu")
            continue
        said = rf"method mine: training.memory_budget is 1,043 bytes; .* it must be {enough:,} at least .*to hold 18"
        with pytest.raises(ConfigError, match=said):
            train_experiment(spec, *data, tmp_path / "other", "cpu")
        assert not (tmp_path / "other").exists()


# Ablations.

SUBSET_FAMILIES = ["each", "greedy", "all"]


def ablate(data: Data, folder: Path, *subsets: Any, seeds: tuple[int, ...] = (0, 1)) -> None:
    spec = experiment(methods={"RINE": METHODS["RINE"]}, seeds=seeds)
    train_ablation(spec, "RINE", subsets or SUBSET_FAMILIES, *data, folder, "cpu")


def test_an_ablation_stopped_anywhere_goes_on_and_gives_the_same_files(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[str]
) -> None:
    """Three single blocks, all, two more in round two: 6 heads, hence 12 flushes, and 12 for what is known of them."""
    ablate(data, tmp_path / "whole", seeds=(0,))
    assert len(trained) == 6
    for flush in (0, 1, 5, 7, 8, 10, *range(12, 24, 2)):
        folder = tmp_path / str(flush)
        stopped(monkeypatch, flush, lambda folder=folder: ablate(data, folder, seeds=(0,)))  # type: ignore[misc]
        there = names(folder)
        trained.clear()
        ablate(data, folder, seeds=(0,))
        assert not {f"{name}.safetensors" for name in trained} & set(there)
        assert contents(folder) == contents(tmp_path / "whole")


def test_an_ablation_that_is_done_and_what_is_added_to_it_train_only_what_is_new(
    data: Data, tmp_path: Path, trained: list[str]
) -> None:
    ablate(data, tmp_path / "heads", "greedy:2")
    assert len(trained) == 2 * (3 + 2)
    assert len(names(tmp_path / "heads")) == 2 * 2, "what was not chosen is deleted"
    before = contents(tmp_path / "heads")
    trained.clear()
    ablate(data, tmp_path / "heads", "greedy:2")
    assert trained == []
    assert contents(tmp_path / "heads") == before
    ablate(data, tmp_path / "heads", "greedy")
    assert trained == ["RINE-all/seed0", "RINE-all/seed1"]
    trained.clear()
    # Two of the three single blocks were tried and not chosen: their heads are wanted now.
    ablate(data, tmp_path / "heads", "each")
    assert len(trained) == 2 * 2
    assert len(load_heads(tmp_path / "heads")) == 2 * 3
    assert not (tmp_path / "heads" / ROUNDS).exists()
    trained.clear()
    ablate(data, tmp_path / "heads")
    assert trained == []
    ablate(data, tmp_path / "whole")
    for name in (SUBSETS, ROUNDS, EXPERIMENT, INDEX, CURVES):
        assert (tmp_path / "heads" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_tried_heads_of_other_settings_are_tried_again(data: Data, tmp_path: Path, trained: list[str]) -> None:
    ablate(data, tmp_path / "heads", "greedy:1")
    trained.clear()
    train_ablation(experiment(seeds=[0]), "short", ["greedy:1"], *data, tmp_path / "heads", "cpu")
    assert len(trained) == 3
    trained.clear()
    changed = experiment(methods={"RINE": {"head": {"kind": "rine", "width": 5, "layers": 1}}})
    train_ablation(changed, "RINE", ["greedy:1"], *data, tmp_path / "heads", "cpu")
    assert len(trained) == 6
    (tmp_path / "heads" / TRIED).write_text("[{")
    trained.clear()
    train_ablation(changed, "RINE", ["greedy:1"], *data, tmp_path / "heads", "cpu")
    assert len(trained) == 4, "the chosen ones are there"


# SIGKILL, to a process of its own.


def test_an_ablation_killed_by_the_system_goes_on_and_gives_the_same_files(
    caches: tuple[MadeCache, MadeCache], data: Data, tmp_path: Path, trained: list[str]
) -> None:
    settings = experiment(methods={"RINE": METHODS["RINE"]}, training={"epochs": 40, "batch_size": 8})
    described = json.dumps(settings.model_dump(mode="json"))
    command = [sys.executable, "-m", "rine_cache", "ablate", "train", described, "--method", "RINE"]
    command += ["--subsets", "greedy", "--out", str(tmp_path / "heads"), "--device", "cpu"]
    for option, cache in zip(("--train", "--validation"), caches, strict=True):
        command += [option, str(cache.features), str(cache.manifest_path)]
    process = subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not names(tmp_path / "heads") and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    there = names(tmp_path / "heads")
    assert there
    assert not (tmp_path / "heads" / INDEX).exists()
    train_ablation(settings, "RINE", ["greedy"], *data, tmp_path / "heads", "cpu")
    assert not {f"{name}.safetensors" for name in trained} & set(there)
    train_ablation(settings, "RINE", ["greedy"], *data, tmp_path / "whole", "cpu")
    found = contents(tmp_path / "heads")
    for name, content in contents(tmp_path / "whole").items():
        assert found[name] == content, name
    assert all(read_card(path).training_version for path in (tmp_path / "heads").rglob("*.safetensors"))
