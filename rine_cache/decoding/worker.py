"""What runs in a worker process: it reads, decodes and renders one image after another, as its parent asks.

A task is answered when the image has been read and again when it has been rendered, so that the parent knows what a
process was doing when it died or hung. A worker lives no longer than its parent, however that ended, and leaves
Ctrl-C to it.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import select
import signal
import threading
import time
import traceback
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from rine_cache import images
from rine_cache.decoding.channel import WorkerChannel
from rine_cache.decoding.read import read_file
from rine_cache.errors import RineCacheError
from rine_cache.facts import NO_FACTS
from rine_cache.quarantine import Reason, UnreadableImageError
from rine_cache.views import render

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from rine_cache.facts import ImageFacts
    from rine_cache.specs.encoding import ViewSpec

# Of 16 MB, which Pillow keeps from one image for the next; new memory for each costs a twentieth of the time.
PIXEL_BLOCKS = 4
ALIVE_EVERY_S = 1.0  # at most, between the views of one image


class Setting(NamedTuple):
    """What a worker needs to know once.

    `asks` says whether it waits for `Render` after reading an image. `limit_s` is how long a step may take before a
    worker that nobody kills, as its parent has died too, ends itself.
    """

    root: Path
    views: tuple[ViewSpec, ...]
    asks: bool
    limit_s: float


class Task(NamedTuple):
    """To the worker: an image to be read, or whose content was read elsewhere, and the views to render of it."""

    image_id: str
    size: int
    views: tuple[int, ...]
    content: bytes | None


class Render(NamedTuple):
    """To the worker that asks: the views to render of the image that it read first of those not rendered yet."""

    views: tuple[int, ...]


class Ready(NamedTuple):
    """From the worker: it takes tasks."""


class Read(NamedTuple):
    """From the worker: the image has been read; now it is decoded."""

    content_sha256: bytes
    file_size: int


class Alive(NamedTuple):
    """From the worker: one more view is done, others are left."""


class Refused(NamedTuple):
    """From the worker, instead of any further answer: the image, or one view of it, is quarantined."""

    reason: Reason
    detail: str


class Failed(NamedTuple):
    """From the worker, instead of any further answer: everything is to stop."""

    error: Exception


class Rendered(NamedTuple):
    """From the worker: the image's facts, and of each view the shape of its crops, which follow, or its refusal."""

    facts: ImageFacts
    views: tuple[tuple[int, ...] | Refused, ...]


def work(end: socket.socket, setting: Setting) -> None:
    """Answer tasks until the parent has gone; what is called in a new process."""
    _become_a_worker(end)
    channel = WorkerChannel(end)
    channel.send(Ready())
    with contextlib.suppress(EOFError, ConnectionError):  # the parent has closed its end
        _answer_all(channel, setting)


def _answer_all(channel: WorkerChannel, setting: Setting) -> None:
    read: deque[tuple[Task, bytes, bytes]] = deque()  # with content and digest, not rendered yet

    def still_rendering() -> None:
        channel.send(Alive())
        signal.setitimer(signal.ITIMER_REAL, setting.limit_s)

    while True:
        message = channel.receive()
        signal.setitimer(signal.ITIMER_REAL, setting.limit_s)
        if isinstance(message, Task):
            answer, content = _read(message, setting.root)
            channel.send(answer)
            if isinstance(answer, Read):
                read.append((message, content, answer.content_sha256))
        if read and (isinstance(message, Render) or not setting.asks):
            task, content, digest = read.popleft()
            views = [setting.views[index] for index in message.views]
            channel.send(*_render(task.image_id, content, digest, views, still_rendering))
        signal.setitimer(signal.ITIMER_REAL, 0)


def _read(task: Task, root: Path) -> tuple[Read | Refused | Failed, bytes]:
    try:
        content = read_file(root, task.image_id, task.size) if task.content is None else task.content
        return Read(hashlib.sha256(content).digest(), len(content)), content
    except UnreadableImageError as error:
        return Refused(error.reason, error.detail), b""
    except Exception as error:  # noqa: BLE001 - the parent says it
        return _failed(error, task.image_id), b""


def _render(
    image_id: str, content: bytes, digest: bytes, views: Sequence[ViewSpec], still_rendering: Callable[[], None]
) -> tuple[Rendered | Refused | Failed, *tuple[NDArray[np.uint8], ...]]:
    """Decode an image and render views of it, if any; return the answer, and the crops of each, (V, S, S, 3)."""
    if not views:
        return (Rendered(NO_FACTS, ()),)
    told = time.monotonic()
    try:
        image = images.decode(content)
        outcomes: list[tuple[int, ...] | Refused] = []
        crops = []
        for view in views:
            if time.monotonic() > told + ALIVE_EVERY_S:
                still_rendering()
                told = time.monotonic()
            try:
                rendered = np.ascontiguousarray(render(view, image.rgb, digest))  # (V, S, S, 3)
            except UnreadableImageError as error:
                outcomes.append(Refused(error.reason, error.detail))
            else:
                outcomes.append(rendered.shape)
                crops.append(rendered)
        return Rendered(image.facts, tuple(outcomes)), *crops
    except UnreadableImageError as error:
        return (Refused(error.reason, error.detail),)
    except Exception as error:  # noqa: BLE001 - the parent says it
        return (_failed(error, image_id),)


def _failed(error: Exception, image_id: str) -> Failed:
    if isinstance(error, RineCacheError):
        return Failed(error)
    if isinstance(error, MemoryError):
        return Failed(
            RineCacheError(f"out of memory while decoding {image_id}; lower --workers and run the same command again")
        )
    return Failed(RuntimeError(f"while decoding {image_id}:\n{''.join(traceback.format_exception(error))}"))


def _become_a_worker(end: socket.socket) -> None:
    """Let go of all that belongs to the parent, and watch whether it lives."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    os.environ["OPENCV_FOR_THREADS_NUM"] = "1"  # read when a view first imports it: the cores are the workers'
    Image.core.set_blocks_max(PIXEL_BLOCKS)  # type: ignore[attr-defined]  # documented, without a stub
    gc.freeze()  # what came from the parent is never freed here, so that it closes no descriptor of this process
    # Other workers' sockets are among what a forked process has, and locks of files.
    for descriptor in [int(path.name) for path in Path("/dev/fd").iterdir()]:
        if descriptor > 2 and descriptor != end.fileno():
            with contextlib.suppress(OSError):  # that of the listing itself
                os.close(descriptor)
    threading.Thread(target=_end_with_parent, args=(end.fileno(),), daemon=True).start()


def _end_with_parent(end: int) -> None:
    hung_up = select.poll()
    hung_up.register(end, 0)
    hung_up.poll()
    os._exit(0)
