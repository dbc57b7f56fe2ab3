"""An image to be decoded, on its way through the processes, and what comes of it."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from rine_cache.decoding.worker import Read, Refused, Task
from rine_cache.facts import NO_FACTS, ImageFacts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NOT_READ = Read(bytes(32), 0)


class Outcome(NamedTuple):
    """What came of an image.

    `crops` holds, for each view that was asked for and could take the image, (V, S, S, 3) uint8; `refusals` why others
    could not, with a detail; `refused` why the image itself is quarantined.
    """

    content_sha256: bytes
    file_size: int
    facts: ImageFacts
    refused: Refused | None
    crops: dict[int, NDArray[np.uint8]]
    refusals: dict[int, Refused]


@dataclass(eq=False)
class Job:
    """An image to be decoded, and where its outcome goes.

    Attributes
    ----------
    row
        Of the manifest.
    task
        What a process is told.
    future
        Where the outcome goes, or an error that stops everything.
    tries
        How often a process died or hung on the image.
    kills
        How often somebody else killed a process that worked on it.
    read
        What the process that read the image said of it; `NOT_READ` before that.
    views
        Which views that process was asked to render.
    """

    row: int
    task: Task
    future: Future[Outcome] = field(default_factory=Future)
    tries: int = 0
    kills: int = 0
    read: Read = NOT_READ
    views: tuple[int, ...] = ()

    def quarantined(self, refused: Refused) -> Outcome:
        """Return the outcome of an image that has no crops at all."""
        return Outcome(*self.read, NO_FACTS, refused, {}, {})
