"""Curves of an experiment's heads for plots: ROC, reliability, histograms of scores, and how TIE weighs the blocks.

A curve is of a method on a protocol, or on one of its test sets, and agrees with the number beside it: over seeds, and
over test sets, it is an unweighted mean, as the value is, and that of a protocol exists only where every test set was
measured. Some hundred points a curve are kept, whatever the number of images.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
from scipy.special import expit
from sklearn.metrics import roc_curve

from rine_cache.errors import ResultsError
from rine_cache.evaluate import readable_labels, readable_logits
from rine_cache.files import written_whole
from rine_cache.layouts.entry import FAKE, LABEL_NAMES, REAL
from rine_cache.pairing import pair
from rine_cache.specs.benchmark import MEAN
from rine_cache.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from rine_cache.evaluate import Scores
    from rine_cache.heads.head import HeadCard
    from rine_cache.specs.benchmark import BenchmarkSpec, CapSpec
    from rine_cache.specs.training import ExperimentSpec

SCHEMA = pl.Schema(
    {
        "curve": pl.String,  # of `CURVES`
        "benchmark": pl.String,  # null for what is of a head alone
        "protocol": pl.String,
        "test_set": pl.String,  # or `MEAN`
        "training_set": pl.String,
        "method": pl.String,
        "label": pl.String,  # real or fake, where a curve is of one class
        "x": pl.Float64,
        "y": pl.Float64,
        "n": pl.Int64,  # images behind the point, counted once per test set and seed
    }
)
# What x and y are: rates; mean score and share of fakes; a bin's lower edge and the share of a class in it; a block's
# number from 0 and its weight, averaged over channels and seeds.
ROC, RELIABILITY, HISTOGRAM, BLOCK_WEIGHT = CURVES = ("roc", "reliability", "histogram", "block_weight")

# False-positive rates, closer together where detectors are compared.
ROC_GRID = np.unique(np.concatenate([np.linspace(0, 0.1, 21), np.linspace(0.1, 1, 46)]).round(6))  # (66,)
RELIABILITY_BINS = 10
HISTOGRAM_BINS = 25


class _Scored(NamedTuple):
    """A test set's images as all heads of an experiment score them."""

    labels: NDArray[np.int64]  # (n,)
    logits: NDArray[np.float32]  # (H, n)


def draw_curves(
    experiment: ExperimentSpec,
    benchmarks: Sequence[BenchmarkSpec],
    scores: Sequence[Scores],
    cards: Sequence[HeadCard] = (),
) -> pl.DataFrame:
    """Reduce scores to the points of curves, one set per method and test set, and one per method and protocol.

    Parameters
    ----------
    experiment
        Whose heads they are.
    benchmarks
        All benchmarks; those whose data were not scored, or not wholly, give nothing.
    scores
        The experiment's score files.
    cards
        Cards of its heads; those without a TIE have no block weights.

    Returns
    -------
    Rows of `SCHEMA`, in a fixed order.

    Raises
    ------
    ResultsError
        If the score files are of other heads than the experiment's.
    """
    heads = list(experiment.heads)
    by_view: dict[str, dict[str, Scores]] = {}
    for part in scores:
        if set(part.heads) != set(heads):
            raise ResultsError(
                f"the scores of {part.header['dataset']} and the experiment disagree on its heads; score it again"
            )
        by_view.setdefault(part.header["view"], {})[part.header["dataset"]] = part.in_order(heads)
    tables = [pl.DataFrame(schema=SCHEMA), *_weights(cards)]
    for benchmark in benchmarks:
        read = cache(partial(_read, benchmark, by_view))
        for protocol, spec in benchmark.protocols.items():
            view = benchmark.view_of(protocol)
            found = {test_set: read(test_set, spec.cap, view) for test_set in spec.test_sets}
            scored = {test_set: images for test_set, images in found.items() if images is not None}
            parts = {test_set: [images] for test_set, images in scored.items()}
            if len(scored) == len(found):
                parts[MEAN] = list(scored.values())
            for method in experiment.methods:
                rows = [index for index, (name, _) in enumerate(heads) if name == method]
                tables += [
                    _points([(images.labels, images.logits[row]) for images in own for row in rows]).with_columns(
                        benchmark=pl.lit(benchmark.name),
                        protocol=pl.lit(protocol),
                        test_set=pl.lit(test_set),
                        training_set=pl.lit(experiment.training_set),
                        method=pl.lit(method),
                    )
                    for test_set, own in parts.items()
                ]
    return pl.concat(tables, how="diagonal_relaxed").select(SCHEMA.names()).cast(SCHEMA)


def _points(parts: Sequence[tuple[NDArray[np.integer], NDArray[np.floating]]]) -> pl.DataFrame:
    kinds = (roc_points(parts), reliability_points(parts), histogram_points(parts))
    return pl.concat(kinds, how="diagonal_relaxed")


def roc_points(parts: Sequence[tuple[NDArray[np.integer], NDArray[np.floating]]]) -> pl.DataFrame:
    """Average ROC curves vertically: the mean true-positive rate at each false-positive rate of `ROC_GRID`.

    Parameters
    ----------
    parts
        Labels (n,), 0 real and 1 fake, both present, and logits (n,), of each test set and seed.

    Notes
    -----
    The area below it is the mean of the areas, the protocol's AUC, but for the grid's coarseness. Source: Fawcett, An
    introduction to ROC analysis, Pattern Recognition Letters 27 (2006), algorithm 3.
    """
    rates = []
    for labels, logits in parts:
        false, true, _ = roc_curve(labels, logits, drop_intermediate=False)  # (m,) each, ascending
        # From the highest point at the rate below, or at this one, to the lowest at the next: a curve may rise at once.
        below = np.searchsorted(false, ROC_GRID, side="right") - 1  # (G,)
        above = np.minimum(below + 1, len(false) - 1)  # (G,)
        share = (ROC_GRID - false[below]) / np.where(above > below, false[above] - false[below], 1)  # (G,)
        rates.append(true[below] + share * (true[above] - true[below]))  # (G,)
    count = sum(len(labels) for labels, _ in parts)
    return pl.DataFrame({"curve": ROC, "x": ROC_GRID, "y": np.mean(rates, axis=0), "n": count})


def reliability_points(parts: Sequence[tuple[NDArray[np.integer], NDArray[np.floating]]]) -> pl.DataFrame:
    """Set the share of fakes against the mean score, in `RELIABILITY_BINS` bins of one width; empty bins are left out.

    Every test set and seed weighs the same, however many images it has; see `roc_points` for `parts`.
    """
    sums = np.zeros((4, RELIABILITY_BINS))  # weight, weighted score, weighted fakes, images
    for labels, logits in parts:
        scores = expit(logits.astype(np.float64))  # (n,)
        bins = np.minimum((scores * RELIABILITY_BINS).astype(int), RELIABILITY_BINS - 1)  # (n,)
        for line, of_each in enumerate((np.ones(len(bins)), scores, labels == FAKE)):
            sums[line] += np.bincount(bins, of_each, RELIABILITY_BINS) / len(bins)
        sums[3] += np.bincount(bins, minlength=RELIABILITY_BINS)
    weight, score, fake, count = sums[:, sums[3] > 0]  # (b,) each
    return pl.DataFrame({"curve": RELIABILITY, "x": score / weight, "y": fake / weight, "n": count.astype(np.int64)})


def histogram_points(parts: Sequence[tuple[NDArray[np.integer], NDArray[np.floating]]]) -> pl.DataFrame:
    """Count the share of each class in `HISTOGRAM_BINS` bins of the score; see `roc_points` for `parts`."""
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)  # (bins + 1,)
    tables = []
    for label in (REAL, FAKE):
        counts = [np.histogram(expit(logits[labels == label].astype(np.float64)), edges)[0] for labels, logits in parts]
        shares = np.mean([count / count.sum() for count in counts], axis=0)  # (bins,)
        columns = {"curve": HISTOGRAM, "label": LABEL_NAMES[label], "x": edges[:-1], "y": shares}
        tables.append(pl.DataFrame({**columns, "n": np.sum(counts, axis=0)}))
    return pl.concat(tables)


def write_curves(curves: pl.DataFrame, path: Path) -> None:
    """Write curves as Parquet."""
    with written_whole(path) as temporary:
        curves.write_parquet(temporary)


def read_curves(path: Path) -> pl.DataFrame:
    """Read an experiment's curves.

    Raises
    ------
    ResultsError
        If the file is missing or holds none.
    """
    table = read_table(path, SCHEMA.names(), what="a file of curves", make="rine-cache leaderboard curves")
    return table.select(SCHEMA.names())


def _read(
    benchmark: BenchmarkSpec, by_view: Mapping[str, Mapping[str, Scores]], test_set: str, cap: CapSpec | None, view: str
) -> _Scored | None:
    """Read a test set's scores: None where it is not there, or lacks a class."""
    scores = by_view.get(view, {})
    pairing = pair(benchmark.test_sets[test_set], cap, {dataset: part.images for dataset, part in scores.items()})
    if pairing is None:
        return None
    labels = readable_labels(scores, pairing)  # (n,)
    return _Scored(labels, readable_logits(scores, pairing)) if len(np.unique(labels)) == 2 else None


def _weights(cards: Sequence[HeadCard]) -> Iterator[pl.DataFrame]:
    """Average the weights that TIE gives each block over a method's seeds."""
    found: dict[tuple[str, str], list[HeadCard]] = {}
    for card in cards:
        if card.importance is not None:
            found.setdefault((card.training_set, card.method), []).append(card)
    for (training_set, method), seeds in found.items():
        weights = np.mean([card.importance.mean for card in seeds if card.importance], axis=0)  # (K',)
        yield pl.DataFrame(
            {
                "curve": BLOCK_WEIGHT,
                "training_set": training_set or None,
                "method": method,
                "x": np.array(seeds[0].blocks, np.float64),
                "y": weights,
            },
            schema_overrides={"training_set": pl.String},
        )
