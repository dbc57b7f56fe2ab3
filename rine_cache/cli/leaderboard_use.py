"""`rine-cache leaderboard diff`, `export` and `compare`: what is done with a leaderboard that was built."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rine_cache.cli.options import IN_PATH, OUT_FILE, format_option, log_option

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl

    from rine_cache.specs.benchmark import BenchmarkSpec

LOG = logging.getLogger(__name__)

_FILE = click.option(
    "--file", "path", type=IN_PATH, default=Path("results/leaderboard.parquet"), show_default=True, help="Leaderboard."
)
_CONFIG = click.option(
    "--config",
    type=IN_PATH,
    default=Path("config/config.yaml"),
    show_default=True,
    help="Configuration it was made with.",
)


@click.command()
@_FILE
@_CONFIG
@click.option("--benchmark", default="", help="This benchmark only.")
@click.option("--all", "everything", is_flag=True, help="List the values that agree, or are not judged, as well.")
@format_option("markdown", "csv", "json")
@log_option
def diff(path: Path, config: Path, benchmark: str, form: str, *, everything: bool) -> None:
    """List where measured and published numbers differ by more than our 95 % interval.

    Each published value is held against the measured one of the same method, protocol, training set, test set and
    metric; several sources each stand by themselves. CSV and JSON hold every pair, with its verdict. Published numbers
    that were altered in their files since the leaderboard was built are listed too.

    \b
    Example:
      rine-cache leaderboard diff --benchmark universalfakedetect
    """
    from rine_cache.leaderboard import read_leaderboard
    from rine_cache.published_differences import altered_published, beside_published, render_differences
    from rine_cache.specs.config import load_benchmarks, load_config

    loaded = load_config(config)
    table = _of_benchmark(read_leaderboard(path), benchmark, path)
    pairs = beside_published(table, load_benchmarks(loaded, Path()).values())
    altered = altered_published(table, [Path(published) for published in loaded.published])
    if benchmark:
        altered = altered.filter(benchmark=benchmark)
    if form == "markdown":
        click.echo(render_differences(pairs, altered, everything=everything), nl=False)
    else:
        _echo_rows(pairs, form)


@click.command()
@_FILE
@_CONFIG
@click.option("--benchmark", required=True, help="The benchmark.")
@click.option("--protocol", default="", help="Its protocol; may be left out where it has one.")
@click.option("--metric", "metrics", multiple=True, help="A metric; may be repeated. The protocol's own by default.")
@click.option("--test-set", "test_sets", multiple=True, help="A column, or `mean`; may be repeated. All by default.")
@click.option("--method", "methods", multiple=True, help="A method to show; may be repeated. All by default.")
@click.option("--training-set", "training_sets", multiple=True, help="Show what was trained on it; may be repeated.")
@click.option(
    "--kind", "kinds", multiple=True, type=click.Choice(["measured", "published"]), help="Show this kind only."
)
@click.option("--ranked", "ranked_only", is_flag=True, help="Leave out what the leaderboard does not rank.")
@click.option("--decimals", type=click.IntRange(0, 4), default=1, show_default=True, help="Digits after the point.")
@click.option("--intervals", is_flag=True, help="Print the 95 % intervals as well.")
@format_option("markdown", "latex", "csv", "html")
@click.option("--out", type=OUT_FILE, help="File to write; by default it is printed.")
@click.option(
    "--figure", "figures", multiple=True, type=OUT_FILE, help="Also draw the lines: .svg or .png; may be repeated."
)
@log_option
def export(
    path: Path,
    config: Path,
    benchmark: str,
    protocol: str,
    metrics: tuple[str, ...],
    test_sets: tuple[str, ...],
    methods: tuple[str, ...],
    training_sets: tuple[str, ...],
    kinds: tuple[str, ...],
    decimals: int,
    form: str,
    out: Path | None,
    figures: tuple[Path, ...],
    *,
    ranked_only: bool,
    intervals: bool,
) -> None:
    """Write a protocol's table for a paper: test sets across, the best bold, the second underlined.

    Marks are won among the ranked lines of one training set; what the leaderboard does not rank stands apart. LaTeX
    needs the packages booktabs and graphicx. CSV holds the numbers in full.

    \b
    Example:
      rine-cache leaderboard export --benchmark genimage --protocol genimage-8 --metric acc --format latex --out t.tex
    """
    from rine_cache.files import written_whole
    from rine_cache.leaderboard import read_leaderboard
    from rine_cache.paper_formats import beyond_latex, write_paper_table
    from rine_cache.paper_table import Choice, build_paper_table
    from rine_cache.specs.config import load_benchmarks, load_config

    spec = _benchmark_of(load_benchmarks(load_config(config), Path()), benchmark, config)
    table = build_paper_table(
        read_leaderboard(path),
        spec,
        _protocol_of(spec, protocol),
        Choice(metrics, test_sets, methods, kinds, training_sets, ranked_only),
        decimals=decimals,
        intervals=intervals,
    )
    if table.left_out:
        LOG.info("%d methods have no number in these columns: %s", len(table.left_out), ", ".join(table.left_out))
    text = write_paper_table(table, form)
    if form == "latex" and (odd := beyond_latex(text)):
        LOG.warning("pdfLaTeX has no command for %s; compile with LuaLaTeX and a font that has them", " ".join(odd))
    if figures:
        from rine_cache.leaderboard_figure import draw_lines  # takes a second to import

        draw_lines(table, figures)
    if out is None:
        click.echo(text, nl=False)
    else:
        with written_whole(out) as temporary:
            temporary.write_text(text, encoding="utf-8")


@click.command()
@click.argument("a", type=IN_PATH)
@click.argument("b", type=IN_PATH)
@click.option("--benchmark", default="", help="This benchmark only.")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Points by which a value may differ and still be the same.",
)
@click.option("--fail-on-change", is_flag=True, help="End with status 1 where a number is new, gone or another one.")
@format_option("markdown", "csv", "json")
@log_option
def compare(a: Path, b: Path, benchmark: str, tolerance: float, form: str, *, fail_on_change: bool) -> None:
    """Compare the leaderboards A and B: which numbers changed, by how much, beyond their intervals or not, and why.

    Numbers that are only in one of them are listed too. Beside a changed one stands what else its two rows differ in:
    code, heads or data, encoder, view, images. CSV and JSON hold the numbers that are the same as well.

    \b
    Example:
      rine-cache leaderboard compare before.parquet results/leaderboard.parquet
    """
    from rine_cache.leaderboard_changes import compare_boards, has_changed, read_board, render_changes

    boards = [read_board(path) for path in (a, b)]
    if benchmark:
        from rine_cache.errors import ConfigError, nearest

        known = {name for board in boards for name in board["benchmark"]}
        if benchmark not in known:
            raise ConfigError(f"benchmark {benchmark!r} is in neither leaderboard; {nearest(benchmark, known)}")
        boards = [board.filter(benchmark=benchmark) for board in boards]
    changes = compare_boards(boards[0], boards[1], tolerance)
    if form == "markdown":
        click.echo(render_changes(changes, (str(a), str(b))), nl=False)
    else:
        _echo_rows(changes, form)
    if fail_on_change and has_changed(changes):
        sys.exit(1)


def _benchmark_of(benchmarks: dict[str, BenchmarkSpec], name: str, config: Path) -> BenchmarkSpec:
    from rine_cache.errors import ConfigError, nearest

    if name not in benchmarks:
        raise ConfigError(f"{config} does not define benchmark {name!r}; {nearest(name, benchmarks)}")
    return benchmarks[name]


def _protocol_of(benchmark: BenchmarkSpec, name: str) -> str:
    """Return the protocol that is named, or the only one.

    Raises
    ------
    ConfigError
        If it is not there, or none is named of several.
    """
    from rine_cache.errors import ConfigError

    if name:
        benchmark.require(name, benchmark.protocols, "--protocol")
        return name
    if len(benchmark.protocols) > 1:
        raise ConfigError(
            f"{benchmark.name} has {len(benchmark.protocols)} protocols: give one as --protocol; "
            f"allowed: {', '.join(benchmark.protocols)}"
        )
    return next(iter(benchmark.protocols))


def _of_benchmark(table: pl.DataFrame, benchmark: str, path: Path) -> pl.DataFrame:
    """Keep one benchmark's rows, or all where none is named.

    Raises
    ------
    ConfigError
        If the leaderboard has none of it.
    """
    from rine_cache.errors import ConfigError, nearest

    known = set(table["benchmark"])
    if benchmark and benchmark not in known:
        raise ConfigError(f"benchmark {benchmark!r} is not in {path}; {nearest(benchmark, known)}")
    return table.filter(benchmark=benchmark) if benchmark else table


def _echo_rows(rows: pl.DataFrame, form: str) -> None:
    """Print a table's rows whole, for another program to read."""
    writers: dict[str, Callable[[], str]] = {
        "csv": rows.write_csv,
        "json": lambda: json.dumps(rows.to_dicts(), indent=2) + "\n",
    }
    click.echo(writers[form](), nl=False)
