from __future__ import annotations

import logging
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from rine_cache.cache import FeatureCache, Status, part_path
from rine_cache.errors import CacheError, CacheMismatchError, ManifestError
from rine_cache.extract import ParentGoneError, _ParentGuard, extract
from rine_cache.layouts import list_images
from rine_cache.manifest import Manifest, build_manifest
from rine_cache.quarantine import Reason
from rine_cache.specs.data import DatasetSpec
from rine_cache.specs.encoding import CenterViewSpec, TrainViewSpec
from tests.conftest import CENTER, SIZE, StandInEncoder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TRAIN = TrainViewSpec(kind="train", size=SIZE, draws=3)


def manifest_of(root: Path) -> Manifest:
    return build_manifest(list_images(DatasetSpec(root=str(root))).table, root)


def run(manifest: Manifest, output: Path, encoder: StandInEncoder | None = None, **changes: Any) -> Any:
    arguments: dict[str, Any] = {"tap": "ln_2", "view": CENTER, "output": output, "workers": 2, **changes}
    return extract(manifest, encoder or StandInEncoder(), **arguments)


def test_every_row_equals_encoding_its_image_alone(make_images: Callable[..., Path], tmp_path: Path) -> None:
    manifest = manifest_of(make_images(per_class=7))
    run(manifest, tmp_path / "x.h5")
    found = FeatureCache(tmp_path / "x.h5")
    encoder = StandInEncoder()
    for row, image_id in enumerate(manifest.table["image_id"]):
        pixels = np.asarray(Image.open(manifest.root / image_id))
        crop = pixels[2 : 2 + SIZE, 3 : 3 + SIZE]
        alone = encoder.encode(np.stack([crop] * encoder.batch_size))
        np.testing.assert_array_equal(found.features[:, row, 0], alone.tokens["ln_2"][:, 0])
        np.testing.assert_array_equal(found.embedding[row, 0], alone.embedding[0])
        assert (found.tables["height"][row], found.tables["width"][row]) == pixels.shape[:2]
    assert set(found.tables["format"].tolist()) == {b"PNG"}


def test_the_block_tap_is_kept_when_it_is_asked_for(make_images: Callable[..., Path], tmp_path: Path) -> None:
    manifest = manifest_of(make_images(per_class=2))
    run(manifest, tmp_path / "a.h5")
    run(manifest, tmp_path / "b.h5", tap="block")
    first, second = FeatureCache(tmp_path / "a.h5"), FeatureCache(tmp_path / "b.h5")
    np.testing.assert_array_equal(second.features, first.features + np.float16(1))
    assert second.identity.key["tap"] == "block"


def test_workers_change_no_byte(make_images: Callable[..., Path], tmp_path: Path) -> None:
    manifest = manifest_of(make_images(per_class=9))
    for workers in (1, 2, 5):
        run(manifest, tmp_path / f"{workers}.h5", view=TRAIN, workers=workers)
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "2.h5").read_bytes() == (tmp_path / "5.h5").read_bytes()


def test_random_views_depend_on_content_not_on_order(make_images: Callable[..., Path], tmp_path: Path) -> None:
    root = make_images(per_class=5)
    table = list_images(DatasetSpec(root=str(root))).table
    run(build_manifest(table, root), tmp_path / "a.h5", view=TRAIN)
    run(build_manifest(table[::-1], root), tmp_path / "b.h5", view=TRAIN)
    forward, backward = FeatureCache(tmp_path / "a.h5"), FeatureCache(tmp_path / "b.h5")
    np.testing.assert_array_equal(forward.features, backward.features[:, ::-1])


def test_a_view_of_several_draws_gives_several_rows_of_features(
    make_images: Callable[..., Path], tmp_path: Path
) -> None:
    run(manifest_of(make_images(per_class=3)), tmp_path / "x.h5", view=TRAIN)
    found = FeatureCache(tmp_path / "x.h5")
    assert found.features.shape == (3, 9, 3, 8)
    assert not np.array_equal(found.features[:, :, 0], found.features[:, :, 1])


def test_unreadable_images_are_quarantined_with_their_reason_and_stop_nothing(
    make_images: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_images(per_class=3)
    (root / "0_real" / "empty.jpg").write_bytes(b"")
    (root / "0_real" / "text.jpg").write_text("not an image")
    whole = (root / "0_real" / "000.png").read_bytes()
    (root / "1_fake" / "gen-a" / "cut.png").write_bytes(whole[: len(whole) // 2])
    manifest = manifest_of(root)
    (root / "1_fake" / "gen-b" / "000.png").unlink()
    with caplog.at_level(logging.WARNING, "rine_cache"):
        report = run(manifest, tmp_path / "x.h5")
    assert report.quarantined == {"damaged": 1, "empty": 1, "missing": 1, "not_an_image": 1}
    found = FeatureCache(tmp_path / "x.h5")
    by_id = dict(zip(manifest.table["image_id"], zip(found.status, found.reason, strict=True), strict=True))
    assert by_id["0_real/empty.jpg"] == (Status.UNREADABLE, Reason.EMPTY)
    assert by_id["0_real/text.jpg"] == (Status.UNREADABLE, Reason.NOT_AN_IMAGE)
    assert by_id["1_fake/gen-a/cut.png"] == (Status.UNREADABLE, Reason.DAMAGED)
    assert by_id["1_fake/gen-b/000.png"] == (Status.UNREADABLE, Reason.MISSING)
    assert not found.features[:, ~found.readable].any()
    assert found.readable.sum() == len(manifest) - 4
    assert sum("quarantined" in message for message in caplog.messages) == 4


def test_features_beyond_float16_quarantine_their_image(make_images: Callable[..., Path], tmp_path: Path) -> None:
    class Overflowing(StandInEncoder):
        def encode(self, crops: np.ndarray) -> Any:
            encoded = super().encode(crops)
            encoded.tokens["ln_2"][1, 2] = np.inf
            return encoded

    report = run(manifest_of(make_images(per_class=4)), tmp_path / "x.h5", Overflowing())
    assert report.quarantined == {"not_finite": 3}


def test_a_vanished_folder_stops_the_run_instead_of_quarantining_everything(
    make_images: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_images(per_class=3)
    manifest = manifest_of(root)
    root.rename(tmp_path / "elsewhere")
    with pytest.raises(ManifestError, match="has gone"):
        run(manifest, tmp_path / "x.h5")
    (tmp_path / "elsewhere").rename(root)
    assert run(manifest, tmp_path / "x.h5").quarantined == {}


def test_equal_bytes_under_two_labels_are_reported(make_images: Callable[..., Path], tmp_path: Path) -> None:
    root = make_images(per_class=2)
    (root / "1_fake" / "gen-a" / "copy.png").write_bytes((root / "0_real" / "000.png").read_bytes())
    report = run(manifest_of(root), tmp_path / "x.h5")
    assert report.conflicts == [("0_real/000.png", "1_fake/gen-a/copy.png")]


def test_a_sealed_cache_that_is_up_to_date_is_left_alone(make_images: Callable[..., Path], tmp_path: Path) -> None:
    manifest = manifest_of(make_images(per_class=3))
    run(manifest, tmp_path / "x.h5")
    before = (tmp_path / "x.h5").read_bytes()
    encoder = StandInEncoder()
    assert run(manifest, tmp_path / "x.h5", encoder).encoded == 0
    assert encoder.passes == 0
    assert (tmp_path / "x.h5").read_bytes() == before


def test_a_cache_of_another_key_is_replaced_only_when_the_new_one_is_sealed(
    make_images: Callable[..., Path], tmp_path: Path
) -> None:
    manifest = manifest_of(make_images(per_class=3))
    run(manifest, tmp_path / "x.h5")
    before = (tmp_path / "x.h5").read_bytes()

    class Failing(StandInEncoder):
        def encode(self, crops: np.ndarray) -> Any:
            raise CacheError("the power went")

    with pytest.raises(CacheError):
        run(manifest, tmp_path / "x.h5", Failing(seed=1))
    assert (tmp_path / "x.h5").read_bytes() == before
    run(manifest, tmp_path / "x.h5", StandInEncoder(seed=1))
    assert FeatureCache(tmp_path / "x.h5").identity.key["encoder"]["weights_sha256"].endswith("1")


def test_a_view_of_another_size_than_the_encoders_is_refused(make_images: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(CacheMismatchError, match="32 pixels a side"):
        run(manifest_of(make_images(per_class=1)), tmp_path / "x.h5", view=CenterViewSpec(kind="center", size=32))


class Slow(StandInEncoder):
    def encode(self, crops: np.ndarray) -> Any:
        time.sleep(0.003)
        return super().encode(crops)


def _extract_slowly(manifest: Manifest, output: Path) -> None:
    run(manifest, output, Slow(), view=TRAIN)


def test_killed_at_random_moments_and_resumed_the_file_is_byte_identical(
    make_images: Callable[..., Path], tmp_path: Path
) -> None:
    manifest = manifest_of(make_images(per_class=40))
    run(manifest, tmp_path / "whole.h5", view=TRAIN)
    rng = random.Random(0)
    context = multiprocessing.get_context("fork")
    kills = 0
    while not (tmp_path / "killed.h5").exists():
        child = context.Process(target=_extract_slowly, args=(manifest, tmp_path / "killed.h5"))
        child.start()
        child.join(rng.uniform(0, 0.12) if kills < 40 else None)
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
            kills += 1
        child.join()
    assert kills >= 5
    assert (tmp_path / "killed.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert not part_path(tmp_path / "killed.h5").exists()


def test_the_parents_death_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    guard = _ParentGuard(os.getppid())
    guard.check()
    monkeypatch.setattr(os, "getppid", lambda: 1_000_000)
    with pytest.raises(ParentGoneError, match="go on"):
        guard.check()
    _ParentGuard(None).check()


def test_a_parent_that_died_before_the_first_batch_is_noticed(make_images: Callable[..., Path], tmp_path: Path) -> None:
    """As when Snakemake is killed while the encoder's weights are being loaded."""
    with pytest.raises(ParentGoneError):
        run(manifest_of(make_images(per_class=1)), tmp_path / "x.h5", parent=os.getppid() + 1)


def test_extraction_needs_no_torch() -> None:
    """Forked children of the kill tests stay cheap, and the stages stay apart."""
    check = "import sys, rine_cache.extract; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_a_file_that_is_no_cache_is_not_replaced(make_images: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "photo.h5").write_bytes(b"somebody's")
    with pytest.raises(CacheError, match="not a rine-cache file"):
        run(manifest_of(make_images(per_class=1)), tmp_path / "photo.h5")
    assert (tmp_path / "photo.h5").read_bytes() == b"somebody's"
