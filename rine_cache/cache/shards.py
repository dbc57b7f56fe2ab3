"""Shards: files that hold successive rows of one cache, and the index that makes them one.

``X.h5`` is then a small HDF5 file whose external links ``1`` to ``S`` lead to ``X.shards/1-of-S.h5`` and so on, and
which knows the seal of each. A single shard is a whole cache, and ``X.h5`` a symbolic link to it.

Where a data set has fewer slabs than shards, some have no row, and no file.
Where the rows of a data set shift between shards, since it grew or shrank, a shard that is replaced stays as
``1-of-S.replaced.h5`` until all are joined: jobs that run later find in it the rows that are theirs now.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from typing import TYPE_CHECKING, NamedTuple

from rine_cache.cache.hdf5 import (
    INDEX,
    PART,
    SEALED,
    USER_BLOCK,
    create_index,
    read_bytes,
    read_layout,
    read_links,
    replaced_path,
    user_block,
)
from rine_cache.errors import CacheCorruptError, CacheError, CacheMismatchError
from rine_cache.files import flush_to_disk, reason, refusal

if TYPE_CHECKING:
    from pathlib import Path

    from rine_cache.cache.hdf5 import Layout


LOG = logging.getLogger(__name__)

_HEX_DIGITS = 64  # of a sha256


class Shard(NamedTuple):
    """A shard that an index names: where it is, and the digest in the seal that it must have."""

    path: Path
    seal: bytes


def shard_rows(images: int, slab_rows: int, number: int, count: int) -> slice:
    """Return the rows of shard `number`, from 1, of `count`: whole slabs, as evenly as they go.

    Where there are fewer slabs than shards, some have no row; the first never is one of them.
    """
    slabs = -(-images // slab_rows)
    start, stop = (min(-(-slabs * place // count) * slab_rows, images) for place in (number - 1, number))
    return slice(start, stop)


def shard_path(path: Path, number: int, count: int) -> Path:
    """Return where shard `number`, from 1, of `count` of a cache lies: ``X.h5`` has ``X.shards/2-of-4.h5``."""
    return path.with_suffix(".shards") / f"{number}-of-{count}.h5"


def remedy(file: Path) -> str:
    """Say what to delete and what to run where a file is damaged or lost: of a sharded cache, only one shard goes."""
    shard = re.fullmatch(r"(\d+)-of-(\d+)\.h5", file.name)
    if file.parent.suffix != ".shards" or shard is None:
        return f"delete {file} and extract it again, by `rine-cache extract` or snakemake"
    number, count = shard.groups()
    cache = file.parent.with_suffix(".h5")
    wrong = f"{file} and {cache}, which is joined from it, and no other shard" if file.exists() else str(cache)
    return (
        f"delete {wrong}; then run snakemake, or `rine-cache extract --out {cache} --shard {number}/{count}` with the "
        f"options of before and `rine-cache join {cache} --shards {count}`"
    )


def join_shards(path: Path, count: int) -> None:
    """Make one cache of `count` sealed shards; they stay where they are, in the folder beside it.

    Raises
    ------
    CacheError
        If a shard is missing or unsealed, they are not of one cache, or `path` is another file.
    """
    _refuse_foreign(path)
    first = _sealed_layout(shard_path(path, 1, count))
    images, slab_rows = first.identity.rows.total, first.shape.slab_rows
    seals = []
    for number in range(1, count + 1):
        rows = shard_rows(images, slab_rows, number, count)
        if rows.start == rows.stop:
            continue
        shard = shard_path(path, number, count)
        found = _sealed_layout(shard)
        wanted = first.identity._replace(rows=first.identity.rows._replace(first=rows.start))
        size = first.shape._replace(images=rows.stop - rows.start)
        # Libraries and devices may differ, as they may for the rows of one file that were copied.
        if found.identity._replace(libraries=wanted.libraries, device=wanted.device) != wanted or found.shape != size:
            raise CacheMismatchError(
                f"{shard} was made from another encoder, view or manifest than {shard_path(path, 1, count)}, or holds "
                "other rows; extract it again"
            )
        seals.append((number, read_bytes(shard, len(SEALED), _HEX_DIGITS)))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _link_or_index(path, temporary, first, seals, count)
        temporary.replace(path)
        flush_to_disk(path.parent)
    except OSError as error:
        raise CacheError(refusal(path, error)) from None
    finally:
        temporary.unlink(missing_ok=True)
    for number in range(1, count + 1):
        with contextlib.suppress(OSError):  # another join was first, or the folder cannot be written to
            replaced_path(shard_path(path, number, count)).unlink()


def is_joined(path: Path) -> bool:
    """Say whether the file at `path`, if there is one, stands for the shards in the folder beside it."""
    if path.is_symlink():
        return path.readlink().parent.name == shard_path(path, 1, 1).parent.name
    return path.is_file() and read_bytes(path, 0, len(INDEX)) == INDEX


def remove_shards(path: Path) -> None:
    """Delete the shards of a cache at whose path another file is now; what is still being written stays."""
    assert not is_joined(path), "a cache stands on its shards"
    folder = shard_path(path, 1, 1).parent
    try:
        for shard in folder.glob("*-of-*.h5"):
            shard.unlink()
        folder.rmdir()
    except OSError as error:
        LOG.warning("%s holds shards of the cache that was replaced (%s); delete them", folder, reason(error))


def _link_or_index(path: Path, temporary: Path, first: Layout, seals: list[tuple[int, bytes]], count: int) -> None:
    if count == 1:
        with contextlib.suppress(OSError):  # some file systems have no links; an index is read in the same way
            temporary.symlink_to(shard_path(path, 1, 1).relative_to(path.parent))
            return
    whole = first.shape._replace(images=first.identity.rows.total)
    links = {number: shard_path(path, number, count).relative_to(path.parent).as_posix() for number, _ in seals}
    create_index(temporary, whole, first.identity, count, links, [seal for _, seal in seals])
    with temporary.open("r+b") as raw:
        raw.write(user_block(INDEX, _digest_after_user_block(temporary)))
        raw.flush()
        os.fsync(raw.fileno())


def read_index(path: Path) -> list[Shard]:
    """Read which shards an index names, in the order of their rows.

    Raises
    ------
    CacheCorruptError
        If a byte of it is not what was written.
    """
    if user_block(INDEX, _digest_after_user_block(path)) != read_bytes(path, 0, USER_BLOCK):
        raise CacheCorruptError(
            f"{path} is damaged: its digest does not match; delete it, and join the shards again with `rine-cache join`"
        )
    count, seals = read_links(path)
    return [Shard(shard_path(path, number, count), seal) for number, seal in seals.items()]


def _sealed_layout(shard: Path) -> Layout:
    """Read what a shard says of itself, refusing one that is not sealed."""
    if not shard.is_file() or not read_bytes(shard, 0, len(SEALED)).startswith(SEALED):
        raise CacheError(f"no sealed shard at {shard}; make it with `rine-cache extract --shard`")
    return read_layout(shard)


def _refuse_foreign(path: Path) -> None:
    if path.is_file() and not read_bytes(path, 0, len(SEALED)).startswith((PART, SEALED, INDEX)):
        raise CacheError(f"{path} is not a rine-cache file; choose another path, or delete it")


def _digest_after_user_block(path: Path) -> bytes:
    running = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(USER_BLOCK)
        running.update(file.read())
    return running.digest()
