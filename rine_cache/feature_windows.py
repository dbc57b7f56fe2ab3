"""Features in the order of training, in bounded memory: all at once where they fit, else window after window.

Where a training set's features are within the budget they are read once, in the order of the file, and an epoch is a
permutation of them all. Where they are not, an epoch is cut into windows: runs of successive images, dealt out at
random, read in the order of the file, and permuted within their window, while the next window is read. Every image
comes once an epoch either way.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from rine_cache.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from rine_cache.features import FeatureSet

# Images that stay together when windows are dealt out: half a megabyte a block, so that a disk reads them at its speed.
RUN_ROWS = 256
_WINDOWS_HELD = 2  # the one in use, and the next one, which is being read
# The part of a GPU's free memory that features may take: heads and their activations need some too.
_DEVICE_SHARE = 0.5


class ReadImages(NamedTuple):
    """What was read of B images, on the device.

    Attributes
    ----------
    indices
        Which of the feature set, shape (B,).
    labels
        0 real, 1 fake, shape (B,).
    tokens
        CLS tokens of the blocks asked for, (K', B, D), float32; the reader's to overwrite.
    embedding
        Embeddings, (B, E), float32; None unless asked for.
    """

    indices: NDArray[np.int64]
    labels: torch.Tensor
    tokens: torch.Tensor
    embedding: torch.Tensor | None


class _Window(NamedTuple):
    """Features of some images, as the cache holds them: float16."""

    indices: NDArray[np.int64]  # (n,), increasing
    tokens: torch.Tensor  # (K', n, D)
    embedding: torch.Tensor | None  # (n, E)

    def take(self, wanted: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return tokens (K', b, D) and embedding (b, E) of some of its images, in the order wanted."""
        places = torch.from_numpy(np.searchsorted(self.indices, wanted)).to(self.tokens.device)  # (b,)
        embedding = None if self.embedding is None else self.embedding[places]  # (b, E)
        return self.tokens.index_select(1, places), embedding


def require_budget(features: FeatureSet, memory_budget: int, where: str) -> None:
    """Refuse a budget in which a feature set can be read neither whole nor in windows.

    Raises
    ------
    ConfigError
        Naming `where` it is set, and the least that is enough.
    """
    rows = min(len(features), _WINDOWS_HELD * RUN_ROWS)
    needed = rows * _image_bytes(features)
    if memory_budget < needed:
        raise ConfigError(
            f"{where} is {memory_budget:,} bytes; for features of {_image_bytes(features):,} bytes an image it must be "
            f"{needed:,} at least ({needed / 2**20:.1f} MiB), to hold {rows} images: write a larger one, such as 1 GiB"
        )


def _image_bytes(features: FeatureSet) -> int:
    """Return the bytes of an image's features, of one draw: all blocks and the embedding, in float16."""
    identity = features.identity
    return 2 * (identity.block_count * identity.token_width + (identity.embedding_width or 0))


class FeatureWindows:
    """Reads a feature set in the order of training, within a budget of memory.

    Attributes
    ----------
    window_rows
        Images that a window holds: all of them where they fit. It follows from the budget and from the encoder's sizes
        alone, not from the blocks that are read, so that heads which read other blocks meet the images in one order.
    """

    def __init__(
        self, features: FeatureSet, blocks: Sequence[int], *, with_embedding: bool, memory_budget: int, device: str
    ) -> None:
        """Prepare to read some blocks, and the embedding if asked.

        `memory_budget` bytes of features are held at most, or two windows of `RUN_ROWS` images where that is more; see
        `require_budget`.
        """
        self._features, self._blocks, self._with_embedding = features, list(blocks), with_embedding
        self._device = torch.device(device)
        fitting = memory_budget // _image_bytes(features)
        if fitting >= len(features):
            self.window_rows = len(features)
        else:
            self.window_rows = max(1, fitting // _WINDOWS_HELD // RUN_ROWS) * RUN_ROWS
        self._whole: tuple[int, _Window] | None = None  # a draw, and the window of all images

    def in_order(self, rows_at_once: int) -> Iterator[ReadImages]:
        """Yield every image's first draw in the order of the feature set: nothing but what is yielded is held."""
        for start in range(0, len(self._features), rows_at_once):
            indices = np.arange(start, min(start + rows_at_once, len(self._features)))  # (B,)
            window = self._read(indices, draw=0)
            yield self._on_its_way([(indices, window.tokens, window.embedding)])

    def batches(self, seed: int, epoch: int, batch_size: int) -> Iterator[ReadImages]:
        """Yield every image once, in an order that follows from seed, epoch and budget; the last batch may be smaller.

        Epoch e, from 1, reads draw e - 1, modulo each part's V.
        """
        draw = epoch - 1
        rest: list[tuple[NDArray[np.int64], torch.Tensor, torch.Tensor | None]] = []  # of the windows before
        waiting = 0
        for order, window in self._windows(seed, epoch, draw):
            start = 0
            while waiting + len(order) - start >= batch_size:
                taken = order[start : start + batch_size - waiting]  # (b,)
                yield self._on_its_way([*rest, (taken, *window.take(taken))])
                start += len(taken)
                rest, waiting = [], 0
            if start < len(order):
                taken = order[start:]  # (b,)
                rest.append((taken, *window.take(taken)))
                waiting += len(taken)
            del window  # before the one after the next is read: two are held
        if rest:
            yield self._on_its_way(rest)

    def _on_its_way(self, parts: Sequence[tuple[NDArray[np.int64], torch.Tensor, torch.Tensor | None]]) -> ReadImages:
        """Put what was taken of one window, or of several, together on the device, widened."""
        indices = np.concatenate([part for part, _, _ in parts])  # (B,)
        tokens = torch.cat([part for _, part, _ in parts], dim=1)  # (K', B, D)
        embeddings = [part for _, _, part in parts if part is not None]  # each (b, E)
        return ReadImages(
            indices,
            torch.from_numpy(self._features.labels[indices]).to(self._device),  # (B,)
            # Half as many bytes cross to a GPU if they are widened there.
            tokens.to(self._device, non_blocking=True).float(),
            torch.cat(embeddings).to(self._device, non_blocking=True).float() if embeddings else None,
        )

    def _windows(self, seed: int, epoch: int, draw: int) -> Iterator[tuple[NDArray[np.int64], _Window]]:
        """Yield each window of an epoch with the order of its images; the next is read meanwhile."""
        orders = training_order(len(self._features), self.window_rows, seed, epoch)
        if len(orders) == 1:
            yield orders[0], self._everything(draw)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="features") as reading:
            coming: Future[_Window] = reading.submit(self._read, orders[0], draw)
            for number, order in enumerate(orders):
                window = coming.result()
                if number + 1 < len(orders):
                    coming = reading.submit(self._read, orders[number + 1], draw)
                yield order, window
                del window

    def _everything(self, draw: int) -> _Window:
        """Return all images, kept from one epoch to the next, on the device where it has room for them."""
        draw %= math.lcm(*(cache.shape.draws for cache in self._features.caches))
        if self._whole is None or self._whole[0] != draw:
            self._whole = None  # before the next is read: there is room for one
            window = self._read(np.arange(len(self._features)), draw)
            self._whole = draw, self._on_device(window)
        return self._whole[1]

    def _on_device(self, window: _Window) -> _Window:
        if self._device.type != "cuda":
            return window
        parts = [part for part in (window.tokens, window.embedding) if part is not None]
        if sum(part.nbytes for part in parts) > _DEVICE_SHARE * torch.cuda.mem_get_info(self._device)[0]:
            return window
        tokens, *embedding = [part.to(self._device) for part in parts]
        return _Window(window.indices, tokens, embedding[0] if embedding else None)

    def _read(self, order: NDArray[np.int64], draw: int) -> _Window:
        indices = np.sort(order)  # (n,): a sweep over the file
        width = self._features.identity.token_width
        tokens = torch.empty(len(self._blocks), len(indices), width, dtype=torch.float16)  # (K', n, D)
        for place, block in enumerate(self._blocks):
            tokens[place] = self._features.stored_tokens(indices, [block], draw)[0]
            self._forget_pages()  # or they would take as much memory again
        embedding = self._features.stored_embedding(indices, draw) if self._with_embedding else None  # (n, E)
        self._forget_pages()
        if self._device.type == "cuda":
            tokens = tokens.pin_memory()
            embedding = embedding if embedding is None else embedding.pin_memory()
        return _Window(indices, tokens, embedding)

    def _forget_pages(self) -> None:
        for cache in self._features.caches:
            cache.forget_pages()


def training_order(images: int, window_rows: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Return the order of an epoch, one array of image numbers for each window.

    One window is a permutation of all images. Of several, each is a permutation of the images of some runs, and which
    runs is drawn too.
    """
    rng = np.random.default_rng([seed, epoch])
    if window_rows >= images:
        return [rng.permutation(images)]
    starts = rng.permutation(np.arange(0, images, RUN_ROWS))  # (runs,)
    windows = []
    for first in range(0, len(starts), window_rows // RUN_ROWS):
        runs = starts[first : first + window_rows // RUN_ROWS]
        members = np.concatenate([np.arange(start, min(start + RUN_ROWS, images)) for start in runs])  # (n,)
        windows.append(rng.permutation(members))
    return windows
