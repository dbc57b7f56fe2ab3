"""Subsets of blocks written wrongly: as a head's `blocks`, among an ablation's `subsets`, and on the command line."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from rine_cache.errors import ConfigError
from rine_cache.specs.base import parse
from rine_cache.specs.config import config_from
from rine_cache.specs.training import ExperimentSpec
from tests.conftest import refused
from tests.test_ablation import EXPERIMENT_SPEC, config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Answer, MadeCache

GRAMMAR = "allowed: all, last, first:N, last:N, every:N, N, N-M, or a list of block numbers from 0"
FAMILIES = "allowed: the families each, leave-one-out, prefixes, suffixes, greedy and greedy:N; or one subset: all,"
# What stands in a file of YAML, and what is said of it, whatever encoder it is for.
WRITTEN = {
    "first:0": ("'first:0' are none", "first:N counts from 1"),
    "every:0": ("'every:0' are none", "every:N counts from 1"),
    "last:00": ("'last:00' are none", "last:N counts from 1"),
    "11-0": ("'11-0' run backwards", "did you mean '0-11'?"),
    "[3, 3]": ("[3, 3] name block 3 twice", "name each once"),
    "[]": ("[] must be numbers from 0", "one at least"),
    "[-1, 2]": ("[-1, 2] must be numbers from 0",),
    "frist:6": ("'frist:6' are not understood", "did you mean 'first:6'?"),
    "FIRST:6": ("'FIRST:6' are not understood", "did you mean 'first:6'?"),
    "All": ("'All' are not understood", "did you mean 'all'?"),
    "first:6 6": ("'first:6 6' are not understood",),
    "first:-6": ("'first:-6' are not understood", "did you mean 'first'?"),
    "0\u201311": ("did you mean '0-11'?",),
    "0 - 11": ("'0 - 11' are not understood", "did you mean '0-11'?"),
    "0-11-13": ("'0-11-13' are not understood",),
    "0..11": ("'0..11' are not understood",),
    "all,last": ("'all,last' are not understood", "did you mean"),
    "0,3, 7": ("'0,3, 7' are not understood", "did you mean the list [0, 3, 7]?"),
    "'[3, 7]'": ("'[3, 7]' are not understood", "did you mean the list [3, 7]?"),
    "[3, 7": ("'[3, 7' are not understood",),
    "-1": ("'-1' are not understood",),
    "1e3": ("'1e3' are not understood",),
    "99999999999999999999": ("99999999999999999999", "four digits at most"),
    "first:99999999999999999999": ("four digits at most",),
    "0-999999999": ("'0-999999999' are not understood", "four digits at most"),
    "1.5": ("1.5 are neither text, a block number nor a list of them",),
    "3.0": ("3.0 are neither text",),
    "true": ("True are neither text",),
    "null": ("None are neither text",),
    ".nan": ("nan are neither text",),
    "2024-01-01": ("neither text",),
    "{first: 6}": ("{'first': 6} are neither text",),
    "[true, 2]": ("[True, 2] hold True", "of block numbers from 0, such as [3, 7, 11]"),
    "[1.0, 2]": ("hold 1.0",),
    "['3']": ("hold '3'",),
    "[0-3]": ("['0-3'] hold '0-3'", "words and ranges stand alone"),
    "[greedy]": ("['greedy'] hold 'greedy'", "words and ranges stand alone"),
    "[[1, 2], [3]]": ("hold [1, 2]",),
    "\u0663": ("are not understood",),  # a digit, but none of ours
    "prefixes:3": ("'prefixes:3' are not understood",),
    "embedding": ("'embedding' are not understood",),
    "''": ("'' are not understood",),
}
BEYOND = {  # an encoder of three blocks
    "first:25": "25 is not between 1 and 3, the number of the encoder's blocks",
    "every:4": "4 is not between 1 and 3",
    "0-24": "name block 3, but the encoder has blocks 0 to 2; they are counted from 0",
    "7-9": "name block 7, but",
    "3": "name block 3, but",
    "[0, 3]": "blocks [0, 3] name block 3, but",
    "greedy:4": "4 is not between 1 and 3, the blocks that the method reads",
}


def value_of(written: str) -> Any:
    """Read YAML; what is none is taken as text, as somebody may quote it."""
    try:
        return yaml.safe_load(written)
    except yaml.YAMLError:
        return written


def check(message: str, said: tuple[str, ...]) -> None:
    for part in said:
        assert part in message
    assert "pydantic" not in message
    assert "valid string" not in message, "one fault is one line, not one a type that was tried"


@pytest.mark.parametrize(("written", "said"), WRITTEN.items())
def test_a_heads_blocks_are_refused_in_one_line(written: str, said: tuple[str, ...]) -> None:
    method = {"head": {"kind": "rine", "blocks": value_of(written)}}
    with pytest.raises(ConfigError) as caught:
        parse(ExperimentSpec, {**EXPERIMENT_SPEC, "methods": {"RINE": method}}, "test")
    top, *lines = str(caught.value).splitlines()
    assert top == "test is not valid:"
    assert [line.partition(": ")[0].strip() for line in lines] == ["methods.RINE.head.blocks"]
    check(lines[0], said)
    if "not understood" in lines[0] or "neither" in lines[0]:
        assert GRAMMAR in lines[0]


@pytest.mark.parametrize("family", ["each", "leave-one-out", "prefixes", "suffixes", "greedy", "greedy:6"])
def test_a_family_is_no_heads_blocks(family: str) -> None:
    with pytest.raises(ConfigError, match=f"'{family}' is a family of subsets, and a head reads one.*`ablations`"):
        parse(ExperimentSpec, {**EXPERIMENT_SPEC, "methods": {"R": {"head": {"kind": "rine", "blocks": family}}}}, "t")


@pytest.mark.parametrize(("written", "said"), WRITTEN.items())
def test_an_ablations_subsets_are_refused_in_one_line(written: str, said: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from(config(tmp_path, subsets=["all", value_of(written)]))
    _, *lines = str(caught.value).splitlines()
    assert [line.partition(": ")[0].strip() for line in lines] == ["ablations.blocks.subsets"]
    check(lines[0], said)
    if "not understood" in lines[0]:
        assert FAMILIES in lines[0]


@pytest.mark.parametrize(
    ("subsets", "said"),
    [
        ("each,all", "name several one by one; did you mean"),
        (["greedy:0"], "'greedy:0' chooses no block"),
        (["gredy:3"], "did you mean 'greedy:3'"),
        ([["each"]], "hold 'each'"),
        (None, "None are neither text"),
        ({"each": None}, "neither text"),
    ],
)
def test_families_are_refused_where_they_are_wrong(subsets: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        config_from(config(tmp_path, subsets=subsets))


def test_the_command_line_refuses_all_of_them_and_writes_nothing(
    rine_cache: Callable[..., Answer], make_cache: Callable[..., MadeCache], tmp_path: Path
) -> None:
    train, validation = make_cache("train", per_class=2), make_cache("validation", per_class=2, seed=1)
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    pairs = ["--train", *train[:2], "--validation", *validation[:2], "--device", "cpu"]

    def said_of(subsets: str) -> str:
        command = ["ablate", "train", json.dumps(EXPERIMENT_SPEC), "--method", "RINE", "--subsets", subsets, *pairs]
        return refused(rine_cache(*command, "--out", "heads"))

    for written in [*WRITTEN, "each,all", "all last", "9" * 5000, f"[{'9' * 5000}]"]:  # all are text there
        assert said_of(written).startswith("--subsets: "), written
    assert "name block 3 twice" in said_of("[3, 3]")
    for written, said in BEYOND.items():
        assert said in said_of(written)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before


@pytest.mark.parametrize("written", ["2024-13-45", "9" * 5000], ids=["no-date", "no-number"])
def test_a_value_that_yaml_chokes_on_is_no_traceback(
    written: str, rine_cache: Callable[..., Answer], tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(f"experiments: {{a: {{methods: {{R: {{head: {{blocks: {written}}}}}}}}}}}\n")
    assert "mine.yaml is not valid YAML: " in refused(rine_cache("config", "check", tmp_path / "mine.yaml"))
