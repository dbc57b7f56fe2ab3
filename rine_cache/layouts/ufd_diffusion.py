"""UniversalFakeDetect's diffusion test sets (arXiv:2302.10174): fakes of eight settings, reals of two sources.

As published, the reals lie in ``imagenet/0_real`` and ``laion/0_real``. Some copies hold them in every generator's
folder instead, or as well: these are ImageNet's below ``guided`` and LAION's below the others, and are listed once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rine_cache.layouts.entry import FAKE, REAL, Entry, Part, Stray
from rine_cache.layouts.named_folders import NamedFolders, folded, named, tree_layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

# The source of real images that each generator is tested against.
SOURCE_OF = {
    "guided": "imagenet",
    "ldm_200": "laion",
    "ldm_200_cfg": "laion",
    "ldm_100": "laion",
    "glide_100_27": "laion",
    "glide_50_27": "laion",
    "glide_100_10": "laion",
    "dalle": "laion",
}
SOURCES = ("imagenet", "laion")
TREE = NamedFolders(
    named(dict.fromkeys((*SOURCE_OF, *SOURCES), ())),
    ("test",),
    label_of=dict.fromkeys(SOURCES, REAL),
    real_subset=SOURCE_OF,
)


def place(root: Path, files: Iterable[tuple[str, int]]) -> Iterator[Entry | Stray]:
    """Yield an entry or a stray for each image; of a source's real images, those of one folder are listed.

    That is the folder that holds most of them; of equals the source's own, or else the first by name. Copies may have
    been renamed on the way, so that neither names nor sizes could tell them from others.
    """
    reals: dict[str, dict[str, list[Entry]]] = {source: {} for source in SOURCES}
    for item in TREE.place(root, files):
        if isinstance(item, Entry) and item.label == REAL:
            reals[item.subset].setdefault(item.image_id.rpartition("/")[0], []).append(item)
        else:
            yield item
    for source, folders in reals.items():
        for rank, folder in enumerate(sorted(folders, key=lambda name: _rank(name, folders[name]))):
            for item in folders[folder]:
                if rank == 0:
                    yield item
                else:
                    yield Stray(item.image_id, f"copies of {source}'s real images", source, item.split)


def _rank(folder: str, images: list[Entry]) -> tuple[int, bool, str]:
    with_a_generator = any(TREE.subset_named(folded(name)) in SOURCE_OF for name in folder.split("/"))
    return -len(images), with_a_generator, folder


LAYOUT = tree_layout(
    "UniversalFakeDetect's diffusion sets: eight generators' 1_fake, imagenet/0_real and laion/0_real",
    TREE,
    (
        *(Part(REAL, source, "test") for source in SOURCES),
        *(Part(FAKE, generator, "test") for generator in SOURCE_OF),
    ),
    place,
)
