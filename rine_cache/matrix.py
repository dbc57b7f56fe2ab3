"""Cross-generator matrices: the leaderboard's numbers of one method, by training set and test set."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow.parquet as pq

from rine_cache.errors import ConfigError, ResultsError, nearest
from rine_cache.files import written_whole
from rine_cache.markdown import markdown_table
from rine_cache.report import METRIC_TITLES
from rine_cache.specs.benchmark import MEAN
from rine_cache.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rine_cache.specs.benchmark import BenchmarkSpec
    from rine_cache.specs.matrix import MatrixSpec

TRAINING_SET = "training_set"
UNSEEN = "unseen"
NOTE = "note"
# The last row's label. It holds spaces, which no training set's name does.
OVERALL = "mean over training sets"


def build_matrix(leaderboard: pl.DataFrame, spec: MatrixSpec, benchmark: BenchmarkSpec) -> pl.DataFrame:
    """Set a method's measured numbers out by training set and test set; published ones do not count.

    Parameters
    ----------
    leaderboard
        Rows of `rine_cache.leaderboard.SCHEMA`, in any order.
    spec, benchmark
        The matrix, and the benchmark that it names.

    Returns
    -------
    One row per row of `spec`, in its order, and a last one of column means, labelled `OVERALL`. Columns:
    ``training_set``; one per test set of the protocol, in its order; ``mean``, the protocol's; ``unseen``, the mean
    over the test sets that the row was not trained on, in the last row the mean over all such cells; ``note``, what
    the leaderboard notes of the row. In percent; a cell that was not measured is null, and so is each mean over it.

    Raises
    ------
    ConfigError
        If a name of `spec` is not defined by `benchmark`, or a test set is named like one of the columns above.
    ResultsError
        If the leaderboard holds no row of the method or of one of the training sets, measured or waiting to be.
    """
    spec.check_against(benchmark, "the matrix")
    test_sets = benchmark.protocols[spec.protocol].test_sets
    for name in (TRAINING_SET, UNSEEN, NOTE):
        if name in test_sets:
            raise ConfigError(f"test set {name!r} is named like a column of the matrix; rename it in the benchmark")
    measured = _measured(leaderboard, spec)
    cells = {
        (training_set, test_set): value
        for training_set, test_set, value in measured.select(TRAINING_SET, "test_set", "value").iter_rows()
    }
    rows: list[dict[str, Any]] = []
    all_unseen: list[float | None] = []
    for row in spec.rows:
        values = {test_set: cells.get((row.training_set, test_set)) for test_set in (*test_sets, MEAN)}
        unseen = [values[test_set] for test_set in test_sets if test_set not in row.trained_on]
        all_unseen += unseen
        notes = measured.filter(training_set=row.training_set)[NOTE].drop_nulls().unique().sort()
        rows.append({TRAINING_SET: row.training_set, **values, UNSEEN: _mean(unseen), NOTE: "; ".join(notes) or None})
    overall = {test_set: _mean([row[test_set] for row in rows]) for test_set in (*test_sets, MEAN)}
    rows.append({TRAINING_SET: OVERALL, **overall, UNSEEN: _mean(all_unseen), NOTE: None})
    numbers = dict.fromkeys((*test_sets, MEAN, UNSEEN), pl.Float64)
    return pl.DataFrame(rows, schema={TRAINING_SET: pl.String, **numbers, NOTE: pl.String})


def write_matrix(matrix: pl.DataFrame, path: Path) -> None:
    """Write a matrix as Parquet."""
    with written_whole(path) as temporary:
        pq.write_table(matrix.to_arrow(), temporary)


def read_matrix(path: Path) -> pl.DataFrame:
    """Read a matrix.

    Raises
    ------
    ResultsError
        If the file is missing or is none.
    """
    needed = (TRAINING_SET, MEAN, UNSEEN, NOTE)
    return read_table(path, needed, what="a matrix", make="rine-cache leaderboard matrix")


def render_matrix(matrix: pl.DataFrame, spec: MatrixSpec) -> str:
    """Render a matrix as Markdown that reads well in a terminal too."""
    test_sets = test_sets_of(matrix)
    body = []
    for row in matrix.iter_rows(named=True):
        seen = spec.trained_on.get(row[TRAINING_SET], ())
        cells = [_cell(row[name], bold=name in seen) for name in (*test_sets, MEAN)]
        unseen = "" if set(test_sets) <= set(seen) else _cell(row[UNSEEN])
        body.append([row[TRAINING_SET], *cells, unseen])
    introduction = (
        f"{describe(spec)}, in percent: a row per training set, a column per test set. **Bold**: tested on a "
        f"generator of its training set; `{UNSEEN}` is the mean over the others. `-`: not measured, or a mean over "
        f"what was not. {' '.join(remarks_on(matrix))}"
    )
    table = markdown_table(["trained on", *test_sets, MEAN, UNSEEN], body)
    return f"# {spec.title}\n\n{textwrap.fill(introduction, 120)}\n\n{table}"


def test_sets_of(matrix: pl.DataFrame) -> list[str]:
    """Name a matrix's test sets, in their order."""
    return [name for name in matrix.columns if name not in (TRAINING_SET, MEAN, UNSEEN, NOTE)]


def describe(spec: MatrixSpec) -> str:
    """Say what the cells of a matrix hold."""
    title = METRIC_TITLES[spec.metric]
    return f"{title[0].upper()}{title[1:]} of {spec.method} on {spec.benchmark}, protocol {spec.protocol}"


def remarks_on(matrix: pl.DataFrame) -> list[str]:
    """Say how much of a matrix was measured, and what the leaderboard notes of its rows: each note once."""
    rows = matrix.filter(pl.col(TRAINING_SET) != OVERALL)
    cells = rows.select(test_sets_of(matrix))
    count, missing = cells.width * cells.height, sum(cells.null_count().row(0))
    remarks = [f"{count - missing} of {count} cells are measured."]
    noted = rows.drop_nulls(NOTE).group_by(NOTE, maintain_order=True).agg(TRAINING_SET)
    for note, names in noted.iter_rows():
        remarks.append(f"Note on {'all rows' if len(names) == rows.height else ', '.join(names)}: {note}.")
    return remarks


def _measured(leaderboard: pl.DataFrame, spec: MatrixSpec) -> pl.DataFrame:
    """Select a matrix's rows of the leaderboard, and refuse names that it does not hold."""
    found = leaderboard.filter(kind="measured", benchmark=spec.benchmark, protocol=spec.protocol, metric=spec.metric)
    # What waits for its data has rows of nulls, so that a name without rows is a wrong one.
    _refuse_unknown("method", spec.method, found["method"])
    found = found.filter(method=spec.method)
    for row in spec.rows:
        _refuse_unknown(f"training set of method {spec.method!r}", row.training_set, found[TRAINING_SET])
    return found


def _refuse_unknown(what: str, name: str, known: pl.Series) -> None:
    if name not in known:
        raise ResultsError(
            f"the leaderboard has no {what} named {name!r} among what is measured; "
            f"{nearest(name, known.drop_nulls().unique())}; correct the matrix, or evaluate the experiment first"
        )


def _mean(values: Sequence[float | None]) -> float | None:
    """Average the values: null if one is null, or there are none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _cell(value: float | None, *, bold: bool = False) -> str:
    text = "-" if value is None else f"{value:.2f}"
    return f"**{text}**" if bold else text
