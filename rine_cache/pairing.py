"""Which images form a benchmark's test sets, and the rows that numbers measured on them become.

Whatever measures a benchmark takes its images and makes its rows here, so that all of it is measured on the same
images. A test set exists only where every data set, subset, split and variant it names does, and a protocol's mean
only where every one of its test sets has a value. What is missing is a row with nulls, never a number over what was
left.
"""

from __future__ import annotations

import hashlib
import heapq
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rine_cache.errors import ResultsError, nearest
from rine_cache.fingerprints import COLUMNS, images_fingerprint, joint_fingerprint
from rine_cache.layouts.entry import FAKE, LABEL_NAMES, REAL
from rine_cache.metrics import METRICS
from rine_cache.provenance import fingerprint
from rine_cache.specs.benchmark import MEAN, ORACLE_METRICS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import polars as pl
    from numpy.typing import NDArray

    from rine_cache.fingerprints import Maker
    from rine_cache.specs.benchmark import CapSpec, Metric, Source, TestSet

LOG = logging.getLogger(__name__)

# What a data set's table must hold of an image for test sets to be made of it; a manifest's does.
IMAGE_COLUMNS = ("image_id", "label", "subset", "split", "variant", "group")
# These are of one class alone; any other number of a test set that lacks one would flatter or slander.
_OF_ONE_CLASS = frozenset({"real_acc", "fake_acc"})


class Side(NamedTuple):
    """The images of a test set that are of one class, as rows of their data set's table."""

    dataset: str
    label: int
    rows: NDArray[np.int64]  # (n,), ascending


class Pairing(NamedTuple):
    """The images of a test set."""

    real: Side
    fake: Side


class Measured(NamedTuple):
    """A test set that was measured: its images, each method's metrics, and what made them what they are.

    Attributes
    ----------
    metrics
        One per method or head, from `rine_cache.metrics.binary_metrics`.
    logits
        Returns what they were measured on: the logits of the images that could be read, reals first, (H, n).
    data_fingerprint
        From `trace_images`.
    encoder_fingerprint
        Of the encoding that they were read through; null where no encoder had a part in it.
    """

    pairing: Pairing
    metrics: Sequence[Mapping[Metric, float | None]]
    logits: Callable[[], NDArray[np.floating]]
    data_fingerprint: str
    encoder_fingerprint: str | None


class Counts(NamedTuple):
    """How many distinct images stand behind a value; those that could not be read are in neither class."""

    n_real: int
    n_fake: int
    n_quarantined: int


def pair(test_set: TestSet, cap: CapSpec | None, images: Mapping[str, pl.DataFrame]) -> Pairing | None:
    """Find the images of a test set.

    Parameters
    ----------
    test_set
        Its sources.
    cap
        Its protocol's limit, if any.
    images
        A table per data set that is there, with the columns of `IMAGE_COLUMNS` but for ``group``, one row per image.

    Returns
    -------
    The images of each class, or None where the test set is not there or not whole: a data set, subset, split or
    variant that it names has no images, or has some but none of the class while another that it names has. A class
    without any images is empty. A warning says which.
    """
    sides = []
    for source, label in ((test_set.real, REAL), (test_set.fake, FAKE)):
        rows = _rows(images[source.dataset], source, label) if source.dataset in images else None
        if rows is None:
            return None
        if cap is not None:
            rows = _smallest(images[source.dataset], rows, source.dataset, cap)
        sides.append(Side(source.dataset, label, rows))
    return Pairing(*sides)


def refuse_repeated(names: Sequence[str], what: str) -> None:
    """Refuse to measure or compare one thing twice.

    Raises
    ------
    ResultsError
        If a name stands twice; `what` says of what it is one.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ResultsError(f"the {what} {name} is given more than once; give each once")
        seen.add(name)


def trace_images(pairing: Pairing, headers: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the digest of a test set's images: which they are, and their bytes.

    Parameters
    ----------
    pairing
        From `pair`.
    headers
        By data set, its manifest_digest and content_digest.
    """
    sides = []
    for side in pairing:
        header = headers[side.dataset]
        sides.append(images_fingerprint(header["manifest_digest"], header["content_digest"], side.rows))
    return fingerprint(sides)


def count_protocol(
    measured: Mapping[str, Measured | None], readable: Mapping[str, NDArray[np.bool_]]
) -> dict[str, Counts | None]:
    """Count the images of a protocol's test sets, and those of its mean: images that several share once.

    Parameters
    ----------
    measured
        The protocol's test sets; None for what is not there.
    readable
        By data set, whether each row of its table could be read, shape (N,).

    Returns
    -------
    The counts of each test set and, under `MEAN`, of all that are there together; None for what is not there.
    """
    pairings = {name: [found.pairing] if found else [] for name, found in measured.items()}
    pairings[MEAN] = [pairing for own in pairings.values() for pairing in own]
    return {name: _count(own, readable) for name, own in pairings.items()}


def protocol_rows(
    measured: Mapping[str, Measured | None], counts: Mapping[str, Counts | None], method: int, maker: Maker | None
) -> Iterator[dict[str, Any]]:
    """Make the rows of one method on one protocol: per metric each test set, then the unweighted mean.

    Parameters
    ----------
    measured
        The protocol's test sets; None for what is not there.
    counts
        From `count_protocol`.
    method
        Its place in `Measured.metrics`.
    maker
        What scored the images; None where nothing did.

    Yields
    ------
    Dictionaries with test_set, metric, value, covered, test_sets, n_real, n_fake, n_quarantined, oracle and
    the columns of `rine_cache.fingerprints`. Of a test set that lacks a class, only the accuracy of the other has a
    value.
    """
    fingerprints = _fingerprints(measured, maker)
    uncounted = dict.fromkeys(Counts._fields)
    counted = {name: uncounted if found is None else found._asdict() for name, found in counts.items()}
    for metric in METRICS:
        values = {
            name: _value(found.metrics[method][metric], metric, counts[name]) if found else None
            for name, found in measured.items()
        }
        known = [value for value in values.values() if value is not None]
        values[MEAN] = float(np.mean(known)) if len(known) == len(measured) else None
        covered = {"metric": metric, "covered": len(known), "test_sets": len(measured)}
        for name, value in values.items():
            yield {
                "test_set": name,
                "value": value,
                **covered,
                **counted[name],
                "oracle": metric in ORACLE_METRICS,
                **fingerprints[name],
            }


def _rows(images: pl.DataFrame, source: Source, label: int) -> NDArray[np.int64] | None:
    """Return the rows of a source's images of one class, or None where one of the names in it stands for none."""
    filters = {"subset": source.subsets, "split": source.splits, "variant": source.variants}
    named = {column: names for column, names in filters.items() if names}
    wanted = images["label"] == label
    for column, names in named.items():
        if absent := _absent(images[column], names, f"{source.dataset} has no {column}"):
            LOG.warning("%s", absent)
            return None
        wanted &= images[column].is_in(names).fill_null(value=False)
    rows = np.flatnonzero(wanted.to_numpy())  # (n,)
    what = f"{LABEL_NAMES[label]} images"
    if not rows.size:
        LOG.warning("%s holds no %s of those that %s asks for", source.dataset, what, _described(named))
        return rows
    for column, names in named.items():
        if absent := _absent(images[column].gather(rows), names, f"{source.dataset} has no {what} of {column}"):
            LOG.warning("%s", absent)
            return None
    return rows


def _absent(column: pl.Series, names: Sequence[str], message: str) -> str:
    """Complain of the first of the names that a column does not hold, if any."""
    present = set(column.unique().drop_nulls())
    missing = [name for name in names if name not in present]
    return f"{message} {missing[0]!r}; {nearest(missing[0], present)}" if missing else ""


def _described(named: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(f"{column} {' or '.join(names)}" for column, names in named.items()) or "the test set"


def _smallest(images: pl.DataFrame, rows: NDArray[np.int64], dataset: str, cap: CapSpec) -> NDArray[np.int64]:
    """Keep the rows whose images come first in the order of `CapSpec`."""
    if len(rows) <= cap.per_class:
        return rows
    image_ids = images["image_id"].gather(rows)
    digests = (hashlib.sha256(f"{cap.seed}|{dataset}|{image_id}".encode()).digest() for image_id in image_ids)
    kept = heapq.nsmallest(cap.per_class, zip(digests, rows.tolist(), strict=True))
    return np.array(sorted(row for _, row in kept), np.int64)  # (n,)


def _count(pairings: Sequence[Pairing], readable: Mapping[str, NDArray[np.bool_]]) -> Counts | None:
    if not pairings:
        return None
    found: dict[tuple[str, int], list[NDArray[np.int64]]] = {}
    for side in (side for pairing in pairings for side in pairing):
        found.setdefault((side.dataset, side.label), []).append(side.rows)
    counts = {REAL: 0, FAKE: 0}
    quarantined = 0
    for (dataset, label), parts in found.items():
        kept = readable[dataset][np.unique(np.concatenate(parts))]  # (n,)
        counts[label] += int(kept.sum())
        quarantined += int((~kept).sum())
    return Counts(counts[REAL], counts[FAKE], quarantined)


def _value(value: float | None, metric: Metric, counts: Counts | None) -> float | None:
    if counts is None:
        return None
    whole = counts.n_real > 0 and counts.n_fake > 0
    return value if whole or metric in _OF_ONE_CLASS else None


def _fingerprints(measured: Mapping[str, Measured | None], maker: Maker | None) -> dict[str, dict[str, str | None]]:
    """Trace the numbers of a method, on each test set and on average, to what made them."""
    behind = {name: [found] if found else [] for name, found in measured.items()}
    behind[MEAN] = [found for found in measured.values() if found]
    return {
        name: dict.fromkeys(COLUMNS)
        if maker is None or not parts
        else {
            "data_fingerprint": joint_fingerprint(part.data_fingerprint for part in parts),
            "encoder_fingerprint": joint_fingerprint(part.encoder_fingerprint for part in parts),
            **maker._asdict(),
        }
        for name, parts in behind.items()
    }
