"""`rine-cache leaderboard page`, and `leaderboard curves`, which makes what its plots show."""

from __future__ import annotations

from pathlib import Path

import click

from rine_cache.cli.options import IN_PATH, OUT_FILE, log_option


@click.command()
@click.argument("experiment")
@click.option("--benchmark", "benchmarks", multiple=True, help="Benchmark: file or inline JSON; may be repeated.")
@click.option("--scores", multiple=True, type=IN_PATH, help="Score file of the experiment; may be repeated.")
@click.option("--heads", type=IN_PATH, help="Folder of its heads: their TIE's weights are kept too.")
@click.option("--out", required=True, type=OUT_FILE, help="Curves to write, a Parquet file.")
@log_option
def curves(
    experiment: str, benchmarks: tuple[str, ...], scores: tuple[Path, ...], heads: Path | None, out: Path
) -> None:
    """Reduce an experiment's scores to curves for the page: ROC, reliability, histograms, block weights.

    \b
    Example:
      rine-cache leaderboard curves experiment.yaml --benchmark config/benchmarks/genimage.yaml \\
          --scores scores.parquet --heads results/heads/mine --out results/curves/mine.parquet
    """
    from rine_cache.curves import draw_curves, write_curves
    from rine_cache.evaluate import read_scores
    from rine_cache.specs.base import parse_argument
    from rine_cache.specs.benchmark import BenchmarkSpec
    from rine_cache.specs.training import ExperimentSpec

    cards = []
    if heads is not None:
        from rine_cache.heads.head import read_card  # imports torch
        from rine_cache.heads.index import heads_below

        cards = [read_card(path) for path in heads_below(heads)]
    specs = [parse_argument(BenchmarkSpec, benchmark) for benchmark in benchmarks]
    read = [read_scores(path) for path in scores]
    write_curves(draw_curves(parse_argument(ExperimentSpec, experiment), specs, read, cards), out)


@click.command()
@click.option(
    "--leaderboard",
    "table",
    type=IN_PATH,
    default=Path("results/leaderboard.parquet"),
    show_default=True,
    help="Leaderboard, a Parquet file.",
)
@click.option("--benchmark", "benchmarks", multiple=True, help="Benchmark: file or inline JSON; may be repeated.")
@click.option("--curves", "curve_files", multiple=True, type=IN_PATH, help="An experiment's curves; may be repeated.")
@click.option(
    "--ablation",
    "ablations",
    multiple=True,
    type=(str, IN_PATH),
    metavar="SPEC PARQUET",
    help="An ablation, as YAML file or inline JSON, and its table; may be repeated.",
)
@click.option(
    "--matrix",
    "matrices",
    multiple=True,
    type=(str, IN_PATH),
    metavar="SPEC PARQUET",
    help="A cross-generator matrix, as YAML file or inline JSON, and its table; may be repeated.",
)
@click.option(
    "--view",
    "views",
    multiple=True,
    type=(str, str),
    metavar="NAME SPEC",
    help="A view that is not built in: says which protocols are steps of a sweep; may be repeated.",
)
@click.option("--out", required=True, type=OUT_FILE, help="Page to write, an HTML file.")
@log_option
def page(
    table: Path,
    benchmarks: tuple[str, ...],
    curve_files: tuple[Path, ...],
    ablations: tuple[tuple[str, Path], ...],
    matrices: tuple[tuple[str, Path], ...],
    views: tuple[tuple[str, str], ...],
    out: Path,
) -> None:
    """Write the leaderboard as one self-contained page, which asks for nothing over a network.

    \b
    Example:
      rine-cache leaderboard page --benchmark config/benchmarks/genimage.yaml --out results/leaderboard.html
    """
    from datetime import UTC, datetime

    from rine_cache.ablation_table import read_ablation_table
    from rine_cache.curves import read_curves
    from rine_cache.leaderboard import read_leaderboard
    from rine_cache.matrix import read_matrix
    from rine_cache.page.build import Extras, build_page, write_page
    from rine_cache.passes import read_passes
    from rine_cache.provenance import code_version
    from rine_cache.specs.ablation import AblationSpec
    from rine_cache.specs.base import parse_argument
    from rine_cache.specs.benchmark import BenchmarkSpec
    from rine_cache.specs.encoding import VIEW
    from rine_cache.specs.matrix import MatrixSpec

    leaderboard = read_leaderboard(table)
    extras = Extras(
        curves=[read_curves(path) for path in curve_files],
        ablations=[(parse_argument(AblationSpec, spec), read_ablation_table(path)) for spec, path in ablations],
        matrices=[(parse_argument(MatrixSpec, spec), read_matrix(path)) for spec, path in matrices],
        views={name: parse_argument(VIEW, spec) for name, spec in views},
        passes=read_passes(table),
    )
    specs = [parse_argument(BenchmarkSpec, benchmark) for benchmark in benchmarks]
    made = datetime.fromtimestamp(table.stat().st_mtime, UTC)
    write_page(build_page(leaderboard, specs, made, code_version(), extras), out)
