"""Packs: sealed caches with their manifests in one file, to carry to a machine that has none of the images.

A pack is a plain tar, uncompressed, since features hardly compress. Its first member, `rine-cache-pack.json`, is the
index: it names every other member with size and sha256. Manifests follow, then caches, each at its place below the
results folder. Places are made of names that are checked, never read as paths, so that a pack can write nowhere else.
Equal files give an equal pack.

`index` is what a pack says of itself, `content` how its files are checked, `writer` and `reader` make and use packs.
"""

from rine_cache.packs.content import PackContent
from rine_cache.packs.index import PackedCache
from rine_cache.packs.reader import Imported, read_pack
from rine_cache.packs.writer import write_pack

__all__ = ["Imported", "PackContent", "PackedCache", "read_pack", "write_pack"]
