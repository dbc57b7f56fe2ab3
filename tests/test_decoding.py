"""Rows decoded in processes are those of a plain loop, whatever happens to the processes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from rine_cache import images
from rine_cache.decoding import DecodedRow, Decoder, pool, process, worker
from rine_cache.decoding import read as reading
from rine_cache.errors import ManifestError, RineCacheError
from rine_cache.facts import NO_FACTS
from rine_cache.layouts import list_images
from rine_cache.manifest import Manifest, build_manifest
from rine_cache.quarantine import Reason, UnreadableImageError
from rine_cache.specs.data import DatasetSpec
from rine_cache.specs.encoding import CenterViewSpec, JpegSpec, TenCropViewSpec, TrainViewSpec, ViewSpec
from rine_cache.views import render
from tests import container_twins as twins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CENTER = CenterViewSpec(kind="center", size=16)
VIEWS: tuple[ViewSpec, ...] = (
    CENTER,
    TenCropViewSpec(kind="tencrop", size=24),
    TrainViewSpec(kind="train", size=16, draws=2),
)
FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
BAD = b"this kills its process"


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fork processes, so that they start fast and carry what a test patched; look that none is left."""
    monkeypatch.setattr(pool, "START_METHOD", "fork")
    threads = threading.active_count()
    yield
    assert not multiprocessing.active_children()
    assert threading.active_count() <= threads
    try:
        ended, _ = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:  # there is not even the fork server of other tests
        ended = 0
    assert not ended, "a zombie is left"


def write_images(root: Path, count: int) -> Path:
    rng = np.random.default_rng(0)
    for index in range(count):
        file_format = FORMATS[index % len(FORMATS)]
        height, width = (int(side) for side in rng.integers(8, 60, 2))
        path = root / f"{index % 2}_{('real', 'fake')[index % 2]}" / f"{index:03d}.{file_format.lower()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(path, file_format)
    return root


def manifest_of(root: Path, layout: str = "folder") -> Manifest:
    return build_manifest(list_images(DatasetSpec(root=str(root), layout=layout)).table, root)


def decode_all(
    manifest: Manifest,
    views: Sequence[ViewSpec] = (CENTER,),
    *,
    workers: int = 2,
    rows_ahead: int = 9,
    rows: Sequence[int] | None = None,
    wanted: Callable[[int], Sequence[int]] | None = None,
    still_wanted: Callable[[int, bytes], Sequence[int]] | None = None,
) -> list[DecodedRow]:
    everything = list(range(len(views)))
    with Decoder(manifest, views, workers, rows_ahead, wanted or (lambda _: everything), still_wanted) as decoder:
        return list(decoder.rows(range(len(manifest)) if rows is None else rows))


def decode_alone(manifest: Manifest, row: int, content: bytes, views: Sequence[ViewSpec], needed: Any) -> DecodedRow:
    """Do what a decoder should, without any process."""
    image_id, digest = manifest.table["image_id"][row], hashlib.sha256(content).digest()
    none: tuple[Reason, ...] = (Reason.NONE,) * len(views)
    try:
        image = images.decode(content)
    except UnreadableImageError as error:
        nothing = (None,) * len(views)
        return DecodedRow(row, image_id, digest, len(content), NO_FACTS, error.reason, nothing, none)
    crops = tuple(render(view, image.rgb, digest) if at in needed else None for at, view in enumerate(views))
    return DecodedRow(row, image_id, digest, len(content), image.facts, Reason.NONE, crops, none)


def same(found: Sequence[DecodedRow], expected: Sequence[DecodedRow]) -> None:
    assert [row._replace(crops=()) for row in found] == [row._replace(crops=()) for row in expected]
    for one, other in zip(found, expected, strict=True):
        for crops, alone in zip(one.crops, other.crops, strict=True):
            assert (crops is None) == (alone is None)
            if crops is not None:
                assert crops.dtype == np.uint8
                np.testing.assert_array_equal(crops, alone)


@pytest.fixture
def files(tmp_path: Path) -> Manifest:
    root = write_images(tmp_path / "images", 24)
    (root / "0_real" / "cut.png").write_bytes((root / "0_real" / "000.png").read_bytes()[:200])
    (root / "1_fake" / "empty.png").write_bytes(b"")
    return manifest_of(root)


def contents(manifest: Manifest) -> list[bytes]:
    return [(manifest.root / image_id).read_bytes() for image_id in manifest.table["image_id"]]


def alone(manifest: Manifest, views: Sequence[ViewSpec] = (CENTER,)) -> list[DecodedRow]:
    every = range(len(views))
    return [decode_alone(manifest, row, content, views, every) for row, content in enumerate(contents(manifest))]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("rows_ahead", [1, 2, 100])
def test_rows_are_those_of_a_plain_loop(files: Manifest, workers: int, rows_ahead: int) -> None:
    same(decode_all(files, VIEWS, workers=workers, rows_ahead=rows_ahead), alone(files, VIEWS))


def test_a_fork_server_gives_the_same(files: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the start method as it is
    check = (
        "import sys, pathlib; from tests import test_decoding as t; from rine_cache.decoding import pool\n"
        "assert pool.START_METHOD == 'forkserver'\n"
        "manifest = t.manifest_of(pathlib.Path(sys.argv[1]))\n"
        "t.same(t.decode_all(manifest, t.VIEWS), t.alone(manifest, t.VIEWS))"
    )
    subprocess.run([sys.executable, "-c", check, files.root], check=True, cwd=Path(__file__).parent.parent)


def test_rows_come_in_the_order_asked_for_each_with_its_own_views(files: Manifest) -> None:
    rows = random.Random(0).sample(range(len(files)), len(files))
    found = decode_all(files, VIEWS, rows=rows, wanted=lambda row: [[2], [0, 1], [1, 0, 2]][row % 3])
    content = contents(files)
    needed = [{2}, {0, 1}, {0, 1, 2}]
    same(found, [decode_alone(files, row, content[row], VIEWS, needed[row % 3]) for row in rows])


@pytest.mark.parametrize("layout", ["webdataset", "parquet"])
def test_images_inside_containers_are_read_in_order_and_decoded_alike(tmp_path: Path, layout: str) -> None:
    paths = sorted(write_images(tmp_path / "images", 20).rglob("*.*"))
    members = {path.relative_to(tmp_path / "images").as_posix(): path.read_bytes() for path in paths}
    if layout == "webdataset":
        twins.write_tar(tmp_path / "inside" / "train-00000-of-00001.tar", list(members.items()))
    else:
        column = twins.hub_images(members.values(), members)
        labels = pa.array(["fake" if "fake" in name else "real" for name in members])
        twins.write_parquet(tmp_path / "inside" / "a.parquet", {"image": column, "label": labels}, 3)
    manifest = manifest_of(tmp_path / "inside", layout)
    found = decode_all(manifest, VIEWS, workers=3)
    by_digest = {hashlib.sha256(content).digest(): content for content in members.values()}
    assert {row.content_sha256 for row in found} == set(by_digest)
    everything = range(len(VIEWS))
    expected = [decode_alone(manifest, row.row, by_digest[row.content_sha256], VIEWS, everything) for row in found]
    same(found, expected)


def test_what_is_known_by_its_digest_is_not_decoded(files: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = [hashlib.sha256(content).digest() for content in contents(files)]
    readable = [row for row, decoded in enumerate(alone(files)) if not decoded.reason]
    known, half = set(readable[::3]), set(readable[1::3])
    asked: dict[int, bytes] = {}

    def still_wanted(row: int, digest: bytes) -> list[int]:
        asked[row] = digest
        return [] if row in known else [2] if row in half else [0, 2]

    original = images.decode

    def decode(content: bytes) -> images.DecodedImage:
        assert hashlib.sha256(content).digest() not in {digests[row] for row in known}
        return original(content)

    monkeypatch.setattr(images, "decode", decode)
    found = decode_all(files, VIEWS, wanted=lambda _: [0, 2], still_wanted=still_wanted)
    assert asked == dict(enumerate(digests))
    for decoded in found:
        if decoded.row in known:
            assert (decoded.facts, decoded.reason) == (NO_FACTS, Reason.NONE)
            assert decoded.content_sha256 == digests[decoded.row]
            assert decoded.file_size == files.table["size"][decoded.row]
        needed = set() if decoded.row in known else {2} if decoded.row in half else {0, 2}
        assert {at for at, crops in enumerate(decoded.crops) if crops is not None} == (
            needed if decoded.row in readable else set()
        )


def test_quarantines_are_logged_once_with_their_reason(files: Manifest, caplog: pytest.LogCaptureFixture) -> None:
    (files.root / "1_fake" / "001.jpeg").unlink()
    with caplog.at_level(logging.WARNING, "rine_cache"):
        found = decode_all(files, VIEWS)
    assert {row.image_id: row.reason for row in found if row.reason} == {
        "0_real/cut.png": Reason.DAMAGED,
        "1_fake/001.jpeg": Reason.MISSING,
        "1_fake/empty.png": Reason.EMPTY,
    }
    (missing,) = [row for row in found if row.reason is Reason.MISSING]
    assert (missing.content_sha256, missing.file_size, missing.facts) == (bytes(32), 0, NO_FACTS)
    assert sorted(message.partition(" (")[0] for message in caplog.messages) == [
        "quarantined 0_real/cut.png: damaged",
        "quarantined 1_fake/001.jpeg: missing",
        "quarantined 1_fake/empty.png: empty",
    ]


def test_a_view_that_cannot_take_an_image_leaves_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_images(tmp_path / "images", 4)
    Image.new("RGB", (65_501, 1)).save(root / "0_real" / "long.png")
    jpeg = CenterViewSpec(kind="center", size=16, prepare=(JpegSpec(op="jpeg", quality=96),))
    views = (CENTER, jpeg, TrainViewSpec(kind="train", size=16))
    found = decode_all(manifest_of(root), views)
    (long,) = [row for row in found if row.image_id == "0_real/long.png"]
    assert (long.reason, long.facts.width) == (Reason.NONE, 65_501)
    assert long.view_reasons == (Reason.NONE, Reason.TOO_LARGE, Reason.TOO_LARGE)
    assert [crops is not None for crops in long.crops] == [True, False, False]
    assert all(crops is not None for row in found if row is not long for crops in row.crops)
    assert caplog.messages == ["quarantined 0_real/long.png: too_large (JPEG holds at most 65,500 pixels a side)"]


def spoil(manifest: Manifest, rows: Sequence[int]) -> Manifest:
    """Put bytes into some files that `deadly` knows."""
    for row in rows:
        (manifest.root / manifest.table["image_id"][row]).write_bytes(BAD)
    return manifest_of(manifest.root)


def deadly(monkeypatch: pytest.MonkeyPatch, harm: Callable[[], object]) -> None:
    original = images.decode

    def decode(content: bytes) -> images.DecodedImage:
        if content == BAD:
            harm()
        return original(content)

    monkeypatch.setattr(images, "decode", decode)


HARMS = {
    "signal 11": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "exit status 3": lambda: os._exit(3),
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("asks", [False, True])
def test_an_image_that_kills_its_process_is_quarantined_alone(
    files: Manifest,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    harm: str,
    workers: int,
    asks: bool,
) -> None:
    expected = alone(files)
    bad = [0, 7, 8, 9, len(files) - 1]
    spoiled = spoil(files, bad)
    deadly(monkeypatch, HARMS[harm])
    found = decode_all(spoiled, workers=workers, still_wanted=(lambda *_: [0]) if asks else None)
    same([row for row in found if row.row not in bad], [row for row in expected if row.row not in bad])
    for row in bad:
        digest = hashlib.sha256(BAD).digest()
        assert found[row][2:6] == (digest, len(BAD), NO_FACTS, Reason.CRASHED)
        image_id = found[row].image_id
        assert f"quarantined {image_id}: crashed (its decoding process died twice ({harm}))" in caplog.messages


@pytest.mark.parametrize("workers", [1, 3])
def test_an_image_that_kills_its_process_once_is_no_worse_than_others(
    files: Manifest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workers: int
) -> None:
    expected = alone(files)
    whole = contents(files)[3]
    original = images.decode

    def decode(content: bytes) -> images.DecodedImage:
        if content == whole and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGSEGV)
        return original(content)

    monkeypatch.setattr(images, "decode", decode)
    same(decode_all(files, workers=workers), expected)
    assert (tmp_path / "died").exists()


@pytest.mark.parametrize("workers", [1, 3])
def test_an_image_that_hangs_is_quarantined_alone(
    files: Manifest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, workers: int
) -> None:
    expected = alone(files)
    spoiled = spoil(files, [5, 6])
    deadly(monkeypatch, lambda: time.sleep(1000))
    monkeypatch.setattr(pool, "DECODE_LIMIT_S", 0.4)
    found = decode_all(spoiled, workers=workers)
    same([row for row in found if row.row not in {5, 6}], [row for row in expected if row.row not in {5, 6}])
    assert [found[row].reason for row in (5, 6)] == [Reason.HUNG] * 2
    assert "hung (decoding it took longer than 0.4 s, twice)" in caplog.text


def test_a_disk_that_hangs_stops_the_run(files: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    original = worker.read_file

    def read_file(root: Path, image_id: str, size: int) -> bytes:
        if image_id == files.table["image_id"][4]:
            time.sleep(1000)
        return original(root, image_id, size)

    monkeypatch.setattr(worker, "read_file", read_file)
    monkeypatch.setattr(pool, "DECODE_LIMIT_S", 0.3)
    with pytest.raises(ManifestError, match=r"cannot read .*it takes longer than 0.3 s; mend that and run the same"):
        decode_all(files)


def test_several_views_may_each_take_up_to_the_limit(files: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    original = worker.render

    def slow(*arguments: Any) -> Any:
        time.sleep(0.3)
        return original(*arguments)

    expected = alone(files, [CENTER] * 4)[:1]
    monkeypatch.setattr(worker, "render", slow)
    monkeypatch.setattr(worker, "ALIVE_EVERY_S", 0.0)
    monkeypatch.setattr(pool, "DECODE_LIMIT_S", 0.7)
    same(decode_all(files, [CENTER] * 4, workers=1, rows=[0]), expected)


class Killer:
    """Kills worker processes at random moments, from outside."""

    def __init__(self, decoder: Decoder, seed: int, pause: float) -> None:
        self._decoder, self._random, self._pause = decoder, random.Random(seed), pause
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.kills = 0

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        # A bounded number, and none before it begins: a busy machine would start processes and do nothing else.
        while self.kills < 100 and not self._done.wait(self._random.uniform(0, self._pause)):
            running = [held for held in self._decoder._pool._processes if held.ready]
            if running:
                with contextlib.suppress(ValueError, ProcessLookupError, TypeError):  # it has just ended
                    os.kill(self._random.choice(running).pid, signal.SIGKILL)
                    self.kills += 1


@pytest.mark.parametrize("asks", [False, True])
def test_killed_at_random_moments_nothing_is_lost_or_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asks: bool
) -> None:
    monkeypatch.setattr(pool, "MAX_KILLS", 10**6)  # on a busy machine one image may be hit many times
    manifest = manifest_of(write_images(tmp_path / "images", 240))
    expected = alone(manifest, VIEWS[:2])
    still_wanted = (lambda *_: [0, 1]) if asks else None
    with (
        Decoder(manifest, VIEWS[:2], 3, 20, lambda _: [0, 1], still_wanted) as decoder,
        Killer(decoder, seed=1, pause=0.02) as killer,
    ):
        found = list(decoder.rows(range(240)))
    same(found, expected)
    assert killer.kills >= 5


def test_an_image_whose_process_is_always_killed_stops_the_run(
    files: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel kills what takes too much memory: nothing is wrong with the image."""
    spoiled = spoil(files, [2])
    deadly(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(RineCacheError, match=r"was killed 10 times \(signal 9\), most likely .* lower --workers"):
        decode_all(spoiled)


def test_a_shortage_of_memory_stops_the_run(files: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    def harm() -> None:
        raise MemoryError

    spoiled = spoil(files, [2])
    deadly(monkeypatch, harm)
    with pytest.raises(RineCacheError, match=f"out of memory while decoding {spoiled.table['image_id'][2]}; lower"):
        decode_all(spoiled)


def test_a_mistake_in_the_program_is_no_quarantine(files: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(worker, "render", broken)
    with pytest.raises(RuntimeError, match=r"(?s)000\.png.*in broken.*ZeroDivisionError: a mistake"):
        decode_all(files)


@pytest.mark.parametrize("rows_ahead", [2, 12])
def test_an_error_is_raised_at_its_row(files: Manifest, rows_ahead: int) -> None:
    (files.root / files.table["image_id"][6]).write_bytes(b"another length")
    with Decoder(files, [CENTER], 2, rows_ahead, lambda _: [0], None) as decoder:
        decoded = decoder.rows(range(len(files)))
        assert [next(decoded).row for _ in range(6)] == list(range(6))
        with pytest.raises(ManifestError, match="has changed since it was listed"):
            next(decoded)


def test_a_file_of_another_length_than_listed_stops_the_run(files: Manifest) -> None:
    path = files.root / files.table["image_id"][3]
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ManifestError, match=rf"changed since it was listed \({size:,} bytes then, {size - 10:,} now\)"):
        decode_all(files)


@pytest.mark.parametrize(("writes", "error"), [(1, None), (2, "is being written")])
def test_a_file_that_is_written_while_it_is_read_is_read_again_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int, error: str | None
) -> None:
    (tmp_path / "a.png").write_bytes(b"old!")
    left = [b"new!"] * writes
    fstat, calls = os.fstat, []

    def write_in_between(descriptor: int) -> os.stat_result:
        found = fstat(descriptor)
        calls.append(descriptor)
        if len(calls) % 2 and left:  # after the first look, before the bytes are read
            time.sleep(0.01)
            (tmp_path / "a.png").write_bytes(left.pop())
        return found

    monkeypatch.setattr(reading.os, "fstat", write_in_between)
    with pytest.raises(ManifestError, match=error) if error else contextlib.nullcontext():
        assert reading.read_file(tmp_path, "a.png", 4) == b"new!"


def test_a_pipe_is_no_image_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(UnreadableImageError, match="no regular file"):
        reading.read_file(tmp_path, "a.png", 0)


def test_no_more_rows_are_held_than_allowed(files: Manifest) -> None:
    started: list[int] = []

    def rows() -> Iterator[int]:
        for row in range(len(files)):
            started.append(row)
            yield row

    with Decoder(files, [CENTER], 2, 5, lambda _: [0], None) as decoder:
        for taken, _ in enumerate(decoder.rows(rows())):
            assert len(started) <= taken + 1 + 5


def test_processes_are_started_when_there_is_something_to_do(files: Manifest) -> None:
    with Decoder(files, [CENTER], 8, 5, lambda _: [0], None) as decoder:
        assert not multiprocessing.active_children()
        list(decoder.rows([0]))
        assert len(multiprocessing.active_children()) == 1


@pytest.mark.parametrize("raises", [False, True])
def test_a_consumer_that_stops_early_leaves_no_process(
    files: Manifest, monkeypatch: pytest.MonkeyPatch, raises: bool
) -> None:
    spoiled = spoil(files, [4])
    deadly(monkeypatch, lambda: time.sleep(1000))
    start = time.perf_counter()
    with contextlib.suppress(KeyboardInterrupt), Decoder(spoiled, [CENTER], 3, 9, lambda _: [0], None) as decoder:
        for row in decoder.rows(range(len(spoiled))):
            if row.row == 2:
                if raises:
                    raise KeyboardInterrupt
                break
    assert time.perf_counter() - start < 30, "what hangs was not waited for"


def test_processes_that_end_before_they_begin_are_not_started_for_ever(
    files: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        os._exit(4)

    monkeypatch.setattr(worker, "work", broken)
    with pytest.raises(RineCacheError, match=r"end before they begin \(exit status 4, 5 times in a row\)"):
        decode_all(files)


def test_a_system_that_allows_no_more_processes_is_told(files: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_fork(*_: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(multiprocessing.get_context("fork").Process, "start", no_fork)
    with pytest.raises(RineCacheError, match=r"temporarily unavailable \(0 of 2 run\); lower --workers, or raise"):
        decode_all(files)


def test_a_system_that_opens_no_more_files_is_told(files: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_socket() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(process, "socket", SimpleNamespace(socketpair=no_socket))
    with pytest.raises(RineCacheError, match=r"Too many open files \(0 of 2 run\); .* \(ulimit -u, ulimit -n\)"):
        decode_all(files)


def _decode_slowly(manifest: Manifest, workers_of: Any) -> None:
    """Run until killed, having told the numbers of the worker processes once all have something to do."""
    images.decode = lambda content: time.sleep(1000)
    with Decoder(manifest, [CENTER], 3, 9, lambda _: [0], None) as decoder:
        rows = decoder.rows(range(len(manifest)))

        def tell() -> None:
            while sum(bool(held.jobs) for held in list(decoder._pool._processes)) < 3:
                time.sleep(0.02)
            workers_of.send([held.pid for held in decoder._pool._processes])

        threading.Thread(target=tell, daemon=True).start()
        next(rows)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes that are not its own")
def test_workers_end_when_their_parent_is_killed_whatever_they_do(files: Manifest) -> None:
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    parent = context.Process(target=_decode_slowly, args=(files, there))
    parent.start()
    try:
        assert here.poll(60)
        workers = here.recv()
        assert len(workers) == 3
        assert all(map(is_alive, workers))
    finally:
        parent.kill()
        parent.join()
    until = time.monotonic() + 30
    while any(map(is_alive, workers)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(map(is_alive, workers))


def test_a_crop_larger_than_any_buffer_comes_through(tmp_path: Path) -> None:
    (tmp_path / "x" / "0_real").mkdir(parents=True)
    (tmp_path / "x" / "1_fake").mkdir(parents=True)
    for folder in ("0_real", "1_fake"):
        buffer = io.BytesIO()
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8)).save(buffer, "PNG")
        (tmp_path / "x" / folder / "a.png").write_bytes(buffer.getvalue())
    manifest = manifest_of(tmp_path / "x")
    views = [TenCropViewSpec(kind="tencrop", size=800)]
    same(decode_all(manifest, views), alone(manifest, views))


def test_decoding_loads_neither_torch_nor_hdf5() -> None:
    check = "import sys, rine_cache.decoding.worker; sys.exit(bool({'torch', 'h5py', 'polars'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_a_script_without_a_guard_may_decode(tmp_path: Path) -> None:
    """Its processes do not run it again, as those of multiprocessing do."""
    root = write_images(tmp_path / "images", 6)
    script = tmp_path / "script.py"
    script.write_text(
        f"""
from pathlib import Path
from rine_cache.decoding import Decoder
from rine_cache.layouts import list_images
from rine_cache.manifest import build_manifest
from rine_cache.specs.data import DatasetSpec
from rine_cache.specs.encoding import CenterViewSpec

print("once")
root = Path({str(root)!r})
manifest = build_manifest(list_images(DatasetSpec(root=str(root))).table, root)
with Decoder(manifest, [CenterViewSpec(kind="center", size=16)], 2, 4, lambda _: [0], None) as decoder:
    print(sum(row.crops[0] is not None for row in decoder.rows(range(len(manifest)))))
"""
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["once", "6"]
