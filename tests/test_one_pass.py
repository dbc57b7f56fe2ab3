"""Several caches of one data set from one pass over its files."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rine_cache.cache import FeatureCache, join_shards, merge_shards, open_writer, part_path
from rine_cache.errors import CacheBusyError, CacheError, ConfigError
from rine_cache.extract import Target, extract
from rine_cache.extraction_plan import plan_extraction
from rine_cache.specs.encoding import CenterViewSpec, JpegSpec, PatchesViewSpec, TenCropViewSpec, ViewSpec
from tests.conftest import CENTER, SIZE, StandInEncoder
from tests.test_extract import TRAIN, manifest_of, run
from tests.test_reuse import Recording, copy_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

JPEG = CenterViewSpec(kind="center", size=SIZE, prepare=(JpegSpec(op="jpeg", quality=30),))
TEN = TenCropViewSpec(kind="tencrop", size=SIZE)
VIEWS: dict[str, ViewSpec] = {"center": CENTER, "train": TRAIN, "jpeg": JPEG, "ten": TEN}


def messy_images(make_images: Callable[..., Path]) -> Path:
    """Write images among which are copies and files that cannot be read."""
    root = make_images(per_class=9)
    copy_image(root, "0_real/001.png", "1_fake/gen-b/003-again.png")
    copy_image(root, "0_real/001.png", "0_real/001-again.png")
    (root / "0_real" / "text.png").write_text("not an image")
    (root / "1_fake" / "gen-a" / "empty.png").touch()
    return root


def test_caches_made_in_one_pass_are_those_made_one_by_one(make_images: Callable[..., Path], tmp_path: Path) -> None:
    manifest = manifest_of(messy_images(make_images))
    encoders = {"a": StandInEncoder(), "b": StandInEncoder(batch_size=7, seed=1, blocks=5)}
    together = tmp_path / "together"
    targets = {
        f"{name}-{tap}-{view}": Target(encoder, tap, VIEWS[view], together / f"{name}-{tap}-{view}.h5")
        for (name, encoder), tap, view in itertools.product(encoders.items(), ("ln_2", "block"), VIEWS)
    }
    reports = extract(manifest, list(targets.values()), workers=2)
    for (name, target), report in zip(targets.items(), reports, strict=True):
        alone = run(manifest, tmp_path / f"{name}.h5", target.encoder, tap=target.tap, view=target.view)
        assert target.output.read_bytes() == (tmp_path / f"{name}.h5").read_bytes(), name
        assert (report.encoded, report.copied) == (alone.encoded, alone.copied) == (27, 2)
        assert report.quarantined == alone.quarantined == {"empty": 1, "not_an_image": 1}


def test_both_taps_cost_one_forward_pass(make_images: Callable[..., Path], tmp_path: Path) -> None:
    manifest, encoder = manifest_of(make_images(per_class=8)), StandInEncoder()
    extract(
        manifest,
        [Target(encoder, tap, CENTER, tmp_path / f"{tap}.h5") for tap in ("ln_2", "block")],
        workers=1,
    )
    assert encoder.passes == 24 / encoder.batch_size


def test_crops_of_several_draws_fill_whole_batches(make_images: Callable[..., Path], tmp_path: Path) -> None:
    """15 images of ten crops are 150 crops: 38 batches of four, the last one padded."""
    manifest, encoder = manifest_of(make_images(per_class=5)), StandInEncoder()
    run(manifest, tmp_path / "x.h5", encoder, view=TEN)
    assert encoder.passes == 38
    found = FeatureCache(tmp_path / "x.h5")
    assert found.shape.slab_rows == 1, "a slab is about four batches of crops"
    for draw in range(10):
        assert not np.array_equal(found.features[:, :, draw], found.features[:, :, (draw + 1) % 10])


def test_a_view_that_cannot_take_an_image_quarantines_it_in_its_own_cache_only(
    make_images: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    root = make_images(per_class=3)
    Image.new("RGB", (65_600, 1)).save(root / "0_real" / "long.png")  # longer than JPEG can be
    targets = [Target(StandInEncoder(), "ln_2", view, tmp_path / f"{view.prepare}.h5") for view in (CENTER, JPEG)]
    whole, limited = extract(manifest_of(root), targets, workers=2)
    assert (whole.quarantined, limited.quarantined) == ({}, {"too_large": 1})
    assert (whole.encoded, limited.encoded) == (10, 9)


def test_what_is_sealed_is_left_and_the_rest_is_made(make_images: Callable[..., Path], tmp_path: Path) -> None:
    manifest, encoder = manifest_of(make_images(per_class=6)), Recording()
    first = Target(encoder, "ln_2", CENTER, tmp_path / "first.h5")
    extract(manifest, [first], workers=1)
    before = (tmp_path / "first.h5").stat()
    encoder.passes = 0
    reports = extract(manifest, [first, Target(encoder, "ln_2", JPEG, tmp_path / "second.h5")], workers=1)
    assert [report.encoded for report in reports] == [0, 18]
    assert encoder.passes == 5
    after = (tmp_path / "first.h5").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)


@pytest.mark.parametrize("passes", range(0, 40, 3))
def test_stopped_at_any_pass_and_resumed_every_cache_is_the_same(
    make_images: Callable[..., Path], tmp_path: Path, passes: int
) -> None:
    manifest = manifest_of(messy_images(make_images))

    def targets(folder: str, small: StandInEncoder) -> list[Target]:
        large = StandInEncoder(batch_size=7, seed=1)
        return [
            Target(small, "ln_2", CENTER, tmp_path / folder / "a.h5"),
            Target(small, "block", CENTER, tmp_path / folder / "b.h5"),
            Target(small, "ln_2", TRAIN, tmp_path / folder / "c.h5"),
            Target(large, "ln_2", CENTER, tmp_path / folder / "d.h5"),
        ]

    extract(manifest, targets("whole", StandInEncoder()), workers=2)
    with contextlib.suppress(CacheError):  # of fewer passes than that it needs
        extract(manifest, targets("stopped", Recording(passes_until_stopped=passes)), workers=2)
    extract(manifest, targets("stopped", StandInEncoder()), workers=2)
    for name in "abcd":
        assert (tmp_path / "whole" / f"{name}.h5").read_bytes() == (tmp_path / "stopped" / f"{name}.h5").read_bytes()


def test_content_known_to_one_encoder_only_is_copied_there_and_encoded_for_the_other(
    make_images: Callable[..., Path], tmp_path: Path
) -> None:
    manifest = manifest_of(make_images(per_class=5))
    known, new = StandInEncoder(), StandInEncoder(seed=1)
    run(manifest, tmp_path / "known.h5", known)
    targets = [
        Target(encoder, "ln_2", CENTER, tmp_path / f"{name}.h5", reuse=[tmp_path / "known.h5"])
        for name, encoder in (("old", known), ("new", new))
    ]
    old_report, new_report = extract(manifest, targets, workers=1)
    assert (old_report.encoded, old_report.copied) == (0, 15)
    assert (new_report.encoded, new_report.copied) == (15, 0)
    assert (tmp_path / "old.h5").read_bytes() == (tmp_path / "known.h5").read_bytes()


def test_sparse_new_images_are_packed_into_full_batches(make_images: Callable[..., Path], tmp_path: Path) -> None:
    """One new image in each slab: they wait for each other, across slabs."""
    root = make_images(per_class=32)  # six slabs of 16
    manifest = manifest_of(root)
    old = manifest.table.filter([row % 16 != 5 for row in range(len(manifest))])
    run(type(manifest)(old, root, "", "", {}), tmp_path / "old.h5")
    encoder = Recording()
    report = run(manifest, tmp_path / "x.h5", encoder, reuse=[tmp_path / "old.h5"])
    assert (report.encoded, report.copied) == (6, 90)
    assert encoder.passes == 2
    run(manifest, tmp_path / "fresh.h5")
    assert (tmp_path / "x.h5").read_bytes() == (tmp_path / "fresh.h5").read_bytes()


def test_slabs_that_wait_are_bounded(
    make_images: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory comes before full batches: one new image in each slab, and two slabs at most that wait."""
    monkeypatch.setattr("rine_cache.slab_filler.OPEN_SLABS", 2)
    monkeypatch.setattr("rine_cache.slab_filler.OPEN_BYTES", 0)
    root = make_images(per_class=32)
    manifest = manifest_of(root)
    old = manifest.table.filter([row % 16 != 5 for row in range(len(manifest))])
    run(type(manifest)(old, root, "", "", {}), tmp_path / "old.h5")
    encoder = Recording()
    run(manifest, tmp_path / "x.h5", encoder, reuse=[tmp_path / "old.h5"])
    assert encoder.passes > 2
    run(manifest, tmp_path / "fresh.h5")
    assert (tmp_path / "x.h5").read_bytes() == (tmp_path / "fresh.h5").read_bytes()


def test_two_caches_in_one_place_are_refused(make_images: Callable[..., Path], tmp_path: Path) -> None:
    manifest, encoder = manifest_of(make_images(per_class=1)), StandInEncoder()
    targets = [Target(encoder, tap, CENTER, tmp_path / "x.h5") for tap in ("ln_2", "block")]
    with pytest.raises(ConfigError, match="two caches would be written to"):
        extract(manifest, targets, workers=1)
    assert not part_path(tmp_path / "x.h5").exists()


def test_one_cache_that_another_process_writes_stops_all(make_images: Callable[..., Path], tmp_path: Path) -> None:
    manifest, encoder = manifest_of(make_images(per_class=2)), StandInEncoder()
    targets = [Target(encoder, tap, CENTER, tmp_path / f"{tap}.h5") for tap in ("ln_2", "block")]
    (plan,) = plan_extraction(manifest, targets[1:], None)
    with (
        open_writer(plan.path, plan.shape, plan.identity),
        pytest.raises(CacheBusyError, match=r"block\.h5\.part is being written by another process"),
    ):
        extract(manifest, targets, workers=1)
    extract(manifest, targets, workers=1)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("view", ["center", "train", "patches"])
def test_shards_hold_the_rows_of_the_whole(
    make_images: Callable[..., Path], tmp_path: Path, count: int, view: str
) -> None:
    views = VIEWS | {"patches": PatchesViewSpec(kind="patches", size=SIZE, rows=2, columns=2)}
    manifest = manifest_of(messy_images(make_images))
    run(manifest, tmp_path / "whole.h5", view=views[view])
    whole = FeatureCache(tmp_path / "whole.h5")
    row = 0
    for number in range(1, count + 1):
        report = run(manifest, tmp_path / "x.h5", view=views[view], shard=(number, count))
        if not report.images:
            assert not report.output.exists()
            continue
        shard = FeatureCache(report.output)
        rows = slice(row, row + shard.shape.images)
        np.testing.assert_array_equal(shard.features, whole.features[:, rows])
        np.testing.assert_array_equal(shard.embedding, whole.embedding[rows])
        for name, table in shard.tables.items():
            np.testing.assert_array_equal(table, whole.tables[name][rows], err_msg=name)
        row = rows.stop
    assert row == len(manifest)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_joined_shards_are_read_as_the_whole_is(make_images: Callable[..., Path], tmp_path: Path, count: int) -> None:
    manifest = manifest_of(messy_images(make_images))
    run(manifest, tmp_path / "whole.h5", view=TRAIN)
    for number in range(1, count + 1):
        run(manifest, tmp_path / "x.h5", view=TRAIN, shard=(number, count))
    join_shards(tmp_path / "x.h5", count)
    whole, found = FeatureCache(tmp_path / "whole.h5"), FeatureCache(tmp_path / "x.h5")
    np.testing.assert_array_equal(found.features, whole.features)
    np.testing.assert_array_equal(found.embedding, whole.embedding)
    rows = np.random.default_rng(0).permutation(len(manifest))
    for block in range(3):
        np.testing.assert_array_equal(found.features[block, rows, 1], whole.features[block, rows, 1])
    for name, table in found.tables.items():
        np.testing.assert_array_equal(table, whole.tables[name], err_msg=name)
    same = ("shape", "fingerprint", "content_digest", "identity")
    assert [getattr(found, name) for name in same] == [getattr(whole, name) for name in same]
    found.require_manifest(manifest.listing_digest, tmp_path / "m.parquet")
    assert list(found.damaged_slabs()) == []
    for slab in range(found.shape.slabs):
        ours, theirs = found.read_slab(slab), whole.read_slab(slab)
        assert ours is not None
        assert theirs is not None
        np.testing.assert_array_equal(ours.checksums(), theirs.checksums())
    merge_shards(found, tmp_path / "merged.h5")
    assert (tmp_path / "merged.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert run(manifest, tmp_path / "x.h5", view=TRAIN).encoded == 0, "it is up to date"
    assert run(manifest, tmp_path / "y.h5", view=TRAIN, reuse=[tmp_path / "x.h5"]).encoded == 0
    assert (tmp_path / "y.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
