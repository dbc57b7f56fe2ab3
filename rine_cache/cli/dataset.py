"""`rine-cache dataset`: add, list, check and audit data sets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rine_cache.cli.audit import audit, baseline, duplicates
from rine_cache.cli.listing import as_text, listing_text
from rine_cache.cli.options import IN_PATH

if TYPE_CHECKING:
    from rine_cache.layouts import Listing

_CONFIG = click.option(
    "--config", type=IN_PATH, default=Path("config/config.yaml"), show_default=True, help="Configuration."
)
_EXAMPLES_SHOWN = 3


@click.group()
def dataset() -> None:
    """Add a data set to a configuration; list, check and audit those it has."""


dataset.add_command(audit)
dataset.add_command(duplicates)
dataset.add_command(baseline)


@dataset.command()
def layouts() -> None:
    """List the layouts: how the images of a data set may lie on disk.

    \b
    Example:
      rine-cache dataset layouts
    """
    from rine_cache.layouts import LAYOUTS

    click.echo(as_text(("layout", "reads"), [(name, layout.about) for name, layout in LAYOUTS.items()]))


@dataset.command("list")
@_CONFIG
def list_(config: Path) -> None:
    """Say which data sets of a configuration are on this machine, and where to get the others.

    \b
    Example:
      rine-cache dataset list --config config/paper.yaml
    """
    from rine_cache.inventory import take_inventory
    from rine_cache.specs.config import load_benchmarks, load_config

    loaded = load_config(config)
    holdings = take_inventory(loaded, load_benchmarks(loaded, Path()).values(), Path("results"))
    rows = []
    for name, holding in holdings.items():
        spec = loaded.datasets.get(name)
        listed = _images_listed(Path("results/manifests") / f"{name}.parquet")
        absent = ", ".join(holding.absent)
        rows.append((name, holding.state, spec.layout if spec else "", listed, holding.root, absent, holding.obtain))
    header = ("data set", "state", "layout", "images listed", "root", "missing subsets", "where to get it")
    click.echo(as_text(header, rows))


def _images_listed(manifest: Path) -> str:
    from rine_cache.manifest import read_manifest

    return f"{len(read_manifest(manifest)):,}" if manifest.exists() else ""


@dataset.command()
@click.argument("names", nargs=-1)
@_CONFIG
def check(names: tuple[str, ...], config: Path) -> None:
    """List data sets NAMES, or all, on disk: found, missing and unexpected, and what changed since they were listed.

    Exit status 1 if something is missing or has no place.

    \b
    Example:
      rine-cache dataset check genimage --config config/paper.yaml
    """
    from rine_cache.errors import ConfigError, nearest
    from rine_cache.layouts import list_images
    from rine_cache.specs.config import load_config

    specs = load_config(config).datasets
    for name in names:
        if name not in specs:
            raise ConfigError(f"data set {name!r} is not defined in {config}; {nearest(name, specs)}")
    whole = True
    for name in names or specs:
        spec = specs[name]
        click.echo(f"{name}: {spec.root} ({spec.layout})")
        if not Path(spec.root).exists():
            click.echo(f"missing{f'; {spec.obtain}' if spec.obtain else ''}\n")
            whole = False
            continue
        listing = list_images(spec)
        click.echo(listing_text(listing))
        for warning in _warnings(listing):
            click.echo(f"warning: {warning}")
        click.echo(_since_listed(listing, name) + "\n")
        whole = whole and not (listing.missing or listing.strays or listing.lost_files)
    if not whole:
        sys.exit(1)


def _since_listed(listing: Listing, name: str) -> str:
    """Compare a listing with the manifest that the pipeline has of the data set."""
    from rine_cache.manifest import read_manifest

    path = Path("results/manifests") / f"{name}.parquet"
    if not path.exists():
        return "not listed by the pipeline yet"
    earlier, now = read_manifest(path).table, listing.table
    added = now.join(earlier, on=["image_id", "size"], how="anti").height
    gone = earlier.join(now, on=["image_id", "size"], how="anti").height
    if not added and not gone:
        return "as the pipeline listed it"
    counts = f"{added:,} images new or changed, {gone:,} gone or changed"
    return f"since the pipeline listed it: {counts}; list it again: snakemake --forcerun {path}"


@dataset.command()
@click.argument("name")
@click.argument("path", type=IN_PATH)
@click.option("--layout", help="How the images lie, where it should not be guessed; see `dataset layouts`.")
@click.option("--label", type=click.Choice(["real", "fake"]), help="Label of every image, where no folder says it.")
@click.option("--config", type=IN_PATH, help="Configuration to add it to; without one, it is printed.")
def add(name: str, path: Path, layout: str | None, label: str | None, config: Path | None) -> None:
    """Look at the images at PATH and add them to a configuration as data set NAME.

    Its layout is recognised; its counts by label and subset are shown, with what looks wrong. The three lines of YAML
    are printed, or added to --config, whose other lines stay as they are. A data set that no benchmark and no training
    set names is tested on its own; one of several generators gets a benchmark file with a test set for each.

    \b
    Example:
      rine-cache dataset add my-generator data/my-generator --config my.yaml
    """
    from rine_cache.config_edit import added_text, benchmark_of, write_addition
    from rine_cache.errors import ConfigError
    from rine_cache.layouts import list_images
    from rine_cache.specs.base import parse
    from rine_cache.specs.config import load_config
    from rine_cache.specs.data import DatasetSpec

    if config is not None and name in load_config(config).datasets:
        raise ConfigError(f"{config} has a data set {name!r} already; choose another name, or edit it there")
    spec = parse(
        DatasetSpec,
        {"root": str(path), "layout": layout or ("folder" if label else _recognised(path)), "label": label},
        "the command line",
    )
    listing = list_images(spec)
    click.echo(listing_text(listing))
    _show_examples(listing)
    for warning in _warnings(listing):
        click.echo(f"warning: {warning}")
    benchmark = benchmark_of(name, listing.table)
    if config is None:
        click.echo(f"\nTo use it, add to your configuration:\n\n{added_text(name, spec)}")
        return
    for written in write_addition(config, name, spec, benchmark):
        click.echo(f"added to {written}")
    click.echo(f"What it will run: snakemake --configfile {config} -n")


def _recognised(path: Path) -> str:
    from rine_cache.layouts.recognise import recognise

    fits = recognise(path)
    best = fits[0]
    click.echo(f"layout {best.layout}: {best}")
    for other in fits[1:]:
        click.echo(f"  also possible with --layout {other.layout}")
    return best.layout


def _show_examples(listing: Listing) -> None:
    for (label, subset), rows in listing.table.group_by("label", "subset", maintain_order=True):
        names = ", ".join(rows["image_id"].head(_EXAMPLES_SHOWN))
        click.echo(f"  {('real', 'fake')[int(str(label))]} {subset}: {names}")


def _warnings(listing: Listing) -> list[str]:
    """Say what looks wrong in a listing: one class only, very unequal classes, endings that tell the classes apart."""
    from rine_cache.layouts.suspicions import suspicions

    return suspicions(listing.table)
