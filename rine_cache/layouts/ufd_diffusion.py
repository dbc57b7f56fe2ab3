"""UniversalFakeDetect's diffusion test sets (arXiv:2302.10174): fakes of eight settings, reals of two sources.

As published, the reals lie in ``imagenet/0_real`` and ``laion/0_real``. Some copies hold them in every generator's
folder instead: these are ImageNet's below ``guided`` and LAION's below the others, and each is listed once.
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
    """Yield an entry or a stray for each image; of a real that several folders hold, one entry.

    Reals of one source with the same file name and size are the same image. The one in the source's own folder is
    listed or, where it is not there, that of the first folder by name.
    """
    listed: set[tuple[str, str, int]] = set()
    copies: list[Entry] = []
    for item in TREE.place(root, files):
        if isinstance(item, Entry) and item.label == REAL:
            if _lies_with_a_generator(item):
                copies.append(item)
                continue
            listed.add(_identity(item))
        yield item
    for item in sorted(copies):
        if _identity(item) in listed:
            yield Stray(item.image_id, f"copies of {item.subset}'s real images", item.subset, item.split)
        else:
            listed.add(_identity(item))
            yield item


def _lies_with_a_generator(item: Entry) -> bool:
    return any(TREE.subset_named(folded(folder)) in SOURCE_OF for folder in item.image_id.split("/")[:-1])


def _identity(item: Entry) -> tuple[str, str, int]:
    return item.subset, item.image_id.rpartition("/")[2], item.size


LAYOUT = tree_layout(
    "UniversalFakeDetect's diffusion sets: eight generators' 1_fake, imagenet/0_real and laion/0_real",
    TREE,
    (
        *(Part(REAL, source, "test") for source in SOURCES),
        *(Part(FAKE, generator, "test") for generator in SOURCE_OF),
    ),
    place,
)
