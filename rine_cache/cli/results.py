"""`rine-cache evaluate` and `rine-cache leaderboard`."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import click

from rine_cache.cli import leaderboard_use
from rine_cache.cli.options import IN_PATH, OUT_FILE, log_option
from rine_cache.cli.page import curves, page

LOG = logging.getLogger(__name__)


@click.command()
@click.argument("experiment")
@click.option("--name", required=True, help="The experiment's name in the config.")
@click.option("--encoder", required=True, help="Its encoder: YAML file or inline JSON.")
@click.option("--benchmark", "benchmarks", multiple=True, help="Benchmark: file or inline JSON; may be repeated.")
@click.option("--scores", multiple=True, type=IN_PATH, help="Score file of the experiment; may be repeated.")
@click.option("--out", required=True, type=OUT_FILE, help="Metrics to write, a Parquet file.")
@log_option
def evaluate(
    experiment: str, name: str, encoder: str, benchmarks: tuple[str, ...], scores: tuple[Path, ...], out: Path
) -> None:
    """Measure an experiment's heads on every protocol; what was not scored gives nulls, never a number.

    \b
    Example:
      rine-cache evaluate experiment.yaml --name mine --encoder encoder.yaml \\
          --benchmark config/benchmarks/genimage.yaml --scores scores.parquet --out metrics.parquet
    """
    from rine_cache.evaluate import count_passes, read_scores, write_metrics
    from rine_cache.evaluate import evaluate as run
    from rine_cache.specs.base import parse_argument
    from rine_cache.specs.benchmark import BenchmarkSpec
    from rine_cache.specs.encoding import EncoderSpec
    from rine_cache.specs.training import ExperimentSpec

    read = [read_scores(path) for path in scores]
    metrics = run(
        name,
        parse_argument(ExperimentSpec, experiment),
        parse_argument(EncoderSpec, encoder),
        [parse_argument(BenchmarkSpec, benchmark) for benchmark in benchmarks],
        read,
    )
    write_metrics(metrics, out, count_passes(read))


@click.group()
def leaderboard() -> None:
    """Build the leaderboard from metrics and published numbers, show it, hold it against papers, export it."""


for command in (leaderboard_use.diff, leaderboard_use.export, leaderboard_use.compare):
    leaderboard.add_command(command)


leaderboard.add_command(page)
leaderboard.add_command(curves)


@leaderboard.command()
@click.option("--metrics", multiple=True, type=IN_PATH, help="An experiment's metrics; may be repeated.")
@click.option("--published", multiple=True, type=IN_PATH, help="CSV of published numbers; may be repeated.")
@click.option("--benchmark", "benchmarks", multiple=True, help="Benchmark: file or inline JSON; may be repeated.")
@click.option("--out", required=True, type=OUT_FILE, help="Leaderboard to write, a Parquet file.")
@click.option("--duplicates", type=IN_PATH, help="What `dataset duplicates` found: marks training images in test sets.")
@click.option("--markdown", type=OUT_FILE, help="Also write it for people.")
@click.option("--csv", type=OUT_FILE, help="Also write it for spreadsheets.")
@log_option
def build(
    metrics: tuple[Path, ...],
    published: tuple[Path, ...],
    benchmarks: tuple[str, ...],
    out: Path,
    duplicates: Path | None,
    markdown: Path | None,
    csv: Path | None,
) -> None:
    """Join measured and published numbers into one long table.

    \b
    Example:
      rine-cache leaderboard build --metrics results/metrics/sample.parquet --published config/published.csv \\
          --benchmark config/benchmarks/genimage.yaml --out results/leaderboard.parquet
    """
    from rine_cache.leaderboard import build_leaderboard, count_all_passes, write_csv, write_leaderboard
    from rine_cache.markdown import write_markdown
    from rine_cache.published import check_published
    from rine_cache.report import render_markdown
    from rine_cache.specs.base import parse_argument
    from rine_cache.specs.benchmark import BenchmarkSpec

    specs = [parse_argument(BenchmarkSpec, benchmark) for benchmark in benchmarks]
    for doubt in check_published(published, specs):
        LOG.warning("%s", doubt)
    table = build_leaderboard(metrics, published, specs, duplicates)
    passes = count_all_passes(metrics)
    write_leaderboard(table, out, passes)
    if csv is not None:
        write_csv(table, csv)
    if markdown is not None:
        write_markdown(render_markdown(table, specs, passes), markdown)


@leaderboard.command()
@click.option("--benchmark", default="", help="Show this benchmark only.")
@click.option(
    "--file", "path", type=IN_PATH, default=Path("results/leaderboard.parquet"), show_default=True, help="Leaderboard."
)
@click.option(
    "--config",
    type=IN_PATH,
    default=Path("config/config.yaml"),
    show_default=True,
    help="Configuration it was made with: names the benchmark files.",
)
def show(benchmark: str, path: Path, config: Path) -> None:
    """Print the leaderboard as tables.

    \b
    Example:
      rine-cache leaderboard show --benchmark sample
    """
    from rine_cache.errors import ConfigError, nearest
    from rine_cache.leaderboard import read_leaderboard
    from rine_cache.passes import read_passes
    from rine_cache.report import render_markdown
    from rine_cache.specs.config import load_benchmarks, load_config

    table = read_leaderboard(path)
    specs = load_benchmarks(load_config(config), Path())
    if benchmark:
        known = set(table["benchmark"])
        if benchmark not in known:
            raise ConfigError(f"benchmark {benchmark!r} is not in {path}; {nearest(benchmark, known)}")
        table = table.filter(benchmark=benchmark)
        if benchmark not in specs and not table.filter(kind="measured").is_empty():
            raise ConfigError(
                f"{config} does not define benchmark {benchmark!r}; give the --config that it was made with"
            )
        specs = {name: spec for name, spec in specs.items() if name == benchmark}
    os.environ.setdefault("LESS", "-RSFX")  # wide tables scroll sideways instead of wrapping
    click.echo_via_pager(render_markdown(table, list(specs.values()), read_passes(path)))


@leaderboard.command()
@click.option("--leaderboard", "table", required=True, type=IN_PATH, help="Leaderboard, a Parquet file.")
@click.option("--spec", required=True, help="The matrix: YAML file or inline JSON.")
@click.option("--benchmark", required=True, help="The benchmark it names: file or inline JSON.")
@click.option("--out", required=True, type=OUT_FILE, help="Matrix to write, a Parquet file.")
@click.option("--markdown", type=OUT_FILE, help="Also write it for people.")
@click.option(
    "--figure", "figures", multiple=True, type=OUT_FILE, help="Also draw its heat map: .svg or .png; may be repeated."
)
@log_option
def matrix(table: Path, spec: str, benchmark: str, out: Path, markdown: Path | None, figures: tuple[Path, ...]) -> None:
    """Set one method's numbers out by training set and test set: who generalises to which generator.

    \b
    Example:
      rine-cache leaderboard matrix --leaderboard results/leaderboard.parquet --spec matrix.yaml \\
          --benchmark config/benchmarks/genimage.yaml --out matrix.parquet --markdown matrix.md --figure matrix.svg
    """
    from rine_cache.leaderboard import read_leaderboard
    from rine_cache.markdown import write_markdown
    from rine_cache.matrix import build_matrix, render_matrix, write_matrix
    from rine_cache.specs.base import parse_argument
    from rine_cache.specs.benchmark import BenchmarkSpec
    from rine_cache.specs.matrix import MatrixSpec

    described = parse_argument(MatrixSpec, spec)
    numbers = build_matrix(read_leaderboard(table), described, parse_argument(BenchmarkSpec, benchmark))
    if figures:
        from rine_cache.heatmap import draw_matrix  # takes a second to import

        draw_matrix(numbers, described, figures)
    write_matrix(numbers, out)
    if markdown is not None:
        write_markdown(render_matrix(numbers, described), markdown)
