"""Benchmarks as data: which images pair up, over which list a mean is taken, which metric leads."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rine_cache.errors import nearest
from rine_cache.specs.base import Name, Spec

Metric = Literal["acc", "real_acc", "fake_acc", "balanced_acc", "f1", "ap", "auc"]


# The test_set id of a protocol's mean, here and in published numbers.
MEAN = "mean"


class Source(Spec):
    """Some subsets and splits (train, val, test) of one data set; none named means all of them."""

    dataset: Name
    subsets: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()


class TestSetSpec(Spec):
    """One real + fake pairing that gets one row of numbers.

    Only the real images of `real` and the fake images of `fake` count, so that both may name the same
    subset of a data set that holds the two classes side by side.
    """

    __test__ = False  # not a test class, whatever pytest makes of the name

    real: Source
    fake: Source


class ProtocolSpec(Spec):
    """A named list of test sets over which an unweighted mean is taken."""

    test_sets: tuple[Name, ...] = Field(min_length=1)
    headline: tuple[Metric, ...] = Field(default=("acc",), min_length=1)


class BenchmarkSpec(Spec):
    """An ordered group of test sets, its protocols, and the view through which it is tested.

    Attributes
    ----------
    name
        The leaderboard's benchmark id.
    title
        Name for people.
    about
        One sentence shown above its table.
    note
        Stands in every measured row of it; for the sample, that it is no result.
    view
        Test view of every test set.
    ranked
        Whether its rows may be ranked. The sample's may not.
    test_sets
        Test-set ids and their images.
    protocols
        Protocol ids and the lists they average over.
    """

    name: Name
    title: str
    about: str = ""
    note: str = ""
    view: Name = "center224"
    ranked: bool = True
    test_sets: dict[Name, TestSetSpec] = Field(min_length=1)
    protocols: dict[Name, ProtocolSpec] = Field(min_length=1)

    @model_validator(mode="after")
    def _protocols_name_test_sets(self) -> BenchmarkSpec:
        if MEAN in self.test_sets:
            raise ValueError(f"a test set may not be named {MEAN!r}: that is the row of a protocol's mean")
        for protocol_name, protocol in self.protocols.items():
            for test_set in protocol.test_sets:
                if test_set not in self.test_sets:
                    raise ValueError(
                        f"protocol {protocol_name!r} names test set {test_set!r}, which the benchmark does "
                        f"not define; {nearest(test_set, self.test_sets)}"
                    )
            if len(set(protocol.test_sets)) != len(protocol.test_sets):
                raise ValueError(f"protocol {protocol_name!r} names a test set twice")
        return self
