"""`rine-cache extract`, `rine-cache join`, `rine-cache verify` and `rine-cache info`."""

from __future__ import annotations

import json
import logging
import re
import sys
from typing import TYPE_CHECKING, Any

import click

from rine_cache.cli.options import IN_PATH, OUT_FILE, default_workers, device_option, log_option

if TYPE_CHECKING:
    from pathlib import Path

    from rine_cache.specs.extraction import CacheSpec

LOG = logging.getLogger(__name__)


def _shard(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Read ``2/4``: the second of four."""
    from rine_cache.errors import ConfigError

    if value is None:
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", value)
    number, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        raise ConfigError(f"--shard is {value!r}; allowed: I/S, the I-th of S shards, from 1/S to S/S, such as 2/4")
    return number, count


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
@click.option(
    "--compile", "compiled", is_flag=True, help="Compile the encoder (torch.compile); part of the cache's key."
)
@click.option(
    "--also",
    multiple=True,
    metavar="JSON",
    help="Another cache from the same pass over the files; may be repeated. `out` and what differs from the options "
    "above: `tap`, `view`, `encoder` (a table of `architecture`, `weights`, `precision`, `batch_size`).",
)
@click.option(
    "--shard", metavar="I/S", callback=_shard, help="Make the I-th of S shards only; `rine-cache join` makes them one."
)
@click.option(
    "--workers", type=int, default=default_workers, show_default="one per core", help="Processes that decode."
)
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
    also: tuple[str, ...],
    shard: tuple[int, int] | None,
    workers: int,
    reuse: tuple[Path, ...],
    parent: int | None,
    device: str,
    *,
    compiled: bool,
) -> None:
    """Encode every image of MANIFEST into a sealed cache, or into several from one pass over the files.

    Interrupted at any moment, the same command goes on where it stopped and gives the same file, byte for
    byte. Images that cannot be read are quarantined with their reason, and counted. Those whose content stands in a
    sealed cache already, with the same encoder, tap and view, are copied from there.

    A second view, from the same decoded images: --also '{"out": "my-set-jpeg50.h5", "view": "jpeg50"}'

    \b
    Example:
      rine-cache extract results/manifests/my-set.parquet --out my-set.h5 \\
          --architecture ViT-B-16-quickgelu --weights wheel
    """
    from rine_cache.devices import claim_device
    from rine_cache.encoders import load_encoder
    from rine_cache.errors import ConfigError
    from rine_cache.extract import Target
    from rine_cache.extract import extract as run
    from rine_cache.manifest import read_manifest

    if workers < 1:
        raise ConfigError(f"--workers is {workers}; at least 1 process must decode")
    settings = {"architecture": architecture, "weights": weights, "precision": precision, "batch_size": batch_size}
    main = {"out": str(out), "encoder": settings | {"compile": compiled}, "tap": tap, "view": _view(view)}
    caches = _caches(main, also)
    images = read_manifest(manifest)
    with claim_device(device) as claimed:
        encoders = {spec: load_encoder(spec, claimed) for spec in dict.fromkeys(cache.encoder for cache in caches)}
        targets = [
            Target(
                encoders[cache.encoder],
                cache.tap,
                cache.view,
                cache.out,
                reuse or _beside(cache.out),
            )
            for cache in caches
        ]
        reports = run(images, targets, workers=workers, shard=shard, parent=parent)
    for report in reports:
        quarantined = sum(report.quarantined.values())
        reasons = ", ".join(f"{count} {reason}" for reason, count in report.quarantined.items())
        LOG.info(
            "%s: %d images, %d encoded now, %d copied, %d quarantined%s, %d label conflicts",
            *(report.output, report.images, report.encoded, report.copied, quarantined),
            f" ({reasons})" if reasons else "",
            len(report.conflicts),
        )


def _beside(out: Path) -> list[Path]:
    """List the caches beside one, and shards, whether they are joined or not; each file once."""
    found = sorted([*out.parent.glob("*.h5"), *out.parent.glob("*.shards/*.h5")])
    return list({path.resolve(): path for path in reversed(found)}.values())[::-1]


def _caches(main: dict[str, Any], also: tuple[str, ...]) -> list[CacheSpec]:
    """Describe the main cache, and those that differ from it."""
    from rine_cache.errors import ConfigError
    from rine_cache.specs.base import parse
    from rine_cache.specs.extraction import CacheSpec

    caches = [parse(CacheSpec, main, "the command line")]
    for argument in also:
        try:
            differing = json.loads(argument)
        except json.JSONDecodeError as error:
            raise ConfigError(f"--also {argument!r} is not JSON: {error}") from None
        if not isinstance(differing, dict) or "out" not in differing:
            raise ConfigError(f'--also {argument!r} names no cache to write; it needs at least {{"out": ...}}')
        encoder = differing.get("encoder", {})
        if isinstance(encoder, dict):
            differing["encoder"] = main["encoder"] | encoder
        caches.append(parse(CacheSpec, main | differing, f"--also {argument}"))
    return caches


def _view(argument: str) -> Any:
    """Read inline JSON; what is none is a name."""
    from rine_cache.errors import ConfigError

    if not argument.lstrip().startswith("{"):
        return argument
    try:
        return json.loads(argument)
    except json.JSONDecodeError as error:
        raise ConfigError(f"--view {argument!r} is not JSON: {error}") from None


@click.command()
@click.argument("cache", type=OUT_FILE)
@click.option("--shards", type=click.IntRange(min=1), required=True, help="How many there are.")
@log_option
def join(cache: Path, shards: int) -> None:
    """Make CACHE of its sealed shards: a small index of them, which readers take for the whole.

    The shards stay where they are, in the folder beside it.

    \b
    Example:
      rine-cache join my-set.h5 --shards 4
    """
    from rine_cache.cache import join_shards

    join_shards(cache, shards)


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
            faults = FeatureCache(path).damage()
        except CacheError as error:
            faults = [str(error)]
        bad += bool(faults)
        for verdict in [f"not whole: {fault}" for fault in faults] or ["whole"]:
            click.echo(f"{path}: {verdict}")
    if bad:
        click.echo(f"{bad} of {len(caches)} are not whole", err=True)
        sys.exit(1)


@click.command()
@click.argument("path", type=IN_PATH)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(path: Path, *, as_json: bool) -> None:
    """Say what PATH holds, and how many encoder passes were saved where heads read from caches.

    PATH is a cache (.h5), a head (.safetensors), a manifest, scores, metrics or the leaderboard (.parquet), or a
    folder: then all caches, heads and scores below it are counted together, each cache once.

    \b
    Example:
      rine-cache info results
    """
    from rine_cache.describe import describe

    facts = describe(path)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        click.echo(f"{name.ljust(width)}  {json.dumps(value) if isinstance(value, dict | list) else value}")
