from __future__ import annotations

from typing import Any

import pytest

from rine_cache.errors import ConfigError
from rine_cache.heads.head import FeatureIdentity, build_network
from rine_cache.specs.base import parse
from rine_cache.specs.training import ExperimentSpec
from rine_cache.training_plan import Round, activation_bytes, plan_rounds, state_bytes

FEATURES = FeatureIdentity(encoder={}, tap="ln_2", block_count=24, token_width=1024, embedding_width=768)
PLENTY = 1 << 40


def experiment(methods: dict[str, Any], **changes: Any) -> ExperimentSpec:
    return parse(ExperimentSpec, {"encoder": "e", "training_set": "t", "methods": methods, **changes}, "test")


def rine(xi: float = 0.2, epochs: int = 1, batch_size: int = 128, **head: Any) -> dict[str, Any]:
    training = {"xi": xi, "epochs": epochs, "batch_size": batch_size}
    return {"head": {"kind": "rine", "layers": 1, "width": 128, **head}, "training": training}


def names(rounds: list[Round]) -> list[list[list[str]]]:
    return [[[trainee.method for trainee in stack] for stack in one.stacks] for one in rounds]


def test_heads_of_one_shape_make_a_stack_whatever_else_differs() -> None:
    methods = {
        "a": rine(),
        "other-xi": rine(xi=0.8),
        "other-blocks": rine(blocks="first:24"),
        "no-contrast": rine(xi=0),
        "wider": rine(width=256),
        "deeper": rine(layers=2),
        "fewer": rine(blocks="last:3"),
        "as-few": rine(blocks=[0, 4, 9]),
        "mean": rine(tie=False),
        "longer": rine(epochs=5),
        "linear": {"head": {"kind": "linear"}, "training": {"xi": 0}},
    }
    rounds = plan_rounds(experiment(methods), FEATURES, PLENTY, on_cpu=True)
    assert names(rounds) == [
        [
            ["a", "other-xi", "other-blocks"],
            ["no-contrast"],
            ["wider"],
            ["deeper"],
            ["fewer", "as-few"],
            ["mean"],
            ["longer"],
            ["linear"],
        ]
    ]
    assert rounds[0].stacks[4][1].blocks == (0, 4, 9)


def test_a_stream_of_batches_is_of_one_seed_and_batch_size() -> None:
    spec = experiment({"a": rine(), "small": rine(batch_size=16)}, seeds=[0, 7])
    rounds = plan_rounds(spec, FEATURES, PLENTY, on_cpu=True)
    assert [(one.seed, one.batch_size) for one in rounds] == [(0, 128), (0, 16), (7, 128), (7, 16)]
    assert {trainee.seed for one in rounds[2:] for stack in one.stacks for trainee in stack} == {7}


@pytest.mark.parametrize("budget", [0, 100 << 20, 1 << 30, 4 << 30])
@pytest.mark.parametrize("on_cpu", [True, False])
def test_a_round_keeps_to_the_budget_or_is_one_head(budget: int, *, on_cpu: bool) -> None:
    grid = {
        f"q{layers}-p{width}-x{xi}": rine(xi=xi, layers=layers, width=width)
        for layers in (1, 2, 4)
        for width in (128, 1024)
        for xi in (0.1, 0.2, 0.4, 0.8)
    }
    rounds = plan_rounds(experiment(grid), FEATURES, budget, on_cpu=on_cpu)
    assert sorted(name for one in names(rounds) for stack in one for name in stack) == sorted(grid)
    for one in rounds:
        heads = [trainee for stack in one.stacks for trainee in stack]
        state = sum(state_bytes(trainee, FEATURES) for trainee in heads)
        activations = max(activation_bytes(stack[0]) * len(stack) for stack in one.stacks)
        assert len(heads) == 1 or state + activations <= budget


def test_the_papers_grid_follows_one_stream_within_the_default_budget() -> None:
    from rine_cache.train import HEADS_BUDGET

    grid = {
        f"q{layers}-p{width}-x{xi}": rine(xi=xi, layers=layers, width=width)
        for layers in (1, 2, 4)
        for width in (128, 256, 512, 1024)
        for xi in (0.1, 0.2, 0.4, 0.8)
    }
    assert len(plan_rounds(experiment(grid), FEATURES, HEADS_BUDGET, on_cpu=True)) == 1


@pytest.mark.parametrize("head", [{}, {"layers": 3, "tie": False}, {"blocks": "last:5", "width": 33}])
def test_a_heads_parameters_are_counted_right(head: dict[str, Any]) -> None:
    (one,) = plan_rounds(experiment({"a": rine(**head)}), FEATURES, PLENTY, on_cpu=True)
    trainee = one.stacks[0][0]
    parameters = sum(parameter.numel() for parameter in build_network(trainee.head, FEATURES).parameters())
    assert state_bytes(trainee, FEATURES) == 5 * 4 * parameters


def test_a_subset_that_the_encoder_has_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="block 24"):
        plan_rounds(experiment({"a": rine(blocks=[24])}), FEATURES, PLENTY, on_cpu=True)
