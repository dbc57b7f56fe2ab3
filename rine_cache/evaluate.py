"""Evaluation: score files to metrics, one row per head, protocol, test set and metric, and a mean per protocol.

A protocol's mean exists only where every one of its test sets does; a test set exists only where every data
set and subset it names was scored. What is missing is a row with nulls, never a number over what was left.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from rine_cache.errors import ResultsError, nearest
from rine_cache.files import written_whole
from rine_cache.layouts.entry import FAKE, REAL
from rine_cache.metrics import METRICS, binary_metrics
from rine_cache.provenance import code_version, fingerprint
from rine_cache.specs.benchmark import MEAN

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from rine_cache.specs.benchmark import BenchmarkSpec, Metric, Source, TestSetSpec
    from rine_cache.specs.encoding import EncoderSpec
    from rine_cache.specs.training import ExperimentSpec

LOG = logging.getLogger(__name__)

SCHEMA = pl.Schema(
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
        "note": pl.String,
        "fingerprint": pl.String,
        "code_version": pl.String,
    }
)


_IMAGE_COLUMNS = ("image_id", "label", "subset", "split", "group")
_HEADER = {"dataset", "view", "encoding_fingerprint", "manifest_digest", "content_digest", "heads"}


class Scores(NamedTuple):
    """A score file: its header, its images, and one row of logits per head of the header."""

    header: dict[str, Any]
    images: pl.DataFrame  # the columns of _IMAGE_COLUMNS
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


class _TestSet(NamedTuple):
    """A test set that was scored: labels of its images, their logits, and which images they are."""

    labels: NDArray[np.int64]  # (n,)
    logits: NDArray[np.float32]  # (H, n)
    images: set[tuple[str, str, int]]  # data set, image id, label
    quarantined: set[tuple[str, str, int]]
    provenance: list[str]


class _Counts(NamedTuple):
    """How many distinct images stand behind a value, and the caches and manifests they are of."""

    n_real: int
    n_fake: int
    n_quarantined: int
    provenance: list[str]


def read_scores(path: Path) -> Scores:
    """Read a score file.

    Raises
    ------
    ResultsError
        If it is missing or is none.
    """
    try:
        file = pq.ParquetFile(path)
        header = json.loads((file.schema_arrow.metadata or {})[b"rine_cache"])
        if missing := _HEADER - header.keys():
            raise ResultsError(f"{path} is not a score file: its header lacks {', '.join(sorted(missing))}")
        # Each head has a row group with the same images: those of the first do for all.
        column = pl.DataFrame(file.read(["logit"]))["logit"]
        logits = column.cast(pl.Float32).fill_null(float("nan")).to_numpy().reshape(len(header["heads"]), -1)  # (H, N)
        images = pl.DataFrame(file.read_row_group(0)).select(_IMAGE_COLUMNS)
    except (OSError, pa.ArrowException, pl.exceptions.PolarsError, KeyError, ValueError, AttributeError) as error:
        raise ResultsError(f"{path} is not a score file ({error}); make it with `rine-cache score`") from None
    lost = np.isnan(logits)  # (H, N)
    if (lost != lost[:1]).any():
        raise ResultsError(f"{path}: its heads do not agree on which images could be read; score it again")
    return Scores(header, images, logits)


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
    heads = [(method, seed) for method in experiment.methods for seed in experiment.seeds]
    _check_heads(heads, scores)
    scores = [part.in_order(heads) for part in scores]
    by_source = _by_source(scores)
    _refuse_repeated([benchmark.name for benchmark in benchmarks], "benchmark")
    trained = scores[0].heads if scores else {}
    rows: list[dict[str, Any]] = []
    for benchmark in benchmarks:
        found = {test_set: _find(spec, benchmark.view, by_source) for test_set, spec in benchmark.test_sets.items()}
        counts = {name: _counts(found, spec.test_sets) for name, spec in benchmark.protocols.items()}
        for index, (method, seed) in enumerate(heads):
            head = trained.get((method, seed))
            measured = {
                test_set: binary_metrics(*_finite(data, index)) if data else None for test_set, data in found.items()
            }
            shared = {
                "experiment": name,
                "benchmark": benchmark.name,
                "training_set": experiment.training_set,
                "method": method,
                "seed": seed,
                "encoder": experiment.encoder,
                "weights": encoder.weights,
                "tap": experiment.tap,
                "view": benchmark.view,
                **_head_columns(experiment, method, head),
                "note": "; ".join(filter(None, (benchmark.note, experiment.methods[method].note))) or None,
                "code_version": code_version(),
            }
            for protocol, spec in benchmark.protocols.items():
                rows += [
                    {**shared, "protocol": protocol, **row}
                    for row in _protocol_rows(spec.test_sets, measured, counts[protocol], head)
                ]
    return pl.DataFrame(rows, schema=SCHEMA)


def write_metrics(metrics: pl.DataFrame, path: Path) -> None:
    """Write an experiment's metrics."""
    with written_whole(path) as temporary:
        metrics.write_parquet(temporary)


def _check_heads(heads: list[tuple[str, int]], scores: Sequence[Scores]) -> None:
    fingerprints = [{key: head["fingerprint"] for key, head in part.heads.items()} for part in scores]
    for part, found in zip(scores, fingerprints, strict=True):
        if set(found) != set(heads):
            odd = sorted(set(found) ^ set(heads))[0]
            raise ResultsError(
                f"the scores of {part.header['dataset']} and the experiment disagree on head {odd[0]} seed {odd[1]}; "
                f"train and score the experiment again"
            )
        if found != fingerprints[0]:
            raise ResultsError(
                f"the scores of {part.header['dataset']} are of other heads than those of "
                f"{scores[0].header['dataset']}; score both with the same heads"
            )


def _by_source(scores: Sequence[Scores]) -> dict[tuple[str, str], Scores]:
    """Find score files by data set and view."""
    sources = [(part.header["dataset"], part.header["view"]) for part in scores]
    _refuse_repeated([f"{dataset} through {view}" for dataset, view in sources], "score file of")
    return dict(zip(sources, scores, strict=True))


def _refuse_repeated(names: Sequence[str], what: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ResultsError(f"the {what} {name} is given more than once; give each once")


def _head_columns(experiment: ExperimentSpec, method: str, head: dict[str, Any] | None) -> dict[str, Any]:
    spec = experiment.methods[method]
    blocks = "embedding" if spec.head.kind == "linear" else spec.head.blocks
    if isinstance(blocks, tuple):
        blocks = ",".join(str(block) for block in blocks)
    return {
        "blocks": str(blocks),
        "head": spec.head.kind,
        "trainable_parameters": head["trainable_parameters"] if head else None,
    }


def _find(spec: TestSetSpec, view: str, by_source: dict[tuple[str, str], Scores]) -> _TestSet | None:
    """Gather a test set's images, or None where a data set, subset or split of it was not scored."""
    identities: list[tuple[str, str, int]] = []
    logits, provenance = [], []
    for source, label in ((spec.real, REAL), (spec.fake, FAKE)):
        scores = by_source.get((source.dataset, view))
        rows = _rows(scores, source, label) if scores else None
        if scores is None or rows is None:
            return None
        image_ids = scores.images["image_id"].gather(rows)
        identities += [(source.dataset, image_id, label) for image_id in image_ids]
        logits.append(scores.logits[:, rows])  # (H, n)
        provenance += [scores.header[name] for name in ("encoding_fingerprint", "manifest_digest", "content_digest")]
    joined = np.concatenate(logits, axis=1)  # (H, n)
    lost = np.isnan(joined[0])  # (n,): the heads agree, which read_scores checks
    return _TestSet(
        labels=np.array([label for _, _, label in identities], np.int64),
        logits=joined,
        images={identity for identity, bad in zip(identities, lost, strict=True) if not bad},
        quarantined={identity for identity, bad in zip(identities, lost, strict=True) if bad},
        provenance=provenance,
    )


def _rows(scores: Scores, source: Source, label: int) -> NDArray[np.int64] | None:
    """Return the rows of a source's images of one class, or None where it names a subset or split that is absent."""
    wanted = scores.images["label"] == label
    for column, names in (("subset", source.subsets), ("split", source.splits)):
        present = set(scores.images[column].drop_nulls())
        if absent := [name for name in names if name not in present]:
            LOG.warning("%s has no %s %r; %s", source.dataset, column, absent[0], nearest(absent[0], present))
            return None
        if names:
            wanted &= scores.images[column].is_in(names).fill_null(value=False)
    rows = np.flatnonzero(wanted.to_numpy())
    if not rows.size:
        LOG.warning("%s holds no %s images of those that %s asks for", source.dataset, ("real", "fake")[label], source)
    return rows


def _finite(test_set: _TestSet, head: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    logits = test_set.logits[head]  # (n,)
    kept = ~np.isnan(logits)
    return test_set.labels[kept], logits[kept]


def _counts(found: dict[str, _TestSet | None], test_sets: Sequence[str]) -> dict[str, _Counts | None]:
    """Count the images of each test set of a protocol, and those of its mean: shared ones once."""
    groups = {name: [found[name]] for name in test_sets} | {MEAN: [found[name] for name in test_sets]}
    return {name: _count([part for part in parts if part is not None]) for name, parts in groups.items()}


def _count(parts: Sequence[_TestSet]) -> _Counts | None:
    if not parts:
        return None
    images = set().union(*(part.images for part in parts))
    fakes = sum(label == FAKE for _, _, label in images)
    quarantined = set().union(*(part.quarantined for part in parts))
    provenance = [name for part in parts for name in part.provenance]
    return _Counts(len(images) - fakes, fakes, len(quarantined), provenance)


def _protocol_rows(
    test_sets: Sequence[str],
    measured: dict[str, dict[Metric, float | None] | None],
    counts: dict[str, _Counts | None],
    head: dict[str, Any] | None,
) -> list[dict[str, Any]]:
    """Make the rows of one head on one protocol: each test set, then the mean."""
    shared = {name: _count_columns(counted, head) for name, counted in counts.items()}
    rows = []
    for metric in METRICS:
        values = {name: (measured[name] or {}).get(metric) for name in test_sets}
        known = [value for value in values.values() if value is not None]
        values[MEAN] = float(np.mean(known)) if len(known) == len(test_sets) else None
        covered = {"metric": metric, "covered": len(known), "test_sets": len(test_sets)}
        rows += [{"test_set": name, "value": value, **covered, **shared[name]} for name, value in values.items()]
    return rows


def _count_columns(counts: _Counts | None, head: dict[str, Any] | None) -> dict[str, Any]:
    if counts is None or head is None:
        return {"n_real": None, "n_fake": None, "n_quarantined": None, "fingerprint": None}
    columns = counts._asdict()
    provenance = columns.pop("provenance")
    return {**columns, "fingerprint": fingerprint([head["fingerprint"], *provenance])}
