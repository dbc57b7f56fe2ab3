"""Audits made by hand, for tests of what is found in them."""

from __future__ import annotations

from typing import Any

import polars as pl

from rine_cache.audit import SCHEMA, Audit

# A hash with 32 bits set, as an image's is that is not flat.
HASH = 0x00000000FFFFFFFF
PNG = {"subset": "all", "format": "PNG", "mode": "RGB", "exif": False, "width": 256, "height": 256, "file_size": 90_000}


def moved(word: int, bits: int) -> int:
    """Swap `bits` of the set bits with as many that are not: the distance is twice that."""
    for bit in range(bits):
        word ^= 1 << bit | 1 << (63 - bit)
    return word


def made_audit(dataset: str, images: list[dict[str, Any]]) -> Audit:
    """Make an audit: of each image what is given, else `PNG`; contents are numbers, each its own by default."""
    rows = []
    for index, image in enumerate(images):
        row = {**dict.fromkeys(SCHEMA), **PNG, "image_id": f"{index}.png", "perceptual_hash": HASH + (index << 40)}
        row |= {"content": f"{dataset} {index}", **image}
        row["content_sha256"] = str(row.pop("content")).encode().ljust(32, b"\0")
        row["bytes_per_pixel"] = row["file_size"] / (row["width"] * row["height"])
        rows.append(row)
    header = {name: f"{name} of {dataset}" for name in ("manifest_digest", "content_digest", "encoding_fingerprint")}
    return Audit(
        {"dataset": dataset, **header, "crop_side": 224, "code_version": "0"}, pl.DataFrame(rows, schema=SCHEMA)
    )
