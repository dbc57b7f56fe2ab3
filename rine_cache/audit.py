"""The audit of a data set: what its files give away before any pixel is understood, one row per image.

Taken from a manifest and any sealed cache made from it, whose rows keep the facts of `rine_cache.facts`: no image is
read a second time. A Parquet file with the columns of `SCHEMA`, whose header says what it was taken from.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from rine_cache.errors import ResultsError
from rine_cache.files import written_whole
from rine_cache.pairing import IMAGE_COLUMNS
from rine_cache.provenance import code_version
from rine_cache.quarantine import Reason

if TYPE_CHECKING:
    from pathlib import Path

    from rine_cache.cache import FeatureCache
    from rine_cache.manifest import Manifest

SCHEMA = pl.Schema(
    {
        "image_id": pl.String,
        "label": pl.Int8,
        "subset": pl.String,
        "split": pl.String,
        "variant": pl.String,
        "group": pl.String,
        "reason": pl.String,
        "content_sha256": pl.Binary,
        "file_size": pl.UInt64,
        "width": pl.UInt32,
        "height": pl.UInt32,
        "format": pl.String,
        "mode": pl.String,
        "jpeg_quality": pl.UInt8,
        "exif": pl.Boolean,
        "perceptual_hash": pl.UInt64,
        "bytes_per_pixel": pl.Float64,
    }
)
# Known of an image once it has been decoded.
_OF_PIXELS = ("width", "height", "format", "mode", "exif", "perceptual_hash")
_HEADER = {"dataset", "manifest_digest", "content_digest", "encoding_fingerprint", "crop_side", "code_version"}


class Audit(NamedTuple):
    """A data set's audit.

    `header` holds the data set's name, the digests of its manifest and contents, the fingerprint of the encoding whose
    cache it was taken from, the side of that cache's crops in pixels, and the code's version; `table` the columns of
    `SCHEMA`, one row per image in the manifest's order. ``reason`` is null where the cache holds the image's features.
    What its file does not tell is null: where it could not be decoded, all but its content and size; where it is no
    JPEG, the quality.
    """

    header: dict[str, Any]
    table: pl.DataFrame

    @property
    def dataset(self) -> str:
        """The data set's name."""
        return str(self.header["dataset"])

    @property
    def readable(self) -> pl.DataFrame:
        """The images that could be read."""
        return self.table.filter(pl.col("reason").is_null())


def audit_dataset(dataset: str, cache: FeatureCache, manifest: Manifest) -> Audit:
    """Join a data set's manifest with the facts that its cache keeps.

    Parameters
    ----------
    dataset
        Its name in the configuration, by which benchmarks and training sets find it.
    cache
        Any of its caches. What a file is, is the same in all. But ``reason`` is why this very cache lacks an image: one
        may be too large for a view that enlarges it, or give features that are not finite in one encoder alone.
    manifest
        The manifest that the cache was made from; see `FeatureCache.require_manifest`.
    """
    tables = cache.tables
    reasons = {reason.value: reason.name.lower() for reason in Reason if reason is not Reason.NONE}
    known = pl.col("width") > 0
    facts = pl.DataFrame(
        {
            "reason": pl.Series(tables["reason"]).replace_strict(reasons, default=None, return_dtype=pl.String),
            "content_sha256": pl.Series(_as_rows_of_bytes(tables["content_sha256"]), dtype=pl.Binary),
            "read": tables["content_sha256"].any(axis=1),
            "exif": tables["exif"].astype(np.bool_),
            **{name: pl.Series(tables[name].astype(str)) for name in ("format", "mode")},
            **{name: tables[name] for name in ("file_size", "width", "height", "jpeg_quality", "perceptual_hash")},
        }
    )
    facts = facts.with_columns(
        *(pl.when("read").then(name).alias(name) for name in ("content_sha256", "file_size")),
        *(pl.when(known).then(name).alias(name) for name in _OF_PIXELS),
        jpeg_quality=pl.when(known & (pl.col("jpeg_quality") > 0)).then("jpeg_quality"),
        bytes_per_pixel=pl.when(known).then(pl.col("file_size") / (pl.col("width").cast(pl.UInt64) * pl.col("height"))),
    )
    header = {
        "dataset": dataset,
        "manifest_digest": manifest.digest,
        "content_digest": cache.content_digest,
        "encoding_fingerprint": cache.fingerprint,
        "crop_side": cache.identity.key["view"]["size"],
        "code_version": code_version(),
    }
    images = manifest.table.select(IMAGE_COLUMNS)
    return Audit(header, pl.concat([images, facts], how="horizontal").select(SCHEMA.names()).cast(dict(SCHEMA)))  # type: ignore[arg-type]  # polars' stubs


def write_audit(audit: Audit, path: Path) -> None:
    """Write an audit."""
    with written_whole(path) as temporary:
        header = {"rine_cache": json.dumps({"audit": audit.header})}
        pq.write_table(audit.table.to_arrow().replace_schema_metadata(header), temporary)


def read_audit(path: Path) -> Audit:
    """Read an audit.

    Raises
    ------
    ResultsError
        If the file is missing or is no audit; says what to run.
    """
    try:
        arrow = pq.read_table(path)
        header = json.loads((arrow.schema.metadata or {})[b"rine_cache"])["audit"]
        if missing := _HEADER - header.keys():
            raise ResultsError(f"{path} is not an audit: its header lacks {', '.join(sorted(missing))}")
        table = pl.DataFrame(arrow).select(SCHEMA.names()).cast(dict(SCHEMA))  # type: ignore[arg-type]  # polars' stubs
    except (OSError, pa.ArrowException, pl.exceptions.PolarsError, LookupError, TypeError, ValueError) as error:
        raise ResultsError(
            f"{path} is not an audit ({type(error).__name__}: {error}); make it with `rine-cache dataset audit`"
        ) from None
    return Audit(header, table)


def _as_rows_of_bytes(digests: np.ndarray[Any, np.dtype[np.uint8]]) -> list[bytes]:
    """List the rows of (N, 32) bytes."""
    return np.ascontiguousarray(digests).view("V32").reshape(-1).tolist()
