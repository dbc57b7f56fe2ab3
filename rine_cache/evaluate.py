"""Evaluation: score files to metrics, one row per head, protocol, test set and metric, and a mean per protocol.

Which images a test set is made of, and what a protocol's rows are where some are missing, is `rine_cache.pairing`'s.
"""

from __future__ import annotations

import json
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from rine_cache import fingerprints, sampling_error
from rine_cache.calibration import Calibration
from rine_cache.errors import ResultsError
from rine_cache.layouts.entry import FAKE, REAL
from rine_cache.metrics import binary_metrics
from rine_cache.pairing import (
    IMAGE_COLUMNS,
    Measured,
    count_protocol,
    pair,
    protocol_rows,
    refuse_repeated,
    trace_images,
)
from rine_cache.passes import NOTHING_READ, EncoderPasses, stated_passes, total_passes, write_with_passes
from rine_cache.provenance import code_version
from rine_cache.sampling_error import UNKNOWN
from rine_cache.setting_choice import choice_rows
from rine_cache.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from rine_cache.pairing import Pairing
    from rine_cache.specs.benchmark import BenchmarkSpec, CapSpec
    from rine_cache.specs.encoding import EncoderSpec
    from rine_cache.specs.training import AnyHeadSpec, ExperimentSpec

_MEASURED = pl.Schema(
    {
        "experiment": pl.String,
        "benchmark": pl.String,
        "protocol": pl.String,
        "training_set": pl.String,
        "method": pl.String,
        "seed": pl.Int64,
        "test_set": pl.String,
        "metric": pl.String,
        "value": pl.Float64,
        "covered": pl.Int64,
        "test_sets": pl.Int64,
        "n_real": pl.Int64,
        "n_fake": pl.Int64,
        "n_quarantined": pl.Int64,
        "encoder": pl.String,
        "weights": pl.String,
        "tap": pl.String,
        "view": pl.String,
        "blocks": pl.String,
        "head": pl.String,
        "trainable_parameters": pl.Int64,
        "oracle": pl.Boolean,
        "note": pl.String,
        "published_as": pl.String,
        "code_version": pl.String,
        **dict.fromkeys(fingerprints.COLUMNS, pl.String),
    }
)
# Intervals are of the mean over a method's seeds; its replicates stand in the rows of its first seed alone.
SCHEMA = pl.Schema([*_MEASURED.items(), *sampling_error.SCHEMA.items()])

_HEADER = {"dataset", "view", "heads", "encoding_fingerprint", "manifest_digest", "content_digest"}
# What later versions state of a head.
_OF_HEAD = {"calibration", "training_fingerprint"}
_NO_SCORES = (OSError, pa.ArrowException, pl.exceptions.PolarsError, KeyError, ValueError, AttributeError)


class Scores(NamedTuple):
    """A score file: its header, its images, and one row of logits per head of the header."""

    header: dict[str, Any]
    images: pl.DataFrame  # the columns of IMAGE_COLUMNS, one row per image
    logits: NDArray[np.float32]  # (H, N), NaN where an image was quarantined

    @property
    def heads(self) -> dict[tuple[str, int], dict[str, Any]]:
        """The heads by method and seed, in the order of the logits' rows."""
        return {(head["method"], head["seed"]): head for head in self.header["heads"]}

    def in_order(self, heads: Sequence[tuple[str, int]]) -> Scores:
        """Return the same scores with their heads in the order given."""
        rows = [list(self.heads).index(head) for head in heads]
        header = {**self.header, "heads": [self.header["heads"][row] for row in rows]}
        return Scores(header, self.images, self.logits[rows])


def read_scores(path: Path) -> Scores:
    """Read a score file.

    Raises
    ------
    ResultsError
        If it is missing or is none.
    """
    header = read_header(path)
    try:
        file = pq.ParquetFile(path)
        # Each head has a row group with the same images: those of the first do for all.
        column = pl.DataFrame(file.read(["logit"]))["logit"]
        logits = column.cast(pl.Float32).fill_null(float("nan")).to_numpy().reshape(len(header["heads"]), -1)  # (H, N)
        images = pl.DataFrame(file.read_row_group(0)).select(IMAGE_COLUMNS)
    except _NO_SCORES as error:
        raise _refusal(path, error) from None
    lost = np.isnan(logits)  # (H, N)
    if (lost != lost[:1]).any():
        raise ResultsError(f"{path}: its heads do not agree on which images could be read; score it again")
    return Scores(header, images, logits)


def read_header(path: Path) -> dict[str, Any]:
    """Read a score file's header alone.

    Raises
    ------
    ResultsError
        If it is missing or is none.
    """
    try:
        header: dict[str, Any] = json.loads((pq.read_schema(path).metadata or {})[b"rine_cache"])
        missing = _HEADER - header.keys()
    except _NO_SCORES as error:
        raise _refusal(path, error) from None
    if missing:
        raise ResultsError(f"{path} is not a score file: its header lacks {', '.join(sorted(missing))}")
    if lacking := sorted({name for head in header["heads"] for name in _OF_HEAD - head.keys()}):
        raise ResultsError(
            f"{path} was made by an older version and lacks its heads' {' and '.join(lacking)}; score again"
        )
    return header


def _refusal(path: Path, error: Exception) -> ResultsError:
    return ResultsError(f"{path} is not a score file ({error}); make it with `rine-cache score`")


def readable_logits(scores: Mapping[str, Scores], pairing: Pairing) -> NDArray[np.float32]:
    """Gather the logits of a test set's images that could be read, reals first, (H, n), from scores by data set."""
    logits = np.concatenate([scores[side.dataset].logits[:, side.rows] for side in pairing], axis=1)  # (H, n)
    return logits[:, ~np.isnan(logits[0])]


def readable_labels(scores: Mapping[str, Scores], pairing: Pairing) -> NDArray[np.int64]:
    """Return the labels of those images, (n,)."""
    counts = [int((~np.isnan(scores[side.dataset].logits[0, side.rows])).sum()) for side in pairing]
    return np.repeat([REAL, FAKE], counts)


def evaluate(
    name: str,
    experiment: ExperimentSpec,
    encoder: EncoderSpec,
    benchmarks: Sequence[BenchmarkSpec],
    scores: Sequence[Scores],
) -> pl.DataFrame:
    """Measure every head of an experiment on every protocol of the benchmarks.

    Parameters
    ----------
    name, experiment, encoder
        The experiment and the encoder it names.
    benchmarks
        All benchmarks; those whose data were not scored give rows of nulls.
    scores
        The experiment's score files.

    Returns
    -------
    Rows of `SCHEMA`, values as fractions.

    Raises
    ------
    ResultsError
        If the score files are of other heads than the experiment's, or of different ones, or a data set or
        benchmark is given twice.
    """
    from rine_cache.sampler import Sampler  # loads numba, for which whoever only reads metrics need not wait

    heads = list(experiment.heads)
    _check_heads(heads, scores)
    scores = [part.in_order(heads) for part in scores]
    by_view = _by_view(scores)
    refuse_repeated([benchmark.name for benchmark in benchmarks], "benchmark")
    trained = scores[0].heads if scores else {}
    methods: dict[str, list[int]] = {}
    for index, (method, _) in enumerate(heads):
        methods.setdefault(method, []).append(index)
    calibrations = _calibrations(scores[0].header) if scores else []
    rows: list[dict[str, Any]] = []
    for benchmark in benchmarks:
        measure = cache(partial(_measure, benchmark, by_view))  # protocols that test the same images share the work
        samplers: dict[str, Sampler] = {}
        for protocol, spec in benchmark.protocols.items():
            view = benchmark.view_of(protocol)
            measured = {test_set: measure(test_set, spec.cap, view) for test_set in spec.test_sets}
            readable = {dataset: ~np.isnan(part.logits[0]) for dataset, part in by_view.get(view, {}).items()}
            counts = count_protocol(measured, readable)
            if view not in samplers:
                images = {dataset: part.images for dataset, part in by_view.get(view, {}).items()}
                samplers[view] = Sampler(list(methods.values()), calibrations, images, readable)
            errors = dict(zip(methods, samplers[view].protocol(measured), strict=True))
            for index, (method, seed) in enumerate(heads):
                head = trained.get((method, seed))
                shared = {
                    "experiment": name,
                    "benchmark": benchmark.name,
                    "protocol": protocol,
                    "training_set": experiment.training_set,
                    "method": method,
                    "seed": seed,
                    "encoder": experiment.encoder,
                    "weights": encoder.weights,
                    "tap": experiment.tap,
                    "view": view,
                    **_head_columns(experiment, method, head),
                    "note": "; ".join(filter(None, (benchmark.note, experiment.methods[method].note))) or None,
                    "published_as": experiment.methods[method].published_as,
                    "code_version": code_version(),
                }
                made_by = fingerprints.Maker(head["fingerprint"], head["training_fingerprint"]) if head else None
                for row in protocol_rows(measured, counts, index, made_by):
                    error = errors[method].get((row["test_set"], row["metric"]), UNKNOWN)
                    if row["value"] is None:
                        error = UNKNOWN
                    if index != methods[method][0]:
                        error = error._replace(replicates=None)
                    rows.append({**shared, **row, **error._asdict()})
    metrics = pl.DataFrame(rows, schema=SCHEMA)
    losses = {key: head.get("validation_loss") for key, head in trained.items()}
    return pl.concat([metrics, choice_rows(metrics, experiment, losses)])


def scoring_passes(header: dict[str, Any]) -> EncoderPasses:
    """Count what all heads of a score file, whose header is given, read for it."""
    per_head = stated_passes(header, f"the scores of {header['dataset']}")
    return total_passes([per_head] * len(header["heads"]))


def count_passes(scores: Sequence[Scores]) -> EncoderPasses:
    """Count what an experiment read from caches: the training of its heads, once each, and all their scores."""
    heads = {key: head for part in scores for key, head in part.heads.items()}
    training = [stated_passes(head, f"head {method} (seed {seed})") for (method, seed), head in heads.items()]
    return total_passes([*training, *(scoring_passes(part.header) for part in scores)])


def read_metrics(path: Path) -> pl.DataFrame:
    """Read an experiment's metrics.

    Raises
    ------
    ResultsError
        If it is missing or holds none.
    """
    return read_table(path, SCHEMA.names(), what="a file of metrics", make="rine-cache evaluate").select(SCHEMA.names())


def write_metrics(metrics: pl.DataFrame, path: Path, passes: EncoderPasses = NOTHING_READ) -> None:
    """Write an experiment's metrics, and what was read from caches for them."""
    write_with_passes(metrics, passes, path)


def _check_heads(heads: list[tuple[str, int]], scores: Sequence[Scores]) -> None:
    makers = [{key: head["fingerprint"] for key, head in part.heads.items()} for part in scores]
    for part, found in zip(scores, makers, strict=True):
        if set(found) != set(heads):
            odd = sorted(set(found) ^ set(heads))[0]
            raise ResultsError(
                f"the scores of {part.header['dataset']} and the experiment disagree on head {odd[0]} seed {odd[1]}; "
                f"train and score the experiment again"
            )
        if found != makers[0]:
            raise ResultsError(
                f"the scores of {part.header['dataset']} are of other heads than those of "
                f"{scores[0].header['dataset']}; score both with the same heads"
            )


def _by_view(scores: Sequence[Scores]) -> dict[str, dict[str, Scores]]:
    """Find score files by view and data set."""
    sources = [(part.header["dataset"], part.header["view"]) for part in scores]
    refuse_repeated([f"{dataset} through {view}" for dataset, view in sources], "score file of")
    found: dict[str, dict[str, Scores]] = {}
    for (dataset, view), part in zip(sources, scores, strict=True):
        found.setdefault(view, {})[dataset] = part
    return found


def _head_columns(experiment: ExperimentSpec, method: str, head: dict[str, Any] | None) -> dict[str, Any]:
    spec = experiment.methods[method].head
    return {
        "blocks": _blocks_column(spec),
        "head": spec.kind,
        "trainable_parameters": head["trainable_parameters"] if head else None,
    }


def _blocks_column(spec: AnyHeadSpec) -> str:
    return ",".join(map(str, spec.blocks)) if isinstance(spec.blocks, tuple) else str(spec.blocks)


def _calibrations(header: dict[str, Any]) -> list[Calibration | None]:
    """Return what was chosen on validation data for each head of a score file."""
    stated = [head["calibration"] for head in header["heads"]]
    return [None if calibration is None else Calibration.model_validate(calibration) for calibration in stated]


def _measure(
    benchmark: BenchmarkSpec, by_view: Mapping[str, Mapping[str, Scores]], test_set: str, cap: CapSpec | None, view: str
) -> Measured | None:
    scores = by_view.get(view, {})
    pairing = pair(benchmark.test_sets[test_set], cap, {dataset: part.images for dataset, part in scores.items()})
    if pairing is None:
        return None
    labels = readable_labels(scores, pairing)  # (n,)
    headers = [scores[side.dataset].header for side in pairing]
    return Measured(
        pairing=pairing,
        metrics=[
            binary_metrics(labels, head_logits, calibration)
            for head_logits, calibration in zip(
                readable_logits(scores, pairing), _calibrations(headers[0]), strict=True
            )
        ],
        logits=partial(readable_logits, scores, pairing),
        data_fingerprint=trace_images(pairing, {dataset: part.header for dataset, part in scores.items()}),
        encoder_fingerprint=fingerprints.joint_fingerprint(header["encoding_fingerprint"] for header in headers),
    )
