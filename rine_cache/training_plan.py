"""Which heads of an experiment are trained at once.

Heads of one seed, batch size and memory budget follow one stream of batches, which these three fix. In a stream, heads
of one shape make stacks, and as many stacks follow the stream at once as the budget of heads allows; the others follow
it again.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from rine_cache.specs.blocks import resolve_blocks
from rine_cache.specs.training import LinearHeadSpec, RineHeadSpec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from rine_cache.heads.head import FeatureIdentity
    from rine_cache.specs.training import ExperimentSpec, TrainingSpec

_FLOAT_BYTES = 4
_COPIES = 5  # of a head's parameters: themselves, Adam's two moments, those of the best epoch, a gradient
# Of one layer over the blocks, in all heads of a stack. On a CPU more than its cache holds gains nothing; on a GPU a
# stack is to fill the device.
_STACK_ELEMENTS = {"cpu": 1 << 21, "gpu": 1 << 28}


class Trainee(NamedTuple):
    """A head to be trained: its place in the experiment, what it is, how it is trained."""

    method: str
    seed: int
    head: RineHeadSpec | LinearHeadSpec
    training: TrainingSpec
    blocks: tuple[int, ...]  # that it reads; none for a head on the embedding


class Round(NamedTuple):
    """Stacks of heads that follow one stream of batches at once."""

    seed: int
    batch_size: int
    memory_budget: int
    stacks: list[list[Trainee]]


def plan_rounds(
    experiment: ExperimentSpec,
    features: FeatureIdentity,
    heads_budget: int,
    *,
    on_cpu: bool,
    finished: Collection[tuple[str, int]] = (),
) -> list[Round]:
    """Decide which heads are trained at once.

    Parameters
    ----------
    experiment
        None of whose methods is imported. Its probes are left out.
    features
        What they read.
    heads_budget
        Bytes that parameters, Adam's state and activations of one round may take; a head that needs more by itself is
        trained by itself. Batches of features are not counted.
    on_cpu
        Whether they are trained on the CPU: stacks are smaller there.
    finished
        Heads that need no training, by method and seed.

    Raises
    ------
    ConfigError
        If a head's block subset does not fit the encoder.
    """
    streams = defaultdict(list)
    for seed in experiment.seeds:
        for method, spec in experiment.methods.items():
            if spec.is_probe or (method, seed) in finished:
                continue
            assert isinstance(spec.head, RineHeadSpec | LinearHeadSpec), "official heads are imported"
            blocks = () if spec.head.kind == "linear" else resolve_blocks(spec.head.blocks, features.block_count)
            trainee = Trainee(method, seed, spec.head, spec.training, blocks)
            streams[seed, spec.training.batch_size, spec.training.memory_budget].append(trainee)
    rounds = []
    for stream, trainees in streams.items():
        stacks: list[list[Trainee]] = []
        held = activations = 0
        for stack in _stacks(trainees, features, heads_budget, on_cpu=on_cpu):
            own = state_bytes(stack[0], features) * len(stack)
            needed = activation_bytes(stack[0]) * len(stack)
            if stacks and held + own + max(activations, needed) > heads_budget:
                rounds.append(Round(*stream, stacks))
                stacks, held, activations = [], 0, 0
            stacks.append(stack)
            held, activations = held + own, max(activations, needed)
        rounds.append(Round(*stream, stacks))
    return rounds


def state_bytes(trainee: Trainee, features: FeatureIdentity) -> int:
    """Return what a head holds while it is trained: parameters, Adam's state, the best epoch's copy, a gradient."""
    head = trainee.head
    if head.kind == "linear":
        assert features.embedding_width is not None
        return _FLOAT_BYTES * _COPIES * (features.embedding_width + 1)
    square = head.width * (head.width + 1)
    importance = len(trainee.blocks) * head.width if head.tie else 0
    first = head.width * (features.token_width + 1)
    parameters = importance + first + (2 * head.layers + 1) * square + head.width + 1
    return _FLOAT_BYTES * _COPIES * parameters


def activation_bytes(trainee: Trainee) -> int:
    """Return what a head's layers over the blocks hold of one batch; stacks that take turns hold it in turn."""
    head = trainee.head
    return 0 if head.kind == "linear" else _FLOAT_BYTES * head.layers * _layer_elements(trainee, head)


def _layer_elements(trainee: Trainee, head: RineHeadSpec) -> int:
    return len(trainee.blocks) * trainee.training.batch_size * head.width


def _stacks(
    trainees: Sequence[Trainee], features: FeatureIdentity, heads_budget: int, *, on_cpu: bool
) -> Iterator[list[Trainee]]:
    """Put heads of one shape together, as many as the device makes good use of and the budget allows."""
    shapes = defaultdict(list)
    for trainee in trainees:
        shapes[_shape(trainee)].append(trainee)
    for alike in shapes.values():
        first = alike[0]
        size = heads_budget // (state_bytes(first, features) + activation_bytes(first))
        if first.head.kind == "rine":
            limit = _STACK_ELEMENTS["cpu" if on_cpu else "gpu"]
            size = min(size, limit // _layer_elements(first, first.head))
        size = max(1, size)
        for start in range(0, len(alike), size):
            yield alike[start : start + size]


def _shape(trainee: Trainee) -> tuple[object, ...]:
    """Return what heads of one stack have in common."""
    head, epochs = trainee.head, trainee.training.epochs
    if head.kind == "linear":
        return head.kind, epochs
    return head.kind, epochs, head.layers, head.width, len(trainee.blocks), head.tie, trainee.training.xi > 0
