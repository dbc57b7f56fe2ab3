"""A protocol's table as a paper prints it: methods down, test sets across, the best and the second best marked.

Only like is compared with like, as on the leaderboard: a mark is won among the ranked lines of one training set that
the table shows. Oracles and whatever else the leaderboard does not rank stand apart, say why, and win no mark. How the
table is written is `rine_cache.paper_formats`'.
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from rine_cache.errors import ResultsError, nearest
from rine_cache.report import METRIC_TITLES
from rine_cache.specs.benchmark import MEAN

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from rine_cache.specs.benchmark import BenchmarkSpec

# What one line of a leaderboard shares; two statements of one source that differ in nothing else both get a line.
_LINE = ("method", "training_set", "kind", "source_kind", "oracle", "source", "note", "protocol_as_published")
BEST, SECOND = 1, 2
TIED = "\N{DAGGER}"


class Column(NamedTuple):
    """A column: a metric on a test set, or its mean over a protocol."""

    metric: str
    test_set: str


class Cell(NamedTuple):
    """A number, in percent, its 95 % interval, and its place: `BEST`, `SECOND` or 0.

    `tied` says that the leaderboard cannot tell it apart from the best measured number, and that it is not that one.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    place: int = 0
    tied: bool = False


class Line(NamedTuple):
    """A method's line. `mark` is its source's letter, of a published one; `remark` says why it is not ranked."""

    method: str
    training_set: str | None
    kind: str
    mark: str
    remark: str
    cells: dict[Column, Cell]


class Group(NamedTuple):
    """Lines that may be compared, or, where `ranked` is false, those that may not."""

    title: str
    ranked: bool
    lines: list[Line]


class PaperTable(NamedTuple):
    """A table, before it is written in some format.

    Attributes
    ----------
    subject, marking, provenance
        What it shows; what bold, underlined and brackets mean; of how many images, by which version of the code.
    label
        A name for references to it.
    columns
        In order, those of one metric together.
    groups
        In order.
    sources
        Of each mark, the source it stands for.
    decimals
        How many are printed; marks are won by printed values.
    intervals
        Whether the 95 % intervals are printed.
    left_out
        Methods of the protocol without a number in these columns.
    """

    subject: str
    marking: str
    provenance: str
    label: str
    columns: list[Column]
    groups: list[Group]
    sources: dict[str, str]
    decimals: int
    intervals: bool
    left_out: list[str]

    @property
    def caption(self) -> str:
        """The three of them."""
        return " ".join(filter(None, (self.subject, self.marking, self.provenance)))

    @property
    def remarks(self) -> dict[str, str]:
        """Numbers of the lines' remarks, for notes below the table: a number, as text, of each remark."""
        texts = dict.fromkeys(line.remark for group in self.groups for line in group.lines if line.remark)
        return {text: str(number) for number, text in enumerate(texts, start=1)}

    def notes(self) -> list[tuple[str, str]]:
        """List the notes below the table, sources first: each mark with its text."""
        return [*self.sources.items(), *((number, text) for text, number in self.remarks.items())]

    def marks_of(self, line: Line) -> str:
        """Return the marks of the notes that a line refers to, such as ``a,2``."""
        return ",".join(filter(None, (line.mark, self.remarks.get(line.remark, ""))))


_Rows = dict[Column, dict[str, Any]]  # a line's rows of the leaderboard


class _Part(NamedTuple):
    """A group whose lines are not finished."""

    title: str
    ranked: bool
    lines: list[_Rows]


class Choice(NamedTuple):
    """Which part of a protocol's table to show; empty means all, `ranked_only` leaves out what is not ranked."""

    metrics: Sequence[str] = ()
    test_sets: Sequence[str] = ()
    methods: Collection[str] = ()
    kinds: Collection[str] = ()
    training_sets: Collection[str] = ()
    ranked_only: bool = False


def build_paper_table(
    leaderboard: pl.DataFrame,
    benchmark: BenchmarkSpec,
    protocol: str,
    choice: Choice,
    *,
    decimals: int = 1,
    intervals: bool = False,
) -> PaperTable:
    """Choose lines and columns, and who is best and second.

    Of lines that print the same value all are best, or second: what cannot be seen to differ is not told apart.

    Parameters
    ----------
    leaderboard
        Measured and published rows, in percent.
    benchmark, protocol
        Whose table it is.
    choice
        What of it is shown. Without metrics, those of the protocol's headline that have a number;
        without test sets, all and their mean.
    decimals
        Printed digits after the point.
    intervals
        Whether 95 % intervals are printed.

    Raises
    ------
    ResultsError
        If a metric, test set, method or training set is not there, no line is left, or intervals are asked for and no
        line has any.
    """
    rows = leaderboard.filter(benchmark=benchmark.name, protocol=protocol)
    if rows["value"].null_count() == rows.height:
        raise _nothing_to_show(benchmark, protocol)
    columns = _columns(benchmark, protocol, choice, rows)
    for name, chosen in (("method", choice.methods), ("training_set", choice.training_sets), ("kind", choice.kinds)):
        if chosen:
            _require(chosen, rows[name].drop_nulls(), name.replace("_", " "), protocol)
            rows = rows.filter(pl.col(name).is_in(list(chosen)))
    if choice.ranked_only:
        rows = rows.filter(pl.col("rank").is_not_null())
    lines, left_out = _lines(rows, columns)
    if not lines:
        raise _nothing_to_show(benchmark, protocol)
    if intervals and not any(row["ci_low"] is not None for line in lines for row in line.values()):
        raise ResultsError(
            "no line of the table has an interval: published numbers have none, and a leaderboard of an earlier "
            "version of rine-cache has none either; build it again, or leave --intervals out"
        )
    parts = _parts(lines, columns, list(benchmark.protocols[protocol].training_sets))
    marks = _marks(parts)
    return PaperTable(
        subject=_subject(benchmark, protocol, columns),
        marking=_marking(lines, intervals=intervals, ranked=benchmark.ranked),
        provenance=_provenance(lines),
        label=f"tab:{benchmark.name}-{protocol}",
        columns=columns,
        groups=[_group(part, columns, marks, decimals, ranked_here=benchmark.ranked) for part in parts],
        sources={mark: source for source, mark in marks.items()},
        decimals=decimals,
        intervals=intervals,
        left_out=left_out,
    )


def printed(value: float, decimals: int) -> str:
    """Write a number as the table prints it."""
    return f"{value:.{decimals}f}"


def _nothing_to_show(benchmark: BenchmarkSpec, protocol: str) -> ResultsError:
    return ResultsError(
        f"no method has a number in these columns of {benchmark.name} {protocol}; measured ones are null until its "
        f"data are here, and what was chosen may leave none"
    )


def _columns(benchmark: BenchmarkSpec, protocol: str, choice: Choice, rows: pl.DataFrame) -> list[Column]:
    spec = benchmark.protocols[protocol]
    all_sets = list(spec.test_sets) if len(spec.test_sets) == 1 else [*spec.test_sets, MEAN]
    known = set(rows.filter(pl.col("value").is_not_null())["metric"])
    test_sets = list(choice.test_sets or all_sets)
    metrics = list(choice.metrics) or [metric for metric in spec.headline if metric in known]
    _require(metrics, known, "metric", protocol)
    _require(test_sets, all_sets, "test set", protocol)
    return [Column(metric, test_set) for metric in dict.fromkeys(metrics) for test_set in dict.fromkeys(test_sets)]


def _require(chosen: Iterable[str], known: Iterable[str], what: str, protocol: str) -> None:
    names = set(known)
    for name in chosen:
        if name not in names:
            raise ResultsError(f"{protocol} has no {what} {name!r} on the leaderboard; {nearest(name, names)}")


def _lines(rows: pl.DataFrame, columns: list[Column]) -> tuple[list[_Rows], list[str]]:
    """Gather the rows of each line by column; and name the methods that have no number in any of them."""
    lone = {column.test_set for column in columns}
    lines: dict[tuple[Any, ...], _Rows] = {}
    wanted = rows.filter(pl.col("metric").is_in({column.metric for column in columns}))
    for row in wanted.iter_rows(named=True):
        column = Column(row["metric"], row["test_set"])
        if column not in columns and len(lone) == 1 and row["test_set"] == MEAN:
            column = Column(row["metric"], next(iter(lone)))  # a lone test set is its own mean
            if row["coverage"] is None or not row["coverage"].endswith("/1"):
                continue
        if column not in columns:
            continue
        key = tuple(row[name] for name in _LINE)
        if row["kind"] == "measured":
            lines.setdefault(key, {}).setdefault(column, row)
            continue
        while column in lines.get(key, {}):
            if lines[key][column]["value"] == row["value"]:
                break
            key = (*key, "again")
        lines.setdefault(key, {})[column] = row
    kept = [line for line in lines.values() if any(row["value"] is not None for row in line.values())]
    shown = {_first(line)["method"] for line in kept}
    return kept, sorted({str(method) for method in rows["method"]} - shown)


def _first(line: _Rows) -> dict[str, Any]:
    return next(iter(line.values()))


def _marks(parts: list[_Part]) -> dict[str, str]:
    """Give each published source a letter, in the order in which they come: a to z, then aa, ab and so on."""
    rows = [_first(line) for part in parts for line in part.lines]
    sources = dict.fromkeys(row["source"] for row in rows if row["kind"] == "published")
    letters = string.ascii_lowercase
    names = [*letters, *(first + second for first in letters for second in letters)]
    return dict(zip(sources, names, strict=False))


def _parts(lines: list[_Rows], columns: list[Column], asked: list[str]) -> list[_Part]:
    """Part the lines by training set, those that the protocol asks for first; what is not ranked comes last."""
    by_set: dict[str, list[_Rows]] = {}
    unranked = []
    for line in sorted(lines, key=lambda line: _order(line, columns)):
        if any(row["rank"] is not None for row in line.values()):
            by_set.setdefault(_first(line)["training_set"], []).append(line)
        else:
            unranked.append(line)
    order = sorted(by_set, key=lambda name: (asked.index(name) if name in asked else len(asked), name))
    parts = [_Part(f"trained on {name}", True, by_set[name]) for name in order]
    return [*parts, _Part("not ranked", False, unranked)] if unranked else parts


def _group(part: _Part, columns: list[Column], marks: dict[str, str], decimals: int, *, ranked_here: bool) -> Group:
    places = _places(part.lines, decimals)  # nothing without ranks
    finished = []
    for number, line in enumerate(part.lines):
        first = _first(line)
        cells = {}
        for column in columns:
            row = line.get(column, {})
            place = places.get((number, column), 0)
            # Of the best itself there is no difference to the best.
            tied = bool(row.get("tied_with_best")) and row.get("best_difference") is not None
            cells[column] = Cell(row.get("value"), row.get("ci_low"), row.get("ci_high"), place, tied)
        kind = first["kind"] if first["kind"] == "measured" else first["source_kind"]
        mark = marks[first["source"]] if first["kind"] == "published" else ""
        remark = "" if part.ranked else _why_unranked(first, ranked_here=ranked_here)
        finished.append(Line(first["method"], first["training_set"], kind, mark, remark, cells))
    return Group(part.title, part.ranked, finished)


def _order(line: _Rows, columns: list[Column]) -> tuple[bool, int, float, str]:
    """Sort by the first metric's mean, or its last column, best first as far as it is ranked; lines without it last."""
    lead = [column for column in columns if column.metric == columns[0].metric][-1]
    row = line.get(lead, {})
    value, rank = row.get("value"), row.get("rank")
    return value is None, rank or 0, -(value or 0.0), _first(line)["method"]


def _places(lines: list[_Rows], decimals: int) -> dict[tuple[int, Column], int]:
    """Say who is best and who second in each column, by the line's number; who stands alone is neither."""
    places = {}
    for column in {column for line in lines for column in line}:
        entries = [
            (line[column]["rank"], printed(line[column]["value"], decimals), number)
            for number, line in enumerate(lines)
            if column in line and line[column]["rank"] is not None
        ]
        values = list(dict.fromkeys(value for _, value, _ in sorted(entries)))  # best first, by the leaderboard's ranks
        if len(entries) > 1:
            for _, value, number in entries:
                if value in values[:2]:
                    places[number, column] = (BEST, SECOND)[values.index(value)]
    return places


def _why_unranked(row: dict[str, Any], *, ranked_here: bool) -> str:
    """Say why the leaderboard does not rank a line, and what it was trained on."""
    reasons = []
    if row["oracle"]:
        reasons.append("oracle: fitted on test data")
    if row["weights"] == "random":
        reasons.append("random weights")
    if row["source_kind"] == "aggregator":
        reasons.append("from an aggregator")
    covered, _, size = (row["coverage"] or "").partition("/")
    if not size:
        reasons.append("coverage not known")
    elif covered != size:
        reasons.append(f"{covered} of {size} test sets")
    if row["training_set"] is None:
        reasons.append("training set not stated")
    else:
        reasons.append(f"trained on {row['training_set']}")
    if not ranked_here:
        reasons.insert(0, "no result")
    return ", ".join(reasons)


def _subject(benchmark: BenchmarkSpec, protocol: str, columns: list[Column]) -> str:
    metrics = list(dict.fromkeys(METRIC_TITLES.get(column.metric, column.metric) for column in columns))
    size = len(benchmark.protocols[protocol].test_sets)
    subject = f"{benchmark.title} ({protocol}): {_listed(metrics)}, in %"
    if MEAN in {column.test_set for column in columns}:
        subject += f"; {MEAN}: the unweighted mean of the protocol's {size} test sets"
    return f"{subject}."


def _marking(lines: list[_Rows], *, intervals: bool, ranked: bool) -> str:
    marking = "Not a result: this benchmark is never ranked."
    if ranked:
        marking = "Bold: the best, underlined: the second best of the ranked lines of one training set, as printed."
    if intervals:
        rows = [row for line in lines for row in line.values() if row["ci_low"] is not None]
        methods = sorted({row["ci_method"] for row in rows if row.get("ci_method")})
        marking += f" In brackets: 95 % intervals{f' ({_listed(methods)})' if methods else ''}."
    if any(
        row.get("tied_with_best") and row.get("best_difference") is not None for line in lines for row in line.values()
    ):
        test = "paired bootstrap test, Holm's correction"
        marking += f" {TIED}: not told apart from the best measured number of its training set ({test})."
    return marking


def _provenance(lines: list[_Rows]) -> str:
    """Say of how many images, seeds and which code the measured lines are; of several columns, of the largest."""
    measured = [line for line in lines if _first(line)["kind"] == "measured"]
    published = "" if len(measured) == len(lines) else "Lines with a letter are published numbers."
    if not measured:
        return published
    rows = [max(line.values(), key=lambda row: (row["n_real"] or 0) + (row["n_fake"] or 0)) for line in measured]
    real, fake, seeds = ([row[name] for row in rows] for name in ("n_real", "n_fake", "seed_count"))
    versions = sorted({row["code_version"] for row in rows if row["code_version"]})
    averaged = "" if seeds == [1] * len(seeds) else f", the mean of {_range(seeds)} seeds"
    return (
        f"Measured by rine-cache {_listed(versions)} on n = {_range(real)} real and {_range(fake)} fake images"
        f"{averaged}. {published}"
    ).rstrip()


def _range(counts: list[int | None]) -> str:
    known = sorted({count for count in counts if count is not None})
    if not known:
        return "an unknown number of"
    return f"{known[0]:,}" if len(known) == 1 else f"{known[0]:,} to {known[-1]:,}"


def _listed(names: Sequence[str]) -> str:
    *others, last = names or ["(version not stated)"]
    return f"{', '.join(others)} and {last}" if others else last
