from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from rine_cache.errors import CacheMismatchError, ManifestError
from rine_cache.features import FeatureSet, open_part
from rine_cache.manifest import build_manifest, write_manifest
from rine_cache.specs.encoding import TrainViewSpec
from tests.conftest import SIZE, StandInEncoder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import MadeCache


def test_a_union_reads_the_rows_of_its_parts(make_cache: Callable[..., MadeCache]) -> None:
    first = open_part(*make_cache("a", per_class=4)[:2])
    second = open_part(*make_cache("b", per_class=3, seed=1, view=TrainViewSpec(kind="train", size=SIZE, draws=2))[:2])
    union = FeatureSet([first, second])
    assert len(union) == 12 + 9
    labels = [*first.manifest.table["label"], *second.manifest.table["label"]]
    assert union.labels.tolist() == labels
    indices = np.array([20, 0, 11, 12, 5])
    tokens = union.tokens(indices, [2, 0], draw=3)
    assert tokens.shape == (5, 2, 8)
    for place, index in enumerate(indices):
        part, row, draw = (first, index, 0) if index < 12 else (second, index - 12, 3 % 2)
        np.testing.assert_array_equal(tokens[place], part.cache.features[[2, 0], row, draw].astype(np.float32))
        np.testing.assert_array_equal(
            union.embedding(indices, 3)[place], part.cache.embedding[row, draw].astype(np.float32)
        )


def test_only_the_subsets_asked_for_and_readable_rows_are_kept(
    make_cache: Callable[..., MadeCache], make_images: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_images("images", 3)
    (root / "1_fake" / "gen-a" / "bad.png").write_bytes(b"")
    made = make_cache("images", per_class=3)
    part = open_part(*made[:2], ("real", "gen-a"))
    kept = part.manifest.table[part.rows]
    assert set(kept["subset"]) == {"real", "gen-a"}
    assert "1_fake/gen-a/bad.png" not in kept["image_id"].to_list()
    assert len(part.rows) == 6


def test_only_the_splits_asked_for_are_kept(
    make_images: Callable[..., Path], make_cache: Callable[..., MadeCache]
) -> None:
    root = make_images("images", 3)
    (root / "train").mkdir()
    (root / "0_real").rename(root / "train" / "0_real")
    part = open_part(*make_cache("images", per_class=2)[:2], splits=("train",))
    assert part.manifest.table[part.rows]["split"].to_list() == ["train"] * 3
    with pytest.raises(ManifestError, match="no split 'test'"):
        open_part(part.cache.path, part.cache.path.with_name("images.parquet"), splits=("test",))


def test_a_corrected_label_costs_no_extraction(make_cache: Callable[..., MadeCache]) -> None:
    """The cache keeps which images stand in which rows; what is said of them may change."""
    made = make_cache(per_class=2)
    table = made.manifest.table.with_columns(label=1 - made.manifest.table["label"])
    write_manifest(build_manifest(table, made.manifest.root), made.manifest_path)
    assert open_part(*made[:2]).manifest.table["label"].to_list() == table["label"].to_list()
    write_manifest(build_manifest(table[::-1], made.manifest.root), made.manifest_path)
    with pytest.raises(CacheMismatchError, match="another order"):
        open_part(*made[:2])


def test_a_subset_that_is_not_there_is_refused_with_the_nearest(make_cache: Callable[..., MadeCache]) -> None:
    with pytest.raises(ManifestError, match="did you mean 'gen-a'"):
        open_part(*make_cache()[:2], ("gen-A",))


def test_another_manifest_than_the_caches_is_refused(make_cache: Callable[..., MadeCache]) -> None:
    first, second = make_cache("a", per_class=2), make_cache("b", per_class=3)
    with pytest.raises(CacheMismatchError, match="other images or another order"):
        open_part(first.features, second.manifest_path)


def test_a_union_of_two_encoders_or_taps_is_refused(make_cache: Callable[..., MadeCache]) -> None:
    parts = [
        open_part(*make_cache("a", per_class=2)[:2]),
        open_part(*make_cache("b", per_class=2, encoder=StandInEncoder(seed=1))[:2]),
        open_part(*make_cache("c", per_class=2, tap="block")[:2]),
    ]
    with pytest.raises(CacheMismatchError, match="weights_sha256"):
        FeatureSet(parts[:2])
    with pytest.raises(CacheMismatchError, match="tap"):
        FeatureSet([parts[0], parts[2]])


def test_the_fingerprint_follows_cache_manifest_and_subsets(make_cache: Callable[..., MadeCache]) -> None:
    made = make_cache()
    prints = {
        FeatureSet([open_part(*made[:2])]).fingerprint,
        FeatureSet([open_part(*made[:2], ("real", "gen-a"))]).fingerprint,
        FeatureSet([open_part(*make_cache("b", seed=3)[:2])]).fingerprint,
    }
    assert len(prints) == 3
