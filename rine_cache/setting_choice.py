"""Which of several settings stands for a method: the one that validation chooses, and apart, the test sets' own.

The RINE authors chose theirs on test data, by the mean of accuracy plus that of average precision. Here a setting is
chosen by its validation loss, once for all test sets; what the test sets would have chosen is shown as an oracle, for
comparison with such numbers, and is never ranked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from rine_cache import sampling_error
from rine_cache.errors import ResultsError
from rine_cache.specs.benchmark import MEAN
from rine_cache.specs.training import oracle_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rine_cache.specs.training import ExperimentSpec

_ORACLE_METRICS = ("acc", "ap")


def choice_rows(
    metrics: pl.DataFrame, experiment: ExperimentSpec, validation_losses: Mapping[tuple[str, int], float | None]
) -> pl.DataFrame:
    """Give each choice of an experiment the rows of the method chosen, and its oracle each protocol's best.

    Parameters
    ----------
    metrics
        The rows of all methods, as `rine_cache.evaluate` makes them.
    experiment
        What names the choices.
    validation_losses
        Of each head, by method and seed; empty where nothing has been trained.

    Returns
    -------
    Rows of the same columns; null where nothing was trained, and an oracle's on a protocol that no method covers.

    Raises
    ------
    ResultsError
        If a head has no validation loss.
    """
    parts = [metrics.clear()]
    for name, members in experiment.choices.items():
        chosen = _chosen_on_validation(members, experiment, validation_losses)
        # With nothing trained all methods have the same rows, of nulls.
        said = f"{chosen}, chosen on validation data among {len(members)}" if chosen else None
        parts.append(_renamed(metrics.filter(method=chosen or members[0]), name, said))
        ours = metrics.filter(pl.col("method").is_in(members))
        for (_, _), rows in ours.group_by("benchmark", "protocol", maintain_order=True):
            parts.append(_oracle_rows(rows, members, name))
    return pl.concat(parts)


def _chosen_on_validation(
    members: Sequence[str], experiment: ExperimentSpec, losses: Mapping[tuple[str, int], float | None]
) -> str | None:
    """Return the method whose mean loss over the seeds is lowest, the first of equals; None without any head."""
    if not losses:
        return None
    means = {}
    for member in members:
        found = [losses.get(head) for head in experiment.heads if head[0] == member]
        known = [loss for loss in found if loss is not None]
        if len(known) < len(found):
            raise ResultsError(f"heads of {member} have no validation loss in their scores; train and score them again")
        means[member] = sum(known) / len(known)
    return min(means, key=means.__getitem__)


def _oracle_rows(rows: pl.DataFrame, members: Sequence[str], choice: str) -> pl.DataFrame:
    """Return one protocol's rows of the method that is best on it."""
    means = rows.filter(pl.col("test_set") == MEAN, pl.col("metric").is_in(_ORACLE_METRICS))
    best = (
        means.group_by("method")
        .agg(pl.col("value").sum(), pl.col("value").null_count().alias("missing"))
        .filter(missing=0)
        .sort(pl.col("value"), pl.col("method").replace_strict(members, range(len(members))), descending=[True, False])
    )
    if best.is_empty():
        unmeasured = [pl.lit(None, rows.schema[name]).alias(name) for name in ("value", *sampling_error.SCHEMA)]
        empty = rows.filter(method=members[0]).with_columns(unmeasured)
        return _renamed(empty, oracle_id(choice), None, oracle=True)
    chosen = best["method"][0]
    said = f"{chosen}, chosen on these test sets among {len(members)}"
    return _renamed(rows.filter(method=chosen), oracle_id(choice), said, oracle=True)


def _renamed(rows: pl.DataFrame, method: str, said: str | None, *, oracle: bool = False) -> pl.DataFrame:
    note = pl.concat_str(pl.lit(said, pl.String), pl.col("note"), separator="; ", ignore_nulls=True)
    return rows.with_columns(
        method=pl.lit(method),
        published_as=pl.lit(None, pl.String),
        oracle=pl.col("oracle") | oracle,
        note=pl.when(note != "").then(note),  # concat_str of nulls alone is empty
    )
