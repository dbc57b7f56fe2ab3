"""Content that was encoded once is not encoded again: within a cache, and across sealed ones of the same key."""

from __future__ import annotations

import hashlib
import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
from PIL import Image

from rine_cache.cache import ContentIndex, FeatureCache, SealedRows, Status, part_path
from rine_cache.errors import CacheError
from rine_cache.layouts import list_images
from rine_cache.manifest import Manifest, build_manifest
from rine_cache.quarantine import Reason
from rine_cache.specs.data import DatasetSpec
from tests.conftest import SIZE, StandInEncoder
from tests.kills import kills_until_done
from tests.test_extract import TRAIN, Slow, manifest_of, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from tests.conftest import MadeCache

SLAB_ROWS = 16  # four batches of four


class Recording(StandInEncoder):
    """Remembers the crops it encoded, padding apart, and stops after a number of passes."""

    def __init__(self, passes_until_stopped: int = -1, **settings: Any) -> None:
        super().__init__(**settings)
        self.seen: list[bytes] = []
        self._passes_until_stopped = passes_until_stopped

    def encode(self, crops: np.ndarray) -> Any:
        if self.passes == self._passes_until_stopped:
            raise CacheError("stopped")
        self.seen += [crop.tobytes() for crop in crops if crop.any()]
        return super().encode(crops)


def center_crop(path: Path) -> bytes:
    return np.asarray(Image.open(path))[2 : 2 + SIZE, 3 : 3 + SIZE].tobytes()


def assert_saw(encoder: Recording, root: Path, image_ids: Iterable[str]) -> None:
    """Check that the encoder was given these images' centre crops, each once, and no other."""
    assert sorted(encoder.seen) == sorted(center_crop(root / image_id) for image_id in image_ids)


def copy_image(root: Path, source: str, target: str) -> str:
    shutil.copy(root / source, root / target)
    return target


def rows_by_id(manifest: Manifest) -> dict[str, int]:
    return {image_id: row for row, image_id in enumerate(manifest.table["image_id"])}


def assert_rows_equal(cache: FeatureCache, first: int, second: int) -> None:
    np.testing.assert_array_equal(cache.features[:, first], cache.features[:, second])
    np.testing.assert_array_equal(cache.embedding[first], cache.embedding[second])
    for name, table in cache.tables.items():
        np.testing.assert_array_equal(table[first], table[second], err_msg=name)


def flip_byte(path: Path, dataset: str, position: int) -> None:
    """Flip a byte of a dataset, `position` bytes from its start."""
    with h5py.File(path, "r") as file:
        offset = file[dataset].id.get_offset() + position
    with path.open("r+b") as raw:
        raw.seek(offset)
        (byte,) = raw.read(1)
        raw.seek(offset)
        raw.write(bytes([byte ^ 1]))


@pytest.fixture
def duplicates(make_images: Callable[..., Path]) -> tuple[Path, list[tuple[str, str]]]:
    """Write 30 images and copies of some: in the same batch, in the same slab, and in the next."""
    root = make_images(per_class=10)
    names = [
        ("0_real/000.png", "0_real/000-again.png"),
        ("0_real/001.png", "1_fake/gen-a/000-again.png"),
        ("0_real/002.png", "1_fake/gen-b/000-again.png"),
        ("0_real/002.png", "1_fake/gen-b/001-again.png"),
        ("1_fake/gen-b/000.png", "1_fake/gen-b/009-again.png"),
    ]
    return root, [(source, copy_image(root, source, target)) for source, target in names]


def test_equal_content_is_encoded_once_and_its_rows_are_equal(
    duplicates: tuple[Path, list[tuple[str, str]]], tmp_path: Path
) -> None:
    root, pairs = duplicates
    manifest, encoder = manifest_of(root), Recording()
    rows = rows_by_id(manifest)
    slabs = [(rows[source] // SLAB_ROWS, rows[copy] // SLAB_ROWS) for source, copy in pairs]
    assert slabs == [(0, 0), (0, 0), (0, 1), (0, 1), (1, 2)]
    report = run(manifest, tmp_path / "x.h5", encoder)
    assert (report.images, report.encoded, report.copied) == (35, 30, 5)
    assert_saw(encoder, root, set(rows) - {copy for _, copy in pairs})
    found = FeatureCache(tmp_path / "x.h5")
    assert found.readable.all()
    for source, copy in pairs:
        assert_rows_equal(found, rows[source], rows[copy])


def test_equal_content_gives_equal_random_crops(duplicates: tuple[Path, list[tuple[str, str]]], tmp_path: Path) -> None:
    root, pairs = duplicates
    manifest = manifest_of(root)
    assert run(manifest, tmp_path / "x.h5", view=TRAIN).copied == 5
    found, rows = FeatureCache(tmp_path / "x.h5"), rows_by_id(manifest)
    for source, copy in pairs:
        assert_rows_equal(found, rows[source], rows[copy])
        (root / copy).unlink()
    run(manifest_of(root), tmp_path / "without.h5", view=TRAIN)
    kept = [row for image_id, row in rows.items() if "again" not in image_id]
    np.testing.assert_array_equal(found.features[:, kept], FeatureCache(tmp_path / "without.h5").features)


@pytest.mark.parametrize("passes", range(8))
def test_content_of_slabs_that_were_done_is_copied_after_a_resume(
    duplicates: tuple[Path, list[tuple[str, str]]], tmp_path: Path, passes: int
) -> None:
    root, _ = duplicates
    manifest = manifest_of(root)
    run(manifest, tmp_path / "whole.h5")
    stopped, resumed = Recording(passes_until_stopped=passes), Recording()
    with pytest.raises(CacheError, match="stopped"):
        run(manifest, tmp_path / "x.h5", stopped)
    with h5py.File(part_path(tmp_path / "x.h5"), "r") as part:
        status, content = part["status"][:], part["content_sha256"][:]
    done = np.flatnonzero(status)
    # 14 contents in each of the first two slabs, two in the last; a batch in flight is lost.
    assert len(done) == SLAB_ROWS * (0 if passes < 5 else 1)
    report = run(manifest, tmp_path / "x.h5", resumed)
    known = {digest.tobytes() for digest in content[done]}
    assert report.encoded == len(resumed.seen) == 30 - len(known)
    assert report.encoded + report.copied == 35 - len(done)
    assert (tmp_path / "x.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_copies_of_an_unreadable_file_are_each_quarantined(
    make_images: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_images(per_class=10)
    for name in ("0_real/a.png", "0_real/b.png", "1_fake/gen-b/a.png"):
        (root / name).write_text("not an image")
    with caplog.at_level(logging.WARNING, "rine_cache"):
        report = run(manifest_of(root), tmp_path / "x.h5")
    assert (report.encoded, report.copied, report.quarantined) == (30, 0, {"not_an_image": 3})
    assert sum("quarantined" in message for message in caplog.messages) == 3


def test_copies_of_an_image_whose_features_overflow_are_each_quarantined(
    make_images: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_images(per_class=10)
    overflowing = center_crop(root / "0_real/000.png")
    names = ["0_real/000.png", *(copy_image(root, "0_real/000.png", f"{to}/copy.png") for to in ("0_real", "1_fake"))]

    class Overflowing(StandInEncoder):
        def encode(self, crops: np.ndarray) -> Any:
            encoded = super().encode(crops)
            for row, crop in enumerate(crops):
                if crop.tobytes() == overflowing:
                    encoded.embedding[row, 0] = np.nan
            return encoded

    manifest = manifest_of(root)
    report = run(manifest, tmp_path / "x.h5", Overflowing())
    assert report.quarantined == {"not_finite": 3}
    assert report.encoded + report.copied == 32
    found, rows = FeatureCache(tmp_path / "x.h5"), [rows_by_id(manifest)[name] for name in names]
    assert {int(reason) for reason in found.reason[rows]} == {Reason.NOT_FINITE}
    assert not found.features[:, rows].any()
    assert not found.embedding[rows].any()
    assert found.tables["width"][rows].tolist() == [SIZE + 6] * 3, "its facts are known"
    again = run(manifest, tmp_path / "y.h5", reuse=[tmp_path / "x.h5"])
    assert (again.encoded, again.copied, again.quarantined) == (1, 31, {}), "what is quarantined is not reused"


@pytest.mark.parametrize("view", ["center", "train"])
def test_a_data_set_that_grew_encodes_only_its_new_images(
    make_images: Callable[..., Path], tmp_path: Path, view: str
) -> None:
    settings = {"view": TRAIN} if view == "train" else {}
    root, output = make_images(per_class=10), tmp_path / "x.h5"
    run(manifest_of(root), output, **settings)
    new = [f"{folder}/{name}.png" for folder, name in (("0_real", "0000"), ("1_fake/gen-a", "005a"), ("1_fake", "z"))]
    rng = np.random.default_rng(1)
    for name in new:
        Image.fromarray(rng.integers(0, 256, (SIZE + 4, SIZE + 6, 3), np.uint8)).save(root / name)
    manifest, encoder = manifest_of(root), Recording()
    assert len(manifest) == 33
    report = run(manifest, output, encoder, reuse=[output], **settings)
    assert (report.encoded, report.copied) == (3, 30)
    if view == "center":
        assert_saw(encoder, root, new)
    run(manifest, tmp_path / "fresh.h5", **settings)
    assert output.read_bytes() == (tmp_path / "fresh.h5").read_bytes()


def test_a_data_set_that_lost_images_encodes_none(make_images: Callable[..., Path], tmp_path: Path) -> None:
    root, output = make_images(per_class=10), tmp_path / "x.h5"
    run(manifest_of(root), output)
    (root / "0_real" / "003.png").unlink()
    report = run(manifest_of(root), output, reuse=[output])
    assert (report.encoded, report.copied) == (0, 29)
    run(manifest_of(root), tmp_path / "fresh.h5")
    assert output.read_bytes() == (tmp_path / "fresh.h5").read_bytes()


def test_rows_of_other_data_sets_are_copied(make_images: Callable[..., Path], tmp_path: Path) -> None:
    first, second = make_images("first", 6, seed=1), make_images("second", 6, seed=2)
    run(manifest_of(first), tmp_path / "first.h5")
    run(manifest_of(second), tmp_path / "second.h5")
    third = make_images("third", 2, seed=3)
    own = [f"{folder}/{index:03d}.png" for folder in ("0_real", "1_fake/gen-a", "1_fake/gen-b") for index in range(2)]
    for root in (first, second):
        shutil.copytree(root / "1_fake", third / "1_fake" / root.name)
    manifest, encoder = manifest_of(third), Recording()
    report = run(manifest, tmp_path / "third.h5", encoder, reuse=[tmp_path / "first.h5", tmp_path / "second.h5"])
    assert (report.encoded, report.copied) == (6, 24)
    assert_saw(encoder, third, own)
    run(manifest, tmp_path / "fresh.h5")
    assert (tmp_path / "third.h5").read_bytes() == (tmp_path / "fresh.h5").read_bytes()


def test_a_cache_of_another_key_is_never_used(make_images: Callable[..., Path], tmp_path: Path) -> None:
    manifest = manifest_of(make_images(per_class=4))
    bfloat = StandInEncoder()
    bfloat.compute_dtype = "bfloat16"
    others: list[tuple[StandInEncoder, dict[str, Any]]] = [
        (StandInEncoder(), {"view": TRAIN}),
        (StandInEncoder(), {"tap": "block"}),
        (StandInEncoder(seed=1), {}),
        (StandInEncoder(batch_size=8), {}),
        (bfloat, {}),
    ]
    paths = [tmp_path / f"{number}.h5" for number in range(len(others))]
    for path, (encoder, changes) in zip(paths, others, strict=True):
        run(manifest, path, encoder, **changes)
    report = run(manifest, tmp_path / "x.h5", reuse=paths)
    assert (report.encoded, report.copied) == (12, 0)
    assert run(manifest, tmp_path / "y.h5", reuse=[*paths, tmp_path / "x.h5"]).copied == 12, "nor is it in the way"


def test_files_that_are_no_sealed_cache_are_passed_over(make_cache: Callable[..., MadeCache], tmp_path: Path) -> None:
    made = make_cache(per_class=4)
    whole = made.features.read_bytes()
    unsealed, cut, damaged, foreign, empty = (tmp_path / f"{name}.h5" for name in ("part", "cut", "bad", "cat", "nil"))
    with pytest.raises(CacheError):
        run(made.manifest, unsealed, Recording(passes_until_stopped=2))
    part_path(unsealed).rename(unsealed)
    cut.write_bytes(whole[: len(whole) // 2])
    damaged.write_bytes(whole[:600] + bytes([whole[600] ^ 1]) + whole[601:])  # after the user block: a header of HDF5
    foreign.write_bytes(b"no cache at all")
    empty.touch()
    reuse = [unsealed, cut, damaged, foreign, empty, tmp_path / "none.h5", tmp_path]
    report = run(made.manifest, tmp_path / "x.h5", reuse=reuse)
    assert (report.encoded, report.copied) == (12, 0)
    assert (tmp_path / "x.h5").read_bytes() == whole


@pytest.mark.parametrize(("dataset", "row_bytes"), [("features", 8 * 2), ("embedding", 5 * 2), ("width", 4)])
def test_images_of_a_damaged_slab_are_encoded_again_with_one_warning(
    make_cache: Callable[..., MadeCache],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    dataset: str,
    row_bytes: int,
) -> None:
    made = make_cache(per_class=32)  # six slabs
    flip_byte(made.features, dataset, row_bytes * (2 * SLAB_ROWS + 3))
    # Each next image lies in another slab, so that the slabs at hand change all the time.
    table = made.manifest.table
    order = sorted(range(len(table)), key=lambda row: row % SLAB_ROWS)
    manifest, encoder = build_manifest(table[order], made.manifest.root), Recording()
    with caplog.at_level(logging.WARNING, "rine_cache"):
        report = run(manifest, tmp_path / "x.h5", encoder, reuse=[made.features])
    assert ["slab 2 is damaged" in message for message in caplog.messages] == [True]
    assert (report.encoded, report.copied) == (SLAB_ROWS, 80)
    assert_saw(encoder, manifest.root, table["image_id"][2 * SLAB_ROWS : 3 * SLAB_ROWS])
    run(manifest, tmp_path / "fresh.h5")
    assert (tmp_path / "x.h5").read_bytes() == (tmp_path / "fresh.h5").read_bytes()


def test_another_cache_gives_the_row_that_a_damaged_one_does_not(
    make_cache: Callable[..., MadeCache], tmp_path: Path
) -> None:
    made = make_cache(per_class=4)
    shutil.copy(made.features, tmp_path / "sound.h5")
    flip_byte(made.features, "features", 0)
    assert run(made.manifest, tmp_path / "x.h5", reuse=[made.features, tmp_path / "sound.h5"]).encoded == 0


def test_the_file_is_the_same_whether_rows_are_copied_or_encoded_and_whatever_the_workers(
    duplicates: tuple[Path, list[tuple[str, str]]], tmp_path: Path
) -> None:
    root, _ = duplicates
    (root / "0_real" / "text.png").write_text("not an image")
    manifest = manifest_of(root)
    half = build_manifest(manifest.table[::2], root)
    run(manifest, tmp_path / "whole.h5", view=TRAIN)
    run(half, tmp_path / "half.h5", view=TRAIN)
    contents = set()
    for reuse in ([], ["half.h5"], ["whole.h5"], ["half.h5", "whole.h5"]):
        for workers in (1, 2, 5):
            output = tmp_path / f"{'-'.join(reuse)}-{workers}.h5"
            run(manifest, output, view=TRAIN, workers=workers, reuse=[tmp_path / name for name in reuse])
            contents.add(output.read_bytes())
    assert contents == {(tmp_path / "whole.h5").read_bytes()}


def _extract_slowly(root: Path, output: Path, reuse: list[Path]) -> None:
    run(manifest_of(root), output, Slow(), view=TRAIN, reuse=reuse)


def test_killed_at_random_moments_among_copies_the_file_is_byte_identical(
    make_images: Callable[..., Path], tmp_path: Path
) -> None:
    """The output grows out of a sealed cache of its own, beside that of another data set."""
    root, other = make_images(per_class=30), make_images("other", per_class=6, seed=1)
    output = tmp_path / "killed.h5"
    run(manifest_of(other), tmp_path / "other.h5", view=TRAIN)
    run(build_manifest(manifest_of(root).table[::5], root), output, view=TRAIN)
    shutil.copytree(other / "1_fake", root / "1_fake" / "other")
    for index in range(0, 30, 3):
        copy_image(root, f"0_real/{index:03d}.png", f"1_fake/gen-b/{29 - index:03d}-again.png")
    run(manifest_of(root), tmp_path / "whole.h5", view=TRAIN)
    arguments = (root, output, [output, tmp_path / "other.h5"])
    assert kills_until_done(_extract_slowly, arguments, longest_s=0.15, most=30) >= 3
    assert output.read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert not part_path(output).exists()


def test_digests_are_found_as_by_a_dictionary() -> None:
    rng = np.random.default_rng(0)
    digests = rng.integers(0, 256, (600, 32), np.uint8)
    digests[200:400, :8] = digests[200, :8]  # 200 contents share their first eight bytes,
    digests[300:400] = digests[200:300]  # and 100 of them stand twice,
    digests[500:] = digests[:100]  # as do 100 others
    rows = np.flatnonzero(rng.random(600) < 0.7)
    naive: dict[bytes, int] = {}
    for row in rows:
        naive.setdefault(digests[row].tobytes(), int(row))
    index = ContentIndex(digests, rows)
    for digest in digests:
        assert index.find(digest.tobytes()) == naive.get(digest.tobytes())
    assert any(naive.get(digest.tobytes()) is None for digest in digests)
    assert index.find(digests[200, :8].tobytes() + bytes(24)) is None
    assert [index.find(bytes([byte]) * 32) for byte in (0, 255)] == [None, None]
    assert all(index._prefixes[before] <= index._prefixes[after] for before, after in pairwise(range(len(rows))))


def test_an_index_of_no_row_finds_nothing() -> None:
    index = ContentIndex(np.zeros((3, 32), np.uint8), np.array([], np.int64))
    assert index.find(bytes(32)) is None


def test_rows_are_found_as_by_a_dictionary_in_the_first_cache_that_has_them(
    make_images: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_images(per_class=20)
    (root / "0_real" / "text.png").write_text("not an image")
    table = list_images(DatasetSpec(root=str(root))).table
    paths = [tmp_path / f"{number}.h5" for number in range(3)]
    for number, path in enumerate(paths):
        run(build_manifest(table[number * 12 : number * 12 + 30], root), path)
    caches = [FeatureCache(path) for path in paths]
    naive: dict[bytes, tuple[FeatureCache, int]] = {}
    for cache in caches:
        for row in np.flatnonzero(cache.status == Status.DONE):
            naive.setdefault(cache.content_sha256[row].tobytes(), (cache, int(row)))
    sealed = SealedRows(paths, caches[0].fingerprint)
    digests = [digest.tobytes() for cache in caches for digest in cache.content_sha256]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(sealed.find, digests * 5))
    for digest, slab in zip(digests * 5, found, strict=True):
        assert (slab is None) == (digest not in naive)
        if slab is not None:
            cache, row = naive[digest]
            np.testing.assert_array_equal(slab.features[:, 0], cache.features[:, row])
            np.testing.assert_array_equal(slab.embedding[0], cache.embedding[row])
            for name, values in slab.tables.items():
                np.testing.assert_array_equal(values[0], cache.tables[name][row], err_msg=name)
    unreadable = hashlib.sha256(b"not an image").digest()
    assert {digest for digest, slab in zip(digests * 5, found, strict=True) if slab is None} == {unreadable}


@pytest.mark.parametrize("change", ["deleted", "replaced"])
def test_a_cache_that_is_deleted_or_replaced_meanwhile_still_gives_its_own_rows(
    make_cache: Callable[..., MadeCache], change: str
) -> None:
    """Another job may seal a new cache of a data set while this one copies from the old."""
    made, other = make_cache("first", seed=1), make_cache("second", seed=2)
    opened = FeatureCache(made.features)
    features = np.array(opened.features)
    sealed = SealedRows([made.features], opened.fingerprint)
    if change == "deleted":
        made.features.unlink()
    else:
        other.features.replace(made.features)
    for row, digest in enumerate(opened.content_sha256):
        found = sealed.find(digest.tobytes())
        assert found is not None
        np.testing.assert_array_equal(found.features[:, 0], features[:, row])
    assert list(opened.damaged_slabs()) == []
