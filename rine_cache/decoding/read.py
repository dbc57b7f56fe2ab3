"""Reading an image's file: whole, as it was listed, and as it stood at one moment."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from rine_cache.errors import ManifestError
from rine_cache.quarantine import Reason, UnreadableImageError

if TYPE_CHECKING:
    from pathlib import Path

_QUARANTINING_ERRORS = {FileNotFoundError: Reason.MISSING, PermissionError: Reason.FORBIDDEN}
_READINGS = 2  # of a file that something is writing at that moment


def read_file(root: Path, image_id: str, size: int) -> bytes:
    """Return the bytes of an image's file.

    Parameters
    ----------
    root
        The folder of the data set.
    image_id
        Path below it.
    size
        As listed, in bytes.

    Raises
    ------
    UnreadableImageError
        If the file is missing, forbidden, or no regular file.
    ManifestError
        If the folder has gone, the file cannot be read, keeps changing, or is not as long as was listed.
    """
    path = root / image_id
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would wait for ever
            raise UnreadableImageError(Reason.MISSING, "no regular file")
        for _ in range(_READINGS):
            content = _read_at_rest(path)
            if content is not None:
                break
        else:
            raise ManifestError(
                f"{path} is being written; wait until that is done, list the folder again with `rine-cache manifest` "
                "if it has changed, and run the same command again"
            )
    except (FileNotFoundError, PermissionError) as error:
        if not root.is_dir():
            raise ManifestError(f"the folder {root} has gone; bring it back and run the same command again") from None
        raise UnreadableImageError(_QUARANTINING_ERRORS[type(error)], str(error.strerror)) from None
    except OSError as error:
        # A failing disk or network share says nothing about the image: stop, resumable.
        raise ManifestError(f"cannot read {path}: {error.strerror}; mend that and run the same command again") from None
    if len(content) != size:
        raise ManifestError(
            f"{path} has changed since it was listed ({size:,} bytes then, {len(content):,} now); list the folder "
            "again with `rine-cache manifest`"
        )
    return content


def _read_at_rest(path: Path) -> bytes | None:
    """Read a file; return None if it was written meanwhile."""
    with path.open("rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        content = file.readall()
        after = os.fstat(file.fileno())
    at_rest = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    return content if at_rest and len(content) == after.st_size else None
