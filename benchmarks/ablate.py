"""What a subset of blocks costs: bytes read and time of training, against all blocks.

Run it as ``python benchmarks/ablate.py``; ``--help`` lists what can be set. Heads that read the last 6 of 24 blocks and
heads that read all are trained in turn, in one run, on the same sealed cache of random features. A ratio is that of two
times measured one after the other, in one round; its median over the rounds is printed with the quartiles. Bytes are
the pages of the cache that a training has touched, as Linux counts them, in a first round in which they are kept; a
page may bring neighbours of up to 2 MiB.
"""

from __future__ import annotations

import platform
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import click
import numpy as np
import torch
from PIL import Image

from rine_cache.cache import FeatureCache
from rine_cache.devices import resolve_device
from rine_cache.extract import Target, extract
from rine_cache.features import FeatureSet, open_part
from rine_cache.layouts import list_images
from rine_cache.manifest import build_manifest, write_manifest
from rine_cache.specs.data import DatasetSpec
from rine_cache.specs.encoding import CenterViewSpec
from rine_cache.specs.training import ExperimentSpec
from rine_cache.train import train_experiment

SIDE = 16  # pixels of the images, which nobody looks at


class Encoded(NamedTuple):
    """What an encoder gives: tokens by tap, (K, B, D), and embeddings, (B, E)."""

    tokens: dict[str, np.ndarray]
    embedding: np.ndarray

    def result(self) -> Encoded:
        """Return itself: it is there already."""
        return self


class RandomEncoder:
    """Gives random tokens, so that a cache of any size takes seconds."""

    def __init__(self, blocks: int, width: int) -> None:
        self.identity = {"architecture": "random", "activation": "none", "weights_sha256": "0" * 64}
        self.identity |= {"image_size": SIDE, "mean": [0.0] * 3, "std": [1.0] * 3}
        self.compute_dtype, self.compiled, self.device = "float32", False, "cpu"
        self.batch_size, self.in_flight = 64, 1
        self.block_count, self.width, self.embedding_width, self.image_size = blocks, width, 8, SIDE
        self._rng = np.random.default_rng(0)

    def new_batch(self) -> np.ndarray:
        """Return an empty batch of crops."""
        return np.zeros((self.batch_size, SIDE, SIDE, 3), np.uint8)  # (B, S, S, 3)

    def start(self, crops: np.ndarray) -> Encoded:
        """Draw tokens."""
        shape = (self.block_count, len(crops), self.width)
        tokens = (self._rng.random(shape, np.float32) - 0.5).astype(np.float16)  # (K, B, D)
        return Encoded({"ln_2": tokens}, np.zeros((len(crops), 8), np.float16))


def make_cache(folder: Path, name: str, images: int, seed: int, encoder: RandomEncoder) -> tuple[Path, Path]:
    """Make a sealed cache and its manifest."""
    rng = np.random.default_rng(seed)
    for number in range(images):
        path = folder / name / ("0_real" if number % 2 else "1_fake") / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(path, compress_level=1)
    manifest = build_manifest(list_images(DatasetSpec(root=str(folder / name))).table, folder / name)
    write_manifest(manifest, folder / f"{name}.parquet")
    view = CenterViewSpec(kind="center", size=SIDE)
    extract(manifest, [Target(encoder, "ln_2", view, folder / f"{name}.h5")], workers=1)
    return folder / f"{name}.h5", folder / f"{name}.parquet"


def mapped_bytes(path: Path) -> int:
    """Count the bytes of a file's pages that this process has touched through memory maps that are still open."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):
            ours = line.endswith(f" {path.resolve()}")
        elif ours and name == "Rss:":
            total += 1024 * int(rest.split()[0])
    return total


def train(spec: ExperimentSpec, caches: tuple[tuple[Path, Path], tuple[Path, Path]], device: str) -> tuple[float, int]:
    """Train an experiment on freshly opened caches; return the seconds it took and the bytes it read."""
    features, validation = (FeatureSet([open_part(*cache)]) for cache in caches)
    (file,) = features.caches[0].files
    before = mapped_bytes(file)
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        train_experiment(spec, features, validation, Path(out), device)
        return time.perf_counter() - start, mapped_bytes(file) - before


@click.command()
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|mps|cuda[:N]")
@click.option("--images", default=2048, show_default=True)
@click.option("--blocks", default=24, show_default=True)
@click.option("--subset", default="last:6", show_default=True)
@click.option("--width", default=1024, show_default=True, help="D, of a token.")
@click.option("--head-width", default=256, show_default=True, help="P.")
@click.option("--layers", default=2, show_default=True, help="Q.")
@click.option("--heads", default=1, show_default=True, help="How many seeds are trained.")
@click.option("--batch-size", default=128, show_default=True)
@click.option("--rounds", default=5, show_default=True)
def main(
    device: str,
    images: int,
    blocks: int,
    subset: str,
    width: int,
    head_width: int,
    layers: int,
    heads: int,
    batch_size: int,
    rounds: int,
) -> None:
    """Print what a subset reads and takes, and the ratios to all blocks."""
    device = resolve_device(device)

    def experiment(expression: str) -> ExperimentSpec:
        head = {"kind": "rine", "blocks": expression, "width": head_width, "layers": layers}
        settings = {"epochs": 1, "batch_size": batch_size}
        described = {"encoder": "random", "training_set": "random", "seeds": list(range(heads))}
        return ExperimentSpec.model_validate({**described, "training": settings, "methods": {"RINE": {"head": head}}})

    where = (
        torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{torch.get_num_threads()} CPU threads"
    )
    click.echo(
        f"{subset} of {blocks} blocks of width {width}; heads: {heads} of P={head_width}, Q={layers}; {images} images, "
        f"batches of {batch_size}, {where} ({platform.machine()}), {rounds} rounds, torch {torch.__version__}"
    )
    seconds: dict[str, list[float]] = {subset: [], "all": []}
    read: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        encoder = RandomEncoder(blocks, width)
        caches = make_cache(Path(folder), "train", images, 0, encoder), make_cache(Path(folder), "val", 64, 1, encoder)
        with patch.object(FeatureCache, "forget_pages"):
            for expression in seconds:  # once before the time counts
                _, read[expression] = train(experiment(expression), caches, device)
        for number in range(rounds):
            # Forwards and backwards in turn, so that a machine that grows slower favours nobody.
            for expression in list(seconds)[:: 1 if number % 2 else -1]:
                seconds[expression].append(train(experiment(expression), caches, device)[0])
    for expression, values in seconds.items():
        click.echo(f"{expression:<12}{read[expression] / 2**20:9.1f} MiB{np.median(values):9.2f} s")
    ratios = [part / whole for part, whole in zip(seconds[subset], seconds["all"], strict=True)]
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    click.echo(f"{subset} / all  bytes {read[subset] / read['all']:.3f}   time {middle:.3f}   [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
