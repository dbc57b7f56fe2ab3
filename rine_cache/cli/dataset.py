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
    from rine_cache.layouts.recognise import Fit
    from rine_cache.specs.data import DatasetSpec

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
        listed = _images_listed(_listing_of(name))
        layout, absent, unlisted = spec.layout if spec else "", ", ".join(holding.absent), ", ".join(holding.unlisted)
        rows.append((name, holding.state, layout, listed, unlisted, holding.root, absent, holding.obtain))
    header = ("data set", "state", "layout", "images listed", "not listed yet", "root", "missing subsets")
    click.echo(as_text((*header, "where to get it"), rows))


def _listing_of(name: str) -> Path:
    """Name the listing that the pipeline makes of a data set."""
    return Path("results/manifests") / f"{name}.parquet"


def _images_listed(manifest: Path) -> str:
    from rine_cache.errors import ManifestError
    from rine_cache.manifest import read_manifest

    try:
        return f"{len(read_manifest(manifest)):,}" if manifest.exists() else ""
    except ManifestError:
        return "damaged"


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
    from rine_cache.specs.config import load_config

    specs = load_config(config).datasets
    for name in names:
        if name not in specs:
            raise ConfigError(f"data set {name!r} is not defined in {config}; {nearest(name, specs)}")
    whole = [_checked(name, specs[name], config) for name in names or specs]
    if not all(whole):
        sys.exit(1)


def _checked(name: str, spec: DatasetSpec, config: Path) -> bool:
    """Show one data set as it lies on disk; return whether nothing of it is missing or without a place."""
    from rine_cache.errors import LayoutError
    from rine_cache.layouts import list_images

    click.echo(f"{name}: {spec.root} ({spec.layout})")
    if not Path(spec.root).exists():
        if spec.requires:
            click.echo(f"not there yet; made by the pipeline, with {spec.requires}\n")
            return True
        listed = _images_listed(_listing_of(name))
        kept = f"; {listed} images were listed, and their caches stay usable" if listed else ""
        click.echo(f"missing{kept}{f'; get it from {spec.obtain}' if spec.obtain else ''}\n")
        return False
    try:
        listing = list_images(spec)
    except LayoutError as error:
        click.echo(f"cannot be listed: {error}\n")
        return False
    click.echo(listing_text(listing))
    _show_warnings(listing)
    click.echo(_since_listed(listing, name, config) + "\n")
    return not (listing.missing or listing.strays or listing.lost_files)


def _since_listed(listing: Listing, name: str, config: Path) -> str:
    """Compare a listing with the manifest that the pipeline has of the data set."""
    from rine_cache.manifest import read_manifest

    path = _listing_of(name)
    if not path.exists():
        return "not listed by the pipeline yet"
    earlier, now = read_manifest(path).table, listing.table
    added = now.join(earlier, on=["image_id", "size"], how="anti").height
    gone = earlier.join(now, on=["image_id", "size"], how="anti").height
    if not added and not gone:
        return "as the pipeline listed it"
    return (
        f"since the pipeline listed it: {added:,} images new or changed, {gone:,} gone or changed; to list it again:\n"
        f"  snakemake --configfile {config} --forcerun {path}"
    )


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
    set names is tested on its own; one of several generators gets a benchmark file with a test set for each. One that a
    benchmark of the configuration names already is tested by that.

    \b
    Example:
      rine-cache dataset add my-generator data/my-generator --config my.yaml
    """
    from rine_cache.config_edit import added_text, benchmark_of, benchmark_text, check_name, write_addition
    from rine_cache.layouts import list_images
    from rine_cache.specs.base import parse
    from rine_cache.specs.data import DatasetSpec

    check_name(name, config)
    spec = parse(
        DatasetSpec,
        {"root": str(path), "layout": layout or ("folder" if label else _recognised(path)), "label": label},
        "the command line",
    )
    listing = list_images(spec)
    click.echo(listing_text(listing))
    _show_examples(listing)
    _show_warnings(listing)
    _show_splits(listing)
    benchmark = benchmark_of(name, listing.table)
    if config is not None:
        written = write_addition(config, name, spec, benchmark)
        click.echo(f"\nadded to {' and '.join(map(str, written))}")
        click.echo(f"to see what it will run: snakemake --configfile {config} -n")
        return
    click.echo(f"\nTo use it, add to your configuration (--config does so):\n\n{added_text(name, spec)}")
    if benchmark is not None:
        click.echo("To test each generator by itself, save this as a file and name that under benchmarks:\n")
        click.echo(benchmark_text(benchmark))


def _recognised(path: Path) -> str:
    """Say which layouts fit a folder or a table, and return the best one's name."""
    from rine_cache.errors import LayoutError
    from rine_cache.layouts import list_images
    from rine_cache.layouts.recognise import recognise
    from rine_cache.specs.data import DatasetSpec

    fits = recognise(path)
    if not fits:
        try:
            list_images(DatasetSpec(root=str(path), layout="table" if path.is_file() else "folder"))
        except LayoutError as error:
            hint = (
                "" if path.is_file() else "; if all its images are of one class, say so: --label real or --label fake"
            )
            raise LayoutError(f"{error}{hint}") from None
    best = fits[0]
    if best.problem:
        raise LayoutError(best.problem)
    click.echo(f"layout {best.layout}: {_fit_text(best)}")
    for other in fits[1:]:
        if not other.problem:
            click.echo(f"  or --layout {other.layout}: {_fit_text(other)}")
    return best.layout


def _fit_text(fit: Fit) -> str:
    from rine_cache.layouts import LAYOUTS

    some = "the first " if fit.more else ""
    parts = len(LAYOUTS[fit.layout].parts)
    of_whole = f", and {fit.parts} of the {parts} parts of a whole copy are here" if parts else ""
    return f"{fit.placed:,} of {some}{fit.placed + fit.strays:,} images have a place in it{of_whole}"


def _show_examples(listing: Listing) -> None:
    """Name a few images of each class and subset."""
    from rine_cache.layouts.entry import LABEL_NAMES

    for (label, subset), rows in listing.table.group_by("label", "subset", maintain_order=True):
        names = ", ".join(rows["image_id"].head(_EXAMPLES_SHOWN))
        click.echo(f"  e.g. {LABEL_NAMES[int(str(label))]} {subset}: {names}")


def _show_warnings(listing: Listing) -> None:
    from rine_cache.layouts.suspicions import suspicions

    for warning in suspicions(listing.table):
        click.echo(f"warning: {warning}")


def _show_splits(listing: Listing) -> None:
    """Warn where training images would be tested on, unless a test names its split."""
    counts = dict(listing.table.drop_nulls("split").group_by("split").len().sort("split").iter_rows())
    if "train" in counts and len(counts) > 1:
        held = ", ".join(f"{count:,} in {split}" for split, count in counts.items())
        click.echo(f"warning: images of several splits ({held}): a test that names no `splits` scores them all")
