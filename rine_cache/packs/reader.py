"""Reading packs: all of one is checked before any of it takes its place."""

from __future__ import annotations

import contextlib
import os
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from rine_cache.cache import FeatureCache, is_joined, remove_shards
from rine_cache.errors import CacheError, CacheMismatchError, ManifestError, OutputError
from rine_cache.files import refusals_told, written_whole
from rine_cache.manifest import read_manifest
from rine_cache.packs.content import Meter, Metered, PackContent, checked, metered, one_file, sha256_of
from rine_cache.packs.index import PackedCache, PackedManifest, PackIndex, altered, contents_of, opened, read_index
from rine_cache.progress import progress

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

    from rine_cache.manifest import Manifest

_BLOCK = tarfile.BLOCKSIZE
_MEGABYTE = 10**6


class Imported(NamedTuple):
    """What an import found and did: paths below the results folder, by what became of them."""

    contents: list[PackContent]
    new: list[str]
    replaced: list[str]
    kept: list[str]  # these bytes were there already


def read_pack(pack: Path, results: Path, *, replace: bool = False) -> Imported:
    """Unpack a pack's caches and manifests below a results folder, once all of it is found to be whole.

    Files take their places after every byte is checked; until then, and after any failure, the folder is as it was.
    Caches are made newer than their manifests, as Snakemake wants them. The shards of a cache that is replaced go last.

    Parameters
    ----------
    pack
        A file that `write_pack` made.
    results
        The results folder, made if it is not there.
    replace
        Whether files that are there with other bytes are replaced.

    Returns
    -------
    What it held, and what became of each file.

    Raises
    ------
    CacheError
        If `pack` is no pack, is cut short or was altered, or a cache there was made from another manifest.
    ConfigError
        If its index names what no pack may hold.
    OutputError
        If files are there with other bytes and `replace` is not set, or the disk refuses.
    """
    with opened(pack) as tar, contextlib.ExitStack() as stack:
        index = read_index(tar, pack)
        state = {file.path: _state(results / file.path, file) for file in index.files}
        differing = [path for path, found in state.items() if found == "replaced"]
        if differing and not replace:
            raise OutputError(
                f"{len(differing)} of the {len(index.files)} files in {pack} are in {results} with other bytes: "
                f"{', '.join(differing)}; nothing was written. Give other --results, or --replace to replace them"
            )
        joined = [results / path for path in differing if is_joined(results / path)]
        stack.enter_context(_new_folders_go_on_failure([results / path for path in state]))
        # Files take their places last in, first out: caches, then manifests, without which no cache is used.
        temporaries = {
            path: stack.enter_context(written_whole(results / path)) for path, found in state.items() if found != "kept"
        }
        with metered("unpack", index) as meter:
            _unpack(tar, pack, results, index, temporaries, meter)
        contents = _checked_pack(pack, results, index, temporaries)
        now = time.time()
        for file in index.files:
            if file.path in temporaries:
                os.utime(temporaries[file.path], (now, now - (file.kind == "manifest")))
    for replaced in joined:
        remove_shards(replaced)
    _make_newer_than_manifests(results, index, temporaries)
    by_state: dict[str, list[str]] = {"new": [], "replaced": [], "kept": []}
    for path, found in state.items():
        by_state[found].append(path)
    return Imported(contents, **by_state)


def _state(target: Path, file: PackedManifest | PackedCache) -> Literal["new", "replaced", "kept"]:
    """Say what becomes of a file, by what is in its place."""
    if not target.exists():
        return "new"
    if isinstance(file, PackedCache) and is_joined(target):
        same = _stands_for(target, file)
    else:
        same = target.is_file() and target.stat().st_size == file.size and sha256_of(target) == file.sha256
    return "kept" if same else "replaced"


def _stands_for(joined: Path, file: PackedCache) -> bool:
    """Say whether joined shards hold what a packed cache holds."""
    try:
        cache = FeatureCache(joined)
        if (cache.fingerprint, cache.identity.manifest_digest) != (file.encoding_fingerprint, file.manifest_digest):
            return False
        with one_file(joined, joined.parent) as whole:
            return sha256_of(whole) == file.sha256
    except CacheError:
        return False


@contextlib.contextmanager
def _new_folders_go_on_failure(targets: Sequence[Path]) -> Iterator[None]:
    missing = {folder for target in targets for folder in target.parents if not folder.exists()}
    try:
        yield
    except BaseException:
        for folder in sorted(missing, reverse=True):  # the deepest first
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _unpack(
    tar: tarfile.TarFile, pack: Path, results: Path, index: PackIndex, temporaries: Mapping[str, Path], meter: Meter
) -> None:
    """Read the whole pack, member by member as its index says, writing those that have a temporary path."""
    end = 0
    for file in index.files:
        member = tar.next()
        if member is None or (member.name, member.type, member.size) != (file.path, tarfile.REGTYPE, file.size):
            raise altered(pack, f"{file.path} is not where its index says")
        source = Metered(contents_of(tar, member), meter)
        with refusals_told(results / file.path), temporaries.get(file.path, Path(os.devnull)).open("wb") as copy:
            while block := source.read(_MEGABYTE):
                copy.write(block)
        if source.sha256 != file.sha256:
            raise altered(pack, f"{file.path} does not have the bytes that its index says")
        end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
    # A tar ends with two or more blocks of zeros.
    with pack.open("rb") as stream:
        stream.seek(end)
        rest = stream.read(2 * tarfile.RECORDSIZE)
    if len(rest) not in range(2 * _BLOCK, 2 * tarfile.RECORDSIZE) or any(rest):
        raise altered(pack, "it does not end after its last file")


def _checked_pack(pack: Path, results: Path, index: PackIndex, temporaries: Mapping[str, Path]) -> list[PackContent]:
    """Check each cache with its manifest, wherever the two are, and that no other cache loses its manifest."""
    contents = []
    with progress("check", len(index.caches), "caches") as bar:
        for packed in index.manifests:
            path = temporaries.get(packed.path, results / packed.path)
            try:
                manifest = read_manifest(path)
                for file in index.caches:
                    if file.dataset == packed.dataset:
                        contents.append(checked(temporaries.get(file.path, results / file.path), file, path, manifest))
                        bar.advance()
            except (CacheError, ManifestError) as error:
                why = str(error)
                for name, temporary in temporaries.items():
                    why = why.replace(str(temporary), name)
                raise CacheError(f"{pack} holds what cannot be used: {why}") from None
            if packed.path in temporaries:
                _refuse_orphans(pack, results, index, packed.dataset, manifest)
    return contents


def _refuse_orphans(pack: Path, results: Path, index: PackIndex, dataset: str, manifest: Manifest) -> None:
    """Refuse a manifest with which other caches that are there could not be read any more."""
    unpacked = {results / file.path for file in index.caches}
    for path in _caches_of(results, dataset):
        if path not in unpacked and FeatureCache(path).identity.manifest_digest != manifest.listing_digest:
            raise CacheMismatchError(
                f"{path} was made from other images or another order than the manifest of {dataset} in {pack}; "
                f"delete it, or give other --results"
            )


def _caches_of(results: Path, dataset: str) -> list[Path]:
    return sorted(results.glob(f"features/*/*/*/{dataset}.h5"))


def _make_newer_than_manifests(results: Path, index: PackIndex, written: Container[str]) -> None:
    """Touch caches that are older than their manifest, all of which fit it: they are not to be made again."""
    for packed in index.manifests:
        caches = [results / file.path for file in index.caches if file.dataset == packed.dataset]
        if packed.path in written:
            caches += _caches_of(results, packed.dataset)
        listed = (results / packed.path).stat().st_mtime_ns
        for path in caches:
            if path.stat().st_mtime_ns <= listed:
                with contextlib.suppress(OSError):  # another user's cache is as good, and one on a read-only disk
                    os.utime(path)
