"""Synthbuster (IEEE OJSP 2024): nine folders of fakes, and RAISE's photographs in a folder of that name.

There are no label folders. The reals' folder is one whose name begins with ``raise`` (``RAISEpng``, ``RAISE-1k``), with
``real`` before it or not.
"""

from __future__ import annotations

from rine_cache.layouts.entry import FAKE, REAL, Part
from rine_cache.layouts.named_folders import NamedFolders, named, tree_layout

GENERATORS = (
    *("dalle2", "dalle3", "firefly", "glide", "midjourney-v5"),
    *("stable-diffusion-1-3", "stable-diffusion-1-4", "stable-diffusion-2", "stable-diffusion-xl"),
)
_generator_named = named(dict.fromkeys(GENERATORS, ()))


def _subset_named(name: str) -> str | None:
    return "raise" if name.removeprefix("real").startswith("raise") else _generator_named(name)


LAYOUT = tree_layout(
    "Synthbuster: nine generators' folders and RAISE's (no label folders)",
    NamedFolders(
        _subset_named,
        ("test",),
        label_of=dict.fromkeys(GENERATORS, FAKE) | {"raise": REAL},
        label_folders=False,
    ),
    (Part(REAL, "raise", "test"), *(Part(FAKE, generator, "test") for generator in GENERATORS)),
)
