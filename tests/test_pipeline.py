"""The whole pipeline on a tiny configuration: real Snakemake, real command line, random weights."""

from __future__ import annotations

import copy
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image

from rine_cache.cache import FeatureCache, part_path, shard_path
from tests import twins
from tests.page_data import unpacked

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
    "reducing the scores of first to curves",
    "writing the leaderboard's page",
]


def write_images(root: Path, per_class: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for folder in ("0_real", "1_fake/gen"):
        for index in range(per_class):
            path = root / folder / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)


def official(training_set: str, file: str) -> dict[str, Any]:
    """Describe an experiment that imports a head in its authors' format."""
    head = {"kind": "official", "file": file, "obtain": "from its authors"}
    return {"encoder": "small", "training_set": training_set, "methods": {"RINE-official": {"head": head}}}


def write_image(path: Path) -> None:
    """Write an image unlike any of another path."""
    seed = int.from_bytes(hashlib.sha256(bytes(path)).digest()[:4])
    pixels = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_config(folder: Path, config: dict[str, Any], name: str = "config.yaml") -> Path:
    (folder / name).write_text(yaml.safe_dump(config))
    return folder / name


def snakemake(folder: Path, config: Path, *options: str, check: bool = True) -> str:
    command = [*SNAKEMAKE, "--directory", str(folder), "--configfile", str(config), *options]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    output = finished.stdout + finished.stderr
    assert not check or finished.returncode == 0, output
    return output


def jobs_of(output: str) -> list[str]:
    """Return the messages of the jobs that Snakemake started, or would start, in order of the alphabet."""
    return sorted(re.findall(r"^(?:Job|\[Job) \d+: (.*)$", output, flags=re.MULTILINE))


def scheduled(folder: Path, config: dict[str, Any]) -> list[str]:
    """Return the messages of the jobs that a dry run would start."""
    return jobs_of(snakemake(folder, write_config(folder, config, "changed.yaml"), "--dry-run"))


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


def copy_of(finished: Path, folder: Path, *names: str) -> None:
    """Copy some folders of the finished pipeline, and the files that its configuration names."""
    for name in names:
        shutil.copytree(finished / name, folder / name)
    for name in ("tiny.yaml", "absent.yaml", "published.csv"):
        shutil.copy(finished / name, folder / name)


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
    made_by = {name: measured[f"{name}_fingerprint"] for name in ("data", "encoder", "training", "head")}
    assert len({*made_by.values(), None}) == 5
    tested = table.filter(pl.col("value").is_not_null(), kind="measured", benchmark="tiny")
    images = tested.group_by("protocol", "test_set").agg(pl.col("method", "data_fingerprint").n_unique())
    assert images["method"].min() > 1
    assert set(images["data_fingerprint"]) == {1}, "every method, metadata-only too, is measured on the same images"
    absent = table.filter(benchmark="absent")
    assert absent["value"].null_count() == absent.height > 0
    assert set(absent["coverage"]) == {"0/2"}
    assert table.filter(kind="published").height == 1635
    assert "| RINE " in (finished / "results" / "leaderboard.md").read_text()
    assert any(
        protocol["curves"]
        for panel in unpacked((finished / "results" / "leaderboard.html").read_text())
        for protocol in panel.get("protocols", [])
    )


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
            "encoding new through center224 with small (ln_2), shard 1 of 1",
            "joining new through center224 with small (ln_2)",
            "listing the images of new",
            "scoring new through center224 with the heads of first",
        ]
    )


def test_a_data_set_that_nothing_names_gets_a_benchmark_of_its_own(finished: Path, config: dict[str, Any]) -> None:
    """Three lines of YAML: what they schedule, and that two cost twice that."""
    for number, name in enumerate(("one", "two")):
        write_images(finished / "data" / name, 3, 20 + number)
        config["datasets"][name] = {"root": f"data/{name}"}
    new = [
        job
        for name in ("one", "two")
        for job in (
            f"auditing {name}",
            f"encoding {name} through center224 with small (ln_2), shard 1 of 1",
            f"joining {name} through center224 with small (ln_2)",
            f"listing the images of {name}",
            f"scoring {name} through center224 with the heads of first",
        )
    ]
    assert scheduled(finished, config) == sorted([*TABLES, *new])
    del config["datasets"]["two"]
    assert scheduled(finished, config) == sorted([*TABLES, *new[:5]])


def test_a_data_set_added_by_the_command_schedules_only_itself(finished: Path, config: dict[str, Any]) -> None:
    write_images(finished / "data" / "mine", 3, 30)
    (finished / "data" / "mine" / "1_fake" / "other").mkdir()
    shutil.copy(finished / "data/mine/1_fake/gen/0.png", finished / "data/mine/1_fake/other/0.png")
    path = write_config(finished, config, "mine.yaml")
    command = [sys.executable, "-m", "rine_cache", "dataset", "add", "mine", "data/mine", "--config", "mine.yaml"]
    output = subprocess.run(command, cwd=finished, capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-2] == "added to mine.yaml and mine-benchmarks/mine.yaml"
    assert jobs_of(snakemake(finished, path, "--dry-run")) == sorted(
        [
            *TABLES,
            "auditing mine",
            "encoding mine through center224 with small (ln_2), shard 1 of 1",
            "joining mine through center224 with small (ln_2)",
            "listing the images of mine",
            "scoring mine through center224 with the heads of first",
        ]
    )


def test_a_data_set_that_is_not_here_schedules_nothing(finished: Path, config: dict[str, Any]) -> None:
    """Its benchmark has empty rows, and those alone are computed."""
    config["datasets"]["later"] = {"root": "data/later"}
    assert scheduled(finished, config) == TABLES


def test_removing_a_data_set_computes_only_the_tables(finished: Path, config: dict[str, Any]) -> None:
    config["benchmarks"] = ["absent.yaml"]
    del config["datasets"]["test"]
    assert scheduled(finished, config) == TABLES


def test_removing_a_data_set_that_is_not_here_computes_nothing(finished: Path, config: dict[str, Any]) -> None:
    del config["datasets"]["far"]
    assert scheduled(finished, config) == []


def test_another_view_of_a_protocol_encodes_only_what_it_tests(finished: Path, config: dict[str, Any]) -> None:
    benchmark = copy.deepcopy(BENCHMARK)
    benchmark["protocols"]["tiny-1-jpeg"] = {"test_sets": ["gen"], "view": "center224-jpeg96"}
    (finished / "view.yaml").write_text(yaml.safe_dump(benchmark))
    config["benchmarks"] = ["view.yaml", "absent.yaml"]
    assert scheduled(finished, config) == sorted(
        [
            *TABLES,
            "encoding test through center224-jpeg96 with small (ln_2), shard 1 of 1",
            "joining test through center224-jpeg96 with small (ln_2)",
            "scoring test through center224-jpeg96 with the heads of first",
        ]
    )


def test_an_official_head_needs_no_training_images(finished: Path, config: dict[str, Any]) -> None:
    (finished / "stub.pth").touch()
    config["training_sets"]["theirs"] = {"train": [{"dataset": "far", "view": "train224"}]}
    config["training_sets"]["theirs"]["validation"] = config["training_sets"]["theirs"]["train"]
    config["experiments"]["official"] = official("theirs", "stub.pth")
    config["experiments"]["absent"] = official("mine", "gone.pth")
    assert scheduled(finished, config) == [
        "building the leaderboard",
        "importing the heads of official",
        "measuring the heads of absent",
        "measuring the heads of official",
        "reducing the scores of official to curves",
        "scoring test through center224 with the heads of official",
        "writing the leaderboard's page",
    ]


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
        "reducing the scores of second to curves",
        "scoring test through center224 with the heads of second",
        "training the heads of second",
        "writing the leaderboard's page",
    ]


ABLATION: dict[str, Any] = {
    "title": "Blocks",
    "experiment": "first",
    "method": "RINE",
    "subsets": ["each", "greedy:2", [0, 3]],
    "benchmark": "tiny",
    "protocol": "tiny-1",
}
ABLATION_JOBS = [
    "drawing ablation blocks",
    "measuring the heads of ablation blocks",
    "scoring test through center224 with the heads of blocks",
    "training the heads of ablation blocks",
]


def test_adding_an_ablation_schedules_only_its_heads_and_its_table(finished: Path, config: dict[str, Any]) -> None:
    config["ablations"] = {"blocks": ABLATION}
    assert scheduled(finished, config) == [*ABLATION_JOBS, "writing the leaderboard's page"]


def test_an_ablation_waits_with_its_experiment(finished: Path, config: dict[str, Any]) -> None:
    config["training_sets"]["theirs"] = {
        **config["training_sets"]["mine"],
        "train": [{"dataset": "far", "view": "train224"}],
    }
    config["experiments"]["waiting"] = {**config["experiments"]["first"], "training_set": "theirs"}
    config["ablations"] = {"blocks": {**ABLATION, "experiment": "waiting"}}
    path = write_config(finished, config, "changed.yaml")
    output = snakemake(finished, path, "--dry-run")
    assert "Experiment waiting waits for far" in output
    assert "Ablation blocks waits with experiment waiting" in output
    assert not set(ABLATION_JOBS) & set(jobs_of(output))


def heads_of(folder: Path, experiment: str) -> dict[str, tuple[int, bytes]]:
    """Return when each head was written, in ns, and its bytes."""
    root = folder / "results" / "heads" / experiment
    found = {str(path.relative_to(root)): path for path in sorted(root.rglob("*.safetensors"))}
    return {name: (path.stat().st_mtime_ns, path.read_bytes()) for name, path in found.items()}


def scored_methods(folder: Path) -> set[str]:
    return set(pl.read_parquet(folder / "results/scores/first/center224/test.parquet")["method"])


@pytest.mark.slow
def test_snakemakes_own_report_carries_the_page_and_the_table_with_captions(finished: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    snakemake(finished, finished / "config.yaml", "--report", str(report))
    text = report.read_text(encoding="utf-8")
    assert "Synthetic-image detectors measured by rine-cache" in text
    for name, caption in (("leaderboard.html", "a tab per benchmark"), ("leaderboard.csv", "for spreadsheets")):
        assert name in text
        assert caption in text


@pytest.mark.slow
def test_a_method_that_fails_or_comes_or_goes_costs_no_other_head(
    finished: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    copy_of(finished, tmp_path, "data", "results", ".snakemake")
    before = heads_of(tmp_path, "first")
    assert set(before) == {"RINE/seed0.safetensors", "RINE/seed1.safetensors"}
    methods = config["experiments"]["first"]["methods"]
    methods["RINE-last"] = {"head": {"kind": "rine", "width": 8, "blocks": "last"}}
    methods["wild"] = {**methods["RINE"], "training": {"learning_rate": 1e30}}
    output = snakemake(tmp_path, write_config(tmp_path, config), check=False)
    assert "wild (seed 0) diverged in epoch" in output
    assert "The 4 others of 6 heads are finished, and kept in results/heads/first" in output
    with_last = heads_of(tmp_path, "first")
    assert len(with_last) == 4
    assert with_last.items() >= before.items(), "neither deleted nor trained again"
    assert not (tmp_path / "results/heads/first/heads.json").exists()

    del methods["wild"]
    expected = [
        "building the leaderboard",
        "measuring the heads of first",
        "reducing the scores of first to curves",
        "scoring test through center224 with the heads of first",
        "training the heads of first",
        "writing the leaderboard's page",
    ]
    assert jobs_of(snakemake(tmp_path, write_config(tmp_path, config))) == expected
    assert heads_of(tmp_path, "first") == with_last
    assert scored_methods(tmp_path) == {"RINE", "RINE-last"}

    del methods["RINE-last"]
    assert jobs_of(snakemake(tmp_path, write_config(tmp_path, config))) == expected
    assert heads_of(tmp_path, "first") == with_last
    assert scored_methods(tmp_path) == {"RINE"}
    assert "Nothing to be done" in snakemake(tmp_path, tmp_path / "config.yaml")
    for name in ("results/leaderboard.parquet", "results/scores/first/center224/test.parquet"):
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.slow
def test_an_ablation_is_a_table_a_page_and_two_figures_and_no_row_of_the_leaderboard(
    finished: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    copy_of(finished, tmp_path, "data", "results", ".snakemake")
    before = (tmp_path / "results" / "leaderboard.parquet").read_bytes()
    config["ablations"] = {"blocks": ABLATION}
    path = write_config(tmp_path, config)
    assert jobs_of(snakemake(tmp_path, path)) == [*ABLATION_JOBS, "writing the leaderboard's page"]
    assert (tmp_path / "results" / "leaderboard.parquet").read_bytes() == before
    made = tmp_path / "results" / "ablations"
    assert sorted(file.name for file in made.iterdir()) == [
        f"blocks.{kind}" for kind in ("md", "parquet", "png", "svg")
    ]
    table = pl.read_parquet(made / "blocks.parquet").filter(metric="auc", test_set="gen")
    assert table["family"].to_list() == ["each"] * 12 + ["greedy"] * 2 + ["0,3"]
    assert table["value"].null_count() == 0
    # What is drawn is drawn again; nothing is trained or measured again for a title, another method or a metric.
    config["ablations"]["blocks"] = {**ABLATION, "title": "Blocks of CLIP", "metrics": ["auc"]}
    config["experiments"]["first"]["methods"]["RINE-last"] = {"head": {"kind": "rine", "width": 8, "blocks": "last"}}
    jobs = jobs_of(snakemake(tmp_path, write_config(tmp_path, config), "--dry-run"))
    assert [job for job in jobs if "blocks" in job] == ["drawing ablation blocks"]
    config["ablations"]["blocks"] = {**ABLATION, "subsets": ["each"]}
    jobs = jobs_of(snakemake(tmp_path, write_config(tmp_path, config), "--dry-run"))
    assert [job for job in jobs if "blocks" in job] == ABLATION_JOBS


def test_another_view_seed_encodes_only_that_view_again(finished: Path, config: dict[str, Any]) -> None:
    config["views"] = {"train224": {"kind": "train", "seed": 1}}
    assert scheduled(finished, config) == sorted(
        [
            *TABLES,
            "auditing train",
            "encoding train through train224 with small (ln_2), shard 1 of 1",
            "joining train through train224 with small (ln_2)",
            "scoring test through center224 with the heads of first",
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
    assert len(caches) == 2 * 3, "each is a link to its only shard"
    command = [sys.executable, "-m", "rine_cache", "verify", *map(str, caches)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.count(": whole") == 6


def test_a_folder_that_is_gone_keeps_its_listing(finished: Path) -> None:
    listing = finished / "results" / "manifests" / "test.parquet"
    before = listing.read_bytes()
    command = [sys.executable, "-m", "rine_cache", "manifest", "data/test", "--out", str(listing)]
    (finished / "data" / "test").rename(finished / "away")
    output = subprocess.run(command, cwd=finished, capture_output=True, text=True, check=True).stderr
    (finished / "away").rename(finished / "data" / "test")
    assert "stays as it is" in output
    assert listing.read_bytes() == before


# A data set that has grown, and one of the same images.


def extracted(folder: Path, dataset: str) -> str:
    """Return the last line that says what an extraction did."""
    log = folder / "results" / "logs" / "extract" / dataset / "1.1-of-1.log"
    return [line for line in log.read_text().splitlines() if " encoded" in line][-1]


@pytest.mark.slow
def test_a_data_set_that_grew_encodes_its_new_images_and_another_of_the_same_images_none(
    finished: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    copy_of(finished, tmp_path, "data", "results")
    shutil.copytree(tmp_path / "data" / "test" / "1_fake", tmp_path / "data" / "shared" / "1_fake")
    for number in range(2):
        write_image(tmp_path / "data" / "test" / "0_real" / f"1-new-{number}.png")  # stands between the old
    config["datasets"]["shared"] = {"root": "data/shared"}
    path = write_config(tmp_path, config)
    caches = tmp_path / "results" / "features" / "small" / "ln_2" / "center224"
    targets = [f"results/features/small/ln_2/center224/{name}.h5" for name in ("test", "shared")]
    output = snakemake(tmp_path, path, "--forcerun", "results/manifests/test.parquet", "--", *targets)
    assert jobs_of(output) == [
        "encoding shared through center224 with small (ln_2), shard 1 of 1",
        "encoding test through center224 with small (ln_2), shard 1 of 1",
        "joining shared through center224 with small (ln_2)",
        "joining test through center224 with small (ln_2)",
        "listing the images of shared",
        "listing the images of test",
    ]
    assert "2 encoded now, 12 copied" in extracted(tmp_path, "test")
    assert "0 encoded now, 6 copied" in extracted(tmp_path, "shared")
    grown = (caches / "test.h5").read_bytes()
    shutil.rmtree(tmp_path / "results" / "features")
    snakemake(tmp_path, path, "--", targets[0])
    assert "14 encoded now, 0 copied" in extracted(tmp_path, "test")
    assert (caches / "test.h5").read_bytes() == grown


@pytest.fixture(scope="module")
def extended(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The pipeline again, with official heads, a matrix, a generator that is missing, and a data set of one class.

    The authors' file is one of our own heads in their format. Returns the folder and what Snakemake said.
    """
    folder = tmp_path_factory.mktemp("extended")
    copy_of(finished, folder, "data", "results")
    export = [sys.executable, "-m", "rine_cache", "head", "export", "results/heads/first/RINE/seed0.safetensors"]
    subprocess.run([*export, "--out", "theirs.pth"], cwd=folder, check=True, capture_output=True)
    twins.build(folder / "data" / "GenImage", twins.genimage(True, ["adm"], ["val"]), write_image)
    pair = {
        "name": "pair",
        "title": "Pair",
        "test_sets": {name: {"dataset": "genimage", "subsets": [name]} for name in ("adm", "glide")},
        "protocols": {"pair-2": {"test_sets": ["adm", "glide"]}},
    }
    (folder / "pair.yaml").write_text(yaml.safe_dump(pair))
    config = copy.deepcopy(CONFIG)
    config["datasets"]["genimage"] = {"root": "data/GenImage", "layout": "genimage", "obtain": "from the web"}
    config["datasets"]["fakes"] = {"root": "data/test/1_fake/gen", "label": "fake"}
    config["training_sets"]["theirs"] = config["training_sets"]["mine"]
    config["experiments"]["official"] = official("mine", "theirs.pth")
    config["experiments"]["lost"] = official("theirs", "gone.pth")
    config["benchmarks"] = [*config["benchmarks"], "pair.yaml"]
    config["matrices"] = {
        "cross": {
            "title": "Cross",
            "benchmark": "pair",
            "protocol": "pair-2",
            "method": "RINE",
            "rows": [{"training_set": "mine", "trained_on": []}],
        }
    }
    output = snakemake(folder, write_config(folder, config))
    assert "Nothing to be done" in snakemake(folder, folder / "config.yaml")
    return folder, output


def leaderboard(folder: Path, **conditions: str) -> list[dict[str, Any]]:
    return pl.read_parquet(folder / "results" / "leaderboard.parquet").filter(**conditions).to_dicts()


@pytest.mark.slow
def test_an_official_head_scores_as_the_head_that_it_is(extended: tuple[Path, str]) -> None:
    folder, _ = extended
    scores = folder / "results" / "scores"
    own = pl.read_parquet(scores / "first" / "center224" / "test.parquet").filter(seed=0)
    theirs = pl.read_parquet(scores / "official" / "center224" / "test.parquet")
    assert theirs["image_id"].to_list() == own["image_id"].to_list()
    np.testing.assert_allclose(theirs["logit"].to_numpy(), own["logit"].to_numpy(), rtol=1e-5)
    assert np.isfinite(theirs["logit"].to_numpy()).sum() == 12
    (row,) = leaderboard(folder, method="RINE-official", training_set="mine", test_set="gen", metric="auc")
    assert row["value"] is not None


@pytest.mark.slow
def test_an_official_head_that_is_not_here_has_empty_rows_and_a_message(extended: tuple[Path, str]) -> None:
    folder, output = extended
    assert "Experiment lost waits for gone.pth\n" in output
    assert re.search(r"^head lost/RINE-official +missing +gone\.pth +from its authors$", output, flags=re.MULTILINE)
    rows = leaderboard(folder, method="RINE-official", training_set="theirs")
    assert {row["benchmark"] for row in rows} == {"tiny", "absent", "pair", "fakes"}
    assert all(row["value"] is None and row["rank"] is None for row in rows)
    assert {row["coverage"] for row in rows} == {"0/1", "0/2"}


@pytest.mark.slow
def test_a_missing_generator_leaves_its_row_empty_and_the_mean_null(extended: tuple[Path, str]) -> None:
    folder, output = extended
    assert re.search(
        r"^data set genimage +partly here +glide +data/GenImage +from the web$", output, flags=re.MULTILINE
    )
    rows = leaderboard(folder, benchmark="pair", method="RINE", metric="acc")
    assert {row["test_set"]: (row["value"] is None, row["coverage"], row["n_real"]) for row in rows} == {
        "adm": (False, "1/2", 2),
        "glide": (True, "1/2", None),
        "mean": (True, "1/2", 2),
    }
    assert all(row["rank"] is None for row in rows)


@pytest.mark.slow
def test_a_data_set_of_one_class_is_scored_and_has_no_number(extended: tuple[Path, str]) -> None:
    folder, _ = extended
    assert pl.read_parquet(folder / "results/scores/first/center224/fakes.parquet")["logit"].null_count() == 0
    rows = leaderboard(folder, benchmark="fakes", metric="auc")
    assert rows
    assert all(row["value"] is None for row in rows)


@pytest.mark.slow
def test_a_matrix_is_a_table_a_page_and_two_figures(extended: tuple[Path, str]) -> None:
    folder, _ = extended
    made = folder / "results" / "matrices"
    assert sorted(path.name for path in made.iterdir()) == ["cross.md", "cross.parquet", "cross.png", "cross.svg"]
    row, _mean = pl.read_parquet(made / "cross.parquet").to_dicts()
    assert (row["training_set"], row["adm"] is None, row["glide"], row["mean"]) == ("mine", False, None, None)
    assert "Cross" in (made / "cross.md").read_text()
    with Image.open(made / "cross.png") as figure:
        assert min(figure.size) > 100


@pytest.mark.slow
def test_exported_caches_give_the_same_leaderboard_without_the_images(
    finished: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    copy_of(finished, tmp_path)
    rine_cache = [sys.executable, "-m", "rine_cache"]
    subprocess.run([*rine_cache, "export", str(tmp_path / "pack.tar")], cwd=finished, check=True, capture_output=True)
    subprocess.run([*rine_cache, "import", "pack.tar"], cwd=tmp_path, check=True, capture_output=True)
    output = snakemake(tmp_path, write_config(tmp_path, config))
    assert "encoding" not in output
    assert "listing" not in output
    for name in ("leaderboard.parquet", "leaderboard.csv", "leaderboard.md"):
        assert (tmp_path / "results" / name).read_bytes() == (finished / "results" / name).read_bytes()
    assert "Nothing to be done" in snakemake(tmp_path, tmp_path / "config.yaml")


@pytest.mark.slow
def test_snakemake_killed_leaves_no_orphan_and_the_next_run_finishes_the_same_file(
    finished: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    """SIGKILL to Snakemake itself: extraction notices, stops, and is resumed to the same bytes."""
    copy_of(finished, tmp_path, "data/validation", "data/test")
    write_images(tmp_path / "data" / "train", 150, 0)
    config["encoders"]["small"]["batch_size"] = 1
    path = write_config(tmp_path, config)
    target = "results/features/small/ln_2/train224/train.h5"
    part = part_path(shard_path(tmp_path / target, 1, 1))
    process = subprocess.Popen(
        [*SNAKEMAKE, "--directory", str(tmp_path), "--configfile", str(path), "--", target],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not _has_rows(part) and time.monotonic() < deadline:
        time.sleep(0.05)
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
    shutil.rmtree(tmp_path / "results" / "features")
    snakemake(tmp_path, path, "--", target)
    assert (tmp_path / target).read_bytes() == resumed
    assert FeatureCache(tmp_path / target).readable.all()


def _has_rows(part: Path) -> bool:
    """Say whether a first slab of a part file is done."""
    try:
        with h5py.File(part, "r", locking=False) as file:
            return bool(file["status"][0])
    except (OSError, KeyError):  # it is not there, or being laid out
        return False


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
