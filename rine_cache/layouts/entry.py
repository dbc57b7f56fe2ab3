"""The contract between layouts and manifests: one image of a data set."""

from __future__ import annotations

from typing import NamedTuple

REAL, FAKE = 0, 1


class Entry(NamedTuple):
    """One image.

    `image_id` is its path below the data set's root, with forward slashes; `label` 0 is real, 1 fake;
    `subset` a generator or a source of real images; `split` is train, val or test where the layout names one;
    `group` what it shares its content with, if known; `size` its file's size in bytes.
    """

    image_id: str
    label: int
    subset: str
    split: str | None
    group: str | None
    size: int
