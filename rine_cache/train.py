"""Training: heads from cached features, chosen on validation data. No image and no encoder is touched.

Probes, which are fitted and not trained, come first: they take little time, and what is wrong with one shows at once.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import torch

from rine_cache.calibration import calibrate
from rine_cache.errors import TrainingError
from rine_cache.files import written_whole
from rine_cache.heads.head import SUFFIX, FeatureIdentity, Head, HeadCard, build_network, save_head
from rine_cache.heads.importance import block_importance
from rine_cache.layouts.entry import FAKE, LABEL_NAMES, REAL
from rine_cache.losses import bce_sum, supervised_contrastive_loss
from rine_cache.metrics import VALIDATION_METRICS, validation_metrics
from rine_cache.passes import passes_of
from rine_cache.probes import fit_probe
from rine_cache.progress import progress
from rine_cache.provenance import code_version, fingerprint
from rine_cache.specs.blocks import resolve_blocks
from rine_cache.specs.training import EMBEDDING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from rine_cache.features import FeatureSet
    from rine_cache.specs.training import ExperimentSpec, HeadSpec, TrainingSpec

LOG = logging.getLogger(__name__)

CURVES = "curves.parquet"
_SCORING_BATCH = 1024
_DROP_FACTOR = 10.0
_CURVE = pl.Schema(
    {
        "method": pl.String,
        "seed": pl.Int64,
        "epoch": pl.Int64,
        "learning_rate": pl.Float64,
        "train_bce": pl.Float64,
        "train_contrastive": pl.Float64,
        "train_loss": pl.Float64,
        "validation_loss": pl.Float64,
        **{f"validation_{name}": pl.Float64 for name in VALIDATION_METRICS},
    }
)


class TrainedHead(NamedTuple):
    """A head as it was after its chosen epoch, and one row of its curve per epoch."""

    head: Head
    curve: list[dict[str, Any]]


def train_experiment(
    experiment: ExperimentSpec, train: FeatureSet, validation: FeatureSet, output: Path, device: str
) -> None:
    """Train every method of an experiment with every seed, and fit its probes.

    Writes ``<method>/seed<N>.safetensors`` below `output` as each is done, and their curves last.

    Raises
    ------
    TrainingError
        If training and validation share images, a class is missing, `output` holds other heads, or a loss is
        not finite.
    CacheMismatchError
        If training and validation features are of different encoders or taps.
    """
    _check_data(train, validation)
    paths = {(method, seed): output / method / f"seed{seed}{SUFFIX}" for method, seed in experiment.heads}
    _refuse_other_heads(output, set(paths.values()))
    probes = [method for method, spec in experiment.methods.items() if spec.is_probe]
    for method in probes:
        save_head(fit_probe(experiment, method, train, validation, device), paths[method, 0])
        LOG.info("%s: fitted", method)
    to_train = {head: path for head, path in paths.items() if head[0] not in probes}
    curves = []
    epochs = sum(experiment.methods[method].training.epochs for method, _ in to_train)
    with progress(f"train {len(to_train)} heads", epochs, "epochs") as bar:
        for (method, seed), path in to_train.items():
            trained = train_head(experiment, method, seed, train, validation, device, after_epoch=bar.advance)
            save_head(trained.head, path)
            curves += trained.curve
            card = trained.head.card
            LOG.info("%s seed %d: epoch %s of %d chosen", method, seed, card.chosen_epoch, len(trained.curve))
    with written_whole(output / CURVES) as temporary:
        pq.write_table(pl.DataFrame(curves, _CURVE).to_arrow(), temporary)


def train_head(
    experiment: ExperimentSpec,
    method: str,
    seed: int,
    train: FeatureSet,
    validation: FeatureSet,
    device: str,
    after_epoch: Callable[[], None] = lambda: None,
) -> TrainedHead:
    """Train one head and keep the epoch whose validation loss is lowest, the earliest of equals.

    The seed fixes initial parameters, dropout and the order of batches, and nothing else does: the same seed
    gives the same head on the same machine and library versions.

    Raises
    ------
    TrainingError
        If a loss is not finite; names method, seed and epoch.
    """
    spec = experiment.methods[method]
    assert spec.head.kind != "official", "official heads are imported"
    settings = spec.training
    reader = _Reader(spec.head, train.identity, device)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        network = build_network(spec.head, train.identity).to(device)
        optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
        curve: list[dict[str, Any]] = []
        best_state: dict[str, torch.Tensor] = {}
        best_logits = np.empty(0, np.float32)  # (N,) once an epoch is over
        for epoch in range(1, settings.epochs + 1):
            _set_learning_rate(optimiser, settings, epoch)
            losses = _train_epoch(network, optimiser, settings, reader, train, seed, epoch)
            measured, logits = _validate(network, reader, validation)
            row: dict[str, Any] = {"method": method, "seed": seed, "epoch": epoch, **losses, **measured}
            if not (math.isfinite(row["train_loss"]) and math.isfinite(row["validation_loss"])):
                raise TrainingError(
                    f"{method} (seed {seed}) diverged in epoch {epoch}: training loss {row['train_loss']}, validation "
                    f"loss {row['validation_loss']}; lower its learning_rate ({settings.learning_rate})"
                )
            if not curve or row["validation_loss"] < min(earlier["validation_loss"] for earlier in curve):
                best_state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
                best_logits = logits
            curve.append(row)
            after_epoch()
    network.load_state_dict(best_state)
    chosen = min(curve, key=lambda row: row["validation_loss"])
    card = HeadCard(
        method=method,
        seed=seed,
        head=spec.head,
        features=train.identity,
        training_set=experiment.training_set,
        training=settings,
        training_fingerprint=fingerprint([train.fingerprint, validation.fingerprint]),
        chosen_epoch=chosen["epoch"],
        validation={name: chosen[f"validation_{name}"] for name in ("loss", *VALIDATION_METRICS)},
        calibration=calibrate(validation.labels, best_logits),
        importance=block_importance(best_state["alpha"][0]) if "alpha" in best_state else None,
        code_version=code_version(),
        note=spec.note,
        # An epoch reads one draw of each image, for validation too.
        passes=passes_of([*train.caches, *validation.caches], len(curve) * (len(train) + len(validation))),
    )
    return TrainedHead(Head(card, network.cpu().eval()), curve)


class _Reader:
    """Reads what a head needs of a batch: its blocks' tokens, or the embedding."""

    def __init__(self, head: HeadSpec, features: FeatureIdentity, device: str) -> None:
        self._blocks = None if head.blocks == EMBEDDING else resolve_blocks(head.blocks, features.block_count)
        self._device = device

    def inputs(self, features: FeatureSet, indices: NDArray[np.int64], draw: int) -> torch.Tensor:
        """Return (B, K', D) tokens or (B, E) embeddings, float32, on the device."""
        if self._blocks is None:
            return features.embedding(indices, draw).to(self._device)  # (B, E)
        return features.tokens(indices, self._blocks, draw).to(self._device)  # (B, K', D)

    def labels(self, features: FeatureSet, indices: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(features.labels[indices]).to(self._device)  # (B,)


def _train_epoch(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    settings: TrainingSpec,
    reader: _Reader,
    train: FeatureSet,
    seed: int,
    epoch: int,
) -> dict[str, float]:
    """Run one epoch; return its losses per image and its learning rate."""
    network.train()
    bce_total = contrastive_total = 0.0
    steps = 0
    order = np.random.default_rng([seed, epoch]).permutation(len(train))  # (N,)
    for indices in _batches(order, settings.batch_size):
        labels = reader.labels(train, indices)  # (B,)
        output = network(reader.inputs(train, indices, draw=epoch - 1))
        bce = bce_sum(output.logit, labels)
        contrastive = torch.zeros((), device=bce.device)
        if settings.xi > 0:
            contrastive = supervised_contrastive_loss(output.z, labels, settings.temperature)
        optimiser.zero_grad()
        (bce + settings.xi * contrastive).backward()  # type: ignore[no-untyped-call]  # torch's stub
        optimiser.step()
        bce_total += bce.item()
        contrastive_total += contrastive.item()
        steps += 1
    bce_mean, contrastive_mean = bce_total / len(train), contrastive_total / steps
    return {
        "learning_rate": optimiser.param_groups[0]["lr"],
        "train_bce": bce_mean,
        "train_contrastive": contrastive_mean,
        "train_loss": (bce_total + settings.xi * contrastive_total) / len(train),
    }


@torch.no_grad()
def _validate(
    network: nn.Module, reader: _Reader, validation: FeatureSet
) -> tuple[dict[str, float | None], NDArray[np.float32]]:
    """Measure a head on validation data: binary cross-entropy per image, the metrics, and the logits, shape (N,)."""
    network.eval()
    logits = torch.cat(
        [
            network(reader.inputs(validation, indices, draw=0)).logit.cpu()
            for indices in _batches(np.arange(len(validation)), _SCORING_BATCH)
        ]
    ).numpy()  # (N,)
    measured = validation_metrics(validation.labels, logits)
    return {f"validation_{name}": value for name, value in measured.items()}, logits


def _set_learning_rate(optimiser: torch.optim.Optimizer, settings: TrainingSpec, epoch: int) -> None:
    """Divide the first learning rate by ten for each drop that has been reached."""
    drops = sum(epoch >= drop for drop in settings.learning_rate_drops)
    for group in optimiser.param_groups:
        group["lr"] = settings.learning_rate / _DROP_FACTOR**drops


def _batches(order: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _check_data(train: FeatureSet, validation: FeatureSet) -> None:
    if difference := train.identity.difference(validation.identity):
        raise TrainingError(f"the training features are of {difference}, which the validation features are of")
    for role, features in (("training", train), ("validation", validation)):
        counts = np.bincount(features.labels, minlength=2)
        if not counts.all():
            names = " and ".join(name for name, count in zip(LABEL_NAMES, counts, strict=True) if not count)
            raise TrainingError(
                f"the {role} data hold no readable {names} images ({counts[REAL]} real, {counts[FAKE]} fake); check "
                f"its manifests, subsets and splits, and whether its share is too small for so few images"
            )
    shared = np.intersect1d(train.content(), validation.content())
    if shared.size:
        raise TrainingError(
            f"{shared.size} images stand in both training and validation data, by content; selecting on them would "
            f"flatter: take them out of one of the two"
        )


def _refuse_other_heads(output: Path, expected: set[Path]) -> None:
    others = sorted(set(output.rglob(f"*{SUFFIX}")) - expected) if output.is_dir() else []
    if others:
        raise TrainingError(
            f"{output} holds heads of other methods or seeds, e.g. {others[0].relative_to(output)}; delete them or "
            f"choose another folder"
        )
