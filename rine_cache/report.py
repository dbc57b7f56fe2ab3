"""The leaderboard for people: Markdown that reads well in a terminal too.

One section per benchmark, one table per protocol, one line per method with the metrics that the protocol's
papers lead with. Every number, per test set, is in the Parquet file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from rine_cache.markdown import markdown_table
from rine_cache.published_differences import DISAGREES
from rine_cache.specs.benchmark import ERRORS, MEAN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rine_cache.passes import EncoderPasses
    from rine_cache.specs.benchmark import BenchmarkSpec, ProtocolSpec

METRIC_TITLES = {
    "acc": "accuracy",
    "real_acc": "real acc.",
    "fake_acc": "fake acc.",
    "balanced_acc": "balanced acc.",
    "f1": "F1",
    "ap": "AP",
    "auc": "AUC",
    "tpr_fpr1": "TPR at 1 % FPR",
    "tpr_fpr5": "TPR at 5 % FPR",
    "ece": "calibration error",
    "ece_calibrated": "calibration error, temperature of validation",
    "acc_validation_threshold": "accuracy, threshold of validation",
    "acc_validation_fpr1": "accuracy, threshold at 1 % FPR on validation",
    "acc_validation_fpr5": "accuracy, threshold at 5 % FPR on validation",
    "acc_best_threshold": "accuracy, best test threshold (oracle)",
}
_INTRODUCTION = """# Leaderboard

Values are percentages; a measured one is the mean over its seeds ± their standard deviation, and in brackets its 95 %
interval, as far as the choice of images goes: that of other seeds or training data is not in it. `≈` is not told apart
from the best method of its training set on the same images (paired bootstrap test, Holm's correction). `coverage` is
how many of a protocol's test sets stand behind a line: a mean exists only where all do, and only such lines are ranked,
among lines of one training set. An `oracle` was fitted on the test data, and is never ranked. A line marked `-` was not
measured: its data are not on this machine. Beside a published value, `ours` is measured minus published, in points, of
the same method and training set; `≠` where our interval does not hold the published value. Every number, per test set,
is in `leaderboard.parquet`.
"""
_LINE = ("method", "training_set", "kind", "source_kind", "oracle", "source", "note", "protocol_as_published")


def render_markdown(
    leaderboard: pl.DataFrame, benchmarks: Sequence[BenchmarkSpec], passes: EncoderPasses | None = None
) -> str:
    """Render the benchmarks' tables, in their order; protocols that none defines come in one list at the end.

    `passes` is what was read from caches for the leaderboard; a footer says what they saved, if anything was read.
    """
    sections = [_INTRODUCTION]
    for benchmark in benchmarks:
        sections.append(f"## {benchmark.title}\n\n{benchmark.about}".rstrip() + "\n")
        for name, protocol in benchmark.protocols.items():
            rows = leaderboard.filter(benchmark=benchmark.name, protocol=name)
            sections.append(_protocol_section(name, protocol, rows))
    defined = [(benchmark.name, protocol) for benchmark in benchmarks for protocol in benchmark.protocols]
    others = leaderboard.filter(
        ~pl.concat_str("benchmark", "protocol", separator="/").is_in(list(map("/".join, defined)))
    )
    if not others.is_empty():
        sections.append(_others_section(others))
    if passes is not None and passes.crops_read:
        sections.append(_footer(passes))
    return "\n".join(sections)


def _protocol_section(name: str, protocol: ProtocolSpec, rows: pl.DataFrame) -> str:
    """Make a protocol's table: a line per method, its headline metrics side by side, best first."""
    single = len(protocol.test_sets) == 1
    shown = rows.filter(pl.col("test_set").is_in([MEAN, *protocol.test_sets] if single else [MEAN]))
    shown = shown.unique([*_LINE, "metric", "value"], maintain_order=True)  # a lone test set is its own mean
    shown = shown.filter(pl.col("metric").is_in(protocol.headline))
    lines: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for row in shown.iter_rows(named=True):
        key = tuple(row[column] for column in _LINE)
        while row["metric"] in lines.get(key, {}):  # the same source states it twice: both stand
            key = (*key, "again")
        lines.setdefault(key, {})[row["metric"]] = row
    header = ["rank", "method", "training set", "kind", *(METRIC_TITLES[metric] for metric in protocol.headline)]
    header += ["coverage", "real + fake", "source"]
    leaky = _leaky(rows)
    body = [_line(cells, protocol, leaky) for cells in sorted(lines.values(), key=lambda c: _best(c, protocol))]
    unlisted = rows.filter(kind="published")["method"].n_unique() - shown.filter(kind="published")["method"].n_unique()
    footnote = f"\n{unlisted} more published methods state no mean; their test sets are in the Parquet file.\n"
    return f"### {_heading(name, protocol)}\n\n{markdown_table(header, body)}" + (footnote if unlisted > 0 else "")


def _heading(name: str, protocol: ProtocolSpec) -> str:
    """Say what a protocol averages, and what it asks for beyond the benchmark's defaults."""
    size = len(protocol.test_sets)
    parts = [protocol.test_sets[0] if size == 1 else f"mean of {size} test sets"]
    if protocol.cap is not None:
        parts.append(f"at most {protocol.cap.per_class:,} images a class")
    if protocol.view is not None:
        parts.append(f"through {protocol.view}")
    if protocol.training_sets:
        parts.append(f"asks for training on {_alternatives(protocol.training_sets)}")
    return f"{name}: {', '.join(parts)}"


def _alternatives(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _best(cells: dict[str, dict[str, Any]], protocol: ProtocolSpec) -> tuple[bool, float, str]:
    """Order lines by their first headline value, best first, those without one last."""
    lead = cells.get(protocol.headline[0])
    value = lead["value"] if lead else None
    method = next(iter(cells.values()))["method"]
    sign = 1 if protocol.headline[0] in ERRORS else -1
    return (value is None, sign * (value or 0.0), method)


def _leaky(rows: pl.DataFrame) -> dict[str, int]:
    """Count, by training set, the test sets that hold images of it."""
    leaks = rows.filter(pl.col("n_leaked") > 0).group_by("training_set").agg(pl.col("test_set").n_unique())
    return dict(leaks.iter_rows())


def _line(cells: dict[str, dict[str, Any]], protocol: ProtocolSpec, leaky: dict[str, int]) -> list[str]:
    first = next(iter(cells.values()))
    lead = cells.get(protocol.headline[0], first)
    counts = f"{first['n_real']:,} + {first['n_fake']:,}" if first["n_real"] is not None else ""
    if first["n_quarantined"]:
        counts += f" ({first['n_quarantined']:,} quarantined)"
    kind = first["kind"] if first["kind"] == "measured" else first["source_kind"]
    return [
        str(lead["rank"] or ""),
        first["method"],
        first["training_set"] or ("test data" if first["oracle"] and kind == "measured" else "not stated"),
        f"{kind}, oracle" if first["oracle"] else kind,
        *(_value(cells.get(metric)) for metric in protocol.headline),
        first["coverage"] or "",
        counts,
        "; ".join(filter(None, (_shorten(first["source"]), first["note"], *_warnings(first, protocol, leaky)))),
    ]


def _warnings(line: dict[str, Any], protocol: ProtocolSpec, leaky: dict[str, int]) -> Iterator[str]:
    """Say of a measured line what a reader must know beyond its note."""
    if line["kind"] == "measured" and not line["oracle"]:
        yield _departure(line, protocol)
        if count := leaky.get(line["training_set"]):
            yield f"LEAK: {count} of its test sets hold images of its training set, see audits/all/duplicates.md"


def _departure(line: dict[str, Any], protocol: ProtocolSpec) -> str:
    """Note that a line was trained on something else than its protocol asks for."""
    asked = protocol.training_sets
    if not asked or line["training_set"] in asked:
        return ""
    return f"trained on {line['training_set']}, not on {_alternatives(asked)}"


def _value(row: dict[str, Any] | None) -> str:
    if row is None or row["value"] is None:
        return "-"
    spread = f" ± {row['std']:.2f}" if row["std"] is not None else ""
    interval = f" [{row['ci_low']:.2f}, {row['ci_high']:.2f}]" if row["ci_low"] is not None else ""
    tied = " ≈" if row["tied_with_best"] and row["best_difference"] is not None else ""
    ours = f" (ours {row['measured_difference']:+.2f})" if row["measured_difference"] is not None else ""
    apart = " ≠" if row["measured_verdict"] == DISAGREES else ""
    return f"{row['value']:.2f}{spread}{interval}{tied}{ours}{apart}"


def _shorten(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def _others_section(others: pl.DataFrame) -> str:
    counts = others.group_by("benchmark", "protocol", "kind").len("rows").sort("benchmark", "protocol", "kind")
    body = [[*row[:-1], f"{row[-1]:,}"] for row in counts.iter_rows()]
    table = markdown_table(["benchmark", "protocol", "kind", "numbers"], body)
    return f"## Other protocols\n\nNo benchmark file of this configuration defines them.\n\n{table}"


def _footer(passes: EncoderPasses) -> str:
    return (
        f"---\n\nThe encoder ran once over {_count(passes.crops_encoded, 'crop')}; the heads behind this leaderboard "
        f"read {_count(passes.crops_read, 'crop')}: {_count(passes.saved, 'encoder pass', 'encoder passes')} "
        f"{'was' if passes.saved == 1 else 'were'} saved.\n"
    )


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
