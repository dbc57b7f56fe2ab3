"""Where random values come from: a generator of a purpose, a seed, an image's content and a number."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(purpose: str, seed: int, content_sha256: bytes, index: int) -> np.random.Generator:
    """Make the generator of one draw; no state is shared, so that order, workers and shards change nothing.

    Parameters
    ----------
    purpose
        Keeps apart what would else draw the same values: ``view``, ``prepare``, ``perturbed``.
    seed
        The user's.
    content_sha256
        The 32-byte digest of the image file.
    index
        Of the draw, or of the operation in its list.
    """
    digest = hashlib.sha256(b"rine-cache %b|%d|%b|%d" % (purpose.encode(), seed, content_sha256, index)).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))
