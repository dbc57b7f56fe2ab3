"""Which methods of a leaderboard are told apart from the best one of their table.

Methods are compared where they are measured on the same images, so resampled alike, within one benchmark, protocol,
training set, test set and metric. The best is the best measured number that is no oracle; what was resampled otherwise,
or is an oracle, is not compared. How: `rine_cache.comparison`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from rine_cache.comparison import compare_with_best
from rine_cache.sampling_error import read_replicates
from rine_cache.specs.benchmark import ERRORS

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMA = pl.Schema(
    {
        "best_difference": pl.Float64,
        "best_difference_low": pl.Float64,
        "best_difference_high": pl.Float64,
        "best_p_value": pl.Float64,
        "tied_with_best": pl.Boolean,
    }
)


def with_ties(measured: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Add the columns of `SCHEMA` to rows of measured methods.

    Parameters
    ----------
    measured
        One row per method and keys, with value (percent), metric, oracle and the columns of
        `rine_cache.sampling_error.SCHEMA`.
    keys
        Columns that rows to be compared share.

    Returns
    -------
    The same rows; differences in percentage points, method minus best. All is null for what is not compared with any
    other; of the best itself the differences and the p-value are.
    """
    numbered = measured.with_row_index("row")
    able = numbered.filter(pl.col("replicates").is_not_null(), ~pl.col("oracle"))
    columns: dict[str, list[float | bool | None]] = {name: [None] * measured.height for name in SCHEMA.names()}
    for _, family in able.group_by(*keys):
        sign = -1.0 if family["metric"][0] in ERRORS else 1.0
        best_row = family.sort(sign * pl.col("value"), "row", descending=[True, False]).row(0, named=True)
        alike = family.filter(ci_digest=best_row["ci_digest"])
        if alike.height < 2:
            continue
        values = alike["value"].to_numpy() / 100  # (F,)
        replicates = np.stack(list(map(read_replicates, values, alike["replicates"])))  # (F, R)
        best = alike["row"].to_list().index(best_row["row"])
        halves = (alike["ci_high"] - alike["ci_low"]).to_numpy() / 200  # (F,)
        units, strata = best_row["ci_units"], best_row["ci_strata"]
        found = compare_with_best(values, halves, replicates, best, units - strata, units)
        for place, row in enumerate(alike["row"]):
            if place != best:
                columns["best_difference"][row] = 100 * float(found.difference[place])
                columns["best_difference_low"][row] = 100 * float(found.low[place])
                columns["best_difference_high"][row] = 100 * float(found.high[place])
                columns["best_p_value"][row] = float(found.p_value[place])
            columns["tied_with_best"][row] = bool(found.tied[place])
    return measured.with_columns(pl.Series(name, columns[name], dtype) for name, dtype in SCHEMA.items())
