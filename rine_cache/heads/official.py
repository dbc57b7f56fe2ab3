"""Heads in the RINE authors' own files: ``model_*_trainable.pth``, the state dict of their trainable part.

Their `Model` keeps the frozen CLIP under ``clip.``; the released files leave it out. Ours, exported so, load in
their code key by key.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

import torch

from rine_cache.errors import HeadError
from rine_cache.files import written_whole
from rine_cache.heads.head import FeatureIdentity, Head, HeadCard, build_network
from rine_cache.heads.importance import block_importance
from rine_cache.provenance import code_version
from rine_cache.specs.base import parse
from rine_cache.specs.training import RineHeadSpec

if TYPE_CHECKING:
    from pathlib import Path


def import_official(path: Path, *, method: str, architecture: str, training_set: str, note: str = "") -> Head:
    """Read a head from an authors' ``.pth``; its sizes follow from its tensors.

    Parameters
    ----------
    path
        The file; read with ``torch.load(weights_only=True)``, so that it can run no code.
    method
        The method id it gets.
    architecture
        The open_clip name of the encoder it was trained on. For the authors' releases that is
        ``ViT-L-14-quickgelu`` with OpenAI's weights at the tap ``ln_2``; the file does not say so itself, and
        the weights are therefore not checked when it is used.
    training_set
        Id of what it was trained on, e.g. ``progan-2``.
    note
        Shown beside its results.

    Raises
    ------
    HeadError
        If the file cannot be read, or is not such a state dict.
    ConfigError
        If the method id is no name.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise HeadError(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:  # noqa: BLE001 - torch's reader raises many kinds on malformed bytes
        raise HeadError(f"cannot read {path} as a .pth of tensors only: {type(error).__name__}: {error}") from None
    if not isinstance(state, dict) or not {"alpha", "proj1.1.weight", "proj2.1.weight", "head.6.weight"} <= set(state):
        raise HeadError(
            f"{path} is not the state dict of a RINE head: it lacks alpha, proj1, proj2 or head; "
            f"the authors' releases are named model_*_trainable.pth"
        )
    alpha, first = state["alpha"], state["proj1.1.weight"]
    if alpha.ndim != 3 or first.ndim != 2:
        raise HeadError(f"{path}: alpha has shape {tuple(alpha.shape)}; a RINE head's is (1, blocks, width)")
    _, block_count, width = alpha.shape
    layers = sum(re.fullmatch(r"proj1\.\d+\.weight", name) is not None for name in state)
    features = FeatureIdentity(
        encoder={"architecture": architecture, "activation": _activation(architecture), "weights_sha256": None},
        tap="ln_2",
        block_count=block_count,
        token_width=first.shape[1],
        embedding_width=None,
    )
    head = parse(RineHeadSpec, {"kind": "rine", "layers": layers, "width": width}, f"the head in {path}")
    network = build_network(head, features)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise HeadError(f"{path} does not hold a RINE head: {error}") from None
    card = {
        "method": method,
        "head": head,
        "features": features,
        "training_set": training_set,
        "importance": block_importance(alpha[0]),
        "code_version": code_version(),
        "note": note or f"imported from {path.name}",
    }
    return Head(parse(HeadCard, card, "the imported head's card"), network.eval())


def export_official(head: Head, path: Path) -> None:
    """Write a head as the authors' code reads it.

    Raises
    ------
    HeadError
        If it is none that their code could hold: another kind or tap, without TIE, or on a subset of the blocks.
    """
    card = head.card
    whole = card.head.kind == "rine" and card.head.tie and len(card.blocks) == card.features.block_count
    if not whole or card.features.tap != "ln_2":
        raise HeadError(
            f"head {card.method} cannot be exported: the authors' model is a RINE head with TIE on all blocks at the "
            f"tap ln_2, this is {card.head.model_dump()} at {card.features.tap}"
        )
    state = {name: tensor.detach().cpu() for name, tensor in head.network.state_dict().items()}
    with written_whole(path) as temporary:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        temporary.write_bytes(buffer.getvalue())  # by way of memory: a full disk is then an OSError


def _activation(architecture: str) -> str:
    return "quick_gelu" if architecture.endswith("-quickgelu") else "gelu"
