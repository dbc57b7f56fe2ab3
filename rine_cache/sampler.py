"""Resamples the images of a protocol and finds the interval of each method's numbers on them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from rine_cache.bootstrap import Chosen, bootstrap
from rine_cache.intervals import NEEDED_REALS, interval, interval_name, lacks_reals, measure_support
from rine_cache.layouts.entry import FAKE, REAL
from rine_cache.metrics import METRICS
from rine_cache.resampling import Resampling
from rine_cache.sampling_error import SamplingError, as_replicates
from rine_cache.specs.benchmark import MEAN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from rine_cache.calibration import Calibration
    from rine_cache.intervals import Support
    from rine_cache.pairing import Measured, Side
    from rine_cache.specs.benchmark import Metric

REPLICATES = 1000


class _Drawn(NamedTuple):
    """What was found of a test set, or of a mean over several."""

    values: NDArray[np.float64]  # (M, F)
    distances: NDArray[np.float16]  # (M, F, R), replicates minus values
    digest: str


class Sampler:
    """Resamples the test sets of one view, each once, however many protocols hold it.

    Parameters
    ----------
    methods
        The places of each method's seeds among the heads, F of them.
    calibrations
        Of the heads, H.
    images
        A table per data set, with ``image_id`` and ``group``.
    readable
        By data set, whether each row of its table could be read, (N,).
    """

    def __init__(
        self,
        methods: Sequence[Sequence[int]],
        calibrations: Sequence[Calibration | None],
        images: Mapping[str, pl.DataFrame],
        readable: Mapping[str, NDArray[np.bool_]],
    ) -> None:
        self._methods, self._chosen = methods, Chosen.of(calibrations)
        self._images, self._readable = images, readable
        self._known: dict[str, _Drawn] = {}

    def protocol(self, measured: Mapping[str, Measured | None]) -> list[dict[tuple[str, Metric], SamplingError]]:
        """Find the sampling errors of one protocol's numbers.

        Parameters
        ----------
        measured
            The protocol's test sets; None for what is not there.

        Returns
        -------
        By method, then by test set, or `MEAN` where all test sets are there, and metric. A number that is undefined has
        neither interval nor replicates. One that `lacks_reals` speaks of has no replicates: what it is compared with
        may have any threshold either.
        """
        there = {name: found for name, found in measured.items() if found is not None}
        sides = [side for found in there.values() for side in found.pairing]
        if not sides:
            return [{} for _ in self._methods]
        names, units, place = self._pool(sides)
        cells = {
            name: [place[side.dataset][self._kept(side)] for side in found.pairing] for name, found in there.items()
        }
        resampling = Resampling(names, units, [cell for own in cells.values() for cell in own])
        found = [dict[tuple[str, "Metric"], SamplingError]() for _ in self._methods]
        drawn = []
        for name, one in there.items():
            drawn.append(self._resampled(resampling, cells[name], one))
            self._put(found, name, drawn[-1], resampling, [cells[name]])
        if len(there) == len(measured):
            self._put(found, MEAN, _mean(drawn), resampling, list(cells.values()))
        return found

    def _kept(self, side: Side) -> NDArray[np.int64]:
        return side.rows[self._readable[side.dataset][side.rows]]  # (n,)

    def _pool(self, sides: Sequence[Side]) -> tuple[list[str], list[str], dict[str, NDArray[np.int64]]]:
        """Name a protocol's images and their units, and say where each row of a data set stands among them."""
        names: list[str] = []
        units: list[str] = []
        place = {}
        for dataset in sorted({side.dataset for side in sides}):
            rows = np.unique(np.concatenate([self._kept(side) for side in sides if side.dataset == dataset]))  # (n,)
            image = pl.format("{}|image|{}", pl.lit(dataset), "image_id")
            group = pl.format("{}|group|{}", pl.lit(dataset), "group")  # null without a group
            named = self._images[dataset][rows].select(image=image, unit=pl.coalesce(group, image))
            place[dataset] = np.full(self._images[dataset].height, -1)  # (N,)
            place[dataset][rows] = np.arange(len(names), len(names) + len(rows))
            names += named["image"].to_list()
            units += named["unit"].to_list()
        return names, units, place

    def _resampled(self, resampling: Resampling, cells: Sequence[NDArray[np.int64]], measured: Measured) -> _Drawn:
        digest = resampling.digest(cells)
        if digest not in self._known:
            images = np.concatenate(cells)  # (n,)
            labels = np.repeat([REAL, FAKE], [len(cell) for cell in cells])  # (n,)
            replicates = bootstrap(
                labels,
                measured.logits(),
                self._chosen,
                lambda first, count: resampling.weights(images, first, count),
                REPLICATES,
            )  # (M, H, R)
            values = np.array([[_number(own[metric]) for own in measured.metrics] for metric in METRICS])  # (M, H)
            by_method = np.stack([values[:, heads].mean(axis=1) for heads in self._methods], axis=1)  # (M, F)
            distances = [
                replicates[:, heads].mean(axis=1) - by_method[:, number, None]
                for number, heads in enumerate(self._methods)
            ]
            self._known[digest] = _Drawn(by_method, np.stack(distances, axis=1).astype(np.float16), digest)
        return self._known[digest]

    def _put(
        self,
        found: Sequence[dict[tuple[str, Metric], SamplingError]],
        name: str,
        drawn: _Drawn,
        resampling: Resampling,
        test_sets: Sequence[Sequence[NDArray[np.int64]]],
    ) -> None:
        """Make the entries of all methods on one test set or mean."""
        support = measure_support(resampling.unit_of, resampling.stratum_of, test_sets)
        for number, metric in enumerate(METRICS):
            values, distances = drawn.values[number], drawn.distances[number]  # (F,), (F, R)
            low, high = interval(metric, values, values[:, None] + distances, support)  # (F,)
            said = _said(metric, support, grouped=resampling.grouped)
            size = support.of(metric)
            compared = not lacks_reals(metric, support)
            for method, own in enumerate(found):
                if np.isfinite(low[method]):
                    own[name, metric] = SamplingError(
                        float(low[method]),
                        float(high[method]),
                        said,
                        size.counted,
                        size.strata,
                        drawn.digest[:16],
                        as_replicates(distances[method]) if compared else None,
                    )


def _mean(drawn: Sequence[_Drawn]) -> _Drawn:
    total = np.zeros(drawn[0].distances.shape)  # (M, F, R)
    for one in drawn:
        total += one.distances
    values = np.mean([one.values for one in drawn], axis=0)  # (M, F)
    digest = hashlib.sha256("\n".join(one.digest for one in drawn).encode()).hexdigest()
    return _Drawn(values, (total / len(drawn)).astype(np.float16), digest)


def _said(metric: Metric, support: Support, *, grouped: bool) -> str:
    unit = "groups" if grouped else "images"
    said = f"{interval_name(metric)}, {REPLICATES:,} resamples of {support.of(metric).counted:,} {unit}"
    if lacks_reals(metric, support):
        said += f"; from above alone, as fewer than {NEEDED_REALS[metric]} real {unit} do not bound its threshold"
    return said


def _number(value: float | None) -> float:
    return np.nan if value is None else value
