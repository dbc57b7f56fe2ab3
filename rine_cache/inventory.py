"""What of a configuration's data is on this machine: which data sets, which of their subsets, and what can run.

Read from folder names and the listings made so far, so that it costs milliseconds whatever the number of images.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from rine_cache.errors import LayoutError
from rine_cache.layouts import LAYOUTS
from rine_cache.layouts.entry import FAKE, REAL, Entry
from rine_cache.layouts.named_folders import LABELS, TreeLayout, folded
from rine_cache.layouts.walk import folders_below

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rine_cache.specs.benchmark import BenchmarkSpec
    from rine_cache.specs.config import Config
    from rine_cache.specs.data import DatasetPart, DatasetSpec


class State(StrEnum):
    """Where a data set stands."""

    HERE = "here"
    PARTLY = "partly here"
    LISTED = "listed, images gone"
    MADE = "made by the pipeline"
    MISSING = "missing"


class Place(NamedTuple):
    """Images of one subset in one split: "" where they are in none, None where it is not known."""

    subset: str
    split: str | None


class Wish(NamedTuple):
    """Images that something asks for: of one subset, or of any for "", and of some splits, or any for none."""

    subset: str
    splits: tuple[str, ...] = ()

    def met_by(self, place: Place) -> bool:
        """Whether images of a place are among those asked for."""
        in_split = not self.splits or place.split is None or place.split in self.splits
        return in_split and self.subset in ("", place.subset)


class Holding(NamedTuple):
    """What is here of one data set.

    `absent` names what benchmarks and training sets ask for and is not here, as far as names of folders tell;
    `unlisted` the subsets that are here and not in the listing that the pipeline has made. `places` is what is here or
    was listed, and None where names do not tell.
    """

    state: State
    absent: tuple[str, ...]
    root: str
    obtain: str
    unlisted: tuple[str, ...] = ()
    places: frozenset[Place] | None = None

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
    wanted = _wanted(config, benchmarks)
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
        if holding.usable:
            wishes = _wishes_of(part, config.datasets[part.dataset])
            lacking += [f"{part.dataset}:{absent}" for absent in _absent(wishes, holding.places)]
        else:
            lacking.append(part.dataset)
    return list(dict.fromkeys(lacking))


def missing_for_testing(holdings: Mapping[str, Holding], benchmark: BenchmarkSpec, protocol: str) -> list[str]:
    """Name the data sets that a protocol tests and that are not here: what is tested on them stays empty."""
    datasets = sorted({dataset for _, dataset in benchmark.sources(protocol)})
    return [dataset for dataset in datasets if not holdings[dataset].usable]


def missing_table(config: Config, holdings: Mapping[str, Holding]) -> pl.DataFrame:
    """Table what is not here, and where to get it; nothing is ever downloaded from there."""
    rows = [
        (f"data set {name}", holding.state, ", ".join(holding.absent), holding.root, holding.obtain)
        for name, holding in holdings.items()
        if not holding.usable or holding.absent
    ]
    for experiment, spec in config.experiments.items():
        for name, method in spec.methods.items():
            if method.head.kind == "official" and not Path(method.head.file).is_file():
                rows.append((f"head {experiment}/{name}", State.MISSING, "", method.head.file, method.head.obtain))
    return pl.DataFrame(
        rows, schema=["what", "state", "missing subsets", "looked for at", "where to get it"], orient="row"
    )


def _wanted(config: Config, benchmarks: Iterable[BenchmarkSpec]) -> dict[str, set[Wish]]:
    """Gather by data set what anything asks for by name."""
    wanted: dict[str, set[Wish]] = {}
    for benchmark in benchmarks:
        for test_set in benchmark.test_sets.values():
            for source in (test_set.real, test_set.fake):
                wishes = {Wish(subset, source.splits) for subset in source.subsets}
                wanted.setdefault(source.dataset, set()).update(wishes)
    for training_set in config.training_sets.values():
        for part in (*training_set.train, *training_set.validation):
            wanted.setdefault(part.dataset, set()).update(_wishes_of(part, config.datasets[part.dataset]))
    return wanted


def _wishes_of(part: DatasetPart, spec: DatasetSpec) -> set[Wish]:
    """Say what a part of a training set asks for: the subsets that it or its data set names.

    Where neither does, it asks for anything, and for the sources of real images that all generators share: without
    those, one class would be missing.
    """
    parts = LAYOUTS[spec.layout].parts
    fakes = {found.subset for found in parts if found.label == FAKE}
    shared = {found.subset for found in parts if found.label == REAL} - fakes
    return {Wish(subset, part.splits) for subset in part.subsets or spec.subsets or ("", *shared)}


def _absent(wishes: Iterable[Wish], places: frozenset[Place] | None) -> tuple[str, ...]:
    """Name the wishes that nothing meets: a subset, and the splits where it would be, unless another split has it."""
    if places is None:
        return ()
    subsets = {place.subset for place in places}

    def named(wish: Wish) -> str:
        of_split = f" in {' or '.join(wish.splits)}" if wish.splits else ""
        return f"{wish.subset or 'images'}{of_split}" if wish.subset in {"", *subsets} else wish.subset

    return tuple(sorted({named(wish) for wish in wishes if not any(map(wish.met_by, places))}))


def _holding(name: str, spec: DatasetSpec, wanted: set[Wish], results: Path) -> Holding:
    if spec.requires:
        return Holding(State.MADE, (), spec.root, spec.obtain)
    found = _places_at(spec)
    listed = _places_listed(results / "manifests" / f"{name}.parquet")
    if not found and found is not None and not listed:
        of_root = _absent([Wish(subset, spec.splits) for subset in spec.subsets or ("",)], found)
        return Holding(State.MISSING, of_root if Path(spec.root).exists() else (), spec.root, spec.obtain)
    places = None if found is None else found | listed  # what was listed stays so until it is listed again
    absent = _absent(wanted | {Wish(subset) for subset in spec.subsets}, places)
    here = State.PARTLY if absent else State.HERE
    state = State.LISTED if places is not None and not found else here
    return Holding(state, absent, spec.root, spec.obtain, _unlisted(found or (), listed), places)


def _unlisted(found: Iterable[Place], listed: frozenset[Place]) -> tuple[str, ...]:
    known = listed | {Place(place.subset, None) for place in listed}
    return tuple(sorted({place.subset for place in found if place not in known})) if listed else ()


def _places_at(spec: DatasetSpec) -> frozenset[Place] | None:
    """Say what of a data set lies at its root, from names alone; None where they do not tell."""
    root = Path(spec.root)
    try:
        if not root.exists() or (root.is_dir() and not any(root.iterdir())):
            return frozenset()  # an empty folder is what is left of a disk that is not mounted
        layout = LAYOUTS[spec.layout]
        if isinstance(layout, TreeLayout):
            found = set(_placed(layout, root))
        elif layout.subsets_at is not None:
            found = {Place(subset, None) for subset in layout.subsets_at(root)}
        else:
            return None
    except (OSError, LayoutError):
        return None  # the job that lists it says what is wrong with it
    wishes = [Wish(subset, spec.splits) for subset in spec.subsets or ("",)]
    return frozenset(place for place in found if any(wish.met_by(place) for wish in wishes))


def _placed(layout: TreeLayout, root: Path) -> Iterator[Place]:
    """Ask a layout where an image would belong in each folder below a root."""
    folders = folders_below(root, lambda name: folded(name) in LABELS)
    for item in layout.place(root, ((f"{folder}/image.png".lstrip("/"), 1) for folder in folders)):
        if isinstance(item, Entry):
            yield Place(item.subset, item.split or "")


def _places_listed(manifest: Path) -> frozenset[Place]:
    try:
        rows = pl.read_parquet(manifest, columns=["subset", "split"]).unique().iter_rows()
    except (OSError, pl.exceptions.PolarsError):
        return frozenset()  # there is none, or the job that reads it says what is wrong with it
    return frozenset(Place(subset, split or "") for subset, split in rows)
