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


_HEADER = {"dataset", "view", "encoding_fingerprint", "manifest_digest", "content_digest", "heads"}


class Scores(NamedTuple):
    """A score file: its header, its images, and one row of logits per head of the header."""

    header: dict[str, Any]
    images: pl.DataFrame  # image_id, label, subset, group
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


class _Selection(NamedTuple):
    """The images of one test set in one score file."""

    scores: Scores
    rows: NDArray[np.int64]


class _TestSet(NamedTuple):
    """A test set that was scored: labels of its images, their logits, and which images they are."""

    labels: NDArray[np.int64]  # (n,)
    logits: NDArray[np.float32]  # (H, n)
    images: set[tuple[str, str, int]]  # data set, image id, label
    quarantined: set[tuple[str, str, int]]
    provenance: list[str]


def read_scores(path: Path) -> Scores:
    """Read a score file.

    Raises
    ------
    ResultsError
        If it is missing or is none.
    """
    try:
        table = pq.read_table(path)
        header = json.loads((table.schema.metadata or {})[b"rine_cache"])
        if missing := _HEADER - header.keys():
            raise ResultsError(f"{path} is not a score file: its header lacks {', '.join(sorted(missing))}")
        frame = pl.DataFrame(table)
        heads = len(header["heads"])
        logits = frame["logit"].cast(pl.Float32).fill_null(float("nan")).to_numpy().reshape(heads, -1)  # (H, N)
        images = frame.head(logits.shape[1]).select("image_id", "label", "subset", "group")
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
                    for row in _protocol_rows(spec.test_sets, found, measured, head)
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
    """Gather a test set's images, or None where a data set or subset of it was not scored."""
    selections = []
    for source, label in ((spec.real, REAL), (spec.fake, FAKE)):
        scores = by_source.get((source.dataset, view))
        if scores is None:
            return None
        present = set(scores.images["subset"])
        if absent := [subset for subset in source.subsets if subset not in present]:
            LOG.warning("%s has no subset %r; %s", source.dataset, absent[0], nearest(absent[0], present))
            return None
        selections.append(_Selection(scores, _rows(scores, source, label)))
    identities = [
        list(
            zip(
                [selection.scores.header["dataset"]] * len(selection.rows),
                selection.scores.images["image_id"].gather(selection.rows),
                selection.scores.images["label"].gather(selection.rows),
                strict=True,
            )
        )
        for selection in selections
    ]
    logits = np.concatenate([selection.scores.logits[:, selection.rows] for selection in selections], axis=1)  # (H, n)
    everything = [identity for part in identities for identity in part]
    lost = np.isnan(logits[0])  # (n,): the heads agree, which read_scores checks
    return _TestSet(
        labels=np.array([label for _, _, label in everything], np.int64),
        logits=logits,
        images={identity for identity, bad in zip(everything, lost, strict=True) if not bad},
        quarantined={identity for identity, bad in zip(everything, lost, strict=True) if bad},
        provenance=[
            selection.scores.header[name]
            for selection in selections
            for name in ("encoding_fingerprint", "manifest_digest", "content_digest")
        ],
    )


def _rows(scores: Scores, source: Source, label: int) -> NDArray[np.int64]:
    wanted = scores.images["label"] == label
    if source.subsets:
        wanted &= scores.images["subset"].is_in(source.subsets)
    return np.flatnonzero(wanted.to_numpy())


def _finite(test_set: _TestSet, head: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    logits = test_set.logits[head]  # (n,)
    kept = ~np.isnan(logits)
    return test_set.labels[kept], logits[kept]


def _protocol_rows(
    test_sets: Sequence[str],
    found: dict[str, _TestSet | None],
    measured: dict[str, dict[Metric, float | None] | None],
    head: dict[str, Any] | None,
) -> list[dict[str, Any]]:
    """Make the rows of one head on one protocol: each test set, then the mean."""
    rows = []
    for metric in METRICS:
        values = [(measured[test_set] or {}).get(metric) for test_set in test_sets]
        known = [value for value in values if value is not None]
        covered = {"metric": metric, "covered": len(known), "test_sets": len(test_sets)}
        for test_set, value in zip(test_sets, values, strict=True):
            rows.append({"test_set": test_set, "value": value, **covered, **_counts([found[test_set]], head)})
        mean = float(np.mean(known)) if len(known) == len(test_sets) else None
        rows.append({"test_set": MEAN, "value": mean, **covered, **_counts([found[name] for name in test_sets], head)})
    return rows


def _counts(parts: Sequence[_TestSet | None], head: dict[str, Any] | None) -> dict[str, Any]:
    """Count distinct images, so that reals shared by test sets count once; fingerprint what the value is of."""
    present = [part for part in parts if part is not None]
    if not present or head is None:
        return {"n_real": None, "n_fake": None, "n_quarantined": None, "fingerprint": None}
    images = set().union(*(part.images for part in present))
    return {
        "n_real": sum(label == REAL for _, _, label in images),
        "n_fake": sum(label == FAKE for _, _, label in images),
        "n_quarantined": len(set().union(*(part.quarantined for part in present))),
        "fingerprint": fingerprint([head["fingerprint"], *(name for part in present for name in part.provenance)]),
    }
