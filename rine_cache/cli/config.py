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
    from rine_cache.specs.config import Config

LOG = logging.getLogger(__name__)


@click.group()
def config() -> None:
    """Check a configuration, or print the JSON schema that editors complete it by."""


@config.command()
@click.argument("path", type=IN_PATH, default=Path("config/config.yaml"))
def check(path: Path) -> None:
    """Validate PATH and the files it names; say which data sets are on this machine, and how ablations stand.

    \b
    Example:
      rine-cache config check config/config.yaml
    """
    from rine_cache.inventory import missing_for_testing, missing_for_training, take_inventory
    from rine_cache.published import check_published, unpublished_references
    from rine_cache.specs.config import load_benchmarks, load_config

    loaded = load_config(path)
    benchmarks = load_benchmarks(loaded, Path())
    published = [Path(name) for name in loaded.published]
    references = {
        f"method {method} of experiment {experiment}": spec.published_as
        for experiment, group in loaded.experiments.items()
        for method, spec in group.methods.items()
        if spec.published_as is not None
    }
    doubts = [*check_published(published, benchmarks.values()), *unpublished_references(references, published)]
    for doubt in doubts:
        LOG.warning("%s", doubt)
    heads = {name: _heads_of(loaded, name) for name in loaded.ablations}
    ablations = f", {len(heads)} ablations" if heads else ""
    click.echo(f"{path} is valid: {len(loaded.experiments)} experiments, {len(benchmarks)} benchmarks{ablations}")
    holdings = take_inventory(loaded, benchmarks.values(), Path("results"))
    for name in loaded.datasets:
        click.echo(f"data set {name}: {holdings[name].state} ({holdings[name].root})")
    for name, spec in loaded.ablations.items():
        lacking = missing_for_training(loaded, holdings, spec.experiment)
        untested = missing_for_testing(holdings, benchmarks[spec.benchmark], spec.protocol)
        remarks = [f"; waits for {', '.join(lacking)}"] if lacking else []
        remarks += [f"; empty without {', '.join(untested)}"] if untested else []
        click.echo(f"ablation {name}: {heads[name]}{''.join(remarks)}")


def _heads_of(loaded: Config, name: str) -> str:
    """Say how many heads an ablation trains, and how many of them there are."""
    from rine_cache.ablation import count_heads
    from rine_cache.encoders import token_shape
    from rine_cache.heads.index import INDEX, heads_below

    spec = loaded.ablations[name]
    experiment = loaded.experiments[spec.experiment]
    blocks, _ = token_shape(loaded.encoders[experiment.encoder].architecture)
    planned = count_heads(experiment, spec.method, spec.subsets, blocks)
    folder = Path("results/heads", name)
    there = len(heads_below(folder))
    state = "none is trained" if not there else f"{there} trained" + ("" if (folder / INDEX).exists() else " so far")
    return f"{spec.method} of {spec.experiment} in {planned} heads at the most, {state}"


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
