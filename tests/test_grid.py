"""Grids of settings: which methods they stand for, and what is no grid."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from pydantic import ValidationError

from rine_cache.errors import ConfigError
from rine_cache.specs.config import config_from
from rine_cache.specs.training import ExperimentSpec
from tests.test_specs import CONFIG, changed

PAPER_GRID = {"width": [128, 256, 512, 1024], "xi": [0.1, 0.2, 0.4, 0.8], "layers": [1, 2, 4]}


def experiment(**methods: Any) -> ExperimentSpec:
    described = {"encoder": "clip", "training_set": "animals", "training": {"batch_size": 64}, "methods": methods}
    return ExperimentSpec.model_validate(described)


def gridded(grid: Any, **rest: Any) -> dict[str, Any]:
    return {"head": {"kind": "rine"}, "grid": grid, **rest}


def test_the_papers_grid_is_its_48_settings_by_name() -> None:
    made = experiment(RINE=gridded(PAPER_GRID))
    wanted = {
        f"RINE-xi{xi}-q{layers}-p{width}": (xi, layers, width)
        for xi, layers, width in itertools.product(*(PAPER_GRID[axis] for axis in ("xi", "layers", "width")))
    }
    found = {
        name: (method.training.xi, method.head.layers, method.head.width)
        for name, method in made.methods.items()
        if method.head.kind == "rine"
    }
    assert found == wanted
    assert made.choices == {"RINE": tuple(wanted)}
    assert made.method_ids == [*wanted, "RINE", "RINE-oracle"]


def test_a_setting_keeps_what_the_grid_leaves_open_and_the_shared_training() -> None:
    made = experiment(
        RINE=gridded({"xi": [0.1, 0.2]}, head={"kind": "rine", "width": 8}, training={"epochs": 3}, note="tuned")
    )
    for method in made.methods.values():
        assert method.head.kind == "rine"
        assert (method.head.width, method.training.epochs, method.training.batch_size) == (8, 3, 64)
        assert method.note == "tuned"


def test_the_order_of_the_keys_does_not_change_the_names() -> None:
    turned = dict(reversed(PAPER_GRID.items()))
    assert experiment(RINE=gridded(PAPER_GRID)) == experiment(RINE=gridded(turned))


def test_what_snakemake_passes_on_means_the_same() -> None:
    made = experiment(RINE=gridded(PAPER_GRID), other={"head": {"kind": "rine"}})
    assert ExperimentSpec.model_validate(made.model_dump(mode="json")) == made


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"with": [1]}, "'with' cannot be varied; did you mean 'width'?"),
        ({"width": []}, "methods.RINE.grid.width is []; it must be a list of numbers, each once"),
        ({"width": 128}, "methods.RINE.grid.width is 128; it must be a list of numbers"),
        ({"width": [128, 128]}, "each once"),
        ({"width": ["wide"]}, "it must be a list of numbers"),
        ({"xi": [True]}, "it must be a list of numbers"),
        ({}, "it must map settings to lists of values"),
        ([0.1, 0.2], "it must map settings to lists of values"),
        ({"xi": [0.1]}, "it must name two methods or more"),
        ({"width": [128, -1]}, "RINE-p-1"),
    ],
)
def test_what_is_no_grid_is_refused(grid: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from(changed(CONFIG, "experiments.main.methods.RINE", gridded(grid)))
    assert message in str(caught.value)


def test_two_methods_of_one_name_are_refused() -> None:
    taken = {"RINE-p128": {"head": {"kind": "rine"}}, "RINE": gridded({"width": [128, 256]})}
    with pytest.raises(ValidationError, match=r"methods.RINE.grid makes 'RINE-p128', which is a method already"):
        experiment(**taken)
    with pytest.raises(ValidationError, match="'RINE-oracle' is the id of a method and of a choice, or of its oracle"):
        experiment(**{"RINE-oracle": {"head": {"kind": "rine"}}, "RINE": gridded({"width": [128, 256]})})


def test_a_choice_may_be_written_out_and_its_members_are_checked() -> None:
    methods = {name: {"head": {"kind": "rine"}} for name in ("deep", "wide")}
    described = {
        "encoder": "clip",
        "training_set": "animals",
        "methods": methods,
        "choices": {"best": ["deep", "wide"]},
    }
    assert ExperimentSpec.model_validate(described).method_ids == ["deep", "wide", "best", "best-oracle"]
    with pytest.raises(ValidationError, match=r"choices.best names 'wise'; did you mean 'wide'"):
        ExperimentSpec.model_validate({**described, "choices": {"best": ["deep", "wise"]}})


def test_a_choice_shares_no_id_with_another_experiment_of_its_training_set() -> None:
    methods = {"RINE-p": gridded({"width": [1, 2]})}
    other = {"encoder": "clip", "training_set": "animals", "methods": {"RINE-p-oracle": {"head": {"kind": "rine"}}}}
    both = changed(changed(CONFIG, "experiments.main.methods", methods), "experiments.other", other)
    with pytest.raises(ConfigError, match="has the id and training set of one in experiment 'main'"):
        config_from(both)
