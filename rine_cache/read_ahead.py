"""Reading ahead: images read, decoded and rendered in threads, a few batches before the encoder asks for them."""

from __future__ import annotations

import hashlib
import logging
import stat
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from rine_cache.containers import ContainerReader
from rine_cache.errors import ManifestError, RineCacheError
from rine_cache.facts import NO_FACTS, ImageFacts
from rine_cache.images import decode
from rine_cache.quarantine import Reason, UnreadableImageError
from rine_cache.views import render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    import numpy as np
    from numpy.typing import NDArray

    from rine_cache.cache import SealedRows, Slab
    from rine_cache.manifest import Manifest
    from rine_cache.specs.encoding import ViewSpec

LOG = logging.getLogger(__name__)

BATCHES_AHEAD = 2
_QUARANTINING_ERRORS = {FileNotFoundError: Reason.MISSING, PermissionError: Reason.FORBIDDEN}


class Rendered(NamedTuple):
    """One image read, decoded and rendered, or why it could not be, or the row that holds its content already."""

    image_id: str
    content_sha256: bytes
    file_size: int
    facts: ImageFacts
    reason: Reason
    crops: NDArray[np.uint8] | None = None  # (V, S, S, 3)
    sealed: Slab | None = None  # of one row


class ReadAhead:
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

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *_: object) -> None:
        self._in_order.shutdown(cancel_futures=True)
        self._containers.close()

    def batches(self, slabs: list[slice]) -> Iterator[list[Rendered]]:
        """Yield the batches of the given row ranges, in order."""
        ranges = [
            range(start, min(start + self._batch_size, rows.stop))
            for rows in slabs
            for start in range(rows.start, rows.stop, self._batch_size)
        ]
        ahead: deque[list[Future[Rendered]]] = deque()
        for batch in ranges:
            ahead.append([self._submit(row) for row in batch])
            if len(ahead) > BATCHES_AHEAD:
                yield [future.result() for future in ahead.popleft()]
        while ahead:
            yield [future.result() for future in ahead.popleft()]

    def _submit(self, row: int) -> Future[Rendered]:
        image_id, container, position, size = (column[row] for column in self._images)
        if container is None:
            return self._pool.submit(self._render, image_id, partial(self._read, image_id))
        content = self._in_order.submit(self._containers.read, container, position, size)
        return self._pool.submit(self._render, image_id, content.result)

    def _render(self, image_id: str, read: Callable[[], bytes]) -> Rendered:
        content_sha256, size, facts = bytes(32), 0, NO_FACTS
        try:
            content = read()
            content_sha256, size = hashlib.sha256(content).digest(), len(content)
            if sealed := self._sealed.find(content_sha256):
                return Rendered(image_id, content_sha256, size, facts, Reason.NONE, sealed=sealed)
            image = decode(content)
            facts = image.facts
            crops = render(self._view, image.rgb, content_sha256)  # (V, S, S, 3)
        except MemoryError:
            raise RineCacheError(
                f"out of memory while decoding {image_id}; lower --workers and run the same command again"
            ) from None
        except UnreadableImageError as error:
            LOG.warning("quarantined %s: %s (%s)", image_id, error.reason.name.lower(), error.detail)
            return Rendered(image_id, content_sha256, size, facts, error.reason)
        return Rendered(image_id, content_sha256, size, facts, Reason.NONE, crops)

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
