"""Which images of a data set a training set takes: by subset, by split, by share."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from rine_cache.errors import ManifestError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def chosen(images: pl.DataFrame, subsets: Sequence[str], splits: Sequence[str], source: str) -> NDArray[np.bool_]:
    """Say which images are of some subsets and splits; none named keep all.

    Parameters
    ----------
    images
        Columns ``subset`` and ``split`` of a manifest, one row per image.
    subsets, splits
        Those of a `rine_cache.specs.data.DatasetPart`.
    source
        What `images` are of, named in the error.

    Returns
    -------
    Shape (N,).

    Raises
    ------
    ManifestError
        If a subset or split has no image.
    """
    kept: NDArray[np.bool_] = np.ones(images.height, np.bool_)  # (N,)
    for column, names in (("subset", subsets), ("split", splits)):
        present = set(images[column].drop_nulls().unique())
        for name in names:
            if name not in present:
                raise ManifestError(f"{source} has no {column} {name!r}; {nearest(name, present)}")
        if names:
            kept &= images[column].is_in(list(names)).fill_null(value=False).to_numpy()
    return kept


def in_share(groups: pl.Series, content_sha256: NDArray[np.uint8], share: tuple[float, float]) -> NDArray[np.bool_]:
    """Say which images a `rine_cache.specs.data.DatasetPart` keeps of those in its subsets and splits.

    An image's place from 0 to 1 is the beginning of its group's digest, or else of its content's: images of one group,
    such as crops of one photograph, and copies of one image stay on one side of any bound.

    Parameters
    ----------
    groups
        Of each image, or null, shape (N,).
    content_sha256
        Shape (N, 32); zeros where a file could not be read.
    share
        Bounds of the places to keep, the second not included.

    Returns
    -------
    Shape (N,).
    """
    beginnings = np.ascontiguousarray(content_sha256[:, :4]).view(">u4").reshape(-1).astype(np.uint32)  # (N,)
    names = groups.drop_nulls().unique()  # (G,)
    hashed = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") for name in names]
    grouped = groups.replace_strict(names, hashed, default=None, return_dtype=pl.UInt32)  # (N,), null without a group
    places = grouped.zip_with(groups.is_not_null(), pl.Series(beginnings)).to_numpy() / 2.0**32  # (N,)
    kept: NDArray[np.bool_] = (places >= share[0]) & (places < share[1])  # (N,)
    return kept
