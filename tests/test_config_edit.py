"""Adding a data set to a configuration that a person wrote: only insertions, all or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from rine_cache.config_edit import added_text, benchmark_of, benchmark_text, check_name, write_addition
from rine_cache.errors import ConfigError, OutputError
from rine_cache.layouts.entry import FAKE, REAL, Entry
from rine_cache.manifest import as_table
from rine_cache.specs.base import parse
from rine_cache.specs.benchmark import BenchmarkSpec
from rine_cache.specs.config import load_benchmarks, load_config
from rine_cache.specs.data import DatasetSpec

SPEC = DatasetSpec(root="data/new", layout="genimage", splits=("val",))
NEEDED = """\
encoders:
  small: {architecture: ViT-S-32-alt, weights: random}
training_sets: {}
experiments: {}
"""
OLD_BENCHMARK = """\
name: old
title: Old
test_sets: {gen: {dataset: known}}
protocols: {old: {test_sets: [gen]}}
"""
COMMENTED = (
    """\
# A configuration with comments.
datasets:   # all of them
    first: &first   # four spaces
        root: data/first  # where it lies
        layout: folder

    # The second is like the first.
    second: {<<: *first,
             root: data/second}   # over two lines
    # after the last one

# of encoders
"""
    + NEEDED
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old.yaml").write_text(OLD_BENCHMARK)


def table_of(*images: tuple[int, str]) -> Any:
    return as_table(
        Entry(f"{label}/{subset}/{number}.png", label, subset, None, None, 10)
        for label, subset in images
        for number in range(2)
    )


def several_generators(name: str = "new") -> BenchmarkSpec:
    benchmark = benchmark_of(name, table_of((REAL, "coco"), (FAKE, "a"), (FAKE, "b")))
    assert benchmark is not None
    return benchmark


def is_insertion(before: bytes, after: bytes) -> bool:
    """Whether what was there before is there still, in order: letter by letter, insertions left out."""
    letters = iter(after)
    return all(letter in letters for letter in before)


def added_lines(before: str, after: str) -> list[str]:
    """Check that lines were inserted in one place of a text, and return them."""
    old, new = before.split("\n"), after.split("\n")
    start = next(at for at, (one, other) in enumerate(zip([*old, None], new, strict=False)) if one != other)
    count = len(new) - len(old)
    assert new[:start] + new[start + count :] == old
    return new[start : start + count]


def test_the_printed_text_is_the_data_set_and_no_more() -> None:
    assert (
        added_text("new", DatasetSpec(root="data/new")) == "datasets:\n  new:\n    root: data/new\n    layout: folder\n"
    )
    long = DatasetSpec(root="/data/" + "a long folder's name: with spaces #1 " * 9, layout="folder", label="fake")
    text = added_text("0123", long)
    assert len(text.splitlines()) == 5, "one line a setting, however long"
    assert parse(DatasetSpec, yaml.safe_load(text)["datasets"]["0123"], "") == long
    assert "bilder-größe" in added_text("new", DatasetSpec(root="bilder-größe"))


def test_three_lines_are_inserted_behind_the_last_data_set_of_a_commented_file() -> None:
    path = Path("config.yaml")
    path.write_text(COMMENTED)
    assert write_addition(path, "new", DatasetSpec(root="data/new"), None) == [path]
    assert added_lines(COMMENTED, path.read_text()) == ["    new:", "      root: data/new", "      layout: folder"]
    assert path.read_text().index("    new:") < path.read_text().index("    # after the last one")
    assert list(load_config(path).datasets) == ["first", "second", "new"]


@pytest.mark.parametrize(
    "text",
    [
        NEEDED,
        NEEDED.rstrip("\n"),
        NEEDED + "\n\n# the end",
        "datasets: {}\n" + NEEDED,
        "datasets: {old: {root: data/old}}\n" + NEEDED,
        "datasets: {\n  # all\n  old: {root: data/old}  # the last\n}\n" + NEEDED,
        "datasets:\n  old: {root: data/old}\n" + NEEDED,
        NEEDED + "datasets:\n  old: {root: data/old}",
        NEEDED + "datasets:\n  old:\n    root: >-\n      data/old\n",
        NEEDED + "datasets:\n  old:\n    root: |-\n      data/old\n# the end",
        NEEDED + "datasets: &all\n  old: {root: data/old}\n",
        'datasets:\n  old:\n    root: "data/\\\n      old"\n' + NEEDED,
        "datasets:\n  old:\n    root: data/old # \u2028 # \x85 # odd line breaks\n" + NEEDED,
        "\ufeff# with a byte order mark\ndatasets:\n  old: {root: data/old}\n" + NEEDED,
        "---\ndatasets:\n  old: {root: data/old}\n" + NEEDED,
        "datasets:\n  old: {root: data/old}\nbenchmarks: []\n" + NEEDED,
        "datasets:\n" + NEEDED,
        "datasets: # none so far\n\n" + NEEDED,
        NEEDED + "datasets:",
        "datasets:\n  known: {root: data/old}\nbenchmarks: [old.yaml]\n" + NEEDED,
        "datasets:\n  known: {root: data/old}\nbenchmarks:\n- old.yaml # dash at the margin\n" + NEEDED,
        "datasets:\n  known: {root: data/old}\nbenchmarks:\n    -   old.yaml\n\n\n" + NEEDED,
        NEEDED + 'benchmarks:\n  - "old.yaml"',
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_every_style_is_added_to_and_nothing_else_changes(text: str, line_end: str) -> None:
    path = Path("config.yaml")
    before = text.replace("\n", line_end).encode()
    path.write_bytes(before)
    old = load_config(path)
    written = write_addition(path, "new", SPEC, several_generators())
    assert written == [path, Path("config-benchmarks/new.yaml")]
    after = path.read_bytes()
    assert is_insertion(before, after)
    assert after.count(b"\r\n") == (after.count(b"\n") if line_end == "\r\n" else 0)
    new = load_config(path)
    assert new == old.model_copy(
        update={
            "datasets": {**old.datasets, "new": SPEC},
            "benchmarks": (*old.benchmarks, "config-benchmarks/new.yaml"),
        }
    )
    assert load_benchmarks(new, Path())["new"] == several_generators()
    write_addition(path, "newer", SPEC, several_generators("newer"))
    assert list(load_config(path).datasets) == [*old.datasets, "new", "newer"]


def test_a_json_configuration_stays_json() -> None:
    path = Path("config.json")
    path.write_text(
        '{"encoders": {}, "training_sets": {}, "experiments": {}, "datasets": {"old": {"root": "x"}}, "benchmarks": []}'
    )
    write_addition(path, "new", SPEC, several_generators())
    assert list(yaml.safe_load(path.read_text())["datasets"]) == ["old", "new"]
    assert json.loads(path.read_text())["benchmarks"] == ["config-benchmarks/new.yaml"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{encoders: {}, training_sets: {}, experiments: {}}", "without changing other lines"),
        (NEEDED + "...\n", "without changing other lines"),
        (NEEDED + "datasets:\n  old: {root: x}\ndatasets:\n  older: {root: y}\n", "without changing other lines"),
        ("base: &base {}\n" + NEEDED, "unknown key 'base'"),
        (NEEDED + "datasets: [old]\n", "config.yaml is not valid"),
        (NEEDED + "experiment: {}\n", "unknown key 'experiment'; did you mean 'experiments'?"),
        (NEEDED + "benchmarks: [gone.yaml]\n", "cannot read gone.yaml"),
        (NEEDED + "datasets:\n\told: {root: x}\n", "config.yaml is not valid YAML"),
        ("a: [", "config.yaml is not valid YAML"),
        (NEEDED + "datasets:\n  new: {root: x}\n", "config.yaml has a data set 'new' already"),
        (NEEDED + "benchmarks: [other.yaml]\n", "config.yaml has a benchmark 'new' already"),
    ],
)
def test_what_cannot_be_added_to_stays_as_it_is(text: str, message: str) -> None:
    path = Path("config.yaml")
    path.write_text(text)
    Path("other.yaml").write_text(OLD_BENCHMARK.replace("name: old", "name: new"))
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        write_addition(path, "new", SPEC, several_generators())
    assert path.read_text() == text
    assert not Path("config-benchmarks").exists()


def test_a_refusal_says_what_to_add_by_hand() -> None:
    path = Path("config.yaml")
    path.write_text(NEEDED + "...\n")
    with pytest.raises(ConfigError) as refused:
        write_addition(path, "new", SPEC, None)
    assert added_text("new", SPEC) in str(refused.value)


def test_a_benchmark_file_that_is_there_is_not_replaced() -> None:
    path, theirs = Path("config.yaml"), Path("config-benchmarks/new.yaml")
    path.write_text(NEEDED)
    theirs.parent.mkdir()
    theirs.write_text("theirs")
    with pytest.raises(ConfigError, match=r"config-benchmarks/new\.yaml is there already"):
        write_addition(path, "new", SPEC, several_generators())
    assert (path.read_text(), theirs.read_text()) == (NEEDED, "theirs")


def test_a_disk_that_refuses_the_configuration_leaves_no_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("config.yaml")
    path.write_text(NEEDED)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(OutputError, match="No space left"):
        write_addition(path, "new", SPEC, several_generators())
    assert path.read_text() == NEEDED
    assert not Path("config-benchmarks/new.yaml").exists()


def test_a_data_set_that_a_benchmark_names_gets_no_other() -> None:
    path = Path("config.yaml")
    path.write_text(NEEDED + "benchmarks: [old.yaml]\n")
    assert write_addition(path, "known", SPEC, several_generators("known")) == [path]
    assert list(load_benchmarks(load_config(path), Path())) == ["old"]


def test_a_link_to_a_configuration_stays_a_link() -> None:
    Path("real.yaml").write_text(NEEDED)
    Path("config.yaml").symlink_to("real.yaml")
    write_addition(Path("config.yaml"), "new", SPEC, None)
    assert Path("config.yaml").is_symlink()
    assert "new" in load_config(Path("real.yaml")).datasets


def test_the_benchmark_lies_beside_the_configuration_wherever_that_is() -> None:
    path = Path("some folder: #1/my.yaml")
    path.parent.mkdir()
    path.write_text(NEEDED)
    _, benchmark = write_addition(path, "new", SPEC, several_generators())
    assert benchmark == path.parent / "my-benchmarks" / "new.yaml"
    assert load_config(path).benchmarks == (str(benchmark),)


@pytest.mark.parametrize("name", ["new", "0", "a.b_c+d-e", "SD3"])
def test_names(name: str) -> None:
    check_name(name, None)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "-a", ".a", "größe", "a\n"])
def test_names_that_files_could_not_have(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a data set"):
        check_name(name, None)


def test_one_generator_or_one_class_needs_no_benchmark_of_its_own() -> None:
    assert benchmark_of("new", table_of((REAL, "coco"), (FAKE, "a"))) is None
    assert benchmark_of("new", table_of((FAKE, "a"), (FAKE, "b"))) is None
    assert benchmark_of("new", table_of((REAL, "a"), (REAL, "b"))) is None


def test_reals_beside_a_generator_are_its_own_and_others_stand_against_each() -> None:
    own = benchmark_of("new", table_of((REAL, "a"), (FAKE, "a"), (REAL, "b"), (FAKE, "b")))
    assert own is not None
    assert [(test_set.real.subsets, test_set.fake.subsets) for test_set in own.test_sets.values()] == [
        (("a",), ("a",)),
        (("b",), ("b",)),
    ]
    shared = several_generators()
    assert [(test_set.real.subsets, test_set.fake.subsets) for test_set in shared.test_sets.values()] == [
        ((), ("a",)),
        ((), ("b",)),
    ]
    assert shared.protocols["new"].test_sets == ("a", "b")
    assert {source.dataset for test_set in shared.test_sets.values() for source in (test_set.real, test_set.fake)} == {
        "new"
    }


def in_splits(*splits: str | None) -> Any:
    return as_table(
        Entry(f"{split}/{label}/{subset}.png", label, subset, split, None, 10)
        for split in splits
        for label, subset in ((REAL, "coco"), (FAKE, "a"), (FAKE, "b"))
    )


@pytest.mark.parametrize(
    ("splits", "tested"),
    [
        (("train", "val", "test"), ("test", "val")),
        (("train", "val"), ("val",)),
        (("val", "test"), ()),
        (("train",), ()),
        ((None,), ()),
    ],
)
def test_training_images_are_tested_on_only_where_there_are_no_others(
    splits: tuple[str | None, ...], tested: tuple[str, ...]
) -> None:
    benchmark = benchmark_of("new", in_splits(*splits))
    assert benchmark is not None
    sources = [source for test_set in benchmark.test_sets.values() for source in (test_set.real, test_set.fake)]
    assert {source.splits for source in sources} == {tested}


def test_a_generator_of_training_images_alone_is_not_tested() -> None:
    train = as_table([Entry("c.png", FAKE, "c", "train", None, 10)])
    benchmark = benchmark_of("new", in_splits("val").vstack(train))
    assert benchmark is not None
    assert list(benchmark.test_sets) == ["a", "b"]


def test_generators_with_any_name_get_ids_of_their_own() -> None:
    subsets = ["Stable Diffusion V1.4", "Stable_Diffusion (V1.4)", "Stable/Diffusion V1.4", "mean", "生成", "_x"]
    benchmark = benchmark_of("new", table_of((REAL, "coco"), *((FAKE, subset) for subset in subsets)))
    assert benchmark is not None
    by_subset = {test_set.fake.subsets[0]: name for name, test_set in benchmark.test_sets.items()}
    assert by_subset == {
        "Stable Diffusion V1.4": "Stable-Diffusion-V1.4",
        "Stable/Diffusion V1.4": "Stable-Diffusion-V1.4-2",
        "Stable_Diffusion (V1.4)": "Stable_Diffusion-V1.4",
        "_x": "x",
        "mean": "mean-2",
        "生成": "generator",
    }


def test_a_benchmark_reads_back_as_it_was_written() -> None:
    benchmark = several_generators()
    assert parse(BenchmarkSpec, yaml.safe_load(benchmark_text(benchmark)), "") == benchmark
