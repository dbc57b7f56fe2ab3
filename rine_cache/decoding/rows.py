"""What decoding gives for one row of a manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rine_cache.facts import ImageFacts
    from rine_cache.quarantine import Reason


class DecodedRow(NamedTuple):
    """One image read, decoded and rendered, or why it could not be.

    Attributes
    ----------
    row
        Of the manifest.
    image_id
        Path below the manifest's root.
    content_sha256
        Digest of the bytes that were decoded, 32 bytes; zeros when nothing was read.
    file_size
        Of those bytes; 0 when nothing was read.
    facts
        What the file says of itself; `NO_FACTS` if it was not decoded.
    reason
        Why the image itself is quarantined; it then has no crops at all.
    crops
        For each view its crops, shape (V, S, S, 3), uint8; None if they were not asked for, or are quarantined.
    view_reasons
        For each view why it cannot take the image, or `Reason.NONE`.
    """

    row: int
    image_id: str
    content_sha256: bytes
    file_size: int
    facts: ImageFacts
    reason: Reason
    crops: tuple[NDArray[np.uint8] | None, ...]
    view_reasons: tuple[Reason, ...]
