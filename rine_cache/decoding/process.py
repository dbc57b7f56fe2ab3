"""A worker process as its parent sees it: what it was given, what it said, and what it works on now.

`worker` is the other end of the conversation. How long a process may take, and what its death says of an image, is the
pool's to judge; nothing here waits, but for a process to start or end.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from collections import deque
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

import rine_cache.decoding.worker as worker
from rine_cache.decoding.channel import Channel, unpickled
from rine_cache.decoding.job import Job, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.context import BaseContext
    from multiprocessing.process import BaseProcess

_REAP_S = 5.0  # a killed process that waits for a broken disk is left behind after that


@contextlib.contextmanager
def _main_left_alone() -> Iterator[None]:
    """Keep a process that is started from importing the caller's script, of which it needs nothing.

    multiprocessing would, and so import torch there, or run a script that has no ``if __name__ == "__main__"``.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


class WorkerProcess:
    """A process that decodes images, and the parent's end of the conversation with it.

    A job has two steps, reading the image and rendering it. Where it is asked in between which views are still wanted,
    the process reads the next image meanwhile. A selector may wait for it, to `receive` what it says and to `flush`
    what it did not take at once.

    Attributes
    ----------
    ready
        Whether it has started: only then may it be given a job.
    fresh
        Whether it was never given a job.
    held
        Number of jobs that it was given and has not finished.
    """

    def __init__(
        self,
        context: BaseContext,
        setting: worker.Setting,
        still_wanted: Callable[[int, bytes], Sequence[int]] | None,
        now: float,
    ) -> None:
        """Start a process; `still_wanted` as for `Decoder`.

        Raises
        ------
        OSError, EOFError
            If the system starts no more processes, or opens no more files.
        """
        end, workers_end = socket.socketpair()
        with workers_end:
            self._process: BaseProcess = context.Process(  # type: ignore[attr-defined]  # of every context
                target=worker.work, args=(workers_end, setting), name="rine-cache decoding", daemon=True
            )
            try:
                with _main_left_alone():
                    self._process.start()
            except (OSError, EOFError):
                end.close()
                raise
        self.ready = False
        self.fresh = True
        self.held = 0
        self._channel = Channel(end)
        self._still_wanted = still_wanted
        self._since = now
        # Of its jobs, what it has not done yet; True is to read the image, False to render it.
        self._steps: deque[tuple[Job, bool]] = deque()
        self._rendered: worker.Rendered | None = None  # whose crops are arriving
        self._crops: list[bytearray] = []

    @property
    def pid(self) -> int | None:
        """Number of the process, until it is let go."""
        return self._process.pid

    @property
    def jobs(self) -> list[Job]:
        """What it was given and has not finished; it works on the first."""
        return list(dict.fromkeys(job for job, _ in self._steps))

    @property
    def is_reading(self) -> bool:
        """Whether what it works on is to read an image, not to decode one."""
        return bool(self._steps) and self._steps[0][1]

    @property
    def busy_since(self) -> float | None:
        """When it began with what it does: starting, or a step, of which it last said something; None if idle."""
        return self._since if self._steps or not self.ready else None

    @property
    def has_unsent(self) -> bool:
        """Whether something waits to be sent, by `flush`, when the process takes it."""
        return self._channel.has_unsent

    def fileno(self) -> int:
        """Return the socket's descriptor, for selectors."""
        return self._channel.fileno()

    def flush(self) -> None:
        """Send what waits, as far as the process takes it."""
        self._channel.flush()

    def give(self, job: Job, now: float) -> None:
        """Have it read and render an image once it is done with the others."""
        if not self._steps:
            self._since = now
        self.fresh = False
        self.held += 1
        self._steps.append((job, True))
        if self._still_wanted is None:
            self._steps.append((job, False))
        job.views = job.task.views
        self._channel.send(job.task)

    def receive(self, now: float) -> Iterator[tuple[Job, Outcome | Exception]]:
        """Take in what it has said, and yield the jobs that it has finished, with what came of each.

        Raises
        ------
        EOFError
            After the last of them, if it has ended.
        """
        for frame in self._channel.receive():
            self._since = now
            if self._rendered is None:
                outcome = self._understand(unpickled(frame))
            else:
                self._crops.append(frame)
                outcome = self._when_all_crops_came(self._rendered)
            if outcome is not None:
                yield self._finish(), outcome

    def kill(self) -> None:
        """End it at once, whatever it does."""
        self._process.kill()

    def let_go(self) -> int | None:
        """Reap a process that has ended or was killed; return its exit code, None if it has not ended after all."""
        self._channel.close()
        self._process.join(_REAP_S)
        exit_code = self._process.exitcode
        if exit_code is None:  # it may be dumping its core
            self._process.kill()
        else:
            self._process.close()
        return exit_code

    def _understand(self, message: Any) -> Outcome | Exception | None:
        """Take in a message; return what came of the job that it works on, if the message ends that."""
        match message:
            case worker.Ready():
                self.ready = True
            case worker.Read():
                self._has_read(message)
            case worker.Alive():
                pass
            case worker.Refused():
                job, _ = self._steps[0]
                return job.quarantined(message)
            case worker.Failed():
                return message.error
            case worker.Rendered():
                self._rendered = message
                return self._when_all_crops_came(message)
        return None

    def _has_read(self, read: worker.Read) -> None:
        """Have an image rendered that has been read: only in the views that are still needed, where that is asked."""
        job, _ = self._steps.popleft()
        job.read = read
        if self._still_wanted is None:  # it renders without being told
            return
        needed = self._still_wanted(job.row, read.content_sha256)
        job.views = tuple(view for view in job.task.views if view in needed)
        self._steps.append((job, False))
        self._channel.send(worker.Render(job.views))

    def _when_all_crops_came(self, rendered: worker.Rendered) -> Outcome | None:
        """Return the outcome of the job that it works on, once the crops of every view have come."""
        job, _ = self._steps[0]
        by_view = dict(zip(job.views, rendered.views, strict=True)) if rendered.views else {}
        refusals = {view: found for view, found in by_view.items() if isinstance(found, worker.Refused)}
        shapes = {view: found for view, found in by_view.items() if not isinstance(found, worker.Refused)}
        if len(self._crops) < len(shapes):
            return None
        crops = {
            view: np.frombuffer(frame, np.uint8).reshape(shape)  # (V, S, S, 3)
            for (view, shape), frame in zip(shapes.items(), self._crops, strict=True)
        }
        self._rendered, self._crops = None, []
        return Outcome(*job.read, rendered.facts, None, crops, refusals)

    def _finish(self) -> Job:
        """Strike out what is left of the job that it works on: a refusal or a failure ends it before its last step."""
        job, _ = self._steps[0]
        while self._steps and self._steps[0][0] is job:
            self._steps.popleft()
        self.held -= 1
        return job
