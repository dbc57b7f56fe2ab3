"""Adding a data set to a configuration file that a person wrote: lines are inserted, and no other byte changes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from rine_cache.errors import ConfigError
from rine_cache.files import written_whole
from rine_cache.layouts.entry import FAKE, REAL
from rine_cache.specs.base import parse
from rine_cache.specs.benchmark import BenchmarkSpec, ProtocolSpec, Source, TestSetSpec
from rine_cache.specs.config import Config, load_benchmarks, load_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

    from rine_cache.specs.data import DatasetSpec


def added_text(name: str, spec: DatasetSpec) -> str:
    """Write a data set as the YAML that a configuration takes; what has its default is left out."""
    return yaml.safe_dump({"datasets": {name: _settings(spec)}}, sort_keys=False)


def benchmark_of(name: str, table: pl.DataFrame) -> BenchmarkSpec | None:
    """Make a benchmark with a test set for each generator of a data set, or None where its own default would do.

    Parameters
    ----------
    name
        The data set's name, which becomes the benchmark's.
    table
        The manifest's columns, one row per image.
    """
    generators = sorted(set(table.filter(label=FAKE)["subset"]))
    reals = set(table.filter(label=REAL)["subset"])
    if len(generators) < 2 or not reals:
        return None

    def paired(generator: str) -> TestSetSpec:
        # Real images that lie beside a generator's are its own; otherwise all of them stand against each.
        real = Source(dataset=name, subsets=(generator,) if generator in reals else ())
        return TestSetSpec(real=real, fake=Source(dataset=name, subsets=(generator,)))

    return BenchmarkSpec(
        name=name,
        title=name,
        test_sets={generator: paired(generator) for generator in generators},
        protocols={name: ProtocolSpec(test_sets=tuple(generators), headline=("acc", "ap", "auc"))},
    )


def write_addition(config: Path, name: str, spec: DatasetSpec, benchmark: BenchmarkSpec | None) -> list[Path]:
    """Add a data set, and its benchmark if any, to a configuration file; return the files that were written.

    The benchmark's file lies beside the others, in ``benchmarks/`` next to the configuration.

    Raises
    ------
    ConfigError
        If the file cannot be edited so, the result would not be valid, or the benchmark's file is there already; then
        nothing is changed.
    """
    load_config(config)  # what is not valid is not edited
    text = config.read_text(encoding="utf-8")
    wanted = copy.deepcopy(yaml.safe_load(text))
    wanted["datasets"] = {**(wanted.get("datasets") or {}), name: _settings(spec)}
    text = _with_lines(text, "datasets", yaml.safe_dump({name: _settings(spec)}, sort_keys=False).splitlines())
    path = config.parent / "benchmarks" / f"{name}.yaml"
    if benchmark is not None:
        if path.exists():
            raise ConfigError(f"{path} is there already; choose another name for the data set, or delete it")
        wanted["benchmarks"] = [*(wanted.get("benchmarks") or []), str(path)]
        text = _with_lines(text, "benchmarks", [f"- {path}"])
    if yaml.safe_load(text) != wanted:
        raise ConfigError(f"{config} cannot be edited line by line; add this to it by hand:\n{added_text(name, spec)}")
    if benchmark is None:
        _write(text, config)
        return [config]
    with written_whole(path) as temporary:
        lines = yaml.safe_dump(benchmark.model_dump(mode="json", exclude_defaults=True), sort_keys=False)
        temporary.write_text(lines, encoding="utf-8")
    try:
        _write(text, config)
    except BaseException:
        path.unlink()
        raise
    return [config, path]


def _write(text: str, config: Path) -> None:
    """Replace the file, once what it will say is known to be valid."""
    load_benchmarks(parse(Config, yaml.safe_load(text), f"{config} with the addition"), Path())
    with written_whole(config) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _with_lines(text: str, section: str, added: list[str]) -> str:
    """Insert lines at the end of a top-level section in block style, indented as its own; or append the section.

    A section in another style is left as it is, which the caller notices.
    """
    lines = text.splitlines()
    document = yaml.compose(text)
    assert isinstance(document, yaml.MappingNode), "a valid configuration is a table"
    node = next((value for key, value in document.value if key.value == section), None)
    if node is None:
        return "\n".join([*lines, "", f"{section}:", *(f"  {line}" for line in added), ""])
    if not isinstance(node, yaml.CollectionNode) or node.flow_style or not node.value:
        return text
    end = max(leaf.end_mark.line + (leaf.end_mark.column > 0) for leaf in _leaves(node))
    first = lines[node.start_mark.line]
    indent = first[: len(first) - len(first.lstrip())]
    return "\n".join([*lines[:end], *(indent + line for line in added), *lines[end:], ""])


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
