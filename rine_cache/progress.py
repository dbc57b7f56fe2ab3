"""Progress for people and for logs: a bar on a terminal's stderr, plain lines in the log.

Rate and time left are counted from this run's first item, so that a resumed extraction tells the truth.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Iterator

LOG = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 60.0


class Progress:
    """Count items done; draw them on the terminal and now and then in the log."""

    def __init__(self, bar: tqdm[Any], what: str, unit: str, total: int, initial: int) -> None:
        self._bar = bar
        self._what, self._unit, self._total, self._initial = what, unit, total, initial
        self._done = initial
        self._start = self._last_line = time.monotonic()
        self._notes: dict[str, int] = {}

    def advance(self, count: int = 1) -> None:
        """Record that `count` more items are done."""
        self._done += count
        self._bar.update(count)
        if time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self.log_line()

    def note(self, what: str, count: int) -> None:
        """Show a count beside the bar and in the log's lines, such as how many images were quarantined so far."""
        self._notes[what] = count
        self._bar.set_postfix(self._notes, refresh=False)

    def log_line(self) -> None:
        """Write one plain line: done, total, items per second, time left, and what was noted."""
        now = time.monotonic()
        self._last_line = now
        rate = (self._done - self._initial) / max(now - self._start, 1e-9)
        remaining = self._total - self._done
        if remaining and not rate:
            left = "--:--"  # not known yet
        else:
            left = "{:02d}:{:02d}".format(*divmod(round(remaining / rate) if remaining else 0, 60))
        notes = "".join(f", {count} {what}" for what, count in self._notes.items())
        LOG.info("%s: %d/%d %s, %.1f/s, %s left%s", self._what, self._done, self._total, self._unit, rate, left, notes)


class Waits:
    """Adds up the seconds that one thread waits, by what it waits for.

    Attributes
    ----------
    seconds
        Seconds waited so far, by what was waited for.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._start = time.monotonic()

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        """Count the block's time as waiting for `what`."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[what] += time.monotonic() - start

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._start


@contextmanager
def progress(what: str, total: int, unit: str, initial: int = 0) -> Iterator[Progress]:
    """Open a progress display for `total` items, `initial` of which an earlier run had done.

    The bar shows only where stderr is a terminal; a last log line is written however the block ends.
    """
    with tqdm(total=total, initial=initial, desc=what, unit=f" {unit}", disable=None, dynamic_ncols=True) as bar:
        display = Progress(bar, what, unit, total, initial)
        try:
            yield display
        finally:
            display.log_line()
