"""`rine-cache extract`, `rine-cache verify` and `rine-cache info`."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any, cast

import click

from rine_cache.cli.options import IN_PATH, OUT_FILE, default_workers, device_option, log_option

if TYPE_CHECKING:
    from pathlib import Path

    from rine_cache.specs.encoding import Tap, ViewSpec

LOG = logging.getLogger(__name__)


@click.command()
@click.argument("manifest", type=IN_PATH)
@click.option("--out", required=True, type=OUT_FILE, help="Cache to write.")
@click.option("--architecture", default="ViT-L-14-quickgelu", show_default=True, help="Name of an open_clip ViT.")
@click.option(
    "--weights", default="openai", show_default=True, help="open_clip tag, path of a checkpoint, `wheel` or `random`."
)
@click.option("--tap", type=click.Choice(["ln_2", "block"]), default="ln_2", show_default=True)
@click.option("--view", default="center224", show_default=True, help="Name of a built-in view, or one as inline JSON.")
@click.option("--precision", default="auto", show_default=True, metavar="auto|float32|float16|bfloat16")
@click.option("--batch-size", default=16, show_default=True, help="Crops per forward pass; part of the cache's key.")
@click.option("--workers", type=int, default=default_workers, show_default="one per core", help="Threads that decode.")
@click.option(
    "--reuse",
    type=IN_PATH,
    multiple=True,
    help="Cache whose rows are copied for images of the same content; may be repeated.  [default: those beside --out]",
)
@click.option("--parent", type=int, help="Stop, resumable, once the process of this number is not the parent any more.")
@device_option
@log_option
def extract(
    manifest: Path,
    out: Path,
    architecture: str,
    weights: str,
    tap: str,
    view: str,
    precision: str,
    batch_size: int,
    workers: int,
    reuse: tuple[Path, ...],
    parent: int | None,
    device: str,
) -> None:
    """Encode every image of MANIFEST into a sealed cache.

    Interrupted at any moment, the same command goes on where it stopped and gives the same file, byte for
    byte. Images that cannot be read are quarantined with their reason, and counted. Those whose content stands in a
    sealed cache already, with the same encoder, tap and view, are copied from there.

    \b
    Example:
      rine-cache extract results/manifests/my-set.parquet --out my-set.h5 \\
          --architecture ViT-B-16-quickgelu --weights wheel
    """
    from rine_cache.encoders import load_encoder
    from rine_cache.errors import ConfigError
    from rine_cache.extract import extract as run
    from rine_cache.manifest import read_manifest
    from rine_cache.specs.base import parse
    from rine_cache.specs.encoding import EncoderSpec

    if workers < 1:
        raise ConfigError(f"--workers is {workers}; at least 1 thread must decode")
    spec = parse(
        EncoderSpec,
        {"architecture": architecture, "weights": weights, "precision": precision, "batch_size": batch_size},
        "the command line",
    )
    images = read_manifest(manifest)
    report = run(
        images,
        load_encoder(spec, device),
        tap=cast("Tap", tap),
        view=_view(view),
        output=out,
        workers=workers,
        reuse=reuse or sorted(out.parent.glob("*.h5")),
        parent=parent,
    )
    quarantined = sum(report.quarantined.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in report.quarantined.items())
    LOG.info(
        "%s: %d images, %d encoded now, %d copied, %d quarantined%s, %d label conflicts",
        *(out, report.images, report.encoded, report.copied, quarantined, f" ({reasons})" if reasons else ""),
        len(report.conflicts),
    )


def _view(argument: str) -> ViewSpec:
    from rine_cache.errors import ConfigError, nearest
    from rine_cache.specs.base import parse_argument
    from rine_cache.specs.encoding import BUILTIN_VIEWS, VIEW

    if argument.lstrip().startswith("{"):
        return parse_argument(VIEW, argument)
    if argument not in BUILTIN_VIEWS:
        raise ConfigError(f"view {argument!r} is not built in; {nearest(argument, BUILTIN_VIEWS)}, or inline JSON")
    return BUILTIN_VIEWS[argument]


@click.command()
@click.argument("caches", nargs=-1, required=True, type=IN_PATH)
@log_option
def verify(caches: tuple[Path, ...]) -> None:
    """Re-read every byte of CACHES and check it against their checksums; exit status 1 if any is damaged.

    \b
    Example:
      rine-cache verify results/features/*/*/*/*.h5
    """
    from rine_cache.cache import FeatureCache
    from rine_cache.errors import CacheError

    bad = 0
    for path in caches:
        try:
            faults = [f"slab {slab} ({', '.join(parts)})" for slab, parts in FeatureCache(path).damaged_slabs()]
            verdict = f"damaged: {'; '.join(faults)}; delete it and extract it again" if faults else "whole"
        except CacheError as error:
            verdict = f"not whole: {error}"
        bad += verdict != "whole"
        click.echo(f"{path}: {verdict}")
    if bad:
        click.echo(f"{bad} of {len(caches)} are not whole", err=True)
        sys.exit(1)


@click.command()
@click.argument("path", type=IN_PATH)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(path: Path, *, as_json: bool) -> None:
    """Say what the file at PATH holds: a cache (.h5), a manifest (.parquet) or a head (.safetensors).

    \b
    Example:
      rine-cache info results/features/clip-vit-b16/ln_2/center224/sample-test.h5
    """
    from rine_cache.errors import ConfigError

    readers = {".h5": _cache_info, ".parquet": _manifest_info, ".safetensors": _head_info}
    if path.suffix not in readers:
        raise ConfigError(f"{path} has the ending {path.suffix!r}; allowed: {', '.join(readers)}")
    facts = readers[path.suffix](path)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        click.echo(f"{name.ljust(width)}  {json.dumps(value) if isinstance(value, dict | list) else value}")


def _cache_info(path: Path) -> dict[str, Any]:
    from collections import Counter

    from rine_cache.cache import FeatureCache
    from rine_cache.quarantine import Reason

    cache = FeatureCache(path)
    key = cache.identity.key
    reasons = Counter(Reason(value).name.lower() for value in cache.reason if value)
    return {
        "kind": "sealed cache",
        "images": cache.shape.images,
        "quarantined": dict(reasons),
        "blocks": cache.shape.blocks,
        "draws": cache.shape.draws,
        "width": cache.shape.width,
        "embedding width": cache.shape.embedding_width,
        **{name: key[name] for name in ("encoder", "tap", "view", "decoder", "compute_dtype", "batch_size")},
        "encoding fingerprint": cache.fingerprint,
        "manifest digest": cache.identity.manifest_digest,
        "libraries": cache.identity.libraries,
        "device": cache.identity.device,
    }


def _manifest_info(path: Path) -> dict[str, Any]:
    from rine_cache.layouts.entry import LABEL_NAMES
    from rine_cache.manifest import read_manifest

    manifest = read_manifest(path)
    counts = manifest.table.group_by("label", "subset").len().sort("label", "subset")
    return {
        "kind": "manifest",
        "images": len(manifest),
        "root": str(manifest.root),
        "digest": manifest.digest,
        "counts": {f"{LABEL_NAMES[label]} {subset}": count for label, subset, count in counts.iter_rows()},
    }


def _head_info(path: Path) -> dict[str, Any]:
    from rine_cache.heads.head import load_head

    head = load_head(path)
    return {
        "kind": "head",
        "trainable parameters": head.trainable_parameters,
        **head.card.model_dump(mode="json"),
        "fingerprint": head.fingerprint,
    }
