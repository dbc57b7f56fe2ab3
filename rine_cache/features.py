"""Cached features joined to their labels: what heads are trained on and scored with. No image is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from rine_cache.cache import FeatureCache
from rine_cache.errors import CacheMismatchError
from rine_cache.heads.head import FeatureIdentity
from rine_cache.manifest import Manifest, read_manifest
from rine_cache.provenance import fingerprint
from rine_cache.selection import chosen, in_share

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray


class FeaturePart(NamedTuple):
    """A cache, the manifest it was made from, and the rows of it that are used."""

    cache: FeatureCache
    manifest: Manifest
    kept: dict[str, list[Any]]  # the values of `subset` and `split` asked for, none keep all; the `share`
    rows: NDArray[np.int64]  # (n,): readable, and asked for


def open_part(
    features: Path,
    manifest: Path,
    subsets: Sequence[str] = (),
    splits: Sequence[str] = (),
    share: tuple[float, float] = (0.0, 1.0),
) -> FeaturePart:
    """Open a sealed cache with its manifest, keeping some subsets, splits and a share of the images, or all.

    Raises
    ------
    CacheError
        If the cache is unsealed, damaged, or was made from another manifest.
    ManifestError
        If the manifest cannot be read, or has no such subset or split.
    """
    cache, table = FeatureCache(features), read_manifest(manifest)
    cache.require_manifest(table.listing_digest, manifest)
    wanted = cache.readable & chosen(table.table, subsets, splits, str(manifest))
    if share != (0.0, 1.0):
        wanted = wanted & in_share(table.table["group"], cache.content_sha256, share)
    kept: dict[str, list[Any]] = {"subset": list(subsets), "split": list(splits), "share": list(share)}
    return FeaturePart(cache, table, kept, np.flatnonzero(wanted))


def feature_identity(cache: FeatureCache) -> FeatureIdentity:
    """Return what a cache's features are of: encoder, tap and sizes."""
    key, shape = cache.identity.key, cache.shape
    return FeatureIdentity(
        encoder=key["encoder"],
        tap=key["tap"],
        compute_dtype=key["compute_dtype"],
        block_count=shape.blocks,
        token_width=shape.width,
        embedding_width=shape.embedding_width,
    )


class FeatureSet:
    """The union of parts that share encoder and tap.

    Attributes
    ----------
    identity
        What the features are of.
    labels
        0 real, 1 fake, shape (N,), int64.
    fingerprint
        Digest over the parts' encoding keys, manifests, contents, subsets, splits and shares.
    """

    def __init__(self, parts: Sequence[FeaturePart]) -> None:
        self._parts = parts
        self.identity = feature_identity(parts[0].cache)
        for part in parts[1:]:
            if difference := self.identity.difference(feature_identity(part.cache)):
                raise CacheMismatchError(
                    f"{parts[0].cache.path} holds features of {difference}, which {part.cache.path} holds; a union "
                    f"needs one encoder and tap"
                )
        self._starts = np.cumsum([0, *(len(part.rows) for part in parts)])
        self.labels: NDArray[np.int64] = np.concatenate(
            [part.manifest.table["label"].to_numpy()[part.rows] for part in parts]
        ).astype(np.int64)  # (N,)
        self.fingerprint = fingerprint(
            [[part.cache.fingerprint, part.manifest.digest, part.cache.content_digest, part.kept] for part in parts]
        )

    def __len__(self) -> int:
        """Return N, the number of readable images."""
        return len(self.labels)

    @property
    def caches(self) -> list[FeatureCache]:
        """The parts' caches, in their order; one may stand behind several parts."""
        return [part.cache for part in self._parts]

    def content(self) -> NDArray[np.void]:
        """Return the images' content digests, shape (N,), comparable as 32-byte values."""
        digests = np.concatenate([part.cache.content_sha256[part.rows] for part in self._parts])  # (N, 32)
        return np.ascontiguousarray(digests).view("V32").reshape(-1)  # (N,)

    def tokens(self, indices: NDArray[np.int64], blocks: Sequence[int], draw: int) -> torch.Tensor:
        """Read CLS tokens: only the blocks and rows asked for are touched.

        Parameters
        ----------
        indices
            Which images, shape (B,).
        blocks
            Which blocks, K' of them.
        draw
            Which draw of the view; taken modulo each part's V.

        Returns
        -------
        Shape (B, K', D), float32.
        """
        return self.stored_tokens(indices, blocks, draw).transpose(0, 1).float().contiguous()  # (B, K', D)

    def stored_tokens(self, indices: NDArray[np.int64], blocks: Sequence[int], draw: int) -> torch.Tensor:
        """Read CLS tokens as the cache holds them, shape (K', B, D), float16; arguments as of `tokens`."""
        out = torch.empty(len(blocks), len(indices), self.identity.token_width, dtype=torch.float16)  # (K', B, D)
        for part, places, rows in self._located(indices):
            picked = draw % part.cache.shape.draws
            for position, block in enumerate(blocks):
                out[position, places] = torch.from_numpy(part.cache.features[block, rows, picked])
        return out

    def embedding(self, indices: NDArray[np.int64], draw: int) -> torch.Tensor:
        """Read embeddings, shape (B, E), float32; arguments as of `tokens`."""
        return self.stored_embedding(indices, draw).float()  # (B, E)

    def stored_embedding(self, indices: NDArray[np.int64], draw: int) -> torch.Tensor:
        """Read embeddings as the cache holds them, shape (B, E), float16; arguments as of `tokens`."""
        width = self._parts[0].cache.shape.embedding_width
        out = torch.empty(len(indices), width, dtype=torch.float16)  # (B, E)
        for part, places, rows in self._located(indices):
            out[places] = torch.from_numpy(part.cache.embedding[rows, draw % part.cache.shape.draws])
        return out

    def _part_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        owners: NDArray[np.int64] = np.searchsorted(self._starts, indices, side="right") - 1
        return owners

    def _located(self, indices: NDArray[np.int64]) -> list[tuple[FeaturePart, torch.Tensor, NDArray[np.int64]]]:
        """Split indices by part: the part, where its images stand in `indices`, and their rows in its cache."""
        owners = self._part_of(indices)
        located = []
        for number, part in enumerate(self._parts):
            places = np.flatnonzero(owners == number)
            if places.size:
                rows = part.rows[indices[places] - self._starts[number]]
                located.append((part, torch.from_numpy(places), rows))
        return located
