from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pytest

from rine_cache.leaderboard import write_leaderboard
from rine_cache.published import COLUMNS
from rine_cache.published_differences import (
    AGREES,
    DISAGREES,
    NO_INTERVAL,
    NOT_JUDGED,
    SCHEMA,
    altered_published,
    beside_published,
    render_differences,
)
from tests.boards import BENCHMARK, board, measured, published

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Answer


def pairs_of(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    found = beside_published(board(*rows), [BENCHMARK])
    assert found.schema == SCHEMA
    return found.to_dicts()


def write_csv(path: Path, *rows: dict[str, Any]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_method_is_held_against_the_id_that_it_was_published_as() -> None:
    official = measured(method="RINE-official", published_as="RINE", value=79.0)
    pairs = pairs_of(measured(), official, published(value=80.5))
    assert {row["method"]: round(row["difference"], 2) for row in pairs} == {"RINE": -0.5, "RINE-official": -1.5}
    (remarks,) = [row["remarks"] for row in pairs if row["method"] == "RINE-official"]
    assert "published as RINE" in remarks
    assert not pairs_of(official, published(method="RINE-official")), "its own id is not asked any more"


@pytest.mark.parametrize(
    ("value", "verdict", "beyond"),
    [
        (80.5, AGREES, 0.0),
        (79.0, AGREES, 0.0),
        (81.0, AGREES, 0.0),
        (81.25, DISAGREES, 0.25),
        (70.0, DISAGREES, 9.0),
    ],
)
def test_a_published_value_outside_our_interval_disagrees(value: float, verdict: str, beyond: float) -> None:
    (pair,) = pairs_of(measured(), published(value=value))
    assert (pair["verdict"], pair["beyond"]) == (verdict, pytest.approx(beyond))
    assert pair["difference"] == pytest.approx(80.0 - value)
    assert (pair["measured"], pair["published"], pair["ci_low"], pair["ci_high"]) == (80.0, value, 79.0, 81.0)


@pytest.mark.parametrize(
    "other",
    [{"method": "UnivFD"}, {"protocol": "bench-3"}, {"training_set": "sd15"}, {"test_set": "adm"}, {"metric": "ap"}],
)
def test_only_the_same_method_protocol_training_set_test_set_and_metric_are_held_against(other: dict[str, str]) -> None:
    assert pairs_of(measured(), published(**other)) == []


def test_two_sources_of_one_number_stand_each_on_its_own() -> None:
    first, second = pairs_of(measured(), published(value=85.0, source="a"), published(value=80.1, source="b"))
    assert [(pair["source"], pair["verdict"]) for pair in (first, second)] == [("a", DISAGREES), ("b", AGREES)]


def test_a_measured_value_without_an_interval_is_not_called_wrong() -> None:
    (pair,) = pairs_of(measured(ci_low=None, ci_high=None), published(value=1.0))
    assert (pair["verdict"], pair["beyond"], pair["difference"]) == (NO_INTERVAL, None, 79.0)


def test_what_was_not_measured_has_no_pair() -> None:
    assert pairs_of(measured(value=None, ci_low=None, ci_high=None), published()) == []


@pytest.mark.parametrize(
    ("changes", "remark"),
    [
        ({"training_set": None}, "the source does not state its training set, ours is sd14"),
        ({"oracle": True}, "the published number was fitted on test data"),
    ],
)
def test_what_cannot_be_compared_is_shown_and_not_judged(changes: dict[str, Any], remark: str) -> None:
    (pair,) = pairs_of(measured(), published(value=1.0, **changes))
    assert pair["verdict"] == NOT_JUDGED
    assert remark in pair["remarks"]


@pytest.mark.parametrize(
    ("ours", "theirs", "remark"),
    [
        (
            {"training_set": "sd15"},
            {"training_set": "sd15"},
            "trained on sd15, where the protocol asks for sd14",
        ),
        ({}, {"note": "no centre crop"}, "the source: no centre crop; ours: through center224"),
        ({"view": "jpeg90"}, {}, "tested through jpeg90, where the protocol says center224"),
        ({"n_quarantined": 2}, {}, "2 of our images could not be read"),
        ({"n_leaked": 5}, {}, "5 of our test images stand in the training set"),
        ({"weights": "random"}, {}, "random weights: plumbing only"),
        ({}, {}, ""),
    ],
)
def test_a_protocol_that_differs_is_noted(ours: dict[str, Any], theirs: dict[str, Any], remark: str) -> None:
    (pair,) = pairs_of(measured(**ours), published(**theirs))
    assert pair["remarks"] == remark


def test_a_cap_on_the_images_is_noted() -> None:
    capped = BENCHMARK.model_dump()
    capped["protocols"]["bench-2"]["cap"] = {"per_class": 1000}
    (pair,) = beside_published(board(measured(), published()), [type(BENCHMARK).model_validate(capped)]).to_dicts()
    assert pair["remarks"] == "tested on at most 1,000 images a class, chosen by name"


def test_the_page_counts_every_verdict_and_lists_what_disagrees() -> None:
    rows = [
        measured(),
        *(published(value=value, source=f"paper {value}") for value in (80.2, 80.4, 90.0, 70.5)),
        measured(metric="ap", ci_low=None, ci_high=None),
        published(metric="ap"),
    ]
    found = beside_published(board(*rows), [BENCHMARK])
    page = render_differences(found, altered_published(board(), []))
    assert (
        "5 published values stand beside a measured one. Of 4 whose measured value has an interval, 2 lie "
        "within it and 2 do not. 1 measured values have no interval." in page
    )
    assert "80.00 [79.00, 81.00]" in page
    lines = [line for line in page.splitlines() if line.startswith("| bench ")]
    assert [line.split("|")[8].strip() for line in lines] == ["90.00", "70.50"]  # the farthest outside first
    assert "paper 90.0 (primary)" in page
    assert "paper 80.2" not in page
    everything = render_differences(found, altered_published(board(), []), everything=True)
    assert all(f"paper {value}" in everything for value in (80.2, 80.4, 90.0, 70.5))


@pytest.fixture
def diff(rine_cache: Callable[..., Answer], tmp_path: Path) -> Callable[..., str]:
    """Run `leaderboard diff` on one measured value and one published in a file, altered in the file afterwards."""

    def run(value: float, *options: str, in_file: float | None = None) -> str:
        numbers = write_csv(tmp_path / "numbers.csv", published(value=value if in_file is None else in_file))
        benchmark = tmp_path / "bench.yaml"
        benchmark.write_text(json.dumps(BENCHMARK.model_dump(mode="json")))
        config = {
            "encoders": {},
            "training_sets": {},
            "experiments": {},
            "benchmarks": [str(benchmark)],
            "published": [str(numbers)],
        }
        (tmp_path / "config.yaml").write_text(json.dumps(config))
        write_leaderboard(board(measured(), published(value=value)), tmp_path / "l.parquet")
        given = ("--file", tmp_path / "l.parquet", "--config", tmp_path / "config.yaml")
        answer = rine_cache("leaderboard", "diff", *given, *options)
        assert answer.status == 0, answer.err
        return answer.out

    return run


def test_a_published_value_that_was_altered_is_seen(diff: Callable[..., str]) -> None:
    assert "1 lie within it and 0 do not" in diff(80.5)
    assert "changed since" not in diff(80.5)
    altered = diff(88.5)  # and the leaderboard built again
    assert "0 lie within it and 1 do not" in altered
    assert "88.50" in altered
    stale = diff(80.5, in_file=88.5)  # and the leaderboard not built again
    assert "## Published numbers that changed since the leaderboard was built" in stale
    assert [cell.strip() for cell in stale.splitlines()[-1].split("|")[-3:-1]] == ["80.50", "88.50"]


def test_pairs_as_csv_and_json_hold_every_verdict(diff: Callable[..., str]) -> None:
    (line,) = csv.DictReader(diff(80.5, "--format", "csv").splitlines())
    assert (line["verdict"], line["published"]) == ("agrees", "80.5")
    (row,) = json.loads(diff(88.5, "--format", "json"))
    assert (row["verdict"], row["beyond"]) == ("disagrees", 7.5)


def test_a_row_that_was_added_or_taken_away_is_seen(tmp_path: Path) -> None:
    numbers = write_csv(tmp_path / "numbers.csv", published(), published(method="new"))
    found = altered_published(board(measured(), published(), published(method="old")), [numbers]).to_dicts()
    assert {(row["method"], row["in_leaderboard"], row["in_file"]) for row in found} == {
        ("old", 80.5, None),
        ("new", None, 80.5),
    }
