"""Extraction: every image of a manifest through the frozen encoder, once, into a sealed cache.

Decoding runs in threads, a few batches ahead of the encoder. Batches have one fixed shape and slabs are whole
numbers of batches, so that interruptions change no byte of the result.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from rine_cache.cache import (
    CacheIdentity,
    CacheShape,
    FeatureCache,
    Slab,
    Status,
    open_writer,
)
from rine_cache.errors import CacheCorruptError, CacheMismatchError, CacheUnsealedError, ManifestError, RineCacheError
from rine_cache.images import decode, decoder_version
from rine_cache.progress import progress
from rine_cache.quarantine import Reason, UnreadableImageError
from rine_cache.specs.encoding import CACHE_SCHEMA_VERSION
from rine_cache.views import libraries, render

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from numpy.typing import NDArray

    from rine_cache.manifest import Manifest
    from rine_cache.specs.encoding import Tap, ViewSpec

LOG = logging.getLogger(__name__)

# A slab is what an interruption can cost, and what is flushed to disk at once.
BATCHES_PER_SLAB = 4
BATCHES_AHEAD = 2
_QUARANTINING_ERRORS = {FileNotFoundError: Reason.MISSING, PermissionError: Reason.FORBIDDEN}


class EncodedBatch(Protocol):
    """What an encoder gives for B crops: tokens by tap, each (K, B, D), and the embedding, (B, E)."""

    @property
    def tokens(self) -> dict[Tap, NDArray[np.float16]]:
        """Tokens by tap, each (K, B, D)."""
        ...

    @property
    def embedding(self) -> NDArray[np.float16]:
        """Embeddings, (B, E)."""
        ...


class AnyEncoder(Protocol):
    """What extraction asks of an encoder; `rine_cache.encoders.Encoder` is one."""

    identity: dict[str, Any]
    compute_dtype: str
    batch_size: int
    device: str
    block_count: int
    width: int
    embedding_width: int
    image_size: int

    def encode(self, crops: NDArray[np.uint8]) -> EncodedBatch:
        """Encode (B, size, size, 3) uint8 crops."""
        ...


class ParentGoneError(RineCacheError):
    """The process that started an extraction has died; what was written is kept."""


@dataclass(frozen=True)
class ExtractionReport:
    """What an extraction did.

    `encoded` counts the images this run read; `quarantined` all images of the cache, by reason; `conflicts`
    pairs of image ids that hold the same bytes under two labels.
    """

    images: int
    encoded: int
    quarantined: dict[str, int]
    conflicts: list[tuple[str, str]]


class _Rendered(NamedTuple):
    """One image read, decoded and rendered, or the reason why not."""

    image_id: str
    crops: NDArray[np.uint8] | None  # (V, S, S, 3)
    content_sha256: bytes
    width: int
    height: int
    format: str
    reason: Reason


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
        return _report(FeatureCache(output), manifest, encoded=0)
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
        encoded = sum(shape.rows(slab).stop - shape.rows(slab).start for slab in pending)
        if encoded < len(manifest):
            LOG.info("resuming %s: %d of %d images are done", output, len(manifest) - encoded, len(manifest))
        with (
            progress(f"extract {output.stem}", len(manifest), "images", len(manifest) - encoded) as bar,
            ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool,
        ):
            reader = _ReadAhead(pool, manifest, view, encoder.batch_size)
            batches = reader.batches([shape.rows(slab) for slab in pending])
            for slab in pending:
                rows = shape.rows(slab)
                content = Slab.empty(shape, rows.stop - rows.start)
                for start in range(0, rows.stop - rows.start, encoder.batch_size):
                    guard.check()
                    images = next(batches)
                    _encode_batch(encoder, tap, images, content, start)
                    bar.advance(len(images))
                writer.write(slab, content)
        writer.seal()
    return _report(FeatureCache(output), manifest, encoded=encoded)


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


class _ReadAhead:
    """Reads, decodes and renders images in threads, a bounded number of batches ahead."""

    def __init__(self, pool: ThreadPoolExecutor, manifest: Manifest, view: ViewSpec, batch_size: int) -> None:
        self._pool = pool
        self._root = manifest.root
        self._image_ids = manifest.table["image_id"]
        self._view = view
        self._batch_size = batch_size

    def batches(self, slabs: list[slice]) -> Iterator[list[_Rendered]]:
        """Yield the batches of the given row ranges, in order."""
        ranges = [
            range(start, min(start + self._batch_size, rows.stop))
            for rows in slabs
            for start in range(rows.start, rows.stop, self._batch_size)
        ]
        ahead: deque[list[Future[_Rendered]]] = deque()
        for batch in ranges:
            ahead.append([self._pool.submit(self._render, self._image_ids[row]) for row in batch])
            if len(ahead) > BATCHES_AHEAD:
                yield [future.result() for future in ahead.popleft()]
        while ahead:
            yield [future.result() for future in ahead.popleft()]

    def _render(self, image_id: str) -> _Rendered:
        content_sha256, width, height, name = bytes(32), 0, 0, ""
        try:
            content = self._read(image_id)
            content_sha256 = hashlib.sha256(content).digest()
            image = decode(content)
            width, height, name = image.width, image.height, image.format
            crops = render(self._view, image.rgb, content_sha256)  # (V, S, S, 3)
        except MemoryError:
            raise RineCacheError(
                f"out of memory while decoding {image_id}; lower --workers and run the same command again"
            ) from None
        except UnreadableImageError as error:
            LOG.warning("quarantined %s: %s (%s)", image_id, error.reason.name.lower(), error.detail)
            return _Rendered(image_id, None, content_sha256, width, height, name, error.reason)
        return _Rendered(image_id, crops, content_sha256, width, height, name, Reason.NONE)

    def _read(self, image_id: str) -> bytes:
        path = self._root / image_id
        try:
            if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would wait for ever
                raise UnreadableImageError(Reason.MISSING, "no regular file")
            return path.read_bytes()
        except (FileNotFoundError, PermissionError) as error:
            if not self._root.is_dir():
                raise ManifestError(
                    f"the folder {self._root} has gone; bring it back and run the same command again"
                ) from None
            raise UnreadableImageError(_QUARANTINING_ERRORS[type(error)], str(error.strerror)) from None
        except OSError as error:
            # A failing disk or network share says nothing about the image: stop, resumable.
            raise ManifestError(
                f"cannot read {path}: {error.strerror}; mend that and run the same command again"
            ) from None


def _encode_batch(encoder: AnyEncoder, tap: Tap, images: list[_Rendered], slab: Slab, start: int) -> None:
    """Encode up to B images of V crops each into a slab's rows, from row `start` of the slab on."""
    batch, draws = encoder.batch_size, slab.features.shape[2]
    size = encoder.image_size
    crops = np.zeros((batch, draws, size, size, 3), np.uint8)  # (B, V, S, S, 3)
    for row, image in enumerate(images):
        if image.crops is not None:
            crops[row] = image.crops
    rows = slice(start, start + len(images))
    for draw in range(draws):
        encoded = encoder.encode(np.ascontiguousarray(crops[:, draw]))
        slab.features[:, rows, draw] = encoded.tokens[tap][:, : len(images)]  # (K, n, D)
        slab.embedding[rows, draw] = encoded.embedding[: len(images)]  # (n, E)
    for row, image in enumerate(images, start):
        reason = image.reason
        if reason is Reason.NONE and not _finite(slab, row):
            reason = Reason.NOT_FINITE
            LOG.warning("quarantined %s: not_finite (its features are beyond float16's range)", image.image_id)
        if reason is not Reason.NONE:
            slab.features[:, row] = 0
            slab.embedding[row] = 0
        slab.status[row] = Status.DONE if reason is Reason.NONE else Status.UNREADABLE
        slab.reason[row] = reason
        slab.content_sha256[row] = np.frombuffer(image.content_sha256, np.uint8)
        slab.width[row], slab.height[row], slab.format[row] = image.width, image.height, image.format[:8].encode()


def _finite(slab: Slab, row: int) -> bool:
    return bool(np.isfinite(slab.features[:, row]).all() and np.isfinite(slab.embedding[row]).all())


def _report(cache: FeatureCache, manifest: Manifest, encoded: int) -> ExtractionReport:
    reasons = Counter(Reason(value).name.lower() for value in cache.reason if value)
    conflicts = _label_conflicts(cache, manifest)
    for first, second in conflicts[:5]:
        LOG.warning("conflict: %s and %s hold the same bytes under two labels", first, second)
    if len(conflicts) > 5:
        LOG.warning("conflict: %d more images hold another's bytes under another label", len(conflicts) - 5)
    return ExtractionReport(len(manifest), encoded, dict(sorted(reasons.items())), conflicts)


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
    names = ("rine-cache", "torch", "open_clip_torch", "h5py", "numpy", "pillow")
    return {name: metadata.version(name) for name in names}
