"""`rine-cache sample` and `rine-cache manifest`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import click

from rine_cache.cli.options import IN_PATH, OUT_FILE, log_option

if TYPE_CHECKING:
    from pathlib import Path

LOG = logging.getLogger(__name__)


@click.command()
@click.argument("spec")
@log_option
def sample(spec: str) -> None:
    """Make the sample's images: crops of photographs, and fakes blended from small autoencoders.

    SPEC is a YAML file with the keys of the config's `sample` section, or that section as inline JSON.

    \b
    Example:
      rine-cache sample '{"root": "data/sample"}'
    """
    from rine_cache.sample.build import build_sample
    from rine_cache.specs.base import parse_argument
    from rine_cache.specs.data import SampleSpec

    build_sample(parse_argument(SampleSpec, spec))


@click.command()
@click.argument("root", type=IN_PATH)
@click.option("--out", required=True, type=OUT_FILE, help="Manifest to write, a Parquet file.")
@click.option("--layout", default="folder", show_default=True, help="How the images lie; `rine-cache dataset layouts`.")
@click.option("--label", type=click.Choice(["real", "fake"]), help="Label of every image, where no folder says it.")
@click.option("--subset", "subsets", multiple=True, help="List this subset only; may be repeated.")
@click.option("--split", "splits", multiple=True, help="List this split only; may be repeated.")
@click.option("--group-pattern", default="", help="Regular expression on file names; its group is what images share.")
@log_option
def manifest(
    root: Path,
    out: Path,
    layout: str,
    label: str | None,
    subsets: tuple[str, ...],
    splits: tuple[str, ...],
    group_pattern: str,
) -> None:
    """List the images at ROOT with their label, subset and split.

    \b
    Layout `folder`: a folder named 0_real or 1_fake, real or fake, nature or ai, at any depth; the subset is
    the generator's folder above or below it.

    \b
    Example:
      rine-cache manifest data/GenImage --layout genimage --split val --out genimage.parquet
    """
    from rine_cache.cli.listing import listing_text
    from rine_cache.errors import ManifestError
    from rine_cache.layouts import list_images
    from rine_cache.manifest import build_manifest, read_manifest, write_manifest
    from rine_cache.specs.base import parse
    from rine_cache.specs.data import DatasetSpec

    given = {"root": str(root), "layout": layout, "label": label, "group_pattern": group_pattern}
    spec = parse(DatasetSpec, {**given, "subsets": subsets, "splits": splits}, "the command line")
    listed_as = spec.model_dump(mode="json", exclude={"obtain", "requires"})
    if out.exists() and (not root.exists() or (root.is_dir() and not any(root.iterdir()))):
        # An empty folder is what is left of a disk that is not mounted.
        if (earlier := read_manifest(out).listed_as) != listed_as:
            raise ManifestError(
                f"{root} is absent or empty, and {out} was listed otherwise: as {earlier}, now {listed_as}; bring the "
                f"images back, or list them as before"
            )
        LOG.warning("%s is absent or empty: the listing %s that was made of it stays as it is", root, out)
        return
    listing = list_images(spec)
    write_manifest(build_manifest(listing.table, listing.root, listed_as), out)
    for line in listing_text(listing).splitlines():
        LOG.info("%s", line)
    for path in listing.lost_files:
        LOG.warning("%s: %s is not here, or not whole; its images are left out", root, path)
    for reason, strays in listing.strays.items():
        LOG.warning("%s: %d left out, %s, e.g. %s", root, strays.images, reason, strays.example)
