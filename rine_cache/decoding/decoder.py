"""A manifest's images, decoded in order, some rows before they are asked for."""

from __future__ import annotations

import logging
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from rine_cache.containers import ContainerReader
from rine_cache.decoding.job import Job
from rine_cache.decoding.pool import WorkerPool
from rine_cache.decoding.rows import DecodedRow
from rine_cache.decoding.worker import Refused, Task
from rine_cache.quarantine import Reason, UnreadableImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rine_cache.manifest import Manifest
    from rine_cache.specs.encoding import ViewSpec

LOG = logging.getLogger(__name__)


class Decoder:
    """Reads, decodes and renders images in worker processes, each image once, whatever the number of views.

    One thread more reads the images that lie inside other files, in their order.

    Parameters
    ----------
    manifest
        The images.
    views
        What may be asked for.
    workers
        Processes at most.
    rows_ahead
        Rows that are held at most: being decoded, or decoded and not taken yet.
    wanted
        Names the indices of the views that a row needs.
    still_wanted
        If given, is asked by a thread, once a row's content has been read: which of the views that it needs are still
        needed. An image of which none is, is not decoded.
    """

    def __init__(
        self,
        manifest: Manifest,
        views: Sequence[ViewSpec],
        workers: int,
        rows_ahead: int,
        wanted: Callable[[int], Sequence[int]],
        still_wanted: Callable[[int, bytes], Sequence[int]] | None,
    ) -> None:
        self._images = [manifest.table[name] for name in ("image_id", "size", "container", "position")]
        self._view_count = len(views)
        self._rows_ahead = rows_ahead
        self._wanted = wanted
        self._in_order = ThreadPoolExecutor(1, thread_name_prefix="container")
        self._containers = ContainerReader(manifest.root)
        self._pool = WorkerPool(manifest.root, views, workers, still_wanted)

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()
        self._in_order.shutdown(cancel_futures=True)
        self._containers.close()

    def rows(self, rows: Iterable[int]) -> Iterator[DecodedRow]:
        """Decode rows, and yield them in the order given.

        Raises
        ------
        ManifestError
            If a file cannot be read, or is not what was listed; a container or the folder has gone.
        RineCacheError
            If memory runs out, or processes cannot be started.
        """
        ahead: deque[Job] = deque()
        for row in rows:
            if len(ahead) == self._rows_ahead:
                yield self._decoded(ahead.popleft())
            ahead.append(self._submit(row))
        while ahead:
            yield self._decoded(ahead.popleft())

    def _submit(self, row: int) -> Job:
        image_id, size, container, position = (column[row] for column in self._images)
        job = Job(row, Task(image_id, size, tuple(self._wanted(row)), None))
        if container is None:
            self._pool.submit(job)
        else:
            self._in_order.submit(self._submit_contained, job, container, position)
        return job

    def _submit_contained(self, job: Job, container: str, position: int) -> None:
        try:
            content = self._containers.read(container, position, job.task.size)
        except UnreadableImageError as error:
            job.future.set_result(job.quarantined(Refused(error.reason, error.detail)))
        except Exception as error:  # noqa: BLE001 - raised where the row is asked for
            job.future.set_exception(error)
        else:
            job.task = job.task._replace(content=content)
            self._pool.submit(job)

    def _decoded(self, job: Job) -> DecodedRow:
        outcome = job.future.result()
        views = range(self._view_count)
        said = [outcome.refused] if outcome.refused else list(dict.fromkeys(outcome.refusals.values()))
        for refused in said:
            LOG.warning("quarantined %s: %s (%s)", job.task.image_id, refused.reason.name.lower(), refused.detail)
        return DecodedRow(
            row=job.row,
            image_id=job.task.image_id,
            content_sha256=outcome.content_sha256,
            file_size=outcome.file_size,
            facts=outcome.facts,
            reason=outcome.refused.reason if outcome.refused else Reason.NONE,
            crops=tuple(outcome.crops.get(view) for view in views),
            view_reasons=tuple(
                outcome.refusals[view].reason if view in outcome.refusals else Reason.NONE for view in views
            ),
        )
