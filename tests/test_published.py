from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from rine_cache.errors import ResultsError
from rine_cache.published import COLUMNS, SOURCE_KINDS, check_published, read_published, unpublished_references
from rine_cache.specs.base import parse, read_yaml
from rine_cache.specs.benchmark import BenchmarkSpec

if TYPE_CHECKING:
    from collections.abc import Callable

COMMITTED = Path(__file__).resolve().parent.parent / "config" / "published.csv"
ROW = {
    "benchmark": "genimage",
    "protocol": "genimage-8",
    "training_set": "genimage-sdv14",
    "method": "RINE",
    "test_set": "mean",
    "metric": "acc",
    "value": "81.78",
    "source_kind": "primary",
    "note": "",
    "source": "a paper, Table 1",
    "benchmark_as_published": "GenImage",
    "protocol_as_published": "SD v1.4, 8 gens",
    "test_set_as_published": "Avg.",
    "metric_as_published": "Acc",
}


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[..., Path]:
    """Write one line per dictionary of changes to `ROW`."""

    def write(*changes: dict[str, str], columns: tuple[str, ...] = COLUMNS) -> Path:
        path = tmp_path / "published.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore", restval="")
            writer.writeheader()
            writer.writerows({**ROW, **change} for change in changes)
        return path

    return write


def refusal(path: Path) -> str:
    with pytest.raises(ResultsError) as caught:
        read_published(path)
    return str(caught.value)


def test_the_committed_numbers_are_all_there() -> None:
    table = read_published(COMMITTED)
    assert table.shape == (1635, 14)
    assert tuple(table.columns) == COLUMNS
    with COMMITTED.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert table["value"].to_list() == [float(row["value"]) for row in rows]
    assert table["method"].to_list() == [row["method"] for row in rows]
    assert table["training_set"].to_list() == [row["training_set"] or None for row in rows]


def test_the_committed_numbers_come_from_every_kind_of_source() -> None:
    assert set(read_published(COMMITTED)["source_kind"]) == set(SOURCE_KINDS)


def test_values_are_numbers_and_empty_fields_null(write_csv: Callable[..., Path]) -> None:
    table = read_published(write_csv({}, {"training_set": "", "value": "100", "method": "007"}))
    assert table.schema["value"] == pl.Float64
    assert table["value"].to_list() == [81.78, 100.0]
    assert table["training_set"].to_list() == ["genimage-sdv14", None]
    assert table["method"].to_list() == ["RINE", "007"]


def test_columns_may_stand_in_any_order(write_csv: Callable[..., Path]) -> None:
    table = read_published(write_csv({}, columns=tuple(reversed(COLUMNS))))
    assert tuple(table.columns) == COLUMNS
    assert table["method"].to_list() == ["RINE"]


def test_fields_may_hold_commas_quotes_and_line_breaks(write_csv: Callable[..., Path]) -> None:
    source = 'a "paper", Table 1;\nfootnote 2'
    assert read_published(write_csv({"source": source}))["source"].to_list() == [source]


@pytest.mark.parametrize("column", COLUMNS)
def test_a_missing_column_is_named(write_csv: Callable[..., Path], column: str) -> None:
    message = refusal(write_csv({}, columns=tuple(name for name in COLUMNS if name != column)))
    assert f"published.csv lacks the column {column!r}; " in message


def test_a_misspelt_column_is_named_with_the_nearest(write_csv: Callable[..., Path]) -> None:
    columns = tuple("vlaue" if name == "value" else name for name in COLUMNS)
    assert "lacks the column 'value'; did you mean 'vlaue'?" in refusal(write_csv({}, columns=columns))


def test_an_unknown_column_is_named_with_the_nearest(write_csv: Callable[..., Path]) -> None:
    message = refusal(write_csv({}, columns=(*COLUMNS, "sources")))
    assert "has an unknown column 'sources'; did you mean 'source'? allowed: " in message


@pytest.mark.parametrize("value", ["100.01", "-0.1", "81,78", "n/a", "81.78%", "nan", "inf"])
def test_a_value_that_is_no_percentage_is_refused_with_its_line(write_csv: Callable[..., Path], value: str) -> None:
    message = refusal(write_csv({}, {}, {"value": value, "method": "Odd", "test_set": "adm"}))
    assert "published.csv, line 4 (Odd, adm) has no value from 0 to 100" in message


@pytest.mark.parametrize("value", ["0", "100", "0.0", "1e2"])
def test_the_ends_of_the_scale_are_allowed(write_csv: Callable[..., Path], value: str) -> None:
    assert read_published(write_csv({"value": value}))["value"].to_list() == [float(value)]


@pytest.mark.parametrize("kind", ["Primary", "blog", "measured"])
def test_an_unknown_kind_of_source_is_refused_with_its_line(write_csv: Callable[..., Path], kind: str) -> None:
    message = refusal(write_csv({}, {"source_kind": kind}))
    assert "line 3 (RINE, mean) has a source_kind other than " in message
    assert all(repr(allowed) in message for allowed in SOURCE_KINDS)


@pytest.mark.parametrize(
    "column", ["benchmark", "protocol", "method", "test_set", "metric", "value", "source_kind", "source"]
)
def test_an_empty_required_field_is_refused_with_its_line(write_csv: Callable[..., Path], column: str) -> None:
    message = refusal(write_csv({}, {column: ""}))
    assert "line 3 (" in message
    assert "lacks one of benchmark, protocol, method, test_set, metric, value, source_kind, source" in message


@pytest.mark.parametrize("column", ["training_set", "note", "protocol_as_published"])
def test_other_fields_may_be_empty(write_csv: Callable[..., Path], column: str) -> None:
    assert read_published(write_csv({column: ""}))[column].to_list() == [None]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "cannot read the published numbers" in refusal(tmp_path / "nowhere.csv")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00bad"])
def test_what_is_no_csv_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "published.csv"
    path.write_bytes(content)
    assert "published.csv" in refusal(path)


def test_a_line_with_too_many_fields_is_refused(write_csv: Callable[..., Path]) -> None:
    path = write_csv({})
    path.write_text(path.read_text() + ",".join(ROW.values()).replace("a paper, Table 1", "x") + ",,,\n")
    assert "published.csv" in refusal(path)


@pytest.mark.parametrize("value", ["100.01", "81,78", "81.78%"])
def test_a_refused_value_is_shown(write_csv: Callable[..., Path], value: str) -> None:
    assert f"has no value from 0 to 100: found {value!r}" in refusal(write_csv({"value": value}))


def test_the_line_is_that_of_the_file_whatever_stands_in_the_fields(write_csv: Callable[..., Path]) -> None:
    path = write_csv({"source": "one\ntwo\nthree"}, {"value": "900"})
    assert "published.csv, line 5 (" in refusal(path)


def test_bytes_that_are_not_utf8_are_told_by_line(write_csv: Callable[..., Path]) -> None:
    path = write_csv({}, {"method": "Müller"})
    path.write_bytes(path.read_text(encoding="utf-8").encode("latin-1"))
    message = refusal(path)
    assert "line 3 is not UTF-8 (byte 0xfc)" in message
    assert "CSV UTF-8" in message


@pytest.mark.parametrize("content", ["", " \n\n", "\ufeff"])
def test_an_empty_file_is_told_with_the_columns(tmp_path: Path, content: str) -> None:
    path = tmp_path / "published.csv"
    path.write_text(content, encoding="utf-8")
    assert "published.csv is empty; its first line names the columns: benchmark,protocol," in refusal(path)


def test_a_header_alone_is_refused(write_csv: Callable[..., Path]) -> None:
    assert "has a header and no numbers below it" in refusal(write_csv())


def test_what_spreadsheets_do_to_a_file_does_not_matter(write_csv: Callable[..., Path]) -> None:
    path = write_csv({}, {"method": "  Müller\N{NO-BREAK SPACE}", "note": "a\r\nb"})
    plain = read_published(path)
    assert plain["method"].to_list() == ["RINE", "Müller"]
    text = path.read_bytes().decode("utf-8")
    for line_end in ("\n", "\r\n"):
        path.write_bytes("\ufeff".encode() + text.replace("\r\n", line_end).encode("utf-8") + line_end.encode())
        assert read_published(path).drop("note").equals(plain.drop("note"))


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_another_separator_is_named(write_csv: Callable[..., Path], separator: str, name: str) -> None:
    path = write_csv({})
    path.write_text(path.read_text().replace(",", separator))
    assert f"is separated by {name}; separate it by commas" in refusal(path)


def test_a_comma_for_a_decimal_point_is_told(write_csv: Callable[..., Path]) -> None:
    path = write_csv({})
    path.write_text(path.read_text().replace("81.78", "81,78"))
    assert "line 2 has 15 fields, the header 14" in refusal(path)


def test_a_line_with_too_few_fields_is_refused(write_csv: Callable[..., Path]) -> None:
    path = write_csv({}, {})
    path.write_text(path.read_text().rstrip().rpartition(",")[0] + "\n")
    assert "line 3 has 13 fields, the header 14" in refusal(path)


def test_a_quote_that_is_not_closed_is_refused(write_csv: Callable[..., Path]) -> None:
    path = write_csv({})
    path.write_text(path.read_text().rstrip() + '\n"genimage,' + "x\n")
    assert "line 3 is not CSV" in refusal(path)


def test_a_column_that_is_there_twice_is_refused(write_csv: Callable[..., Path]) -> None:
    path = write_csv({})
    path.write_text("\n".join(f"{line},x" for line in path.read_text().splitlines()).replace(",x", ",note", 1))
    assert "has the column 'note' twice" in refusal(path)


def test_fractions_are_suspected_where_a_sources_every_accuracy_is_at_most_1(write_csv: Callable[..., Path]) -> None:
    small = [{"value": value, "test_set": name, "source": "b"} for value, name in (("0.81", "adm"), ("1.0", "glide"))]
    message = refusal(write_csv({}, *small))
    assert "line 3: every acc of the source 'b' (2 in all) is at most 1, which looks like fractions" in message
    assert read_published(write_csv({}, *small, {"value": "60", "source": "b"})).height == 4
    assert read_published(write_csv(*[{**row, "metric": "fake_acc"} for row in small])).height == 2


@pytest.fixture
def benchmarks() -> list[BenchmarkSpec]:
    folder = COMMITTED.parent / "benchmarks"
    return [parse(BenchmarkSpec, read_yaml(path), str(path)) for path in sorted(folder.glob("*.yaml"))]


def test_the_committed_numbers_fit_the_committed_benchmarks(benchmarks: list[BenchmarkSpec]) -> None:
    assert check_published(sorted(COMMITTED.parent.glob("published*.csv")), benchmarks) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"protocol": "genimage8"},
            "names protocol 'genimage8', which benchmark 'genimage' does not define; did you mean 'genimage-8'?",
        ),
        (
            {"test_set": "big-gan"},
            "names test set 'big-gan', which protocol 'genimage-8' of benchmark 'genimage' does not average; did you "
            "mean 'biggan'?",
        ),
        ({"metric": "ACC"}, "names metric 'ACC'; did you mean 'acc'? allowed: "),
    ],
)
def test_a_name_that_the_benchmark_lacks_is_refused_with_the_nearest(
    write_csv: Callable[..., Path], benchmarks: list[BenchmarkSpec], change: dict[str, str], message: str
) -> None:
    path = write_csv({}, {"method": "Odd", **change})
    with pytest.raises(ResultsError) as caught:
        check_published([path], benchmarks)
    assert "published.csv, line 3 (Odd, " in str(caught.value)
    assert message in str(caught.value)
    assert check_published([path], []) == []  # benchmarks that the configuration does not define are not its business


def test_a_benchmark_named_almost_like_one_of_the_configuration_is_doubted(
    write_csv: Callable[..., Path], benchmarks: list[BenchmarkSpec]
) -> None:
    path = write_csv({}, {"benchmark": "genimages"}, {"benchmark": "genimages", "test_set": "x"}, {"benchmark": "mine"})
    (doubt,) = check_published([path], benchmarks)
    assert "line 3 (RINE, mean) names benchmark 'genimages'" in doubt
    assert "did you mean 'genimage'?" in doubt


def test_a_number_that_is_stated_twice_is_refused(write_csv: Callable[..., Path]) -> None:
    with pytest.raises(
        ResultsError, match=r"line 4 \(RINE, mean\) states the same number as .*, line 2 \(RINE, mean\)"
    ):
        check_published([write_csv({}, {"source": "another"}, {"value": "99"})], [])
    told_apart = [{}, {"source": "another"}, {"note": "resized"}, {"protocol_as_published": "calibrated"}]
    assert check_published([write_csv(*told_apart)], []) == []


def test_a_file_that_is_given_twice_states_everything_twice(write_csv: Callable[..., Path]) -> None:
    with pytest.raises(ResultsError, match="states the same number"):
        check_published([write_csv({})] * 2, [])


def test_a_method_that_is_published_as_nobody_is_doubted(write_csv: Callable[..., Path]) -> None:
    references = {"method A of experiment x": "NPR", "method B of experiment x": "NRP"}
    (doubt,) = unpublished_references(references, [write_csv({"method": "NPR"})])
    assert doubt.startswith("method B of experiment x is published_as 'NRP', and no published row is of that method")
    assert "did you mean 'NPR'?" in doubt
    assert unpublished_references({}, []) == []
