"""Where batches are computed: in threads, or on a CUDA device's streams. Both begin a batch and do not wait for it.

The same forward pass runs in both. A lane only decides what memory batches lie in, and who computes which part when.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from rine_cache.encoders.forward import ClassTokens

    Compute = Callable[[torch.Tensor], ClassTokens]
    Wait = Callable[[], "Computed"]


class Computed(NamedTuple):
    """The class tokens of a batch, float16, in the host's memory."""

    tokens: NDArray[np.float16]  # (2, K, B, D)
    embedding: NDArray[np.float16]  # (B, E)


class Lane(Protocol):
    """Computes batches in the order in which they are begun."""

    in_flight: int

    def new_batch(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return zeros in memory that the device copies from fast."""
        ...

    def start(self, batch: NDArray[np.uint8]) -> Wait:
        """Begin a batch, (B, S, S, 3), and return what waits for its result."""
        ...

    def close(self) -> None:
        """End the threads."""
        ...


class ThreadLane:
    """Computes a batch in parts of one fixed size, each by one thread of its own, without threads inside torch.

    So no thread waits for another at the end of every matrix product, which costs most when other processes want
    the cores too, and no bit of the result depends on the number of cores.
    """

    def __init__(self, compute: Compute, device: str, part: int, parts: int, threads: int) -> None:
        """Begin the threads; each batch is `parts` parts of `part` crops."""
        self._compute, self._device, self._part = compute, device, part
        # While one batch is waited for, those behind it keep every thread busy.
        self.in_flight = 1 + -(-threads // parts)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="encode")
        self._make_single(threads)

    def new_batch(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return zeros."""
        return np.zeros(shape, np.uint8)

    def start(self, batch: NDArray[np.uint8]) -> Wait:
        """Begin the parts of a batch."""
        crops = torch.from_numpy(batch)  # (B, S, S, 3)
        parts = [crops[first : first + self._part] for first in range(0, len(crops), self._part)]
        running = [self._pool.submit(self._compute_part, part) for part in parts]

        def wait() -> Computed:
            done = [future.result() for future in running]
            return Computed(
                np.concatenate([part.tokens for part in done], axis=2),  # (2, K, B, D)
                np.concatenate([part.embedding for part in done]),  # (B, E)
            )

        return wait

    def close(self) -> None:
        """End the threads; parts not begun are dropped."""
        self._pool.shutdown(cancel_futures=True)

    def _compute_part(self, crops: torch.Tensor) -> Computed:
        found = self._compute(crops.to(self._device))
        return Computed(found.tokens.cpu().numpy(), found.embedding.cpu().numpy())

    def _make_single(self, threads: int) -> None:
        """Let each thread of the pool compute alone; torch's setting for all other threads is put back."""
        before = torch.get_num_threads()
        everyone = threading.Barrier(threads)

        def alone() -> None:
            everyone.wait()  # or one thread would take two of these
            torch.get_num_threads()  # a thread that never asked takes the common number at its first computation
            torch.set_num_threads(1)

        for done in [self._pool.submit(alone) for _ in range(threads)]:
            done.result()
        # Each thread keeps its own number, but the last one set is what threads to come begin with.
        torch.set_num_threads(before)


class CudaLane:
    """Copies batches in on a stream of their own, computes on another, and copies results out behind the computing.

    Nothing waits for the device but the caller that wants a result.
    """

    in_flight = 3  # one copied in, one computed, one copied out or read by the host

    def __init__(self, compute: Compute, device: str) -> None:
        self._compute, self._device = compute, torch.device(device)
        self._copying = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self._computing = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        # The parameters were put there on another stream.
        self._computing.wait_stream(torch.cuda.current_stream(self._device))

    def new_batch(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return zeros in pinned memory."""
        zeros: NDArray[np.uint8] = torch.zeros(shape, dtype=torch.uint8, pin_memory=True).numpy()
        return zeros

    def start(self, batch: NDArray[np.uint8]) -> Wait:
        """Queue the copies and the kernels of a batch."""
        with torch.cuda.stream(self._copying):
            crops = torch.from_numpy(batch).to(self._device, non_blocking=True)  # (B, S, S, 3)
        self._computing.wait_stream(self._copying)
        crops.record_stream(self._computing)  # its memory is not another batch's before it was read
        with torch.cuda.stream(self._computing):
            found = self._compute(crops)
            tokens, embedding = (_to_pinned(part) for part in found)
            # A thread that waits by spinning would take a core from decoding.
            finished = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            finished.record(self._computing)
        return _Queued(batch, tokens, embedding, finished).wait

    def close(self) -> None:
        """End what is queued."""
        self._computing.synchronize()


class _Queued(NamedTuple):
    """A batch on its way; it holds the memory that the device reads and writes."""

    batch: NDArray[np.uint8]  # (B, S, S, 3)
    tokens: torch.Tensor  # (2, K, B, D)
    embedding: torch.Tensor  # (B, E)
    finished: torch.cuda.Event

    def wait(self) -> Computed:
        self.finished.synchronize()
        return Computed(self.tokens.numpy(), self.embedding.numpy())


def _to_pinned(found: torch.Tensor) -> torch.Tensor:
    pinned = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
    return pinned.copy_(found, non_blocking=True)
