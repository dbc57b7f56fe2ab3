"""What a pack holds: caches and manifests, checked to the last byte, and hashed as they are copied."""

from __future__ import annotations

import contextlib
import hashlib
import io
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from rine_cache.cache import FeatureCache, merge_shards
from rine_cache.errors import CacheCorruptError, CacheMismatchError
from rine_cache.files import refusals_told
from rine_cache.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rine_cache.manifest import Manifest
    from rine_cache.packs.index import PackedCache, PackIndex
    from rine_cache.progress import Progress

_MEGABYTE = 10**6


class PackContent(NamedTuple):
    """A cache of a pack, and what the file itself says once every byte of it is checked."""

    file: PackedCache
    images: int
    quarantined: int
    key: dict[str, Any]  # its encoding key
    listed_as: dict[str, Any]  # what its manifest was listed by: root, layout and the like


def checked(path: Path, file: PackedCache, manifest_path: Path, manifest: Manifest) -> PackContent:
    """Check every byte of a cache, and that it is what the pack's index says.

    Raises
    ------
    CacheError
        If it is unsealed or damaged, or is not of this manifest, tap and encoding.
    """
    cache = FeatureCache(path)
    cache.require_manifest(manifest.listing_digest, manifest_path)
    key = cache.identity.key
    said = (file.tap, file.encoding_fingerprint, file.manifest_digest)
    if said != (key["tap"], cache.fingerprint, cache.identity.manifest_digest):
        raise CacheMismatchError(
            f"{path} is of tap {key['tap']}, encoding {cache.fingerprint[:12]} and manifest "
            f"{cache.identity.manifest_digest[:12]}, not of {said[0]}, {said[1][:12]} and {said[2][:12]}"
        )
    if faults := cache.damage():
        raise CacheCorruptError(faults[0])
    quarantined = cache.shape.images - int(cache.readable.sum())
    return PackContent(file, cache.shape.images, quarantined, key, manifest.listed_as or {"root": str(manifest.root)})


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def one_file(path: Path, beside: Path) -> Iterator[Path]:
    """Give a cache as one file: a sharded one is merged for the time being, in a folder of its own in `beside`.

    Raises
    ------
    CacheError
        If it is unsealed or damaged.
    OutputError
        If the disk refuses.
    """
    cache = FeatureCache(path)
    if len(cache.files) == 1:
        yield cache.files[0]
        return
    with refusals_told(beside):
        beside.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=".rine-cache-", dir=beside)
    with folder as name:
        whole = Path(name) / path.name
        merge_shards(cache, whole)
        yield whole


class Meter:
    """Shows bytes in whole megabytes, rounded up."""

    def __init__(self, bar: Progress) -> None:
        self._bar, self._bytes = bar, 0

    def count(self, read: int) -> None:
        """Record that so many more bytes are done."""
        self._bar.advance(_megabytes(self._bytes + read) - _megabytes(self._bytes))
        self._bytes += read


class Metered(io.RawIOBase):
    """A file that is hashed, and its progress shown, as it is read."""

    def __init__(self, source: IO[bytes], meter: Meter) -> None:
        self._source, self._meter, self._running = source, meter, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes."""
        block = self._source.read(size)
        self._running.update(block)
        self._meter.count(len(block))
        return block

    @property
    def sha256(self) -> str:
        """The sha256 of what was read so far."""
        return self._running.hexdigest()


@contextlib.contextmanager
def metered(what: str, index: PackIndex) -> Iterator[Meter]:
    """Show progress over the bytes of a pack's files."""
    with progress(what, _megabytes(sum(file.size for file in index.files)), "MB") as bar:
        yield Meter(bar)


def _megabytes(size: int) -> int:
    return -(-size // _MEGABYTE)
