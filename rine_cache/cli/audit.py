"""`rine-cache dataset audit`, `rine-cache dataset duplicates` and `rine-cache dataset baseline`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import click

from rine_cache.cli.options import IN_PATH, OUT_FILE, log_option

if TYPE_CHECKING:
    from pathlib import Path

LOG = logging.getLogger(__name__)

_BENCHMARKS = click.option(
    "--benchmark", "benchmarks", multiple=True, help="Benchmark: file or inline JSON; may be repeated."
)
_AUDITS = click.argument("audits", nargs=-1, type=IN_PATH)


@click.command()
@click.argument("cache", type=IN_PATH)
@click.argument("manifest", type=IN_PATH)
@click.option("--dataset", required=True, help="The data set's name in the config.")
@click.option("--out", required=True, type=OUT_FILE, help="Audit to write, a Parquet file with a row per image.")
@click.option("--markdown", type=OUT_FILE, help="Also write it for people.")
@log_option
def audit(cache: Path, manifest: Path, dataset: str, out: Path, markdown: Path | None) -> None:
    """Say what a data set's files give away before any pixel is understood; no image is read.

    CACHE is any sealed cache made from MANIFEST. The audit has counts, formats, sizes, JPEG quality and EXIF by label
    and subset, how well each of these alone tells fake from real, what was quarantined, and duplicates.

    \b
    Example:
      rine-cache dataset audit results/features/clip-vit-b16/ln_2/center224/my-set.h5 \\
          results/manifests/my-set.parquet --dataset my-set \\
          --out results/audits/my-set.parquet --markdown results/audits/my-set.md
    """
    from rine_cache.audit import audit_dataset, write_audit
    from rine_cache.audit_report import render_audit
    from rine_cache.cache import FeatureCache
    from rine_cache.duplicates import find_duplicates
    from rine_cache.manifest import read_manifest
    from rine_cache.markdown import write_markdown

    features, listed = FeatureCache(cache), read_manifest(manifest)
    features.require_manifest(listed.listing_digest, manifest)
    found = audit_dataset(dataset, features, listed)
    write_audit(found, out)
    if markdown is not None:
        write_markdown(render_audit(found, find_duplicates([found], {}, [])), markdown)


@click.command()
@_AUDITS
@click.option(
    "--training-set",
    "training_sets",
    multiple=True,
    metavar="NAME=SPEC",
    help="Training set: its name, and a file or inline JSON; may be repeated.",
)
@_BENCHMARKS
@click.option(
    "--distance",
    type=click.IntRange(0, 8),
    default=4,
    show_default=True,
    help="Bits of 64 in which the perceptual hashes of near duplicates may differ.",
)
@click.option("--out", required=True, type=OUT_FILE, help="Duplicates to write, a Parquet file.")
@click.option("--markdown", type=OUT_FILE, help="Also write them for people.")
@log_option
def duplicates(
    audits: tuple[Path, ...],
    training_sets: tuple[str, ...],
    benchmarks: tuple[str, ...],
    distance: int,
    out: Path,
    markdown: Path | None,
) -> None:
    """Find images that stand twice, by bytes or nearly, in AUDITS: above all training images in test sets.

    \b
    Example:
      rine-cache dataset duplicates results/audits/*.parquet --training-set progan4=progan4.yaml \\
          --benchmark config/benchmarks/genimage.yaml --out duplicates.parquet --markdown duplicates.md
    """
    from rine_cache.audit import read_audit
    from rine_cache.duplicates import LEAKAGE, find_duplicates, write_duplicates
    from rine_cache.duplicates_report import render_duplicates
    from rine_cache.errors import ConfigError
    from rine_cache.markdown import write_markdown
    from rine_cache.specs.base import parse_argument
    from rine_cache.specs.benchmark import BenchmarkSpec
    from rine_cache.specs.data import TrainingSetSpec

    named = {}
    for argument in training_sets:
        name, separator, spec = argument.partition("=")
        if not separator or not name:
            raise ConfigError(f"--training-set is {argument!r}; give NAME=SPEC, such as progan4=progan4.yaml")
        if name in named:
            raise ConfigError(f"--training-set {name} is given twice; give each once")
        named[name] = parse_argument(TrainingSetSpec, spec)
    found = find_duplicates(
        [read_audit(path) for path in audits],
        named,
        [parse_argument(BenchmarkSpec, benchmark) for benchmark in benchmarks],
        distance,
    )
    write_duplicates(found, out)
    if markdown is not None:
        write_markdown(render_duplicates(found), markdown)
    leaks = found.table.filter(relation=LEAKAGE).unique(
        ["reference", "side", "collection", "kind"], maintain_order=True
    )
    for leak in leaks.iter_rows(named=True):
        LOG.warning(
            "%d images of test set %s stand in training set %s (%s): %s",
            *(leak[column] for column in ("found", "collection", "reference", "side", "kind")),
        )


@click.command()
@_AUDITS
@_BENCHMARKS
@click.option("--out", required=True, type=OUT_FILE, help="Metrics to write, a Parquet file.")
@log_option
def baseline(audits: tuple[Path, ...], benchmarks: tuple[str, ...], out: Path) -> None:
    """Measure how much of each benchmark a classifier solves from AUDITS, without a pixel.

    Its rows, of the method metadata-only, join the leaderboard like an experiment's metrics.

    \b
    Example:
      rine-cache dataset baseline results/audits/*.parquet \\
          --benchmark config/benchmarks/genimage.yaml --out results/metrics/metadata-only.parquet
    """
    from rine_cache.audit import read_audit
    from rine_cache.evaluate import write_metrics
    from rine_cache.metadata_baseline import measure_metadata
    from rine_cache.specs.base import parse_argument
    from rine_cache.specs.benchmark import BenchmarkSpec

    metrics = measure_metadata(
        [read_audit(path) for path in audits], [parse_argument(BenchmarkSpec, benchmark) for benchmark in benchmarks]
    )
    write_metrics(metrics, out)
