"""A head with its card: what it is, what it was trained on, and which features it accepts.

Stored as one safetensors file, the card as JSON in its metadata, so that nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from rine_cache.calibration import Calibration
from rine_cache.errors import CacheMismatchError, HeadError
from rine_cache.files import written_whole
from rine_cache.heads.importance import BlockImportance
from rine_cache.heads.index import heads_below
from rine_cache.heads.linear import LinearHead
from rine_cache.heads.neighbours import BankSize, NeighboursHead
from rine_cache.heads.rine import RineHead
from rine_cache.passes import NOTHING_READ, EncoderPasses
from rine_cache.provenance import canonical_json, fingerprint
from rine_cache.specs.base import Name, Spec, parse
from rine_cache.specs.blocks import resolve_blocks
from rine_cache.specs.encoding import Tap
from rine_cache.specs.training import EMBEDDING, HeadSpec, TrainingSpec

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import nn

# Raised when the same settings, data and seed give another head: those of an earlier version are then trained again.
TRAINING_VERSION = 1
_METADATA_KEY = "rine_cache"
# Of a card: what is known before a head is trained, and makes it the head that it is.
_ORIGIN = {"method", "seed", "head", "features", "training_set", "training", "training_fingerprint"}
_ORIGIN |= {"training_version", "note"}


class FeatureIdentity(Spec):
    """What features are of: the encoder and tap that made them, and their sizes.

    `encoder` holds architecture, activation, weights_sha256, image_size, mean and std; `compute_dtype` is the
    precision it computed in. What the authors of an imported head did not record, such as `weights_sha256`, is null or
    absent, and then not checked.
    """

    encoder: dict[str, Any]
    tap: Tap
    compute_dtype: str | None = None
    block_count: int
    token_width: int
    embedding_width: int | None

    def difference(self, other: FeatureIdentity) -> str | None:
        """Say in what `other` differs from this, or None where it does not. Null values match any."""
        ours, theirs = self._flat(), other._flat()
        for name, value in ours.items():
            found = theirs.get(name)
            if value is not None and found is not None and value != found:
                return f"{name} {_short(value)}, not {_short(found)}"
        return None

    def _flat(self) -> dict[str, Any]:
        return {**self.encoder, **self.model_dump(exclude={"encoder"})}


class HeadCard(Spec):
    """Everything about a head but its parameters.

    Attributes
    ----------
    method, seed
        Its place in the experiment.
    head
        Its architecture.
    features
        The features it was trained on, and the only ones it accepts.
    training_set
        Id of what it was trained on, empty if not stated.
    training
        Its settings; null for a probe, and for an imported head.
    training_fingerprint
        Digest over the caches, manifests and subsets it was trained and selected on.
    training_version
        The `TRAINING_VERSION` of the code that trained it; 0 for an imported head.
    chosen_epoch
        The epoch, from 1, whose validation loss was lowest; null for a probe.
    validation
        Metrics on the validation data at that epoch.
    calibration
        What was fitted on the validation data's logits at that epoch; null for an imported head.
    importance
        What TIE learnt, for a head that has one.
    bank
        How many training images it compares with, for a head of nearest neighbours.
    code_version
        Of the code that trained or imported it.
    note
        Anything a reader of its results must know.
    passes
        What its training and validation read from which caches; nothing for an imported head.
    curve
        Of each epoch its number, learning rate, losses and validation metrics; empty for a head that was not trained
        in epochs.
    """

    method: Name
    seed: int = 0
    head: HeadSpec
    features: FeatureIdentity
    training_set: str = ""
    training: TrainingSpec | None = None
    training_fingerprint: str | None = None
    training_version: int = 0
    chosen_epoch: int | None = None
    validation: dict[str, float | None] = {}  # noqa: RUF012 - pydantic copies defaults
    calibration: Calibration | None = None
    importance: BlockImportance | None = None
    bank: BankSize | None = None
    code_version: str = ""
    note: str = ""
    passes: EncoderPasses = NOTHING_READ
    curve: tuple[dict[str, int | float | None], ...] = ()

    @property
    def blocks(self) -> tuple[int, ...]:
        """The block numbers it reads, from 0; none for a head on the embedding."""
        if self.head.blocks == EMBEDDING:
            return ()
        return resolve_blocks(self.head.blocks, self.features.block_count)

    @property
    def origin(self) -> str:
        """Digest over what it was trained from: settings, data and seed. Heads of one origin are one head."""
        return fingerprint(self.model_dump(mode="json", include=_ORIGIN))


class Head(NamedTuple):
    """A card and the network it describes. `fingerprint` is the sha256 of the file it was read from, or empty."""

    card: HeadCard
    network: nn.Module
    fingerprint: str = ""

    @property
    def trainable_parameters(self) -> int:
        """How many numbers training may change."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def require_features(self, found: FeatureIdentity, where: str) -> None:
        """Refuse features of another encoder or tap than the head was trained on.

        Raises
        ------
        CacheMismatchError
            Naming the first difference and what to run.
        """
        if difference := self.card.features.difference(found):
            raise CacheMismatchError(
                f"head {self.card.method} (seed {self.card.seed}) was trained on features of {difference}, which "
                f"{where} is of; encode the images with the head's encoder, tap and precision"
            )


def build_network(head: HeadSpec, features: FeatureIdentity, bank: BankSize | None = None) -> nn.Module:
    """Make a head's network with fresh parameters, drawn from torch's global generator.

    Parameters
    ----------
    head
        Its architecture.
    features
        What it reads.
    bank
        Of a head of nearest neighbours, how many images it compares with; others have none.

    Raises
    ------
    ConfigError
        If its block subset does not fit the encoder.
    HeadError
        If the bank is not stated where it must be.
    """
    if head.kind == "rine":
        blocks = resolve_blocks(head.blocks, features.block_count)
        return RineHead(len(blocks), features.token_width, layers=head.layers, width=head.width, tie=head.tie)
    if head.blocks != EMBEDDING:
        resolve_blocks(head.blocks, features.block_count)
        return LinearHead(features.token_width)
    assert features.embedding_width is not None, "only imported RINE heads leave it out"
    if head.kind == "neighbours":
        if bank is None:
            raise HeadError("a head of nearest neighbours does not state its bank's size; fit it again")
        return NeighboursHead(bank, features.embedding_width, k=head.k)
    return LinearHead(features.embedding_width)


def save_head(head: Head, path: Path) -> None:
    """Write a head; the same head gives the same bytes."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in head.network.state_dict().items()}
    metadata = {_METADATA_KEY: canonical_json(head.card.model_dump(mode="json"))}
    with written_whole(path) as temporary:
        temporary.write_bytes(save(state, metadata))  # by way of memory: a full disk is then an OSError


def load_head(path: Path) -> Head:
    """Read a head, in evaluation mode, on the CPU.

    Raises
    ------
    HeadError
        If the file is missing, is no head of this project, or its parameters do not fit its card.
    """
    card, state = _read(path)
    network = build_network(card.head, card.features, card.bank)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise HeadError(f"{path}: its parameters do not fit its card: {error}") from None
    return Head(card, network.eval(), hashlib.sha256(path.read_bytes()).hexdigest())


def read_card(path: Path) -> HeadCard:
    """Read a head's card alone: many take no time.

    Raises
    ------
    HeadError
        If the file is missing or is no head of this project.
    """
    return _read(path, with_state=False)[0]


def load_heads(folder: Path) -> list[Head]:
    """Read every head below a folder that counts (see `rine_cache.heads.index`), in order of method and seed.

    Raises
    ------
    HeadError
        If there are none, one cannot be read, or one is not the file that its index names.
    """
    paths = heads_below(folder) if folder.is_dir() else {folder: ""}
    if not paths:
        raise HeadError(f"no heads in {folder}; train them with `rine-cache train`")
    heads = []
    for path, expected in paths.items():
        heads.append(load_head(path))
        if expected and heads[-1].fingerprint != expected:
            raise HeadError(
                f"{path} was trained again since {folder} was last complete; run the same training again to complete it"
            )
    return sorted(heads, key=lambda head: (head.card.method, head.card.seed))


def _read(path: Path, *, with_state: bool = True) -> tuple[HeadCard, dict[str, torch.Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = (file.metadata() or {}).get(_METADATA_KEY)
            names = file.keys() if with_state else []
            state = {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        hint = "; convert an authors' .pth with `rine-cache head import`" if path.suffix == ".pth" else ""
        raise HeadError(f"cannot read the head {path}: {error}{hint}") from None
    if metadata is None:
        raise HeadError(f"{path} is a safetensors file, but no head of rine-cache's: it has no card")
    return parse(HeadCard, json.loads(metadata), f"the card of {path}"), state


def _short(value: Any) -> str:
    text = str(value)
    return text[:16] if len(text) == 64 else text
