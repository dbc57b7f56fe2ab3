"""Files that appear whole or not at all, and what is said where they cannot be written."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rine_cache.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place, flushed to disk, if the block succeeds.

    A reader therefore never sees half a file, and an interrupted writer leaves the old file alone.

    Raises
    ------
    OutputError
        If the disk refuses.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with refusals_told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = _mode_of_a_new_file(temporary)
        try:
            yield temporary
            temporary.chmod(mode)  # some libraries write for the owner alone, and results are shared
            flush_to_disk(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        flush_to_disk(path.parent)


@contextmanager
def refusals_told(path: Path) -> Iterator[None]:
    """Turn what the system says when it refuses to write `path` into an error for people.

    Raises
    ------
    OutputError
        If the disk refuses.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(refusal(path, error)) from None


def is_full(error: OSError) -> bool:
    """Say whether a disk refuses because there is no room on it, or no more for this user or in this file."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def refusal(path: Path, error: OSError) -> str:
    """Say that `path` cannot be written, why, and what to do."""
    advice = "free some space, or choose another place" if is_full(error) else "choose another place"
    return f"cannot write {path}: {reason(error)}; {advice}"


def reason(error: OSError) -> str:
    """Return the system's words for what it refuses: some libraries wrap them in words of their own."""
    return os.strerror(error.errno) if error.errno else str(error)


def _mode_of_a_new_file(path: Path) -> int:
    """Learn the permissions that the user's umask gives, without changing it for other threads."""
    path.touch()
    mode = path.stat().st_mode
    path.unlink()
    return mode


def flush_to_disk(path: Path) -> None:
    """Wait until a file's bytes, or a folder's entries, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
