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
@click.option("--layout", default="folder", show_default=True, help="How label and subset are read from paths.")
@click.option("--group-pattern", default="", help="Regular expression on file names; its group is what images share.")
@log_option
def manifest(root: Path, out: Path, layout: str, group_pattern: str) -> None:
    """List the images below ROOT with their label, subset and split.

    \b
    Layout `folder`: a folder named 0_real or 1_fake, real or fake, nature or ai, at any depth; the subset is
    the generator's folder above or below it.

    \b
    Example:
      rine-cache manifest data/my-set --out results/manifests/my-set.parquet
    """
    from rine_cache.errors import ConfigError, nearest
    from rine_cache.layouts import LAYOUTS, list_images
    from rine_cache.manifest import build_manifest, read_manifest, write_manifest
    from rine_cache.specs.base import parse
    from rine_cache.specs.data import DatasetSpec

    if layout not in LAYOUTS:
        raise ConfigError(f"layout {layout!r} does not exist; {nearest(layout, LAYOUTS)}")
    spec = parse(
        DatasetSpec,
        {"root": str(root), "layout": layout, "group_pattern": group_pattern},
        "the command line",
    )
    if not root.is_dir() and out.exists() and read_manifest(out).root == root:
        LOG.warning("%s is absent: the listing %s that was made of it stays as it is", root, out)
        return
    listed = build_manifest(list_images(root, spec.layout, spec.group_pattern), root)
    write_manifest(listed, out)
    counts = listed.table.group_by("label", "subset").len().sort("label", "subset")
    for label, subset, count in counts.iter_rows():
        LOG.info("%s: %d %s images in subset %s", out, count, ("real", "fake")[label], subset)
