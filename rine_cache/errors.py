"""The errors a user can cause, one family, shown without a traceback at the command line.

A message says what was wrong, the value found, what is allowed (with the nearest match for a name), and
what to run or edit. `assert` is kept for the package's own invariants.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class RineCacheError(Exception):
    """Root of the family: whatever derives from it is reported as one message, exit status 2."""


class ConfigError(RineCacheError):
    """A configuration key, value or command-line argument is not allowed."""


class OutputError(RineCacheError):
    """A file cannot be written where it was asked for."""


class ManifestError(RineCacheError):
    """A manifest is missing, malformed, or describes other images than expected."""


class LayoutError(RineCacheError):
    """A folder does not hold images in the layout it was said to have."""


class WeightsError(RineCacheError):
    """Encoder weights cannot be fetched, read, or are not what their hash says."""


class EncoderError(RineCacheError):
    """An image tower cannot be used: not a ViT with a class token, wrong activation, batch too large."""


class CacheError(RineCacheError):
    """A cache file cannot be used. The subclasses say why."""


class CacheMismatchError(CacheError):
    """A cache was made from other weights, another tap, view or manifest than the reader expects."""


class CacheUnsealedError(CacheError):
    """A cache is still being written, or its writer was interrupted."""


class CacheCorruptError(CacheError):
    """Bytes of a cache are not those that were sealed."""


class CacheBusyError(CacheError):
    """Another process is writing the same cache."""


class HeadError(RineCacheError):
    """A head file cannot be read or does not fit the features it is given."""


class TrainingError(RineCacheError):
    """Training cannot start or diverged."""


class ResultsError(RineCacheError):
    """Scores, metrics or published numbers are malformed or do not belong together."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Say which names are allowed, the nearest one first.

    Parameters
    ----------
    name
        What the user wrote.
    allowed
        Every name that would have been accepted.

    Returns
    -------
    A sentence that ends an error message, such as ``did you mean 'ln_2'? allowed: block, ln_2``.
    """
    names = sorted(allowed)
    listed = f"allowed: {', '.join(names) or 'none'}"
    folded = {candidate.lower(): candidate for candidate in names}
    match = get_close_matches(name.lower(), list(folded), n=1, cutoff=0.5)
    return f"did you mean {folded[match[0]]!r}? {listed}" if match else listed
