"""Audits: what a cache knows, joined with its manifest."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from rine_cache.audit import SCHEMA, audit_dataset, read_audit, write_audit
from rine_cache.cache import FeatureCache
from rine_cache.errors import ResultsError
from rine_cache.extract import Target, extract
from rine_cache.layouts import list_images
from rine_cache.manifest import build_manifest
from rine_cache.specs.data import DatasetSpec
from tests.conftest import CENTER, StandInEncoder

if TYPE_CHECKING:
    from pathlib import Path

    from rine_cache.audit import Audit


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A PNG, a JPEG with EXIF data under a PNG's name, and two files that are no images."""
    root = tmp_path / "images"
    real, fake = root / "0_real", root / "1_fake" / "gen"
    real.mkdir(parents=True)
    fake.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[271] = "a camera"
    Image.fromarray(pixels).save(real / "a.png", "JPEG", quality=83, exif=exif)
    Image.fromarray(pixels[:, :, 0]).save(fake / "b.png")
    (fake / "c.png").write_bytes(b"")
    (fake / "d.png").write_bytes((fake / "b.png").read_bytes()[:200])
    return root


def audited(root: Path, tmp_path: Path) -> Audit:
    listing = list_images(DatasetSpec(root=str(root)))
    manifest = build_manifest(listing.table, listing.root)
    extract(manifest, [Target(StandInEncoder(), "ln_2", CENTER, tmp_path / "x.h5")], workers=1)
    return audit_dataset("x", FeatureCache(tmp_path / "x.h5"), manifest)


def test_the_audit_knows_what_the_files_say(root: Path, tmp_path: Path) -> None:
    found = audited(root, tmp_path)
    assert found.table.schema == SCHEMA
    jpeg, png, empty, cut = found.table.sort("image_id").iter_rows(named=True)
    for row, image_id in ((jpeg, "0_real/a.png"), (png, "1_fake/gen/b.png"), (cut, "1_fake/gen/d.png")):
        content = (root / image_id).read_bytes()
        assert row["image_id"] == image_id
        assert row["content_sha256"] == hashlib.sha256(content).digest()
        assert row["file_size"] == len(content)
    assert (jpeg["format"], jpeg["mode"], jpeg["jpeg_quality"], jpeg["exif"]) == ("JPEG", "RGB", 83, True)
    assert (jpeg["width"], jpeg["height"], jpeg["reason"], jpeg["label"]) == (30, 40, None, 0)
    assert jpeg["bytes_per_pixel"] == pytest.approx(jpeg["file_size"] / 1200)
    assert jpeg["perceptual_hash"].bit_count() == 32
    assert (png["format"], png["mode"], png["jpeg_quality"], png["exif"]) == ("PNG", "L", None, False)
    assert (empty["reason"], cut["reason"]) == ("empty", "damaged")
    assert empty["file_size"] == 0
    unknown = ("width", "height", "format", "mode", "exif", "perceptual_hash", "jpeg_quality", "bytes_per_pixel")
    assert {row[name] for row in (empty, cut) for name in unknown} == {None}
    assert found.readable["image_id"].to_list() == ["0_real/a.png", "1_fake/gen/b.png"]


def test_a_file_that_was_gone_has_no_content(root: Path, tmp_path: Path) -> None:
    listing = list_images(DatasetSpec(root=str(root)))
    (root / "1_fake" / "gen" / "b.png").unlink()
    manifest = build_manifest(listing.table, listing.root)
    extract(manifest, [Target(StandInEncoder(), "ln_2", CENTER, tmp_path / "x.h5")], workers=1)
    found = audit_dataset("x", FeatureCache(tmp_path / "x.h5"), manifest)
    row = found.table.filter(image_id="1_fake/gen/b.png").row(0, named=True)
    assert (row["reason"], row["content_sha256"], row["file_size"]) == ("missing", None, None)


def test_a_written_audit_reads_back_and_others_are_refused(root: Path, tmp_path: Path) -> None:
    found, path = audited(root, tmp_path), tmp_path / "audit.parquet"
    write_audit(found, path)
    read = read_audit(path)
    assert read.header == found.header
    assert read.dataset == "x"
    assert read.header["crop_side"] == CENTER.size
    assert read.table.equals(found.table)
    found.table.write_parquet(path)  # without its header
    with pytest.raises(ResultsError, match=r"is not an audit.*make it with `rine-cache dataset audit`"):
        read_audit(path)
    with pytest.raises(ResultsError, match="is not an audit"):
        read_audit(tmp_path / "absent.parquet")
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(ResultsError, match="is not an audit"):
        read_audit(path)
