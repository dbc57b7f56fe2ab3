from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pytest

from rine_cache.errors import ResultsError
from rine_cache.leaderboard import write_leaderboard
from rine_cache.leaderboard_changes import (
    CHANGED,
    ONLY_A,
    ONLY_B,
    SAME,
    SCHEMA,
    compare_boards,
    has_changed,
    read_board,
    render_changes,
)
from tests.boards import board, measured, published
from tests.conftest import refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import polars as pl

    from tests.conftest import Answer


@pytest.fixture
def compare(tmp_path: Path) -> Callable[..., pl.DataFrame]:
    def run(a: list[dict[str, Any]], b: list[dict[str, Any]], tolerance: float = 0.0) -> pl.DataFrame:
        boards = []
        for name, rows in (("a", a), ("b", b)):
            write_leaderboard(board(*rows), tmp_path / f"{name}.parquet")
            boards.append(read_board(tmp_path / f"{name}.parquet"))
        changes = compare_boards(boards[0], boards[1], tolerance)
        assert changes.schema == SCHEMA
        return changes

    return run


def test_equal_leaderboards_have_no_change(compare: Callable[..., pl.DataFrame]) -> None:
    rows = [
        measured(),
        measured(training_set=None, method="x", note="n"),
        published(),
        published(),
        published(note="n"),
    ]
    changes = compare(rows, rows[::-1])
    assert changes["status"].to_list() == [SAME] * 5
    assert set(changes["reasons"]) == {""}
    assert not has_changed(changes)


@pytest.mark.parametrize(
    ("before", "after", "beyond"),
    [
        ({}, {"value": 80.9, "ci_low": 79.9, "ci_high": 81.9}, False),
        ({}, {"value": 81.5, "ci_low": 80.5, "ci_high": 82.5}, True),
        ({}, {"value": 78.9, "ci_low": None, "ci_high": None}, True),
        ({"ci_low": None, "ci_high": None}, {"value": 80.9, "ci_low": 79.9, "ci_high": 81.9}, False),
        ({"ci_low": None, "ci_high": None}, {"value": 81.1, "ci_low": 80.5, "ci_high": 82.0}, True),
        ({"ci_low": None, "ci_high": None}, {"value": 81.1, "ci_low": None, "ci_high": None}, None),
    ],
)
def test_a_changed_value_is_held_against_the_interval(
    compare: Callable[..., pl.DataFrame], before: dict[str, Any], after: dict[str, Any], beyond: bool | None
) -> None:
    (row,) = compare([measured(**before)], [measured(**after)]).to_dicts()
    assert (row["status"], row["beyond_interval"]) == (CHANGED, beyond)
    assert row["difference"] == pytest.approx(after["value"] - 80.0)


def test_what_else_differs_is_named(compare: Callable[..., pl.DataFrame]) -> None:
    other = {"value": 82.0, "code_version": "0.2.0", "head_fingerprint": "bbbb", "n_real": 1000, "coverage": "1/2"}
    (row,) = compare([measured()], [measured(**other)]).to_dicts()
    assert row["reasons"] == "code 0.1.0 -> 0.2.0; heads aaaa -> bbbb; coverage 2/2 -> 1/2; n_real 400 -> 1,000"
    others = {"data_fingerprint": "d2", "encoder_fingerprint": "e2", "training_fingerprint": "t2"}
    (row,) = compare([measured()], [measured(value=82.0, **others)]).to_dicts()
    assert row["reasons"] == "test images dddd -> d2; encoding eeee -> e2; training data tttt -> t2"
    (row,) = compare([measured()], [measured(value=82.0)]).to_dicts()
    assert row["reasons"] == "nothing that the rows state"


def test_rows_of_one_leaderboard_only_are_named(compare: Callable[..., pl.DataFrame]) -> None:
    changes = compare([measured(), measured(method="old")], [measured(), measured(method="new")])
    assert dict(changes.select("method", "status").iter_rows()) == {"RINE": SAME, "old": ONLY_A, "new": ONLY_B}
    page = render_changes(changes, ("before", "after"))
    assert (
        "1 numbers are the same, 0 changed, 0 of them beyond the 95 % interval. 1 are only in A, 1 only in B." in page
    )


def test_what_was_not_measured_is_no_number(compare: Callable[..., pl.DataFrame]) -> None:
    none = measured(value=None, ci_low=None, ci_high=None)
    assert compare([none], [none]).is_empty()
    assert compare([none], []).is_empty()
    (row,) = compare([measured()], [none]).to_dicts()
    assert (row["status"], row["value_b"], row["difference"]) == (CHANGED, None, None)
    assert "null" in render_changes(compare([measured()], [none]), ("a", "b"))


def test_published_rows_are_told_apart_by_their_source(compare: Callable[..., pl.DataFrame]) -> None:
    before = [published(source="one"), published(source="two", value=70.0)]
    changes = compare(before, [published(source="two", value=71.0), published(source="one")])
    assert dict(changes.select("published_source", "status").iter_rows()) == {"one": SAME, "two": CHANGED}


def test_a_tolerance_takes_small_changes_for_none(compare: Callable[..., pl.DataFrame]) -> None:
    for tolerance, status in ((0.0, CHANGED), (0.04, CHANGED), (0.06, SAME)):
        assert compare([measured()], [measured(value=80.05)], tolerance)["status"].to_list() == [status]
    assert compare([measured()], [measured(value=80.0 + 1e-12)])["status"].to_list() == [SAME]


def test_the_page_parts_changes_by_the_interval_largest_first(compare: Callable[..., pl.DataFrame]) -> None:
    values = {"a": 80.5, "b": 83.0, "c": 75.0, "d": 80.0}
    changes = compare(
        [measured(method=name) for name in values],
        [measured(method=name, value=value) for name, value in values.items()],
    )
    page = render_changes(changes, ("before.parquet", "after.parquet"))
    assert "A: before.parquet\nB: after.parquet\n" in page
    assert "1 numbers are the same, 3 changed, 2 of them beyond the 95 % interval" in page
    beyond, within = page.split("## Changed within the 95 % interval")
    assert beyond.index("-5.00") < beyond.index("+3.00")
    assert "80.00 [79.00, 81.00]" in within
    assert "+0.50" in within


def test_what_an_earlier_version_did_not_state_is_no_reason(tmp_path: Path) -> None:
    board(measured()).drop("head_fingerprint", "seed_count").write_parquet(tmp_path / "old.parquet")
    new = board(measured(value=82.0, head_fingerprint="bbbb", code_version="0.2.0"))
    for a, b in ((read_board(tmp_path / "old.parquet"), new), (new, read_board(tmp_path / "old.parquet"))):
        (row,) = compare_boards(a, b).to_dicts()
        assert row["status"] == CHANGED
        assert row["reasons"] in ("code 0.1.0 -> 0.2.0", "code 0.2.0 -> 0.1.0")


def test_a_leaderboard_of_an_earlier_version_is_told(tmp_path: Path) -> None:
    board(measured()).drop("ci_low", "note", "seed_count").write_parquet(tmp_path / "old.parquet")
    with pytest.raises(ResultsError, match="earlier version of rine-cache: it lacks the column note, ci_low"):
        read_board(tmp_path / "old.parquet")


def test_columns_that_are_not_compared_may_be_missing(tmp_path: Path) -> None:
    board(measured()).drop("std", "n_leaked").write_parquet(tmp_path / "old.parquet")
    assert read_board(tmp_path / "old.parquet").height == 1


def test_what_is_no_leaderboard_is_told(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("value\n1\n")
    with pytest.raises(ResultsError, match="is not a leaderboard"):
        read_board(tmp_path / "l.csv")
    board(measured()).select("method").write_parquet(tmp_path / "other.parquet")
    with pytest.raises(ResultsError, match=r"other\.parquet is not a leaderboard: it lacks the column kind"):
        read_board(tmp_path / "other.parquet")


def test_the_command_compares_and_can_fail_where_something_changed(
    rine_cache: Callable[..., Answer], tmp_path: Path
) -> None:
    for name, value in (("a", 80.0), ("b", 85.0)):
        write_leaderboard(board(measured(value=value)), tmp_path / f"{name}.parquet")
    a, b = tmp_path / "a.parquet", tmp_path / "b.parquet"
    assert "+5.00" in rine_cache("leaderboard", "compare", a, b).out
    assert rine_cache("leaderboard", "compare", a, b).status == 0
    assert rine_cache("leaderboard", "compare", a, b, "--fail-on-change").status == 1
    assert rine_cache("leaderboard", "compare", a, a, "--fail-on-change").status == 0
    assert rine_cache("leaderboard", "compare", a, b, "--fail-on-change", "--tolerance", "5").status == 0
    (row,) = json.loads(rine_cache("leaderboard", "compare", a, b, "--format", "json").out)
    assert (row["value_a"], row["value_b"], row["beyond_interval"]) == (80.0, 85.0, True)
    (line,) = csv.DictReader(rine_cache("leaderboard", "compare", a, b, "--format", "csv").out.splitlines())
    assert line["status"] == "changed"
    message = refused(rine_cache("leaderboard", "compare", a, b, "--benchmark", "bnch"))
    assert "benchmark 'bnch' is in neither leaderboard; did you mean 'bench'?" in message
