"""Filling slabs: images encoded in batches of one shape, and rows copied whose content was encoded before."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rine_cache.cache import Slab, Status
from rine_cache.quarantine import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from rine_cache.cache import CacheWriter
    from rine_cache.read_ahead import Rendered
    from rine_cache.specs.encoding import Tap

LOG = logging.getLogger(__name__)


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


class SlabFiller:
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
        self._waiting: list[tuple[int, Rendered]] = []
        self._places: dict[bytes, int] = {}  # content of this slab, by its digest
        self._repeats: list[tuple[int, int]] = []

    def add(self, images: Sequence[Rendered]) -> None:
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

    def _place(self, place: int, image: Rendered) -> None:
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

    def _decide(self, place: int, image: Rendered, reason: Reason) -> None:
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
