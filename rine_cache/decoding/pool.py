"""A pool of worker processes that are survived when they die or hang.

One thread of the parent hands out jobs and collects outcomes; `process` holds the conversations. An image on which a
process dies, or takes too long, is tried once more in a fresh process, and quarantined if that ends so too; the other
jobs of that process go to others. A process that somebody else killed (`_OUTSIDE`) says nothing about its image.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import selectors
import signal
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import rine_cache.decoding.worker as worker
from rine_cache.decoding.process import WorkerProcess
from rine_cache.errors import ManifestError, RineCacheError
from rine_cache.quarantine import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rine_cache.decoding.job import Job, Outcome
    from rine_cache.specs.encoding import ViewSpec

# How processes are started; "fork" would take along the locks of the parent's threads.
START_METHOD = "forkserver"
# imagehash imports it when it is first used: a tenth of a second, once before the fork instead of in every process.
_IMPORTED_BY_THE_FIRST_IMAGE = ("scipy.fftpack",)
# Seconds that reading an image may take, or decoding it, or rendering a view of it, or starting a process.
DECODE_LIMIT_S = 60.0
# Jobs a process holds: the next is there when one is done.
JOBS_AT_ONCE = 2
MAX_TRIES = 2  # of an image on which a process died or hung
MAX_KILLS = 10  # of processes by others, on one image
MAX_FAILED_STARTS = 5  # in a row
# Signals that no image causes: of people, of batch systems, of a kernel short of memory, of `Setting.limit_s`.
_OUTSIDE = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGALRM, -signal.SIGINT, -signal.SIGHUP}
_TICK_S = 1.0


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
            self._context.set_forkserver_preload([worker.__name__, *_IMPORTED_BY_THE_FIRST_IMAGE])
        self._limit_s = DECODE_LIMIT_S
        self._setting = worker.Setting(root, tuple(views), still_wanted is not None, 2 * self._limit_s + 30)
        self._most = workers
        self._still_wanted = still_wanted
        self._submitted: deque[Job] = deque()
        self._queue: deque[Job] = deque()
        self._retries: deque[Job] = deque()
        self._unfinished: dict[Job, None] = {}  # in order of submission
        self._processes: list[WorkerProcess] = []
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
        for process in self._processes:
            process.kill()
        for process in list(self._processes):
            self._discard(process)
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
        self._start_processes()
        self._hand_out()
        spoke = self._wait(min(_TICK_S, self._limit_s / 4))
        now = time.monotonic()
        self._clock += min(now - self._ticked, _TICK_S)  # it stands still while this process is stopped
        self._ticked = now
        for process in spoke:
            self._collect(process)
        for process in list(self._processes):
            if (since := process.busy_since) is not None and self._clock - since > self._limit_s:
                self._lost(process, hung=True)

    def _wait(self, seconds: float) -> list[WorkerProcess]:
        """Wait until a process or a submitter says something; return the processes that did."""
        spoke = []
        for key, events in self._selector.select(seconds):
            if key.fileobj is self._bell:
                with contextlib.suppress(BlockingIOError):
                    self._bell.recv(4096)
                continue
            process: WorkerProcess = key.data
            if events & selectors.EVENT_WRITE:
                process.flush()
                self._watch(process)
            if events & selectors.EVENT_READ:
                spoke.append(process)
        return spoke

    def _watch(self, process: WorkerProcess) -> None:
        """Wait for what a process says, and until it takes what could not be sent yet."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if process.has_unsent else 0)
        if self._selector.get_key(process).events != events:
            self._selector.modify(process, events, process)

    def _start_processes(self) -> None:
        """Start as many as there is work for, and a fresh one for each image that needs that."""
        fresh = sum(process.fresh for process in self._processes)
        while len(self._processes) < self._most and (
            len(self._processes) < len(self._unfinished) or fresh < len(self._retries)
        ):
            self._start_process()
            fresh += 1

    def _start_process(self) -> None:
        try:
            process = WorkerProcess(self._context, self._setting, self._still_wanted, self._clock)
        except (OSError, EOFError) as error:
            raise RineCacheError(
                f"cannot start a process that decodes images: {getattr(error, 'strerror', None) or error} "
                f"({len(self._processes)} of {self._most} run); lower --workers, or raise the limits of processes "
                "and open files (ulimit -u, ulimit -n), and run the same command again"
            ) from None
        self._selector.register(process, selectors.EVENT_READ, process)
        self._processes.append(process)

    def _hand_out(self) -> None:
        """Give each process what it may hold: all of them one job, before any a second."""
        for held in range(JOBS_AT_ONCE):
            for process in self._processes:
                if process.ready and process.held == held and (job := self._next_job(process)):
                    process.give(job, self._clock)
                    self._watch(process)

    def _next_job(self, process: WorkerProcess) -> Job | None:
        if process.fresh and self._retries:
            return self._retries.popleft()
        return self._queue.popleft() if self._queue else None

    def _collect(self, process: WorkerProcess) -> None:
        """Take in what a process has said."""
        was_ready = process.ready
        try:
            for job, outcome in process.receive(self._clock):
                self._decide(job, outcome)
            self._watch(process)
        except EOFError:
            self._lost(process, hung=False)
        if process.ready and not was_ready:
            self._failed_starts = 0

    def _decide(self, job: Job, outcome: Outcome | Exception) -> None:
        del self._unfinished[job]
        if isinstance(outcome, Exception):
            job.future.set_exception(outcome)
        else:
            job.future.set_result(outcome)

    def _lost(self, process: WorkerProcess, *, hung: bool) -> None:
        """Put right that a process has died, or has to since it hangs."""
        if hung:
            process.kill()
        exit_code = self._discard(process)
        if not process.ready:
            self._failed_starts += 1
            if self._failed_starts == MAX_FAILED_STARTS:
                raise RineCacheError(
                    f"processes that decode images end before they begin ({_end_of(exit_code)}, "
                    f"{MAX_FAILED_STARTS} times in a row); what they said stands above"
                )
        if not process.jobs:
            return
        on, *others = process.jobs
        self._queue.extendleft(reversed(others))
        if not hung and exit_code in _OUTSIDE:
            self._killed(on, exit_code)
        else:
            self._failed_on(on, exit_code, hung=hung, reading=process.is_reading)

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
            self._decide(job, job.quarantined(refused))

    def _discard(self, process: WorkerProcess) -> int | None:
        """Let go of a process that has ended or was killed, and return its exit code."""
        self._selector.unregister(process)
        self._processes.remove(process)
        return process.let_go()


def _end_of(exit_code: int | None) -> str:
    if exit_code is None:
        return "no exit status"
    return f"signal {-exit_code}" if exit_code < 0 else f"exit status {exit_code}"
