"""Time and memory of listing N empty files laid out as GenImage, beside a bare walk of the same tree.

Run it as ``python benchmarks/listing.py [N]``; it makes the files in a temporary folder and removes them. At the end it
times the dry run of config/paper.yaml with every data set listed: GenImage's folders and manifests of N images in all.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import polars as pl
import yaml

from rine_cache.layouts import list_images
from rine_cache.manifest import build_manifest, read_manifest, write_manifest
from rine_cache.specs.data import DatasetSpec

ROOT = Path(__file__).resolve().parent.parent
GENERATORS = (
    "Midjourney",
    "VQDM",
    "Wukong",
    "GLIDE",
    "BigGAN",
    "ADM",
    "Stable Diffusion V1.4",
    "Stable Diffusion V1.5",
)
FOLDERS = [f"{name}/{split}/{label}" for name in GENERATORS for split in ("train", "val") for label in ("ai", "nature")]


def make_files(root: Path, count: int) -> None:
    """Make `count` empty files, spread over GenImage's 32 folders."""
    for number, folder in enumerate(FOLDERS):
        (root / folder).mkdir(parents=True)
        suffix = "png" if folder.endswith("ai") else "JPEG"
        for index in range(number, count, len(FOLDERS)):
            os.close(os.open(f"{root}/{folder}/n{index:08d}_{index % 977}.{suffix}", os.O_CREAT | os.O_WRONLY))


def bare_walk(root: Path) -> int:
    """Count the files below a folder and ask each for its size: the least that any listing does."""
    count, pending = 0, [root]
    while pending:
        with os.scandir(pending.pop()) as items:
            for item in items:
                if item.is_dir():
                    pending.append(Path(item.path))
                else:
                    count += item.stat().st_size >= 0
    return count


def main() -> None:
    """Print seconds, their ratio to the bare walk, and the peak resident memory."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3_000_000
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        root, manifest = folder / "data" / "GenImage", folder / "results" / "manifests" / "genimage.parquet"
        start = time.perf_counter()
        make_files(root, count)
        click.echo(f"{count:,} files made in {time.perf_counter() - start:.1f} s")
        before = _peak()
        walks, listings = [], []
        for _ in range(3):  # interleaved, so that a busy machine slows both
            start = time.perf_counter()
            assert bare_walk(root) == count
            walks.append(time.perf_counter() - start)
            start = time.perf_counter()
            listing = list_images(DatasetSpec(root=str(root), layout="genimage"))
            write_manifest(build_manifest(listing.table, listing.root), manifest)
            listings.append(time.perf_counter() - start)
            assert (listing.table.height, listing.missing, listing.strays) == (count, [], {})
            del listing
        walk, listed = sorted(walks)[1], sorted(listings)[1]
        size = manifest.stat().st_size / 2**20
        click.echo(f"bare walk {walk:.1f} s; manifest {listed:.1f} s, {listed / walk:.2f} x; {size:.0f} MiB on disk")
        click.echo(f"peak memory {_peak():,.0f} MiB, of which {before:,.0f} before")
        start = time.perf_counter()
        read_manifest(manifest)
        click.echo(f"read and checked again in {time.perf_counter() - start:.1f} s")
        _time_dry_run(folder, manifest)


def _time_dry_run(folder: Path, manifest: Path) -> None:
    """Give every data set of paper.yaml a manifest, N images in all, and time Snakemake's dry run."""
    shutil.copytree(ROOT / "config", folder / "config")
    names = list(yaml.safe_load((ROOT / "config" / "paper.yaml").read_text())["datasets"])
    table = read_manifest(manifest).table
    for number, name in enumerate(names):
        rows = table.gather_every(len(names), number)
        write_manifest(build_manifest(rows.with_columns(subset=pl.lit("any")), Path("gone")), manifest.with_stem(name))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2", "--dry-run"]
    start = time.perf_counter()
    subprocess.run(
        [*command, "--directory", str(folder), "--configfile", str(folder / "config" / "paper.yaml")],
        check=True,
        capture_output=True,
    )
    click.echo(f"dry run of paper.yaml, {len(names)} data sets listed: {time.perf_counter() - start:.1f} s")


def _peak() -> float:
    """Return the peak resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
