"""Miniature twins of data sets whose images lie inside other files, with the published names and columns."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

HUB_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
OPENSDID_SHARDS = {"train": {"sd15": 3}, "test": {"sd15": 2, "sd2": 1, "sdxl": 1, "sd3": 1, "flux": 1}}


def png(seed: int, side: int = 40) -> bytes:
    """Make a small image unlike any of another seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    return encoded(pixels, "PNG")


def encoded(pixels: np.ndarray[Any, Any], file_format: str) -> bytes:
    """Encode (H, W, 3) uint8 pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format)
    return buffer.getvalue()


def hub_images(contents: Iterable[bytes | None], names: Iterable[str | None]) -> pa.Array:
    """Make the struct column that the Hugging Face hub keeps images in."""
    pairs = zip(contents, names, strict=True)
    return pa.array([{"bytes": content, "path": name} for content, name in pairs], HUB_IMAGE)


def hub_schema(table: pa.Table, label: str, classes: Sequence[str]) -> pa.Table:
    """Say in a table's schema what the numbers of its label column mean, as `datasets` does."""
    features = {label: {"names": list(classes), "_type": "ClassLabel"}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write_parquet(path: Path, columns: Mapping[str, Any], rows_per_group: int = 100) -> Path:
    """Write a Parquet file of these columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(columns)), path, row_group_size=rows_per_group)
    return path


def opensdid_shard(path: Path, subset: str, reals: int, fakes: int, seed: int, rows_per_group: int = 3) -> None:
    """Write one OpenSDID file: reals first, then global and partial fakes by turns."""
    keys = [f"{subset}/real/{seed:03d}{index:06d}.jpg" for index in range(reals)]
    kinds = ("global", "partial")
    keys += [f"{kinds[index % 2]}/{subset}/fake/{seed:03d}{index:06d}.jpg" for index in range(fakes)]
    contents = [png(1000 * seed + index) for index in range(len(keys))]
    mask = encoded(np.zeros((8, 8, 3), np.uint8), "PNG")
    columns = {
        "key": pa.array(keys),
        "image": hub_images(contents, [key.rpartition("/")[2] for key in keys]),
        "mask": hub_images([mask] * len(keys), [None] * len(keys)),
        "label": pa.array([0] * reals + [1] * fakes, pa.int64()),
    }
    write_parquet(path, columns, rows_per_group)


def opensdid(root: Path, per_class: int = 4, shards: Mapping[str, Mapping[str, int]] | None = None) -> Path:
    """Write OpenSDI_train and OpenSDI_test; rows are sorted by label over each subset's files, as published."""
    seed = 0
    for split, subsets in (shards or OPENSDID_SHARDS).items():
        for subset, count in subsets.items():
            for number in range(count):
                path = root / f"OpenSDI_{split}" / "data" / f"{subset}-{number:05d}-of-{count:05d}.parquet"
                first, last = number < count / 2, number >= (count - 1) / 2
                seed += 1
                opensdid_shard(path, subset, per_class if first else 0, per_class if last else 0, seed)
    return root


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], style: int = tarfile.PAX_FORMAT) -> Path:
    """Write an uncompressed tar of these members, in order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=style) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def webdataset(root: Path, per_shard: int = 4, shards: int = 2) -> Path:
    """Write shards of images with ``.cls`` beside them, real and fake by turns."""
    for shard in range(shards):
        members = []
        for index in range(per_shard):
            key = f"{shard:02d}{index:04d}"
            members += [(f"{key}.png", png(100 * shard + index)), (f"{key}.cls", b"%d" % (index % 2))]
        write_tar(root / f"train-{shard:05d}-of-{shards:05d}.tar", members)
    return root


def parquet_folder(root: Path, per_class: int = 4, classes: Sequence[str] = ("fake", "real")) -> Path:
    """Write a folder as the hub has it, whose label numbers are `classes` in their order."""
    labels = [0] * per_class + [1] * per_class
    for number, split in enumerate(("train", "test")):
        contents = [png(500 + 100 * number + index) for index in range(2 * per_class)]
        names = [f"{split}_{index}.png" for index in range(2 * per_class)]
        table = pa.table({"image": hub_images(contents, names), "label": pa.array(labels, pa.int64())})
        path = root / "data" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(hub_schema(table, "label", classes), path, row_group_size=3)
    return root


def table(root: Path, per_class: int = 4) -> Path:
    """Write images and ``images.csv``, which names them; returns the table's path."""
    lines = ["path,label,generator,split,group,prompt"]
    for index in range(2 * per_class):
        name = f"images/{index:03d}.png"
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(900 + index))
        label, generator = ("fake", "glide") if index % 2 else ("real", "coco")
        lines.append(f'{name},{label},{generator},test,g{index // 2},"a prompt, with a comma"')
    path = root / "images.csv"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path
