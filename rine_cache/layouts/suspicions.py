"""What looks wrong in a listing, from names and sizes alone: said to the user, and nothing is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from rine_cache.layouts.entry import FAKE, LABEL_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

# Below these, a number from the data set says little; above that share of endings, a format may give the class away.
_FEW_IMAGES = 50
_UNEQUAL = 10
_ENDINGS_DIFFER = 0.5


def suspicions(table: pl.DataFrame) -> list[str]:
    """Say what looks wrong in a listed data set, in sentences for people.

    Parameters
    ----------
    table
        The manifest's columns, one row per image.
    """
    return [*_classes(table), *_halves(table), *_endings(table), *_empty(table), *_in_both_classes(table)]


def _classes(table: pl.DataFrame) -> Iterator[str]:
    counts = dict(table.group_by("label").len().iter_rows())
    for label, name in enumerate(LABEL_NAMES):
        if label not in counts:
            yield f"there are no {name} images; a benchmark must pair it with another data set's"
        elif counts[label] < _FEW_IMAGES:
            yield f"only {counts[label]} {name} {'image' if counts[label] == 1 else 'images'}: intervals will be wide"
    if len(counts) == 2 and max(counts.values()) >= _UNEQUAL * min(counts.values()):
        yield f"classes are very unequal ({counts[0]:,} real, {counts[1]:,} fake): look at balanced accuracy and AUC"


def _halves(table: pl.DataFrame) -> Iterator[str]:
    """Warn of subsets that hold one class where others hold both: half copied, most likely."""
    sides = table.group_by("subset").agg(pl.col("label").unique().sort()).sort("subset")
    both = sides.filter(pl.col("label").list.len() == 2)
    fakes_alone = sides.filter(pl.col("label") == [FAKE])["subset"].to_list()
    if not both.is_empty() and fakes_alone:
        names = ", ".join(fakes_alone)
        yield f"no real images lie beside the fakes of {names}, though they do beside others: half copied?"


def _endings(table: pl.DataFrame) -> Iterator[str]:
    """Warn where file endings tell the classes apart: half their total variation distance or more."""
    ending = (
        pl.col("image_id").str.extract(r"(\.[^./]+)$").str.to_lowercase().replace(".jpeg", ".jpg").fill_null("none")
    )
    shares = (
        table.select("label", ending=ending)
        .group_by("label", "ending")
        .len()
        .with_columns(share=pl.col("len") / pl.col("len").sum().over("label"))
        .pivot("label", index="ending", values="share", sort_columns=True)
        .fill_null(0.0)
    )
    if shares.width < 3:
        return
    distance = float((shares["0"] - shares["1"]).abs().sum()) / 2
    if distance >= _ENDINGS_DIFFER:
        most = [shares.sort(label, descending=True)["ending"][0] for label in ("0", "1")]
        yield (
            f"file endings differ by class (real mostly {most[0]}, fake mostly {most[1]}): a detector may learn the "
            f"format; audit it, and test through center224-jpeg96 as well"
        )


def _empty(table: pl.DataFrame) -> Iterator[str]:
    empty = table.filter(pl.col("container").is_null() & (pl.col("size") == 0))
    if not empty.is_empty():
        yield f"{_files(empty.height)} without bytes, to be quarantined, e.g. {empty['image_id'][0]}"


def _in_both_classes(table: pl.DataFrame) -> Iterator[str]:
    named = table.filter(pl.col("container").is_null(), pl.col("size") > 0).select(
        "label", "size", name=pl.col("image_id").str.split("/").list.last()
    )
    both = named.group_by("name", "size").agg(pl.col("label").n_unique()).filter(pl.col("label") > 1)
    if not both.is_empty():
        first = both.sort("name")["name"][0]
        yield f"{_files(both.height)} of the same name and size in both classes, e.g. {first}: one image twice?"


def _files(count: int) -> str:
    return f"{count:,} {'file' if count == 1 else 'files'}"
