"""Ablations: one method trained on many subsets of its blocks, all chosen and compared on validation data alone.

What is trained is written as an ordinary experiment: a folder of heads, scored like any other, with its specification
in `EXPERIMENT` for `rine-cache evaluate`. `SUBSETS` says which head stands for which subset of which family, `ROUNDS`
what each round of a forward selection had to choose from, and `TRIED` keeps the cards of those that it did not choose.
"""

from __future__ import annotations

import contextlib
import json
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from rine_cache.files import written_whole
from rine_cache.finished_heads import draft_card
from rine_cache.heads.head import HeadCard
from rine_cache.heads.index import head_path, write_index
from rine_cache.provenance import canonical_json
from rine_cache.specs.blocks import GREEDY, expand_family, family_of, greedy_rounds, name_subset, resolve_blocks
from rine_cache.specs.training import LogisticHeadSpec, RineHeadSpec
from rine_cache.train import complete_heads, write_curves

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
TRIED = "tried.json"

SUBSETS_SCHEMA: dict[str, Any] = {
    "family": pl.String,  # or the expression of a single subset
    "block": pl.Int64,  # the one that is alone, left out, or was added last; null for a single subset
    "method": pl.String,
    "blocks": pl.List(pl.Int64),
    "validation_loss": pl.Float64,  # mean over seeds
}
ROUNDS_SCHEMA = pl.Schema(
    {"round": pl.Int64, "block": pl.Int64, "method": pl.String, "validation_loss": pl.Float64, "chosen": pl.Boolean}
)

_TRIED = TypeAdapter(list[HeadCard])


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

    What is known beforehand is trained in one go, and so is each round of a forward selection. Killed at any moment,
    the same call goes on from the heads that are finished in `output`, of earlier rounds too, and ends with the same
    files. Heads of an earlier run that `subsets` no longer name stay there and do not count. Those that a forward
    selection has tried and not chosen are deleted once all is done; their cards are kept in `TRIED`, so that the same
    selection, and a longer one, trains none of them again.

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
    TrainingError, CacheMismatchError
        As `rine_cache.train.complete_heads` does.
    """
    whole, fixed, rounds = _plan(experiment, method, subsets, train.identity.block_count)
    trainer = _Trainer(method, experiment, train, validation, output, device)
    trainer.losses_of([member.blocks for member in fixed])
    path = forward_selection(whole, rounds, trainer.losses_of)
    members = [*fixed, *_path_members(path)]
    shown = [family_of(expression) or _spelt(expression) for expression in subsets]
    members.sort(key=lambda member: shown.index(member.family))
    trainer.write(members, path)
    for number, chosen in enumerate(path, 1):
        LOG.info("round %d adds block %d: validation loss %.4f", number, chosen.chosen, chosen.losses[chosen.chosen])


def count_heads(experiment: ExperimentSpec, method: str, subsets: Sequence[BlocksExpression], block_count: int) -> int:
    """Say how many heads an ablation trains at the most: what a forward selection tries may be trained already.

    Parameters
    ----------
    experiment, method, subsets
        As of `train_ablation`.
    block_count
        K, of the encoder.

    Raises
    ------
    ConfigError
        If a subset does not fit the encoder or the method's blocks.
    """
    whole, fixed, rounds = _plan(experiment, method, subsets, block_count)
    first = {(block,) for block in whole} if rounds else set()
    later = sum(len(whole) - size + 1 for size in range(2, rounds + 1))
    seeds = 1 if experiment.methods[method].is_probe else len(experiment.seeds)
    return seeds * (len(first.union(member.blocks for member in fixed)) + later)


def _plan(
    experiment: ExperimentSpec, method: str, subsets: Sequence[BlocksExpression], block_count: int
) -> tuple[Subset, list[Member], int]:
    """Return the method's blocks, the subsets that are known beforehand, and the rounds of forward selection."""
    head = experiment.methods[method].head
    assert isinstance(head, RineHeadSpec | LogisticHeadSpec), "the configuration is checked for it"
    whole = resolve_blocks(head.blocks, block_count)
    fixed = [member for expression in subsets for member in _members(expression, whole, block_count)]
    greedy = [expression for expression in subsets if family_of(expression) == GREEDY]
    return whole, fixed, max((greedy_rounds(expression, whole) for expression in greedy), default=0)


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
    """Trains a method on subsets of blocks, each once, and remembers what came of it."""

    def __init__(
        self,
        method: str,
        experiment: ExperimentSpec,
        train: FeatureSet,
        validation: FeatureSet,
        output: Path,
        device: str,
    ) -> None:
        self._method, self._experiment = method, experiment
        self._train, self._validation, self._device = train, validation, device
        self._output = output
        self._losses: dict[Subset, float] = {}
        self._cards: dict[tuple[str, int], HeadCard] = {}
        self._tried = _read_tried(output / TRIED)
        self._recalled: set[Subset] = set()

    def losses_of(self, subsets: Sequence[Subset]) -> Mapping[Subset, float]:
        """Train what is new of the subsets in one go; return the validation losses, means over the seeds."""
        new = [subset for subset in dict.fromkeys(subsets) if subset not in self._losses]
        untried = [subset for subset in new if not self._recall(subset)]
        if untried:
            self._complete(untried)
        for subset in new:
            self._losses[subset] = _mean_loss([self._cards[head] for head in self._experiment_of([subset]).heads])
        return self._losses

    def _recall(self, subset: Subset) -> bool:
        """Take a subset's cards from those of an earlier run, if they are of the heads that training would give."""
        experiment = self._experiment_of([subset])
        found = {head: self._tried[head] for head in experiment.heads if head in self._tried}
        if len(found) < len(experiment.heads) or any(
            card.origin != draft_card(experiment, *head, self._train, self._validation).origin
            for head, card in found.items()
        ):
            return False
        self._cards |= found
        self._recalled.add(subset)
        return True

    def _complete(self, subsets: Iterable[Subset]) -> None:
        """Train what is not finished of some subsets' heads."""
        experiment = self._experiment_of(subsets)
        self._cards |= complete_heads(experiment, self._train, self._validation, self._output, self._device)

    def write(self, members: Sequence[Member], path: Sequence[Round]) -> None:
        """Write down what is known of the members, and that they count; of others only the curves stay."""
        folder = self._output
        subsets = list(dict.fromkeys(member.blocks for member in members))
        if recalled := [subset for subset in subsets if subset in self._recalled]:
            self._complete(recalled)  # whose heads were deleted
        described = self._experiment_of(subsets)
        rows = [
            (member.family, member.block, self._name(member.blocks), member.blocks, self._losses[member.blocks])
            for member in members
        ]
        _write_table(pl.DataFrame(rows, SUBSETS_SCHEMA, orient="row"), folder / SUBSETS)
        if path:
            _write_table(pl.DataFrame(self._round_rows(path), ROUNDS_SCHEMA, orient="row"), folder / ROUNDS)
        else:
            (folder / ROUNDS).unlink(missing_ok=True)  # of an earlier run
        with written_whole(folder / EXPERIMENT) as temporary:
            temporary.write_text(json.dumps(described.model_dump(mode="json"), indent=2), encoding="utf-8")
        write_curves([self._cards[head] for head in sorted(self._cards)], folder)
        known = self._tried | self._cards
        with written_whole(folder / TRIED) as temporary:
            tried = [known[head].model_dump(mode="json") for head in sorted(known.keys() - set(described.heads))]
            temporary.write_text(canonical_json(tried) + "\n", encoding="utf-8")
        write_index(folder, described.heads)
        for method, seed in self._cards.keys() - set(described.heads):
            with contextlib.suppress(OSError):  # it does not count, whether or not it can be deleted
                head_path(folder, method, seed).unlink()
                head_path(folder, method, seed).parent.rmdir()

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


def _read_tried(path: Path) -> dict[tuple[str, int], HeadCard]:
    if not path.is_file():
        return {}
    try:
        return {(card.method, card.seed): card for card in _TRIED.validate_json(path.read_bytes())}
    except ValidationError:
        LOG.warning("%s is damaged, or of another version: what it names is trained again", path)
        return {}


def _mean_loss(cards: Sequence[HeadCard]) -> float:
    """Average the validation loss of a method's heads over its seeds."""
    losses = [card.validation["loss"] for card in cards]
    known = [loss for loss in losses if loss is not None]
    assert len(known) == len(losses) > 0, "a trained head has a validation loss"
    return sum(known) / len(known)


def _write_table(table: pl.DataFrame, path: Path) -> None:
    with written_whole(path) as temporary:
        pq.write_table(table.to_arrow(), temporary)  # what the disk refuses is an OSError
