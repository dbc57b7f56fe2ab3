"""The method `metadata-only`: how much of a benchmark can be solved without looking at a pixel.

For each test set a random forest is cross-validated on what the files' facts are, `rine_cache.shortcuts.FACTS`, and
its out-of-fold scores are measured like any detector's. As it learns from the test set itself it is an oracle, and is
never ranked.

The forest: 100 trees, each grown on at most `IMAGES_PER_TREE` images. On 20,000 images of which 15 % bore a flipped
label that takes 2 seconds instead of 5, and decides 84 % right instead of 78 %. It was preferred to gradient boosting
on histograms, which is as good on thousands of images but learns nothing from fewer than 40 by default (a leaf must
hold 20), and less from some dozens with smaller leaves. On 511 real images (231 photographs, 280 fakes) its accuracy
and AUC are 1.00, on twenty of them at a time .94 and .98 (boosting: at most .91 and .93), on all with shuffled labels
.51 and .50.
"""

from __future__ import annotations

import logging
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import polars.selectors as cs
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.ensemble import RandomForestClassifier

from rine_cache.evaluate import SCHEMA
from rine_cache.fingerprints import Maker
from rine_cache.layouts.entry import FAKE, REAL
from rine_cache.metrics import METRICS, binary_metrics
from rine_cache.pairing import Measured, count_protocol, pair, protocol_rows, refuse_repeated, trace_images
from rine_cache.provenance import code_version
from rine_cache.sampler import Sampler
from rine_cache.sampling_error import UNKNOWN
from rine_cache.shortcuts import FACTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from rine_cache.audit import Audit
    from rine_cache.specs.benchmark import BenchmarkSpec, CapSpec, Metric

LOG = logging.getLogger(__name__)

METHOD = "metadata-only"
TRAINING_SET = "cross-validated"
NOTE = "no pixel: format, mode, size, bytes per pixel, JPEG quality, EXIF; cross-validated on the test set itself"
FOLDS = 5
IMAGES_PER_TREE = 4_000


def measure_metadata(audits: Sequence[Audit], benchmarks: Sequence[BenchmarkSpec]) -> pl.DataFrame:
    """Measure the method on every protocol of the benchmarks.

    Parameters
    ----------
    audits
        One per data set, of any of its caches: a file's facts are the same in all. What that one lacks is left out.
    benchmarks
        Test sets whose data have no audit give rows of nulls.

    Returns
    -------
    Rows of `rine_cache.evaluate.SCHEMA`, values as fractions; the same for the same audits.

    Raises
    ------
    ResultsError
        If a data set's audit or a benchmark is given twice.
    """
    refuse_repeated([audit.dataset for audit in audits], "audit of")
    refuse_repeated([benchmark.name for benchmark in benchmarks], "benchmark")
    by_dataset = {audit.dataset: audit for audit in audits}
    tables = {name: audit.table for name, audit in by_dataset.items()}
    readable = {name: audit.table["reason"].is_null().to_numpy() for name, audit in by_dataset.items()}
    rows: list[dict[str, Any]] = []
    for benchmark in benchmarks:
        measure = cache(partial(_measure, benchmark, by_dataset))  # protocols that test the same images share the work
        sampler = Sampler([[0]], [None], tables, readable)
        for protocol, spec in benchmark.protocols.items():
            measured = {test_set: measure(test_set, spec.cap) for test_set in spec.test_sets}
            (errors,) = sampler.protocol(measured)
            counts = count_protocol(measured, readable)
            shared = {
                "experiment": METHOD,
                "benchmark": benchmark.name,
                "protocol": protocol,
                "training_set": TRAINING_SET,
                "method": METHOD,
                "seed": 0,
                "head": "forest",
                "oracle": True,
                "note": "; ".join(filter(None, (benchmark.note, NOTE))),
                "code_version": code_version(),
            }
            for row in protocol_rows(measured, counts, 0, Maker()):
                error = errors.get((row["test_set"], row["metric"]), UNKNOWN) if row["value"] is not None else UNKNOWN
                rows.append({**row, **shared, **error._asdict()})
    return pl.DataFrame([dict.fromkeys(SCHEMA) | row for row in rows], schema=SCHEMA)


def cross_validated(images: pl.DataFrame, what: str) -> NDArray[np.float64] | None:
    """Score each image by a forest that saw neither it nor any image of its group, nor one of the same content.

    Images that are linked by several such steps are kept together too.

    Parameters
    ----------
    images
        Rows of audits that could be read, with a column ``dataset``: a group is one of a data set.
    what
        What they are, for the warning.

    Returns
    -------
    Fake logits, shape (N,), finite; or None, with a warning, where the images of a class are fewer than two, or cannot
    be divided.
    """
    labels = images["label"].to_numpy().astype(np.int64)  # (N,)
    groups = _groups(images)  # (N,)
    divisible = min(len(np.unique(groups[labels == label])) for label in (REAL, FAKE))
    if divisible < 2:
        LOG.warning("%s has too few images of a class, or groups of them, for metadata-only: it stays empty", what)
        return None
    count = min(FOLDS, divisible)
    folds = _folds(labels, groups, count)  # (N,)
    facts = _facts(images)  # (N, F)
    scores = np.empty(len(labels), np.float64)  # (N,)
    for fold in range(count):
        seen, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        forest = RandomForestClassifier(
            n_estimators=100,
            max_samples=IMAGES_PER_TREE if len(seen) > IMAGES_PER_TREE else None,
            random_state=0,
            n_jobs=1,
        )
        scores[held_out] = forest.fit(facts[seen], labels[seen]).predict_proba(facts[held_out])[:, 1]
    bounded = scores.clip(1e-6, 1 - 1e-6)  # where all trees agree the logit would be infinite
    logits: NDArray[np.float64] = np.log(bounded / (1 - bounded))  # (N,)
    return logits


def _measure(
    benchmark: BenchmarkSpec, audits: Mapping[str, Audit], test_set: str, cap: CapSpec | None
) -> Measured | None:
    tables = {dataset: audit.table for dataset, audit in audits.items()}
    pairing = pair(benchmark.test_sets[test_set], cap, tables)
    if pairing is None:
        return None
    sides = [tables[side.dataset][side.rows].with_columns(dataset=pl.lit(side.dataset)) for side in pairing]
    images = pl.concat(sides).filter(pl.col("reason").is_null())
    logits = cross_validated(images, f"{benchmark.name}/{test_set}")
    unknown: dict[Metric, float | None] = dict.fromkeys(METRICS)
    return Measured(
        pairing=pairing,
        logits=lambda: np.zeros((1, images.height)) if logits is None else logits[None],
        metrics=[unknown if logits is None else binary_metrics(images["label"].to_numpy(), logits)],
        data_fingerprint=trace_images(pairing, {dataset: audit.header for dataset, audit in audits.items()}),
        encoder_fingerprint=None,
    )


def _facts(images: pl.DataFrame) -> NDArray[np.float64]:
    """Gather the facts as numbers, shape (N, F): a column per format and per mode, 0 for the quality of no JPEG."""
    # A column per pair of sides would be thousands, and say no more than the sides do.
    facts = images.select(**FACTS).drop("width x height").with_columns(pl.col("JPEG quality").fill_null(0))
    return facts.to_dummies(cs.string()).cast(pl.Float64).to_numpy()


def _groups(images: pl.DataFrame) -> NDArray[np.int64]:
    """Give images that are linked, by their data set's group or by their content, one number, shape (N,)."""
    contents = images["content_sha256"].rank("dense").to_numpy().astype(np.int64) - 1  # (N,)
    named = images.select(pl.format("{}|{}", "dataset", "group").rank("dense")).to_series()  # null without a group
    grouped = np.flatnonzero(named.is_not_null().to_numpy())  # (G,)
    # A graph of contents and groups, with an edge for each image that has both.
    first = int(contents.max(initial=-1)) + 1
    names = named.drop_nulls().to_numpy().astype(np.int64) - 1 + first  # (G,)
    nodes = int(names.max(initial=first - 1)) + 1
    edges = coo_array((np.ones(len(grouped), np.int8), (contents[grouped], names)), shape=(nodes, nodes))
    components: NDArray[np.int64] = connected_components(edges, directed=False)[1][contents].astype(np.int64)  # (N,)
    return components


def _folds(labels: NDArray[np.int64], groups: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Divide images into folds that are alike in size and share of fakes, and divide no group.

    The groups are dealt out like cards: those of reals alone, then the mixed ones, then those of fakes alone; the large
    ones of each kind before the small ones, those of one size in random order. So the folds' sizes differ by no more
    than three groups, the largest of each kind; and as groups that hold a class are dealt in a row, so many of them
    reach as many folds, and all folds if there are enough.

    Parameters
    ----------
    labels, groups
        Shape (N,).
    count
        Of folds.

    Returns
    -------
    Each image's fold, shape (N,); the same for the same groups.
    """
    _, numbers, sizes = np.unique(groups, return_inverse=True, return_counts=True)  # (N,), (M,), (M,)
    fakes = np.bincount(numbers, labels == FAKE)  # (M,)
    kinds = (fakes > 0).astype(np.int64) + (fakes == sizes)  # (M,): 0 reals alone, 1 mixed, 2 fakes alone
    shuffled = np.random.default_rng(0).permutation(len(sizes))  # (M,)
    dealt = np.empty(len(sizes), np.int64)  # (M,)
    dealt[np.lexsort((shuffled, -sizes, kinds))] = np.arange(len(sizes)) % count
    return dealt[numbers]
