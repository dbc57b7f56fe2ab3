"""Two leaderboards compared: which numbers are new, gone or other ones, by how much, and what may be the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from rine_cache import fingerprints
from rine_cache.errors import ResultsError
from rine_cache.markdown import markdown_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ONLY_A, ONLY_B, CHANGED, SAME = "only in A", "only in B", "changed", "same"
# What makes two rows the same number: published ones are told apart by their source as well.
KEYS = (
    "kind",
    "benchmark",
    "protocol",
    "training_set",
    "method",
    "test_set",
    "metric",
    "published_source",
    "protocol_as_published",
    "published_note",
)
# What can explain that a number is another one, in the order in which to look.
REASONS = (
    "code_version",
    *fingerprints.COLUMNS,
    "encoder",
    "weights",
    "tap",
    "view",
    "blocks",
    "head",
    "trainable_parameters",
    "seed_count",
    "coverage",
    "n_real",
    "n_fake",
    "n_quarantined",
    "oracle",
)
_VALUES = ("value", "ci_low", "ci_high")
_NEEDED = (*(key for key in KEYS if not key.startswith("published_")), "source", "note", *_VALUES)
SCHEMA = pl.Schema(
    {
        "status": pl.String,
        **dict.fromkeys(KEYS, pl.String),
        **{f"{name}_{side}": pl.Float64 for side in "ab" for name in _VALUES},
        "difference": pl.Float64,
        "beyond_interval": pl.Boolean,
        "reasons": pl.String,
    }
)
# Names for people.
_SAID = {
    "code_version": "code",
    "data_fingerprint": "test images",
    "encoder_fingerprint": "encoding",
    "training_fingerprint": "training data",
    "head_fingerprint": "heads",
    "seed_count": "seeds",
    "trainable_parameters": "parameters",
}
_AGAIN = "again"
_FLOAT_NOISE = 1e-9  # points


def read_board(path: Path) -> pl.DataFrame:
    """Read the columns of a leaderboard that are compared.

    One of another version may lack some of `REASONS`: what it does not state cannot be a reason.

    Raises
    ------
    ResultsError
        If there is none at `path`, or it is of a version that lacks one of them.
    """
    try:
        found = pq.read_schema(path).names
        table = pl.read_parquet(path)
    except (OSError, pa.ArrowException, pl.exceptions.PolarsError) as error:
        raise ResultsError(f"{path} is not a leaderboard ({error}); give one that `snakemake` wrote") from None
    if missing := [name for name in _NEEDED if name not in found]:
        old = {"kind", "benchmark", "value"} <= set(found)
        whose = "is a leaderboard of an earlier version of rine-cache" if old else "is not a leaderboard"
        hint = "build it again with that run's metrics, by `rine-cache leaderboard build`, and compare then"
        raise ResultsError(f"{path} {whose}: it lacks the column {', '.join(missing)}; {hint}")
    return table.select(*_NEEDED, *(name for name in REASONS if name in found))


def compare_boards(a: pl.DataFrame, b: pl.DataFrame, tolerance: float = 0.0) -> pl.DataFrame:
    """Hold two leaderboards against each other, row by row.

    Parameters
    ----------
    a, b
        What `read_board` returned; A is the one to start from.
    tolerance
        Points by which a value may differ and still be the same.

    Returns
    -------
    Rows of `SCHEMA`, one per number of either; what neither measured is none. `difference` is B minus A, in points.
    `beyond_interval` says whether B's value lies outside A's 95 % interval, or where A has none, A's outside B's; null
    where neither has one. A value that became null, or was, is changed. `reasons` says in what else the two rows
    differ, of what both state.
    """
    both = _keyed(a, "a").join(
        _keyed(b, "b"), on=[*KEYS, _AGAIN], how="full", nulls_equal=True, coalesce=True, maintain_order="left_right"
    )
    value_a, value_b = pl.col("value_a"), pl.col("value_b")
    moved = (value_b - value_a).abs() > max(tolerance, _FLOAT_NOISE)
    same = (~moved).fill_null(value=False)
    status = (
        pl.when(pl.col("in_b").is_null())
        .then(pl.lit(ONLY_A))
        .when(pl.col("in_a").is_null())
        .then(pl.lit(ONLY_B))
        .when(same)
        .then(pl.lit(SAME))
        .otherwise(pl.lit(CHANGED))
    )
    outside = pl.coalesce(
        ~value_b.is_between(pl.col("ci_low_a"), pl.col("ci_high_a")),
        ~value_a.is_between(pl.col("ci_low_b"), pl.col("ci_high_b")),
    )
    both = both.filter(value_a.is_not_null() | value_b.is_not_null())
    both = both.with_columns(status=status, difference=value_b - value_a, beyond_interval=outside)
    stated = [name for name in REASONS if name in a.columns and name in b.columns]
    reasons = [_reasons(row, stated) for row in both.iter_rows(named=True)]
    return both.with_columns(reasons=pl.Series(reasons, dtype=pl.String)).select(SCHEMA.names())


def render_changes(changes: pl.DataFrame, names: tuple[str, str]) -> str:
    """Write what `compare_boards` found as Markdown that reads well in a terminal.

    Parameters
    ----------
    changes
        What it returned.
    names
        Of A and B, for people.
    """
    changed = changes.filter(status=CHANGED).sort(pl.col("difference").abs(), descending=True, nulls_last=True)
    sections = [f"# Leaderboards compared\n\nA: {names[0]}\nB: {names[1]}\n", _summary(changes)]
    notes: dict[str, int] = {}
    for title, rows in (
        ("Changed beyond the 95 % interval", changed.filter(pl.col("beyond_interval"))),
        ("Changed within the 95 % interval", changed.filter(~pl.col("beyond_interval"))),
        ("Changed, without an interval", changed.filter(pl.col("beyond_interval").is_null())),
    ):
        if not rows.is_empty():
            sections.append(f"## {title}\n\n{_table(rows, notes)}")
    if notes:
        sections.append("\n".join(f"[{number}] {reasons}" for reasons, number in notes.items()) + "\n")
    for status in (ONLY_A, ONLY_B):
        rows = changes.filter(status=status)
        if not rows.is_empty():
            sections.append(f"## {status.replace('only', 'Only')}\n\n{_lone_table(rows)}")
    return "\n".join(sections)


def has_changed(changes: pl.DataFrame) -> bool:
    """Say whether any number is new, gone or another one."""
    return not changes.filter(pl.col("status") != SAME).is_empty()


def _keyed(table: pl.DataFrame, side: str) -> pl.DataFrame:
    """Give rows their key, and their other columns the side's name.

    Where one source states a number twice, the lower and the higher value are told apart.
    """
    published = pl.col("kind") == "published"
    keyed = table.with_columns(
        published_source=pl.when(published).then("source"), published_note=pl.when(published).then("note")
    ).sort(*KEYS, "value", nulls_last=True)
    return keyed.select(
        *KEYS,
        pl.int_range(pl.len()).over(KEYS).alias(_AGAIN),
        *(pl.col(name).alias(f"{name}_{side}") for name in (*_VALUES, *REASONS) if name in table.columns),
        pl.lit(value=True).alias(f"in_{side}"),
    )


def _reasons(row: dict[str, Any], stated: Sequence[str]) -> str:
    """Say in what two rows of one number differ beside it, of the columns that both leaderboards state."""
    if row["status"] not in (CHANGED, SAME):
        return ""
    differing = [name for name in stated if row[f"{name}_a"] != row[f"{name}_b"]]
    told = [f"{_SAID.get(name, name)} {_said(row[f'{name}_a'])} -> {_said(row[f'{name}_b'])}" for name in differing]
    if row["status"] == CHANGED and not told:
        return "nothing that the rows state"
    return "; ".join(told)


def _said(value: Any) -> str:
    return (
        "null"
        if value is None
        else f"{value:,}"
        if isinstance(value, int) and not isinstance(value, bool)
        else str(value)
    )


def _summary(changes: pl.DataFrame) -> str:
    counts = dict(changes["status"].value_counts().iter_rows())
    changed = changes.filter(status=CHANGED)
    outside = changed["beyond_interval"].sum()
    same = changes.filter(pl.col("reasons") != "", status=SAME).height
    explained = f" ({same:,} of them from other code, data or heads)" if same else ""
    return (
        f"{counts.get(SAME, 0):,} numbers are the same{explained}, {counts.get(CHANGED, 0):,} changed, {outside:,} of "
        f"them beyond the 95 % interval. {counts.get(ONLY_A, 0):,} are only in A, {counts.get(ONLY_B, 0):,} only in B."
        f"\n"
    )


def _table(rows: pl.DataFrame, notes: dict[str, int]) -> str:
    """List changed numbers, the reasons by the number of a note."""
    body = []
    for row in rows.iter_rows(named=True):
        note = notes.setdefault(row["reasons"], len(notes) + 1)
        difference = "" if row["difference"] is None else f"{row['difference']:+.2f}"
        cells = [row[name] or "" for name in ("benchmark", "protocol", "training_set", "method", "test_set", "metric")]
        source = row["published_source"] or "measured"
        body.append([*cells, source, _value(row, "a"), _value(row, "b"), difference, f"[{note}]"])
    header = ["benchmark", "protocol", "training set", "method", "test set", "metric", "source"]
    return markdown_table([*header, "A", "B", "B - A", "what else differs"], body)


def _lone_table(rows: pl.DataFrame) -> str:
    """Count the numbers of each method: a list of all would hide which methods they are."""
    names = ["benchmark", "protocol", "training_set", "method", "published_source"]
    counts = rows.group_by(names, maintain_order=True).len()
    body = [
        [*(name or "" for name in row[:4]), row[4] or "measured", f"{row[5]:,}"]
        for row in counts.sort(names).iter_rows()
    ]
    return markdown_table(["benchmark", "protocol", "training set", "method", "source", "numbers"], body)


def _value(row: dict[str, Any], side: str) -> str:
    value, low, high = (row[f"{name}_{side}"] for name in _VALUES)
    if value is None:
        return "null"
    return f"{value:.2f}" if low is None or high is None else f"{value:.2f} [{low:.2f}, {high:.2f}]"
