"""The plain way to train a head, one at a time: the network with autograd, torch's Adam, and coins flipped one by one.

What `rine_cache.train` does for many heads at once is compared with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from rine_cache.feature_windows import training_order
from rine_cache.heads.head import build_network
from rine_cache.losses import bce_sum, supervised_contrastive_loss
from rine_cache.specs.blocks import resolve_blocks

if TYPE_CHECKING:
    from rine_cache.features import FeatureSet
    from rine_cache.heads.coins import Coins
    from rine_cache.specs.training import ExperimentSpec


def flipped(words: np.ndarray, size: int) -> torch.Tensor:
    """Unpack the coins of one mask: its element j W + i is bit j of word i of W."""
    bits = (words.astype(np.int64) >> np.arange(16)[:, None]) & 1  # (16, W)
    return 2.0 * torch.from_numpy(bits.ravel()[:size]).to(torch.get_default_dtype())


class Given(nn.Module):
    """Dropout by masks that were made elsewhere: one for each call, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[torch.Tensor] = []

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        return state * self.masks.pop(0).to(state.dtype) if self.training else state


def with_given_dropout(network: nn.Module) -> Given:
    """Replace every dropout of a RINE head by one that takes its masks from what is returned."""
    given = Given()
    for part in (network.proj1, network.proj2, network.head):
        for position, module in enumerate(part):
            if isinstance(module, nn.Dropout):
                part[position] = given
    return given


def masks_of_step(
    network: nn.Module, tokens: list[Coins], hidden: Coins, images: int, token_width: int
) -> list[torch.Tensor]:
    """Return one step's masks in the order in which the network asks for them.

    Of shapes (B, K', D), then Q times (B, K', P), then (B, P).
    """
    width = network.head[0].in_features
    layers = sum(isinstance(module, nn.Linear) for module in network.proj1)
    own = [coins.toss(1, images * token_width, "cpu")[0].numpy() for coins in tokens]
    masks = [torch.stack([flipped(words, images * token_width).view(images, token_width) for words in own], dim=1)]
    for _ in range(layers):
        words = hidden.toss(len(tokens), images * width, "cpu").numpy()
        masks.append(torch.stack([flipped(row, images * width).view(images, width) for row in words], dim=1))
    words = hidden.toss(layers + 3, images * width, "cpu").numpy()
    return masks + [flipped(row, images * width).view(images, width) for row in words]


def train_alone(
    experiment: ExperimentSpec,
    method: str,
    seed: int,
    train: FeatureSet,
    validation: FeatureSet,
    window_rows: int,
    dtype: torch.dtype | None = None,
) -> tuple[nn.Module, list[dict[str, Any]]]:
    """Train one head, in the order of windows of so many images; return its best epoch's network, and its losses.

    In `dtype`, from the same first parameters whatever it is; in torch's default one where none is given.
    """
    from rine_cache.heads.coins import Coins

    spec, settings = experiment.methods[method], experiment.methods[method].training
    linear = spec.head.kind == "linear"
    blocks = () if linear else resolve_blocks(spec.head.blocks, train.identity.block_count)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(spec.head, train.identity).to(dtype or torch.get_default_dtype())
    given = None if linear else with_given_dropout(network)
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    curve: list[dict[str, Any]] = []
    best: dict[str, torch.Tensor] = {}

    def inputs(features: FeatureSet, rows: np.ndarray, draw: int) -> torch.Tensor:
        read = features.embedding(rows, draw) if linear else features.tokens(rows, blocks, draw)
        return read.to(dtype or read.dtype)

    for epoch in range(1, settings.epochs + 1):
        drops = sum(epoch >= drop for drop in settings.learning_rate_drops)
        optimiser.param_groups[0]["lr"] = settings.learning_rate / 10**drops
        tokens = [Coins.for_tokens(seed, epoch, block) for block in blocks]
        hidden = Coins.for_hidden_layers(seed, epoch)
        order = np.concatenate(training_order(len(train), window_rows, seed, epoch))
        network.train()
        total = 0.0
        for start in range(0, len(order), settings.batch_size):
            rows = order[start : start + settings.batch_size]
            labels = torch.from_numpy(train.labels[rows])
            if given is not None:
                given.masks = masks_of_step(network, tokens, hidden, len(rows), train.identity.token_width)
            output = network(inputs(train, rows, epoch - 1))
            loss = bce_sum(output.logit, labels)
            if settings.xi > 0:
                loss = loss + settings.xi * supervised_contrastive_loss(output.z, labels, settings.temperature)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item()
        network.eval()
        with torch.no_grad():
            logits = network(inputs(validation, np.arange(len(validation)), 0)).logit
        loss = bce_sum(logits, torch.from_numpy(validation.labels)).item() / len(validation)
        if not curve or loss < min(row["validation_loss"] for row in curve):
            best = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        curve.append({"train_loss": total / len(train), "validation_loss": loss})
    network.load_state_dict(best)
    return network, curve
