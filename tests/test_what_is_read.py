"""What is read from the disk: of images each once, for all caches; of caches the blocks that heads ask for."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml

from rine_cache.cache import (
    CacheIdentity,
    CacheShape,
    FeatureCache,
    RowRange,
    Slab,
    Status,
    join_shards,
    open_writer,
    shard_path,
)
from rine_cache.features import FeatureSet, open_part
from rine_cache.heads.head import load_heads
from rine_cache.layouts import list_images
from rine_cache.manifest import build_manifest, write_manifest
from rine_cache.score import ScoredImages, score
from rine_cache.specs.base import parse
from rine_cache.specs.data import DatasetSpec
from rine_cache.specs.training import ExperimentSpec
from rine_cache.train import train_experiment

if TYPE_CHECKING:
    from collections.abc import Callable

# Extracts three caches, of two views and two encoders, in processes that all note which files they open.
EXTRACTION = """
import sys
from pathlib import Path

from rine_cache.decoding import pool
from rine_cache.extract import Target, extract
from rine_cache.layouts import list_images
from rine_cache.manifest import build_manifest
from rine_cache.specs.data import DatasetSpec
from rine_cache.specs.encoding import TrainViewSpec
from tests.conftest import CENTER, SIZE, StandInEncoder

pool.START_METHOD = "fork"  # the processes that decode inherit the hook
root, out = Path(sys.argv[1]), Path(sys.argv[2])
manifest = build_manifest(list_images(DatasetSpec(root=str(root))).table, root)
views = (CENTER, TrainViewSpec(kind="train", size=SIZE, draws=2))
targets = [
    *(Target(StandInEncoder(), "ln_2", view, out / f"{view.kind}.h5") for view in views),
    Target(StandInEncoder(seed=1), "block", CENTER, out / "other.h5"),
]


def note(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".png"):
        with (out / "opened").open("a") as log:
            log.write(f"{arguments[0]}\\n")


sys.addaudithook(note)
extract(manifest, targets, workers=2)
"""


def test_each_image_is_opened_once_for_all_caches(make_images: Callable[..., Path], tmp_path: Path) -> None:
    root = make_images(per_class=20)
    command = [sys.executable, "-c", EXTRACTION, str(root), str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parent.parent, timeout=100)
    opened = Counter((tmp_path / "opened").read_text().splitlines())
    assert opened == dict.fromkeys(map(str, root.rglob("*.png")), 1)


BLOCKS, WIDTH = 12, 16384  # a block of 18 images then takes 590 kB: many pages


def write_cache(folder: Path, name: str, make_images: Callable[..., Path], shards: int, seed: int) -> tuple[Path, Path]:
    """Write a manifest of a few images, and a cache of wide features that nothing encoded."""
    root = make_images(name, per_class=6, seed=seed)
    manifest = build_manifest(list_images(DatasetSpec(root=str(root))).table, root)
    write_manifest(manifest, folder / f"{name}.parquet")
    rng = np.random.default_rng(seed)
    key = {"encoder": {"architecture": "none"}, "tap": "ln_2", "compute_dtype": "float32"}
    images = len(manifest)
    for number in range(1, shards + 1):
        rows = range((number - 1) * images // shards, number * images // shards)
        shape = CacheShape(BLOCKS, len(rows), 1, WIDTH, 4, images // shards)
        identity = CacheIdentity(key, manifest.listing_digest, {}, "cpu", RowRange(rows.start, images))
        content = Slab.empty(shape, len(rows))
        content.features[:] = rng.normal(size=content.features.shape)
        content.tables["status"][:] = Status.DONE
        content.tables["content_sha256"][:] = rng.integers(0, 256, (len(rows), 32))
        path = folder / f"{name}.h5" if shards == 1 else shard_path(folder / f"{name}.h5", number, shards)
        with open_writer(path, shape, identity) as writer:
            writer.write(0, content)
            writer.seal()
    if shards > 1:
        join_shards(folder / f"{name}.h5", shards)
    return folder / f"{name}.h5", folder / f"{name}.parquet"


def bytes_read(folder: Path) -> int:
    """Add up what this process has in memory of the caches that it maps from a folder."""
    maps = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    mapped = [text for text in maps if f"{folder}/" in text and ".h5\n" in text]
    return 1024 * sum(int(re.search(r"^Rss: +(\d+) kB$", text, re.MULTILINE)[1]) for text in mapped)  # type: ignore[index]


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the kernel is asked what was read")
@pytest.mark.parametrize(
    ("blocks", "count", "shards", "budget"),
    [
        ("all", 12, 1, "4 GiB"),
        ("last:6", 6, 1, "4 GiB"),
        ("[0, 2, 3, 5, 8, 11]", 6, 1, "4 MiB"),  # window after window
        ("every:2", 6, 3, "4 GiB"),
        ("last", 1, 3, "4 GiB"),
    ],
)
def test_heads_on_some_blocks_read_that_share_of_the_cache(
    blocks: str,
    count: int,
    shards: int,
    budget: str,
    make_images: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairs = [write_cache(tmp_path, name, make_images, shards, seed) for seed, name in enumerate(("train", "val"))]
    head = {"kind": "rine", "blocks": yaml.safe_load(blocks), "width": 4, "layers": 1}
    training = {"epochs": 1, "batch_size": 8, "memory_budget": budget}
    settings = {"encoder": "none", "training_set": "none", "training": training}
    experiment = parse(ExperimentSpec, {**settings, "methods": {"RINE": {"head": head}}}, "test")
    features = [FeatureSet([open_part(*pair)]) for pair in pairs]
    whole = sum(BLOCKS * len(part) * WIDTH * 2 for part in features)
    monkeypatch.setattr("rine_cache.feature_windows.RUN_ROWS", 4)
    slack = len(features) * shards * BLOCKS * 2**17  # whole pages are mapped, and some around each
    assert bytes_read(tmp_path) < slack, "opening reads no feature"
    train_experiment(experiment, *features, tmp_path / "heads", "cpu")
    assert bytes_read(tmp_path) < slack, "what was read is not kept mapped"
    monkeypatch.setattr(FeatureCache, "forget_pages", lambda _: None)
    train_experiment(experiment, *features, tmp_path / "again", "cpu")
    assert whole * count / BLOCKS <= bytes_read(tmp_path) <= whole * count / BLOCKS + slack
    del features
    part = open_part(*pairs[0])
    score(load_heads(tmp_path / "heads"), part, ScoredImages("train", "none"), tmp_path / "scores.parquet", "cpu")
    assert whole / 2 * count / BLOCKS <= bytes_read(tmp_path) <= whole / 2 * count / BLOCKS + slack / 2
