"""The page: what it holds, and that nothing in it asks for a network or runs a user's text."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score, roc_curve

from rine_cache import curves as drawn
from rine_cache.evaluate import Scores
from rine_cache.intervals import interval_name, measure_support
from rine_cache.leaderboard import SCHEMA, write_leaderboard
from rine_cache.metrics import METRICS
from rine_cache.page.build import Extras, build_page
from rine_cache.page.charts import chart_specifications
from rine_cache.page.kept_curves import kept_curves
from rine_cache.page.palette import SCALE, contrast
from rine_cache.page.payload import benchmark_payloads
from rine_cache.page.plots import robustness, strength_of
from rine_cache.page.wording import how_intervals_are_made
from rine_cache.sampler import _said
from rine_cache.specs.base import parse
from rine_cache.specs.benchmark import MEAN, BenchmarkSpec
from rine_cache.specs.encoding import BUILTIN_VIEWS, VIEW
from rine_cache.specs.training import ExperimentSpec
from tests.conftest import refused
from tests.page_data import HOSTILE, benchmark, curves_of, large, published, row, table, unpacked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Answer

MADE = datetime(2026, 5, 17, 9, 30, tzinfo=UTC)


def page_of(leaderboard: pl.DataFrame, *benchmarks: BenchmarkSpec, **extras: Any) -> str:
    return build_page(leaderboard, benchmarks, MADE, "0.1.0+gabc", Extras(**extras))


def only_protocol(rows: list[dict[str, Any]], **settings: Any) -> dict[str, Any]:
    (payload,) = benchmark_payloads(table(rows), [benchmark(**settings)])
    protocol: dict[str, Any] = payload["protocols"][0]
    return protocol


def test_a_cell_holds_its_value_interval_spread_and_comparison() -> None:
    protocol = only_protocol(
        [row(method="a", value=91.234567, std=0.5, seed_count=3, tied_with_best=True, best_difference=-1.005, rank=2)]
    )
    cell = protocol["cells"]["acc"][MEAN]
    assert (cell["value"], cell["ci_low"], cell["ci_high"], cell["std"]) == ([91.23], [89.73], [92.73], [0.5])
    assert (cell["tied_with_best"], cell["rank"], cell["coverage"]) == ([1], [2], ["3/3"])
    assert protocol["lines"][0]["seeds"] == 3


def test_what_was_not_measured_has_no_number() -> None:
    protocol = only_protocol([row(method="a", value=90.0), row(method="b", value=None, coverage="0/3")])
    assert [line["status"] for line in protocol["lines"]] == ["measured", "unmeasured"]
    assert protocol["cells"]["acc"][MEAN]["value"] == [90, None]


def test_two_sources_numbers_for_one_method_both_stand_and_so_does_one_source_that_states_two() -> None:
    rows = [published("a", value=90.0, source="one"), published("a", value=91.0, source="two")]
    protocol = only_protocol([*rows, published("a", value=92.0, source="two")])
    assert [line["source"] for line in protocol["lines"]] == ["one", "two", "two"]
    assert protocol["cells"]["acc"][MEAN]["value"] == [90, 91, 92]


def test_a_lone_test_set_is_its_own_mean() -> None:
    spec = benchmark(test_sets=1)
    rows = [published("a", value=90.0, test_set="generator-00", coverage="1/1")]
    rows += [row(method="b", value=91.0, test_set=test_set, coverage="1/1") for test_set in (MEAN, "generator-00")]
    (payload,) = benchmark_payloads(table(rows), [spec])
    assert payload["protocols"][0]["columns"] == [MEAN]
    assert payload["protocols"][0]["cells"]["acc"][MEAN]["value"] == [90, 91]


def test_a_published_cell_holds_what_was_measured_of_the_same() -> None:
    ours = {"measured_method": "a", "measured_value": 91.004, "measured_ci_low": 89.5, "measured_difference": 1.004}
    ours |= {"measured_verdict": "agrees", "measured_remarks": "theirs: resized"}
    rows = [row(method="a", value=91.0), published("a", value=90.0, **ours), published("b", value=80.0)]
    protocol = only_protocol([*rows, published("a", value=89.0, source="other", **ours)])
    assert protocol["remarks"] == ["theirs: resized"]
    held = [91, 89.5, None, 1, "a", "agrees", 0]
    assert protocol["cells"]["acc"][MEAN]["beside"] == {1: held, 3: held}


def test_what_is_said_of_a_cells_interval_is_kept() -> None:
    note = "from above alone, as fewer than 368 real images do not bound its threshold"
    stated = f"logit, 1,000 resamples of 64 images; {note}"
    protocol = only_protocol([row(method="a", value=90.0), row(method="a", metric="auc", value=9.0, ci_method=stated)])
    assert protocol["cells"]["auc"][MEAN]["interval_note"] == note
    assert "interval_note" not in protocol["cells"]["acc"][MEAN]
    assert how_intervals_are_made([stated]).endswith("bound the number from above alone.")


def test_counts_of_images_quarantine_and_leaks_are_kept() -> None:
    counted = {"n_real": 10, "n_fake": 9, "n_quarantined": 2, "n_leaked": 3}
    protocol = only_protocol([row(method="a", value=90.0, **counted), published("b", value=80.0)])
    assert protocol["counts"][MEAN] == {"distinct": [(10, 9, 2, 3)], "of": [0, None]}


def test_benchmarks_that_no_file_defines_and_metrics_that_only_papers_report_are_shown() -> None:
    rows = [published("a", benchmark="elsewhere", protocol="theirs", metric="pixel_f1", value=50.0)]
    payloads = benchmark_payloads(table(rows), [benchmark()])
    assert [payload["id"] for payload in payloads] == ["elsewhere"]
    assert payloads[0]["protocols"][0]["metrics"][0]["title"] == "pixel f1"


def test_no_text_of_a_user_becomes_markup() -> None:
    rows = [row(method=HOSTILE, value=90.0, note=HOSTILE), published("a", value=80.0, note="</script>" + HOSTILE)]
    page = page_of(table(rows), benchmark(title=HOSTILE, about=f"`x` {HOSTILE}", note=HOSTILE, ranked=False))
    assert "<script>window.hacked" not in page
    assert "<code>x</code>" in page
    # What ends a script element are the page's own ends.
    assert len(re.findall("<script[ >]", page)) == page.count("</script>")


def test_a_page_carries_its_data_whole_and_in_little_room() -> None:
    spec = benchmark(test_sets=20)
    leaderboard = large(30, spec)
    (carried,) = unpacked(page := page_of(leaderboard, spec))
    (payload,) = benchmark_payloads(leaderboard, [spec])
    assert {**payload, "protocols": None}.items() <= {**carried, "protocols": None}.items()
    assert carried["protocols"][0]["cells"] == payload["protocols"][0]["cells"]
    without = len(page_of(leaderboard.head(0), spec))
    assert len(page) - without < len(json.dumps(payload)) / 2


def test_the_page_names_no_address_to_load_from() -> None:
    page = page_of(table([row(method="a", value=90.0)]), benchmark())
    head = page[: page.index("<script>", page.index('id="charts"'))]  # before Vega, whose text names its own site
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:,)|url\(|@import""", head)
    assert "default-src 'none'" in head


def test_the_page_says_what_made_it_and_what_it_is_not() -> None:
    rows = [row(method="a", value=90.0, ci_method="Wilson's interval")]
    page = page_of(table(rows), benchmark(ranked=False, note="sample, not a result"))
    for text in ("0.1.0+gabc", "17 May 2026, 09:30 UTC", "Wilson&#39;s interval", "What this is not"):
        assert text in page


def test_a_sentence_says_how_all_intervals_were_made() -> None:
    stated = [
        f"{interval_name(metric)}, 1,000 resamples of {size:,} {unit}"
        for metric in ("acc", "auc")
        for size, unit in ((4500, "images"), (1200, "images"), (8, "groups"))
    ]
    sentence = how_intervals_are_made(stated)
    for part in ("1,200 to 4,500 test images or 8 groups", "1,000 times", "Wilson's interval", "logit scale"):
        assert part in sentence
    assert "stated as" not in sentence
    assert "logit" not in how_intervals_are_made(["Wilson, 1,000 resamples of 8 groups"])
    assert how_intervals_are_made(["by hand"]) == "95 % intervals, stated as by hand."
    assert how_intervals_are_made([]) == ""


def test_what_the_sampler_states_of_intervals_is_understood() -> None:
    units, strata = np.arange(300), np.zeros(300, int)
    support = measure_support(units, strata, [np.split(units, 2)])
    for metric in METRICS:
        for grouped in (True, False):
            said = _said(metric, support, grouped=grouped)
            assert "stated as" not in how_intervals_are_made([said])


def test_what_is_not_there_has_no_panel() -> None:
    page = page_of(table([row(method="a", value=90.0)]), benchmark())
    assert 'id="panel-blocks"' not in page
    assert 'id="panel-matrices"' not in page


def test_every_step_of_the_scale_shows_its_ink() -> None:
    for step in SCALE:
        assert contrast(step.light, step.light_ink) >= 4.5
        assert contrast(step.dark, step.dark_ink) >= 4.5


def test_lightness_alone_orders_the_scale() -> None:
    on_black = [(contrast(step.light, "#000000"), contrast(step.dark, "#000000")) for step in SCALE]
    assert [light for light, _ in on_black] == sorted((light for light, _ in on_black), reverse=True)
    assert [dark for _, dark in on_black] == sorted(dark for _, dark in on_black)


def test_a_large_leaderboard_makes_a_page_that_browsers_open() -> None:
    spec = benchmark(test_sets=60)
    page = page_of(large(200, spec, metrics=("acc",)), spec)
    assert len(page) < 1_500_000


def test_charts_are_specified_without_data_of_their_own() -> None:
    specifications = chart_specifications()
    assert all(chart["data"] == {"name": "points"} for chart in specifications.values())
    assert len(json.dumps(specifications)) < 60_000


# ---- Robustness


def test_protocols_of_one_sweep_are_found_by_their_views_and_ordered_by_strength() -> None:
    protocols = {
        name: {"test_sets": ["generator-00", "generator-01"], "view": view}
        for name, view in (("b", "jpeg50"), ("a", "jpeg95"), ("clean", "center224"), ("n", "noise5"))
    }
    spec = benchmark(test_sets=2, protocols=protocols)
    (sweep,) = robustness([spec], {})[spec.name]
    assert sweep["title"] == "JPEG quality"
    assert [(step["label"], step["protocol"]) for step in sweep["steps"]] == [
        ("none", "clean"),
        ("95", "a"),
        ("50", "b"),
    ]


def test_a_view_of_the_configuration_may_be_a_step_and_other_test_sets_are_another_sweep() -> None:
    own = parse(VIEW, {"kind": "center", "prepare": [{"op": "jpeg", "quality": 10}]}, "the view")
    protocols = {
        "a": {"test_sets": ["generator-00"], "view": "jpeg50"},
        "b": {"test_sets": ["generator-00"], "view": "mine"},
        "c": {"test_sets": ["generator-01"], "view": "jpeg30"},
    }
    (sweep,) = robustness([benchmark(test_sets=2, protocols=protocols)], {"mine": own})["made-up"]
    assert [step["label"] for step in sweep["steps"]] == ["50", "10"]


def test_protocols_of_other_test_sets_say_themselves_that_they_are_steps() -> None:
    protocols = {
        name: {"test_sets": [f"generator-{place:02d}"], "sweep": {"along": "strength s", "at": at}}
        for place, (name, at) in enumerate([("strong", 0.2), ("faint", 0.05), ("middle", 0.1)])
    }
    (sweep,) = robustness([benchmark(test_sets=3, protocols=protocols)], {})["made-up"]
    assert sweep["title"] == "strength s"
    assert [(step["label"], step["protocol"]) for step in sweep["steps"]] == [
        ("0.05", "faint"),
        ("0.1", "middle"),
        ("0.2", "strong"),
    ]


def test_every_built_in_sweep_has_a_strength() -> None:
    swept = [name for name in BUILTIN_VIEWS if re.match(r"(jpeg|webp|blur|downscale|noise|rine-)", name)]
    assert len(swept) > 20
    assert all(strength_of(BUILTIN_VIEWS[name]) for name in swept)
    assert strength_of(BUILTIN_VIEWS["center224"]) is None


# ---- Curves


def scored(count: int = 400, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Make two test sets' labels and logits, with ties."""
    rng = np.random.default_rng(seed)
    parts = []
    for shift in (0.5, 2.0):
        labels = rng.integers(0, 2, count)  # (n,)
        parts.append((labels, np.round(rng.normal(0, 1, count) + shift * labels, 1)))
    return parts


def test_the_area_below_the_roc_is_the_mean_auc() -> None:
    parts = scored()
    points = drawn.roc_points(parts)
    area = np.trapezoid(points["y"], points["x"])
    assert area == pytest.approx(np.mean([roc_auc_score(*part) for part in parts]), abs=0.01)
    assert points["x"].is_sorted()
    assert points["y"].is_sorted()


def test_reliability_is_the_share_of_fakes_by_score_as_a_loop_counts_it() -> None:
    ((labels, logits), *_) = scored()
    points = drawn.reliability_points([(labels, logits)])
    scores = 1 / (1 + np.exp(-logits))
    expected = []
    for low in np.arange(10) / 10:
        inside = (scores >= low) & (scores < low + 0.1)
        if inside.any():
            expected.append((scores[inside].mean(), labels[inside].mean(), inside.sum()))
    assert np.allclose(points.select("x", "y", "n").to_numpy(), np.array(expected))


def test_histograms_add_up_to_one_per_class() -> None:
    points = drawn.histogram_points(scored())
    sums = points.group_by("label").agg(pl.col("y").sum(), pl.col("n").sum())
    assert np.allclose(sums["y"], 1)
    assert sums["n"].sum() == 800


def test_curves_of_a_test_set_are_scikit_learns() -> None:
    spec = benchmark(test_sets=2)
    scores = scores_of(["generator-00", "generator-01"])
    drawn_ = drawn.draw_curves(experiment(), [spec], [scores]).filter(protocol="all", test_set="generator-01")
    own = (scores.images["subset"] == "generator-01").to_numpy()
    labels, logits = scores.images["label"].to_numpy()[own], scores.logits[0][own].astype(np.float64)  # (n,)
    roc = drawn_.filter(curve=drawn.ROC)
    false, true, _ = roc_curve(labels, logits, drop_intermediate=False)
    for x, y in roc.select("x", "y").iter_rows():
        if np.isclose(false, x).any():
            assert y == pytest.approx(true[np.isclose(false, x)].max())
    assert np.trapezoid(roc["y"], roc["x"]) == pytest.approx(roc_auc_score(labels, logits), abs=0.02)
    share, score = calibration_curve(labels, 1 / (1 + np.exp(-logits)), n_bins=drawn.RELIABILITY_BINS)
    assert np.allclose(drawn_.filter(curve=drawn.RELIABILITY).select("x", "y").to_numpy(), np.stack([score, share], 1))


def test_the_page_keeps_curves_to_a_thousandth_the_best_methods_first() -> None:
    curves = curves_of(methods=3, test_sets=2)
    kept = kept_curves(curves)["made-up", "all"]
    assert kept["methods"] == [(f"method-{number}", "train-a") for number in (2, 1, 0)]
    assert list(kept["sets"]) == [MEAN, "generator-00", "generator-01"]
    assert kept["left_out"] == 0
    for test_set, of_methods in kept["sets"].items():
        for (method, _), found in zip(kept["methods"], of_methods, strict=True):
            own = curves.filter(test_set=test_set, method=method)
            roc, fake = own.filter(curve=drawn.ROC), own.filter(curve=drawn.HISTOGRAM, label="fake")
            assert np.allclose(np.array(found["roc"]) / 1000, roc["y"], atol=0.0005)
            assert np.allclose(np.array(found["fake"]) / 1000, fake["y"], atol=0.0005)
            assert sum(found["reliability"][2]) == (120 if test_set == MEAN else 60)


def test_curves_of_single_test_sets_stay_within_their_budget_and_those_of_means_are_kept() -> None:
    curves = curves_of(methods=6, test_sets=4)
    other = curves.with_columns(protocol=pl.lit("other"))
    budget = 10_000
    kept = kept_curves(pl.concat([curves, other]), budget)
    size = 0
    for protocol in kept.values():
        assert None not in protocol["sets"][MEAN]
        single = [found for name, of_methods in protocol["sets"].items() if name != MEAN for found in of_methods]
        size += sum(len(json.dumps(found, separators=(",", ":"))) for found in single if found)
        assert single.count(None) == 4 * protocol["left_out"]
    assert budget / 2 < size <= budget
    assert {protocol["left_out"] for protocol in kept.values()} == {4}


def test_what_was_measured_of_a_protocol_has_curves_though_its_mean_has_none() -> None:
    curves = curves_of(methods=2, test_sets=3).filter(~pl.col("test_set").is_in([MEAN, "generator-01"]))
    kept = kept_curves(curves)["made-up", "all"]
    assert list(kept["sets"]) == ["generator-00", "generator-02"]
    assert kept["methods"][0] == ("method-1", "train-a")


def test_a_lone_test_set_has_the_curves_of_its_mean_once() -> None:
    kept = kept_curves(curves_of(methods=2, test_sets=1))["made-up", "all"]
    assert list(kept["sets"]) == [MEAN]
    assert kept["left_out"] == 0


def experiment() -> ExperimentSpec:
    return ExperimentSpec.model_validate(
        {
            "encoder": "e",
            "tap": "ln_2",
            "training_set": "train-a",
            "seeds": [0],
            "methods": {"linear": {"head": {"kind": "linear"}, "training": {"xi": 0}}},
        }
    )


def scores_of(subsets: list[str]) -> Scores:
    rng = np.random.default_rng(1)
    labels = [0, 1] * 10 * len(subsets)
    images = pl.DataFrame(
        {
            "image_id": [f"{number}.png" for number in range(len(labels))],
            "label": pl.Series(labels, dtype=pl.Int8),
            "subset": [subset for subset in subsets for _ in range(20)],
            "split": None,
            "variant": None,
            "group": None,
        },
        schema_overrides=dict.fromkeys(("split", "variant", "group"), pl.String),
    )
    header = {"dataset": "images", "view": "center224", "heads": [{"method": "linear", "seed": 0, "fingerprint": "f"}]}
    return Scores(header, images, rng.normal(size=(1, len(labels))).astype(np.float32))


def test_a_protocol_has_curves_of_its_mean_only_where_all_of_it_was_scored() -> None:
    spec = benchmark(test_sets=2)
    whole = drawn.draw_curves(experiment(), [spec], [scores_of(["generator-00", "generator-01"])])
    assert set(whole["protocol"]) == {"all", "first"}
    assert set(whole["curve"]) == {drawn.ROC, drawn.RELIABILITY, drawn.HISTOGRAM}
    part = drawn.draw_curves(experiment(), [spec], [scores_of(["generator-00"])])
    assert set(part.select("protocol", "test_set").unique().iter_rows()) == {
        ("all", "generator-00"),
        ("first", "generator-00"),
        ("first", MEAN),
    }


def test_nothing_scored_gives_an_empty_table_that_can_be_read(tmp_path: Path) -> None:
    empty = drawn.draw_curves(experiment(), [benchmark()], [])
    drawn.write_curves(empty, tmp_path / "curves.parquet")
    assert drawn.read_curves(tmp_path / "curves.parquet").is_empty()


# ---- Commands


def test_the_command_writes_the_page(rine_cache: Callable[..., Answer], tmp_path: Path) -> None:
    table_path = tmp_path / "leaderboard.parquet"
    write_leaderboard(table([row(method="a", value=90.0)]).select(SCHEMA.names()), table_path)
    curves_path = tmp_path / "curves.parquet"
    spec = benchmark().model_dump_json()
    answer = rine_cache(
        "leaderboard", "curves", experiment().model_dump_json(), "--benchmark", spec, "--out", curves_path
    )
    assert answer.status == 0, answer.err
    out = tmp_path / "page.html"
    arguments = ("--leaderboard", table_path, "--benchmark", spec, "--curves", curves_path, "--out", out)
    answer = rine_cache("leaderboard", "page", *arguments)
    assert answer.status == 0, answer.err
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_command_refuses_what_is_no_leaderboard(rine_cache: Callable[..., Answer], tmp_path: Path) -> None:
    message = refused(rine_cache("leaderboard", "page", "--leaderboard", tmp_path / "no.parquet", "--out", "page.html"))
    assert "is not a leaderboard" in message
