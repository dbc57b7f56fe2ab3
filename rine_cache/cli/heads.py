"""`rine-cache train`, `rine-cache score` and `rine-cache head`."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from rine_cache.cli.options import IN_PATH, OUT_FILE, device_option, log_option
from rine_cache.cli.training_data import Pairs, open_training_data, training_data_options

LOG = logging.getLogger(__name__)


@click.command()
@click.argument("experiment")
@training_data_options
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for the heads.")
@device_option
@log_option
def train(
    experiment: str, train_pairs: Pairs, validation_pairs: Pairs, out: Path, training_set: str, device: str
) -> None:
    """Fit the probes of EXPERIMENT, and train its other methods with every seed, from caches; no image is read.

    EXPERIMENT is a YAML file with the keys of one of the config's `experiments`, or that section as inline JSON. Its
    `training: {memory_budget: 2 GiB}` says how much of the features is held in memory at once (4 GiB by default).

    Heads are written one by one. What --out holds already, of the same settings, data and seed, is not trained again:
    killed at any moment, the same command goes on, and another method trains only itself. What EXPERIMENT names is
    listed in OUT/heads.json, once all of it is there; other heads in the folder are kept, and not scored. To train
    again, delete them.

    \b
    Example:
      rine-cache train experiment.yaml --train train.h5 train.parquet \\
          --validation val.h5 val.parquet --out results/heads/mine
    """
    from rine_cache.devices import claim_device
    from rine_cache.errors import ConfigError
    from rine_cache.specs.base import parse_argument
    from rine_cache.specs.training import ExperimentSpec
    from rine_cache.train import train_experiment

    spec = parse_argument(ExperimentSpec, experiment)
    if spec.official_files:
        raise ConfigError("official heads are not trained; import them with `rine-cache head import`")
    train_features, validation_features = open_training_data(train_pairs, validation_pairs, training_set)
    with claim_device(device) as claimed:
        train_experiment(spec, train_features, validation_features, out, claimed)


@click.command()
@click.option("--heads", required=True, type=IN_PATH, help="Folder of heads, or one head.")
@click.option("--features", required=True, type=IN_PATH, help="Sealed cache.")
@click.option("--manifest", required=True, type=IN_PATH, help="Manifest the cache was made from.")
@click.option("--dataset", required=True, help="The data set's name in the config; benchmarks find it by that.")
@click.option("--view", default="center224", show_default=True, help="The view's name in the config.")
@click.option("--out", required=True, type=OUT_FILE, help="Score file to write.")
@device_option
@log_option
def score(heads: Path, features: Path, manifest: Path, dataset: str, view: str, out: Path, device: str) -> None:
    """Give every readable image of a cache one logit per head.

    \b
    Example:
      rine-cache score --heads results/heads/sample --features test.h5 --manifest test.parquet \\
          --dataset sample-test --out scores.parquet
    """
    from rine_cache.devices import claim_device
    from rine_cache.features import open_part
    from rine_cache.heads.head import load_heads
    from rine_cache.score import ScoredImages
    from rine_cache.score import score as run

    part = open_part(features, manifest)
    with claim_device(device) as claimed:
        run(load_heads(heads), part, ScoredImages(dataset, view), out, claimed)


@click.group()
def head() -> None:
    """Import or export heads in the RINE authors' format, ``model_*_trainable.pth``, or show what they learnt."""


@head.command("import")
@click.argument("source", type=IN_PATH)
@click.option("--out", required=True, type=OUT_FILE, help="Head to write, a .safetensors file.")
@click.option("--method", default="RINE-official", show_default=True, help="Method id it gets.")
@click.option("--training-set", default="", help="What it was trained on, e.g. progan-2.")
@click.option(
    "--architecture",
    default="ViT-L-14-quickgelu",
    show_default=True,
    help="Encoder it was trained on.",
)
@log_option
def import_(source: Path, out: Path, method: str, training_set: str, architecture: str) -> None:
    """Read a head that the RINE authors released. The file can run no code.

    \b
    Example:
      rine-cache head import model_4class_trainable.pth --out rine-4class.safetensors --training-set progan-4
    """
    from rine_cache.encoders import token_shape
    from rine_cache.errors import HeadError
    from rine_cache.heads.head import save_head
    from rine_cache.heads.official import import_official

    imported = import_official(source, method=method, architecture=architecture, training_set=training_set)
    blocks, width = token_shape(architecture)
    features = imported.card.features
    if (features.block_count, features.token_width) != (blocks, width):
        raise HeadError(
            f"{source} is a head on {features.block_count} blocks of width {features.token_width}, but {architecture} "
            f"has {blocks} of width {width}; give --architecture the encoder it was trained on"
        )
    save_head(imported, out)
    LOG.info("%s: %d trainable parameters, %s", out, imported.trainable_parameters, imported.card.head)


@head.command("export")
@click.argument("source", type=IN_PATH)
@click.option("--out", required=True, type=OUT_FILE, help="File to write, a .pth.")
@log_option
def export(source: Path, out: Path) -> None:
    """Write a head as the RINE authors' code loads it.

    \b
    Example:
      rine-cache head export results/heads/sample/RINE/seed0.safetensors --out mine_trainable.pth
    """
    from rine_cache.heads.head import load_head
    from rine_cache.heads.official import export_official

    export_official(load_head(source), out)


@head.command("weights")
@click.argument("heads", nargs=-1, required=True, type=IN_PATH)
@click.option(
    "--figure", "figures", multiple=True, type=OUT_FILE, help="Also draw them: .svg or .png; may be repeated."
)
@log_option
def weights(heads: tuple[Path, ...], figures: tuple[Path, ...]) -> None:
    """Print how HEADS weigh the blocks that they read, counted from 0: what the Trainable Importance Estimator learnt.

    For each head the weight, averaged over its channels, and the share of channels in which no block weighs more.

    \b
    Example:
      rine-cache head weights results/heads/sample/RINE/seed*.safetensors --figure weights.svg
    """
    from rine_cache.heads.head import read_card
    from rine_cache.importance_figure import draw_importance, importance_of
    from rine_cache.markdown import markdown_table

    cards = [read_card(path) for path in heads]
    columns: list[dict[int, float]] = []
    for card in cards:
        learnt = importance_of(card)
        columns += [dict(zip(card.blocks, values, strict=True)) for values in (learnt.mean, learnt.leads)]
    header = [f"{card.method} {card.seed}: {name}" for card in cards for name in ("weight", "leads")]
    body = [
        [str(block), *(f"{column[block]:.4f}" if block in column else "" for column in columns)]
        for block in sorted({block for column in columns for block in column})
    ]
    if figures:
        draw_importance(cards, figures)
    click.echo(markdown_table(["block", *header], body))
