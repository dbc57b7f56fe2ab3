"""How many encoder passes caches save: the crops that heads read from them, against those encoded to make them.

A pass is one crop through the encoder. Without a cache every crop that a head reads, in each epoch of its training,
each validation and each scoring, would be one. What a head read is kept on its card, what its scores read in their
header, and both are summed from there to the leaderboard.

The number saved is rather too small than too large: a cache's crops count as encoded where `extract` copied them from
another cache, and those of two taps count twice where one pass gave both.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import NonNegativeInt

from rine_cache.errors import ResultsError
from rine_cache.files import written_whole
from rine_cache.provenance import fingerprint
from rine_cache.specs.base import Spec, parse

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import polars as pl

    from rine_cache.cache import FeatureCache

_METADATA_KEY = b"rine_cache"


class EncoderPasses(Spec):
    """What was read from caches.

    Attributes
    ----------
    crops_read
        How many crops, each as often as it was read.
    caches
        The crops that were encoded to make each cache, by its digest: so that those of several heads, scores or
        experiments unite, and each counts once. Nothing for what was made before this was counted.
    """

    crops_read: NonNegativeInt = 0
    caches: dict[str, NonNegativeInt] = {}  # noqa: RUF012 - pydantic copies defaults

    @property
    def crops_encoded(self) -> int:
        """How often the encoder ran: once for each crop of each cache."""
        return sum(self.caches.values())

    @property
    def saved(self) -> int:
        """How many passes were saved; 0 as long as less was read than encoded."""
        return max(0, self.crops_read - self.crops_encoded)

    def facts(self) -> dict[str, int]:
        """Return the three numbers by their names for people."""
        return {
            "crops read": self.crops_read,
            "crops encoded": self.crops_encoded,
            "encoder passes saved": self.saved,
        }


NOTHING_READ = EncoderPasses()


def passes_of(caches: Iterable[FeatureCache], crops_read: int) -> EncoderPasses:
    """Count what was read from caches, which may repeat; images that could not be read were not encoded."""
    return EncoderPasses(
        crops_read=crops_read,
        caches={
            fingerprint([cache.fingerprint, cache.identity.manifest_digest, cache.content_digest]): int(
                cache.readable.sum()
            )
            * cache.shape.draws
            for cache in caches
        },
    )


def total_passes(parts: Iterable[EncoderPasses]) -> EncoderPasses:
    """Add what was read, and unite the caches."""
    read, caches = 0, dict[str, int]()
    for part in parts:
        read += part.crops_read
        caches |= part.caches
    return EncoderPasses(crops_read=read, caches=dict(sorted(caches.items())))


def stated_passes(header: dict[str, Any], where: str) -> EncoderPasses:
    """Read what a header, or one of its heads, states.

    Raises
    ------
    ConfigError
        If it states something else, in `where`.
    """
    return parse(EncoderPasses, header.get("passes", {}), f"`passes` of {where}")


def write_with_passes(table: pl.DataFrame, passes: EncoderPasses, path: Path) -> None:
    """Write a Parquet file whose metadata say what was read for it; the same input gives the same bytes."""
    header = {_METADATA_KEY: json.dumps({"passes": passes.model_dump()})}
    with written_whole(path) as temporary:
        pq.write_table(table.to_arrow().replace_schema_metadata(header), temporary)


def read_passes(path: Path) -> EncoderPasses:
    """Read what was read for a Parquet file: nothing, if it does not say.

    Raises
    ------
    ResultsError
        If it is missing or is no Parquet file.
    """
    try:
        header = json.loads((pq.read_schema(path).metadata or {}).get(_METADATA_KEY, "{}"))
    except (OSError, pa.ArrowException, ValueError) as error:
        raise ResultsError(f"cannot read the header of {path}: {error}") from None
    return stated_passes(header, str(path))
