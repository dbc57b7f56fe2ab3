"""Filling slabs: crops encoded in batches of one shape, rows copied whose content was encoded before, slabs written.

One filler serves one encoder and one view; both taps come from the same forward pass. While a batch is being encoded
the next one is filled and finished slabs are written, by a thread.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from rine_cache.cache import Slab, Status
from rine_cache.quarantine import Reason
from rine_cache.seen_content import SeenContent

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future, ThreadPoolExecutor

    from numpy.typing import NDArray

    from rine_cache.cache import CacheShape, CacheWriter, SealedRows
    from rine_cache.decoding import DecodedRow
    from rine_cache.progress import Waits
    from rine_cache.specs.encoding import Tap

LOG = logging.getLogger(__name__)

# Slabs are held until their last row is decided: where most rows are copied, that may wait for a batch to fill. When
# more slabs are held than this, and more bytes, the batch is encoded as it is.
OPEN_SLABS = 4
OPEN_BYTES = 2**28
# Slabs that may wait for the disk before encoding waits for them.
WRITES_AHEAD = 2


class EncodedBatch(Protocol):
    """What an encoder gives for B crops."""

    @property
    def tokens(self) -> Mapping[Tap, NDArray[np.float16]]:
        """Tokens by tap, each (K, B, D)."""
        ...

    @property
    def embedding(self) -> NDArray[np.float16]:
        """Embeddings, (B, E)."""
        ...


class RunningBatch(Protocol):
    """A batch that is being encoded."""

    def result(self) -> EncodedBatch:
        """Wait for what it gives."""
        ...


class AnyEncoder(Protocol):
    """What extraction asks of an encoder; `rine_cache.encoders.Encoder` is one."""

    identity: dict[str, Any]
    compute_dtype: str
    compiled: bool
    batch_size: int
    in_flight: int
    device: str
    block_count: int
    width: int
    embedding_width: int
    image_size: int

    def new_batch(self) -> NDArray[np.uint8]:
        """Return zeros, shape (B, S, S, 3), where the device reads them fast."""
        ...

    def start(self, batch: NDArray[np.uint8]) -> RunningBatch:
        """Begin to encode a batch, which the caller changes no more."""
        ...


class TapWriter(NamedTuple):
    """Where one tap's cache is written, which of its slabs are still to be, and the sealed rows to copy from."""

    writer: CacheWriter
    pending: frozenset[int]
    sealed: SealedRows


@dataclass
class _OpenSlab:
    """A slab some of whose rows are not decided yet, or that is being written."""

    contents: dict[Tap, Slab]
    undecided: int


class _Write(NamedTuple):
    """A slab that waits for the disk, or is on its way there."""

    number: int
    slab: _OpenSlab
    done: Future[None]


@dataclass
class _Encoding:
    """A row that is being encoded, and those of the same content that wait for it."""

    image_id: str
    crops_missing: int
    repeats: list[int] = field(default_factory=list)


class SlabFiller:
    """Fills slab after slab: crops are encoded in full batches, rows of known content copied.

    A batch takes the next crops that need encoding, of whichever rows and slabs: what an encoder gives for a crop does
    not depend on the crops beside it. A row is decided once it is quarantined, copied or encoded, and a slab is written
    once all its rows are. Rows count from the cache's first, except where the manifest's are named.

    Attributes
    ----------
    view
        Which of the decoder's views it takes.
    images_per_batch
        How many images' crops fill a batch.
    may_copy
        Whether there are sealed rows that may hold an image's features already.
    encoded, copied
        How many images went through the encoder, and how many were copied.
    """

    def __init__(
        self,
        encoder: AnyEncoder,
        view: int,
        first_row: int,
        taps: Mapping[Tap, TapWriter],
        writing: ThreadPoolExecutor,
        waits: Waits,
    ) -> None:
        """Begin with rows from `first_row` of the manifest on; slabs that are done in every tap stay as they are."""
        self.view = view
        self.encoded = self.copied = 0
        self._encoder, self._taps, self._writing, self._waits = encoder, taps, writing, waits
        self._any_tap = next(iter(taps.values()))
        self._shape: CacheShape = self._any_tap.writer.shape
        self._first_row = first_row
        self.images_per_batch = -(-encoder.batch_size // self._shape.draws)
        self.may_copy = all(tap.sealed for tap in taps.values())
        self._pending = frozenset[int]().union(*(tap.pending for tap in taps.values()))
        self._seen = SeenContent()
        self._open: dict[int, _OpenSlab] = {}
        self._encoding: dict[int, _Encoding] = {}  # by row
        self._batch = encoder.new_batch()  # (B, S, S, 3)
        self._places: list[tuple[int, int]] = []  # row and draw of each crop in it
        self._running: deque[tuple[RunningBatch, list[tuple[int, int]]]] = deque()
        self._writes: deque[_Write] = deque()
        row_bytes = 2 * len(taps) * self._shape.blocks * self._shape.draws * self._shape.width
        self._open_limit = max(OPEN_SLABS, OPEN_BYTES // (row_bytes * self._shape.slab_rows))
        for number in range(self._shape.slabs):
            if number not in self._pending:
                self._remember(number, self._any_tap.writer.read_slab(number))

    @property
    def rows(self) -> NDArray[np.int64]:
        """All rows of the manifest that this is for, shape (N,)."""
        return np.arange(self._first_row, self._first_row + self._shape.images)

    @property
    def pending_rows(self) -> NDArray[np.int64]:
        """The manifest's rows that are still to be decided, shape (n,)."""
        pending = np.isin(np.arange(self._shape.slabs), list(self._pending))  # (S,)
        return self.rows[np.repeat(pending, self._shape.slab_rows)[: self._shape.images]]  # (n,)

    def wants(self, row: int) -> bool:
        """Say whether a row of the manifest is still to be decided here."""
        place = row - self._first_row
        return 0 <= place < self._shape.images and place // self._shape.slab_rows in self._pending

    def knows(self, content_sha256: bytes) -> bool:
        """Say whether sealed caches hold an image's features already. Threads may ask."""
        return all(tap.sealed.find(content_sha256) for tap in self._taps.values())

    def add(self, image: DecodedRow) -> None:
        """Add one of the rows that are wanted."""
        row = image.row - self._first_row
        slab = self._opened(row // self._shape.slab_rows)
        digest, crops = image.content_sha256, image.crops[self.view]  # (V, S, S, 3)
        if reason := image.reason or image.view_reasons[self.view]:
            self._fill_tables(slab, row, image, reason)
            self._row_decided(row)
        elif self.knows(digest):
            self._copy_sealed(slab, row, digest)
        elif (original := self._seen.find(digest)) is not None and self._holds(original, digest):
            self._copy_or_wait(row, original)
        else:
            assert crops is not None, "what is not known was rendered"
            self._seen.add(digest, row)
            self._fill_tables(slab, row, image, Reason.NONE)
            self._encode(row, image.image_id, crops)
        if len(self._open) > self._open_limit:
            self._flush()

    def finish(self) -> None:
        """Encode what is left over, padded, and wait until everything is written."""
        self._flush()
        assert not self._open, "every row was added"
        while self._writes:
            self._wait_for_write()

    def _opened(self, number: int) -> _OpenSlab:
        """Return an open slab; it is opened with the first of its rows."""
        if number not in self._open:
            rows = self._shape.rows(number)
            count = rows.stop - rows.start
            contents = {
                name: Slab.empty(self._shape, count) for name, tap in self._taps.items() if number in tap.pending
            }
            self._open[number] = _OpenSlab(contents, count)
        return self._open[number]

    def _copy_sealed(self, slab: _OpenSlab, row: int, digest: bytes) -> None:
        """Copy a row from the sealed caches."""
        for name, content in slab.contents.items():
            sealed = self._taps[name].sealed.find(digest)
            assert sealed is not None, "it was found before, and what was checked stays mapped"
            content.copy_row(row % self._shape.slab_rows, sealed, 0)
        self.copied += 1
        self._row_decided(row)

    def _holds(self, row: int, digest: bytes) -> bool:
        """Say whether an earlier row is of this very content: the index knows the beginning of a digest only."""
        number, place = divmod(row, self._shape.slab_rows)
        slab = self._in_memory(number)
        source = next(iter(slab.contents.values())) if slab else self._any_tap.writer.read_slab(number)
        return bool(source.tables["content_sha256"][place].tobytes() == digest)

    def _copy_or_wait(self, row: int, original: int) -> None:
        """Copy an earlier row of this cache; one that is being encoded is copied when it is decided."""
        if original in self._encoding:
            self._encoding[original].repeats.append(row)
        else:
            self._copy(row, original)

    def _copy(self, row: int, original: int) -> None:
        """Copy an earlier row of this cache that is decided."""
        number, place = divmod(original, self._shape.slab_rows)
        in_memory = self._in_memory(number)
        for name, content in self._open[row // self._shape.slab_rows].contents.items():
            held = in_memory.contents.get(name) if in_memory else None
            content.copy_row(row % self._shape.slab_rows, held or self._taps[name].writer.read_slab(number), place)
        self.copied += 1
        self._row_decided(row)

    def _in_memory(self, number: int) -> _OpenSlab | None:
        """Return a slab that may not be on the disk yet."""
        return self._open.get(number) or next((write.slab for write in self._writes if write.number == number), None)

    def _encode(self, row: int, image_id: str, crops: NDArray[np.uint8]) -> None:
        """Put an image's crops, (V, S, S, 3), into the next batches."""
        self._encoding[row] = _Encoding(image_id, len(crops))
        self.encoded += 1
        for draw, crop in enumerate(crops):
            self._batch[len(self._places)] = crop  # (S, S, 3)
            self._places.append((row, draw))
            if len(self._places) == self._encoder.batch_size:
                self._start()

    def _start(self) -> None:
        """Begin to encode the batch that was filled, and collect the oldest once enough are running."""
        self._running.append((self._encoder.start(self._batch), self._places))
        self._batch, self._places = self._encoder.new_batch(), []
        while len(self._running) > self._encoder.in_flight:
            self._collect()

    def _flush(self) -> None:
        """Encode what waits, padded with zeros, and collect everything."""
        if self._places:
            self._start()
        while self._running:
            self._collect()

    def _collect(self) -> None:
        """Take the features of the oldest running batch into their slabs."""
        running, places = self._running.popleft()
        with self._waits("encoding"):
            encoded = running.result()
        rows, draws = np.array(places).T  # each (n,)
        numbers, at = np.divmod(rows, self._shape.slab_rows)  # each (n,)
        for number in dict.fromkeys(numbers.tolist()):
            picked = np.flatnonzero(numbers == number)  # (m,)
            for name, content in self._open[number].contents.items():
                content.features[:, at[picked], draws[picked]] = encoded.tokens[name][:, picked]  # (K, m, D)
                content.embedding[at[picked], draws[picked]] = encoded.embedding[picked]  # (m, E)
        for row, _ in places:
            self._encoding[row].crops_missing -= 1
            if not self._encoding[row].crops_missing:
                self._row_encoded(row)

    def _row_encoded(self, row: int) -> None:
        """Decide a row whose crops are all encoded, and those of the same content."""
        done = self._encoding.pop(row)
        number, place = divmod(row, self._shape.slab_rows)
        for name, content in self._open[number].contents.items():
            if not (np.isfinite(content.features[:, place]).all() and np.isfinite(content.embedding[place]).all()):
                LOG.warning(
                    "quarantined %s: not_finite (its features, %s, are beyond float16's range)", done.image_id, name
                )
                content.features[:, place] = 0
                content.embedding[place] = 0
                content.tables["status"][place] = Status.UNREADABLE
                content.tables["reason"][place] = Reason.NOT_FINITE
        for repeat in done.repeats:
            self._copy(repeat, row)
        self._row_decided(row)

    def _fill_tables(self, slab: _OpenSlab, row: int, image: DecodedRow, reason: Reason) -> None:
        """Fill in what is known of an image besides its features."""
        known = {
            "status": Status.UNREADABLE if reason else Status.DONE,
            "reason": reason,
            "content_sha256": np.frombuffer(image.content_sha256, np.uint8),
            "file_size": image.file_size,
            **image.facts._asdict(),
        }
        for content in slab.contents.values():
            for name, table in content.tables.items():
                table[row % self._shape.slab_rows] = known[name]

    def _row_decided(self, row: int) -> None:
        """Count a row that is decided; a slab whose rows all are is written."""
        number = row // self._shape.slab_rows
        slab = self._open[number]
        slab.undecided -= 1
        if slab.undecided:
            return
        del self._open[number]
        self._writes.append(_Write(number, slab, self._writing.submit(self._write, number, slab)))
        while len(self._writes) > WRITES_AHEAD:
            self._wait_for_write()

    def _write(self, number: int, slab: _OpenSlab) -> None:
        for name, content in slab.contents.items():
            self._taps[name].writer.write(number, content)

    def _wait_for_write(self) -> None:
        with self._waits("writing"):
            self._writes[0].done.result()
        self._writes.popleft()

    def _remember(self, number: int, content: Slab) -> None:
        """Remember which contents a slab holds that an earlier run wrote."""
        start = self._shape.rows(number).start
        for place in np.flatnonzero(content.tables["status"] == Status.DONE):
            self._seen.add(content.tables["content_sha256"][place].tobytes(), start + int(place))
