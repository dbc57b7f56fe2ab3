"""Extraction: every image of a manifest through the frozen encoder, once, into a sealed cache.

Decoding runs in threads, a few batches ahead of the encoder. Batches have one fixed shape and slabs are whole
numbers of batches, so that interruptions change no byte of the result. An image whose content stands in a sealed cache
of the same encoding key, or earlier in this one, is copied: it costs its reading, not the encoder.
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
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from rine_cache.cache import (
    CacheIdentity,
    CacheShape,
    FeatureCache,
    SealedRows,
    Slab,
    Status,
    open_writer,
)
from rine_cache.containers import ContainerReader
from rine_cache.errors import CacheCorruptError, CacheMismatchError, CacheUnsealedError, ManifestError, RineCacheError
from rine_cache.facts import NO_FACTS, ImageFacts
from rine_cache.images import decode, decoder_version
from rine_cache.progress import progress
from rine_cache.provenance import fingerprint
from rine_cache.quarantine import Reason, UnreadableImageError
from rine_cache.specs.encoding import CACHE_SCHEMA_VERSION
from rine_cache.views import libraries, render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from numpy.typing import NDArray

    from rine_cache.cache import CacheWriter
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

    `encoded` counts the images that this run put through the encoder, `copied` those whose content was encoded
    before; `quarantined` all images of the cache, by reason; `conflicts` pairs of image ids that hold the same bytes
    under two labels.
    """

    images: int
    encoded: int
    copied: int
    quarantined: dict[str, int]
    conflicts: list[tuple[str, str]]


class _Rendered(NamedTuple):
    """One image read, decoded and rendered, or why it could not be, or the row that holds its content already."""

    image_id: str
    content_sha256: bytes
    file_size: int
    facts: ImageFacts
    reason: Reason
    crops: NDArray[np.uint8] | None = None  # (V, S, S, 3)
    sealed: Slab | None = None  # of one row


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
        filler = _SlabFiller(encoder, tap, writer, set(range(shape.slabs)) - set(pending))
        with (
            progress(f"extract {output.stem}", len(manifest), "images", len(manifest) - left) as bar,
            ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool,
            _ReadAhead(pool, manifest, view, encoder.batch_size, sealed) as reader,
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


class _ReadAhead:
    """Reads, decodes and renders images in threads, a bounded number of batches ahead.

    One more thread reads the images that lie inside other files, in their order.
    """

    def __init__(
        self, pool: ThreadPoolExecutor, manifest: Manifest, view: ViewSpec, batch_size: int, sealed: SealedRows
    ) -> None:
        self._pool = pool
        self._in_order = ThreadPoolExecutor(1, thread_name_prefix="container")
        self._containers = ContainerReader(manifest.root)
        self._root = manifest.root
        self._images = [manifest.table[name] for name in ("image_id", "container", "position", "size")]
        self._view = view
        self._batch_size = batch_size
        self._sealed = sealed

    def __enter__(self) -> _ReadAhead:
        return self

    def __exit__(self, *_: object) -> None:
        self._in_order.shutdown(cancel_futures=True)
        self._containers.close()

    def batches(self, slabs: list[slice]) -> Iterator[list[_Rendered]]:
        """Yield the batches of the given row ranges, in order."""
        ranges = [
            range(start, min(start + self._batch_size, rows.stop))
            for rows in slabs
            for start in range(rows.start, rows.stop, self._batch_size)
        ]
        ahead: deque[list[Future[_Rendered]]] = deque()
        for batch in ranges:
            ahead.append([self._submit(row) for row in batch])
            if len(ahead) > BATCHES_AHEAD:
                yield [future.result() for future in ahead.popleft()]
        while ahead:
            yield [future.result() for future in ahead.popleft()]

    def _submit(self, row: int) -> Future[_Rendered]:
        image_id, container, position, size = (column[row] for column in self._images)
        if container is None:
            return self._pool.submit(self._render, image_id, partial(self._read, image_id))
        content = self._in_order.submit(self._containers.read, container, position, size)
        return self._pool.submit(self._render, image_id, content.result)

    def _render(self, image_id: str, read: Callable[[], bytes]) -> _Rendered:
        content_sha256, size, facts = bytes(32), 0, NO_FACTS
        try:
            content = read()
            content_sha256, size = hashlib.sha256(content).digest(), len(content)
            if sealed := self._sealed.find(content_sha256):
                return _Rendered(image_id, content_sha256, size, facts, Reason.NONE, sealed=sealed)
            image = decode(content)
            facts = image.facts
            crops = render(self._view, image.rgb, content_sha256)  # (V, S, S, 3)
        except MemoryError:
            raise RineCacheError(
                f"out of memory while decoding {image_id}; lower --workers and run the same command again"
            ) from None
        except UnreadableImageError as error:
            LOG.warning("quarantined %s: %s (%s)", image_id, error.reason.name.lower(), error.detail)
            return _Rendered(image_id, content_sha256, size, facts, error.reason)
        return _Rendered(image_id, content_sha256, size, facts, Reason.NONE, crops)

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


class _SlabFiller:
    """Fills slab after slab: images are encoded in full batches, those of known content copied.

    Attributes
    ----------
    encoded, copied
        How many images went through the encoder, and how many were copied.
    """

    def __init__(self, encoder: AnyEncoder, tap: Tap, writer: CacheWriter, done: Iterable[int]) -> None:
        """Begin with the slabs of `writer` that are done already."""
        self._encoder, self._tap, self._writer = encoder, tap, writer
        self._first_rows: dict[bytes, int] = {}  # content written so far, by the first half of its digest
        self.encoded = self.copied = 0
        for slab in sorted(done):
            self._remember(slab, writer.read_slab(slab))

    def begin(self, slab: int) -> None:
        """Begin a slab with no row."""
        rows = self._writer.shape.rows(slab)
        self._slab, self._start = slab, rows.start
        self._content = Slab.empty(self._writer.shape, rows.stop - rows.start)
        self._filled = 0
        self._waiting: list[tuple[int, _Rendered]] = []
        self._places: dict[bytes, int] = {}  # content of this slab, by its digest
        self._repeats: list[tuple[int, int]] = []

    def add(self, images: Sequence[_Rendered]) -> None:
        """Add the slab's next images."""
        for place, image in enumerate(images, self._filled):
            self._place(place, image)
        self._filled += len(images)

    def finish(self) -> Slab:
        """Encode what is left over, padded, and return the slab with every row decided."""
        if self._waiting:
            self._encode()
        for place, original in self._repeats:
            self._copy(place, self._content, original)
        self._remember(self._slab, self._content)
        return self._content

    def _place(self, place: int, image: _Rendered) -> None:
        if image.sealed is not None:
            self._copy(place, image.sealed, 0)
        elif image.crops is None:
            self._decide(place, image, image.reason)
        elif (original := self._places.get(image.content_sha256)) is not None:
            self._repeats.append((place, original))
        elif earlier := self._written(image.content_sha256):
            self._copy(place, *earlier)
        else:
            self._places[image.content_sha256] = place
            self._waiting.append((place, image))
            if len(self._waiting) == self._encoder.batch_size:
                self._encode()

    def _copy(self, place: int, source: Slab, row: int) -> None:
        self._content.copy_row(place, source, row)
        self.copied += 1

    def _written(self, digest: bytes) -> tuple[Slab, int] | None:
        """Find an earlier slab of this cache that holds the content, and its row there."""
        row = self._first_rows.get(digest[:16])
        if row is None:
            return None
        slab, place = divmod(row, self._writer.shape.slab_rows)
        source = self._writer.read_slab(slab)
        return (source, place) if source.tables["content_sha256"][place].tobytes() == digest else None

    def _remember(self, slab: int, content: Slab) -> None:
        start = self._writer.shape.rows(slab).start
        for place in np.flatnonzero(content.tables["status"] == Status.DONE):
            digest = content.tables["content_sha256"][place].tobytes()
            self._first_rows.setdefault(digest[:16], start + int(place))

    def _encode(self) -> None:
        """Encode up to B waiting images of V crops each, in the one shape that every batch has."""
        batch, draws, size = self._encoder.batch_size, self._content.features.shape[2], self._encoder.image_size
        crops = np.zeros((batch, draws, size, size, 3), np.uint8)  # (B, V, S, S, 3)
        for row, (_, image) in enumerate(self._waiting):
            assert image.crops is not None, "what waits was rendered"
            crops[row] = image.crops
        places = [place for place, _ in self._waiting]
        for draw in range(draws):
            encoded = self._encoder.encode(np.ascontiguousarray(crops[:, draw]))
            self._content.features[:, places, draw] = encoded.tokens[self._tap][:, : len(places)]  # (K, n, D)
            self._content.embedding[places, draw] = encoded.embedding[: len(places)]  # (n, E)
        for place, image in self._waiting:
            reason = Reason.NONE
            if not self._finite(place):
                reason = Reason.NOT_FINITE
                LOG.warning("quarantined %s: not_finite (its features are beyond float16's range)", image.image_id)
            self._decide(place, image, reason)
        self.encoded += len(self._waiting)
        self._waiting = []

    def _finite(self, place: int) -> bool:
        content = self._content
        return bool(np.isfinite(content.features[:, place]).all() and np.isfinite(content.embedding[place]).all())

    def _decide(self, place: int, image: _Rendered, reason: Reason) -> None:
        """Fill in what is known of an image; one that is quarantined has no features."""
        if reason is not Reason.NONE:
            self._content.features[:, place] = 0
            self._content.embedding[place] = 0
        known = {
            "status": Status.DONE if reason is Reason.NONE else Status.UNREADABLE,
            "reason": reason,
            "content_sha256": np.frombuffer(image.content_sha256, np.uint8),
            "file_size": image.file_size,
            **image.facts._asdict(),
        }
        for name, table in self._content.tables.items():
            table[place] = known[name]


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
