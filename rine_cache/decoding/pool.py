"""A pool of worker processes that are survived when they die or hang.

One thread of the parent hands out tasks and collects answers. An image on which a process dies, or takes too long, is
tried once more in a fresh process, and quarantined if that ends so too; the other tasks of that process go to others.
A process that somebody else killed (`_OUTSIDE`) says nothing about its image.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import selectors
import signal
import socket
import sys
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import rine_cache.decoding.worker as worker
from rine_cache.decoding.channel import Channel, unpickled
from rine_cache.errors import ManifestError, RineCacheError
from rine_cache.facts import NO_FACTS, ImageFacts
from rine_cache.quarantine import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.process import BaseProcess
    from pathlib import Path

    from numpy.typing import NDArray

    from rine_cache.specs.encoding import ViewSpec

# How processes are started; "fork" would take along the locks of the parent's threads.
START_METHOD = "forkserver"
# Seconds that reading an image may take, or decoding it, or rendering a view of it, or starting a process.
DECODE_LIMIT_S = 60.0
# Tasks a process holds: the next is there when one is done.
TASKS_AT_ONCE = 2
MAX_TRIES = 2  # of an image on which a process died or hung
MAX_KILLS = 10  # of processes by others, on one image
MAX_FAILED_STARTS = 5  # in a row
# Signals that no image causes: of people, of batch systems, of a kernel short of memory, of `Setting.limit_s`.
_OUTSIDE = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGALRM, -signal.SIGINT, -signal.SIGHUP}
_TICK_S = 1.0
_REAP_S = 5.0  # a killed process that waits for a broken disk is left behind after that

NOT_READ = worker.Read(bytes(32), 0)


class Outcome(NamedTuple):
    """What came of an image.

    `crops` holds, for each view that was asked for and could take the image, (V, S, S, 3) uint8; `refusals` why others
    could not, with a detail; `refused` why the image itself is quarantined.
    """

    content_sha256: bytes
    file_size: int
    facts: ImageFacts
    refused: worker.Refused | None
    crops: dict[int, NDArray[np.uint8]]
    refusals: dict[int, worker.Refused]


@dataclass(eq=False)
class Job:
    """An image to be decoded, and where its outcome goes."""

    row: int
    task: worker.Task
    future: Future[Outcome] = field(default_factory=Future)
    tries: int = 0
    kills: int = 0
    read: worker.Read = NOT_READ
    views: tuple[int, ...] = ()


@dataclass(eq=False)
class _Worker:
    """A process, and what it was given; it works on the first of `steps`."""

    process: BaseProcess
    channel: Channel
    since: float  # when it began with what it does
    ready: bool = False
    fresh: bool = True
    held: int = 0  # tasks
    steps: deque[tuple[Job, bool]] = field(default_factory=deque)  # True is to read the image, False to render it
    rendered: worker.Rendered | None = None  # whose crops are arriving
    crops: list[bytearray] = field(default_factory=list)


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


class WorkerPool:
    """Decodes images in processes. One thread may submit, or several."""

    def __init__(
        self,
        root: Path,
        views: Sequence[ViewSpec],
        workers: int,
        still_wanted: Callable[[int, bytes], Sequence[int]] | None,
    ) -> None:
        """Take at most `workers` processes, started when there is something to do. The rest as for `Decoder`."""
        self._context = multiprocessing.get_context(START_METHOD)
        if START_METHOD == "forkserver":
            self._context.set_forkserver_preload([worker.__name__])
        self._limit_s = DECODE_LIMIT_S
        self._setting = worker.Setting(root, tuple(views), still_wanted is not None, 2 * self._limit_s + 30)
        self._most = workers
        self._still_wanted = still_wanted
        self._submitted: deque[Job] = deque()
        self._queue: deque[Job] = deque()
        self._retries: deque[Job] = deque()
        self._unfinished: dict[Job, None] = {}  # in order of submission
        self._workers: list[_Worker] = []
        self._failed_starts = 0
        self._failure: Exception | None = None
        self._stopping = False
        self._clock, self._ticked = 0.0, time.monotonic()
        self._selector = selectors.DefaultSelector()
        self._bell, self._ring = socket.socketpair()
        for end in (self._bell, self._ring):
            end.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="decoding", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Decode an image when a process is free for it, in the order of submission."""
        self._submitted.append(job)
        self._wake()

    def close(self) -> None:
        """End all processes at once, whatever they do."""
        self._stopping = True
        self._wake()
        self._thread.join()
        self._selector.close()
        self._bell.close()
        self._ring.close()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # rung often enough, or closed
            self._ring.send(b"!")

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
        except Exception as error:  # noqa: BLE001 - whoever waits for an image is told
            self._failure = error
        for running in self._workers:
            running.process.kill()
        for running in list(self._workers):
            self._discard(running)
        if self._failure is not None:
            self._fail_whatever_comes(self._failure)

    def _fail_whatever_comes(self, failure: Exception) -> None:
        for job in self._unfinished:
            job.future.set_exception(failure)
        while not self._stopping:
            while self._submitted:
                self._submitted.popleft().future.set_exception(failure)
            self._wait(_TICK_S)

    def _turn(self) -> None:
        """Hand out what there is, and wait for what comes."""
        while self._submitted:
            job = self._submitted.popleft()
            self._unfinished[job] = None
            self._queue.append(job)
        self._start_workers()
        self._hand_out()
        spoke = self._wait(min(_TICK_S, self._limit_s / 4))
        now = time.monotonic()
        self._clock += min(now - self._ticked, _TICK_S)  # it stands still while this process is stopped
        self._ticked = now
        for running in spoke:
            self._collect(running)
        for running in list(self._workers):
            if (running.steps or not running.ready) and self._clock - running.since > self._limit_s:
                self._lost(running, hung=True)

    def _wait(self, seconds: float) -> list[_Worker]:
        """Wait until a process or a submitter says something; return the processes that did."""
        spoke = []
        for key, events in self._selector.select(seconds):
            if key.fileobj is self._bell:
                with contextlib.suppress(BlockingIOError):
                    self._bell.recv(4096)
                continue
            running: _Worker = key.data
            if events & selectors.EVENT_WRITE:
                running.channel.flush()
                self._watch(running)
            if events & selectors.EVENT_READ:
                spoke.append(running)
        return spoke

    def _watch(self, running: _Worker) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if running.channel.has_unsent else 0)
        if self._selector.get_key(running.channel).events != events:
            self._selector.modify(running.channel, events, running)

    def _start_workers(self) -> None:
        fresh = sum(running.fresh for running in self._workers)
        while len(self._workers) < self._most and (
            len(self._workers) < len(self._unfinished) or fresh < len(self._retries)
        ):
            self._start_worker()
            fresh += 1

    def _start_worker(self) -> None:
        end, workers_end = socket.socketpair()
        with workers_end:
            process = self._context.Process(  # type: ignore[attr-defined]  # of every context
                target=worker.work, args=(workers_end, self._setting), name="rine-cache decoding", daemon=True
            )
            try:
                with _main_left_alone():
                    process.start()
            except (OSError, EOFError) as error:
                end.close()
                raise RineCacheError(
                    f"cannot start a process that decodes images: {getattr(error, 'strerror', None) or error} "
                    f"({len(self._workers)} of {self._most} run); lower --workers, or raise the limits of processes "
                    "and open files (ulimit -u, ulimit -n), and run the same command again"
                ) from None
        running = _Worker(process, Channel(end), self._clock)
        self._selector.register(running.channel, selectors.EVENT_READ, running)
        self._workers.append(running)

    def _hand_out(self) -> None:
        """Give each process what it may hold: all of them one, before any a second."""
        for held in range(TASKS_AT_ONCE):
            for running in self._workers:
                if running.ready and running.held == held:
                    self._give(running)

    def _give(self, running: _Worker) -> None:
        if running.fresh and self._retries:
            job = self._retries.popleft()
        elif self._queue:
            job = self._queue.popleft()
        else:
            return
        if not running.steps:
            running.since = self._clock
        running.fresh = False
        running.held += 1
        running.steps.append((job, True))
        if not self._setting.asks:
            running.steps.append((job, False))
        job.views = job.task.views
        self._send(running, job.task)

    def _send(self, running: _Worker, message: object) -> None:
        running.channel.send(message)
        self._watch(running)

    def _collect(self, running: _Worker) -> None:
        try:
            for frame in running.channel.receive():
                running.since = self._clock
                if running.rendered is None:
                    self._understand(running, unpickled(frame))
                else:
                    running.crops.append(frame)
                    self._take_rendered(running)
        except EOFError:
            self._lost(running, hung=False)

    def _understand(self, running: _Worker, message: Any) -> None:
        match message:
            case worker.Ready():
                running.ready = True
                self._failed_starts = 0
            case worker.Read():
                job, _ = running.steps.popleft()
                job.read = message
                if self._still_wanted is not None:
                    self._ask(running, job, self._still_wanted)
            case worker.Alive():
                pass
            case worker.Refused():
                job, _ = running.steps[0]
                self._finish(running, Outcome(*job.read, NO_FACTS, message, {}, {}))
            case worker.Failed():
                self._finish(running, message.error)
            case worker.Rendered():
                running.rendered = message
                self._take_rendered(running)

    def _ask(self, running: _Worker, job: Job, still_wanted: Callable[[int, bytes], Sequence[int]]) -> None:
        """Ask which views of an image that has been read are still needed, and have them rendered."""
        needed = still_wanted(job.row, job.read.content_sha256)
        job.views = tuple(view for view in job.task.views if view in needed)
        running.steps.append((job, False))
        self._send(running, worker.Render(job.views))

    def _take_rendered(self, running: _Worker) -> None:
        """Finish an image once all its crops have come."""
        assert running.rendered is not None, "crops follow it"
        facts, views = running.rendered
        job, _ = running.steps[0]
        by_view = dict(zip(job.views, views, strict=True)) if views else {}
        refusals = {view: found for view, found in by_view.items() if isinstance(found, worker.Refused)}
        shapes = {view: found for view, found in by_view.items() if not isinstance(found, worker.Refused)}
        if len(running.crops) < len(shapes):
            return
        crops = {
            view: np.frombuffer(frame, np.uint8).reshape(shape)  # (V, S, S, 3)
            for (view, shape), frame in zip(shapes.items(), running.crops, strict=True)
        }
        running.rendered, running.crops = None, []
        self._finish(running, Outcome(*job.read, facts, None, crops, refusals))

    def _finish(self, running: _Worker, outcome: Outcome | Exception) -> None:
        """Give what came of the image that a process works on."""
        job, _ = running.steps[0]
        while running.steps and running.steps[0][0] is job:
            running.steps.popleft()
        running.held -= 1
        self._decide(job, outcome)

    def _decide(self, job: Job, outcome: Outcome | Exception) -> None:
        del self._unfinished[job]
        if isinstance(outcome, Exception):
            job.future.set_exception(outcome)
        else:
            job.future.set_result(outcome)

    def _lost(self, running: _Worker, *, hung: bool) -> None:
        """Put right that a process has died, or has to since it hangs."""
        if hung:
            running.process.kill()
        exit_code = self._discard(running)
        if not running.ready:
            self._failed_starts += 1
            if self._failed_starts == MAX_FAILED_STARTS:
                raise RineCacheError(
                    f"processes that decode images end before they begin ({_end_of(exit_code)}, "
                    f"{MAX_FAILED_STARTS} times in a row); what they said stands above"
                )
        if not running.steps:
            return
        on, reading = running.steps[0]
        others = dict.fromkeys(job for job, _ in running.steps if job is not on)
        self._queue.extendleft(reversed(others))
        if not hung and exit_code in _OUTSIDE:
            self._killed(on, exit_code)
        else:
            self._failed_on(on, exit_code, hung=hung, reading=reading)

    def _killed(self, job: Job, exit_code: int | None) -> None:
        job.kills += 1
        if job.kills < MAX_KILLS:
            self._queue.appendleft(job)
            return
        killed = RineCacheError(
            f"the process decoding {job.task.image_id} was killed {job.kills} times ({_end_of(exit_code)}), most "
            "likely as memory ran out; lower --workers and run the same command again"
        )
        self._decide(job, killed)

    def _failed_on(self, job: Job, exit_code: int | None, *, hung: bool, reading: bool) -> None:
        job.tries += 1
        if job.tries < MAX_TRIES:
            self._retries.append(job)
        elif hung and reading:
            path = self._setting.root / job.task.image_id
            stuck = f"cannot read {path}: it takes longer than {self._limit_s:g} s"
            self._decide(job, ManifestError(f"{stuck}; mend that and run the same command again"))
        else:
            if hung:
                refused = worker.Refused(Reason.HUNG, f"decoding it took longer than {self._limit_s:g} s, twice")
            else:
                refused = worker.Refused(Reason.CRASHED, f"its decoding process died twice ({_end_of(exit_code)})")
            self._decide(job, Outcome(*job.read, NO_FACTS, refused, {}, {}))

    def _discard(self, running: _Worker) -> int | None:
        """Let go of a process that has ended or was killed, and return its exit code."""
        self._selector.unregister(running.channel)
        running.channel.close()
        self._workers.remove(running)
        running.process.join(_REAP_S)
        exit_code = running.process.exitcode
        if exit_code is None:  # it may be dumping its core
            running.process.kill()
        if exit_code is not None:
            running.process.close()
        return exit_code


def _end_of(exit_code: int | None) -> str:
    if exit_code is None:
        return "no exit status"
    return f"signal {-exit_code}" if exit_code < 0 else f"exit status {exit_code}"
