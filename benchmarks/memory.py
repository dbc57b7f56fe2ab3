"""Peak memory of extraction, and how it grows with the number of images.

Run it as ``python benchmarks/memory.py``. Data sets of 200 and of 20,000 small images are extracted through a tiny
tower, each in a process of its own, whose peak (VmHWM, what it maps from files included) is read from the kernel. How
much of a library's file counts as a process's own differs from run to run; anonymous memory, which is watched during
extraction, does not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from PIL import Image

from rine_cache.manifest import build_manifest, write_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator


def write_images(root: Path, count: int) -> None:
    """Write PNGs of 64 x 64 pixels, no two alike."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
    for number in range(count):
        folder = root / ("0_real" if number % 2 else "1_fake")
        folder.mkdir(parents=True, exist_ok=True)
        pixels[0, :4] = np.frombuffer(number.to_bytes(12, "little"), np.uint8).reshape(4, 3)
        Image.fromarray(pixels).save(folder / f"{number:06d}.png", compress_level=0)


def extract(manifest: Path, output: Path) -> dict[str, int]:
    """Extract in this process; return its memory once the encoder is loaded and its peaks, in kibibytes."""
    from rine_cache.encoders import load_encoder
    from rine_cache.extract import Target
    from rine_cache.extract import extract as run
    from rine_cache.manifest import read_manifest
    from rine_cache.specs.encoding import BUILTIN_VIEWS, EncoderSpec

    spec = EncoderSpec(architecture="ViT-S-32", weights="random", batch_size=16)
    encoder = load_encoder(spec, "cpu")
    before = status()["VmRSS"]
    with watched_anonymous_memory() as seen:
        run(read_manifest(manifest), [Target(encoder, "ln_2", BUILTIN_VIEWS["center224"], output)], workers=2)
    return {"loaded": before, "peak": status()["VmHWM"], "anonymous": max(seen)}


@contextmanager
def watched_anonymous_memory() -> Iterator[list[int]]:
    """Note this process's anonymous memory, in kibibytes, every few milliseconds."""
    seen = [status()["RssAnon"]]
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            seen.append(status()["RssAnon"])

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield seen
    finally:
        ended.set()
        watching.join()


def status() -> dict[str, int]:
    """Return what Linux counts of this process's memory, in kibibytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {
        name: int(value.split()[0])
        for name, value in (line.split(":", 1) for line in lines)
        if name.startswith(("Vm", "Rss"))
    }


@click.command()
@click.option("--images", default=(200, 20_000), nargs=2, show_default=True, help="A small data set and a large one.")
@click.option("--one", nargs=2, type=click.Path(path_type=Path), hidden=True)
def main(images: tuple[int, int], one: tuple[Path, Path] | None) -> None:
    """Print peak memory for a small and for a large data set, and their ratio."""
    if one:
        click.echo(json.dumps(extract(*one)))
        return
    found = []
    for count in images:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "images"
            write_images(root, count)
            from rine_cache.layouts import list_images
            from rine_cache.specs.data import DatasetSpec

            manifest = Path(folder) / "m.parquet"
            write_manifest(build_manifest(list_images(DatasetSpec(root=str(root))).table, root), manifest)
            command = [sys.executable, __file__, "--one", str(manifest), str(Path(folder) / "x.h5")]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
            found.append(json.loads(done.stdout.splitlines()[-1]))
            loaded, peak, anonymous = (found[-1][name] / 1024 for name in ("loaded", "peak", "anonymous"))
            click.echo(
                f"{count:>9,} images: {loaded:.0f} MiB with the encoder loaded, peak {peak:.0f} MiB; anonymous, at "
                f"most {anonymous:.0f} MiB"
            )
    small, large = found
    click.echo(
        f"ratio {large['peak'] / small['peak']:.3f}, of anonymous memory {large['anonymous'] / small['anonymous']:.3f}"
    )


if __name__ == "__main__":
    main()
