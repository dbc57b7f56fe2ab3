"""Which caches come from which reading of a data set's files: the bookkeeping, and what Snakemake makes of it."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rine_cache.cache import FeatureCache
from rine_cache.errors import ConfigError
from rine_cache.readings import Readings
from rine_cache.specs.encoding import BUILTIN_VIEWS, EncoderSpec
from rine_cache.specs.extraction import CacheSpec
from tests.test_pipeline import ABSENT, BENCHMARK, CONFIG, ROOT, jobs_of, snakemake, write_config, write_images

ENCODER = EncoderSpec(architecture="ViT-S-32-alt", weights="random")


def cache(folder: Path, view: str, encoder: EncoderSpec = ENCODER, name: str = "") -> CacheSpec:
    """Describe a cache that lies below a folder; `view` is a built-in one, `name` what it is called there."""
    return CacheSpec(
        out=folder / "features" / (name or view) / "mine.h5", encoder=encoder, tap="ln_2", view=BUILTIN_VIEWS[view]
    )


def make(readings: Path, number: int, *caches: CacheSpec) -> None:
    """Leave behind what the job of a reading does: its mark, and the shards of its caches."""
    (readings / f"{number}.1-of-1.done").touch()
    for made in caches:
        made.out.with_suffix(".shards").mkdir(parents=True, exist_ok=True)
        (made.out.with_suffix(".shards") / "1-of-1.h5").touch()
        made.out.touch()


def read_together(folder: Path, *caches: CacheSpec) -> list[int]:
    """Ask for caches as one run of Snakemake does; return the numbers of their readings."""
    readings = Readings(folder / "readings")
    numbers = [readings.number_of(wanted) for wanted in caches]
    readings.save()
    return numbers


@pytest.fixture
def first(tmp_path: Path) -> tuple[CacheSpec, CacheSpec]:
    """Two caches that a first reading has made."""
    made = (cache(tmp_path, "center224"), cache(tmp_path, "jpeg50"))
    assert read_together(tmp_path, *made) == [1, 1]
    make(tmp_path / "readings", 1, *made)
    return made


def test_what_is_asked_for_later_comes_from_a_later_reading(tmp_path: Path, first: tuple[CacheSpec, CacheSpec]) -> None:
    blurred, noisy = cache(tmp_path, "blur1"), cache(tmp_path, "noise5")
    assert read_together(tmp_path, blurred, *first, noisy) == [2, 1, 1, 2]
    assert read_together(tmp_path, noisy, blurred, *first) == [2, 2, 1, 1], "whether or not it has been made"


def test_the_order_of_asking_within_a_run_does_not_matter(tmp_path: Path, first: tuple[CacheSpec, CacheSpec]) -> None:
    readings = Readings(tmp_path / "readings")
    assert [readings.number_of(wanted) for wanted in (*first[::-1], *first)] == [1, 1, 1, 1]


def test_an_altered_encoder_or_view_is_read_anew_and_leaves_its_neighbour_alone(
    tmp_path: Path, first: tuple[CacheSpec, CacheSpec]
) -> None:
    center, jpeg = first
    altered = cache(tmp_path, "jpeg75", name="jpeg50")
    assert read_together(tmp_path, center, altered) == [1, 2]
    make(tmp_path / "readings", 2, altered)
    assert read_together(tmp_path, center, jpeg) == [1, 3], "what it was before stands in no cache any more"
    make(tmp_path / "readings", 3, jpeg)
    larger = cache(tmp_path, "center224", ENCODER.model_copy(update={"batch_size": 32}))
    assert read_together(tmp_path, larger, jpeg) == [4, 3]
    wanted = {center.out, jpeg.out}
    made = {number: Readings(tmp_path / "readings").caches_of(number, wanted) for number in (3, 4)}
    assert made == {3: [jpeg], 4: [larger]}


def test_weights_that_were_replaced_are_read_anew(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    weights.touch()
    os.utime(weights, (1, 1))
    ours = cache(tmp_path, "center224", ENCODER.model_copy(update={"weights": str(weights)}))
    assert read_together(tmp_path, ours) == [1]
    make(tmp_path / "readings", 1, ours)
    assert read_together(tmp_path, ours) == [1]
    later = (tmp_path / "readings" / "1.json").stat().st_mtime + 1
    os.utime(weights, (later, later))
    assert read_together(tmp_path, ours) == [2]


def test_a_deleted_cache_is_read_anew_and_alone(tmp_path: Path, first: tuple[CacheSpec, CacheSpec]) -> None:
    center, jpeg = first
    jpeg.out.unlink()
    assert read_together(tmp_path, *first) == [1, 1], "its shards are there: it needs only to be joined"
    (jpeg.out.with_suffix(".shards") / "1-of-1.h5").unlink()
    assert read_together(tmp_path, *first) == [1, 2]
    assert Readings(tmp_path / "readings").caches_of(1, {center.out, jpeg.out}) == [center]


def test_a_cache_that_was_made_elsewhere_is_not_drawn_into_the_reading_of_others(tmp_path: Path) -> None:
    imported, new, other = (cache(tmp_path, view) for view in ("center224", "jpeg50", "blur1"))
    imported.out.parent.mkdir(parents=True)
    imported.out.touch()
    new_number, imported_number, other_number = read_together(tmp_path, new, imported, other)
    assert new_number == other_number != imported_number
    assert read_together(tmp_path, other, imported, new) == [other_number, imported_number, new_number]


def test_what_nobody_wants_any_more_is_not_read_again(tmp_path: Path, first: tuple[CacheSpec, CacheSpec]) -> None:
    center, jpeg = first
    readings = Readings(tmp_path / "readings")
    assert readings.caches_of(1, {center.out}) == [center]
    assert readings.caches_of(1, set()) == [center, jpeg], "asked for by name, and by no experiment"


def test_caches_of_an_earlier_format_are_read_anew(tmp_path: Path, first: tuple[CacheSpec, CacheSpec]) -> None:
    file = tmp_path / "readings" / "1.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema_version": 1}))
    assert read_together(tmp_path, *first) == [2, 2]


def test_no_number_is_given_twice(tmp_path: Path, first: tuple[CacheSpec, CacheSpec]) -> None:
    (tmp_path / "readings" / "1.json").unlink()
    numbers = read_together(tmp_path, *first, cache(tmp_path, "blur1"))
    assert len(set(numbers)) == 3
    assert 1 not in numbers


def test_a_damaged_file_is_named(tmp_path: Path, first: tuple[CacheSpec, CacheSpec]) -> None:
    file = tmp_path / "readings" / "1.json"
    file.write_text(file.read_text()[:40])
    with pytest.raises(ConfigError, match=r"readings/1\.json"):
        Readings(tmp_path / "readings")


# The same with Snakemake.

ONE = "encoding test through center224, jpeg50 with other (block); center224, jpeg50 with small (ln_2), shard {} of 2"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which one data set was cached for two views and two experiments, in two shards."""
    folder = tmp_path_factory.mktemp("readings")
    write_images(folder / "data" / "test", 20, 3)  # three slabs with one encoder, two with the other
    (folder / "absent.yaml").write_text(yaml.safe_dump(ABSENT))
    shutil.copy(ROOT / "config" / "published.csv", folder / "published.csv")
    path = configure(folder, "jpeg50")
    output = snakemake(folder, path, "--", *caches(folder))
    assert [job for job in jobs_of(output) if "joining" not in job] == [
        ONE.format(1),
        ONE.format(2),
        "listing the images of test",
    ]
    return folder


def configure(folder: Path, *views: str, **altered: Any) -> Path:
    """Write a configuration whose benchmark tests one data set through some views, and center224."""
    config, benchmark = copy.deepcopy(CONFIG), copy.deepcopy(BENCHMARK)
    config["datasets"]["test"]["shards"] = 2
    config["encoders"]["other"] = config["encoders"]["small"] | {"batch_size": 8}
    second = copy.deepcopy(config["experiments"]["first"])
    second["methods"] = {"RINE-second": second["methods"]["RINE"]}
    config["experiments"]["second"] = second | {"encoder": "other", "tap": "block"}
    for view in views:
        benchmark["protocols"][f"tiny-{view}"] = {"test_sets": ["gen"], "view": view}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(benchmark))
    return write_config(folder, config | altered)


def caches(folder: Path, *views: str) -> list[str]:
    """Name the caches of both experiments through some views, or those that the fixture has made."""
    kinds = ("small/ln_2", "other/block")
    return [f"results/features/{kind}/{view}/test.h5" for kind in kinds for view in views or ("center224", "jpeg50")]


def planned(folder: Path, config: Path, *options: str) -> list[str]:
    return jobs_of(snakemake(folder, config, "--dry-run", *options))


@pytest.mark.slow
def test_one_job_makes_the_same_features_as_the_command_does_for_each(made: Path, tmp_path: Path) -> None:
    manifest = made / "results" / "manifests" / "test.parquet"
    for path, batch_size in ((caches(made, "jpeg50")[0], 4), (caches(made, "center224")[1], 8)):
        tap, view = Path(path).parts[3:5]
        alone = tmp_path / tap / "test.h5"
        command = ["extract", str(manifest), "--out", str(alone), "--tap", tap, "--view", view, "--workers", "1"]
        command += ["--architecture", "ViT-S-32-alt", "--weights", "random", "--batch-size", str(batch_size)]
        subprocess.run([sys.executable, "-m", "rine_cache", *command], cwd=made, check=True, capture_output=True)
        theirs, ours = FeatureCache(alone), FeatureCache(made / path)
        assert ours.identity.key == theirs.identity.key
        rows = np.arange(40)
        for block in range(ours.shape.blocks):
            np.testing.assert_array_equal(ours.features[block, rows, 0], theirs.features[block, rows, 0])
        np.testing.assert_array_equal(ours.embedding[rows, 0], theirs.embedding[rows, 0])
        np.testing.assert_array_equal(ours.content_sha256, theirs.content_sha256)


def test_another_view_is_one_job_and_nothing_else_is_encoded(made: Path) -> None:
    path = configure(made, "jpeg50", "blur1", "noise5")
    assert planned(made, path, "--", *caches(made)) == []
    assert planned(made, path, "--", *caches(made, "center224", "blur1", "noise5")) == [
        f"encoding test through blur1, noise5 with other (block); blur1, noise5 with small (ln_2), shard {shard} of 2"
        for shard in (1, 2)
    ] + [
        f"joining test through {view} with {encoder}"
        for view in ("blur1", "noise5")
        for encoder in ("other (block)", "small (ln_2)")
    ]


def test_only_what_is_asked_for_is_read(made: Path) -> None:
    path = configure(made, "jpeg50", "blur1", "noise5")
    assert planned(made, path, "--", "results/features/small/ln_2/blur1/test.h5") == [
        "encoding test through blur1 with small (ln_2), shard 1 of 2",
        "encoding test through blur1 with small (ln_2), shard 2 of 2",
        "joining test through blur1 with small (ln_2)",
    ]


def test_a_view_that_nothing_tests_may_be_asked_for(made: Path) -> None:
    jobs = planned(made, configure(made, "jpeg50"), "--", "results/features/small/ln_2/webp80/test.h5")
    assert jobs[0] == "encoding test through webp80 with small (ln_2), shard 1 of 2"


def test_an_altered_view_is_encoded_again_and_its_neighbours_are_not(made: Path) -> None:
    altered = {"jpeg50": {"kind": "center", "prepare": [{"op": "jpeg", "quality": 51}]}}
    path = configure(made, "jpeg50", views=altered)
    assert planned(made, path, "--", *caches(made)) == [
        f"encoding test through jpeg50 with other (block); jpeg50 with small (ln_2), shard {shard} of 2"
        for shard in (1, 2)
    ] + [f"joining test through jpeg50 with {encoder}" for encoder in ("other (block)", "small (ln_2)")]


def test_a_listing_made_again_is_read_once_without_what_is_not_wanted_any_more(made: Path) -> None:
    options = ("--forcerun", "results/manifests/test.parquet", "--")
    jobs = planned(made, configure(made, "jpeg50"), *options, *caches(made))
    assert jobs[:2] == [ONE.format(1), ONE.format(2)]
    jobs = planned(made, configure(made), *options, *caches(made, "center224"))
    assert jobs[0] == "encoding test through center224 with other (block); center224 with small (ln_2), shard 1 of 2"


def test_a_job_on_another_machine_reads_the_configuration_anew_and_finds_its_caches(made: Path, tmp_path: Path) -> None:
    """As an executor starts it: the graph of one job, its mark already removed by the process that sends it."""
    folder = tmp_path / "sent"
    shutil.copytree(made, folder, symlinks=True)
    path = configure(folder, "jpeg50", "blur1")
    (folder / "results/features/readings/test/1.2-of-2.done").unlink()
    job = ["--target-jobs", "extract:dataset=test,reading=1,shard=2,shards=2", "--allowed-rules", "extract"]
    assert planned(folder, path, *job, "--mode", "remote") == [ONE.format(2)]


@pytest.mark.slow
def test_a_shard_that_was_deleted_is_made_again_by_the_next_run(made: Path, tmp_path: Path) -> None:
    """As `rine-cache verify` tells whoever finds one damaged."""
    folder = tmp_path / "damaged"
    shutil.copytree(made, folder, symlinks=True)
    path, (target, *_) = configure(folder, "jpeg50"), caches(folder, "jpeg50")
    shard = folder / target.replace("test.h5", "test.shards/2-of-2.h5")
    before = shard.read_bytes()
    (folder / target).unlink()
    shard.unlink()
    output = snakemake(folder, path, "--", *caches(folder))
    assert [job.partition(",")[0] for job in jobs_of(output)] == [
        "encoding test through jpeg50 with small (ln_2)",
        "encoding test through jpeg50 with small (ln_2)",
        "joining test through jpeg50 with small (ln_2)",
    ]
    assert shard.read_bytes() == before
    assert FeatureCache(folder / target).damage() == []
