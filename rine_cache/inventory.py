"""What of a configuration's data is on this machine: which data sets, which of their subsets, and what can run.

Read from folder names and manifests alone, so that it costs milliseconds whatever the number of images.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from rine_cache.errors import RineCacheError
from rine_cache.layouts import LAYOUTS
from rine_cache.manifest import read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rine_cache.specs.benchmark import BenchmarkSpec
    from rine_cache.specs.config import Config
    from rine_cache.specs.data import DatasetSpec


class State(StrEnum):
    """Where a data set stands."""

    HERE = "here"
    PARTLY = "partly here"
    LISTED = "listed, images gone"
    MADE = "made by the pipeline"
    MISSING = "missing"


class Holding(NamedTuple):
    """What is here of one data set.

    `absent` names the subsets that benchmarks and training sets ask for and that are not here, as far as names of
    folders tell.
    """

    state: State
    absent: tuple[str, ...]
    root: str
    obtain: str

    @property
    def usable(self) -> bool:
        """Whether it can be listed, encoded and scored."""
        return self.state is not State.MISSING


def take_inventory(config: Config, benchmarks: Iterable[BenchmarkSpec], results: Path) -> dict[str, Holding]:
    """Say of every data set that a configuration or its benchmarks name what is here.

    Parameters
    ----------
    config, benchmarks
        What names the data sets.
    results
        The folder of results: a data set whose images are gone is usable while its manifest is there.
    """
    wanted = _wanted_subsets(config, benchmarks)
    undefined = Holding(State.MISSING, (), "", "not defined under datasets: of this configuration")
    holdings = {name: _holding(name, spec, wanted.get(name, set()), results) for name, spec in config.datasets.items()}
    return holdings | dict.fromkeys(sorted(wanted.keys() - holdings.keys()), undefined)


def missing_for_training(config: Config, holdings: Mapping[str, Holding], experiment: str) -> list[str]:
    """Name what an experiment lacks before its heads can be trained, or imported; empty if nothing."""
    spec = config.experiments[experiment]
    if spec.official_files:
        return [file for file in spec.official_files.values() if not Path(file).is_file()]
    training_set = config.training_sets[spec.training_set]
    lacking = []
    for part in (*training_set.train, *training_set.validation):
        holding = holdings[part.dataset]
        if not holding.usable:
            lacking.append(part.dataset)
        lacking += [f"{part.dataset}:{subset}" for subset in holding.absent if subset in part.subsets]
    return list(dict.fromkeys(lacking))


def missing_table(config: Config, holdings: Mapping[str, Holding]) -> pl.DataFrame:
    """Table what is not here, and where to get it; nothing is ever downloaded from there."""
    rows = [
        (f"data set {name}", holding.state, ", ".join(holding.absent), holding.root, holding.obtain)
        for name, holding in holdings.items()
        if not holding.usable or holding.absent
    ]
    for experiment in config.experiments.values():
        for name, method in experiment.methods.items():
            if method.head.kind == "official" and not Path(method.head.file).is_file():
                rows.append((f"head {name}", State.MISSING, "", method.head.file, method.head.obtain))
    return pl.DataFrame(
        rows, schema=["what", "state", "missing subsets", "looked for at", "where to get it"], orient="row"
    )


def _wanted_subsets(config: Config, benchmarks: Iterable[BenchmarkSpec]) -> dict[str, set[str]]:
    """Gather by data set the subsets that anything asks for by name."""
    wanted: dict[str, set[str]] = {}
    for benchmark in benchmarks:
        for test_set in benchmark.test_sets.values():
            for source in (test_set.real, test_set.fake):
                wanted.setdefault(source.dataset, set()).update(source.subsets)
    for training_set in config.training_sets.values():
        for part in (*training_set.train, *training_set.validation):
            wanted.setdefault(part.dataset, set()).update(part.subsets)
    return wanted


def _holding(name: str, spec: DatasetSpec, wanted: set[str], results: Path) -> Holding:
    manifest = results / "manifests" / f"{name}.parquet"
    if spec.requires:
        return Holding(State.MADE, (), spec.root, spec.obtain)
    root = Path(spec.root)
    if root.exists():
        look = LAYOUTS[spec.layout].subsets_at
        found = look(root) if look else None
        absent = () if found is None else tuple(sorted((wanted | {*spec.subsets}) - found))
        state = State.PARTLY if absent else State.HERE
        return Holding(State.MISSING if found == set() else state, absent, spec.root, spec.obtain)
    if manifest.exists():
        return Holding(State.LISTED, tuple(sorted(wanted - _listed_subsets(manifest))), spec.root, spec.obtain)
    return Holding(State.MISSING, (), spec.root, spec.obtain)


def _listed_subsets(manifest: Path) -> set[str]:
    try:
        return set(read_manifest(manifest).table["subset"])
    except RineCacheError:
        return set()  # the job that reads it says what is wrong with it
