"""Heads, training settings, methods and experiments."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from rine_cache.specs.base import Name, Spec
from rine_cache.specs.blocks import BlocksExpression, check_blocks
from rine_cache.specs.encoding import Tap


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
    blocks: BlocksExpression = "all"
    layers: int = Field(default=2, ge=1, le=16)
    width: int = Field(default=1024, ge=1, le=8192)
    tie: bool = True

    @field_validator("blocks", mode="before")
    @classmethod
    def _list_is_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("blocks")
    @classmethod
    def _blocks_are_understood(cls, value: BlocksExpression) -> BlocksExpression:
        check_blocks(value)
        return value


class LinearHeadSpec(Spec):
    """One linear layer on the encoder's embedding: what UniversalFakeDetect trains (arXiv:2302.10174)."""

    kind: Literal["linear"]


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
    file: str
    obtain: str = ""


HeadSpec = Annotated[RineHeadSpec | LinearHeadSpec, Field(discriminator="kind")]
AnyHeadSpec = Annotated[RineHeadSpec | LinearHeadSpec | OfficialHeadSpec, Field(discriminator="kind")]


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
    """

    xi: float = Field(default=0.2, ge=0)
    temperature: float = Field(default=0.07, gt=0)
    learning_rate: float = Field(default=1e-3, gt=0)
    learning_rate_drops: tuple[int, ...] = (6, 11)
    epochs: int = Field(default=1, ge=1)
    batch_size: int = Field(default=128, ge=2)

    @model_validator(mode="after")
    def _drops_count_from_one(self) -> TrainingSpec:
        if any(epoch < 1 for epoch in self.learning_rate_drops):
            raise ValueError(f"learning_rate_drops {self.learning_rate_drops} count epochs from 1")
        return self


class MethodSpec(Spec):
    """One row group of the leaderboard: a head and how it is trained, over the experiment's seeds."""

    head: AnyHeadSpec
    training: TrainingSpec = TrainingSpec()
    note: str = ""

    @model_validator(mode="after")
    def _contrastive_needs_projections(self) -> MethodSpec:
        if self.head.kind == "linear" and self.training.xi > 0:
            raise ValueError("a linear head has no z to contrast; set training.xi: 0")
        return self


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
        One head per method and seed; the leaderboard gives their mean and spread.
    training
        Settings shared by all methods; a method's own `training` overrides them key by key.
    methods
        Method ids and their heads.
    """

    encoder: Name
    tap: Tap = "ln_2"
    training_set: Name
    seeds: tuple[int, ...] = (0,)
    training: TrainingSpec = TrainingSpec()
    methods: dict[Name, MethodSpec] = Field(min_length=1)

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
