"""Duplicates within and across data sets; above all training images that stand in test sets.

Exact duplicates are files of equal bytes. Near ones differ in their bytes, but the 64-bit perceptual hashes of their
pixels differ in at most `DISTANCE` bits. Half of a pHash's bits are set, 32, because half of the coefficients it is
made of exceed their median. Where another number is set, coefficients are tied: the image is flat, or varies along
one axis only, and its hash says nothing. Such hashes are near to none. Only images that could be read are compared.

Measured on 511 photographs and generated images (231 + 280), each saved again, share of the copies found:

====================  =====  =====  =====  =====
distance at most          0      2      4      6
====================  =====  =====  =====  =====
JPEG, quality 95       93.5  100.0  100.0  100.0
JPEG, quality 75       92.4   99.8  100.0  100.0
JPEG, quality 50       87.1   99.6  100.0  100.0
half the size          93.5  100.0  100.0  100.0
half, JPEG 75          89.4   99.8  100.0  100.0
2 % cropped            16.8   65.9   92.0   99.4
5 % cropped             2.9   17.6   44.4   75.9
====================  =====  =====  =====  =====

Of the 130,305 pairs of different images among them, none came nearer than 10. Smooth images are the exception to look
out for: of 15 million pairs of disjoint squares of 128 pixels, cut from different ones of these images, many of them
nothing but sky, 13 came as near as 4, and 43 as near as 6. So 4 finds whatever was encoded again or scaled, and names
few pairs that a look at them would dismiss.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from rine_cache.audit import SCHEMA as AUDIT_SCHEMA
from rine_cache.errors import ManifestError, ResultsError
from rine_cache.files import written_whole
from rine_cache.hamming import close_pairs
from rine_cache.pairing import pair, refuse_repeated
from rine_cache.provenance import code_version
from rine_cache.selection import chosen, in_share

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from rine_cache.audit import Audit
    from rine_cache.specs.benchmark import BenchmarkSpec
    from rine_cache.specs.data import TrainingSetSpec

LOG = logging.getLogger(__name__)

DISTANCE = 4
# Images named per reference, collection and kind of duplicate. What is counted is never cut.
LISTED = 1_000
LEAKAGE, ACROSS, WITHIN = "leakage", "across", "within"
EXACT, NEAR = "exact", "near"
_IMAGE = {"dataset": pl.String, "image_id": pl.String, "label": pl.Int8, "subset": pl.String, "split": pl.String}
SCHEMA = pl.Schema(
    {
        "relation": pl.String,
        "reference": pl.String,
        "side": pl.String,
        "collection": pl.String,
        "kind": pl.String,
        "found": pl.Int64,
        "found_conflicts": pl.Int64,
        "distance": pl.UInt8,
        "label_conflict": pl.Boolean,
        **{f"reference_{column}": dtype for column, dtype in _IMAGE.items()},
        **{f"collection_{column}": dtype for column, dtype in _IMAGE.items()},
    }
)
_BITS_SET = 32
_ROWS_AT_ONCE = 4_000_000
# What a reference holds of each label is kept apart: a twin of the other class does not hide behind one of the same.
_HOLDER = ["reference", "twin_label"]


class Group(NamedTuple):
    """Some images: rows of the table that stacks all data sets. `side` is that of a training set, else null."""

    name: str
    side: str | None
    rows: NDArray[np.int64]  # (n,), of readable images


class Duplicates(NamedTuple):
    """What was found, and among what.

    Attributes
    ----------
    table
        Columns of `SCHEMA`. One row is an image of `collection` that has a twin in `reference`, with its nearest twin
        there, one of the other class if any is as near. In relation leakage the collection is a test set, the reference
        one side of a training set; in across, two data sets; in within, a data set and itself. At most `LISTED` rows
        per reference, side, collection and kind; ``found`` counts all images with a twin of that kind there,
        ``found_conflicts`` those with one of the other class. An image with an exact twin in a reference is not near to
        it as well; but an image with twins on both sides of a training set counts on each.
    header
        What was compared: data sets, training sets with their sides and test sets, with their readable images;
        ``leaked``, per training set and test set, the test set's images that have a twin, exact or near, on either
        side, each counted once; which data are not here; how many images were flat; the distance; and the code's
        version.
    """

    table: pl.DataFrame
    header: dict[str, Any]


def find_duplicates(
    audits: Sequence[Audit],
    training_sets: Mapping[str, TrainingSetSpec],
    benchmarks: Sequence[BenchmarkSpec],
    distance: int = DISTANCE,
) -> Duplicates:
    """Compare all readable images of some data sets with each other.

    Memory is linear in the number of images and of those that have twins; see `rine_cache.hamming` for the time.

    Parameters
    ----------
    audits
        One per data set.
    training_sets
        By name. Parts of them whose data are not among the audits are left out, and said to be.
    benchmarks
        Their test sets, whole: a protocol's cap only chooses among these images.
    distance
        Bits in which the hashes of near duplicates may differ.

    Raises
    ------
    ResultsError
        If a data set's audit is given twice.
    """
    names = [audit.dataset for audit in audits]
    refuse_repeated(names, "audit of")
    sizes = [audit.table.height for audit in audits]
    starts = np.cumsum([0, *sizes])
    tables = {name: (int(start), audit.table) for name, start, audit in zip(names, starts, audits, strict=False)}
    images = _stacked(audits)
    datasets = [Group(name, None, start + np.arange(table.height)) for name, (start, table) in tables.items()]
    trained, absent_training = _training_groups(tables, training_sets)
    tested, absent_tests = _test_groups(tables, benchmarks)
    datasets, trained, tested = (_readable_of(images, groups) for groups in (datasets, trained, tested))
    homes = images.select("row", collection=pl.Series(np.repeat(np.arange(len(names)), sizes), dtype=pl.UInt32))
    twins = _twins(images, datasets, images["row"], distance, itself=False).join(homes, on="row")
    across = pl.col("collection") != pl.col("reference")
    tests = _members(images, tested, "collection").select("row", "collection")
    leaks = _twins(images, trained, tests["row"].unique(), distance, itself=True).join(tests, on="row")
    found = [
        _listed(LEAKAGE, leaks, images, trained, tested),
        _listed(ACROSS, twins.filter(across), images, datasets, datasets),
        _listed(WITHIN, twins.filter(~across), images, datasets, datasets),
    ]
    header = {
        "datasets": {group.name: len(group.rows) for group in datasets},
        "training_sets": [[group.name, group.side, len(group.rows)] for group in trained],
        "test_sets": {group.name: len(group.rows) for group in tested},
        "leaked": _leaked(leaks, trained, tested),
        "absent_training_sets": absent_training,
        "absent_test_sets": absent_tests,
        "flat": int((images["content"].is_not_null() & images["hash"].is_null()).sum()),
        "distance": distance,
        "code_version": code_version(),
    }
    return Duplicates(pl.concat(found), header)


def write_duplicates(duplicates: Duplicates, path: Path) -> None:
    """Write what was found, with what was compared in the header."""
    with written_whole(path) as temporary:
        header = {"rine_cache": json.dumps({"duplicates": duplicates.header})}
        pq.write_table(duplicates.table.to_arrow().replace_schema_metadata(header), temporary)


def read_leaks(path: Path) -> pl.DataFrame:
    """Read how many images of each test set stand in each training set that it was compared with.

    Returns
    -------
    Columns training_set, benchmark, test_set and n_leaked: the test set's readable images that have a twin, exact or
    near, on the training or the validation side, each counted once however many twins it has. 0 where none has; parts
    of a training set that were not here count nothing.

    Raises
    ------
    ResultsError
        If there is no file of duplicates at `path`.
    """
    try:
        header = json.loads((pq.read_schema(path).metadata or {})[b"rine_cache"])["duplicates"]
        schema = {"training_set": pl.String, "collection": pl.String, "n_leaked": pl.Int64}
        leaks = pl.DataFrame(header["leaked"], schema, orient="row")
    except (OSError, pa.ArrowException, pl.exceptions.PolarsError, LookupError, TypeError, ValueError) as error:
        raise ResultsError(
            f"{path} is not a file of duplicates ({error}); make it with `rine-cache dataset duplicates`"
        ) from None
    names = pl.col("collection").str.split_exact("/", 1)
    return leaks.select(
        "training_set",
        benchmark=names.struct.field("field_0"),
        test_set=names.struct.field("field_1"),
        n_leaked="n_leaked",
    )


def _stacked(audits: Sequence[Audit]) -> pl.DataFrame:
    """Stack the data sets' images, with a number for each content, and the hash where it says something."""
    readable = pl.col("reason").is_null()
    none = pl.DataFrame(schema={"dataset": pl.String, **AUDIT_SCHEMA})
    named = (audit.table.select(pl.lit(audit.dataset).alias("dataset"), pl.all()) for audit in audits)
    images = pl.concat([none, *named]).with_row_index("row")
    contents = images.filter(readable).select(pl.col("content_sha256").unique()).with_row_index("content")
    telling = readable & (pl.col("perceptual_hash").bitwise_count_ones() == _BITS_SET)
    return images.join(contents, on="content_sha256", how="left", maintain_order="left").select(
        "row",
        *_IMAGE,
        content=pl.when(readable).then("content"),
        hash=pl.when(telling).then("perceptual_hash"),
    )


def _training_groups(
    tables: Mapping[str, tuple[int, pl.DataFrame]], training_sets: Mapping[str, TrainingSetSpec]
) -> tuple[list[Group], list[str]]:
    """Find the images of each side of each training set, and say which parts are not here."""
    groups, absent = [], []
    for name, training_set in training_sets.items():
        for side, parts in (("train", training_set.train), ("validation", training_set.validation)):
            rows = []
            for part in parts:
                if part.dataset not in tables:
                    absent.append(f"{name} ({side}): data set {part.dataset}")
                    continue
                start, table = tables[part.dataset]
                try:
                    kept = chosen(table, part.subsets, part.splits, f"data set {part.dataset}")
                except ManifestError as error:
                    LOG.warning("training set %s (%s): %s; that part is left out", name, side, error)
                    absent.append(f"{name} ({side}): a part of data set {part.dataset}")
                    continue
                if part.share != (0.0, 1.0):
                    kept &= in_share(table["group"], _digests(table), part.share)
                rows.append(start + np.flatnonzero(kept))
            if rows:
                groups.append(Group(name, side, np.unique(np.concatenate(rows))))
    return groups, absent


def _digests(table: pl.DataFrame) -> NDArray[np.uint8]:
    """Lay out an audit's content digests, shape (N, 32), zeros where a file could not be read."""
    return np.frombuffer(b"".join(table["content_sha256"].fill_null(bytes(32))), np.uint8).reshape(-1, 32)


def _test_groups(
    tables: Mapping[str, tuple[int, pl.DataFrame]], benchmarks: Sequence[BenchmarkSpec]
) -> tuple[list[Group], list[str]]:
    """Find the images of each test set, and say which test sets are not here."""
    groups, absent = [], []
    for benchmark in benchmarks:
        for name, test_set in benchmark.test_sets.items():
            sides = pair(test_set, None, {dataset: table for dataset, (_, table) in tables.items()})
            if sides is None:
                absent.append(f"{benchmark.name}/{name}")
            else:
                rows = np.concatenate([tables[side.dataset][0] + side.rows for side in sides])
                groups.append(Group(f"{benchmark.name}/{name}", None, rows))
    return groups, absent


def _readable_of(images: pl.DataFrame, groups: Sequence[Group]) -> list[Group]:
    readable = images["content"].is_not_null().to_numpy()  # (N,)
    return [group._replace(rows=group.rows[readable[group.rows]]) for group in groups]


def _members(images: pl.DataFrame, groups: Sequence[Group], name: str) -> pl.DataFrame:
    """List what is compared of the groups' images, with the group's number as column `name`."""
    compared = images.select("row", "label", "content", "hash")
    parts = [compared.clear().with_columns(pl.lit(0, pl.UInt32).alias(name))]
    parts += [compared[group.rows].with_columns(pl.lit(at, pl.UInt32).alias(name)) for at, group in enumerate(groups)]
    return pl.concat(parts)


def _twins(
    images: pl.DataFrame, references: Sequence[Group], rows: pl.Series, distance: int, *, itself: bool
) -> pl.DataFrame:
    """Find which of some images have a twin in each reference, and the nearest one there.

    Parameters
    ----------
    images
        From `_stacked`.
    references
        Where to look.
    rows
        Which images.
    distance
        As in `find_duplicates`.
    itself
        Whether an image that is in a reference is its own twin there.

    Returns
    -------
    Columns row, reference (its number), kind, distance, twin (a row), conflict (whether the twin is of the other
    class), any_conflict (whether any twin of that kind is), one row per image and reference.
    """
    held = _members(images, references, "reference").rename({"label": "twin_label"})
    probes = images.filter(pl.col("row").is_in(rows.implode()) & pl.col("content").is_not_null())
    exact = _alike(probes, held, "content", itself=itself).with_columns(kind=pl.lit(EXACT))
    near = pl.concat([_alike(probes, held, "hash", itself=itself), _close(probes, held, distance)])
    near = near.join(exact, on=["row", "reference"], how="anti").with_columns(kind=pl.lit(NEAR))
    twins = pl.concat([exact, near]).join(probes.select("row", "label"), on="row")
    twins = twins.with_columns(conflict=pl.col("label") != pl.col("twin_label"))
    return (
        twins.sort("row", "reference", "distance", ~pl.col("conflict"), "twin")
        .group_by("row", "reference", maintain_order=True)
        .agg(pl.col("kind", "distance", "twin", "conflict").first(), any_conflict=pl.col("conflict").any())
    )


def _alike(probes: pl.DataFrame, held: pl.DataFrame, column: str, *, itself: bool) -> pl.DataFrame:
    """Find twins of the same content, or of the same hash: another image where there is one."""
    ends = held.group_by(*_HOLDER, column).agg(first=pl.col("row").min(), last=pl.col("row").max())
    twins = probes.select("row", column).join(ends, on=column)  # nulls, the flat images' hashes, join nothing
    other = pl.when(pl.col("first") != pl.col("row")).then("first").otherwise("last")
    twins = twins.select("row", *_HOLDER, distance=pl.lit(0, pl.UInt8), twin=other)
    return twins if itself else twins.filter(pl.col("twin") != pl.col("row"))


def _close(probes: pl.DataFrame, held: pl.DataFrame, distance: int) -> pl.DataFrame:
    """Find twins whose hashes differ, but in few bits: of each image, the nearest in each reference."""
    words = np.unique(pl.concat([probes["hash"], held["hash"]]).drop_nulls().to_numpy())  # (U,)
    places = pl.DataFrame({"hash": words}).with_row_index("word")
    holders = held.group_by(*_HOLDER, "hash").agg(twin=pl.col("row").min()).join(places, on="hash").drop("hash")
    probed = probes.select("row", "hash").join(places, on="hash").drop("hash")
    nearest = [pl.DataFrame(schema={"probe": pl.UInt32, **holders.drop("word").schema, "distance": pl.UInt8})]
    waiting = 0
    for left, right, differing in close_pairs(words, distance):
        both = pl.DataFrame(
            {
                "probe": np.concatenate([left, right]).astype(np.uint32),
                "word": np.concatenate([right, left]).astype(np.uint32),
                "distance": np.concatenate([differing, differing]),
            }
        )
        some = both.join(holders, on="word").select(nearest[0].columns)
        nearest.append(some)
        waiting += some.height
        if waiting >= _ROWS_AT_ONCE:
            nearest, waiting = [_nearest(nearest)], 0
    return probed.join(_nearest(nearest), left_on="word", right_on="probe").select("row", *_HOLDER, "distance", "twin")


def _nearest(found: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Keep, of all twins of a hash in a reference, the nearest one, and of those the first."""
    ranked = pl.concat(found).with_columns(rank=pl.col("distance").cast(pl.UInt64) * 2**32 + pl.col("twin"))
    return (
        ranked.group_by("probe", *_HOLDER)
        .agg(pl.col("rank").min())
        .select(
            "probe",
            *_HOLDER,
            twin=(pl.col("rank") % 2**32).cast(pl.UInt32),
            distance=(pl.col("rank") // 2**32).cast(pl.UInt8),
        )
    )


def _leaked(leaks: pl.DataFrame, trained: Sequence[Group], tested: Sequence[Group]) -> list[list[Any]]:
    """Count the images of each test set that have a twin on any side of each training set: both names, the number."""
    names = pl.Series([group.name for group in trained], dtype=pl.String)
    counts = leaks.group_by(names.gather(leaks["reference"]).alias("name"), "collection").agg(pl.col("row").n_unique())
    found = {(name, collection): count for name, collection, count in counts.iter_rows()}
    return [
        [name, test_set.name, found.get((name, at), 0)]
        for name in dict.fromkeys(names)
        for at, test_set in enumerate(tested)
    ]


def _listed(
    relation: str,
    twins: pl.DataFrame,
    images: pl.DataFrame,
    references: Sequence[Group],
    collections: Sequence[Group],
) -> pl.DataFrame:
    """Count twins per reference, collection and kind, and name the images of the first `LISTED`, conflicts first."""
    group = ["reference", "collection", "kind"]
    shown = (
        twins.sort(*group, ~pl.col("conflict"), "distance", "row")
        .with_columns(
            found=pl.len().over(group).cast(pl.Int64),
            found_conflicts=pl.col("any_conflict").sum().over(group).cast(pl.Int64),
            place=pl.int_range(pl.len()).over(group),
        )
        .filter(pl.col("place") < LISTED)
    )
    named = [
        images.select(*_IMAGE)[shown[column].to_numpy()].select(pl.all().name.prefix(f"{role}_"))
        for role, column in (("reference", "twin"), ("collection", "row"))
    ]
    numbered = shown["reference"].to_list()
    columns = shown.select(
        "kind",
        "found",
        "found_conflicts",
        "distance",
        relation=pl.lit(relation),
        label_conflict="conflict",
        reference=pl.Series([references[at].name for at in numbered], dtype=pl.String),
        side=pl.Series([references[at].side for at in numbered], dtype=pl.String),
        collection=pl.Series([collections[at].name for at in shown["collection"]], dtype=pl.String),
    )
    return pl.concat([columns, *named], how="horizontal").select(SCHEMA.names())
