"""Benchmarks as data: which images pair up, over which list a mean is taken, which metric leads."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from rine_cache.errors import ConfigError, nearest
from rine_cache.specs.base import Name, Spec
from rine_cache.specs.data import Split

if TYPE_CHECKING:
    from collections.abc import Iterable

Metric = Literal[
    "acc",
    "real_acc",
    "fake_acc",
    "balanced_acc",
    "f1",
    "ap",
    "auc",
    "tpr_fpr1",
    "tpr_fpr5",
    "ece",
    "ece_calibrated",
    "acc_validation_threshold",
    "acc_validation_fpr1",
    "acc_validation_fpr5",
    "acc_best_threshold",
]
# Of these the smallest value is the best.
ERRORS: frozenset[Metric] = frozenset({"ece", "ece_calibrated"})
# These fit a threshold on the test data.
ORACLE_METRICS: frozenset[Metric] = frozenset({"acc_best_threshold"})

# The test_set id of a protocol's mean, here and in published numbers.
MEAN = "mean"


class Source(Spec):
    """Some subsets, splits (train, val, test) and variants of one data set; none named means all of them."""

    dataset: Name
    subsets: tuple[str, ...] = ()
    splits: tuple[Split, ...] = ()
    variants: tuple[str, ...] = ()


class TestSetSpec(Spec):
    """One real + fake pairing that gets one row of numbers.

    Only the real images of `real` and the fake images of `fake` count, so that both may name the same
    subset of a data set that holds the two classes side by side; `OneSource` says that in one place.
    """

    __test__ = False  # not a test class, whatever pytest makes of the name

    real: Source
    fake: Source


class OneSource(Source):
    """A test set whose real and fake images lie side by side, written as their one source."""

    @property
    def real(self) -> Source:
        """Where the real images are."""
        return self

    @property
    def fake(self) -> Source:
        """Where the fake images are."""
        return self


# The brackets keep a tag out of error messages, whose paths name the user's keys only.
_PAIR, _ONE_SOURCE = "test set[real and fake]", "test set[one source]"


def _form(test_set: Any) -> str:
    """Say which form a test set is written in, so that an error speaks of that form alone."""
    paired = isinstance(test_set, TestSetSpec) or (isinstance(test_set, dict) and {"real", "fake"} & test_set.keys())
    return _PAIR if paired else _ONE_SOURCE


TestSet = Annotated[
    Annotated[TestSetSpec, Tag(_PAIR)] | Annotated[OneSource, Tag(_ONE_SOURCE)],
    Discriminator(_form),
]


class CapSpec(Spec):
    """At most so many images of each class of a test set, chosen by their names alone.

    Of each class, the `per_class` images stay whose sha256 of ``"{seed}|{data set}|{image_id}"`` is smallest; a
    smaller class keeps all of its images. The choice depends neither on the order of the images nor on which others
    there are, so that test sets that share images keep the same ones. Unreadable images are chosen like others, and
    counted.

    UniversalFakeDetect's script scores at most 1,000 images a class after a shuffle of its own, over a listing in the
    file system's order, which cannot be reproduced: a capped mean is comparable with its numbers, not equal to them.
    """

    per_class: int = Field(ge=1)
    seed: int = 0


class SweepSpec(Spec):
    """Where a protocol stands among those of its benchmark that differ in one thing, and may be drawn as a curve.

    Protocols that test the same images through views of one perturbation are found without it, by their views. This is
    for what no view makes: how strong the fakes' trace is, from which year a generator is, how large its images are.

    Attributes
    ----------
    along
        What differs, as the axis' title. Protocols of the same name are the steps of one sweep.
    at
        Where this one stands.
    """

    along: str = Field(min_length=1)
    at: float = Field(allow_inf_nan=False)


class ProtocolSpec(Spec):
    """A named list of test sets over which an unweighted mean is taken, and how they are to be tested.

    Attributes
    ----------
    test_sets
        The list, of the benchmark's test-set ids.
    headline
        Metrics that the protocol's papers lead with, first the one that orders its table.
    view
        Test view of this protocol, where it is not the benchmark's.
    cap
        Limit on the images of a test set; none scores all.
    training_sets
        Training sets that the protocol asks for, any one of them; none named means that it asks for none.
    sweep
        Its place among the benchmark's protocols that differ in one thing.
    """

    test_sets: tuple[Name, ...] = Field(min_length=1)
    headline: tuple[Metric, ...] = Field(default=("acc",), min_length=1)
    view: Name | None = None
    cap: CapSpec | None = None
    training_sets: tuple[Name, ...] = ()
    sweep: SweepSpec | None = None


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
        Test view of the protocols that name none.
    ranked
        Whether its rows may be ranked. The sample's may not.
    test_sets
        Test-set ids and their images: `real` and `fake` sources, or the one source of both.
    protocols
        Protocol ids and the lists they average over.
    """

    name: Name
    title: str
    about: str = ""
    note: str = ""
    view: Name = "center224"
    ranked: bool = True
    test_sets: dict[Name, TestSet] = Field(min_length=1)
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

    @model_validator(mode="after")
    def _sweeps_are_curves(self) -> BenchmarkSpec:
        for along, steps in self.sweeps().items():
            if len(steps) == 1:
                raise ValueError(
                    f"protocol {steps[0][1]!r} is the only one of the sweep along {along!r}; a sweep has two or more, "
                    f"with the same text in `along`"
                )
            for (at, name), (next_at, next_name) in pairwise(steps):
                if at == next_at:
                    raise ValueError(f"protocols {name!r} and {next_name!r} stand at the same place along {along!r}")
            sizes = {name: len(self.protocols[name].test_sets) for _, name in steps}
            if len(set(sizes.values())) > 1:
                raise ValueError(
                    f"the protocols along {along!r} are means over different numbers of test sets, "
                    f"{', '.join(f'{name} over {size}' for name, size in sizes.items())}: no curve joins them"
                )
        return self

    def sweeps(self) -> dict[str, list[tuple[float, Name]]]:
        """List the sweeps that protocols name: what differs along each, and in order where its protocols stand."""
        found: dict[str, list[tuple[float, Name]]] = {}
        for name, protocol in self.protocols.items():
            if protocol.sweep is not None:
                found.setdefault(protocol.sweep.along, []).append((protocol.sweep.at, name))
        return {along: sorted(steps) for along, steps in found.items()}

    def view_of(self, protocol: str) -> Name:
        """Return the view through which a protocol is tested."""
        return self.protocols[protocol].view or self.view

    def require(self, name: str, known: Iterable[str], where: str) -> None:
        """Refuse the name of a protocol or test set, given at the key `where`, that is not among those `known` here.

        Raises
        ------
        ConfigError
            With the nearest one.
        """
        known = list(known)
        if name not in known:
            raise ConfigError(
                f"{where} names {name!r}, which benchmark {self.name!r} does not define; {nearest(name, known)}"
            )

    def sources(self, protocol: str | None = None) -> frozenset[tuple[Name, Name]]:
        """List the views and the data sets that are scored through them: (view, data set), each pair once.

        Those of one protocol, or of all.
        """
        return frozenset(
            (self.view_of(name), source.dataset)
            for name in ([protocol] if protocol else self.protocols)
            for test_set in map(self.test_sets.__getitem__, self.protocols[name].test_sets)
            for source in (test_set.real, test_set.fake)
        )
