"""How well one simple fact of a file tells fake from real: what a detector could learn instead of looking."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
from sklearn.metrics import roc_auc_score

if TYPE_CHECKING:
    from collections.abc import Sequence

# By name, as an expression over an audit's columns. The first four, texts and truth values, are categories; the others
# are ordered.
FACTS: dict[str, pl.Expr] = {
    "format": pl.col("format"),
    "mode": pl.col("mode"),
    "EXIF": pl.col("exif"),
    "width x height": pl.format("{} x {}", "width", "height"),
    "width": pl.col("width"),
    "height": pl.col("height"),
    "short side": pl.min_horizontal("width", "height"),
    "aspect": pl.col("width") / pl.col("height"),
    "file size": pl.col("file_size"),
    "bytes per pixel": pl.col("bytes_per_pixel"),
    "JPEG quality": pl.col("jpeg_quality"),
}


def fact_aucs(images: pl.DataFrame) -> dict[str, float | None]:
    """Measure the AUC of each of `FACTS` alone, on the images given: in-sample, nothing is held out.

    Ordered facts rank the images by value, in whichever direction serves; ties count half. Categories rank by their
    share of fakes; those of a single image are taken together, or each would give its own image away.

    Parameters
    ----------
    images
        Rows of an audit that could be read.

    Returns
    -------
    From .5, no better than chance, to 1. None where a class has no image with that fact: JPEG quality compares JPEGs.
    """
    facts = images.select("label", **FACTS)
    return {name: _auc(facts.select("label", fact=name).drop_nulls()) for name in FACTS}


def _auc(images: pl.DataFrame) -> float | None:
    if images["label"].n_unique() < 2:
        return None
    score: Sequence[float] | pl.Series = images["fact"]
    if not images["fact"].dtype.is_numeric():
        pooled = pl.when(pl.len().over("fact") > 1).then(pl.col("fact").cast(pl.String))
        score = images.with_columns(pooled).select(pl.col("label").mean().over("fact")).to_series()
    auc = float(roc_auc_score(images["label"].to_numpy(), score))
    return max(auc, 1 - auc)
