"""Batches of cached features as the heads of one stream share them: read once, masked once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rine_cache.heads.coins import Coins, Masks

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from rine_cache.features import FeatureSet


class Batch:
    """The features and labels of B images, on the device.

    Attributes
    ----------
    labels
        0 real, 1 fake, shape (B,).
    """

    def __init__(self, labels: Tensor, tokens: Tensor | None, blocks: Sequence[int], embedding: Tensor | None) -> None:
        """Hold tokens, (K', B, D), of these blocks in increasing order, and embeddings, (B, E), where they are read."""
        self.labels = labels
        self._tokens, self._embedding = tokens, embedding
        self._position = {block: position for position, block in enumerate(blocks)}
        self._subsets: dict[tuple[int, ...], Tensor] = {}

    def tokens(self, blocks: tuple[int, ...]) -> Tensor:
        """Return the CLS tokens of some of the blocks, shape (K'', B, D): one tensor for all who ask for the same."""
        assert self._tokens is not None
        if blocks not in self._subsets:
            places = [self._position[block] for block in blocks]
            is_run = places == list(range(places[0], places[0] + len(places)))
            self._subsets[blocks] = self._tokens[places[0] : places[-1] + 1] if is_run else self._tokens[places]
        return self._subsets[blocks]

    @property
    def embedding(self) -> Tensor:
        """The embeddings, shape (B, E)."""
        assert self._embedding is not None
        return self._embedding


class BatchReader:
    """Reads the blocks that some head needs, and embeddings where one needs them.

    Parameters
    ----------
    subsets
        The heads' block subsets; the empty one is that of heads on the embedding.
    """

    def __init__(self, subsets: Collection[tuple[int, ...]], device: str) -> None:
        self._blocks = tuple(sorted({block for subset in subsets for block in subset}))
        self._with_embedding, self._device = () in subsets, device
        self._masks = Masks()
        self._memory = torch.empty(0)
        self._coins: list[Coins] = []

    def begin_epoch(self, seed: int, epoch: int) -> None:
        """Begin an epoch's coins."""
        self._coins = [Coins.for_tokens(seed, epoch, block) for block in self._blocks]

    def for_training(self, features: FeatureSet, indices: NDArray[np.int64], draw: int) -> Batch:
        """Read a batch and put its tokens through dropout. It is valid until the next call."""
        if not self._blocks:
            return self._batch(features, indices, draw, None)
        read = features.tokens(indices, self._blocks, draw).to(self._device)  # (B, K', D)
        count, blocks, width = read.shape
        if self._memory.numel() < read.numel():
            self._memory = torch.empty(read.numel(), device=read.device)
        masked = self._memory[: read.numel()].view(blocks, count, width)  # (K', B, D)
        packed = torch.cat([coins.toss(1, count * width, "cpu") for coins in self._coins]).to(read.device)  # (K', W)
        for block in range(blocks):
            mask = self._masks(packed[block : block + 1], count * width).view(count, width)  # (B, D)
            torch.mul(read[:, block], mask, out=masked[block])
        return self._batch(features, indices, draw, masked)

    def for_scoring(self, features: FeatureSet, indices: NDArray[np.int64], draw: int) -> Batch:
        """Read a batch as it is."""
        tokens = None
        if self._blocks:
            read = features.tokens(indices, self._blocks, draw).to(self._device)  # (B, K', D)
            tokens = read.transpose(0, 1).contiguous()  # (K', B, D)
        return self._batch(features, indices, draw, tokens)

    def _batch(self, features: FeatureSet, indices: NDArray[np.int64], draw: int, tokens: Tensor | None) -> Batch:
        embedding = features.embedding(indices, draw).to(self._device) if self._with_embedding else None  # (B, E)
        labels = torch.from_numpy(features.labels[indices]).to(self._device)  # (B,)
        return Batch(labels, tokens, self._blocks, embedding)
