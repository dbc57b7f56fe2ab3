"""Training: heads from cached features, chosen on validation data. No image and no encoder is touched.

The heads of an experiment are trained together, those of one seed over one stream of batches: see
`rine_cache.training_plan` for which at once, `rine_cache.heads.stacked` for how, `rine_cache.heads.coins` for what they
share of dropout. Probes, which are fitted and not trained, come first: they take little time, and what is wrong with
one shows at once. What is finished is not trained again: see `rine_cache.finished_heads`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import torch

from rine_cache.calibration import calibrate
from rine_cache.errors import ConfigError, TrainingError
from rine_cache.feature_windows import FeatureWindows, require_budget
from rine_cache.files import written_whole
from rine_cache.finished_heads import draft_card, finished_heads
from rine_cache.heads.head import Head, HeadCard, save_head
from rine_cache.heads.importance import block_importance
from rine_cache.heads.index import head_path, write_index
from rine_cache.heads.rine import RineHead
from rine_cache.heads.stacked import Scratch
from rine_cache.layouts.entry import FAKE, LABEL_NAMES, REAL
from rine_cache.metrics import VALIDATION_METRICS
from rine_cache.passes import passes_of
from rine_cache.probes import fit_probe
from rine_cache.progress import progress
from rine_cache.specs.blocks import resolve_blocks
from rine_cache.specs.training import EMBEDDING
from rine_cache.training_batches import BatchMaker
from rine_cache.training_plan import plan_rounds
from rine_cache.training_stack import TrainingStack

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
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


class _Failure(NamedTuple):
    """A head that cannot be had, and why."""

    method: str
    seed: int
    reason: str


def train_experiment(
    experiment: ExperimentSpec,
    train: FeatureSet,
    validation: FeatureSet,
    output: Path,
    device: str,
    heads_budget: int = HEADS_BUDGET,
) -> None:
    """Complete a folder of an experiment's heads: fit and train what it lacks, then write curves and index.

    Heads that the folder holds and the experiment does not name are left there, and do not count.

    Raises
    ------
    ConfigError, TrainingError, CacheMismatchError
        As `complete_heads` does; curves and index are then those of before.
    """
    cards = complete_heads(experiment, train, validation, output, device, heads_budget)
    write_curves(cards.values(), output)
    write_index(output, cards)


def complete_heads(
    experiment: ExperimentSpec,
    train: FeatureSet,
    validation: FeatureSet,
    output: Path,
    device: str,
    heads_budget: int = HEADS_BUDGET,
) -> dict[tuple[str, int], HeadCard]:
    """Fit an experiment's probes, and train its other methods with every seed, but for what is finished.

    Writes ``<method>/seed<N>.safetensors`` below `output`, each as soon as it is done. What is finished there (see
    `rine_cache.finished_heads`) is kept as it is. A head that cannot be trained costs no other: the others are trained
    and written before the error is raised.

    Returns
    -------
    The card of each head, by method and seed, in the experiment's order.

    Raises
    ------
    ConfigError
        If a method's blocks do not fit the encoder, or its memory budget is too small: nothing is trained then.
    TrainingError
        If training and validation share images, or a class is missing: nothing is trained then. If a fit does not
        converge, or a loss is not finite; names method, seed and epoch.
    CacheMismatchError
        If training and validation features are of different encoders or taps.
    """
    _check_data(train, validation)
    _check_settings(experiment, train)
    cards = finished_heads(experiment, train, validation, output)
    if cards:
        LOG.info("%s: %d of %d heads are finished already", output, len(cards), len(experiment.heads))
    missing = [key for key in experiment.heads if key not in cards]
    failures: dict[tuple[str, int], str] = {}
    for head in _fitted_or_trained(experiment, missing, train, validation, device, heads_budget):
        if isinstance(head, Head):
            save_head(head, head_path(output, head.card.method, head.card.seed))
            cards[head.card.method, head.card.seed] = head.card
        else:
            LOG.warning("%s; going on with the others", head.reason)
            failures[head.method, head.seed] = head.reason
    if failures:
        reasons = "; ".join(failures[key] for key in missing if key in failures)
        raise TrainingError(
            f"{reasons}. The {len(cards)} others of {len(experiment.heads)} heads are finished, and kept in {output}: "
            f"mend or take out what failed, and run the same again"
        )
    return {key: cards[key] for key in experiment.heads}


def _fitted_or_trained(
    experiment: ExperimentSpec,
    missing: Sequence[tuple[str, int]],
    train: FeatureSet,
    validation: FeatureSet,
    device: str,
    heads_budget: int,
) -> Iterator[Head | _Failure]:
    """Yield each missing head as soon as it is done: probes first."""
    trained = [key for key in missing if not experiment.methods[key[0]].is_probe]
    for method, seed in missing:
        if (method, seed) not in trained:
            try:
                yield fit_probe(experiment, method, train, validation, device)
                LOG.info("%s: fitted", method)
            except TrainingError as error:
                yield _Failure(method, seed, str(error))
    if not trained:
        return
    epochs = sum(experiment.methods[method].training.epochs for method, _ in trained)
    finished = set(experiment.heads) - set(missing)
    with progress(f"train {len(trained)} heads", epochs, "epochs") as bar:
        for found in train_heads(experiment, train, validation, device, heads_budget, bar.advance, finished):
            method, seed = found.trainee.method, found.trainee.seed
            if found.head is None:
                yield _Failure(method, seed, found.failure)
                continue
            yield found.head
            LOG.info("%s seed %d: epoch %s of %d chosen", method, seed, found.head.card.chosen_epoch, len(found.curve))


def write_curves(cards: Iterable[HeadCard], output: Path) -> None:
    """Write the curves of trained heads in one table, `CURVES`.

    Raises
    ------
    OutputError
        If the disk refuses.
    """
    rows = [{"method": card.method, "seed": card.seed, **row} for card in cards for row in card.curve]
    with written_whole(output / CURVES) as temporary:
        pq.write_table(pl.DataFrame(rows, _CURVE).to_arrow(), temporary)


def train_heads(
    experiment: ExperimentSpec,
    train: FeatureSet,
    validation: FeatureSet,
    device: str,
    heads_budget: int = HEADS_BUDGET,
    after_epochs: Callable[[int], None] = lambda _: None,
    finished: Collection[tuple[str, int]] = (),
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
    finished
        Heads that are not trained, by method and seed.
    """
    readers: dict[tuple[tuple[int, ...], bool, int], FeatureWindows] = {}
    rounds = plan_rounds(experiment, train.identity, heads_budget, on_cpu=device == "cpu", finished=finished)
    for together in rounds:
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
    learnt = {
        "chosen_epoch": chosen["epoch"],
        "validation": {name: chosen[f"validation_{name}"] for name in ("loss", *VALIDATION_METRICS)},
        "calibration": calibrate(validation.labels, stack.best_logits[number].numpy()),
        "importance": block_importance(alpha[0]) if alpha is not None else None,
        # An epoch reads one draw of each image, for validation too.
        "passes": passes_of([*train.caches, *validation.caches], len(curve) * (len(train) + len(validation))),
        "curve": tuple({name: row[name] for name in row if name not in ("method", "seed")} for row in curve),
    }
    draft = draft_card(experiment, trainee.method, trainee.seed, train, validation)
    card = draft.model_copy(update=learnt)
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


def _check_settings(experiment: ExperimentSpec, train: FeatureSet) -> None:
    """Refuse block subsets that do not fit the encoder, and too small budgets, before anything is trained."""
    for method, spec in experiment.methods.items():
        if not spec.is_probe:
            require_budget(train, spec.training.memory_budget, f"method {method}: training.memory_budget")
        if spec.head.blocks != EMBEDDING:
            try:
                resolve_blocks(spec.head.blocks, train.identity.block_count)
            except ConfigError as error:
                raise ConfigError(
                    f"method {method}: {error}. Nothing was trained; heads that were finished before are kept"
                ) from None
