"""Ablations: one method trained on many subsets of its blocks, all chosen and compared on validation data alone.

What is trained is written as an ordinary experiment: a folder of heads, scored like any other, with its specification
in `EXPERIMENT` for `rine-cache evaluate`. `SUBSETS` says which head stands for which subset of which family, and
`ROUNDS` what each round of a forward selection had to choose from.
"""

from __future__ import annotations

import json
import logging
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl
import pyarrow.parquet as pq

from rine_cache.errors import TrainingError
from rine_cache.files import written_whole
from rine_cache.heads.head import SUFFIX, read_card
from rine_cache.specs.blocks import GREEDY, expand_family, family_of, greedy_rounds, name_subset, resolve_blocks
from rine_cache.specs.training import LogisticHeadSpec, RineHeadSpec
from rine_cache.train import CURVES, train_experiment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from rine_cache.features import FeatureSet
    from rine_cache.specs.blocks import BlocksExpression, Subset
    from rine_cache.specs.training import ExperimentSpec

LOG = logging.getLogger(__name__)

EXPERIMENT = "experiment.json"
SUBSETS = "subsets.parquet"
ROUNDS = "greedy.parquet"

_SUBSETS_SCHEMA: dict[str, Any] = {
    "family": pl.String,  # or the expression of a single subset
    "block": pl.Int64,  # the one that is alone, left out, or was added last; null for a single subset
    "method": pl.String,
    "blocks": pl.List(pl.Int64),
    "validation_loss": pl.Float64,  # mean over seeds
}
_ROUNDS_SCHEMA = pl.Schema(
    {"round": pl.Int64, "block": pl.Int64, "method": pl.String, "validation_loss": pl.Float64, "chosen": pl.Boolean}
)


class Member(NamedTuple):
    """A subset in its family, and the block that sets it apart there, if one does."""

    family: str
    block: int | None
    blocks: Subset


class Round(NamedTuple):
    """A round of forward selection: the loss of adding each block that was left, and the block it chose."""

    chosen: int
    losses: dict[int, float]


def forward_selection(
    whole: Subset, rounds: int, losses_of: Callable[[Sequence[Subset]], Mapping[Subset, float]]
) -> list[Round]:
    """Choose blocks one by one: in each round the one with which the loss is lowest, the lower block of equals.

    Parameters
    ----------
    whole
        The blocks to choose from.
    rounds
        How many to choose.
    losses_of
        Gives the loss of each subset asked for. It is called once a round, with all the round's candidates.
    """
    path: list[Round] = []
    chosen: set[int] = set()
    for _ in range(rounds):
        candidates = {block: tuple(sorted({*chosen, block})) for block in whole if block not in chosen}
        found = losses_of(list(candidates.values()))
        losses = {block: found[subset] for block, subset in candidates.items()}
        path.append(Round(min(losses, key=lambda block: (losses[block], block)), losses))
        chosen.add(path[-1].chosen)
    return path


def train_ablation(
    experiment: ExperimentSpec,
    method: str,
    subsets: Sequence[BlocksExpression],
    train: FeatureSet,
    validation: FeatureSet,
    output: Path,
    device: str,
) -> None:
    """Train a method of an experiment on every subset, with every seed; test data are not asked.

    What is known beforehand is trained in one go, and so is each round of a forward selection. Heads of an earlier run
    of an ablation in `output` give way once all is done.

    Parameters
    ----------
    experiment, method
        What is ablated. The blocks that the method reads are those that families are made of.
    subsets
        Families of subsets, and single ones; see `rine_cache.specs.blocks`.
    train, validation
        What heads are trained on, and what epochs, and blocks by a forward selection, are chosen on.
    output
        Folder of ``<method>-<subset>/seed<N>.safetensors``, curves and the files named above.
    device
        Torch device to train on.

    Raises
    ------
    ConfigError
        If a subset does not fit the encoder or the method's blocks.
    TrainingError
        If `output` holds heads that are no ablation's, and as `train_experiment` does.
    """
    _refuse_other_heads(output)
    block_count = train.identity.block_count
    head = experiment.methods[method].head
    assert isinstance(head, RineHeadSpec | LogisticHeadSpec), "the configuration is checked for it"
    whole = resolve_blocks(head.blocks, block_count)
    fixed = [member for expression in subsets for member in _members(expression, whole, block_count)]
    greedy = [expression for expression in subsets if family_of(expression) == GREEDY]
    rounds = max((greedy_rounds(expression, whole) for expression in greedy), default=0)

    scratch = output.with_name(f".{output.name}.training")
    shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
    try:
        trainer = _Trainer(method, experiment, train, validation, scratch, device)
        trainer.losses_of([member.blocks for member in fixed])
        path = forward_selection(whole, rounds, trainer.losses_of)
        members = [*fixed, *_path_members(path)]
        shown = [family_of(expression) or _spelt(expression) for expression in subsets]
        members.sort(key=lambda member: shown.index(member.family))
        trainer.write(members, path, scratch / "done")
        shutil.rmtree(output, ignore_errors=True)
        (scratch / "done").rename(output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for number, chosen in enumerate(path, 1):
        LOG.info("round %d adds block %d: validation loss %.4f", number, chosen.chosen, chosen.losses[chosen.chosen])


def _members(expression: BlocksExpression, whole: Subset, block_count: int) -> list[Member]:
    """List the subsets that an expression names, but for those that training finds."""
    family = family_of(expression)
    if family == GREEDY:
        return []
    if not family:
        return [Member(_spelt(expression), None, resolve_blocks(expression, block_count))]
    subsets = expand_family(family, whole)
    block_of = {"suffixes": list(reversed(whole))}.get(family, whole)
    return [Member(family, block, subset) for block, subset in zip(block_of, subsets, strict=True)]


def _spelt(expression: BlocksExpression) -> str:
    return ",".join(map(str, expression)) if isinstance(expression, tuple) else str(expression).strip()


def _path_members(path: Sequence[Round]) -> list[Member]:
    chosen = [step.chosen for step in path]
    return [Member(GREEDY, block, tuple(sorted(chosen[: count + 1]))) for count, block in enumerate(chosen)]


class _Trainer:
    """Trains a method on subsets of blocks, each once, and remembers where its heads are."""

    def __init__(
        self,
        method: str,
        experiment: ExperimentSpec,
        train: FeatureSet,
        validation: FeatureSet,
        scratch: Path,
        device: str,
    ) -> None:
        self._method, self._experiment = method, experiment
        self._train, self._validation, self._device = train, validation, device
        self._scratch = scratch
        self._losses: dict[Subset, float] = {}
        self._folders: dict[Subset, Path] = {}

    def losses_of(self, subsets: Sequence[Subset]) -> Mapping[Subset, float]:
        """Train what is new of the subsets in one go; return the validation losses, means over the seeds."""
        new = [subset for subset in dict.fromkeys(subsets) if subset not in self._losses]
        if new:
            folder = self._scratch / f"{len(self._losses):05d}"
            train_experiment(self._experiment_of(new), self._train, self._validation, folder, self._device)
            for subset in new:
                self._folders[subset] = folder / self._name(subset)
                self._losses[subset] = _validation_loss(self._folders[subset])
        return self._losses

    def write(self, members: Sequence[Member], path: Sequence[Round], folder: Path) -> None:
        """Gather the members' heads, and what is known of them, in a folder; the others stay in the curves only."""
        subsets = list(dict.fromkeys(member.blocks for member in members))
        folder.mkdir(parents=True)
        curves = [pl.read_parquet(source) for source in sorted(self._scratch.glob(f"*/{CURVES}"))]
        for subset in subsets:
            self._folders[subset].rename(folder / self._name(subset))
        _write_table(pl.concat(curves, how="diagonal_relaxed"), folder / CURVES)
        rows = [
            (member.family, member.block, self._name(member.blocks), member.blocks, self._losses[member.blocks])
            for member in members
        ]
        _write_table(pl.DataFrame(rows, _SUBSETS_SCHEMA, orient="row"), folder / SUBSETS)
        if path:
            _write_table(pl.DataFrame(self._round_rows(path), _ROUNDS_SCHEMA, orient="row"), folder / ROUNDS)
        with written_whole(folder / EXPERIMENT) as temporary:
            described = self._experiment_of(subsets).model_dump(mode="json")
            temporary.write_text(json.dumps(described, indent=2), encoding="utf-8")

    def _round_rows(self, path: Sequence[Round]) -> list[tuple[int, int, str, float, bool]]:
        rows, chosen = [], set[int]()
        for number, step in enumerate(path, 1):
            for block, loss in step.losses.items():
                method = self._name(tuple(sorted({*chosen, block})))
                rows.append((number, block, method, loss, block == step.chosen))
            chosen.add(step.chosen)
        return rows

    def _name(self, subset: Subset) -> str:
        return f"{self._method}-{name_subset(subset, self._train.identity.block_count)}"

    def _experiment_of(self, subsets: Iterable[Subset]) -> ExperimentSpec:
        method = self._experiment.methods[self._method]
        methods = {
            self._name(subset): method.model_copy(update={"head": method.head.model_copy(update={"blocks": subset})})
            for subset in subsets
        }
        return self._experiment.model_copy(update={"methods": methods, "choices": {}})


def _validation_loss(folder: Path) -> float:
    """Average the validation loss of a method's heads over its seeds."""
    losses = [read_card(path).validation["loss"] for path in sorted(folder.glob(f"*{SUFFIX}"))]
    known = [loss for loss in losses if loss is not None]
    assert len(known) == len(losses) > 0, "a trained head has a validation loss"
    return sum(known) / len(known)


def _write_table(table: pl.DataFrame, path: Path) -> None:
    with written_whole(path) as temporary:
        pq.write_table(table.to_arrow(), temporary)  # what the disk refuses is an OSError


def _refuse_other_heads(output: Path) -> None:
    if output.exists() and not (output / SUBSETS).is_file() and any(output.rglob(f"*{SUFFIX}")):
        raise TrainingError(f"{output} holds heads that are no ablation's; delete them or choose another folder")
