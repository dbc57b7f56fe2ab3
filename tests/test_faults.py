"""Kills at random moments, by the hundred with the stand-in and by the dozen with a real encoder."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from rine_cache.cache import FeatureCache, join_shards, part_path
from rine_cache.extract import Target, extract
from rine_cache.manifest import write_manifest
from tests.conftest import CENTER, StandInEncoder
from tests.kills import kills_until_done
from tests.test_extract import TRAIN, Slow, manifest_of
from tests.test_one_pass import messy_images

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHARDS = 2


def extract_all(root: Path, folder: Path, encoder: StandInEncoder, shard: tuple[int, int] | None) -> None:
    targets = [
        Target(encoder, "ln_2", TRAIN, folder / "train.h5"),
        Target(encoder, "block", CENTER, folder / "block.h5"),
        Target(StandInEncoder(batch_size=3, seed=1), "ln_2", CENTER, folder / "other.h5"),
    ]
    extract(manifest_of(root), targets, workers=2, shard=shard)


@pytest.mark.slow
def test_two_hundred_kills_change_no_byte(make_images: Callable[..., Path], tmp_path: Path) -> None:
    """Three caches of one pass, in two shards, killed over and over."""
    root = messy_images(make_images)
    extract_all(root, tmp_path / "whole", StandInEncoder(), None)
    kills = rounds = 0
    while kills < 200:
        folder = tmp_path / str(rounds)
        for number in range(1, SHARDS + 1):
            last = folder / "other.shards" / f"{number}-of-{SHARDS}.h5"
            arguments = (root, folder, Slow(), (number, SHARDS))
            kills += kills_until_done(extract_all, arguments, longest_s=0.25, most=200, seed=kills)
            assert FeatureCache(last).readable.any()
        for name in ("train", "block", "other"):
            join_shards(folder / f"{name}.h5", SHARDS)
            found, whole = FeatureCache(folder / f"{name}.h5"), FeatureCache(tmp_path / "whole" / f"{name}.h5")
            assert list(found.damaged_slabs()) == []
            for slab in range(whole.shape.slabs):
                ours, theirs = found.read_slab(slab), whole.read_slab(slab)
                assert ours is not None
                assert theirs is not None
                assert (ours.checksums() == theirs.checksums()).all()
        rounds += 1


@pytest.mark.slow
def test_a_dozen_kills_of_the_command_change_no_byte(make_images: Callable[..., Path], tmp_path: Path) -> None:
    """The command itself, with a real tower of random weights, killed whenever it comes."""
    manifest = tmp_path / "m.parquet"
    write_manifest(manifest_of(make_images(per_class=120)), manifest)
    command = [sys.executable, "-m", "rine_cache", "extract", str(manifest), "--architecture", "ViT-S-32"]
    command += ["--weights", "random", "--batch-size", "2", "--workers", "2", "--out"]
    subprocess.run([*command, str(tmp_path / "whole.h5")], check=True, capture_output=True)
    killed = tmp_path / "killed" / "x.h5"
    rng = random.Random(0)
    for _ in range(12):
        process = subprocess.Popen([*command, str(killed)], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not part_path(killed).exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 1.5))
        process.kill()
        process.wait()
    subprocess.run([*command, str(killed)], check=True, capture_output=True)
    assert killed.read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert not part_path(killed).exists()
