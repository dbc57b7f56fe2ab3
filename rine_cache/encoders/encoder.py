"""An image tower on its device: batches of one shape go in, class tokens come out."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch

from rine_cache.encoders.forward import Forward
from rine_cache.encoders.lanes import CudaLane, Lane, ThreadLane
from rine_cache.errors import EncoderError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray
    from open_clip.transformer import VisionTransformer

    from rine_cache.encoders.lanes import Wait
    from rine_cache.specs.encoding import Tap

# Rows that one thread of the CPU computes at a time. Fewer, and oneDNN's reordering of the weights shows; more, and
# the MLP's hidden layer leaves the cache.
_ROWS_PER_PART = 1600


class Encoded(NamedTuple):
    """What one forward pass gives for B crops."""

    tokens: dict[Tap, NDArray[np.float16]]  # each (K, B, D)
    embedding: NDArray[np.float16]  # (B, E)


class Running:
    """A batch that was started."""

    def __init__(self, wait: Wait, encoder: Encoder) -> None:
        self._wait, self._encoder = wait, encoder

    def result(self) -> Encoded:
        """Wait, and return tokens at each tap, shape (K, B, D), and the embedding, shape (B, E), float16.

        A value beyond float16's range is infinite; the caller quarantines its image.

        Raises
        ------
        EncoderError
            If the device had no memory for the batch, or torch.compile failed.
        """
        with self._encoder.naming_failures():
            tokens, embedding = self._wait()  # (2, K, B, D), (B, E)
        return Encoded({"ln_2": tokens[0], "block": tokens[1]}, embedding)


class Encoder:
    """A frozen image tower on a device, ready to encode batches of one fixed shape.

    Attributes
    ----------
    identity
        What it is, apart from how it computes: architecture, activation, weights' sha256, image size and
        normalisation. Heads keep it, and refuse features of another.
    compute_dtype
        ``float32``, ``float16`` or ``bfloat16``.
    compiled
        Whether torch.compile made its kernels, which changes last bits.
    batch_size, block_count, width, embedding_width, image_size
        B, K, D, E, and the side of its square input in pixels.
    device
        The torch device it runs on.
    in_flight
        How many batches are worth having started before the first one's result is asked for.
    """

    def __init__(
        self,
        tower: VisionTransformer,
        identity: dict[str, Any],
        compute_dtype: str,
        batch_size: int,
        device: str,
        *,
        compiled: bool,
    ) -> None:
        self.identity = identity
        self.compute_dtype = compute_dtype
        self.compiled = compiled
        self.batch_size = batch_size
        self.device = device
        self.block_count = len(tower.transformer.resblocks)
        self.width = int(tower.class_embedding.shape[0])
        self.embedding_width = int(tower.output_dim)
        self.image_size = int(identity["image_size"])
        tower = tower.to(device).eval().requires_grad_(requires_grad=False)
        self._lane = self._open_lane(tower)
        self.in_flight = self._lane.in_flight

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def new_batch(self) -> NDArray[np.uint8]:
        """Return zeros, shape (B, size, size, 3), in memory that the device copies from fast: pinned on CUDA."""
        return self._lane.new_batch(self._batch_shape)

    def start(self, batch: NDArray[np.uint8]) -> Running:
        """Begin to encode one batch, and return without waiting for it.

        Parameters
        ----------
        batch
            RGB, shape (B, size, size, 3), uint8, not normalised; B is `batch_size` exactly. The caller leaves it as
            it is from here on; one from `new_batch` is copied fastest.

        Raises
        ------
        EncoderError
            If it is already known that the device has no memory for the batch, or torch.compile failed.
        """
        assert batch.shape == self._batch_shape, "batches have one fixed shape"
        with self.naming_failures():
            return Running(self._lane.start(batch), self)

    def encode(self, crops: NDArray[np.uint8]) -> Encoded:
        """Encode one batch and wait for it; as `start`, and as the `Running.result` of what that returns."""
        return self.start(crops).result()

    def close(self) -> None:
        """End its threads; batches that were not waited for are lost."""
        self._lane.close()

    @contextmanager
    def naming_failures(self) -> Iterator[None]:
        """Say what to do when the device has no memory, or torch.compile cannot do its work."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise EncoderError(
                f"{self.device} has no memory for a batch of {self.batch_size} crops; lower the encoder's batch_size"
            ) from None
        except RuntimeError as error:
            if not self.compiled:
                raise
            raise EncoderError(
                f"the encoder's kernels were not made by torch.compile ({type(error).__name__}: {error}); "
                "set the encoder's compile: false"
            ) from error

    @property
    def _batch_shape(self) -> tuple[int, int, int, int]:
        return self.batch_size, self.image_size, self.image_size, 3

    def _open_lane(self, tower: VisionTransformer) -> Lane:
        forward = Forward(tower, self.identity["mean"], self.identity["std"], compiled=self.compiled)
        if self.device.startswith("cuda"):
            return CudaLane(forward, self.device)
        if self.device != "cpu":
            return ThreadLane(forward, self.device, part=self.batch_size, parts=1, threads=1)
        rows = int(tower.positional_embedding.shape[0])
        fitting = [n for n in range(1, self.batch_size + 1) if self.batch_size % n == 0 and n * rows <= _ROWS_PER_PART]
        part = max(fitting, default=1)
        return ThreadLane(forward, "cpu", part, self.batch_size // part, torch.get_num_threads())
