"""The manifest: the ordered table of a data set's images, whose row order is that of its cache.

A Parquet file with the columns of `SCHEMA`. Two digests guard it. That of its listing (ids, sizes and where the bytes
lie, in order) is kept in every cache made from it, so that a cache is never read with another table's labels; that of
the whole table also follows labels and groups, which may be corrected without encoding anything again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from rine_cache.errors import ManifestError
from rine_cache.files import written_whole
from rine_cache.provenance import fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rine_cache.layouts.entry import Entry

SCHEMA = pl.Schema(
    {
        "image_id": pl.String,
        "label": pl.Int8,
        "subset": pl.String,
        "split": pl.String,
        "group": pl.String,
        "size": pl.Int64,
        "variant": pl.String,
        "container": pl.String,
        "position": pl.Int64,
    }
)
_ROWS_AT_ONCE = 100_000


@dataclass(frozen=True)
class Manifest:
    """A data set's images.

    `table` has the columns of `SCHEMA`, one row per image; `root` is the folder that image ids are relative
    to; `digest` the sha256 over all columns and `listing_digest` that over those of the listing, 64 hexadecimal digits
    each; `listed_as` what asked for these images, root and layout and the like, for which another listing is another.
    """

    table: pl.DataFrame
    root: Path
    digest: str
    listing_digest: str
    listed_as: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return N, the number of images."""
        return self.table.height


def as_table(entries: Iterable[Entry]) -> pl.DataFrame:
    """Gather entries in a table of `SCHEMA`, in the order given; a few at a time, so that millions fit in memory."""
    parts = (pl.DataFrame(some, schema=SCHEMA, orient="row") for some in _some_at_once(entries))
    return pl.concat([pl.DataFrame(schema=SCHEMA), *parts])


def _some_at_once(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    remaining = iter(entries)
    while some := list(islice(remaining, _ROWS_AT_ONCE)):
        yield some


def build_manifest(table: pl.DataFrame, root: Path, listed_as: dict[str, Any] | None = None) -> Manifest:
    """Make a manifest of listed images, in the order given.

    Parameters
    ----------
    table
        Columns of `SCHEMA`, one row per image.
    root
        The folder that image ids and containers are relative to.
    listed_as
        What asked for these images; kept as it is.

    Raises
    ------
    ManifestError
        If there are none, or two share an id.
    """
    if table.is_empty():
        raise ManifestError(f"no images in {root}")
    repeated = table.filter(pl.col("image_id").is_duplicated())
    if not repeated.is_empty():
        raise ManifestError(f"image id {repeated['image_id'][0]!r} stands twice in {root}")
    return _manifest(table, root, listed_as or {})


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write a manifest; the same images give the same bytes."""
    facts = {"root": str(manifest.root), "digest": manifest.digest, "listed_as": manifest.listed_as}
    header = {"rine_cache": json.dumps(facts)}
    with written_whole(path) as temporary:
        pq.write_table(manifest.table.to_arrow().replace_schema_metadata(header), temporary)


def read_manifest(path: Path) -> Manifest:
    """Read a manifest and check it against its digest.

    Raises
    ------
    ManifestError
        If the file is missing, is no manifest, or its rows are not those its digest was taken of.
    """
    try:
        header = json.loads((pq.read_schema(path).metadata or {})[b"rine_cache"])
        root, written, listed_as = Path(header["root"]), str(header["digest"]), dict(header["listed_as"])
        # Not by pyarrow, which keeps 50 MiB to itself after 20,000 rows.
        read = pl.read_parquet(path, glob=False, hive_partitioning=False)
        table = read.select(SCHEMA.names()).cast(dict(SCHEMA))  # type: ignore[arg-type]  # polars' stubs
    except FileNotFoundError:
        raise ManifestError(f"no manifest at {path}; make it with `rine-cache manifest`") from None
    except (OSError, pa.ArrowException, pl.exceptions.PolarsError, LookupError, TypeError, ValueError) as error:
        raise ManifestError(
            f"{path} is not a manifest ({type(error).__name__}: {error}); make it with `rine-cache manifest`"
        ) from None
    manifest = _manifest(table, root, listed_as)
    if manifest.digest != written:
        raise ManifestError(
            f"{path} was altered: its rows have digest {manifest.digest[:12]}, it was written with "
            f"{written[:12]}; make it again with `rine-cache manifest`"
        )
    return manifest


def _manifest(table: pl.DataFrame, root: Path, listed_as: dict[str, Any]) -> Manifest:
    digests = {name: _column_digest(table[name]) for name in SCHEMA}
    listing = fingerprint([digests[name] for name in ("image_id", "size", "container", "position")])
    return Manifest(table, root, fingerprint(digests), listing, listed_as)


def _column_digest(column: pl.Series) -> str:
    """Digest a column's values: which are null, how long texts are, and the bytes; millions of rows in a second."""
    running = hashlib.sha256(f"{column.dtype} {len(column)}".encode())
    running.update(column.is_null().to_numpy().tobytes())
    values = column.fill_null("" if column.dtype == pl.String else 0)
    if column.dtype == pl.String:
        running.update(values.str.len_bytes().to_numpy().astype("<u4").tobytes())
        for start in range(0, len(values), _ROWS_AT_ONCE):
            running.update(values.slice(start, _ROWS_AT_ONCE).str.join("").item().encode())
    else:
        running.update(values.to_numpy().astype("<i8").tobytes())
    return running.hexdigest()
