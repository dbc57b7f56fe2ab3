"""Training: heads from cached features, chosen on validation data. No image and no encoder is touched.

The heads of an experiment are trained together, those of one seed over one stream of batches: see
`rine_cache.training_plan` for which at once, `rine_cache.heads.stacked` for how, `rine_cache.heads.coins` for what they
share of dropout.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import torch

from rine_cache.errors import TrainingError
from rine_cache.files import written_whole
from rine_cache.heads.head import SUFFIX, Head, HeadCard, save_head
from rine_cache.heads.stacked import Scratch
from rine_cache.layouts.entry import FAKE, LABEL_NAMES, REAL
from rine_cache.passes import passes_of
from rine_cache.progress import progress
from rine_cache.provenance import code_version, fingerprint
from rine_cache.training_batches import BatchReader
from rine_cache.training_plan import plan_rounds
from rine_cache.training_stack import VALIDATION_METRICS, TrainingStack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from rine_cache.features import FeatureSet
    from rine_cache.specs.training import ExperimentSpec
    from rine_cache.training_plan import Round, Trainee

LOG = logging.getLogger(__name__)

CURVES = "curves.parquet"
MEMORY_BUDGET = 4 << 30  # bytes: the paper's 48 settings on ViT-L/14 follow one stream in it
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
    memory_budget: int = MEMORY_BUDGET,
) -> None:
    """Train every method of an experiment with every seed.

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
    keys = [(method, seed) for method in experiment.methods for seed in experiment.seeds]
    paths = {(method, seed): output / method / f"seed{seed}{SUFFIX}" for method, seed in keys}
    _refuse_other_heads(output, set(paths.values()))
    curves, failures = {}, {}
    epochs = len(experiment.seeds) * sum(method.training.epochs for method in experiment.methods.values())
    with progress(f"train {len(paths)} heads", epochs, "epochs") as bar:
        for trained in train_heads(experiment, train, validation, device, memory_budget, after_epochs=bar.advance):
            key = trained.trainee.method, trained.trainee.seed
            if trained.head is None:
                failures[key] = trained.failure
                continue
            save_head(trained.head, paths[key])
            curves[key] = trained.curve
            LOG.info("%s seed %d: epoch %s of %d chosen", *key, trained.head.card.chosen_epoch, len(trained.curve))
    if failures:
        reasons = "; ".join(failures[key] for key in keys if key in failures)
        raise TrainingError(f"{reasons}. The {len(curves)} others of {len(paths)} heads are trained, in {output}")
    with written_whole(output / CURVES) as temporary:
        table = pl.DataFrame([row for key in keys for row in curves[key]])
        pq.write_table(table.to_arrow(), temporary)


def train_heads(
    experiment: ExperimentSpec,
    train: FeatureSet,
    validation: FeatureSet,
    device: str,
    memory_budget: int = MEMORY_BUDGET,
    after_epochs: Callable[[int], None] = lambda _: None,
) -> Iterator[TrainedHead]:
    """Train an experiment's heads, and of each keep the epoch of lowest validation loss, the earliest of equals.

    The seed fixes initial parameters, dropout and the order of batches, and nothing else does: the same seed gives the
    same head on the same machine and library versions, whatever is trained beside it.

    Parameters
    ----------
    memory_budget
        Bytes that the heads trained at once may take; see `rine_cache.training_plan.plan_rounds`.
    after_epochs
        Called with how many heads have ended an epoch.
    """
    rounds = plan_rounds(experiment, train.identity, memory_budget, on_cpu=device == "cpu")
    for together in rounds:
        scratch = Scratch()
        stacks = [TrainingStack(trainees, train.identity, device, scratch) for trainees in together.stacks]
        _train_round(together, stacks, train, validation, device, after_epochs)
        for stack in stacks:
            for head in range(len(stack.trainees)):
                yield _finished(experiment, stack, head, train, validation)


def _train_round(
    together: Round,
    stacks: list[TrainingStack],
    train: FeatureSet,
    validation: FeatureSet,
    device: str,
    after_epochs: Callable[[int], None],
) -> None:
    subsets = {trainee.blocks for stack in stacks for trainee in stack.trainees}
    reader = BatchReader(subsets, device)
    for epoch in range(1, max(stack.epochs for stack in stacks) + 1):
        active = [stack for stack in stacks if epoch <= stack.epochs]
        reader.begin_epoch(together.seed, epoch)
        for stack in active:
            stack.begin_epoch(epoch)
        order = np.random.default_rng([together.seed, epoch]).permutation(len(train))  # (N,)
        for indices in _batches(order, together.batch_size):
            batch = reader.for_training(train, indices, draw=epoch - 1)
            for stack in active:
                stack.step(batch)
        logits: list[list[torch.Tensor]] = [[] for _ in active]
        for indices in _batches(np.arange(len(validation)), _SCORING_BATCH):
            batch = reader.for_scoring(validation, indices, draw=0)
            for stack, found in zip(active, logits, strict=True):
                found.append(stack.logits(batch).cpu())  # (H, B)
        for stack, found in zip(active, logits, strict=True):
            stack.end_epoch(epoch, len(train), torch.cat(found, dim=1), validation.labels)
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
        code_version=code_version(),
        note=experiment.methods[trainee.method].note,
        # An epoch reads one draw of each image, for validation too.
        passes=passes_of([*train.caches, *validation.caches], len(curve) * (len(train) + len(validation))),
    )
    return TrainedHead(trainee, Head(card, stack.best_network(number)), curve, "")


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
