from __future__ import annotations

import json
import random
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from PIL import Image

from rine_cache.cli.results import leaderboard as leaderboard_command
from rine_cache.errors import ConfigError, ResultsError
from rine_cache.heatmap import draw_matrix
from rine_cache.leaderboard import SCHEMA, write_leaderboard
from rine_cache.matrix import OVERALL, build_matrix, render_matrix
from rine_cache.specs.base import parse
from rine_cache.specs.benchmark import BenchmarkSpec
from rine_cache.specs.config import config_from, load_benchmarks
from rine_cache.specs.matrix import MatrixSpec

if TYPE_CHECKING:
    from pathlib import Path

TEST_SETS = ["adm", "glide", "vqdm", "biggan"]
SHORT = ["glide", "vqdm", "biggan"]
BENCHMARK: dict[str, Any] = {
    "name": "mine",
    "title": "Mine",
    "test_sets": {name: {"dataset": "mine", "subsets": [name]} for name in sorted(TEST_SETS)},
    "protocols": {"mine-4": {"test_sets": TEST_SETS}, "mine-3": {"test_sets": SHORT}},
}
ROWS: list[dict[str, Any]] = [
    {"training_set": "on-vqdm", "trained_on": ["vqdm"]},
    {"training_set": "on-adm", "trained_on": ["adm"]},
    {"training_set": "elsewhere", "trained_on": []},
]
MATRIX: dict[str, Any] = {
    "title": "Who knows whom",
    "benchmark": "mine",
    "protocol": "mine-4",
    "method": "RINE",
    "rows": ROWS,
}
EVERYWHERE = {"training_set": "everywhere", "trained_on": TEST_SETS}


def spec_of(**changes: Any) -> MatrixSpec:
    return MatrixSpec.model_validate({**MATRIX, **changes})


def rows_of(
    spec: MatrixSpec, values: dict[tuple[str, str], float | None], test_sets: list[str], **changes: Any
) -> list[dict[str, Any]]:
    """Make a leaderboard's measured rows of a matrix, each protocol's mean among them."""
    shared = {"kind": "measured", "benchmark": "mine", "protocol": spec.protocol, "metric": spec.metric}
    rows = []
    for training_set in (row.training_set for row in spec.rows):
        cells = {test_set: values[training_set, test_set] for test_set in test_sets}
        known = [value for value in cells.values() if value is not None]
        cells["mean"] = sum(known) / len(known) if len(known) == len(test_sets) else None
        for test_set, value in cells.items():
            row = {"training_set": training_set, "test_set": test_set, "value": value, "method": spec.method}
            rows.append({**shared, **row, **changes})
    return rows


def numbers_of(spec: MatrixSpec, seed: int = 0) -> dict[tuple[str, str], float | None]:
    draw = random.Random(seed)
    return {(row.training_set, test_set): draw.uniform(50, 100) for row in spec.rows for test_set in TEST_SETS}


def build(spec: MatrixSpec, rows: list[dict[str, Any]]) -> pl.DataFrame:
    shuffled = random.Random(1).sample(rows, len(rows))
    return build_matrix(pl.DataFrame(shuffled, schema=SCHEMA), spec, BenchmarkSpec.model_validate(BENCHMARK))


def built(spec: MatrixSpec | None = None, *missing: tuple[str, str], **changes: Any) -> pl.DataFrame:
    spec = spec or spec_of()
    values: dict[tuple[str, str], float | None] = {**numbers_of(spec), **dict.fromkeys(missing)}
    return build(spec, rows_of(spec, values, TEST_SETS, **changes))


def test_cells_and_means_are_those_of_a_naive_dictionary() -> None:
    spec = spec_of()
    values = numbers_of(spec)
    noise = [  # what is not this matrix's
        *rows_of(spec, dict.fromkeys(values, 1.0), TEST_SETS, metric="auc"),
        *rows_of(spec, dict.fromkeys(values, 2.0), TEST_SETS, kind="published"),
        *rows_of(spec, dict.fromkeys(values, 3.0), TEST_SETS, method="UnivFD"),
        *rows_of(spec, dict.fromkeys(values, 4.0), TEST_SETS, protocol="mine-3"),
        *rows_of(spec, dict.fromkeys(values, 5.0), TEST_SETS, training_set="on-glide"),
        *rows_of(spec, dict.fromkeys(values, 6.0), TEST_SETS, benchmark="other"),
    ]
    matrix = build(spec, [*rows_of(spec, values, TEST_SETS), *noise])
    assert matrix.columns == ["training_set", *TEST_SETS, "mean", "unseen", "note"]
    assert matrix["training_set"].to_list() == ["on-vqdm", "on-adm", "elsewhere", OVERALL]
    *rows, overall = matrix.to_dicts()
    unseen_cells = []
    for row, own in zip(rows, ["vqdm", "adm", None], strict=True):
        cells = {test_set: values[row["training_set"], test_set] for test_set in TEST_SETS}
        assert {test_set: row[test_set] for test_set in TEST_SETS} == cells
        assert row["mean"] == pytest.approx(np.mean(list(cells.values())))
        unseen = [value for test_set, value in cells.items() if test_set != own]
        assert row["unseen"] == pytest.approx(np.mean(unseen))
        unseen_cells += unseen
    for test_set in TEST_SETS:
        assert overall[test_set] == pytest.approx(np.mean([row[test_set] for row in rows]))
    assert overall["mean"] == pytest.approx(np.mean(list(values.values())))
    assert len(unseen_cells) == 10
    assert overall["unseen"] == pytest.approx(np.mean(unseen_cells))


def test_what_was_not_measured_is_null_and_so_is_every_mean_over_it() -> None:
    matrix = built(None, ("on-adm", "glide"))
    _, on_adm, elsewhere, overall = matrix.to_dicts()
    assert [name for name, value in on_adm.items() if value is None] == ["glide", "mean", "unseen", "note"]
    assert elsewhere["mean"] is not None
    assert [name for name, value in overall.items() if value is None] == ["glide", "mean", "unseen", "note"]


def test_a_mean_over_unseen_test_sets_does_not_wait_for_a_seen_one() -> None:
    on_adm = built(None, ("on-adm", "adm")).row(1, named=True)
    assert on_adm["mean"] is None
    assert on_adm["unseen"] is not None


def test_only_published_numbers_leave_nothing_measured_to_show() -> None:
    with pytest.raises(ResultsError, match="no method named 'RINE'"):
        built(kind="published")


def test_a_test_set_that_the_protocol_leaves_out_may_be_the_trained_one() -> None:
    spec = spec_of(protocol="mine-3")
    matrix = build(spec, rows_of(spec, numbers_of(spec), SHORT))
    on_adm = matrix.row(1, named=True)
    assert on_adm["unseen"] == pytest.approx(on_adm["mean"])


def test_a_training_set_that_holds_every_generator_has_no_unseen_mean() -> None:
    spec = spec_of(rows=[*ROWS, EVERYWHERE])
    matrix = built(spec)
    assert matrix.row(3, named=True)["unseen"] is None
    assert matrix.row(4, named=True)["unseen"] == pytest.approx(built(spec_of()).row(3, named=True)["unseen"])
    lines = [line for line in render_matrix(matrix, spec).splitlines() if line.startswith("| everywhere")]
    assert lines[0].split("|")[-2].strip() == ""  # not a dash, which says that something was not measured


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"benchmark": "mien"}, ConfigError, "did you mean 'mine'"),
        ({"protocol": "mine-44"}, ConfigError, "did you mean 'mine-4'"),
        ({"rows": [{"training_set": "on-vqdm", "trained_on": ["vqmd"]}]}, ConfigError, "did you mean 'vqdm'"),
        ({"method": "RIN"}, ResultsError, "did you mean 'RINE'"),
        ({"rows": [{"training_set": "on-amd", "trained_on": ["adm"]}]}, ResultsError, "did you mean 'on-adm'"),
    ],
)
def test_a_wrong_name_is_refused_with_the_nearest(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    rows = rows_of(spec_of(), numbers_of(spec_of()), TEST_SETS)
    with pytest.raises(error, match=message):
        build(spec_of(**changes), rows)


@pytest.mark.parametrize("name", ["training_set", "unseen", "note"])
def test_a_test_set_named_like_a_column_is_refused(name: str) -> None:
    benchmark = {
        **BENCHMARK,
        "test_sets": {name: {"dataset": "mine"}},
        "protocols": {"mine-4": {"test_sets": [name]}},
    }
    spec = spec_of(rows=[{"training_set": "on-adm", "trained_on": []}])
    with pytest.raises(ConfigError, match=f"{name!r} is named like a column"):
        build_matrix(pl.DataFrame(schema=SCHEMA), spec, BenchmarkSpec.model_validate(benchmark))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROWS[0], ROWS[0]], "'on-vqdm' has two rows"),
        ([{"training_set": "on-vqdm"}], "rows.0.trained_on: Field required"),
        ([], "at least 1 item"),
    ],
)
def test_rows_that_say_too_little_or_too_much_are_refused(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(MatrixSpec, {**MATRIX, "rows": rows}, "here")


def config(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(BENCHMARK))
    part = {"dataset": "mine", "view": "center224"}
    names = [row["training_set"] for row in ROWS]
    return {
        "encoders": {"clip": {"architecture": "ViT-B-16-quickgelu", "weights": "wheel"}},
        "datasets": {"mine": {"root": "data/mine"}},
        "training_sets": {name: {"train": [part], "validation": [part]} for name in names},
        "experiments": {
            name: {"encoder": "clip", "training_set": name, "methods": {"RINE": {"head": {"kind": "rine"}}}}
            for name in names
        },
        "benchmarks": [str(file)],
        "matrices": {"cross": {**MATRIX, **changes}},
    }


def test_a_configuration_may_hold_matrices(tmp_path: Path) -> None:
    valid = config_from(config(tmp_path))
    assert load_benchmarks(valid, tmp_path).keys() == {"mine"}
    assert valid.matrices["cross"].trained_on == {"on-vqdm": ("vqdm",), "on-adm": ("adm",), "elsewhere": ()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"benchmark": "mien"}, "matrices.cross.benchmark names 'mien'.*did you mean 'mine'"),
        ({"protocol": "mine-44"}, "matrices.cross.protocol names 'mine-44'.*did you mean 'mine-4'"),
        ({"method": "RIN"}, "matrices.cross.method, of heads trained on on-vqdm, names 'RIN'.*did you mean 'RINE'"),
        ({"rows": [{"training_set": "on-amd", "trained_on": []}]}, "did you mean 'on-adm'"),
        ({"rows": [{"training_set": "on-adm", "trained_on": ["amd"]}]}, "did you mean 'adm'"),
    ],
)
def test_a_configuration_whose_matrix_names_what_is_not_there_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_benchmarks(config_from(config(tmp_path, **changes)), tmp_path)


def test_the_table_shows_every_cell_marks_the_trained_ones_and_dashes_the_missing() -> None:
    spec = spec_of()
    matrix = built(spec, ("on-adm", "glide"))
    text = render_matrix(matrix, spec)
    assert text.startswith("# Who knows whom\n\nAccuracy of RINE on mine, protocol mine-4, in percent")
    assert "11 of 12 cells are measured." in text.replace("\n", " ")
    table = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    assert table[0] == ["trained on", *TEST_SETS, "mean", "unseen"]
    for line, row in zip(table[2:], matrix.iter_rows(named=True), strict=True):
        own = spec.trained_on.get(row["training_set"], ())
        for name, cell in zip(table[0][1:], line[1:], strict=True):
            number = "-" if row[name] is None else f"{row[name]:.2f}"
            assert cell == (f"**{number}**" if name in own else number)
    assert sum(cell.startswith("**") for line in table for cell in line) == 2
    assert len({len(line) for line in text.splitlines() if line.startswith("|")}) == 1
    assert max(map(len, text.splitlines())) <= 120


def test_what_the_leaderboard_notes_stands_with_the_table() -> None:
    spec = spec_of()
    assert "Note on all rows: no result." in render_matrix(built(spec, note="no result"), spec)
    values = numbers_of(spec)
    noted = rows_of(spec, values, TEST_SETS)
    for row in noted:
        row["note"] = "random weights" if row["training_set"] != "elsewhere" else None
    assert "Note on on-vqdm, on-adm: random weights." in render_matrix(build(spec, noted), spec)


def texts_of(path: Path) -> str:
    """Return an SVG's comments, where matplotlib writes the text that it draws as outlines."""
    parser = ET.XMLParser(target=ET.TreeBuilder(insert_comments=True))
    root = ET.parse(path, parser).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return "\n".join(node.text or "" for node in root.iter() if node.tag is ET.Comment)


def test_figures_are_valid_and_show_every_name_and_number(tmp_path: Path) -> None:
    long = "a-training-set-whose-name-is-longer-than-the-grid-of-its-cells-is-wide"
    spec = spec_of(title="Costs $5 & <more> than $4", rows=[*ROWS, {"training_set": long, "trained_on": []}])
    matrix = built(spec, ("on-adm", "glide"), note="no result")
    draw_matrix(matrix, spec, [tmp_path / "m.svg", tmp_path / "m.png"])
    with Image.open(tmp_path / "m.png") as image:
        image.load()
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB"))  # (height, width, 3)
    for edge in (pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:]):
        assert (edge == 255).all(), "something runs over the edge"
    text = texts_of(tmp_path / "m.svg")
    assert "Costs $5 &amp; &lt;more&gt; than $4" in text or "Costs $5 & <more> than $4" in text
    for name in (*TEST_SETS, *matrix["training_set"], "mean", "unseen", "Note on all rows: no result."):
        assert name in text
    for value in matrix.select(*TEST_SETS, "mean", "unseen").to_numpy().ravel():
        assert np.isnan(value) or f" {value:.1f} " in text
    assert text.count("\N{EN DASH}") == 6  # the cell, its row's two means, its column's and the two over all


def test_a_figure_says_where_values_are_below_its_scale(tmp_path: Path) -> None:
    spec = spec_of()
    values = numbers_of(spec)
    low = {**values, ("on-adm", "biggan"): 31.0}
    paths = [tmp_path / "usual.svg", tmp_path / "low.svg"]
    for numbers, path in zip((values, low), paths, strict=True):
        draw_matrix(build(spec, rows_of(spec, numbers, TEST_SETS)), spec, [path])
    assert ["Values below 50" in texts_of(path) for path in paths] == [False, True]
    of_fakes = spec_of(metric="fake_acc")
    draw_matrix(build(of_fakes, rows_of(of_fakes, low, TEST_SETS)), of_fakes, [tmp_path / "fakes.svg"])
    assert "Values below" not in texts_of(tmp_path / "fakes.svg")


@pytest.mark.parametrize("name", ["m.pdf", "m"])
def test_a_figure_of_another_format_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"allowed: \.png, \.svg"):
        draw_matrix(built(), spec_of(), [tmp_path / "m.png", tmp_path / name])
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_the_same_bytes_every_time_without_a_display(tmp_path: Path) -> None:
    spec = spec_of()
    write_leaderboard(
        pl.DataFrame(rows_of(spec, numbers_of(spec), TEST_SETS), schema=SCHEMA), tmp_path / "leaderboard.parquet"
    )
    (tmp_path / "benchmark.json").write_text(json.dumps(BENCHMARK))
    (tmp_path / "matplotlibrc").write_text("font.size: 30\nsvg.fonttype: none\nbackend: tkagg\n")  # a user's own
    command = ["matrix", "--leaderboard", str(tmp_path / "leaderboard.parquet"), "--spec", spec.model_dump_json()]
    command += ["--benchmark", str(tmp_path / "benchmark.json")]
    outputs = ["m.parquet", "m.md", "m.svg", "m.png"]

    def options(folder: Path) -> list[str]:
        names = zip(("--out", "--markdown", "--figure", "--figure"), outputs, strict=True)
        return [word for option, name in names for word in (option, str(folder / name))]

    here = CliRunner().invoke(leaderboard_command, [*command, *options(tmp_path / "a")], catch_exceptions=False)
    assert here.exit_code == 0, here.output
    subprocess.run(
        [sys.executable, "-m", "rine_cache", "leaderboard", *command, *options(tmp_path / "b")],
        check=True,
        cwd=tmp_path,
        env={"PATH": "", "HOME": str(tmp_path), "SOURCE_DATE_EPOCH": "1"},
    )
    for name in outputs:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_a_matrix_is_built_without_loading_what_draws_it() -> None:
    check = "import sys, rine_cache.matrix; print('matplotlib' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "False"
