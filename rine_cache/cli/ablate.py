"""`rine-cache ablate`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rine_cache.cli.options import IN_PATH, OUT_FILE, device_option, log_option
from rine_cache.cli.training_data import Pairs, open_training_data, training_data_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rine_cache.specs.ablation import AblationSpec
    from rine_cache.specs.benchmark import BenchmarkSpec

LOG = logging.getLogger(__name__)


@click.group()
def ablate() -> None:
    """Compare subsets of the blocks that a method reads, to see which of them tell real from fake.

    `run` does all that an ablation of a configuration needs, from the caches below `results`; `snakemake` does the
    same by `train`, `rine-cache score`, `rine-cache evaluate` and `draw`, and only what is new.
    """


@ablate.command()
@click.argument("experiment")
@click.option("--method", required=True, help="Which of the experiment's methods is trained.")
@click.option(
    "--subsets",
    required=True,
    multiple=True,
    help="Family (each, leave-one-out, prefixes, suffixes, greedy, greedy:N) or one subset; may be repeated.",
)
@training_data_options
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for the heads.")
@device_option
@log_option
def train(
    experiment: str,
    method: str,
    subsets: tuple[str, ...],
    train_pairs: Pairs,
    validation_pairs: Pairs,
    training_set: str,
    out: Path,
    device: str,
) -> None:
    """Train a method of EXPERIMENT on each subset of blocks from caches; no image and no test data are read.

    EXPERIMENT is a YAML file with the keys of one of the config's `experiments`, or that section as inline JSON. Score
    the heads with `rine-cache score`, and measure them with `rine-cache evaluate OUT/experiment.json`. Killed at any
    moment, the same command goes on from the heads that are finished; further subsets train only themselves.

    \b
    Example:
      rine-cache ablate train experiment.yaml --method RINE --subsets each --subsets every:2 \\
          --train train.h5 train.parquet --validation val.h5 val.parquet --out results/heads/blocks
    """
    from rine_cache.ablation import train_ablation
    from rine_cache.devices import claim_device
    from rine_cache.specs.ablation import check_method, parse_subsets
    from rine_cache.specs.base import parse_argument
    from rine_cache.specs.training import ExperimentSpec

    spec = parse_argument(ExperimentSpec, experiment)
    check_method(method, spec, "--method")
    parsed = parse_subsets(subsets)
    features = open_training_data(train_pairs, validation_pairs, training_set)
    with claim_device(device) as claimed:
        train_ablation(spec, method, parsed, *features, out, claimed)


@ablate.command()
@click.argument("ablation")
@click.option("--heads", required=True, type=IN_PATH, help="Folder that `rine-cache ablate train` has made.")
@click.option("--metrics", required=True, type=IN_PATH, help="What `rine-cache evaluate` measured of them.")
@click.option("--benchmark", required=True, help="The benchmark that ABLATION names: file or inline JSON.")
@click.option("--out", required=True, type=OUT_FILE, help="Table to write, a Parquet file.")
@click.option("--markdown", type=OUT_FILE, help="Also write it for people.")
@click.option("--figure", "figures", multiple=True, type=OUT_FILE, help="Also draw it: .svg or .png; may be repeated.")
@log_option
def draw(
    ablation: str,
    heads: Path,
    metrics: Path,
    benchmark: str,
    out: Path,
    markdown: Path | None,
    figures: tuple[Path, ...],
) -> None:
    """Set ABLATION's numbers out by subset of blocks and test set.

    \b
    Example:
      rine-cache ablate draw ablation.yaml --heads results/heads/my-ablation --metrics metrics.parquet \\
          --benchmark config/benchmarks/genimage.yaml --out blocks.parquet --markdown blocks.md --figure blocks.svg
    """
    from rine_cache.specs.ablation import AblationSpec
    from rine_cache.specs.base import parse_argument
    from rine_cache.specs.benchmark import BenchmarkSpec

    spec = parse_argument(AblationSpec, ablation)
    _draw(spec, heads, metrics, parse_argument(BenchmarkSpec, benchmark), out, markdown, figures)


@ablate.command()
@click.argument("name")
@click.option(
    "--config",
    type=IN_PATH,
    default=Path("config/config.yaml"),
    show_default=True,
    help="Configuration that describes the ablation.",
)
@click.option(
    "--results", type=IN_PATH, default=Path("results"), show_default=True, help="Folder of caches, manifests, results."
)
@device_option
@log_option
def run(name: str, config: Path, results: Path, device: str) -> None:
    """Train, score, measure and draw the ablation NAME of a configuration from its caches, in one go.

    Writes `ablations/NAME.parquet`, `.md`, `.svg` and `.png` below the results, the figures with blocks from 1.

    \b
    Example:
      rine-cache ablate run sample-blocks
    """
    from rine_cache.ablation import EXPERIMENT, train_ablation
    from rine_cache.devices import claim_device
    from rine_cache.errors import ConfigError, nearest
    from rine_cache.evaluate import count_passes, evaluate, read_scores, write_metrics
    from rine_cache.features import open_part
    from rine_cache.heads.head import load_heads
    from rine_cache.score import ScoredImages, score
    from rine_cache.specs.base import parse_argument
    from rine_cache.specs.config import load_benchmarks, load_config
    from rine_cache.specs.training import ExperimentSpec

    loaded = load_config(config)
    benchmarks = load_benchmarks(loaded, Path())
    if name not in loaded.ablations:
        raise ConfigError(f"{config} has no ablation {name!r}; {nearest(name, loaded.ablations)}")
    spec = loaded.ablations[name]
    experiment, benchmark = loaded.experiments[spec.experiment], benchmarks[spec.benchmark]
    training_set = loaded.training_sets[experiment.training_set]

    def files(dataset: str, view: str) -> tuple[Path, Path]:
        features = results / "features" / experiment.encoder / experiment.tap / view / f"{dataset}.h5"
        return features, results / "manifests" / f"{dataset}.parquet"

    pairs = [
        tuple(files(part.dataset, part.view) for part in parts)
        for parts in (training_set.train, training_set.validation)
    ]
    features = open_training_data(pairs[0], pairs[1], training_set.model_dump_json())
    heads, scores = results / "heads" / name, []
    with claim_device(device) as claimed:
        train_ablation(experiment, spec.method, spec.subsets, *features, heads, claimed)
        for view, dataset in sorted(benchmark.sources(spec.protocol)):
            cache, manifest = files(dataset, view)
            if not cache.is_file():
                LOG.warning("no cache at %s: what is tested on it stays empty", cache)
                continue
            scores.append(results / "scores" / name / view / f"{dataset}.parquet")
            score(load_heads(heads), open_part(cache, manifest), ScoredImages(dataset, view), scores[-1], claimed)
    trained = parse_argument(ExperimentSpec, str(heads / EXPERIMENT))
    read = [read_scores(path) for path in scores]
    metrics = results / "metrics" / f"{name}.parquet"
    encoder = loaded.encoders[experiment.encoder]
    write_metrics(evaluate(name, trained, encoder, [benchmark], read), metrics, count_passes(read))
    out = results / "ablations" / f"{name}.parquet"
    figures = [out.with_suffix(suffix) for suffix in (".svg", ".png")]
    _draw(spec, heads, metrics, benchmark, out, out.with_suffix(".md"), figures)
    LOG.info("wrote %s, .md, .svg and .png", out)


def _draw(
    spec: AblationSpec,
    heads: Path,
    metrics: Path,
    benchmark: BenchmarkSpec,
    out: Path,
    markdown: Path | None,
    figures: Sequence[Path],
) -> None:
    from rine_cache.ablation import SUBSETS
    from rine_cache.ablation_table import build_ablation_table, render_ablation, write_ablation_table
    from rine_cache.markdown import write_markdown

    table = build_ablation_table(metrics, heads / SUBSETS, spec, benchmark)
    if figures:
        from rine_cache.ablation_figure import draw_ablation  # takes a second to import

        draw_ablation(table, spec, figures)
    write_ablation_table(table, out)
    if markdown is not None:
        write_markdown(render_ablation(table, spec), markdown)
