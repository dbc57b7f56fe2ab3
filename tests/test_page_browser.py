"""The page in headless Chromium: it works by mouse and keyboard, in both themes, on paper and on a phone, offline."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from rine_cache import curves as drawn
from rine_cache.matrix import NOTE, TRAINING_SET, UNSEEN
from rine_cache.page.build import Extras, build_page, write_page
from rine_cache.page.kept_curves import kept_curves
from rine_cache.page.palette import contrast
from rine_cache.published_differences import AGREES, DISAGREES, NOT_JUDGED
from rine_cache.specs.ablation import AblationSpec
from rine_cache.specs.benchmark import MEAN
from rine_cache.specs.matrix import MatrixSpec
from tests.page_data import HOSTILE, benchmark, curves_of, large, published, row, table

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[dev]")
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Locator, Page

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine: install Debian's chromium, or name one in $CHROMIUM"
)
DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
METHODS = {"strong": 95.0, "weak": 61.5, HOSTILE: 80.0}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a page with everything on it: measured, published, oracle, baseline, unmeasured, and all of the plots."""
    rows: list[dict[str, Any]] = []
    for metric, offset in (("acc", 0.0), ("auc", 2.0)):
        for number, (method, value) in enumerate(METHODS.items()):
            for place, test_set in enumerate((MEAN, "generator-00", "generator-01", "generator-02")):
                made = {"method": method, "metric": metric, "test_set": test_set, "value": value + offset - 3 * place}
                made |= {"training_set": "train-b" if method == "weak" else "train-a"}
                made |= {"n_leaked": 7 if method == "weak" and place == 1 else 0, "n_quarantined": 4}
                made |= {"ci_method": "stratified bootstrap", "trainable_parameters": 10 ** (number + 2)}
                made |= {"tied_with_best": method == HOSTILE, "rank": number + 1}
                rows.append(row(**made))
        rows.append(row(method="metadata-only", metric=metric, value=99.5, oracle=True, head="forest", encoder=None))
        rows.append(row(method="peeping", metric=metric, value=99.0, oracle=True, note="best test threshold"))
        rows.append(row(method="waiting", metric=metric, value=None, coverage="0/3", n_real=None, n_fake=None))
    ours = {"measured_value": 95.0, "measured_ci_low": 93.5, "measured_ci_high": 96.5, "measured_difference": 2.0}
    ours |= {
        "measured_method": "strong",
        "measured_verdict": DISAGREES,
        "measured_remarks": f"tested otherwise {HOSTILE}",
    }
    rows.append(published("strong", value=93.0, note=f"</script>{HOSTILE}", **ours))
    rows += [published("b-paper", value=0.0, benchmark="second", protocol="theirs", coverage=None)]
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 50)  # (n,)
    # The first generator is easy, the third is not.
    parts = [(labels, rng.normal(size=100) + strength * labels) for strength in (3.0, 1.0, 0.0)]
    of_sets = {MEAN: parts, **{f"generator-{number:02d}": [part] for number, part in enumerate(parts)}}
    curves = pl.concat(
        [
            make(own).with_columns(
                benchmark=pl.lit("made-up"),
                protocol=pl.lit("all"),
                test_set=pl.lit(test_set),
                training_set=pl.lit("train-a"),
                method=pl.lit("strong"),
            )
            for test_set, own in of_sets.items()
            for make in (drawn.roc_points, drawn.reliability_points, drawn.histogram_points)
        ],
        how="diagonal_relaxed",
    )
    weights = {"curve": drawn.BLOCK_WEIGHT, "method": HOSTILE, "training_set": "a", "x": [0.0, 1.0], "y": [0.4, 0.6]}
    curves = pl.concat([pl.DataFrame(schema=drawn.SCHEMA), curves, pl.DataFrame(weights)], how="diagonal_relaxed")
    out = tmp_path_factory.mktemp("page") / "leaderboard.html"
    extras = Extras(curves=[curves], ablations=[ablation()], matrices=[matrix()])
    steps = {"clean": "center224", "mild": "jpeg95", "harsh": "jpeg30"}
    protocols = {name: {"test_sets": ["generator-00", "generator-01"], "view": view} for name, view in steps.items()}
    for number, name in enumerate(steps):
        rows.append(row(method="strong", benchmark="swept", protocol=name, value=90.0 - 10 * number))
    second = benchmark("second", protocols={"theirs": {"test_sets": ["generator-00", "generator-01"]}})
    swept = benchmark("swept", protocols=protocols)
    page = build_page(table(rows), [benchmark(), second, swept], datetime(2026, 5, 17, tzinfo=UTC), "0.1.0", extras)
    write_page(page, out)
    return out


def ablation() -> tuple[AblationSpec, pl.DataFrame]:
    spec = {"title": HOSTILE, "experiment": "e", "method": "strong", "subsets": ["each"], "metrics": ["acc"]}
    rows = [
        {"family": family, "block": block, "method": "m", "blocks": [block], "validation_loss": 0.5, "test_set": name}
        | {"metric": "acc", "value": 60.0 + block, "std": 1.0, "seed_count": 3, "coverage": "3/3", "n_real": 5}
        | {"n_fake": 5, "n_quarantined": 0, "note": HOSTILE}
        for family, block in (("each", 0), ("each", 1), ("all", 2))
        for name in ("generator-00", "generator-01", MEAN)
    ]
    described = AblationSpec.model_validate({**spec, "benchmark": "made-up", "protocol": "all"})
    return described, pl.DataFrame(rows)


def matrix() -> tuple[MatrixSpec, pl.DataFrame]:
    rows = [{"training_set": "train-a", "trained_on": ["generator-00"]}]
    spec = {"title": "Who", "benchmark": "made-up", "protocol": "all", "method": "strong", "rows": rows}
    numbers = {"generator-00": [99.0], "generator-01": [None], MEAN: [None], UNSEEN: [None]}
    frame = pl.DataFrame({TRAINING_SET: ["train-a"], **numbers, NOTE: [None]}).with_columns(
        pl.col("generator-01", MEAN, UNSEEN).cast(pl.Float64), pl.col(NOTE).cast(pl.String)
    )
    return MatrixSpec.model_validate(spec), frame


@pytest.fixture
def visit(browser: Browser, page_file: Path) -> Iterator[Callable[..., Page]]:
    """Open the page; afterwards nothing was said on its console, and it asked for nothing but itself."""
    troubles: list[str] = []
    contexts = []

    def open_page(path: Path = page_file, address: str = "", **context: Any) -> Page:
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context}))
        page = contexts[-1].new_page()
        page.set_default_timeout(5000)
        url = path.as_uri()
        page.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: troubles.append(dialog.message))
        page.on("request", lambda asked: None if asked.url.split("#")[0] == url else troubles.append(asked.url))
        page.goto(url + address)
        page.locator("[role=tabpanel]:not([hidden]):not([aria-busy])").wait_for()
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:
            assert page.evaluate("window.hacked") is None
        context.close()
    assert troubles == []


def methods(page: Page, group: str = "ranked") -> list[str]:
    names: Locator = page.locator(f".panel:not([hidden]) tbody[data-group={group}] tr:not([hidden]) .name")
    return names.all_text_contents()


def field(page: Page, label: str) -> Locator:
    return page.get_by_label(label, exact=True).locator("visible=true")


def write(folder: Path, rows: list[dict[str, Any]], **extras: Any) -> Path:
    page = build_page(table(rows), [benchmark()], datetime(2026, 5, 17, tzinfo=UTC), "0.1.0", Extras(**extras))
    write_page(page, folder / "page.html")
    return folder / "page.html"


def cell_of(page: Page, method: str, column: str = MEAN) -> Locator:
    row_ = page.locator(".panel:not([hidden]) .scroll tr", has=page.get_by_text(method, exact=True)).first
    return row_.locator(f"[data-column='{column}']")


def open_data(figure: Locator) -> None:
    figure.get_by_text("Data as a table").click()
    figure.locator("tbody tr").first.wait_for()


def value_of(page: Page, method: str, column: str = MEAN) -> str:
    return cell_of(page, method, column).inner_text()


def test_lines_stand_in_their_groups_the_best_first(visit: Callable[..., Page]) -> None:
    page = visit()
    assert methods(page) == ["strong", "strong", HOSTILE, "weak"]
    assert methods(page, "baseline") == ["metadata-only"]
    assert methods(page, "oracle") == ["peeping"]
    assert methods(page, "unmeasured") == ["waiting"]
    assert value_of(page, "waiting") == DASH
    assert "never ranked" in page.locator("tbody[data-group=oracle] tr.heading").inner_text()
    # An oracle is better than all, and is not the column's best.
    assert page.locator(".panel:not([hidden]) td.mean.best").inner_text() == "95.0"


def test_tabs_go_by_mouse_and_by_keyboard(visit: Callable[..., Page]) -> None:
    page = visit()
    page.get_by_role("tab", name="Second").click()
    assert page.get_by_role("tabpanel").count() == 1
    assert value_of(page, "b-paper") == "0.0"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", name="Blocks").get_attribute("aria-selected") == "true"
    page.keyboard.press("Home")
    assert page.evaluate("document.activeElement.textContent") == "Made-Up"
    page.keyboard.press("End")
    assert page.get_by_role("tab", name="Cross-generator").get_attribute("aria-selected") == "true"
    assert page.locator("#panel-matrices td").all_text_contents() == ["99.0 seen in training", DASH, DASH, DASH]


def test_columns_sort_both_ways_and_say_so(visit: Callable[..., Page]) -> None:
    page = visit()
    head = page.locator("th[data-column='generator-01']").first
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert methods(page)[0] == "strong"
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    # The published line states no such number: it is last either way.
    assert methods(page) == ["weak", HOSTILE, "strong", "strong"]
    page.locator("th[data-column='*method'] button").first.click()
    assert methods(page) == [HOSTILE, "strong", "strong", "weak"]
    assert page.locator("th[aria-sort]").count() == 1


def test_filters_leave_what_they_say(visit: Callable[..., Page]) -> None:
    page = visit()
    field(page, "Method").fill("STRO")
    assert methods(page) == ["strong", "strong"]
    page.locator("label", has_text="published").locator("visible=true").click()
    assert methods(page) == ["strong"]
    assert "1 of 7 lines shown" in page.locator("[role=status]:visible").inner_text()
    field(page, "Method").fill("")
    field(page, "Training set").select_option("train-b")
    assert methods(page) == ["weak"]
    field(page, "Training set").select_option("any")
    field(page, "Encoder").select_option("clip-vit-b16")
    assert methods(page, "baseline") == []


def test_the_metric_and_the_protocol_switch(visit: Callable[..., Page]) -> None:
    page = visit()
    field(page, "Metric").select_option("AUC")
    assert value_of(page, "weak") == "63.5"
    assert "AUC, %" in page.locator("caption:visible").inner_text()
    assert "1 more published line does not state this metric" in page.locator("[role=status]:visible").inner_text()
    assert page.evaluate("location.hash") == "#made-up/all/auc"


def test_an_address_opens_what_it_names(visit: Callable[..., Page]) -> None:
    page = visit(address="#made-up/all/auc")
    assert value_of(page, "weak") == "63.5"


def test_details_come_by_keyboard_as_by_mouse(visit: Callable[..., Page]) -> None:
    page = visit()
    cell = page.locator("tr", has=page.get_by_text("weak", exact=True)).locator("td[data-column='generator-00']").first
    cell.hover()
    tip = page.get_by_role("tooltip")
    for text in ("58.50 %", "57.00 to 60.00", "1,000 real, 1,000 fake", "quarantined", "4", "leaked", "7"):
        assert text in tip.inner_text()
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    page.locator(".scroll:visible tbody [tabindex='0']").first.focus()
    assert "trained on" in tip.inner_text()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "strong on the mean" in tip.inner_text()
    page.keyboard.press("ArrowDown")
    assert "arXiv:0000.00000, Table 1" in tip.inner_text()
    assert page.evaluate("document.activeElement.getAttribute('aria-describedby')") == "tip"


def test_details_stay_with_the_focus_while_the_table_scrolls_below_a_mouse_that_lies_still(
    visit: Callable[..., Page],
) -> None:
    page = visit(viewport={"width": 360, "height": 740})
    page.locator(".scroll:visible").hover()
    page.locator(".scroll:visible tbody [tabindex='0']").focus()
    tip = page.get_by_role("tooltip")
    for place in ("rank", "mean", "generator-00", "generator-01", "generator-02"):
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(150)  # for what scrolling sets off
        assert (place if place != "rank" else "trained on") in tip.inner_text()
        cell, told = page.locator("td:focus").bounding_box(), tip.bounding_box()
        assert cell is not None
        assert told is not None
        assert abs(told["y"] - cell["y"] - cell["height"]) < 20 or told["y"] + told["height"] <= cell["y"]


def test_the_table_is_two_stops_for_the_keyboard_and_its_header_sorts(visit: Callable[..., Page]) -> None:
    page = visit()
    stops = page.locator(".scroll:visible [tabindex='0']")
    assert stops.evaluate_all("all => all.map(e => e.tagName)") == ["BUTTON", "TH"]
    page.locator(".scroll:visible tbody [tabindex='0']").focus()
    for key in ("ArrowUp", "End", "ArrowLeft", "ArrowLeft", "Enter"):
        page.keyboard.press(key)
    assert page.locator("th[aria-sort]:visible").get_attribute("data-column") == "generator-02"
    assert page.evaluate("document.activeElement.textContent") == "generator-02"
    page.keyboard.press("ArrowDown")
    assert "strong on generator-02" in page.get_by_role("tooltip").inner_text()
    assert stops.count() == 2


def test_intervals_stand_in_the_cells_when_asked(visit: Callable[..., Page]) -> None:
    page = visit()
    page.locator("label", has_text="intervals").locator("visible=true").click()
    assert f"60.0{DASH}63.0" in value_of(page, "weak")


def test_leaks_are_marked(visit: Callable[..., Page]) -> None:
    page = visit()
    assert value_of(page, "weak", "generator-00").startswith("L")
    assert "leak in 1 test set" in page.locator("tr", has=page.get_by_text("weak", exact=True)).first.inner_text()


@pytest.mark.parametrize(
    ("tied", "marked", "said"),
    [
        ({"b": True, "c": True, "d": True}, {}, "No measured method is told apart"),
        ({"b": False, "c": False, "d": False}, {}, "Every measured method is told apart"),
        ({"b": True, "c": False, "d": False}, {"b": "≈"}, "≈: not told apart"),
        ({"b": True, "c": True, "d": False}, {"d": "▾"}, "▾: worse than the best"),
    ],
)
def test_of_ties_the_fewer_are_marked(
    visit: Callable[..., Page], tmp_path: Path, tied: dict[str, bool], marked: dict[str, str], said: str
) -> None:
    rows = [row(method="a", value=90.0, tied_with_best=True)]
    rows += [row(method=name, value=80.0, tied_with_best=is_tied) for name, is_tied in tied.items()]
    rows.append(published("e", value=70.0))
    page = visit(write(tmp_path, rows))
    assert said in page.locator("caption:visible").inner_text()
    found = {name: value_of(page, name).strip("0123456789.") for name in "abcde"}
    assert found == {name: marked.get(name, "") for name in "abcde"}
    # Whatever is drawn, it is said of each that was compared.
    for name, is_tied in tied.items():
        label = "not told apart from the best" if is_tied else "worse than the best"
        assert label in cell_of(page, name).get_attribute("aria-label")
    assert "best" not in cell_of(page, "e").get_attribute("aria-label")


def test_published_stands_beside_measured(visit: Callable[..., Page], tmp_path: Path) -> None:
    ours = {"measured_method": "a", "measured_value": 95.0, "measured_ci_low": 93.5, "measured_ci_high": 96.5}
    rows = [row(method=name, value=95.0) for name in ("a", "as-good")] + [published("other", value=60.0)]
    for source, value, verdict, remarks in (
        ("far", 91.0, DISAGREES, "ours: another view"),
        ("near", 95.5, AGREES, ""),
        ("odd", 96.0, NOT_JUDGED, "theirs: an oracle"),
    ):
        beside = {"measured_difference": 95.0 - value, "measured_verdict": verdict, "measured_remarks": remarks}
        rows.append(published("a", value=value, source=source, **ours, **beside))
    page = visit(write(tmp_path, rows))
    drawn_ = {
        line.locator(".source").inner_text(): line.locator(".mean .beside").inner_text()
        for line in page.locator("tr[data-line]", has=page.locator(".beside")).all()
    }
    assert drawn_ == {"far": "≠ +4.0*", "near": f"{MINUS}0.5", "odd": f"({MINUS}1.0)*"}
    status = page.locator("[role=status]:visible").inner_text()
    assert (
        "Of 2 published values beside ours, 1 lies within our interval and 1 does not; 1 more is not judged" in status
    )
    # In the details of either side stand the other's number, the difference and what differs.
    tip = page.get_by_role("tooltip")
    page.locator("tr[data-line='0'] td.mean").hover()
    for text in (
        "91.00 %, a, far",
        "+4.00, outside our 95 % interval",
        "ours: another view",
        "95.50 %, a, near",
    ):
        assert text in tip.inner_text()
    page.locator("tr[data-line]", has=page.get_by_text("far", exact=True)).locator("td.mean").hover()
    for text in ("measured", "95.00 % (93.50 to 96.50), a", "+4.00, outside our 95 % interval", "ours: another view"):
        assert text in tip.inner_text()
    page.locator("label", has_text="only with both").locator("visible=true").click()
    assert methods(page) == ["a", "a", "a", "a"]


def test_a_cell_tells_what_is_said_of_its_interval(visit: Callable[..., Page], tmp_path: Path) -> None:
    stated = "logit, 1,000 resamples of 64 images; from above alone"
    page = visit(write(tmp_path, [row(method="a", value=95.0, ci_low=0.0, ci_method=stated)]))
    cell_of(page, "a").hover()
    assert "0.00 to 96.50, from above alone" in page.get_by_role("tooltip").inner_text()


def test_without_published_beside_measured_nothing_speaks_of_it(visit: Callable[..., Page], tmp_path: Path) -> None:
    page = visit(write(tmp_path, [row(method="a", value=95.0), published("b", value=60.0)]))
    assert page.locator(".beside:visible, [data-key=beside]:visible").count() == 0
    assert page.locator("label:visible", has_text="only with both").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_cell_can_be_read_in_both_themes(visit: Callable[..., Page], scheme: str) -> None:
    page = visit(color_scheme=scheme)
    colours = page.locator("td.num:visible").evaluate_all(
        """cells => cells.map(cell => { const paint = getComputedStyle(cell);
             const solid = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
               if (!c.endsWith(', 0)')) return c; } };
             return [paint.color, solid(cell)]; })"""
    )
    assert len(colours) > 10
    for ink, paper in colours:
        assert contrast(hexadecimal(ink), hexadecimal(paper)) >= 4.5


def hexadecimal(colour: str) -> str:
    channels = colour[colour.index("(") + 1 : -1].split(",")[:3]
    return "#" + "".join(f"{int(channel):02x}" for channel in channels)


def test_the_theme_follows_the_system_until_it_is_chosen(visit: Callable[..., Page]) -> None:
    page = visit(color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.locator(".theme label", has_text="Light").click()
    light = page.evaluate(background)
    assert light != dark
    page.reload()
    assert page.evaluate(background) == light
    assert page.locator(".theme input:checked").get_attribute("value") == "light"


def test_a_phone_scrolls_the_table_and_not_the_page(visit: Callable[..., Page]) -> None:
    page = visit(viewport={"width": 360, "height": 740})
    for tab in page.get_by_role("tab").all():
        tab.click()
        assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.get_by_role("tab").first.click()
    holder = page.locator(".scroll:visible")
    holder.evaluate("element => { element.scrollLeft = 200 }")
    name = page.locator("tbody th[scope=row]:visible").first.bounding_box()
    assert name is not None
    assert name["x"] < 30


def test_plots_are_drawn_and_have_their_data_as_a_table(visit: Callable[..., Page]) -> None:
    page = visit()
    for name in ("roc", "reliability", "histogram", "size"):
        page.locator(f"[data-plot={name}]:visible svg.marks").wait_for()
    page.locator("details").evaluate_all("all => all.forEach(each => { each.open = true })")
    for figure in page.locator("figure:visible").all():
        figure.locator("thead th").first.wait_for()
    heads = page.locator("figure:visible thead th").all_text_contents()
    assert len(heads) > 12
    assert "undefined" not in heads
    page.locator("details").evaluate_all("all => all.forEach(each => { each.open = false })")
    assert page.locator("[data-plot=robustness]:visible").count() == 0
    figure = page.locator("[data-plot=size]:visible")
    open_data(figure)
    assert "61.5" in figure.locator("tbody").inner_text()
    # Only one method has curves: of another there are none to show.
    field(page, "Highlighted method").select_option("weak")
    page.locator("[data-plot=reliability]").first.wait_for(state="hidden")
    page.get_by_role("tab", name="Blocks").click()
    for name in ("ablation", "weights"):
        page.locator(f"[data-plot={name}]:visible svg.marks").wait_for()
    open_data(page.locator("[data-plot=ablation]"))
    heads = page.locator("[data-plot=ablation] thead th").all_text_contents()
    assert heads[:4] == ["test set", "lowest validation loss", "the one block read", "accuracy, %"]


def test_curves_follow_the_chosen_test_set_and_tell_which_generator_fails(visit: Callable[..., Page]) -> None:
    page = visit()
    figure = page.locator("[data-plot=roc-sets]:visible")
    figure.locator("svg.marks").wait_for()
    open_data(figure)
    rows = [row_.split()[0] for row_ in figure.locator("tbody tr").all_inner_texts()]
    assert figure.locator("thead th").all_text_contents() == [
        "test set",
        "false-positive rate",
        "true-positive rate",
        "images",
    ]
    # The mean, and then the hardest generator first.
    assert list(dict.fromkeys(rows)) == [MEAN, "generator-02", "generator-01", "generator-00"]
    shares = page.locator("[data-plot=reliability]:visible")
    open_data(shares)
    of_mean = shares.locator("tbody").inner_text()
    field(page, "Test set of the curves").select_option("generator-02")
    of_third = shares.locator("tbody").inner_text()
    assert of_third != of_mean
    assert sum(int(line.split()[-1]) for line in of_third.splitlines()) == 100
    # A method without curves has none of any test set.
    field(page, "Highlighted method").select_option("weak")
    figure.wait_for(state="hidden")


def test_a_page_that_leaves_curves_out_says_so(
    visit: Callable[..., Page], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = (MEAN, "generator-00", "generator-01", "generator-02")
    rows = [row(method=f"method-{number}", value=90.0, test_set=each) for number in range(3) for each in sets]
    # Three test sets take a method 1.5 to 2 kB.
    monkeypatch.setattr("rine_cache.page.build.kept_curves", partial(kept_curves, budget=3000))
    page = visit(write(tmp_path, rows, curves=[curves_of(methods=3, test_sets=3)]))
    note = page.locator("[data-left-out]:visible").inner_text()
    assert "for the 1 method with the largest area below the ROC; 2 others have those of the mean only" in note
    field(page, "Highlighted method").select_option("method-0")
    assert page.locator("[data-plot=reliability]").is_visible()
    field(page, "Test set of the curves").select_option("generator-01")
    page.locator("[data-plot=reliability]").first.wait_for(state="hidden")


def test_a_sweep_is_drawn_from_none_to_the_strongest(visit: Callable[..., Page]) -> None:
    page = visit(address="#swept")
    figure = page.locator("[data-plot=robustness]:visible")
    figure.locator("svg.marks").wait_for()
    assert field(page, "Along").inner_text() == "JPEG quality"
    open_data(figure)
    rows = figure.locator("tbody tr").all_inner_texts()
    assert [row_.split() for row_ in rows] == [["strong", "none", "90"], ["strong", "95", "80"], ["strong", "30", "70"]]


def test_on_paper_the_tables_are_set_in_parts(visit: Callable[..., Page], tmp_path: Path) -> None:
    spec = benchmark("wide", test_sets=30)
    page_of_many = build_page(large(4, spec), [spec], datetime(2026, 5, 17, tzinfo=UTC), "0.1.0")
    write_page(page_of_many, tmp_path / "wide.html")
    page = visit(tmp_path / "wide.html")
    field(page, "Method").fill("method-001")
    paper = page.pdf()
    assert paper.startswith(b"%PDF")
    assert len(paper) > 10_000
    tables = page.locator(".print-boards table")
    assert tables.count() == 3
    heads = [text for each in tables.all() for text in each.locator("thead th").all_text_contents()]
    assert set(heads) == {"method", MEAN, *spec.test_sets}
    assert page.locator(".print-boards .name").all_text_contents() == ["method-001"] * 3


def test_two_hundred_methods_on_sixty_test_sets_stay_usable(visit: Callable[..., Page], tmp_path: Path) -> None:
    spec = benchmark("large", test_sets=60)
    write_page(
        build_page(large(200, spec, metrics=("acc",)), [spec], datetime(2026, 5, 17, tzinfo=UTC), "0.1.0"),
        tmp_path / "large.html",
    )
    page = visit(tmp_path / "large.html")
    assert page.locator(".scroll td.num").count() == 200 * 61
    assert page.evaluate("document.documentElement.scrollWidth") == 1280
    page.locator("th[data-column='generator-59'] button").first.click()
    values = page.locator("td[data-column='generator-59']").evaluate_all(
        "cells => cells.map(c => parseFloat(c.textContent))"
    )
    assert values == sorted(values, reverse=True)
    # Header and first column stay where they are seen.
    page.locator(".scroll:visible").evaluate("element => { element.scrollTop = 3000; element.scrollLeft = 2000 }")
    head = page.locator("thead th[data-column='*method']:visible").first.bounding_box()
    frame = page.locator(".scroll:visible").bounding_box()
    assert head is not None
    assert frame is not None
    assert abs(head["x"] - frame["x"]) < 3
    assert abs(head["y"] - frame["y"]) < 3


def test_assistive_technology_finds_its_way(visit: Callable[..., Page]) -> None:
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the tables"
    assert page.evaluate("document.documentElement.lang") == "en"
    for tab in page.get_by_role("tab").all():
        panel = page.locator("#" + str(tab.get_attribute("aria-controls")))
        assert panel.get_attribute("aria-labelledby") == tab.get_attribute("id")
    unlabelled = page.locator("select, input").evaluate_all("fields => fields.filter(f => !f.labels.length).length")
    assert unlabelled == 0
    table_ = page.locator("table.board:visible").first
    assert table_.locator("caption").count() == 1
    assert table_.locator("thead th:not([scope=col])").count() == 0
    identifiers = page.locator("[id]").evaluate_all("all => all.map(e => e.id).filter(id => !id.startsWith('vg-'))")
    assert len(identifiers) == len(set(identifiers))


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_nothing_that_keeps_anybody_out(visit: Callable[..., Page], scheme: str, width: int) -> None:
    reason = "axe is not installed: pip install -e .[dev]"
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason=reason).Axe()
    page = visit(color_scheme=scheme, viewport={"width": width, "height": 900})
    for tab in page.get_by_role("tab").all():
        tab.click()
        for drawing in page.locator("[role=img]:visible").all():
            drawing.locator("svg.marks").wait_for()
        page.locator("details").evaluate_all("all => all.forEach(each => { each.open = true })")
        for cell in page.locator("tbody [data-column]:visible").all()[2:3]:
            cell.focus()
            page.wait_for_timeout(100)  # for what scrolling to it sets off
            assert page.get_by_role("tooltip").is_visible()
        found = axe.run(page).response
        assert len(found["passes"]) > 20
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]] == []


def test_a_screen_reader_hears_what_the_eye_sees(visit: Callable[..., Page]) -> None:
    page = visit()
    page.locator("[data-plot=roc]:visible svg.marks").wait_for()
    names = read_aloud(page)
    for spoken in (
        "grid accuracy, % · all: mean of 3 test sets. 1,000 real and 1,000 fake images, 4 more could not be read.",
        "rowheader weak, measured, train-b, clip-vit-b16",
        "gridcell 61.5 %, 95 % interval 60.0 to 63.0",
        "gridcell 58.5 %, 95 % interval 57.0 to 60.0, worse than the best, 7 images of its training set",
        "gridcell 95.0 %, best of its column, 95 % interval 93.5 to 96.5",
        "gridcell 93.0 %, ours 95.0 %, +2.0, outside our 95 % interval",
        "columnheader generator-00",
        "tab Made-Up",
        "figure ROC",
        "image ROC. True-positive against false-positive rate on mean, of strong; highlighted is strong. The numbers",
    ):
        assert any(name.startswith(spoken) for name in names), spoken
    # What Vega draws is part of that image, and not read mark by mark.
    assert not any(name.startswith("graphics-") for name in names)


def read_aloud(page: Page) -> list[str]:
    """List the role and name of everything that Chromium gives to a screen reader."""
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    seen = [node for node in nodes if not node["ignored"]]
    return [f"{node['role']['value']} {node.get('name', {}).get('value', '')}" for node in seen]
