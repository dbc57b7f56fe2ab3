from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from rine_cache.errors import ResultsError
from rine_cache.paper_formats import FORMATS, beyond_latex, latex_text, write_paper_table
from rine_cache.paper_table import BEST, SECOND, Choice, Column, PaperTable, build_paper_table
from rine_cache.specs.benchmark import BenchmarkSpec
from tests.boards import BENCHMARK, board, measured, published

if TYPE_CHECKING:
    from pathlib import Path

MEAN = Column("acc", "mean")


def line(method: str, mean: float | None, rank: int | None = 1, kind: Any = measured, **changes: Any) -> list[Any]:
    """Make the rows of one method: its mean, and a test set a point below and one a point above it."""
    values = {"mean": mean, "adm": mean and mean - 1, "big_gan": mean and mean + 1}
    around = {} if kind is published or mean is None else {"ci_low": mean - 2, "ci_high": mean + 2}
    return [
        kind(**{"method": method, "test_set": test_set, "value": value, "rank": rank, **around, **changes})
        for test_set, value in values.items()
    ]


ACCURACY = Choice(("acc",))


def table_of(*lines: list[Any], choice: Choice = ACCURACY, **options: Any) -> PaperTable:
    return build_paper_table(board(*(row for rows in lines for row in rows)), BENCHMARK, "bench-2", choice, **options)


def places(table: PaperTable) -> dict[str, int]:
    return {line.method: line.cells[MEAN].place for group in table.groups for line in group.lines}


def test_test_sets_are_columns_in_the_protocols_order_and_the_mean_is_last() -> None:
    table = table_of(line("a", 80.0))
    assert table.columns == [Column("acc", "adm"), Column("acc", "big_gan"), MEAN]
    ((only,),) = (group.lines for group in table.groups)
    assert [only.cells[column].value for column in table.columns] == [79.0, 81.0, 80.0]


def test_the_best_and_the_second_are_marked_among_the_ranked() -> None:
    table = table_of(line("a", 80.0, 2), line("b", 90.0, 1), line("c", 70.0, 3))
    assert places(table) == {"b": BEST, "a": SECOND, "c": 0}
    assert [shown.method for shown in table.groups[0].lines] == ["b", "a", "c"]


def test_what_prints_the_same_is_not_told_apart() -> None:
    lines = [line("a", 90.04, 1), line("b", 90.01, 2), line("c", 85.0, 3), line("d", 84.96, 4), line("e", 1.0, 5)]
    assert places(table_of(*lines)) == {"a": BEST, "b": BEST, "c": SECOND, "d": SECOND, "e": 0}
    assert places(table_of(*lines, decimals=2)) == {"a": BEST, "b": SECOND, "c": 0, "d": 0, "e": 0}


def test_a_line_alone_is_not_the_best() -> None:
    assert places(table_of(line("a", 80.0))) == {"a": 0}


def test_marks_are_won_within_one_training_set_those_asked_for_first() -> None:
    lines = [
        line(f"{method}-{name}", value, rank, training_set=name)
        for name in ("other", "sd14")
        for method, value, rank in (("x", 60.0, 1), ("y", 50.0, 2))
    ]
    table = table_of(*lines)
    assert [group.title for group in table.groups] == ["trained on sd14", "trained on other"]
    assert places(table) == {"x-sd14": BEST, "y-sd14": SECOND, "x-other": BEST, "y-other": SECOND}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"oracle": True}, "oracle: fitted on test data, trained on sd14"),
        ({"weights": "random"}, "random weights, trained on sd14"),
        ({"coverage": "1/2"}, "1 of 2 test sets, trained on sd14"),
        ({"training_set": None, "kind": published}, "training set not stated"),
        ({"source_kind": "aggregator", "kind": published}, "from an aggregator, trained on sd14"),
    ],
)
def test_what_is_not_ranked_stands_apart_says_why_and_is_never_marked(changes: dict[str, Any], why: str) -> None:
    table = table_of(line("a", 80.0, 2), line("b", 81.0, 1), line("odd", 99.0, None, **changes))
    assert [group.title for group in table.groups] == ["trained on sd14", "not ranked"]
    (odd,) = table.groups[1].lines
    assert (odd.method, odd.remark, odd.cells[MEAN].place) == ("odd", why, 0)
    assert places(table) == {"b": BEST, "a": SECOND, "odd": 0}
    for form in FORMATS:
        text = write_paper_table(table, form)
        assert why in text
        assert not re.search(r"(textbf\{|\*\*|<strong>|underline\{|<u>)99", text)


def test_a_benchmark_that_is_never_ranked_marks_nothing_and_says_so() -> None:
    benchmark = BENCHMARK.model_copy(update={"ranked": False})
    rows = board(*line("a", 80.0, None), *line("b", 81.0, None))
    table = build_paper_table(rows, benchmark, "bench-2", Choice())
    assert places(table) == {"a": 0, "b": 0}
    assert "Not a result: this benchmark is never ranked." in table.caption


def test_sources_get_letters_in_the_order_of_the_lines() -> None:
    lines = [
        line("a", 70.0, 3, published, source="one"),
        line("b", 80.0, 2, published, source="two"),
        line("b", 60.0, 4, published, source="one"),
        line("ours", 90.0, 1),
    ]
    table = table_of(*lines)
    assert table.sources == {"a": "two", "b": "one"}
    assert [(shown.method, shown.mark) for shown in table.groups[0].lines] == [
        ("ours", ""),
        ("b", "a"),
        ("a", "b"),
        ("b", "b"),
    ]


def test_the_caption_says_how_many_images_and_which_code() -> None:
    caption = table_of(line("a", 80.0), line("b", 81.0, n_real=398, code_version="0.2.0")).caption
    assert "Bench (bench-2): accuracy, in %; mean: the unweighted mean of the protocol's 2 test sets." in caption
    assert "Measured by rine-cache 0.1.0 and 0.2.0 on n = 398 to 400 real and 400 fake images, the mean of 3" in caption


def test_lines_can_be_chosen() -> None:
    lines = [line("a", 80.0, 2), line("b", 90.0, 1, published), line("c", 70.0, None, oracle=True)]
    chosen = {
        ("b",): Choice(kinds=("published",)),
        ("a", "c"): Choice(kinds=("measured",)),
        ("a",): Choice(methods=("a",)),
        ("b", "a"): Choice(ranked_only=True),
        ("b", "a", "c"): Choice(training_sets=("sd14",)),
    }
    for methods, choice in chosen.items():
        assert tuple(places(table_of(*lines, choice=choice._replace(metrics=("acc",))))) == methods


def test_columns_can_be_chosen() -> None:
    rows = [line("a", 80.0), [{**row, "metric": "f1"} for row in line("a", 90.0)]]
    table = table_of(*rows, choice=Choice(("f1", "acc"), ("mean", "adm")))
    assert table.columns == [Column("f1", "mean"), Column("f1", "adm"), Column("acc", "mean"), Column("acc", "adm")]
    by_default = table_of(*rows, choice=Choice()).columns  # the protocol's headline is acc and ap
    assert {column.metric for column in by_default} == {"acc"}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Choice(("acc2",)), "has no metric 'acc2' on the leaderboard; did you mean 'acc'?"),
        (Choice(test_sets=("big-gan",)), "has no test set 'big-gan' on the leaderboard; did you mean 'big_gan'?"),
        (Choice(methods=("RINEE",)), "has no method 'RINEE' on the leaderboard; did you mean 'RINE'?"),
        (Choice(training_sets=("sd13",)), "has no training set 'sd13' on the leaderboard; did you mean 'sd14'?"),
    ],
)
def test_what_is_not_there_is_refused_with_the_nearest(choice: Choice, message: str) -> None:
    with pytest.raises(ResultsError, match=re.escape(message)):
        table_of(line("RINE", 80.0), choice=choice._replace(metrics=choice.metrics or ("acc",)))


def test_a_table_of_nothing_is_refused() -> None:
    with pytest.raises(ResultsError, match="no method has a number in these columns of bench bench-2"):
        table_of(line("a", None, None))


def test_a_method_without_a_number_is_named() -> None:
    assert table_of(line("a", 80.0), line("none", None, None)).left_out == ["none"]


def test_intervals_that_no_line_has_are_refused() -> None:
    with pytest.raises(ResultsError, match="no line of the table has an interval"):
        table_of(line("a", 80.0, 1, published), intervals=True)


def test_two_statements_of_one_source_both_stand() -> None:
    twice = [line("a", value, rank, published) for value, rank in ((80.0, 2), (81.0, 1))]
    assert [shown.cells[MEAN].value for shown in table_of(*twice).groups[0].lines] == [81.0, 80.0]


def test_a_lone_test_set_is_its_own_mean() -> None:
    described = BENCHMARK.model_dump()
    described["protocols"] = {"lone": {"test_sets": ["adm"]}}
    rows = [
        measured(protocol="lone", test_set="mean", coverage="1/1"),
        measured(protocol="lone", test_set="adm", coverage="1/1"),
    ]
    rows.append(published(protocol="lone", test_set="mean", coverage="1/1"))
    table = build_paper_table(board(*rows), BenchmarkSpec.model_validate(described), "lone", Choice())
    assert table.columns == [Column("acc", "adm")]
    assert [shown.cells[Column("acc", "adm")].value for shown in table.groups[0].lines] == [80.5, 80.0]


def test_markdown_and_html_mark_the_best_and_show_intervals() -> None:
    table = table_of(line("a_b", 80.0, 2), line("<b>", 90.0, 1), intervals=True)
    markdown, html = (write_paper_table(table, form) for form in ("markdown", "html"))
    assert "**90.0** [88.0, 92.0]" in markdown
    assert "<u>80.0</u> [78.0, 82.0]" in markdown
    assert "<td><strong>90.0</strong><small>[88.0, 92.0]</small></td>" in html
    assert "&lt;b&gt;" in html


def test_csv_holds_numbers_in_full_and_places() -> None:
    table = table_of(line("a", 80.123456, 2), line("b", 90.0, 1), intervals=True)
    rows = list(csv.DictReader(io.StringIO(write_paper_table(table, "csv"))))
    assert [(row["method"], row["acc:mean:place"]) for row in rows] == [("b", "best"), ("a", "second")]
    assert (rows[1]["acc:mean"], rows[1]["acc:mean:low"]) == ("80.123456", "78.123456")
    assert rows[0]["group"] == "trained on sd14"


NAMES = [
    "a_b & 50% #1 ~x^2 {y} $z$ \\n",
    "± 0.5 \N{MULTIPLICATION SIGN} \N{GREEK SMALL LETTER ALPHA}→β ≤ Ω",
    "Müller, Čapek, Łódź, Ærø, naïve",
    "[opt]",
    "*star",
    'a--b <c> |d| "q"',
]


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a_b & 50% #1", r"a\_b \& 50\% \#1"),
        ("~x^2{}$\\", r"\textasciitilde{}x\textasciicircum{}2\{\}\$\textbackslash{}"),
        ("±β≤Ω", r"$\pm$$\beta$$\leq$$\Omega$"),
        ("Müller", r"M\"{u}ller"),
        ("naïve Čapek", r"na\"{\i}ve \v{C}apek"),
        ("[x]", "{}[x]"),
        ("a--b---c", "a-{}-b-{}-{}-c"),
        ("two\n lines", "two lines"),
        ("\N{EN DASH}", "--"),
    ],
)
def test_text_is_escaped_for_latex(text: str, escaped: str) -> None:
    assert latex_text(text) == escaped


def test_what_latex_has_no_command_for_is_named() -> None:
    assert beyond_latex("Müller, Łódź ± β") == ""
    assert beyond_latex("模型 é 模") == "模型"


def test_latex_marks_the_best_and_stacks_many_columns() -> None:
    rows = [line("a", 80.0, 2), line("b", 90.0, 1)]
    both = [*rows, *([{**row, "metric": "ap"} for row in part] for part in rows)]
    text = write_paper_table(table_of(*both, choice=Choice(("acc", "ap")), intervals=True), "latex")
    assert text.count(r"\begin{tabular}") == 1
    assert r"\cmidrule(lr){2-4} \cmidrule(lr){5-7}" in text
    assert r"\textbf{90.0}" in text
    assert r"\underline{80.0}" in text
    assert r"{\tiny{}[88.0, 92.0]}" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine: LaTeX is not compiled")
def test_latex_compiles(tmp_path: Path) -> None:
    lines = [line(name, 80.0 + rank, rank) for rank, name in enumerate(NAMES, start=1)]
    lines += [line("p", 70.0, 9, published, source='"A" & B, Table_1'), line("odd", 99.0, None, oracle=True)]
    lines += [[{**row, "metric": "ap"} for row in part] for part in lines]
    table = table_of(*lines, choice=Choice(("acc", "ap")), intervals=True)
    (tmp_path / "table.tex").write_text(write_paper_table(table, "latex"), encoding="utf-8")
    (tmp_path / "page.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs,graphicx}\\begin{document}\\input{table}\\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert finished.returncode == 0, finished.stdout[-2000:]
    assert "Missing character" not in (tmp_path / "page.log").read_text(errors="replace")


def test_what_is_not_told_apart_from_the_best_bears_a_dagger() -> None:
    rows = board(*line("a", 90.0, 1), *line("b", 89.0, 2), *line("c", 80.0, 3))
    known = rows.drop("tied_with_best", "best_difference", strict=False).with_columns(
        tied_with_best=pl.col("method").is_in(["a", "b"]),
        best_difference=pl.when(pl.col("method") != "a").then(pl.col("value") - 90),
    )
    table = build_paper_table(known, BENCHMARK, "bench-2", ACCURACY)
    assert {shown.method: shown.cells[MEAN].tied for shown in table.groups[0].lines} == {
        "a": False,
        "b": True,
        "c": False,
    }
    assert "\N{DAGGER}: not told apart from the best measured number" in table.caption
    assert "<u>89.0</u>\N{DAGGER}" in write_paper_table(table, "markdown")
    assert r"\underline{89.0}\rlap{\textsuperscript{\dag}}" in write_paper_table(table, "latex")
    assert "\N{DAGGER}" not in table_of(line("a", 90.0, 1), line("b", 89.0, 2)).caption


def test_where_the_smallest_is_the_best_the_leaderboards_ranks_say_so() -> None:
    table = table_of(line("a", 3.0, 1), line("b", 9.0, 2), line("c", 20.0, 3))
    assert [shown.method for shown in table.groups[0].lines] == ["a", "b", "c"]
    assert places(table) == {"a": BEST, "b": SECOND, "c": 0}
