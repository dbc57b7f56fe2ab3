from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from rine_cache.cache import FeatureCache, Status, part_path
from rine_cache.errors import CacheError, CacheMismatchError, ManifestError
from rine_cache.extract import ExtractionReport, ParentGoneError, Target, _stop_if_orphaned, extract
from rine_cache.images import decode
from rine_cache.layouts import list_images
from rine_cache.manifest import Manifest, build_manifest
from rine_cache.quarantine import Reason
from rine_cache.specs.data import DatasetSpec
from rine_cache.specs.encoding import CenterViewSpec, TrainViewSpec
from tests import container_twins as twins
from tests.conftest import CENTER, SIZE, StandInEncoder
from tests.kills import kills_until_done

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rine_cache.specs.encoding import Tap, ViewSpec

TRAIN = TrainViewSpec(kind="train", size=SIZE, draws=3)


def manifest_of(root: Path, layout: str = "folder") -> Manifest:
    return build_manifest(list_images(DatasetSpec(root=str(root), layout=layout)).table, root)


def run(
    manifest: Manifest,
    output: Path,
    encoder: StandInEncoder | None = None,
    *,
    tap: Tap = "ln_2",
    view: ViewSpec = CENTER,
    reuse: Sequence[Path] = (),
    workers: int = 2,
    **rest: Any,
) -> ExtractionReport:
    target = Target(encoder or StandInEncoder(), tap, view, output, reuse)
    (report,) = extract(manifest, [target], workers=workers, **rest)
    return report


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


def test_the_facts_of_every_image_are_those_of_its_file(make_images: Callable[..., Path], tmp_path: Path) -> None:
    root = make_images(per_class=2)
    exif = Image.Exif()
    exif[0x0110] = "a camera"
    photo = Image.open(root / "0_real" / "000.png")
    photo.save(root / "0_real" / "photo.jpg", quality=83, exif=exif)
    photo.convert("L").save(root / "0_real" / "gray.jpg", quality=31)
    photo.convert("P").save(root / "1_fake" / "palette.gif")
    photo.convert("CMYK").save(root / "1_fake" / "cmyk.jpeg", quality=100)
    photo.convert("RGBA").save(root / "1_fake" / "alpha.webp")
    photo.save(root / "1_fake" / "long.jp2")
    manifest = manifest_of(root)
    run(manifest, tmp_path / "x.h5")
    tables = FeatureCache(tmp_path / "x.h5").tables
    for row, image_id in enumerate(manifest.table["image_id"]):
        content = (root / image_id).read_bytes()
        facts = decode(content).facts
        stored = {name: table[row] for name, table in tables.items()}
        assert stored["content_sha256"].tobytes() == hashlib.sha256(content).digest()
        assert stored["file_size"] == len(content)
        assert {name: stored[name] for name in facts._fields} == {
            name: value.encode() if isinstance(value, str) else value for name, value in facts._asdict().items()
        }
    assert set(tables["format"]) == {b"PNG", b"JPEG", b"GIF", b"WEBP", b"JPEG2000"}
    assert set(tables["jpeg_quality"]) == {0, 31, 83, 100}
    assert tables["exif"].sum() == 1


def test_of_a_quarantined_image_what_is_known_is_kept(make_images: Callable[..., Path], tmp_path: Path) -> None:
    root = make_images(per_class=1)
    (root / "0_real" / "text.png").write_text("not an image")
    (root / "0_real" / "gone.png").write_text("soon gone")
    manifest = manifest_of(root)
    (root / "0_real" / "gone.png").unlink()
    run(manifest, tmp_path / "x.h5")
    tables = FeatureCache(tmp_path / "x.h5").tables
    rows = {image_id: row for row, image_id in enumerate(manifest.table["image_id"])}
    text, gone = rows["0_real/text.png"], rows["0_real/gone.png"]
    assert tables["content_sha256"][text].tobytes() == hashlib.sha256(b"not an image").digest()
    assert tables["file_size"][[text, gone]].tolist() == [12, 0]
    assert not tables["content_sha256"][gone].any()
    for name in set(tables) - {"status", "reason", "content_sha256", "file_size"}:
        assert not any(tables[name][[text, gone]].tolist()), name


def contents_of(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.png"))}


def write_tars(root: Path, contents: dict[str, bytes]) -> Path:
    """Put images into two tars, in label folders."""
    members = list(contents.items())
    twins.write_tar(root / "train-00000-of-00002.tar", members[::2])
    twins.write_tar(root / "train-00001-of-00002.tar", members[1::2])
    return root


def write_parquets(root: Path, contents: dict[str, bytes]) -> Path:
    """Put images into two Parquet files, in row groups of three."""
    for number in range(2):
        members = list(contents.items())[number::2]
        labels = ["fake" if "fake" in name else "real" for name, _ in members]
        images = twins.hub_images([content for _, content in members], [name for name, _ in members])
        twins.write_parquet(
            root / f"train-{number:05d}-of-00002.parquet", {"image": images, "label": pa.array(labels)}, 3
        )
    return root


CONTAINERS = {"webdataset": write_tars, "parquet": write_parquets}


@pytest.mark.parametrize("layout", CONTAINERS)
@pytest.mark.parametrize("workers", [1, 4])
def test_images_inside_containers_give_the_rows_that_they_give_as_files(
    make_images: Callable[..., Path], tmp_path: Path, layout: str, workers: int
) -> None:
    root = make_images(per_class=9)
    (root / "0_real" / "cut.png").write_bytes((root / "0_real" / "000.png").read_bytes()[:300])
    contents = contents_of(root)
    run(manifest_of(root), tmp_path / "files.h5", view=TRAIN)
    inside = manifest_of(CONTAINERS[layout](tmp_path / layout, contents), layout)
    report = run(inside, tmp_path / "inside.h5", view=TRAIN, workers=workers)
    assert (report.images, report.encoded, report.quarantined) == (28, 27, {"damaged": 1})
    files, found = FeatureCache(tmp_path / "files.h5"), FeatureCache(tmp_path / "inside.h5")
    row_of = {digest.tobytes(): row for row, digest in enumerate(files.content_sha256)}
    rows = [row_of[digest.tobytes()] for digest in found.content_sha256]
    assert sorted(rows) == list(range(28))
    np.testing.assert_array_equal(found.features, files.features[:, rows])
    np.testing.assert_array_equal(found.embedding, files.embedding[rows])
    for name, table in found.tables.items():
        np.testing.assert_array_equal(table, files.tables[name][rows], err_msg=name)
    assert run(inside, tmp_path / "again.h5", view=TRAIN, reuse=[tmp_path / "files.h5"]).encoded == 0
    assert (tmp_path / "again.h5").read_bytes() == (tmp_path / "inside.h5").read_bytes()


@pytest.mark.parametrize("layout", CONTAINERS)
@pytest.mark.parametrize(
    ("happens", "message"), [("vanishes", "has gone"), ("changes", "not the file that was listed")]
)
def test_a_container_that_vanishes_or_changes_stops_the_run_which_goes_on_once_it_is_back(
    make_images: Callable[..., Path], tmp_path: Path, layout: str, happens: str, message: str
) -> None:
    root = CONTAINERS[layout](tmp_path / layout, contents_of(make_images(per_class=30)))
    manifest = manifest_of(root, layout)
    run(manifest, tmp_path / "whole.h5")
    last = sorted(root.iterdir())[-1]
    away = last.rename(tmp_path / "away")
    if happens == "changes":
        others = {name: content + b"!" for name, content in contents_of(make_images("few", per_class=3)).items()}
        CONTAINERS[layout](tmp_path / "other", others)
        (tmp_path / "other" / last.name).rename(last)
    with pytest.raises(ManifestError, match=message):
        run(manifest, tmp_path / "x.h5")
    away.replace(last)
    report = run(manifest, tmp_path / "x.h5")
    assert report.quarantined == {}
    assert report.encoded == 90 - 32, "the two slabs of 16 that the first file filled were done"
    assert (tmp_path / "x.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_a_row_without_bytes_is_quarantined_as_missing(tmp_path: Path) -> None:
    images = twins.hub_images([twins.png(0), None, twins.png(1)], [None] * 3)
    twins.write_parquet(tmp_path / "data" / "a.parquet", {"image": images, "label": pa.array(["real", "fake", "fake"])})
    manifest = manifest_of(tmp_path / "data", "parquet")
    report = run(manifest, tmp_path / "x.h5")
    assert (report.images, report.encoded, report.quarantined) == (3, 2, {"missing": 1})
    found = FeatureCache(tmp_path / "x.h5")
    assert found.reason.tolist() == [0, Reason.MISSING, 0]
    assert not found.content_sha256[1].any()


class Slow(StandInEncoder):
    def encode(self, crops: np.ndarray) -> Any:
        time.sleep(0.003)
        return super().encode(crops)


def _extract_slowly(root: Path, output: Path) -> None:
    run(manifest_of(root), output, Slow(), view=TRAIN)


def test_killed_at_random_moments_and_resumed_the_file_is_byte_identical(
    make_images: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_images(per_class=40)
    run(manifest_of(root), tmp_path / "whole.h5", view=TRAIN)
    assert kills_until_done(_extract_slowly, (root, tmp_path / "killed.h5"), longest_s=0.12, most=40) >= 5
    assert (tmp_path / "killed.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert not part_path(tmp_path / "killed.h5").exists()


def test_the_parents_death_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    parent = os.getppid()
    _stop_if_orphaned(parent)
    monkeypatch.setattr(os, "getppid", lambda: 1_000_000)
    with pytest.raises(ParentGoneError, match="go on"):
        _stop_if_orphaned(parent)
    _stop_if_orphaned(None)


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
