"""The whole pipeline on a tiny configuration: real Snakemake, real command line, random weights."""

from __future__ import annotations

import copy
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image

from rine_cache.cache import FeatureCache, part_path

ROOT = Path(__file__).parent.parent
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]

BENCHMARK: dict[str, Any] = {
    "name": "tiny",
    "title": "Tiny",
    "test_sets": {"gen": {"real": {"dataset": "test"}, "fake": {"dataset": "test", "subsets": ["gen"]}}},
    "protocols": {"tiny-1": {"test_sets": ["gen"], "headline": ["auc"]}},
}
ABSENT: dict[str, Any] = {
    "name": "absent",
    "title": "Absent",
    "test_sets": {name: {"real": {"dataset": "far"}, "fake": {"dataset": "far"}} for name in ("one", "two")},
    "protocols": {"absent-2": {"test_sets": ["one", "two"]}},
}
CONFIG: dict[str, Any] = {
    "encoders": {"small": {"architecture": "ViT-S-32-alt", "weights": "random", "batch_size": 4}},
    "datasets": {name: {"root": f"data/{name}"} for name in ("train", "validation", "test", "far")},
    "training_sets": {
        "mine": {
            "train": [{"dataset": "train", "view": "train224"}],
            "validation": [{"dataset": "validation", "view": "center224"}],
        }
    },
    "experiments": {
        "first": {
            "encoder": "small",
            "training_set": "mine",
            "seeds": [0, 1],
            "training": {"epochs": 2, "batch_size": 4},
            "methods": {"RINE": {"head": {"kind": "rine", "width": 8, "layers": 1}}},
        }
    },
    "benchmarks": ["tiny.yaml", "absent.yaml"],
    "published": ["published.csv"],
}

# What follows from any change of data or benchmarks, and takes seconds.
TABLES = [
    "building the leaderboard",
    "looking for images that stand twice",
    "measuring the heads of first",
    "measuring what a classifier without pixels solves",
]


def write_images(root: Path, per_class: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for folder in ("0_real", "1_fake/gen"):
        for index in range(per_class):
            path = root / folder / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)


def write_config(folder: Path, config: dict[str, Any], name: str = "config.yaml") -> Path:
    (folder / name).write_text(yaml.safe_dump(config))
    return folder / name


def snakemake(folder: Path, config: Path, *options: str, check: bool = True) -> str:
    command = [*SNAKEMAKE, "--directory", str(folder), "--configfile", str(config), *options]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    output = finished.stdout + finished.stderr
    assert not check or finished.returncode == 0, output
    return output


def scheduled(folder: Path, config: dict[str, Any]) -> list[str]:
    """Return the messages of the jobs that a dry run would start."""
    output = snakemake(folder, write_config(folder, config, "changed.yaml"), "--dry-run")
    return sorted(re.findall(r"^(?:Job|\[Job) \d+: (.*)$", output, flags=re.MULTILINE))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tiny pipeline has run."""
    folder = tmp_path_factory.mktemp("pipeline")
    for seed, name in enumerate(("train", "validation", "test")):
        write_images(folder / "data" / name, 6, seed)
    (folder / "data" / "test" / "0_real" / "broken.jpg").write_bytes(b"\xff\xd8")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(BENCHMARK))
    (folder / "absent.yaml").write_text(yaml.safe_dump(ABSENT))
    shutil.copy(ROOT / "config" / "published.csv", folder / "published.csv")
    snakemake(folder, write_config(folder, CONFIG))
    return folder


@pytest.fixture
def config() -> dict[str, Any]:
    return copy.deepcopy(CONFIG)


def test_the_leaderboard_holds_measured_absent_and_published_rows(finished: Path) -> None:
    table = pl.read_parquet(finished / "results" / "leaderboard.parquet")
    (measured,) = table.filter(benchmark="tiny", test_set="gen", metric="auc", method="RINE").to_dicts()
    assert 0 <= measured["value"] <= 100
    assert (measured["n_real"], measured["n_fake"], measured["n_quarantined"]) == (6, 6, 1)
    assert (measured["seed_count"], measured["coverage"], measured["rank"]) == (2, "1/1", None)
    assert measured["note"] == "random weights: plumbing only"
    absent = table.filter(benchmark="absent")
    assert absent["value"].null_count() == absent.height > 0
    assert set(absent["coverage"]) == {"0/2"}
    assert table.filter(kind="published").height == 1633
    assert "| RINE " in (finished / "results" / "leaderboard.md").read_text()


def test_a_second_run_has_nothing_to_do(finished: Path, config: dict[str, Any]) -> None:
    assert "Nothing to be done" in snakemake(finished, write_config(finished, config))
    assert scheduled(finished, config) == []


def test_the_default_sample_does_not_run_inside_another_job(finished: Path, config: dict[str, Any]) -> None:
    output = snakemake(finished, write_config(finished, config), "--dry-run", "--forceall")
    assert "training the heads of first" in output
    assert "making the sample's images" not in output
    assert "sample-test" not in output


def test_missing_data_are_named(finished: Path, config: dict[str, Any]) -> None:
    output = snakemake(finished, write_config(finished, config), "--dry-run")
    assert re.search(r"^data set far +missing +data/far$", output, flags=re.MULTILINE)


def test_adding_a_data_set_schedules_only_it_and_what_depends_on_it(finished: Path, config: dict[str, Any]) -> None:
    write_images(finished / "data" / "new", 3, 9)
    config["datasets"]["new"] = {"root": "data/new"}
    benchmark = copy.deepcopy(BENCHMARK)
    benchmark["name"] = "second"
    benchmark["test_sets"]["gen"] = {"real": {"dataset": "test"}, "fake": {"dataset": "new"}}
    (finished / "second.yaml").write_text(yaml.safe_dump(benchmark))
    config["benchmarks"] = [*config["benchmarks"], "second.yaml"]
    assert scheduled(finished, config) == sorted(
        [
            *TABLES,
            "auditing new",
            "encoding new through center224 with small (ln_2)",
            "listing the images of new",
            "scoring new with the heads of first",
        ]
    )


def test_removing_a_benchmark_computes_only_the_tables(finished: Path, config: dict[str, Any]) -> None:
    config["benchmarks"] = ["tiny.yaml"]
    assert scheduled(finished, config) == TABLES


def test_adding_an_experiment_schedules_only_its_heads(finished: Path, config: dict[str, Any]) -> None:
    second = copy.deepcopy(config["experiments"]["first"])
    second["methods"] = {"RINE-last": {"head": {"kind": "rine", "width": 8, "blocks": "last"}}}
    config["experiments"]["second"] = second
    assert scheduled(finished, config) == [
        "building the leaderboard",
        "measuring the heads of second",
        "scoring test with the heads of second",
        "training the heads of second",
    ]


def test_another_view_seed_encodes_only_that_view_again(finished: Path, config: dict[str, Any]) -> None:
    config["views"] = {"train224": {"kind": "train", "seed": 1}}
    assert scheduled(finished, config) == sorted(
        [
            *TABLES,
            "auditing train",
            "encoding train through train224 with small (ln_2)",
            "scoring test with the heads of first",
            "training the heads of first",
        ]
    )


def test_touching_the_code_runs_nothing(finished: Path, config: dict[str, Any]) -> None:
    (ROOT / "rine_cache" / "extract.py").touch()
    assert scheduled(finished, config) == []


def test_a_wrong_key_is_one_clear_message_before_any_graph(finished: Path, config: dict[str, Any]) -> None:
    config["experiments"]["first"]["sed"] = [0]
    output = snakemake(finished, write_config(finished, config, "wrong.yaml"), "--dry-run", check=False)
    assert "experiments.first: unknown key 'sed'; did you mean 'seeds'?" in output
    assert "Traceback" not in output


def test_every_file_that_was_made_verifies(finished: Path) -> None:
    caches = sorted((finished / "results" / "features").rglob("*.h5"))
    assert len(caches) == 3
    command = [sys.executable, "-m", "rine_cache", "verify", *map(str, caches)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.count(": whole") == 3


def test_a_folder_that_is_gone_keeps_its_listing(finished: Path) -> None:
    listing = finished / "results" / "manifests" / "test.parquet"
    before = listing.read_bytes()
    command = [sys.executable, "-m", "rine_cache", "manifest", "data/test", "--out", str(listing)]
    (finished / "data" / "test").rename(finished / "away")
    output = subprocess.run(command, cwd=finished, capture_output=True, text=True, check=True).stderr
    (finished / "away").rename(finished / "data" / "test")
    assert "stays as it is" in output
    assert listing.read_bytes() == before


@pytest.mark.slow
def test_snakemake_killed_leaves_no_orphan_and_the_next_run_finishes_the_same_file(
    finished: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    """SIGKILL to Snakemake itself: extraction notices, stops, and is resumed to the same bytes."""
    write_images(tmp_path / "data" / "train", 150, 0)
    for name in ("validation", "test"):
        shutil.copytree(finished / "data" / name, tmp_path / "data" / name)
    for name in ("tiny.yaml", "absent.yaml", "published.csv"):
        shutil.copy(finished / name, tmp_path / name)
    config["encoders"]["small"]["batch_size"] = 1
    path = write_config(tmp_path, config)
    target = "results/features/small/ln_2/train224/train.h5"
    part = part_path(tmp_path / target)
    process = subprocess.Popen(
        [*SNAKEMAKE, "--directory", str(tmp_path), "--configfile", str(path), "--", target],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not part.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 30
    while _writers(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not _writers(tmp_path), "the extraction outlived Snakemake"
    assert part.exists()
    snakemake(tmp_path, path, "--unlock")
    log = snakemake(tmp_path, path, "--rerun-incomplete", "--", target)
    assert "resuming" in log
    resumed = (tmp_path / target).read_bytes()
    (tmp_path / target).unlink()
    snakemake(tmp_path, path, "--", target)
    assert (tmp_path / target).read_bytes() == resumed
    assert FeatureCache(tmp_path / target).readable.all()


def _writers(folder: Path) -> list[str]:
    """List the command lines of running extractions in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == folder and b"extract" in (process / "cmdline").read_bytes():
                found.append(process.name)
        except OSError:
            continue
    return found
