"""Batches of cached features as the heads of one stream share them: masked once for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rine_cache.heads.coins import Coins, Masks

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from torch import Tensor

    from rine_cache.feature_windows import ReadImages


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
        self._columns: dict[tuple[int, ...], Tensor] = {}

    def tokens(self, blocks: tuple[int, ...]) -> Tensor:
        """Return the CLS tokens of some of the blocks, shape (K'', B, D): one tensor for all who ask for the same."""
        assert self._tokens is not None
        if blocks not in self._subsets:
            places = [self._position[block] for block in blocks]
            is_run = places == list(range(places[0], places[0] + len(places)))
            self._subsets[blocks] = self._tokens[places[0] : places[-1] + 1] if is_run else self._tokens[places]
        return self._subsets[blocks]

    def columns(self, blocks: tuple[int, ...]) -> Tensor:
        """Return those tokens as columns, shape (D, K'' B), row by row in memory: one tensor for all who ask."""
        if blocks not in self._columns:
            self._columns[blocks] = self.tokens(blocks).flatten(0, 1).mT.contiguous()
        return self._columns[blocks]

    @property
    def embedding(self) -> Tensor:
        """The embeddings, shape (B, E)."""
        assert self._embedding is not None
        return self._embedding


class BatchMaker:
    """Makes batches of what was read for the heads of one stream: dropout on the tokens is theirs together.

    Attributes
    ----------
    blocks
        Those that some head reads, increasing.
    with_embedding
        Whether some head reads the embedding.
    """

    def __init__(self, subsets: Collection[tuple[int, ...]]) -> None:
        """Serve heads of these block subsets; the empty one is that of heads on the embedding."""
        self.blocks = tuple(sorted({block for subset in subsets for block in subset}))
        self.with_embedding = () in subsets
        self._masks = Masks()
        self._coins: list[Coins] = []

    def begin_epoch(self, seed: int, epoch: int) -> None:
        """Begin an epoch's coins."""
        self._coins = [Coins.for_tokens(seed, epoch, block) for block in self.blocks]

    def for_training(self, read: ReadImages) -> Batch:
        """Make a batch of images whose tokens, of `blocks`, go through dropout; they are overwritten."""
        if self.blocks:
            _, count, width = read.tokens.shape
            packed = torch.cat([coins.toss(1, count * width, "cpu") for coins in self._coins]).to(read.tokens.device)
            for block, tokens in enumerate(read.tokens):  # (B, D)
                tokens.mul_(self._masks(packed[block : block + 1], count * width).view(count, width))
        return self.for_scoring(read)

    def for_scoring(self, read: ReadImages) -> Batch:
        """Make a batch of images as they are."""
        return Batch(read.labels, read.tokens if self.blocks else None, self.blocks, read.embedding)
