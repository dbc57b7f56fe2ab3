"""Peak memory of training on more features than fit into memory, and how long an epoch takes.

Run it as ``python benchmarks/train_memory.py``; ``--help`` lists what can be set. Sealed caches of random features are
written below a folder, real bytes all of them, and one head learns from them for one epoch, in a process of its own.
Printed is that process's memory before training and at its peak, as Linux counts it: all of it (VmHWM, with the pages
of the cache that were mapped at that moment), and the anonymous part, which nobody but the process can give back.

The default is 20-class ProGAN through ViT-L/14: 720,000 images, 35 GB.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import polars as pl
from memory import status, watched_anonymous_memory

from rine_cache.cache import CacheIdentity, CacheShape, RowRange, Slab, Status, open_writer
from rine_cache.manifest import SCHEMA, build_manifest, write_manifest

VALIDATION_IMAGES = 4096
SLAB_ROWS = 4096
EMBEDDING_WIDTH = 8
ENCODER = {"architecture": "random", "activation": "none", "weights_sha256": "0" * 64}
ENCODER |= {"image_size": 224, "mean": [0.0] * 3, "std": [1.0] * 3}
KEY = {"encoder": ENCODER, "tap": "ln_2", "compute_dtype": "float16"}


def make_cache(folder: Path, name: str, images: int, blocks: int, width: int) -> None:
    """Write a sealed cache of random features and its manifest; no image exists."""
    rows = pl.DataFrame({"image_id": [f"{number:07d}.png" for number in range(images)]})
    table = rows.with_columns(
        label=pl.int_range(images) % 2, size=1, **dict.fromkeys(set(SCHEMA) - {"image_id", "label", "size"})
    )
    manifest = build_manifest(table.select(SCHEMA.names()).cast(dict(SCHEMA)), folder)  # type: ignore[arg-type]  # polars' stubs
    write_manifest(manifest, folder / f"{name}.parquet")
    shape = CacheShape(blocks, images, 1, width, EMBEDDING_WIDTH, SLAB_ROWS)
    identity = CacheIdentity(KEY, manifest.listing_digest, {}, "cpu", RowRange(0, images))
    rng = np.random.default_rng(len(name))
    tokens = (rng.random((blocks, SLAB_ROWS, 1, width), np.float32) - 0.5).astype(np.float16)  # (K, n, V, D)
    with open_writer(folder / f"{name}.h5", shape, identity) as writer:
        for number in range(shape.slabs):
            within = shape.rows(number)
            slab = Slab.empty(shape, within.stop - within.start)
            # Numbers alike in all slabs, which changes nothing for a reader, but for the first of each token.
            slab.features[:] = tokens[:, : within.stop - within.start]
            slab.features[:, :, 0, 0] = number / shape.slabs
            slab.tables["status"][:] = Status.DONE
            slab.tables["content_sha256"][:] = rng.integers(0, 256, slab.tables["content_sha256"].shape)
            writer.write(number, slab)
        writer.seal()


def train(folder: Path, memory_budget: str, head_width: int, batch_size: int) -> dict[str, float]:
    """Train one head for one epoch in this process; return seconds, and kibibytes before and at the peak."""
    from rine_cache.features import FeatureSet, open_part
    from rine_cache.specs.training import ExperimentSpec
    from rine_cache.train import train_experiment

    training = {"epochs": 1, "batch_size": batch_size, "memory_budget": memory_budget}
    methods = {"RINE": {"head": {"kind": "rine", "width": head_width, "layers": 1}}}
    described = {"encoder": "random", "training_set": "random", "training": training, "methods": methods}
    spec = ExperimentSpec.model_validate(described)
    before = status()["VmRSS"]
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as out, watched_anonymous_memory() as seen:
        parts = [open_part(folder / f"{name}.h5", folder / f"{name}.parquet") for name in ("train", "validation")]
        train_experiment(spec, *(FeatureSet([part]) for part in parts), Path(out), "cpu")
    seconds = time.perf_counter() - start
    return {"before": before, "peak": status()["VmHWM"], "anonymous": max(seen), "seconds": seconds}


@click.command()
@click.option("--images", default=720_000, show_default=True)
@click.option("--blocks", default=24, show_default=True)
@click.option("--width", default=1024, show_default=True, help="D, of a token.")
@click.option("--head-width", default=128, show_default=True, help="P.")
@click.option("--batch-size", default=128, show_default=True)
@click.option("--memory-budget", default="4 GiB", show_default=True)
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where caches lie meanwhile, if not in the temporary folder."
)
@click.option("--one", is_flag=True, hidden=True)
def main(
    images: int,
    blocks: int,
    width: int,
    head_width: int,
    batch_size: int,
    memory_budget: str,
    folder: Path | None,
    *,
    one: bool,
) -> None:
    """Print the peak memory and the seconds of an epoch over IMAGES images."""
    if one:
        assert folder is not None
        click.echo(json.dumps(train(folder, memory_budget, head_width, batch_size)))
        return
    with tempfile.TemporaryDirectory(dir=folder) as made:
        start = time.perf_counter()
        for name, count in (("train", images), ("validation", VALIDATION_IMAGES)):
            make_cache(Path(made), name, count, blocks, width)
        size = (Path(made) / "train.h5").stat().st_size
        click.echo(
            f"{images:,} images x {blocks} blocks x {width}: {size / 1e9:.1f} GB, written and sealed in "
            f"{time.perf_counter() - start:.0f} s"
        )
        command = [sys.executable, __file__, "--one", "--folder", made, "--memory-budget", memory_budget]
        command += ["--head-width", str(head_width), "--batch-size", str(batch_size)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    before, peak, anonymous = (found[name] / 2**20 for name in ("before", "peak", "anonymous"))
    click.echo(
        f"one epoch of one head (P={head_width}), memory_budget {memory_budget}: {found['seconds']:.0f} s; "
        f"{before:.2f} GiB before it, peak {peak:.2f} GiB; anonymous, at most {anonymous:.2f} GiB"
    )


if __name__ == "__main__":
    main()
