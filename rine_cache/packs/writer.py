"""Writing packs."""

from __future__ import annotations

import contextlib
import io
import tarfile
from typing import TYPE_CHECKING, NamedTuple

from rine_cache.cache import FeatureCache
from rine_cache.errors import CacheError, ConfigError, ManifestError, OutputError, nearest
from rine_cache.files import written_whole
from rine_cache.manifest import read_manifest
from rine_cache.packs.content import Metered, PackContent, checked, metered, one_file, sha256_of
from rine_cache.packs.index import INDEX, PackedCache, PackedManifest, PackIndex, opened, read_index
from rine_cache.progress import progress
from rine_cache.provenance import canonical_json, code_version
from rine_cache.specs.base import parse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def write_pack(
    results: Path, output: Path, datasets: Sequence[str] = (), encoder: str = "", view: str = ""
) -> list[PackContent]:
    """Pack the sealed caches below a results folder with their manifests.

    Every byte of them is checked first. Memory does not grow with their size.

    Parameters
    ----------
    results
        The results folder.
    output
        The pack to write. One that is there is replaced once the new one is whole; no other file is.
    datasets, encoder, view
        Pack only the caches of these names; empty packs all.

    Returns
    -------
    What was packed, in the order of the pack.

    Raises
    ------
    ConfigError
        If no cache has such a name.
    CacheError
        If a cache is unsealed or damaged, or was made from another manifest than that of its data set.
    ManifestError
        If a cache has no manifest beside it, or an altered one.
    OutputError
        If the disk refuses, or `output` is there and is no pack.
    """
    _refuse_other_file(output)
    places = _chosen(results, datasets, encoder, view)
    manifests = [_packed_manifest(results, dataset) for dataset in sorted({place.dataset for place in places})]
    sources = {packed.path: results / packed.path for packed in manifests}
    caches = []
    contents = []
    with contextlib.ExitStack() as stack:
        with progress("check", len(places), "caches") as bar:
            for packed in manifests:
                path = results / packed.path
                manifest = read_manifest(path)
                for place in places:
                    if place.dataset == packed.dataset:
                        source = stack.enter_context(one_file(results / _path(place), output.parent))
                        caches.append(_packed_cache(source, place))
                        sources[caches[-1].path] = source
                        contents.append(checked(source, caches[-1], path, manifest))
                        bar.advance()
        _write(output, PackIndex(code_version=code_version(), files=(*manifests, *caches)), sources)
    return contents


def _write(output: Path, index: PackIndex, sources: Mapping[str, Path]) -> None:
    header = canonical_json(index.model_dump(mode="json")).encode()
    with (
        written_whole(output) as temporary,
        tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar,
        metered("pack", index) as meter,
    ):
        tar.addfile(_member(INDEX, len(header)), io.BytesIO(header))
        for file in index.files:
            with sources[file.path].open("rb") as source:
                hashed = Metered(source, meter)
                tar.addfile(_member(file.path, file.size), hashed)
            if hashed.sha256 != file.sha256:
                raise CacheError(f"{sources[file.path]} was changed while it was packed; run the same command again")


def _refuse_other_file(output: Path) -> None:
    """Refuse to replace what is no pack: a mistyped name must not cost someone an archive."""
    if not output.exists():
        return
    try:
        with opened(output) as tar:
            read_index(tar, output)
    except (CacheError, ConfigError):
        raise OutputError(f"{output} is there, no pack, and is not replaced; choose another name") from None


class _Place(NamedTuple):
    """The names that a cache's place below `features` is made of."""

    encoder: str
    tap: str
    view: str
    dataset: str


def _chosen(results: Path, datasets: Sequence[str], encoder: str, view: str) -> list[_Place]:
    """List the places of the caches asked for, sorted."""
    features = results / "features"
    # A cache that is still being written has only a part file: it is found here to be refused, not left out.
    # So is one whose shards are not joined.
    patterns = ("*.h5", "*.h5.part", "*.shards")
    found = [path for pattern in patterns for path in features.glob(f"*/*/*/{pattern}")]
    places = sorted({_place(path.relative_to(features)) for path in found})
    if not places:
        raise CacheError(f"no cache below {features}; make one with snakemake, or name the folder with --results")
    asked = {"dataset": datasets, "encoder": [encoder] if encoder else [], "view": [view] if view else []}
    for part, names in asked.items():
        known = {getattr(place, part) for place in places}
        for name in names:
            if name not in known:
                raise ConfigError(f"--{part} {name!r}: no such cache below {features}; {nearest(name, known)}")
        places = [place for place in places if not names or getattr(place, part) in names]
    return places


def _place(path: Path) -> _Place:
    encoder, tap, view, file = path.parts
    return _Place(encoder, tap, view, file.removesuffix(".part").removesuffix(".h5").removesuffix(".shards"))


def _packed_manifest(results: Path, dataset: str) -> PackedManifest:
    path = results / "manifests" / f"{dataset}.parquet"
    if not path.is_file():
        raise ManifestError(
            f"no manifest at {path} for the caches of {dataset}; bring back the one they were made from"
        )
    return parse(
        PackedManifest, {"dataset": dataset, "size": path.stat().st_size, "sha256": sha256_of(path)}, str(path)
    )


def _path(place: _Place) -> str:
    return f"features/{place.encoder}/{place.tap}/{place.view}/{place.dataset}.h5"


def _packed_cache(path: Path, place: _Place) -> PackedCache:
    cache = FeatureCache(path)
    facts = {
        **place._asdict(),
        "size": path.stat().st_size,
        "sha256": sha256_of(path),
        "encoding_fingerprint": cache.fingerprint,
        "manifest_digest": cache.identity.manifest_digest,
    }
    return parse(PackedCache, facts, str(path))


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)  # a new one has no owner and no time, and one mode: equal files, equal packs
    member.size = size
    return member
