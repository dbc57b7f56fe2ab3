"""Merging: a sharded cache as the one file that it stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rine_cache.cache.writer import open_writer
from rine_cache.errors import CacheCorruptError

if TYPE_CHECKING:
    from pathlib import Path

    from rine_cache.cache.reader import FeatureCache


def merge_shards(cache: FeatureCache, path: Path) -> None:
    """Write a cache's rows to one file at `path`: the bytes that extracting it in one piece would have given.

    Raises
    ------
    CacheError
        If a slab of it is damaged, or the disk refuses.
    """
    with open_writer(path, cache.shape, cache.identity) as writer:
        for slab in writer.pending_slabs():
            content = cache.read_slab(slab)
            if content is None:
                raise CacheCorruptError(
                    f"{cache.path} is damaged: slab {slab}; `rine-cache verify {cache.path}` says what to delete"
                )
            writer.write(slab, content)
            cache.forget_pages()
        writer.seal()
