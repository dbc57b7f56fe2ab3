"""`rine-cache export` and `rine-cache import`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rine_cache.cli.options import IN_PATH, OUT_FILE, log_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rine_cache.packs import Imported, PackContent

_results_option = click.option(
    "--results",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results"),
    show_default=True,
    help="The pipeline's results folder.",
)


@click.command()
@click.argument("pack", type=OUT_FILE)
@_results_option
@click.option("--dataset", "datasets", multiple=True, help="Pack this data set's caches only; may be repeated.")
@click.option("--encoder", default="", help="Pack this encoder's caches only.")
@click.option("--view", default="", help="Pack this view's caches only.")
@log_option
def export(pack: Path, results: Path, datasets: tuple[str, ...], encoder: str, view: str) -> None:
    """Pack sealed caches with their manifests into one file, PACK, for a machine without the images.

    No image goes into it; manifests hold file names, labels and the folder the images lay in. Every byte is checked
    first, and a cache that is unsealed, damaged or of another manifest is refused.

    \b
    Example:
      rine-cache export chameleon.tar --dataset chameleon
    """
    from rine_cache.packs import write_pack

    contents = write_pack(results, pack, datasets, encoder, view)
    click.echo(_table(contents))
    names = {content.file.dataset for content in contents}
    click.echo(
        f"\n{pack}: {_count(len(contents), 'cache')} with {_count(len(names), 'manifest')}, "
        f"{_size(pack.stat().st_size)}. No image is in it.\n"
        "What it tells of the images: file names, labels and the folder they lay in (manifests); features, and facts "
        "such as\nformat, size and sha256 (caches). Look through the file names before you share it."
    )


@click.command("import")
@click.argument("pack", type=IN_PATH)
@_results_option
@click.option("--replace", is_flag=True, help="Replace files that are there with other bytes.")
@log_option
def import_(pack: Path, results: Path, *, replace: bool) -> None:
    """Check PACK, a file that `rine-cache export` made, and put its caches and manifests into the results folder.

    All or nothing: files take their places once every byte is checked. Then it says what the configuration needs.

    \b
    Example:
      rine-cache import chameleon.tar
    """
    from rine_cache.packs import read_pack

    imported = read_pack(pack, results, replace=replace)
    click.echo(_table(imported.contents))
    click.echo(f"\n{pack}: {_deeds(imported)} in {results}; every byte is checked.")
    for path in imported.kept:
        click.echo(f"  there already, the same: {path}")
    for path in imported.replaced:
        click.echo(f"  replaced: {path}")
    click.echo(
        "\nThe pipeline uses them once its configuration has these entries. The folders need not be there. Weights\n"
        "are not loaded while their caches are there; name them as they were named where those were made.\n\n"
        + _entries(imported.contents)
    )


def _table(contents: Sequence[PackContent]) -> str:
    rows = [("data set", "encoder", "tap", "view", "images", "quarantined", "size")]
    for file, images, quarantined, _, _ in contents:
        rows.append(
            (file.dataset, file.encoder, file.tap, file.view, f"{images:,}", f"{quarantined:,}", _size(file.size))
        )
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        names = [cell.ljust(width) for cell, width in zip(row[:4], widths, strict=False)]
        numbers = [cell.rjust(width) for cell, width in zip(row[4:], widths[4:], strict=True)]
        lines.append("  ".join((*names, *numbers)))
    return "\n".join(lines)


def _deeds(imported: Imported) -> str:
    counts = {"new": imported.new, "replaced": imported.replaced, "left as they were": imported.kept}
    return ", ".join(f"{_count(len(paths), 'file')} {what}" for what, paths in counts.items() if paths)


def _entries(contents: Sequence[PackContent]) -> str:
    """Write the config's entries for imported caches, with what the caches know of them."""
    import yaml

    from rine_cache.specs.encoding import BUILTIN_VIEWS

    encoders, views, datasets = {}, {}, {}
    for content in contents:
        key = content.key
        weights = f"those of sha256 {key['encoder']['weights_sha256'][:12]}"
        encoders[content.file.encoder] = {
            "architecture": key["encoder"]["architecture"],
            "weights": weights,
            "precision": key["compute_dtype"],
            "batch_size": key["batch_size"],
        }
        built_in = BUILTIN_VIEWS.get(content.file.view)
        if built_in is None or built_in.model_dump(mode="json") != key["view"]:
            views[content.file.view] = key["view"]
        datasets[content.file.dataset] = {name: value for name, value in content.listed_as.items() if value}
    lines = []
    for section, entries in (("encoders", encoders), ("views", views), ("datasets", datasets)):
        if entries:
            lines.append(f"{section}:")
        for name, entry in entries.items():
            flow = yaml.safe_dump(entry, default_flow_style=True, sort_keys=False, width=float("inf")).strip()
            lines.append(f"  {name}: {flow}")
    return "\n".join(lines)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _size(size: int) -> str:
    """Write a number of bytes for people."""
    if size < 10**6:
        return f"{size / 10**3:.1f} kB"
    return f"{size / 10**6:,.1f} MB" if size < 10**9 else f"{size / 10**9:,.1f} GB"
