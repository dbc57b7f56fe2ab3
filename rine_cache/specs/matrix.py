"""Cross-generator matrices: which training sets stand beside which test sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from rine_cache.specs.base import Name, Spec
from rine_cache.specs.benchmark import Metric

if TYPE_CHECKING:
    from rine_cache.specs.benchmark import BenchmarkSpec


class MatrixRow(Spec):
    """A row: a training set, and the test sets whose generators it holds.

    Attributes
    ----------
    training_set
        Whose head the row shows.
    trained_on
        Test sets of the benchmark that are no test of generalisation for this head, as it was trained on their
        generators; an empty list where it was trained on none of them. It has no default: left out by mistake, it
        would count a head's own generator as an unseen one.
    """

    training_set: Name
    trained_on: tuple[Name, ...]


class MatrixSpec(Spec):
    """One method's numbers as a table: a row per training set, a column per test set of a protocol.

    Attributes
    ----------
    title
        Stands above the table and the heat map.
    benchmark, protocol
        Whose test sets the columns are, and their mean.
    metric
        What the cells hold, in percent.
    method
        Method id; each training set has its own head of it.
    rows
        The training sets, in order.
    """

    title: str
    benchmark: Name
    protocol: Name
    metric: Metric = "acc"
    method: Name
    rows: tuple[MatrixRow, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _rows_differ(self) -> MatrixSpec:
        names = [row.training_set for row in self.rows]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"training set {name!r} has two rows; give it one")
        return self

    @property
    def trained_on(self) -> dict[Name, tuple[Name, ...]]:
        """The test sets that are no test of generalisation, by training set."""
        return {row.training_set: row.trained_on for row in self.rows}

    def check_against(self, benchmark: BenchmarkSpec, where: str) -> None:
        """Refuse names that the matrix's benchmark does not define.

        Raises
        ------
        ConfigError
            If `benchmark` is another one, or has no such protocol or test set; `where` is named in it.
        """
        named = [("benchmark", self.benchmark, [benchmark.name]), ("protocol", self.protocol, benchmark.protocols)]
        named += [("rows.trained_on", name, benchmark.test_sets) for row in self.rows for name in row.trained_on]
        for key, name, known in named:
            benchmark.require(name, known, f"{where}.{key}")
