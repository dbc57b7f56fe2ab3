"""Files that appear whole or not at all."""

from __future__ import annotations

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
    try:
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
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; choose another place") from None


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
