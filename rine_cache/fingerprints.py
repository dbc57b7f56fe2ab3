"""What a number's row says of what made it, so that a changed number can be explained.

Four digests, one per thing that can change under a number: the test images, the encoding that they were read through,
what the heads were trained on, and the heads themselves. Where a number has a single encoding or head, it is the one
that `rine-cache info` shows of a cache or head.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from rine_cache.provenance import fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

# Columns of metrics and of the leaderboard, in the order in which a reader looks for a reason.
COLUMNS = ("data_fingerprint", "encoder_fingerprint", "training_fingerprint", "head_fingerprint")


class Maker(NamedTuple):
    """What scored the images: nothing is stated of what is no head.

    Attributes
    ----------
    head_fingerprint
        Sha256 of the head's file.
    training_fingerprint
        Digest over the caches, manifests and subsets it was trained on; null for a head that was not trained here.
    """

    head_fingerprint: str | None = None
    training_fingerprint: str | None = None


def joint_fingerprint(parts: Iterable[str | None]) -> str | None:
    """Return the one digest that all parts share, or a digest over the distinct ones; nulls do not count.

    Returns
    -------
    64 hexadecimal digits, the same in whatever order the parts come; None without any.
    """
    distinct = sorted({part for part in parts if part is not None})
    return distinct[0] if len(distinct) == 1 else fingerprint(distinct) if distinct else None


def images_fingerprint(manifest_digest: str, content_digest: str, rows: NDArray[np.int64]) -> str:
    """Trace some images of a data set, in their order, to their listing and their bytes.

    Parameters
    ----------
    manifest_digest, content_digest
        Of their data set.
    rows
        Theirs in the manifest, shape (n,).
    """
    chosen = hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()
    return fingerprint([manifest_digest, content_digest, chosen])
