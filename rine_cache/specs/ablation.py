"""Ablations: which subsets of a method's blocks are compared, and on which test sets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from rine_cache.errors import ConfigError, nearest
from rine_cache.specs.base import Name, Spec
from rine_cache.specs.benchmark import Metric
from rine_cache.specs.blocks import BlocksExpression, check_subsets, read_expression
from rine_cache.specs.training import EMBEDDING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rine_cache.specs.benchmark import BenchmarkSpec
    from rine_cache.specs.training import ExperimentSpec


def _one_is_a_list_of_one(value: Any) -> Any:
    return tuple(read_expression(each) for each in (value if isinstance(value, list | tuple) else [value]))


def _subsets_are_understood(value: tuple[BlocksExpression, ...]) -> tuple[BlocksExpression, ...]:
    for expression in value:
        check_subsets(expression)
        if value.count(expression) > 1:
            raise ValueError(f"subsets name {expression!r} twice; name it once")
    return value


Subsets = Annotated[
    tuple[BlocksExpression, ...],
    Field(min_length=1),
    BeforeValidator(_one_is_a_list_of_one),
    AfterValidator(_subsets_are_understood),
]
_LIST = re.compile(r"\[\s*([0-9]{1,4}(?:\s*,\s*[0-9]{1,4})*)\s*\]")


def parse_subsets(texts: Iterable[str]) -> tuple[BlocksExpression, ...]:
    """Read subsets as words of a command line, a list of blocks as ``[3, 7, 11]``.

    Raises
    ------
    ConfigError
        If one is not understood, or named twice.
    """
    lists = [(text, _LIST.fullmatch(text.strip())) for text in texts]
    try:
        return _subsets_are_understood(
            tuple(tuple(map(int, found[1].split(","))) if found else text for text, found in lists)
        )
    except ValueError as error:
        raise ConfigError(f"--subsets: {error}") from None


def check_method(method: str, experiment: ExperimentSpec, where: str) -> None:
    """Refuse to ablate a method that an experiment has not, or whose head reads no blocks of one's choice.

    Raises
    ------
    ConfigError
        In which `where` is named.
    """
    if method not in experiment.methods:
        raise ConfigError(
            f"{where} names {method!r}, which the experiment does not define; {nearest(method, experiment.methods)}"
        )
    head = experiment.methods[method].head
    if head.kind not in ("rine", "logistic") or head.blocks == EMBEDDING:
        raise ConfigError(
            f"{where} names {method!r}, whose head is of kind {head.kind!r} on the {head.blocks}: it reads no blocks "
            f"of one's choice; name a method whose head is of kind 'rine', or 'logistic' on blocks"
        )


class AblationSpec(Spec):
    """One method, trained again on subsets of its blocks: by its experiment's data, settings and seeds.

    Attributes
    ----------
    title
        Stands above the table and the plot.
    experiment, method
        What is ablated: a method of an experiment whose head reads blocks.
    subsets
        Families of subsets of the blocks that the method reads, and single subsets to compare with; see
        `rine_cache.specs.blocks`. A subset of several families is trained once.
    benchmark, protocol
        Whose test sets are shown, and their mean.
    metrics
        What is shown, in percent.
    """

    title: str
    experiment: Name
    method: Name
    subsets: Subsets
    benchmark: Name
    protocol: Name
    metrics: tuple[Metric, ...] = Field(default=("acc", "ap", "auc"), min_length=1)

    @field_validator("metrics")
    @classmethod
    def _metrics_differ(cls, value: tuple[Metric, ...]) -> tuple[Metric, ...]:
        for metric in value:
            if value.count(metric) > 1:
                raise ValueError(f"metrics name {metric!r} twice; name it once")
        return value

    def check_against(self, benchmark: BenchmarkSpec, where: str) -> None:
        """Refuse names that the ablation's benchmark does not define.

        Raises
        ------
        ConfigError
            If `benchmark` is another one, or has no such protocol; `where` is named in it.
        """
        benchmark.require(self.benchmark, [benchmark.name], f"{where}.benchmark")
        benchmark.require(self.protocol, benchmark.protocols, f"{where}.protocol")
