"""`rine-cache config`."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rine_cache.cli.options import IN_PATH

if TYPE_CHECKING:
    from rine_cache.specs.base import Spec

LOG = logging.getLogger(__name__)


@click.group()
def config() -> None:
    """Check a configuration, or print the JSON schema that editors complete it by."""


@config.command()
@click.argument("path", type=IN_PATH, default=Path("config/config.yaml"))
def check(path: Path) -> None:
    """Validate PATH and the files it names; say which data sets are on this machine.

    \b
    Example:
      rine-cache config check config/config.yaml
    """
    from rine_cache.inventory import take_inventory
    from rine_cache.published import check_published
    from rine_cache.specs.config import load_benchmarks, load_config

    loaded = load_config(path)
    benchmarks = load_benchmarks(loaded, Path())
    click.echo(f"{path} is valid: {len(loaded.experiments)} experiments, {len(benchmarks)} benchmarks")
    for doubt in check_published([Path(published) for published in loaded.published], benchmarks.values()):
        LOG.warning("%s", doubt)
    holdings = take_inventory(loaded, benchmarks.values(), Path("results"))
    for name in loaded.datasets:
        click.echo(f"data set {name}: {holdings[name].state} ({holdings[name].root})")


@config.command()
@click.argument("kind", type=click.Choice(["config", "benchmark"]))
def schema(kind: str) -> None:
    """Print the JSON schema of the config, or of a benchmark file.

    \b
    Example:
      rine-cache config schema config > workflow/schemas/config.schema.json
    """
    from rine_cache.specs.benchmark import BenchmarkSpec
    from rine_cache.specs.config import Config

    models: dict[str, type[Spec]] = {"config": Config, "benchmark": BenchmarkSpec}
    click.echo(json.dumps(models[kind].model_json_schema(), indent=2))
