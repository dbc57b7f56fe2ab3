"""Scoring: one logit per image and head, from a cache. No image and no encoder is touched.

A score file is Parquet with one row group per head, all in the manifest's order, and a header that says which
heads, cache and manifest it came from, and how many crops each head read from caches, for its training and here. The
logit of an image that was quarantined is null. A view of several crops gives the mean of their logits.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from rine_cache.errors import HeadError
from rine_cache.features import FeatureSet, feature_identity
from rine_cache.files import written_whole
from rine_cache.passes import passes_of
from rine_cache.progress import progress
from rine_cache.provenance import code_version

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from rine_cache.features import FeaturePart
    from rine_cache.heads.head import Head

_ROWS_AT_ONCE = 1024


class ScoredImages(NamedTuple):
    """What a score file is of: the names a benchmark finds it by."""

    dataset: str
    view: str


def score(heads: Sequence[Head], part: FeaturePart, named: ScoredImages, output: Path, device: str) -> None:
    """Score every readable image of a cache with every head.

    Parameters
    ----------
    heads
        The heads; each refuses features of another encoder or tap.
    part
        The cache with its manifest, all subsets.
    named
        The data set's and view's names in the config.
    output
        Path of the score file.
    device
        Torch device to compute on.

    Raises
    ------
    CacheMismatchError
        If a head was trained on another encoder or tap.
    HeadError
        If a head gives a logit that is not finite.
    """
    for head in heads:
        head.require_features(feature_identity(part.cache), str(part.cache.path))
    logits = _logits(heads, part, device)  # (H, N)
    images = part.manifest.table
    header = {
        **named._asdict(),
        "encoding_fingerprint": part.cache.fingerprint,
        "manifest_digest": part.manifest.digest,
        "content_digest": part.cache.content_digest,
        "code_version": code_version(),
        "passes": passes_of([part.cache], len(part.rows) * part.cache.shape.draws).model_dump(),  # of each head
        "heads": [_describe(head) for head in heads],
    }
    with written_whole(output) as temporary:
        schema = SCHEMA.with_metadata({"rine_cache": json.dumps(header)})
        with pq.ParquetWriter(temporary, schema) as writer:
            for head, head_logits in zip(heads, logits, strict=True):
                frame = images.select("image_id", "label", "subset", "split", "variant", "group").with_columns(
                    dataset=pl.lit(named.dataset),
                    view=pl.lit(named.view),
                    method=pl.lit(head.card.method),
                    seed=pl.lit(head.card.seed, pl.Int64),
                    logit=pl.Series(head_logits, dtype=pl.Float32).fill_nan(None),
                )
                writer.write_table(
                    frame.select(SCHEMA.names).to_arrow().cast(schema), row_group_size=len(part.manifest)
                )


SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("view", pa.string()),
        ("image_id", pa.string()),
        ("label", pa.int8()),
        ("subset", pa.string()),
        ("split", pa.string()),
        ("variant", pa.string()),
        ("group", pa.string()),
        ("method", pa.string()),
        ("seed", pa.int64()),
        ("logit", pa.float32()),
    ]
)


@torch.inference_mode()
def _logits(heads: Sequence[Head], part: FeaturePart, device: str) -> NDArray[np.float32]:
    """Return mean logits over the draws, shape (H, N), float32; NaN for rows that are not readable."""
    features = FeatureSet([part])
    blocks = sorted({block for head in heads for block in head.card.blocks})
    networks = [head.network.to(device).eval() for head in heads]
    draws = part.cache.shape.draws
    logits = np.full((len(heads), part.cache.shape.images), np.nan, np.float32)  # (H, N)
    with progress(f"score {part.cache.path.stem}", len(features), "images") as bar:
        for start in range(0, len(features), _ROWS_AT_ONCE):
            indices = np.arange(start, min(start + _ROWS_AT_ONCE, len(features)))  # (n,)
            total = np.zeros((len(heads), len(indices)), np.float64)  # (H, n)
            for draw in range(draws):
                # Each block that some head reads is read once, whatever the number of heads.
                tokens = features.tokens(indices, blocks, draw).to(device)  # (n, K', D)
                embedding = features.embedding(indices, draw).to(device)  # (n, E)
                for index, (head, network) in enumerate(zip(heads, networks, strict=True)):
                    inputs = _select(head, blocks, tokens, embedding)
                    total[index] += network(inputs).logit.cpu().numpy()
            _refuse_not_finite(total, heads)
            logits[:, part.rows[indices]] = total / draws
            bar.advance(len(indices))
    return logits


def _refuse_not_finite(logits: NDArray[np.float64], heads: Sequence[Head]) -> None:
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if bad.size:
        card = heads[bad[0]].card
        raise HeadError(f"head {card.method} (seed {card.seed}) gives logits that are not finite; train it again")


def _select(head: Head, blocks: list[int], tokens: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
    """Pick what a head reads: the embedding (n, E), or its blocks of the tokens (n, K', D)."""
    if not head.card.blocks:
        return embedding  # (n, E)
    if list(head.card.blocks) == blocks:
        return tokens  # (n, K', D)
    return tokens[:, [blocks.index(block) for block in head.card.blocks]]  # (n, K', D)


def _describe(head: Head) -> dict[str, Any]:
    return {
        "method": head.card.method,
        "seed": head.card.seed,
        "fingerprint": head.fingerprint,
        "training_fingerprint": head.card.training_fingerprint,
        "trainable_parameters": head.trainable_parameters,
        "passes": head.card.passes.model_dump(),
        "validation_loss": head.card.validation.get("loss"),
        "calibration": None if head.card.calibration is None else head.card.calibration.model_dump(mode="json"),
    }
