"""The index of a pack: which files it holds, where they belong, and their bytes' digests."""

from __future__ import annotations

import contextlib
import json
import tarfile
from typing import IO, TYPE_CHECKING, Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from rine_cache.errors import CacheCorruptError, CacheError, CacheMismatchError
from rine_cache.specs.base import Name, Spec, parse
from rine_cache.specs.encoding import Tap

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INDEX = "rine-cache-pack.json"
FORMAT_VERSION: Literal[1] = 1
_LARGEST_INDEX = 2**26  # bytes; far more than any pack has

_Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class PackedManifest(Spec):
    """A manifest in a pack: the data set's name, and the file's size in bytes and digest."""

    kind: Literal["manifest"] = "manifest"
    dataset: Name
    size: int = Field(ge=0)
    sha256: _Digest

    @property
    def path(self) -> str:
        """Its place below the results folder, and its name in the tar."""
        return f"manifests/{self.dataset}.parquet"


class PackedCache(Spec):
    """A sealed cache in a pack: the names its place is made of, the file's size and digest, and what it was made from.

    `manifest_digest` is that of the manifest's listing, as the cache itself keeps it.
    """

    kind: Literal["cache"] = "cache"
    encoder: Name
    tap: Tap
    view: Name
    dataset: Name
    size: int = Field(ge=0)
    sha256: _Digest
    encoding_fingerprint: _Digest
    manifest_digest: _Digest

    @property
    def path(self) -> str:
        """Its place below the results folder, and its name in the tar."""
        return f"features/{self.encoder}/{self.tap}/{self.view}/{self.dataset}.h5"


class PackIndex(Spec):
    """What a pack holds, in the order in which it lies in the tar."""

    format: Literal["rine-cache pack"] = "rine-cache pack"
    format_version: Literal[1] = FORMAT_VERSION
    code_version: str
    files: tuple[Annotated[PackedManifest | PackedCache, Field(discriminator="kind")], ...] = Field(min_length=1)

    @property
    def manifests(self) -> list[PackedManifest]:
        """The manifests."""
        return [file for file in self.files if isinstance(file, PackedManifest)]

    @property
    def caches(self) -> list[PackedCache]:
        """The caches."""
        return [file for file in self.files if isinstance(file, PackedCache)]

    @model_validator(mode="after")
    def _belongs_together(self) -> PackIndex:
        paths = [file.path for file in self.files]
        for path in paths:
            if paths.count(path) > 1:
                raise ValueError(f"{path} stands twice in it")
        listed = {manifest.dataset for manifest in self.manifests}
        for cache in self.caches:
            if cache.dataset not in listed:
                raise ValueError(f"{cache.path} has no manifest in it")
        return self


@contextlib.contextmanager
def opened(pack: Path) -> Iterator[tarfile.TarFile]:
    """Open a pack, and say what is wrong with it where reading fails.

    Raises
    ------
    CacheError
        If it is not there, cannot be read, or is no plain tar.
    """
    with contextlib.ExitStack() as stack:
        try:
            tar = stack.enter_context(tarfile.open(pack, "r:"))
        except OSError as error:
            raise CacheError(f"cannot read the pack {pack}: {error.strerror or error}") from None
        except tarfile.ReadError as error:
            raise _foreign(pack, str(error)) from None
        try:
            yield tar
        except tarfile.ReadError as error:
            raise altered(pack, str(error)) from None


def _foreign(pack: Path, why: str) -> CacheError:
    return CacheError(f"{pack} is not a pack, or is damaged ({why}); give a file made with `rine-cache export`")


def altered(pack: Path, why: str) -> CacheCorruptError:
    """Return the error that refuses a pack whose bytes are not those that were written."""
    return CacheCorruptError(f"{pack} is cut short or was altered: {why}; get it again")


def read_index(tar: tarfile.TarFile, pack: Path) -> PackIndex:
    """Read the index of a pack that was just opened.

    Raises
    ------
    CacheError
        If it is no pack, was altered, or is of a later format version.
    ConfigError
        If the index names what no pack may hold.
    """
    member = tar.next()
    if member is None or member.name != INDEX or member.type != tarfile.REGTYPE or member.size > _LARGEST_INDEX:
        raise _foreign(pack, f"it does not begin with {INDEX}")
    text = contents_of(tar, member).read()
    try:
        data = json.loads(text)
    except ValueError:
        raise altered(pack, "its index does not parse") from None
    version = data.get("format_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise CacheMismatchError(
            f"{pack} has format version {version}, this code reads {FORMAT_VERSION}; install a newer rine-cache"
        )
    return parse(PackIndex, data, f"the index of {pack}")


def contents_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    """Open a member that is a regular file."""
    source = tar.extractfile(member)
    assert source is not None, "a regular file has contents"
    return source
