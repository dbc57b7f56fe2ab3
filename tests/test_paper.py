"""The paper's configuration and the cross-generator one on a machine with none, some and all of the data: dry runs."""

from __future__ import annotations

import functools
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
import yaml

from rine_cache.layouts import list_images
from rine_cache.manifest import build_manifest, write_manifest
from rine_cache.published import read_published
from rine_cache.specs.benchmark import MEAN
from rine_cache.specs.config import config_from, load_benchmarks, load_config
from rine_cache.specs.data import DatasetSpec
from tests import container_twins, twins
from tests.test_pipeline import ROOT, jobs_of, snakemake

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rine_cache.specs.config import Config

PAPER = load_config(ROOT / "config" / "paper.yaml")
CROSS = load_config(ROOT / "config" / "cross.yaml")
OFFICIAL = [name for name in PAPER.experiments if name.startswith("official-")]
TRAINED = [name for name in PAPER.experiments if name not in OFFICIAL]
TABLES = [
    "building the leaderboard",
    "looking for images that stand twice",
    "measuring what a classifier without pixels solves",
    "writing the leaderboard's page",
]
# The views through which the benchmarks test each data set, and the training sets read theirs.
TESTED = {
    "aigcdetectbenchmark": ["center224"],
    "chameleon": ["center224", "center224-resize256", "patches224"],
    "forensynths-test": ["center224"],
    "genimage": ["center224"],
    "opensdid-test": ["center224", "center224-resize512"],
    "synthbuster": ["tencrop224"],
    "ufd-diffusion": ["center224"],
}
TRAINED_ON = {
    "genimage-train-sdv14": ["center224", "train224"],
    "ldm-train": ["train224"],
    "ldm-validation": ["center224"],
    "opensdid-train": ["center224", "train224"],
    "progan-train": ["train224"],
    "progan-validation": ["center224"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder as a clone has it: the configurations, and no data."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    return tmp_path


def dry_run(folder: Path, config: str) -> str:
    return snakemake(folder, folder / "config" / config, "--dry-run")


def work_on(views: dict[str, list[str]]) -> list[str]:
    """Name the jobs that make caches of data sets through views: each data set is read once for all of them."""
    encoder = "clip-vit-l14 (ln_2)"
    made = [f"encoding {name} through {', '.join(views[name])} with {encoder}, shard 1 of 1" for name in views]
    made += [f"joining {name} through {view} with {encoder}" for name in views for view in views[name]]
    return made + [f"{job} {name}" for name in views for job in ("listing the images of", "auditing")]


def scores(experiments: Iterable[str], views: dict[str, list[str]]) -> list[str]:
    return [
        f"scoring {name} through {view} with the heads of {experiment}"
        for experiment in experiments
        for name in views
        for view in views[name]
    ]


def for_each(job: str, experiments: Iterable[str]) -> list[str]:
    return [f"{job} {experiment}" for experiment in experiments]


def waiting(output: str) -> dict[str, str]:
    """Return what each experiment is said to wait for."""
    return dict(re.findall(r"^Experiment (\S+) waits for (.*)$", output, flags=re.MULTILINE))


def missing(output: str) -> dict[str, str]:
    """Return what the table of what is missing says of each data set and head, with its spaces folded."""
    lines = re.findall(r"^(?:data set|head) (\S+) +(.*)$", output, flags=re.MULTILINE)
    return {name: " ".join(rest.split()) for name, rest in lines}


def curves(experiments: Iterable[str]) -> list[str]:
    return [f"reducing the scores of {name} to curves" for name in experiments]


def build_progan(folder: Path, train: Iterable[str], validation: Iterable[str]) -> None:
    for split, classes in (("train", train), ("val", validation)):
        paths = [path for path in twins.forensynths_train(classes) if path.startswith(f"{split}/")]
        twins.build(folder / "data" / "progan", paths)


def test_with_no_data_only_the_tables_are_made_and_every_source_is_named(folder: Path) -> None:
    output = dry_run(folder, "paper.yaml")
    assert jobs_of(output) == sorted([*TABLES, *for_each("measuring the heads of", PAPER.experiments)])
    assert missing(output) == {
        **{name: f"missing {spec.root} {spec.obtain}" for name, spec in PAPER.datasets.items()},
        **{
            f"official-{name}/RINE-official": f"missing data/rine/model_{file}_trainable.pth "
            "https://github.com/mever-team/rine (ckpt/)"
            for name, file in (("progan-1", "1class"), ("progan-2", "2class"), ("progan-4", "4class"), ("ldm", "ldm"))
        },
    }
    assert all(spec.obtain for spec in PAPER.datasets.values())
    assert list(waiting(output)) == list(PAPER.experiments)


def test_with_some_of_the_data_what_can_run_is_scheduled_and_nothing_else(folder: Path) -> None:
    """GenImage's test images of two generators, ForenSynths' test images, ProGAN without one of its four classes."""
    twins.build(folder / "data" / "GenImage", twins.genimage(True, ["adm", "sdv14"], ["val"]))
    twins.build(folder / "data" / "forensynths-test", twins.forensynths_test())
    build_progan(folder, ["car", "chair", "horse"], ["car", "cat", "chair", "horse"])
    output = dry_run(folder, "paper.yaml")
    tested = {name: TESTED[name] for name in ("forensynths-test", "genimage")}
    trained_on = {name: TRAINED_ON[name] for name in ("progan-train", "progan-validation")}
    able = ["rine-progan-1", "rine-progan-2"]
    assert jobs_of(output) == sorted(
        [
            *TABLES,
            *work_on({**tested, **trained_on}),
            *for_each("training the heads of", able),
            *scores(able, tested),
            *curves(able),
            *for_each("measuring the heads of", PAPER.experiments),
        ]
    )
    told = waiting(output)
    assert set(told) == set(PAPER.experiments) - set(able)
    assert told["rine-progan-4"] == "progan-train:cat"
    assert told["rine-genimage-sdv14"] == "genimage-train-sdv14"
    table = missing(output)
    assert table["progan-train"].startswith("partly here cat data/progan/train ")
    assert table["genimage"].startswith("partly here biggan, glide, midjourney, sdv15, vqdm, wukong data/GenImage ")
    assert table["genimage-train-sdv14"].startswith("missing sdv14 data/GenImage ")
    assert not table.keys() & {"forensynths-test", "progan-validation"}


def test_with_all_of_the_data_everything_runs_and_each_view_is_encoded_once(folder: Path) -> None:
    data = folder / "data"
    twins.build(data / "GenImage", twins.genimage())
    twins.build(data / "forensynths-test", twins.forensynths_test())
    twins.build(data / "diffusion_datasets", twins.ufd_diffusion())
    twins.build(data / "Chameleon", twins.chameleon())
    twins.build(data / "synthbuster", twins.synthbuster())
    twins.build(data / "AIGCDetectBenchmark", twins.aigcdetectbenchmark())
    twins.build(data / "rine", [f"model_{name}_trainable.pth" for name in ("1class", "2class", "4class", "ldm")])
    twins.build_ldm_train(data / "ldm")
    container_twins.opensdid(data, 1)
    build_progan(folder, ["car", "cat", "chair", "horse"], ["car", "cat", "chair", "horse"])
    output = dry_run(folder, "paper.yaml")
    assert jobs_of(output) == sorted(
        [
            *TABLES,
            *work_on({**TESTED, **TRAINED_ON}),
            *for_each("importing the heads of", OFFICIAL),
            *for_each("training the heads of", TRAINED),
            *scores(PAPER.experiments, TESTED),
            *curves(PAPER.experiments),
            *for_each("measuring the heads of", PAPER.experiments),
        ]
    )
    assert waiting(output) == {}
    assert not missing(output).keys() - {"aigcdetectbenchmark"}


def test_the_latent_diffusion_set_waits_for_the_real_images_that_its_lists_name(folder: Path) -> None:
    twins.build_ldm_train(folder / "data" / "ldm")
    shutil.rmtree(folder / "data" / "ldm" / "coco")
    output = dry_run(folder, "paper.yaml")
    assert waiting(output)["rine-ldm"] == "ldm-train:coco, ldm-validation:coco"
    assert missing(output)["ldm-train"].startswith("partly here coco data/ldm ")
    assert not any("ldm-train" in job for job in jobs_of(output))


def test_two_generators_are_crossed_and_the_others_are_waited_for(folder: Path) -> None:
    twins.build(folder / "data" / "GenImage", twins.genimage(True, ["adm", "sdv14"]))
    output = dry_run(folder, "cross.yaml")
    able = ["cross-genimage-adm", "cross-genimage-sdv14"]
    tested = {"genimage": ["center224"]}
    trained_on = {f"genimage-train-{name}": ["center224", "train224"] for name in ("adm", "sdv14")}
    assert jobs_of(output) == sorted(
        [
            *TABLES,
            *work_on({**tested, **trained_on}),
            *for_each("training the heads of", able),
            *scores(able, tested),
            *curves(able),
            *for_each("measuring the heads of", CROSS.experiments),
            "drawing the matrix genimage",
        ]
    )
    told = waiting(output)
    absent = ("midjourney", "sdv15", "glide", "wukong", "vqdm", "biggan")
    assert told.pop("cross-genimage") == ", ".join(f"genimage-train-{name}" for name in absent)
    assert told == {f"cross-genimage-{name}": f"genimage-train-{name}" for name in absent}


@pytest.mark.parametrize(
    ("more", "heads"),
    [("paper-grid.yaml", 3 * 48 + 24), ("paper-grid-b32.yaml", 3 * 48), ("paper-studies.yaml", 6 + 36 + 9)],
)
def test_the_authors_settings_are_added_to_the_paper_and_stand_beside_their_results(
    folder: Path, more: str, heads: int
) -> None:
    added = folder / "config" / more
    output = snakemake(folder, folder / "config" / "paper.yaml", str(added), "--dry-run")
    data = yaml.safe_load(added.read_text())
    config = paper_with(more)
    assert set(waiting(output)) == set(config.experiments) == {*PAPER.experiments, *data["experiments"]}
    ours = {
        (experiment.training_set, method)
        for name, experiment in config.experiments.items()
        for method in experiment.methods
        if name in data["experiments"]
    }
    assert len(ours) == heads
    published = pl.concat([read_published(folder / path) for path in config.published])
    theirs = published.filter(test_set="mean", metric="ap").select("training_set", "method").rows()
    assert ours <= set(theirs), "every setting has the authors' own result"
    benchmarks = load_benchmarks(config, folder)
    for row in published.filter(source="github mever-team/rine results").iter_rows(named=True):
        assert row["test_set"] in {MEAN, *benchmarks[row["benchmark"]].protocols[row["protocol"]].test_sets}


def paper_with(*more: str) -> Config:
    """Return paper.yaml united with further files of the same folder, as Snakemake unites them."""
    files = [yaml.safe_load((ROOT / "config" / name).read_text()) for name in ("paper.yaml", *more)]
    return config_from(functools.reduce(_merged, files))


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Unite dictionaries as Snakemake does with two configuration files: tables key by key, the rest replaced."""
    united = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(under.get(key), dict)
        united[key] = _merged(under[key], value) if both else value
    return united


def test_the_ablations_by_block_wait_for_their_data_and_encode_nothing_more(folder: Path) -> None:
    both = (folder / "config" / "paper.yaml", str(folder / "config" / "paper-studies.yaml"), "--dry-run")
    told = set(re.findall(r"^Ablation (\S+) waits with experiment (\S+)$", snakemake(folder, *both), re.MULTILINE))
    assert told == {(f"blocks-progan-{classes}", f"rine-progan-{classes}") for classes in (1, 2, 4)}
    twins.build(folder / "data" / "forensynths-test", twins.forensynths_test())
    twins.build(folder / "data" / "diffusion_datasets", twins.ufd_diffusion())
    build_progan(folder, ["horse"], ["horse"])
    output = snakemake(folder, *both, "results/ablations/blocks-progan-1.parquet")
    views = {"progan-train": ["train224"], "progan-validation": ["center224"], "forensynths-test": ["center224"]}
    views["ufd-diffusion"] = ["center224"]
    made = [job for job in jobs_of(output) if "progan-1" in job]
    assert made == sorted(
        [
            "drawing ablation blocks-progan-1",
            "measuring the heads of ablation blocks-progan-1",
            "training the heads of ablation blocks-progan-1",
            *scores(["blocks-progan-1"], {name: views[name] for name in ("forensynths-test", "ufd-diffusion")}),
        ]
    )


def test_test_images_alone_train_nothing(folder: Path) -> None:
    twins.build(folder / "data" / "GenImage", twins.genimage(splits=["val"]))
    output = dry_run(folder, "cross.yaml")
    assert not any("training" in job or "genimage-train" in job for job in jobs_of(output))
    assert missing(output)["genimage-train-adm"].startswith("missing adm data/GenImage ")


def test_a_generator_that_came_after_the_listing_is_told_of(folder: Path) -> None:
    root = twins.build(folder / "data" / "GenImage", twins.genimage(generators=["adm"], splits=["val"]))
    listing = list_images(DatasetSpec(root=str(root), layout="genimage"))
    write_manifest(build_manifest(listing.table, Path("data/GenImage")), folder / "results/manifests/genimage.parquet")
    assert "has grown" not in dry_run(folder, "paper.yaml")
    twins.build(root, twins.genimage(generators=["glide"], splits=["val"]))
    assert (
        "Data set genimage has grown by glide, which is not listed yet; to list it again, "
        "add --forcerun results/manifests/genimage.parquet\n"
    ) in dry_run(folder, "paper.yaml")
