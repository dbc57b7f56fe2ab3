"""Extraction: every image of a manifest through frozen encoders, once, into sealed caches.

`decoding` reads and decodes in worker processes, some rows ahead; `slab_filler` encodes, or copies what was encoded
before, and writes; here they are put together. Several caches of one manifest (taps, views, encoders) come from one
pass over its files. Batches have one fixed shape and rows depend on nothing beside them, so that workers, shards and
interruptions change no byte of the result.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from rine_cache.cache import (
    CacheIdentity,
    CacheShape,
    FeatureCache,
    RowRange,
    SealedRows,
    open_writer,
    shard_path,
    shard_rows,
)
from rine_cache.decoding import Decoder
from rine_cache.errors import CacheCorruptError, CacheMismatchError, CacheUnsealedError, ConfigError, RineCacheError
from rine_cache.images import decoder_version
from rine_cache.progress import Waits, progress
from rine_cache.provenance import fingerprint
from rine_cache.quarantine import Reason
from rine_cache.slab_filler import SlabFiller, TapWriter
from rine_cache.specs.encoding import CACHE_SCHEMA_VERSION
from rine_cache.views import libraries

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from rine_cache.cache import CacheWriter
    from rine_cache.manifest import Manifest
    from rine_cache.slab_filler import AnyEncoder
    from rine_cache.specs.encoding import Tap, ViewSpec

LOG = logging.getLogger(__name__)

# A slab is what an interruption can cost, and what is flushed to disk at once; in batches of the encoder.
BATCHES_PER_SLAB = 4
# Images that are decoded before the encoder asks for them: whole batches, and a few for each worker.
BATCHES_AHEAD = 2
ROWS_AHEAD_PER_WORKER = 4


class ParentGoneError(RineCacheError):
    """The process that started an extraction has died; what was written is kept."""


@dataclass(frozen=True)
class Target:
    """A cache to be made.

    Attributes
    ----------
    encoder
        The frozen image tower. Targets of the same one share its passes.
    tap
        Which of its taps to keep.
    view
        How an image becomes crops; its size must be the encoder's.
    output
        Path of the cache.
    reuse
        Caches whose rows are copied for images of the same content, where they are sealed and of the same encoding
        key; others are passed over. `output` itself may be one of them: a data set that grew.
    """

    encoder: AnyEncoder
    tap: Tap
    view: ViewSpec
    output: Path
    reuse: Sequence[Path] = ()


@dataclass(frozen=True)
class ExtractionReport:
    """What an extraction did for one cache.

    `encoded` counts the images that this run put through the encoder, `copied` those whose content was encoded
    before; `quarantined` all images of the cache, by reason; `conflicts` pairs of image ids that hold the same bytes
    under two labels.
    """

    output: Path
    images: int
    encoded: int
    copied: int
    quarantined: dict[str, int]
    conflicts: list[tuple[str, str]]


def encoding_key(encoder: AnyEncoder, tap: Tap, view: ViewSpec) -> dict[str, Any]:
    """Return all that changes the numbers of one image (and nothing that does not).

    Workers, devices and shards are not in it; the manifest's digest guards which images stand in which rows.
    """
    return {
        "schema_version": CACHE_SCHEMA_VERSION,
        "encoder": encoder.identity,
        "tap": tap,
        "view": view.model_dump(mode="json"),
        "decoder": decoder_version(),
        "view_libraries": libraries(view),
        "compute_dtype": encoder.compute_dtype,
        "compiled": encoder.compiled,
        "batch_size": encoder.batch_size,
    }


def extract(
    manifest: Manifest,
    targets: Sequence[Target],
    *,
    workers: int,
    shard: tuple[int, int] | None = None,
    parent: int | None = None,
) -> list[ExtractionReport]:
    """Encode every image of a manifest, or a shard of them, into sealed caches.

    Interrupted at any moment and run again, it goes on from what is not done, and the sealed files are the same, byte
    for byte. A sealed cache of the same key and manifest is left as it is.

    Parameters
    ----------
    manifest
        The images; their files lie below its root. Each is read and decoded once, however many the targets.
    targets
        The caches to be made.
    workers
        Processes that read and decode.
    shard
        (i, S): make the i-th of S shards of each cache, i from 1; `rine_cache.cache.join_shards` makes them one.
    parent
        Number of the process that started this one, if extraction is to stop once that has died, so that no orphan
        goes on writing.

    Returns
    -------
    A report for each target, in their order.

    Raises
    ------
    CacheError
        If a cache is being written by another process, its part file was begun for something else, or the
        disk refuses.
    ConfigError
        If two targets have one output.
    ManifestError
        If the folder of the images has gone, or an image is not what was listed.
    ParentGoneError
        If the process `parent` is no longer this one's parent.
    """
    outputs = [target.output.resolve() for target in targets]
    if twice := next((path for path in outputs if outputs.count(path) > 1), None):
        raise ConfigError(f"two caches would be written to {twice}; give each an output of its own")
    plans = [_plan(manifest, target, shard) for target in targets]
    guard, waits = _ParentGuard(parent), Waits()
    fillers: dict[Path, SlabFiller] = {}
    with contextlib.ExitStack() as stack:
        missing = [plan for plan in plans if not plan.is_done()]
        writers = {
            plan.path: stack.enter_context(open_writer(plan.path, plan.shape, plan.identity)) for plan in missing
        }
        # Entered after the writers, so that its last slab is written before they are closed.
        writing = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="write"))
        views: list[ViewSpec] = []
        for taps_of_pass in _by_pass(missing):
            filler = _filler(taps_of_pass, views, writers, writing, waits)
            fillers |= dict.fromkeys((plan.path for plan in taps_of_pass), filler)
        name = targets[0].output.stem
        _fill(name, manifest, list(dict.fromkeys(fillers.values())), views, workers, guard, waits)
        for writer in writers.values():
            with waits("writing"):
                writer.seal()
    if fillers:
        _log_waits(waits)
    return [_report(plan, manifest, fillers.get(plan.path)) for plan in plans]


@dataclass(frozen=True)
class _Plan:
    """A target, and what its file, whole or a shard, will be."""

    target: Target
    path: Path
    rows: slice  # of the manifest
    shape: CacheShape
    identity: CacheIdentity

    def is_done(self) -> bool:
        """Say whether a sealed cache of this very key and these rows is there, or none is to be made.

        Another one is replaced at the end.
        """
        if not self.shape.images:
            LOG.info("%s has no row: there are fewer slabs than shards", self.path)
            return True
        if not self.path.exists():
            return False
        try:
            found = FeatureCache(self.path).identity
        except (
            CacheCorruptError,
            CacheMismatchError,
            CacheUnsealedError,
        ) as error:  # any other file is not ours to replace
            LOG.warning("%s; it is extracted again", error)
            return False
        wanted = self.identity
        if (found.key, found.manifest_digest, found.rows) == (wanted.key, wanted.manifest_digest, wanted.rows):
            LOG.info("%s is sealed and up to date: nothing to do", self.path)
            return True
        LOG.info("%s was made from another key or manifest; it is replaced when the new one is sealed", self.path)
        return False


def _plan(manifest: Manifest, target: Target, shard: tuple[int, int] | None) -> _Plan:
    encoder, view = target.encoder, target.view
    if view.size != encoder.image_size:
        raise CacheMismatchError(
            f"the view's crops have {view.size} pixels a side, {encoder.identity['architecture']} takes "
            f"{encoder.image_size}; use a view of that size"
        )
    slab_rows = max(1, BATCHES_PER_SLAB * encoder.batch_size // view.draws)
    rows = slice(0, len(manifest)) if shard is None else shard_rows(len(manifest), slab_rows, *shard)
    kind = encoder.device.partition(":")[0]  # cuda, whichever of them: another may go on with the file
    return _Plan(
        target,
        target.output if shard is None else shard_path(target.output, *shard),
        rows,
        CacheShape(
            blocks=encoder.block_count,
            images=rows.stop - rows.start,
            draws=view.draws,
            width=encoder.width,
            embedding_width=encoder.embedding_width,
            slab_rows=slab_rows,
        ),
        CacheIdentity(
            encoding_key(encoder, target.tap, view),
            manifest.listing_digest,
            _library_versions(),
            kind,
            RowRange(rows.start, len(manifest)),
        ),
    )


def _by_pass(plans: Sequence[_Plan]) -> list[list[_Plan]]:
    """Put the taps of one encoder and view together: one forward pass gives them all."""
    passes: list[list[_Plan]] = []
    for plan in plans:
        for others in passes:
            same_pass = plan.target.encoder is others[0].target.encoder and plan.target.view == others[0].target.view
            if same_pass and all(plan.target.tap != other.target.tap for other in others):
                others.append(plan)
                break
        else:
            passes.append([plan])
    return passes


def _union(rows: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.unique(np.concatenate(rows)) if rows else np.empty(0, np.int64)  # (n,)


def _filler(
    plans: Sequence[_Plan],
    views: list[ViewSpec],
    writers: Mapping[Path, CacheWriter],
    writing: ThreadPoolExecutor,
    waits: Waits,
) -> SlabFiller:
    """Make what fills the caches of one pass, adding its view to those that are decoded."""
    first = plans[0]
    if first.target.view not in views:
        views.append(first.target.view)
    taps = {
        plan.target.tap: TapWriter(
            writers[plan.path],
            frozenset(writers[plan.path].pending_slabs()),
            SealedRows(plan.target.reuse, fingerprint(plan.identity.key)),
        )
        for plan in plans
    }
    view = views.index(first.target.view)
    return SlabFiller(first.target.encoder, view, first.rows.start, taps, writing, waits)


def _fill(
    name: str,
    manifest: Manifest,
    fillers: Sequence[SlabFiller],
    views: Sequence[ViewSpec],
    workers: int,
    guard: _ParentGuard,
    waits: Waits,
) -> None:
    """Decode every row that a cache lacks, and hand it to the fillers that want it."""
    rows = _union([filler.pending_rows for filler in fillers])  # (n,)
    if not len(rows):
        return
    whole = len(_union([filler.rows for filler in fillers]))
    if len(rows) < whole:
        LOG.info("resuming: %d of %d images are done", whole - len(rows), whole)

    def wanted(row: int) -> list[int]:
        return sorted({filler.view for filler in fillers if filler.wants(row)})

    def still_wanted(row: int, content_sha256: bytes) -> list[int]:
        return sorted({filler.view for filler in fillers if filler.wants(row) and not filler.knows(content_sha256)})

    largest = max(filler.images_per_batch for filler in fillers)
    ahead = BATCHES_AHEAD * largest + ROWS_AHEAD_PER_WORKER * workers
    may_copy = any(filler.may_copy for filler in fillers)
    quarantined = 0
    with (
        progress(f"extract {name}", whole, "images", whole - len(rows)) as bar,
        Decoder(manifest, views, workers, ahead, wanted, still_wanted if may_copy else None) as decoder,
    ):
        decoded = decoder.rows(map(int, rows))
        while True:
            guard.check()
            with waits("decoding"):
                image = next(decoded, None)
            if image is None:
                break
            for filler in fillers:
                if filler.wants(image.row):
                    filler.add(image)
            if image.reason or any(image.view_reasons):
                quarantined += 1
                bar.note("quarantined", quarantined)
            bar.advance()
        for filler in fillers:
            filler.finish()


def _log_waits(waits: Waits) -> None:
    seconds = max(waits.elapsed, 1e-9)
    shares = ", ".join(f"{what} {waits.seconds[what] / seconds:.0%}" for what in ("decoding", "encoding", "writing"))
    LOG.info("took %d:%02d min; waited for %s of it", *divmod(round(seconds), 60), shares)


def _report(plan: _Plan, manifest: Manifest, filler: SlabFiller | None) -> ExtractionReport:
    if not plan.shape.images:
        return ExtractionReport(plan.path, 0, 0, 0, {}, [])
    cache = FeatureCache(plan.path)
    reasons = Counter(Reason(value).name.lower() for value in cache.reason if value)
    conflicts = _label_conflicts(cache, manifest, plan.rows.start)
    for first, second in conflicts[:5]:
        LOG.warning("conflict: %s and %s hold the same bytes under two labels", first, second)
    if len(conflicts) > 5:
        LOG.warning("conflict: %d more images hold another's bytes under another label", len(conflicts) - 5)
    encoded, copied = (filler.encoded, filler.copied) if filler else (0, 0)
    return ExtractionReport(plan.path, plan.shape.images, encoded, copied, dict(sorted(reasons.items())), conflicts)


def _label_conflicts(cache: FeatureCache, manifest: Manifest, first_row: int) -> list[tuple[str, str]]:
    """Pair each image with the first of the same bytes that has the other label."""
    rows = np.flatnonzero(cache.readable)  # (n,)
    content = np.ascontiguousarray(cache.content_sha256[rows]).view("V32").reshape(-1)  # (n,)
    _, first, group = np.unique(content, return_index=True, return_inverse=True)
    rows = rows + first_row
    earliest = rows[first[group]]  # (n,): the first row with the same bytes
    labels, image_ids = manifest.table["label"].to_numpy(), manifest.table["image_id"]
    odd = np.flatnonzero(labels[earliest] != labels[rows])
    return [(image_ids[int(earliest[at])], image_ids[int(rows[at])]) for at in odd]


class _ParentGuard:
    """Notices that the process which started this one has died: it is then adopted by another."""

    def __init__(self, parent: int | None) -> None:
        self._parent = parent

    def check(self) -> None:
        if self._parent is not None and os.getppid() != self._parent:
            raise ParentGoneError(
                "stopped, since the process that started this extraction has gone; run the same command again to go on"
            )


def _library_versions() -> dict[str, str]:
    names = ("rine-cache", "torch", "open_clip_torch", "h5py", "numpy", "pillow", "ImageHash")
    return {name: metadata.version(name) for name in names}
