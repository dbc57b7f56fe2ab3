"""Heads, training settings, methods and experiments."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, ByteSize, ConfigDict, Field, field_validator, model_validator

from rine_cache.errors import nearest
from rine_cache.specs.base import Name, Spec
from rine_cache.specs.blocks import BlocksExpression, check_blocks, read_expression
from rine_cache.specs.encoding import Tap
from rine_cache.specs.grid import AXES, expand_grid

# What stands in the place of blocks for a head that reads the encoder's embedding instead.
EMBEDDING = "embedding"


def _understood(value: BlocksExpression) -> BlocksExpression:
    check_blocks(value)
    return value


def _understood_or_embedding(value: BlocksExpression) -> BlocksExpression:
    try:
        return value if value == EMBEDDING else _understood(value)
    except ValueError as error:
        raise ValueError(f"{error}; or {EMBEDDING}") from None


Blocks = Annotated[BlocksExpression, BeforeValidator(read_expression), AfterValidator(_understood)]
BlocksOrEmbedding = Annotated[
    BlocksExpression, BeforeValidator(read_expression), AfterValidator(_understood_or_embedding)
]


class RineHeadSpec(Spec):
    """The head of RINE (arXiv:2402.19091, section 3): Q1, TIE, Q2, classifier.

    Attributes
    ----------
    blocks
        Which blocks' CLS tokens it reads; see `rine_cache.specs.blocks`. ``last`` is the paper's ablation
        "without intermediate blocks".
    layers
        Q, linear layers per projection (the paper's q).
    width
        P, width of the projections (the paper's d').
    tie
        Whether the Trainable Importance Estimator weighs the blocks; without it they are averaged.
    """

    kind: Literal["rine"]
    blocks: Blocks = "all"
    layers: int = Field(default=2, ge=1, le=16)
    width: int = Field(default=1024, ge=1, le=8192)
    tie: bool = True


class LinearHeadSpec(Spec):
    """One linear layer on the encoder's embedding: what UniversalFakeDetect trains (arXiv:2302.10174)."""

    kind: Literal["linear"]
    blocks: ClassVar[BlocksExpression] = EMBEDDING


class LogisticHeadSpec(Spec):
    """A probe: scikit-learn's logistic regression, with an L2 penalty, kept as one linear layer.

    Attributes
    ----------
    blocks
        What it reads: the embedding, or the mean of these blocks' CLS tokens, of one block that block's alone.
    C
        Inverse strength of the penalty, as scikit-learn has it: smaller is stronger.
    standardise
        Whether each feature is brought to mean 0 and deviation 1 over the training images first. The layer that is
        kept has it folded in, and reads features as they are.
    max_iter
        Iterations of the solver at the most. A fit that needs more is refused.
    """

    kind: Literal["logistic"]
    blocks: BlocksOrEmbedding = EMBEDDING
    C: float = Field(default=1.0, gt=0)
    standardise: bool = True
    max_iter: int = Field(default=1000, ge=1)


class NeighboursHeadSpec(Spec):
    """A probe: the nearest training images in the embedding, UniversalFakeDetect's second method (arXiv:2302.10174).

    Attributes
    ----------
    k
        How many images of each class are compared: the nearest ones, by cosine distance.
    """

    kind: Literal["neighbours"]
    blocks: ClassVar[BlocksExpression] = EMBEDDING
    k: int = Field(default=1, ge=1)


class OfficialHeadSpec(Spec):
    """A trained head that the RINE authors released: it is imported, and not trained.

    Attributes
    ----------
    file
        The released ``model_*_trainable.pth``, wherever the user has put it.
    obtain
        Where to get it, for people; shown when it is missing.
    """

    kind: Literal["official"]
    blocks: ClassVar[BlocksExpression] = "all"
    file: str
    obtain: str = ""


ProbeSpec = LogisticHeadSpec | NeighboursHeadSpec
HeadSpec = Annotated[RineHeadSpec | LinearHeadSpec | LogisticHeadSpec | NeighboursHeadSpec, Field(discriminator="kind")]
AnyHeadSpec = Annotated[
    RineHeadSpec | LinearHeadSpec | LogisticHeadSpec | NeighboursHeadSpec | OfficialHeadSpec,
    Field(discriminator="kind"),
]
# Kinds of heads that are fitted in one step: they take no training settings, and nothing in them is random.
_PROBES = ("logistic", "neighbours")


class TrainingSpec(Spec):
    """How a head is trained. The defaults are RINE's (arXiv:2402.19091, section 4.1, and its code).

    Attributes
    ----------
    xi
        Weight of the contrastive loss; 0 leaves it out.
    temperature
        Temperature of the contrastive loss, dimensionless.
    learning_rate
        Adam's learning rate in the first epoch.
    learning_rate_drops
        Epochs, counted from 1, at whose beginning the learning rate is divided by ten.
    epochs
        Passes over the training set. The epoch with the lowest validation loss is kept.
    batch_size
        Images per step.
    memory_budget
        Bytes of features to hold, as a number or like ``4 GiB``. A training set that fits is permuted whole in each
        epoch; one that does not is read in windows, which fixes another order; see `rine_cache.feature_windows`.
    """

    xi: float = Field(default=0.2, ge=0)
    temperature: float = Field(default=0.07, gt=0)
    learning_rate: float = Field(default=1e-3, gt=0)
    learning_rate_drops: tuple[int, ...] = (6, 11)
    epochs: int = Field(default=1, ge=1)
    batch_size: int = Field(default=128, ge=2)
    memory_budget: ByteSize = ByteSize(4 << 30)

    @model_validator(mode="after")
    def _drops_count_from_one(self) -> TrainingSpec:
        if any(epoch < 1 for epoch in self.learning_rate_drops):
            raise ValueError(f"learning_rate_drops {self.learning_rate_drops} count epochs from 1")
        return self


def _with_grid(schema: dict[str, Any]) -> None:
    """Describe the key ``grid``, which is gone before a method is validated, for editors."""
    values = {"type": "array", "items": {"type": "number"}, "minItems": 1, "uniqueItems": True}
    axes: dict[str, Any] = {"type": "object", "properties": dict.fromkeys(AXES, values), "additionalProperties": False}
    schema["properties"]["grid"] = {**axes, "description": "Settings to combine: one method for each combination."}


class MethodSpec(Spec):
    """One row group of the leaderboard: a head and how it is trained, over the experiment's seeds.

    A probe is not trained: it takes no `training`, and is one head whatever the seeds.

    Attributes
    ----------
    head
        Its architecture, or the file of an official head.
    training
        How it is trained.
    note
        Anything a reader of its numbers must know.
    published_as
        The id whose published numbers its own are held against, where that is another than its own.
    """

    model_config = ConfigDict(json_schema_extra=_with_grid)

    head: AnyHeadSpec
    training: TrainingSpec = TrainingSpec()
    note: str = ""
    published_as: Name | None = None

    @model_validator(mode="after")
    def _contrastive_needs_projections(self) -> MethodSpec:
        if self.head.kind == "linear" and self.training.xi > 0:
            raise ValueError("a linear head has no z to contrast; set training.xi: 0")
        return self

    @model_validator(mode="after")
    def _probes_are_not_trained(self) -> MethodSpec:
        if self.is_probe and self.training != TrainingSpec():
            raise ValueError(f"a {self.head.kind} probe takes no training settings; its own stand under head")
        return self

    @property
    def is_probe(self) -> bool:
        """Whether its head is fitted in one step, without gradient training."""
        return self.head.kind in _PROBES


def oracle_id(choice: str) -> str:
    """Return the id of the row beside a choice for which the test sets themselves chose."""
    return f"{choice}-oracle"


class ExperimentSpec(Spec):
    """A named group of heads trained on the same caches.

    Attributes
    ----------
    encoder
        Name of an encoder in the config.
    tap
        Where inside a block the CLS token is read.
    training_set
        Name of a training set in the config; the leaderboard's `training_set` id. Of official heads, what they were
        trained on: its data need not be here.
    seeds
        One head per method and seed; the leaderboard gives their mean and spread. Probes draw nothing at random and
        are one head each, of seed 0.
    training
        Settings shared by all methods but probes; a method's own `training` overrides them key by key.
    methods
        Method ids and their heads. One with a ``grid`` of settings, such as ``{xi: [.1, .2], width: [128, 256]}``,
        stands for a method of each combination, named by it; see `rine_cache.specs.grid`.
    choices
        For the id of a further method, those methods of which it is the one that validation data choose: the one whose
        validation loss, as the mean over the seeds, is lowest. A row ``<id>-oracle``, chosen on the test sets, stands
        apart. A method with a grid makes a choice of its own name.
    """

    encoder: Name
    tap: Tap = "ln_2"
    training_set: Name
    seeds: tuple[int, ...] = (0,)
    training: TrainingSpec = TrainingSpec()
    methods: dict[Name, MethodSpec] = Field(min_length=1)
    choices: dict[Name, tuple[Name, ...]] = {}

    @model_validator(mode="before")
    @classmethod
    def _grids_are_methods(cls, data: Any) -> Any:
        """Replace each method that has a grid; what is no table is left for validation to refuse."""
        if not isinstance(data, dict) or not isinstance(data.get("methods"), dict):
            return data
        methods: dict[str, Any] = {}
        choices = dict(data.get("choices") or {})
        for name, method in data["methods"].items():
            settings = {name: method}
            if isinstance(method, dict) and "grid" in method:
                settings = expand_grid(name, method)
                choices[name] = tuple(settings)
            if twice := methods.keys() & settings.keys():
                raise ValueError(f"methods.{name}.grid makes {min(twice)!r}, which is a method already; rename one")
            methods |= settings
        return {**data, "methods": methods, "choices": choices}

    @model_validator(mode="before")
    @classmethod
    def _methods_inherit_training(cls, data: Any) -> Any:
        """Fill in what a method's own settings leave open; what is no table is left for validation to refuse."""
        if not isinstance(data, dict) or not isinstance(data.get("methods"), dict):
            return data
        shared = data.get("training") or {}

        def inheriting(method: Any) -> Any:
            own = (method.get("training") or {}) if isinstance(method, dict) else None
            if not isinstance(own, dict) or not isinstance(shared, dict):
                return method
            head = method.get("head")
            if isinstance(head, dict) and head.get("kind") in _PROBES:
                return method
            return {**method, "training": {**shared, **own}}

        return {**data, "methods": {name: inheriting(method) for name, method in data["methods"].items()}}

    @model_validator(mode="after")
    def _heads_are_trained_or_imported(self) -> ExperimentSpec:
        files = self.official_files
        if files and len(files) != len(self.methods):
            raise ValueError("an experiment either trains its heads or imports official ones; make two of this one")
        if files and self.seeds != (0,):
            raise ValueError(f"official heads have no seeds; found {list(self.seeds)}, leave them out")
        return self

    @model_validator(mode="after")
    def _choices_are_of_methods(self) -> ExperimentSpec:
        for name, members in self.choices.items():
            if len(set(members)) != len(members) or len(members) < 2:
                raise ValueError(f"choices.{name} is {list(members)}; it must name two methods or more, each once")
            for member in members:
                if member not in self.methods:
                    raise ValueError(f"choices.{name} names {member!r}; {nearest(member, self.methods)}")
        if twice := [name for name in self.method_ids if self.method_ids.count(name) > 1]:
            raise ValueError(f"{twice[0]!r} is the id of a method and of a choice, or of its oracle; rename one")
        return self

    @property
    def method_ids(self) -> list[Name]:
        """All ids that the leaderboard gets from it: of methods, of choices and of their oracles."""
        return [*self.methods, *self.choices, *(oracle_id(name) for name in self.choices)]

    @property
    def heads(self) -> tuple[tuple[Name, int], ...]:
        """Its heads by method and seed, in order: one a seed, but of a probe one alone, of seed 0."""
        return tuple(
            (name, seed) for name, method in self.methods.items() for seed in ((0,) if method.is_probe else self.seeds)
        )

    @property
    def official_files(self) -> dict[Name, str]:
        """The authors' files that this experiment imports, by method; none where it trains its heads."""
        heads = {name: method.head for name, method in self.methods.items()}
        return {name: head.file for name, head in heads.items() if head.kind == "official"}

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
            raise ValueError(f"seeds {list(seeds)} must be at least one non-negative number, each once")
        return seeds
