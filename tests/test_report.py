from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rine_cache.leaderboard import SCHEMA, build_leaderboard
from rine_cache.markdown import write_markdown
from rine_cache.passes import EncoderPasses
from rine_cache.report import METRIC_TITLES, render_markdown
from rine_cache.specs.base import parse, read_yaml
from rine_cache.specs.benchmark import MEAN, BenchmarkSpec

ROOT = Path(__file__).resolve().parent.parent
SOURCE = {"dataset": "images"}
BENCH = BenchmarkSpec.model_validate(
    {
        "name": "bench",
        "title": "The bench",
        "about": "What it is about.",
        "test_sets": {name: {"real": SOURCE, "fake": SOURCE} for name in ("adm", "glide")},
        "protocols": {
            "both": {"test_sets": ["adm", "glide"], "headline": ["acc", "auc"]},
            "single": {"test_sets": ["glide"], "headline": ["f1"]},
        },
    }
)
MEASURED: dict[str, Any] = {
    "kind": "measured",
    "benchmark": "bench",
    "protocol": "both",
    "training_set": "progan",
    "method": "RINE",
    "test_set": MEAN,
    "metric": "acc",
    "value": 81.784,
    "std": 1.25,
    "rank": 1,
    "coverage": "2/2",
    "n_real": 12345,
    "n_fake": 6000,
    "n_quarantined": 0,
    "oracle": False,
    "source_kind": "measured",
    "source": "rine-cache 0.1.0",
}
PUBLISHED: dict[str, Any] = {
    "kind": "published",
    "benchmark": "bench",
    "protocol": "both",
    "training_set": "progan",
    "method": "NPR",
    "test_set": MEAN,
    "metric": "acc",
    "value": 70.0,
    "coverage": "2/2",
    "oracle": False,
    "source_kind": "primary",
    "source": "a paper",
}


def render(*rows: dict[str, Any], benchmarks: tuple[BenchmarkSpec, ...] = (BENCH,)) -> str:
    return render_markdown(pl.DataFrame(list(rows), schema=SCHEMA), benchmarks)


def tables_of(text: str) -> list[list[str]]:
    """Return the lines of each table."""
    return [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)]


def table_of(text: str, title: str) -> list[dict[str, str]]:
    """Return the table below a heading that begins so, a dictionary per line."""
    (after,) = re.findall(rf"^###? {re.escape(title)}(?:, .*)?\n\n((?:^\|.*\n)+)", text, flags=re.MULTILINE)
    header, _, *lines = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in after.splitlines()]
    return [dict(zip(header, line, strict=True)) for line in lines]


def test_a_line_shows_every_headline_metric_and_where_it_comes_from() -> None:
    text = render(MEASURED, {**MEASURED, "metric": "auc", "value": 90.0, "std": 0.5})
    assert table_of(text, "both: mean of 2 test sets") == [
        {
            "rank": "1",
            "method": "RINE",
            "training set": "progan",
            "kind": "measured",
            "accuracy": "81.78 ± 1.25",
            "AUC": "90.00 ± 0.50",
            "coverage": "2/2",
            "real + fake": "12,345 + 6,000",
            "source": "rine-cache 0.1.0",
        }
    ]


def test_a_value_shows_its_interval_apart_from_its_seeds_and_whether_it_ties_with_the_best() -> None:
    best = {**MEASURED, "ci_low": 79.5, "ci_high": 84.25, "tied_with_best": True}
    near = {**best, "method": "near", "value": 81.0, "rank": 2, "best_difference": -0.78}
    far = {**near, "method": "far", "value": 71.0, "rank": 3, "tied_with_best": False, "std": None}
    lines = table_of(render(best, near, far), "both: mean of 2 test sets")
    assert [line["accuracy"] for line in lines] == [
        "81.78 ± 1.25 [79.50, 84.25]",
        "81.00 ± 1.25 [79.50, 84.25] ≈",
        "71.00 [79.50, 84.25]",
    ]


def test_a_published_line_shows_its_kind_of_source_and_note() -> None:
    (line,) = table_of(render({**PUBLISHED, "note": "resized"}), "both: mean of 2 test sets")
    assert (line["kind"], line["accuracy"], line["AUC"]) == ("primary", "70.00", "-")
    assert (line["real + fake"], line["source"]) == ("", "a paper; resized")


def test_a_published_value_says_by_how_much_ours_differs_and_whether_beyond_our_interval() -> None:
    apart = {**PUBLISHED, "measured_difference": -1.25, "measured_verdict": "disagrees"}
    within = {**PUBLISHED, "source": "another", "measured_difference": 0.5, "measured_verdict": "agrees"}
    lines = table_of(render(apart, within), "both: mean of 2 test sets")
    assert [line["accuracy"] for line in lines] == ["70.00 (ours -1.25) ≠", "70.00 (ours +0.50)"]


def test_what_was_not_measured_is_a_dash() -> None:
    absent = {**MEASURED, "value": None, "std": None, "rank": None, "coverage": "0/2"}
    absent.update(n_real=None, n_fake=None, n_quarantined=None)
    (line,) = table_of(render(absent), "both: mean of 2 test sets")
    assert (line["accuracy"], line["rank"], line["coverage"], line["real + fake"]) == ("-", "", "0/2", "")


def test_a_value_of_zero_is_a_number_not_a_dash() -> None:
    (line,) = table_of(render({**MEASURED, "value": 0.0, "std": 0.0}), "both: mean of 2 test sets")
    assert line["accuracy"] == "0.00 ± 0.00"


def test_lines_are_ordered_by_the_first_headline_best_first_unmeasured_last() -> None:
    rows = [
        {**PUBLISHED, "method": "none", "value": None},
        {**PUBLISHED, "method": "low", "value": 60.0},
        {**PUBLISHED, "method": "tie-b", "value": 75.0},
        {**MEASURED, "method": "high", "value": 90.0},
        {**PUBLISHED, "method": "tie-a", "value": 75.0},
        {**PUBLISHED, "method": "zero", "value": 0.0},
        {**PUBLISHED, "method": "auc-only", "metric": "auc", "value": 99.0},
    ]
    methods = [line["method"] for line in table_of(render(*rows), "both: mean of 2 test sets")]
    assert methods == ["high", "tie-a", "tie-b", "low", "zero", "auc-only", "none"]


def test_a_training_set_that_nobody_states_is_said_so() -> None:
    (line,) = table_of(render({**PUBLISHED, "training_set": None}), "both: mean of 2 test sets")
    assert line["training set"] == "not stated"


def test_a_heading_says_what_a_protocol_asks_for() -> None:
    more = BENCH.model_dump()
    more["protocols"]["both"] |= {"training_sets": ["progan", "ldm", "all"], "view": "tencrop224"}
    more["protocols"]["single"] |= {"training_sets": ["progan"], "cap": {"per_class": 1000}}
    text = render(benchmarks=(BenchmarkSpec.model_validate(more),))
    assert "\n### both: mean of 2 test sets, through tencrop224, asks for training on progan, ldm or all\n" in text
    assert "\n### single: glide, at most 1,000 images a class, asks for training on progan\n" in text


def test_a_measured_line_that_was_trained_on_something_else_says_so() -> None:
    more = BENCH.model_dump()
    more["protocols"]["both"]["training_sets"] = ["progan", "ldm"]
    rows = [
        MEASURED,
        {**MEASURED, "method": "other", "training_set": "mine", "note": "tuned"},
        {**PUBLISHED, "training_set": "theirs"},
    ]
    text = render(*rows, benchmarks=(BenchmarkSpec.model_validate(more),))
    assert {line["method"]: line["source"] for line in table_of(text, "both: mean of 2 test sets")} == {
        "RINE": "rine-cache 0.1.0",
        "other": "rine-cache 0.1.0; tuned; trained on mine, not on progan or ldm",
        "NPR": "a paper",
    }


def test_an_oracle_is_called_one() -> None:
    more = BENCH.model_dump()
    more["protocols"]["both"]["training_sets"] = ["progan"]
    rows = [
        {**MEASURED, "method": "metadata-only", "training_set": None, "oracle": True, "rank": None},
        {**PUBLISHED, "oracle": True},
        {**PUBLISHED, "method": "AIDE", "oracle": True, "training_set": None},
    ]
    lines = table_of(render(*rows, benchmarks=(BenchmarkSpec.model_validate(more),)), "both: mean of 2 test sets")
    assert [(line["method"], line["training set"], line["kind"], line["rank"]) for line in lines] == [
        ("metadata-only", "test data", "measured, oracle", ""),
        ("AIDE", "not stated", "primary, oracle", ""),
        ("NPR", "progan", "primary, oracle", ""),
    ]
    assert lines[0]["source"] == "rine-cache 0.1.0"


def test_quarantined_images_stand_beside_the_counted_ones() -> None:
    (line,) = table_of(render({**MEASURED, "n_quarantined": 1234}), "both: mean of 2 test sets")
    assert line["real + fake"] == "12,345 + 6,000 (1,234 quarantined)"


def test_pipes_are_escaped() -> None:
    text = render({**PUBLISHED, "method": "A|B", "note": "x | y"})
    assert "| A\\|B " in text
    (line,) = table_of(text, "both: mean of 2 test sets")
    assert (line["method"], line["source"]) == ("A\\|B", "a paper; x \\| y")


def test_a_long_source_is_shortened_but_its_note_is_not() -> None:
    source, note = "s" * 100, "n" * 100
    (line,) = table_of(render({**PUBLISHED, "source": source, "note": note}), "both: mean of 2 test sets")
    assert line["source"] == "s" * 59 + "…; " + note


def test_per_test_set_rows_stay_out_of_the_table_of_means() -> None:
    text = render(MEASURED, {**MEASURED, "test_set": "adm", "value": 99.9})
    assert "99.9" not in text
    assert len(table_of(text, "both: mean of 2 test sets")) == 1


def test_metrics_that_do_not_lead_stay_out_of_the_table() -> None:
    text = render(MEASURED, {**MEASURED, "metric": "ap", "value": 12.34})
    assert "12.34" not in text


def test_a_protocol_of_one_test_set_shows_it_whether_or_not_a_mean_is_stated() -> None:
    rows = [
        {**PUBLISHED, "protocol": "single", "metric": "f1", "test_set": "glide", "value": 55.5},
        {**PUBLISHED, "protocol": "single", "metric": "f1", "method": "AIDE", "value": 44.4},
    ]
    lines = table_of(render(*rows), "single: glide")
    assert [(line["method"], line["F1"]) for line in lines] == [("NPR", "55.50"), ("AIDE", "44.40")]


def test_a_measured_line_of_a_protocol_of_one_test_set_stands_once() -> None:
    rows = [{**MEASURED, "protocol": "single", "metric": "f1", "test_set": name} for name in (MEAN, "glide")]
    assert len(table_of(render(*rows), "single: glide")) == 1


def test_methods_without_a_mean_are_counted_below_the_table() -> None:
    rows = [PUBLISHED, *({**PUBLISHED, "method": name, "test_set": "adm"} for name in ("one", "two"))]
    assert "\n2 more published methods state no mean; their test sets are in the Parquet file.\n" in render(*rows)
    assert "state no mean" not in render(PUBLISHED)


def test_numbers_from_two_sources_stand_on_two_lines() -> None:
    rows = [PUBLISHED, {**PUBLISHED, "source": "another paper", "value": 71.0}]
    found = [(line["accuracy"], line["source"]) for line in table_of(render(*rows), "both: mean of 2 test sets")]
    assert found == [("71.00", "another paper"), ("70.00", "a paper")]


def test_benchmarks_and_protocols_come_in_their_own_order() -> None:
    other = BENCH.model_copy(update={"name": "other", "title": "Another", "about": ""})
    headings = re.findall(r"^#+ .*$", render(MEASURED, benchmarks=(other, BENCH)), flags=re.MULTILINE)
    assert headings == [
        "# Leaderboard",
        "## Another",
        "### both: mean of 2 test sets",
        "### single: glide",
        "## The bench",
        "### both: mean of 2 test sets",
        "### single: glide",
    ]


def test_what_a_benchmark_is_about_stands_above_its_tables() -> None:
    assert "## The bench\n\nWhat it is about.\n\n### both" in render(MEASURED)


def test_protocols_that_no_benchmark_defines_are_counted_at_the_end() -> None:
    rows = [{**PUBLISHED, "protocol": "elsewhere", "method": str(index)} for index in range(3)]
    rows.append({**PUBLISHED, "benchmark": "unheard-of", "protocol": "both"})
    lines = table_of(render(*rows).replace("\n\nNo benchmark file of this configuration defines them.", ""), _OTHERS)
    assert [tuple(line.values()) for line in lines] == [
        ("bench", "elsewhere", "published", "3"),
        ("unheard-of", "both", "published", "1"),
    ]


_OTHERS = "Other protocols"


def test_every_protocol_defined_leaves_nothing_for_the_end() -> None:
    assert _OTHERS not in render(MEASURED)


def test_an_empty_leaderboard_still_shows_every_table() -> None:
    assert [len(table) for table in tables_of(render())] == [2, 2]


@pytest.fixture(scope="module")
def committed() -> tuple[str, list[BenchmarkSpec]]:
    """Render the published numbers with the benchmarks of the default config."""
    paths = sorted((ROOT / "config" / "benchmarks").glob("*.yaml"))
    benchmarks = [parse(BenchmarkSpec, read_yaml(path), str(path)) for path in paths]
    table = build_leaderboard([], [ROOT / "config" / "published.csv"], benchmarks)
    return render_markdown(table, benchmarks), benchmarks


def test_every_line_of_a_table_is_as_long_as_its_header(committed: tuple[str, list[BenchmarkSpec]]) -> None:
    text, benchmarks = committed
    tables = tables_of(text)
    assert len(tables) == sum(len(benchmark.protocols) for benchmark in benchmarks) + 1
    for table in tables:
        assert len({len(line) for line in table}) == 1
        assert len({len(re.split(r"(?<!\\)\|", line)) for line in table}) == 1
        assert set(table[1]) == {"|", "-"}


def test_the_committed_numbers_show_rine_where_it_is_published(committed: tuple[str, list[BenchmarkSpec]]) -> None:
    text, _ = committed
    (opensdid,) = [
        line
        for line in table_of(text, "opensdid-5: mean of 5 test sets")
        if (line["method"], line["F1"]) == ("RINE", "75.98")
    ]
    assert (opensdid["training set"], opensdid["kind"], opensdid["accuracy"]) == ("opensdid-sd15", "primary", "80.33")
    assert int(opensdid["rank"]) >= 1
    chameleon = [line for line in table_of(text, "chameleon: chameleon") if line["method"] == "RINE"]
    assert [(line["accuracy"], line["kind"], line["rank"]) for line in chameleon] == [("58.54", "aggregator", "")]
    genimage = [line for line in table_of(text, "genimage-8: mean of 8 test sets") if line["method"] == "RINE"]
    assert {(line["accuracy"], line["rank"]) for line in genimage} == {("81.78", ""), ("97.94", "")}


def test_no_number_is_lost_where_one_source_gives_several(committed: tuple[str, list[BenchmarkSpec]]) -> None:
    """Lines are told apart by method, training set, source, note and the source's own protocol."""
    text, benchmarks = committed
    numbers = pl.read_csv(ROOT / "config" / "published.csv", infer_schema=False)
    for benchmark in benchmarks:
        for name, protocol in benchmark.protocols.items():
            single = len(protocol.test_sets) == 1
            title = (
                f"{name}: {protocol.test_sets[0]}" if single else f"{name}: mean of {len(protocol.test_sets)} test sets"
            )
            shown = [MEAN, *protocol.test_sets] if single else [MEAN]
            expected = numbers.filter(
                pl.col("test_set").is_in(shown),
                pl.col("metric").is_in(protocol.headline),
                benchmark=benchmark.name,
                protocol=name,
            )
            titles = [METRIC_TITLES[metric] for metric in protocol.headline]
            cells = [line[title] for line in table_of(text, title) for title in titles]
            assert sum(cell != "-" for cell in cells) == expected.height, title


def test_the_sample_says_that_it_is_no_result(committed: tuple[str, list[BenchmarkSpec]]) -> None:
    text, _ = committed
    (heading,) = re.findall(r"^## Sample.*$", text, flags=re.MULTILINE)
    assert "not a result" in heading


def test_a_rendered_leaderboard_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "results" / "leaderboard.md"
    write_markdown("a ± b\n", path)
    assert path.read_text(encoding="utf-8") == "a ± b\n"
    assert [file.name for file in path.parent.iterdir()] == ["leaderboard.md"]


def test_a_measured_line_says_that_its_test_sets_hold_training_images() -> None:
    leaky = {**MEASURED, "test_set": "one", "n_leaked": 3}
    clean = {**MEASURED, "training_set": "other", "method": "RINE-clean"}
    lines = table_of(render(MEASURED, leaky, clean, PUBLISHED), "both: mean of 2 test sets")
    leak = "LEAK: 1 of its test sets hold images of its training set, see audits/all/duplicates.md"
    assert [leak in line["source"] for line in lines] == [line["method"] == "RINE" for line in lines]
    assert sum(leak in line["source"] for line in lines) == 1


@pytest.mark.parametrize(
    ("passes", "footer"),
    [
        (
            EncoderPasses(crops_read=912_384, caches={"a": 1000, "b": 56}),
            "The encoder ran once over 1,056 crops; the heads behind this leaderboard read 912,384 crops: "
            "911,328 encoder passes were saved.",
        ),
        (
            EncoderPasses(crops_read=2, caches={"a": 1}),
            "The encoder ran once over 1 crop; the heads behind this leaderboard read 2 crops: "
            "1 encoder pass was saved.",
        ),
        (
            EncoderPasses(crops_read=1, caches={"a": 3}),
            "The encoder ran once over 3 crops; the heads behind this leaderboard read 1 crop: "
            "0 encoder passes were saved.",
        ),
    ],
)
def test_a_footer_says_what_the_caches_saved(passes: EncoderPasses, footer: str) -> None:
    table = pl.DataFrame([MEASURED], schema=SCHEMA)
    assert render_markdown(table, [BENCH], passes) == f"{render(MEASURED)}\n---\n\n{footer}\n"


def test_there_is_no_footer_where_no_head_read_a_cache() -> None:
    table = pl.DataFrame([PUBLISHED], schema=SCHEMA)
    assert render_markdown(table, [BENCH], EncoderPasses()) == render(PUBLISHED)
