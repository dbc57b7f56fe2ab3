"""Training: heads from cached features, chosen on validation data. No image and no encoder is touched.

The heads of an experiment are trained together, those of one seed over one stream of batches: see
`rine_cache.training_plan` for which at once, `rine_cache.heads.stacked` for how, `rine_cache.heads.coins` for what they
share of dropout. Probes, which are fitted and not trained, come first: they take little time, and what is wrong with
one shows at once.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import torch

from rine_cache.calibration import calibrate
from rine_cache.errors import TrainingError
from rine_cache.feature_windows import FeatureWindows
from rine_cache.files import written_whole
from rine_cache.heads.head import SUFFIX, Head, HeadCard, save_head
from rine_cache.heads.importance import block_importance
from rine_cache.heads.rine import RineHead
from rine_cache.heads.stacked import Scratch
from rine_cache.layouts.entry import FAKE, LABEL_NAMES, REAL
from rine_cache.metrics import VALIDATION_METRICS
from rine_cache.passes import passes_of
from rine_cache.probes import fit_probe
from rine_cache.progress import progress
from rine_cache.provenance import code_version, fingerprint
from rine_cache.training_batches import BatchMaker
from rine_cache.training_plan import plan_rounds
from rine_cache.training_stack import TrainingStack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from rine_cache.features import FeatureSet
    from rine_cache.specs.training import ExperimentSpec
    from rine_cache.training_plan import Round, Trainee

LOG = logging.getLogger(__name__)

CURVES = "curves.parquet"
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
HEADS_BUDGET = 4 << 30  # bytes: the paper's 48 settings on ViT-L/14 follow one stream in it
_SCORING_BATCH = 256


class TrainedHead(NamedTuple):
    """A head as it was after its chosen epoch, and one row of its curve per epoch; or why there is none."""

    trainee: Trainee
    head: Head | None
    curve: list[dict[str, Any]]
    failure: str


def train_experiment(
    experiment: ExperimentSpec,
    train: FeatureSet,
    validation: FeatureSet,
    output: Path,
    device: str,
    heads_budget: int = HEADS_BUDGET,
) -> None:
    """Fit an experiment's probes, and train its other methods with every seed.

    Writes ``<method>/seed<N>.safetensors`` below `output` as each is done, and their curves last. A head whose loss
    is not finite disturbs no other: the others are trained and written before the error is raised, without curves.

    Raises
    ------
    TrainingError
        If training and validation share images, a class is missing, `output` holds other heads, or a loss is
        not finite; names method, seed and epoch.
    CacheMismatchError
        If training and validation features are of different encoders or taps.
    """
    _check_data(train, validation)
    paths = {(method, seed): output / method / f"seed{seed}{SUFFIX}" for method, seed in experiment.heads}
    _refuse_other_heads(output, set(paths.values()))
    for method, spec in experiment.methods.items():
        if spec.is_probe:
            save_head(fit_probe(experiment, method, train, validation, device), paths[method, 0])
            LOG.info("%s: fitted", method)
    keys = [(method, seed) for method, seed in experiment.heads if not experiment.methods[method].is_probe]
    curves, failures = {}, {}
    epochs = sum(experiment.methods[method].training.epochs for method, _ in keys)
    with progress(f"train {len(keys)} heads", epochs, "epochs") as bar:
        for trained in train_heads(experiment, train, validation, device, heads_budget, after_epochs=bar.advance):
            key = trained.trainee.method, trained.trainee.seed
            if trained.head is None:
                failures[key] = trained.failure
                continue
            save_head(trained.head, paths[key])
            curves[key] = trained.curve
            LOG.info("%s seed %d: epoch %s of %d chosen", *key, trained.head.card.chosen_epoch, len(trained.curve))
    if failures:
        reasons = "; ".join(failures[key] for key in keys if key in failures)
        raise TrainingError(f"{reasons}. The {len(curves)} others of {len(keys)} heads are trained, in {output}")
    with written_whole(output / CURVES) as temporary:
        table = pl.DataFrame([row for key in keys for row in curves[key]], _CURVE)
        pq.write_table(table.to_arrow(), temporary)


def train_heads(
    experiment: ExperimentSpec,
    train: FeatureSet,
    validation: FeatureSet,
    device: str,
    heads_budget: int = HEADS_BUDGET,
    after_epochs: Callable[[int], None] = lambda _: None,
) -> Iterator[TrainedHead]:
    """Train an experiment's heads, and of each keep the epoch of lowest validation loss, the earliest of equals.

    The seed fixes initial parameters, dropout and the order of batches, and nothing else does: the same seed gives the
    same head on the same machine and library versions, whatever is trained beside it.

    Parameters
    ----------
    heads_budget
        Bytes that the heads trained at once may take; see `rine_cache.training_plan.plan_rounds`. How much features may
        take is the training's `memory_budget`.
    after_epochs
        Called with how many heads have ended an epoch.
    """
    readers: dict[tuple[tuple[int, ...], bool, int], FeatureWindows] = {}
    for together in plan_rounds(experiment, train.identity, heads_budget, on_cpu=device == "cpu"):
        scratch = Scratch()
        stacks = [TrainingStack(trainees, train.identity, device, scratch) for trainees in together.stacks]
        maker = BatchMaker({trainee.blocks for stack in stacks for trainee in stack.trainees})
        wanted = (maker.blocks, maker.with_embedding, together.memory_budget)
        if wanted not in readers:  # what a round has read is kept for the next one, if that reads the same
            readers = {wanted: _windows(train, maker, together, device)}
        validated = _windows(validation, maker, together, device)
        _train_round(together, stacks, maker, readers[wanted], validated, validation.labels, after_epochs)
        for stack in stacks:
            for head in range(len(stack.trainees)):
                yield _finished(experiment, stack, head, train, validation)


def _windows(features: FeatureSet, maker: BatchMaker, together: Round, device: str) -> FeatureWindows:
    return FeatureWindows(
        features,
        maker.blocks,
        with_embedding=maker.with_embedding,
        memory_budget=together.memory_budget,
        device=device,
    )


def _train_round(
    together: Round,
    stacks: list[TrainingStack],
    maker: BatchMaker,
    train: FeatureWindows,
    validation: FeatureWindows,
    validation_labels: NDArray[np.int64],
    after_epochs: Callable[[int], None],
) -> None:
    for epoch in range(1, max(stack.epochs for stack in stacks) + 1):
        active = [stack for stack in stacks if epoch <= stack.epochs]
        maker.begin_epoch(together.seed, epoch)
        for stack in active:
            stack.begin_epoch(epoch)
        images = 0
        for read in train.batches(together.seed, epoch, together.batch_size):
            batch = maker.for_training(read)
            images += len(read.indices)
            for stack in active:
                stack.step(batch)
        logits: list[list[torch.Tensor]] = [[] for _ in active]
        for read in validation.in_order(_SCORING_BATCH):
            batch = maker.for_scoring(read)
            for stack, found in zip(active, logits, strict=True):
                found.append(stack.logits(batch).cpu())  # (H, B)
        for stack, found in zip(active, logits, strict=True):
            stack.end_epoch(epoch, images, torch.cat(found, dim=1), validation_labels)
            after_epochs(len(stack.trainees))


def _finished(
    experiment: ExperimentSpec, stack: TrainingStack, number: int, train: FeatureSet, validation: FeatureSet
) -> TrainedHead:
    """Give a head its card, or say why there is no head."""
    trainee, curve = stack.trainees[number], stack.curves[number]
    if stack.has_diverged(number):
        last = curve[-1]
        failure = (
            f"{trainee.method} (seed {trainee.seed}) diverged in epoch {last['epoch']}: training loss "
            f"{last['train_loss']}, validation loss {last['validation_loss']}; lower its learning_rate "
            f"({trainee.training.learning_rate})"
        )
        return TrainedHead(trainee, None, curve, failure)
    chosen = min(curve, key=lambda row: row["validation_loss"])
    network = stack.best_network(number)
    alpha = network.alpha if isinstance(network, RineHead) else None
    card = HeadCard(
        method=trainee.method,
        seed=trainee.seed,
        head=trainee.head,
        features=train.identity,
        training_set=experiment.training_set,
        training=trainee.training,
        training_fingerprint=fingerprint([train.fingerprint, validation.fingerprint]),
        chosen_epoch=chosen["epoch"],
        validation={name: chosen[f"validation_{name}"] for name in ("loss", *VALIDATION_METRICS)},
        calibration=calibrate(validation.labels, stack.best_logits[number].numpy()),
        importance=block_importance(alpha[0]) if alpha is not None else None,
        code_version=code_version(),
        note=experiment.methods[trainee.method].note,
        # An epoch reads one draw of each image, for validation too.
        passes=passes_of([*train.caches, *validation.caches], len(curve) * (len(train) + len(validation))),
    )
    return TrainedHead(trainee, Head(card, network), curve, "")


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
