"""Extraction: every image of a manifest through the frozen encoder, once, into a sealed cache.

`read_ahead` reads and decodes in threads, a few batches ahead; `slab_filler` encodes, or copies what was encoded
before; here the two are put together, slab by slab. Batches have one fixed shape and slabs are whole numbers of
batches, so that interruptions change no byte of the result.
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

from rine_cache.cache import CacheIdentity, CacheShape, FeatureCache, SealedRows, open_writer
from rine_cache.errors import CacheCorruptError, CacheMismatchError, CacheUnsealedError, RineCacheError
from rine_cache.images import decoder_version
from rine_cache.progress import progress
from rine_cache.provenance import fingerprint
from rine_cache.quarantine import Reason
from rine_cache.read_ahead import ReadAhead
from rine_cache.slab_filler import SlabFiller
from rine_cache.specs.encoding import CACHE_SCHEMA_VERSION
from rine_cache.views import libraries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rine_cache.manifest import Manifest
    from rine_cache.slab_filler import AnyEncoder
    from rine_cache.specs.encoding import Tap, ViewSpec

LOG = logging.getLogger(__name__)

# A slab is what an interruption can cost, and what is flushed to disk at once.
BATCHES_PER_SLAB = 4


class ParentGoneError(RineCacheError):
    """The process that started an extraction has died; what was written is kept."""


@dataclass(frozen=True)
class ExtractionReport:
    """What an extraction did.

    `encoded` counts the images that this run put through the encoder, `copied` those whose content was encoded
    before; `quarantined` all images of the cache, by reason; `conflicts` pairs of image ids that hold the same bytes
    under two labels.
    """

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
        "batch_size": encoder.batch_size,
    }


def extract(
    manifest: Manifest,
    encoder: AnyEncoder,
    *,
    tap: Tap,
    view: ViewSpec,
    output: Path,
    workers: int,
    reuse: Sequence[Path] = (),
    parent: int | None = None,
) -> ExtractionReport:
    """Encode every image of a manifest into a sealed cache at `output`.

    Interrupted at any moment and run again, it goes on from the first slab that is not done, and the sealed
    file is the same, byte for byte. A sealed cache of the same key and manifest is left as it is.

    Parameters
    ----------
    manifest
        The images; their files lie below its root.
    encoder
        The frozen image tower.
    tap
        Which of its taps to keep.
    view
        How an image becomes crops; its size must be the encoder's.
    output
        Path of the cache.
    workers
        Threads that read and decode.
    reuse
        Caches whose rows are copied for images of the same content, where they are sealed and of the same encoding
        key; others are passed over. `output` itself may be one of them: a data set that grew.
    parent
        Number of the process that started this one, if extraction is to stop once that has died, so that no orphan
        goes on writing.

    Raises
    ------
    CacheError
        If the cache is being written by another process, its part file was begun for something else, or the
        disk refuses.
    ManifestError
        If the folder of the images has gone.
    ParentGoneError
        If the process `parent` is no longer this one's parent.
    """
    if view.size != encoder.image_size:
        raise CacheMismatchError(
            f"the view's crops have {view.size} pixels a side, {encoder.identity['architecture']} takes "
            f"{encoder.image_size}; use a view of that size"
        )
    kind = encoder.device.partition(":")[0]  # cuda, whichever of them: another may go on with the file
    identity = CacheIdentity(encoding_key(encoder, tap, view), manifest.listing_digest, _library_versions(), kind)
    if _is_done(output, identity):
        LOG.info("%s is sealed and up to date: nothing to do", output)
        with contextlib.suppress(PermissionError):  # another user's cache is as good
            os.utime(output)  # for tools that compare times, it is as new as its manifest
        return _report(FeatureCache(output), manifest, encoded=0, copied=0)
    sealed = SealedRows(reuse, fingerprint(identity.key))
    shape = CacheShape(
        blocks=encoder.block_count,
        images=len(manifest),
        draws=view.draws,
        width=encoder.width,
        embedding_width=encoder.embedding_width,
        slab_rows=BATCHES_PER_SLAB * encoder.batch_size,
    )
    guard = _ParentGuard(parent)
    with open_writer(output, shape, identity) as writer:
        pending = writer.pending_slabs()
        left = sum(shape.rows(slab).stop - shape.rows(slab).start for slab in pending)
        if left < len(manifest):
            LOG.info("resuming %s: %d of %d images are done", output, len(manifest) - left, len(manifest))
        filler = SlabFiller(encoder, tap, writer, set(range(shape.slabs)) - set(pending))
        with (
            progress(f"extract {output.stem}", len(manifest), "images", len(manifest) - left) as bar,
            ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool,
            ReadAhead(pool, manifest, view, encoder.batch_size, sealed) as reader,
        ):
            batches = reader.batches([shape.rows(slab) for slab in pending])
            for slab in pending:
                filler.begin(slab)
                for _ in range(0, shape.rows(slab).stop - shape.rows(slab).start, encoder.batch_size):
                    guard.check()
                    images = next(batches)
                    filler.add(images)
                    bar.advance(len(images))
                writer.write(slab, filler.finish())
        writer.seal()
    return _report(FeatureCache(output), manifest, encoded=filler.encoded, copied=filler.copied)


def _is_done(output: Path, identity: CacheIdentity) -> bool:
    """Say whether a sealed cache of this very key and manifest is there; one of another is replaced at the end."""
    if not output.exists():
        return False
    try:
        found = FeatureCache(output).identity
    except (
        CacheCorruptError,
        CacheMismatchError,
        CacheUnsealedError,
    ) as error:  # any other file is not ours to replace
        LOG.warning("%s; it is extracted again", error)
        return False
    if (found.key, found.manifest_digest) == (identity.key, identity.manifest_digest):
        return True
    LOG.info("%s was made from another key or manifest; it is replaced when the new one is sealed", output)
    return False


def _report(cache: FeatureCache, manifest: Manifest, *, encoded: int, copied: int) -> ExtractionReport:
    reasons = Counter(Reason(value).name.lower() for value in cache.reason if value)
    conflicts = _label_conflicts(cache, manifest)
    for first, second in conflicts[:5]:
        LOG.warning("conflict: %s and %s hold the same bytes under two labels", first, second)
    if len(conflicts) > 5:
        LOG.warning("conflict: %d more images hold another's bytes under another label", len(conflicts) - 5)
    return ExtractionReport(len(manifest), encoded, copied, dict(sorted(reasons.items())), conflicts)


def _label_conflicts(cache: FeatureCache, manifest: Manifest) -> list[tuple[str, str]]:
    """Pair each image with the first of the same bytes that has the other label."""
    rows = np.flatnonzero(cache.readable)  # (n,)
    content = np.ascontiguousarray(cache.content_sha256[rows]).view("V32").reshape(-1)  # (n,)
    _, first, group = np.unique(content, return_index=True, return_inverse=True)
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
