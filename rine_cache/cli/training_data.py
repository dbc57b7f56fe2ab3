"""Options that name caches and manifests to train on, and how they are opened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rine_cache.cli.options import IN_PATH

if TYPE_CHECKING:
    from collections.abc import Callable

    from rine_cache.features import FeatureSet
    from rine_cache.specs.data import DatasetPart

Pairs = tuple[tuple[Path, Path], ...]
_PAIR: dict[str, Any] = {"nargs": 2, "multiple": True, "type": IN_PATH, "metavar": "CACHE MANIFEST", "required": True}


def training_data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--train``, ``--validation`` and ``--training-set``: the arguments of `open_training_data`."""
    for option in (
        click.option(
            "--training-set",
            default="",
            help="The config's training set as inline JSON: keeps its subsets, splits, shares.",
        ),
        click.option("--validation", "validation_pairs", help="Features to choose the epoch on.", **_PAIR),
        click.option("--train", "train_pairs", help="Training features; may be repeated for a union.", **_PAIR),
    ):
        command = option(command)
    return command


def open_training_data(train_pairs: Pairs, validation_pairs: Pairs, training_set: str) -> tuple[FeatureSet, FeatureSet]:
    """Open what is trained on and what epochs are chosen on.

    Raises
    ------
    ConfigError
        If the training set has more or fewer parts than are given.
    CacheError, ManifestError
        If a file cannot be used.
    """
    from rine_cache.specs.base import parse_argument
    from rine_cache.specs.data import TrainingSetSpec

    parts = parse_argument(TrainingSetSpec, training_set) if training_set else None
    return (
        _features("--train", train_pairs, parts.train if parts else ()),
        _features("--validation", validation_pairs, parts.validation if parts else ()),
    )


def _features(option: str, pairs: Pairs, parts: tuple[DatasetPart, ...]) -> FeatureSet:
    from rine_cache.errors import ConfigError
    from rine_cache.features import FeatureSet, open_part

    if parts and len(parts) != len(pairs):
        raise ConfigError(f"the training set has {len(parts)} parts, but {option} is given {len(pairs)} times")
    if not parts:
        return FeatureSet([open_part(*pair) for pair in pairs])
    chosen = zip(pairs, parts, strict=True)
    return FeatureSet([open_part(*pair, part.subsets, part.splits, part.share) for pair, part in chosen])
