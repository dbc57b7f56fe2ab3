"""Adding a data set to a configuration file that a person wrote: text is inserted, and no other byte changes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import yaml
from pydantic import TypeAdapter, ValidationError

from rine_cache.errors import ConfigError
from rine_cache.files import written_whole
from rine_cache.layouts.entry import FAKE, REAL
from rine_cache.specs.base import Name, parse
from rine_cache.specs.benchmark import MEAN, BenchmarkSpec, OneSource, ProtocolSpec, Source, TestSetSpec
from rine_cache.specs.config import Config, load_benchmarks, load_config

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rine_cache.specs.data import DatasetSpec


def check_name(name: str, config: Path | None) -> None:
    """Refuse a name that no data set may have, or that one of a configuration has already.

    Raises
    ------
    ConfigError
        If the name may not be used, or the configuration is not valid.
    """
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise ConfigError(
            f"{name!r} cannot name a data set, as it names files; allowed: letters, digits and . _ + -, "
            f"a letter or digit first"
        ) from None
    if config is not None and name in load_config(config).datasets:
        raise ConfigError(f"{config} has a data set {name!r} already; choose another name, or edit it there")


def added_text(name: str, spec: DatasetSpec) -> str:
    """Write a data set as the YAML that a configuration takes; what has its default is left out."""
    return _block({"datasets": {name: _settings(spec)}})


def benchmark_text(benchmark: BenchmarkSpec) -> str:
    """Write a benchmark as its file has it; what has its default is left out."""
    return _block(benchmark.model_dump(mode="json", exclude_defaults=True))


def benchmark_of(name: str, table: pl.DataFrame) -> BenchmarkSpec | None:
    """Make a benchmark with a test set for each generator of a data set, or None where its own default would do.

    Where a data set has other splits beside ``train``, the images of that one are left out.

    Parameters
    ----------
    name
        The data set's name, which becomes the benchmark's.
    table
        The manifest's columns, one row per image.
    """
    splits = tuple(sorted(set(table["split"].drop_nulls()) - {"train"})) if "train" in table["split"] else ()
    if splits:
        table = table.filter(pl.col("split").is_in(splits))
    generators = sorted(set(table.filter(label=FAKE)["subset"]))
    reals = set(table.filter(label=REAL)["subset"])
    if len(generators) < 2 or not reals:
        return None

    def paired(generator: str) -> OneSource | TestSetSpec:
        # Where real images lie beside generators, each has its own: one that lacks them stays without a number.
        # Otherwise all of them stand against each.
        if reals & set(generators):
            return OneSource(dataset=name, subsets=(generator,), splits=splits)
        fake = Source(dataset=name, subsets=(generator,), splits=splits)
        return TestSetSpec(real=Source(dataset=name, splits=splits), fake=fake)

    ids = _ids(generators)
    return BenchmarkSpec(
        name=name,
        title=name,
        test_sets={ids[generator]: paired(generator) for generator in generators},
        protocols={name: ProtocolSpec(test_sets=tuple(ids.values()), headline=("acc", "ap", "auc"))},
    )


def benchmark_path(config: Path, name: str) -> Path:
    """Say where the benchmark of a data set that is added to a configuration lies: in a folder beside it."""
    return config.parent / f"{config.stem}-benchmarks" / f"{name}.yaml"


def _ids(subsets: Iterable[str]) -> dict[str, str]:
    """Give each subset the id of its test set: its name, without what an id may not hold."""
    ids: dict[str, str] = {}
    for subset in subsets:
        stem = re.sub(r"[^A-Za-z0-9._+-]+", "-", subset).strip("._+-") or "generator"
        numbered = (f"{stem}-{number}" for number in range(2, len(ids) + 4))
        ids[subset] = next(text for text in (stem, *numbered) if text not in {MEAN, *ids.values()})
    return ids


def write_addition(config: Path, name: str, spec: DatasetSpec, benchmark: BenchmarkSpec | None) -> list[Path]:
    """Add a data set to a configuration file, and `benchmark` unless another tests it; return the files written.

    Raises
    ------
    ConfigError
        If the name is taken, the file cannot be edited so, the result would not be valid, or the benchmark's file is
        there already; then nothing is changed.
    OutputError
        If a file cannot be written.
    """
    check_name(name, config)
    benchmarks = load_benchmarks(load_config(config), Path())  # what is not valid is not edited
    if any(name == dataset for each in benchmarks.values() for _, dataset in each.sources()):
        benchmark = None
    text = _text_of(config)
    added = _inserted(text, "datasets", {name: _settings(spec)})
    wanted = yaml.safe_load(text)
    wanted["datasets"] = {**(wanted.get("datasets") or {}), name: _settings(spec)}
    new = parse(Config, wanted, f"{config} with the addition")
    path = benchmark_path(config, name)
    if benchmark is None:
        load_benchmarks(new, Path())
    else:
        if benchmark.name in benchmarks:
            raise ConfigError(f"{config} has a benchmark {name!r} already; choose another name for the data set")
        if path.exists():
            raise ConfigError(f"{path} is there already; choose another name for the data set, or delete it")
        wanted["benchmarks"] = [*(wanted.get("benchmarks") or []), str(path)]
        added = _inserted(added, "benchmarks", [str(path)])
    if _loaded(added) != wanted:
        raise ConfigError(
            f"{config} cannot be added to without changing other lines of it; add this by hand, under what is there:\n"
            f"{added_text(name, spec)}"
        )
    if benchmark is not None:
        with written_whole(path) as temporary:
            temporary.write_text(benchmark_text(benchmark), encoding="utf-8")
    try:
        with written_whole(config.resolve()) as temporary:
            temporary.write_bytes(added.encode())
    except BaseException:  # interrupted too: a benchmark's file that nothing names would block the next attempt
        if benchmark is not None:
            path.unlink()
        raise
    return [config] if benchmark is None else [config, path]


def _text_of(config: Path) -> str:
    """Read a file with its line ends, and its byte order mark, as they are."""
    return config.read_bytes().decode()


def _loaded(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _inserted(text: str, section: str, added: dict[str, Any] | list[Any]) -> str:
    """Insert entries at the end of a top-level section, in its style and indented as its own; or append the section.

    Where that is not possible the outcome loads as something else, which the caller notices.
    """
    try:
        document = yaml.compose(text)
    except yaml.YAMLError:  # what an insertion before this one has made of it
        return text
    assert isinstance(document, yaml.MappingNode), "a valid configuration is a table"
    key, node = next((pair for pair in document.value if pair[0].value == section), (None, None))
    if key is None or node is None:
        return _with_lines(text, len(text), ["", *_block({section: added}).splitlines()])
    if node.tag == "tag:yaml.org,2002:null" and not node.value:  # a section that was left empty
        return _with_lines(
            text, _line_end(text, key.end_mark.index), [f"  {line}" for line in _block(added).splitlines()]
        )
    if not isinstance(node, yaml.CollectionNode):
        return text
    if node.flow_style:
        at = node.end_mark.index - 1
        return text[:at] + (", " if node.value else "") + json.dumps(added, ensure_ascii=False)[1:-1] + text[at:]
    first = node.value[0][0] if isinstance(node, yaml.MappingNode) else node
    indent = " " * first.start_mark.column
    end = max((leaf.end_mark for leaf in _leaves(node)), key=lambda mark: mark.index)
    at = _line_end(text, end.index - (end.column == 0))
    return _with_lines(text, at, [indent + line for line in _block(added).splitlines()])


def _line_end(text: str, at: int) -> int:
    """Return where the line after the one of a place begins."""
    end = text.find("\n", at)
    return len(text) if end < 0 else end + 1


def _with_lines(text: str, at: int, lines: list[str]) -> str:
    """Insert lines that end as the text's own do."""
    end = "\r\n" if "\r\n" in text else "\n"
    before = text[:at] if text[:at].endswith("\n") else text[:at] + end
    return before + "".join(line + end for line in lines) + text[at:]


def _block(value: Any) -> str:
    """Write YAML in block style, a line per entry."""
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=float("inf")))


def _leaves(node: yaml.Node) -> Iterator[yaml.Node]:
    """Yield the nodes whose ends are ends of text: scalars, and collections in brackets."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        for key, value in node.value:
            yield key
            yield from _leaves(value)
    elif isinstance(node, yaml.SequenceNode) and not node.flow_style:
        for value in node.value:
            yield from _leaves(value)
    else:
        yield node


def _settings(spec: DatasetSpec) -> dict[str, Any]:
    return {"root": spec.root, "layout": spec.layout, **spec.model_dump(mode="json", exclude_defaults=True)}
