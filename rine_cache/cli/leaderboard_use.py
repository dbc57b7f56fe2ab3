"""`rine-cache leaderboard diff`, `export` and `compare`: what is done with a leaderboard that was built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rine_cache.cli.options import IN_PATH, log_option

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl

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


def _format_option(*forms: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add ``--format``; the first of the forms is the default."""
    return click.option(
        "--format", "form", type=click.Choice(forms), default=forms[0], show_default=True, help="How to write it."
    )


@click.command()
@_FILE
@_CONFIG
@click.option("--benchmark", default="", help="This benchmark only.")
@click.option("--all", "everything", is_flag=True, help="List the values that agree, or are not judged, as well.")
@_format_option("markdown", "csv", "json")
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
