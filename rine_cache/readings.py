"""Readings: which caches of a data set come from one reading of its files.

All caches that are asked for together, whatever their encoders, taps and views, are made from one reading: each image
is read and decoded once. What is asked for later comes from a later reading, and one that has been is never added to:
nothing that follows from its caches is computed again because another view is wanted too.

The readings of a data set are numbered from 1. Each is a file ``<number>.json`` that lists its caches; beside it stands
a mark ``<number>.<shard>-of-<shards>.done`` for each shard that is made. A cache moves to a new reading where its
encoder or view has changed under its old name, its weights' file is newer than the reading, or it was deleted: the last
reading that lists a cache is its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rine_cache.files import written_whole
from rine_cache.specs.base import Spec, parse, read_yaml
from rine_cache.specs.encoding import CACHE_SCHEMA_VERSION
from rine_cache.specs.extraction import CacheSpec

if TYPE_CHECKING:
    from collections.abc import Container


class Reading(Spec):
    """What one reading of a data set's files makes.

    Attributes
    ----------
    schema_version
        Of the caches; those of an earlier one are asked for anew.
    caches
        Where each is written, and through which encoder, tap and view.
    """

    schema_version: int = CACHE_SCHEMA_VERSION
    caches: tuple[CacheSpec, ...]


class Readings:
    """The readings of one data set: those that have been, and the next one.

    Whoever wants a cache asks `number_of` for the reading that it comes from. Those that no earlier reading has given
    are put together into the next one; `save` writes it down.
    """

    def __init__(self, folder: Path) -> None:
        """Read what is written below `folder`, which need not exist.

        Raises
        ------
        ConfigError
            If a reading's file is not what `save` writes.
        """
        self._folder = folder
        files = {int(path.stem): path for path in folder.glob("[0-9]*.json")}
        self._readings = {number: parse(Reading, read_yaml(path), str(path)) for number, path in files.items()}
        self._saved = {number: path.stat().st_mtime for number, path in files.items()}  # s since the epoch
        # Marks too, so that no number is given twice where a file was deleted.
        numbers = {int(path.name.partition(".")[0]) for path in folder.glob("[0-9]*.*")}
        self._next = self._joint = max(numbers, default=0) + 1
        self._numbers: dict[Path, int] = {}

    def number_of(self, cache: CacheSpec) -> int:
        """Return the number of the reading that a cache comes from: an earlier one, or the next."""
        if cache.out not in self._numbers:
            self._numbers[cache.out] = self._earlier(cache) or self._add(cache)
        return self._numbers[cache.out]

    def caches_of(self, number: int, wanted: Container[Path]) -> list[CacheSpec]:
        """Return the caches that a reading makes now: without those which a later reading makes.

        Of several, those that nobody wants any more are left out: growing data sets need not grow in them.
        """
        made = [cache for cache in self._readings[number].caches if self._last_for(cache.out) == number]
        return [cache for cache in made if cache.out in wanted] or made

    def save(self) -> None:
        """Write down the readings that are new.

        Raises
        ------
        OutputError
            If the disk refuses.
        """
        for number in sorted(self._readings.keys() - self._saved.keys()):
            with written_whole(self._folder / f"{number}.json") as temporary:
                temporary.write_text(self._readings[number].model_dump_json(indent=1) + "\n")

    def _last_for(self, out: Path) -> int | None:
        listing = [
            number for number, reading in self._readings.items() if out in {cache.out for cache in reading.caches}
        ]
        return max(listing, default=None)

    def _earlier(self, cache: CacheSpec) -> int | None:
        """Find the reading that has made, or was to make, this very cache."""
        last = self._last_for(cache.out)
        if last not in self._saved or self._was_deleted(cache.out, last):
            return None
        weights, reading = Path(cache.encoder.weights), self._readings[last]
        if weights.is_file() and weights.stat().st_mtime > self._saved[last]:
            return None
        return last if reading.schema_version == CACHE_SCHEMA_VERSION and cache in reading.caches else None

    def _was_deleted(self, out: Path, number: int) -> bool:
        """Say whether a cache is gone, and not all of its shards that were made are there to be joined."""
        made = [path.name.removesuffix(".done").partition(".")[2] for path in self._folder.glob(f"{number}.*.done")]
        return not out.exists() and any(not (out.with_suffix(".shards") / f"{shard}.h5").exists() for shard in made)

    def _add(self, cache: CacheSpec) -> int:
        """Put a cache into a new reading: the joint one, or one of its own if it is there and was made elsewhere."""
        if cache.out.exists() and self._last_for(cache.out) is None:
            self._next += 1
            number = self._next
        else:
            number = self._joint
        others = self._readings[number].caches if number in self._readings else ()
        # In an order that does not depend on who asks first: Snakemake asks in that of a set.
        self._readings[number] = Reading(caches=tuple(sorted((*others, cache), key=lambda one: one.out)))
        return number
