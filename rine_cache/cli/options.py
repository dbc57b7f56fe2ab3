"""Options and set-up that commands share."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from rine_cache.files import reason, refusals_told

if TYPE_CHECKING:
    from collections.abc import Callable

OUT_FILE = click.Path(dir_okay=False, path_type=Path)
IN_PATH = click.Path(path_type=Path)


class _TerminalHandler(logging.Handler):
    """Writes messages to stderr without tearing a progress bar apart.

    Where the bar shows, the progress lines meant for logs are left out.
    """

    def emit(self, record: logging.LogRecord) -> None:
        if sys.stderr.isatty() and record.name == "rine_cache.progress":
            return
        prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        tqdm.write(prefix + record.getMessage(), file=sys.stderr)


class _FileHandler(logging.FileHandler):
    """Appends messages to a log file. Where the disk refuses, it says so once and the command goes on without.

    What a command makes is worth more than its log: hours of encoding are not stopped by a full disk beside them.
    """

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name in `logging`
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        logger = logging.getLogger("rine_cache")
        logger.removeHandler(self)
        with contextlib.suppress(OSError):  # closing writes what was refused again
            self.close()
        logger.warning("the log %s is not written any further: %s", self.baseFilename, reason(error))


def log_to(path: Path | None) -> None:
    """Send messages to stderr, and as plain lines with the time to a log file."""
    logger = logging.getLogger("rine_cache")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers = [_TerminalHandler()]
    if path is not None:
        with refusals_told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            to_file = _FileHandler(path, mode="a", encoding="utf-8")
        to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        logger.addHandler(to_file)


def _set_up_log(_context: click.Context, _parameter: click.Parameter, value: Path | None) -> None:
    log_to(value)


log_option = click.option(
    "--log",
    type=OUT_FILE,
    callback=_set_up_log,
    expose_value=False,
    help="Append plain lines to this file as well.",
)


def device_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--device``."""
    return click.option(
        "--device", default="auto", show_default=True, metavar="auto|cpu|mps|cuda[:N]", help="Where to compute."
    )(command)


def format_option(*forms: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add ``--format``; the first of the forms is the default."""
    return click.option(
        "--format", "form", type=click.Choice(forms), default=forms[0], show_default=True, help="How to write it."
    )


def default_workers() -> int:
    """Return how many decoding threads suit this machine: one per core it may use, sixteen at the most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(16, cores)
