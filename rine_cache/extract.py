"""Extraction: every image of a manifest through frozen encoders, once, into sealed caches.

`extraction_plan` says which files are to be made; `decoding` reads and decodes in worker processes, some rows ahead;
`slab_filler` encodes, or copies what was encoded before, and writes; here they are put together. Several caches of one
manifest (taps, views, encoders) come from one reading of its files. Batches have one fixed shape and rows depend on
nothing beside them, so that workers, shards and interruptions change no byte of the result.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rine_cache.cache import FeatureCache, SealedRows, open_writer
from rine_cache.decoding import Decoder
from rine_cache.errors import RineCacheError
from rine_cache.extraction_plan import Target, by_pass, plan_extraction
from rine_cache.progress import Waits, progress
from rine_cache.provenance import fingerprint
from rine_cache.quarantine import Reason
from rine_cache.slab_filler import SlabFiller, TapWriter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from rine_cache.cache import CacheWriter
    from rine_cache.extraction_plan import Plan
    from rine_cache.manifest import Manifest
    from rine_cache.specs.encoding import ViewSpec

__all__ = ["ExtractionReport", "ParentGoneError", "Target", "extract"]

LOG = logging.getLogger(__name__)

# Images that are decoded before the encoder asks for them: whole batches, and a few for each worker.
BATCHES_AHEAD = 2
ROWS_AHEAD_PER_WORKER = 4


class ParentGoneError(RineCacheError):
    """The process that started an extraction has died; what was written is kept."""


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
    plans, waits = plan_extraction(manifest, targets, shard), Waits()
    fillers: dict[Path, SlabFiller] = {}
    with contextlib.ExitStack() as stack:
        missing = [plan for plan in plans if not plan.is_done()]
        writers = {
            plan.path: stack.enter_context(open_writer(plan.path, plan.shape, plan.identity)) for plan in missing
        }
        # Entered after the writers, so that its last slab is written before they are closed.
        writing = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="write"))
        views = list(dict.fromkeys(plan.target.view for plan in missing))
        for taps_of_pass in by_pass(missing):
            filler = _filler(taps_of_pass, views, writers, writing, waits)
            fillers |= dict.fromkeys((plan.path for plan in taps_of_pass), filler)
        name = targets[0].output.stem
        _fill(name, manifest, list(dict.fromkeys(fillers.values())), views, workers, parent, waits)
        for writer in writers.values():
            with waits("writing"):
                writer.seal()
    if fillers:
        _log_waits(waits)
    return [_report(plan, manifest, fillers.get(plan.path)) for plan in plans]


def _filler(
    plans: Sequence[Plan],
    views: Sequence[ViewSpec],
    writers: Mapping[Path, CacheWriter],
    writing: ThreadPoolExecutor,
    waits: Waits,
) -> SlabFiller:
    """Make what fills the caches of one pass, whose view is one of those that are decoded."""
    first = plans[0]
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
    parent: int | None,
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
            _stop_if_orphaned(parent)
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


def _union(rows: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.unique(np.concatenate(rows)) if rows else np.empty(0, np.int64)  # (n,)


def _stop_if_orphaned(parent: int | None) -> None:
    """Raise `ParentGoneError` if the process that started this one has died: another has adopted it then."""
    if parent is not None and os.getppid() != parent:
        raise ParentGoneError(
            "stopped, since the process that started this extraction has gone; run the same command again to go on"
        )


def _log_waits(waits: Waits) -> None:
    seconds = max(waits.elapsed, 1e-9)
    shares = ", ".join(f"{what} {waits.seconds[what] / seconds:.0%}" for what in ("decoding", "encoding", "writing"))
    LOG.info("took %d:%02d min; waited for %s of it", *divmod(round(seconds), 60), shares)


def _report(plan: Plan, manifest: Manifest, filler: SlabFiller | None) -> ExtractionReport:
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
