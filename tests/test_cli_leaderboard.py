from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pytest

from rine_cache.leaderboard import write_leaderboard
from rine_cache.published import COLUMNS
from tests.boards import BENCHMARK, board, measured, published
from tests.conftest import refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Answer


@pytest.fixture
def write_board(tmp_path: Path) -> Callable[..., Path]:
    def write(*rows: dict[str, Any], name: str = "l.parquet") -> Path:
        write_leaderboard(board(*rows), tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def config(tmp_path: Path) -> Path:
    benchmark = tmp_path / "bench.yaml"
    benchmark.write_text(json.dumps(BENCHMARK.model_dump(mode="json")))
    sections = {"encoders": {}, "training_sets": {}, "experiments": {}, "benchmarks": [str(benchmark)]}
    (tmp_path / "config.yaml").write_text(json.dumps(sections))
    return tmp_path / "config.yaml"


@pytest.fixture
def export(rine_cache: Callable[..., Answer], write_board: Callable[..., Path], config: Path) -> Callable[..., Answer]:
    path = write_board(
        measured(), measured(method="UnivFD", value=70.0, rank=2), published(method="<AIDE>", value=60.0, rank=3)
    )

    def run(*options: str | Path) -> Answer:
        return rine_cache("leaderboard", "export", "--file", path, "--config", config, *options)

    return run


@pytest.mark.parametrize(
    ("form", "best"),
    [("latex", "\\textbf{80.0}"), ("markdown", "**80.0**"), ("html", "<strong>80.0</strong>"), ("csv", "80.0,best")],
)
def test_a_table_is_printed_or_written_in_each_format(
    form: str, best: str, export: Callable[..., Answer], tmp_path: Path
) -> None:
    printed = export("--benchmark", "bench", "--format", form)
    assert printed.status == 0, printed.err
    assert best in printed.out
    assert export("--benchmark", "bench", "--out", tmp_path / "t", "--format", form).out == ""
    assert (tmp_path / "t").read_text(encoding="utf-8")


def test_a_figure_is_drawn_beside_the_table(export: Callable[..., Answer], tmp_path: Path) -> None:
    assert export("--benchmark", "bench", "--figure", tmp_path / "f.svg").status == 0
    assert "UnivFD" in (tmp_path / "f.svg").read_text(encoding="utf-8")


def test_an_unknown_benchmark_or_protocol_is_refused_with_the_nearest(export: Callable[..., Answer]) -> None:
    assert "does not define benchmark 'bnch'; did you mean 'bench'?" in refused(export("--benchmark", "bnch"))
    message = refused(export("--benchmark", "bench", "--protocol", "bench2"))
    assert "--protocol names 'bench2', which benchmark 'bench' does not define; did you mean 'bench-2'?" in message


def test_one_of_several_protocols_must_be_named(
    rine_cache: Callable[..., Answer], write_board: Callable[..., Path], config: Path, tmp_path: Path
) -> None:
    described = json.loads((tmp_path / "bench.yaml").read_text())
    described["protocols"]["bench-1"] = {"test_sets": ["adm"]}
    (tmp_path / "bench.yaml").write_text(json.dumps(described))
    answer = rine_cache(
        "leaderboard", "export", "--file", write_board(measured()), "--config", config, "--benchmark", "bench"
    )
    assert "bench has 2 protocols: give one as --protocol; allowed: bench-2, bench-1" in refused(answer)


def test_what_latex_cannot_print_is_told(
    rine_cache: Callable[..., Answer], write_board: Callable[..., Path], config: Path
) -> None:
    path = write_board(measured(method="模型"))
    given = ("--file", path, "--config", config, "--benchmark", "bench", "--format", "latex")
    answer = rine_cache("leaderboard", "export", *given)
    assert answer.status == 0
    assert "pdfLaTeX has no command for 模 型; compile with LuaLaTeX" in answer.err


def test_csv_is_read_back(export: Callable[..., Answer]) -> None:
    rows = list(csv.DictReader(export("--benchmark", "bench", "--format", "csv").out.splitlines()))
    assert [row["method"] for row in rows] == ["RINE", "UnivFD", "<AIDE>"]


def test_building_refuses_published_numbers_that_no_benchmark_can_hold(
    rine_cache: Callable[..., Answer], config: Path, tmp_path: Path
) -> None:
    benchmark, numbers = config.with_name("bench.yaml"), tmp_path / "numbers.csv"
    given = ("--published", numbers, "--benchmark", benchmark, "--out", tmp_path / "built.parquet")
    for change, status, told in (
        ({"test_set": "admm"}, 2, "line 2 (RINE, admm) names test set 'admm', which protocol 'bench-2' of benchmark"),
        ({"benchmark": "benchh"}, 0, "names benchmark 'benchh', which no benchmark file of the configuration defines"),
    ):
        row = {name: value for name, value in published(**change).items() if name in COLUMNS}
        with numbers.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="")
            writer.writeheader()
            writer.writerow(row)
        answer = rine_cache("leaderboard", "build", *given)
        assert answer.status == status
        assert told in answer.err
        assert (tmp_path / "built.parquet").exists() == (status == 0)
