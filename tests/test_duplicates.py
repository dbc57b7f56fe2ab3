"""Duplicates: planted ones are found by name, against the loop over all pairs; leakage above all."""

from __future__ import annotations

import json
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from rine_cache import duplicates as module
from rine_cache.duplicates import DISTANCE, find_duplicates, read_leaks, write_duplicates
from rine_cache.duplicates_report import render_duplicates
from rine_cache.errors import ResultsError
from rine_cache.specs.benchmark import BenchmarkSpec
from rine_cache.specs.data import TrainingSetSpec
from tests.audits import HASH, made_audit, moved

if TYPE_CHECKING:
    from pathlib import Path

BENCHMARK = BenchmarkSpec.model_validate(
    {
        "name": "bench",
        "title": "Bench",
        "test_sets": {"gen": {"dataset": "test"}, "absent": {"dataset": "nowhere"}},
        "protocols": {"p": {"test_sets": ["gen"], "cap": {"per_class": 1}}},
    }
)
TRAINING_SET = TrainingSetSpec.model_validate(
    {
        "train": [{"dataset": "photos", "view": "train224", "splits": ["train"]}],
        "validation": [{"dataset": "photos", "view": "center224", "splits": ["val"]}],
    }
)
OTHER = 0xAAAAAAAA55555555


def counts(table: pl.DataFrame) -> set[tuple[Any, ...]]:
    columns = ["relation", "reference", "side", "collection", "kind", "found", "found_conflicts"]
    return set(table.select(columns).unique().iter_rows())


def test_leaked_images_are_found_by_name_on_both_sides_of_a_training_set() -> None:
    photos = made_audit(
        "photos",
        [
            {"label": 0, "split": "train", "content": "a", "perceptual_hash": HASH},
            {"label": 0, "split": "val", "content": "b", "perceptual_hash": OTHER},
            {"label": 0, "split": "test", "content": "c", "perceptual_hash": HASH << 16},
        ],
    )
    test = made_audit(
        "test",
        [
            {"label": 1, "content": "a", "perceptual_hash": HASH, "image_id": "copy.png"},
            {"label": 0, "content": "d", "perceptual_hash": HASH, "image_id": "same-hash.png"},
            {"label": 0, "content": "e", "perceptual_hash": moved(OTHER, 2), "image_id": "re-encoded.png"},
            {"label": 0, "content": "f", "perceptual_hash": moved(OTHER, 3), "image_id": "too-far.png"},
            {"label": 0, "content": "c", "perceptual_hash": HASH << 16, "image_id": "not-trained-on.png"},
            {"label": 0, "content": "b", "reason": "damaged", "image_id": "unreadable.png"},
        ],
    )
    found = find_duplicates([photos, test], {"mine": TRAINING_SET}, [BENCHMARK])
    leaks = found.table.filter(relation="leakage")
    assert counts(leaks) == {
        ("leakage", "mine", "train", "bench/gen", "exact", 1, 1),
        ("leakage", "mine", "train", "bench/gen", "near", 1, 0),
        ("leakage", "mine", "validation", "bench/gen", "near", 1, 0),
    }
    pairs = leaks.select("collection_image_id", "reference_image_id", "distance", "label_conflict").sort(pl.all())
    assert pairs.rows() == [
        ("copy.png", "0.png", 0, True),
        ("re-encoded.png", "1.png", 4, False),
        ("same-hash.png", "0.png", 0, False),
    ]
    assert found.header["training_sets"] == [["mine", "train", 1], ["mine", "validation", 1]]
    assert found.header["test_sets"] == {"bench/gen": 5}
    assert found.header["leaked"] == [["mine", "bench/gen", 3]]
    assert found.header["absent_test_sets"] == ["bench/absent"]

    text = render_duplicates(found)
    assert (
        "| bench/gen | 5      | mine            | train      | 1     | 1    | 40.0 % | 1                  | 0    |"
        in text
    )
    assert "`test: copy.png` (fake) is `photos: 0.png` (real); **the labels differ**" in text
    assert "`test: re-encoded.png` (real) is near (4 bits) `photos: 1.png` (real)" in text
    assert "- test set bench/absent" in text


def test_an_image_in_both_roles_is_a_leak_too() -> None:
    audit = made_audit("test", [{"label": 0}, {"label": 1, "perceptual_hash": OTHER}])
    part = {"dataset": "test", "view": "center224"}
    training_set = TrainingSetSpec.model_validate({"train": [part], "validation": [part]})
    found = find_duplicates([audit], {"mine": training_set}, [BENCHMARK])
    table = found.table
    assert set(table["relation"]) == {"leakage"}  # and it is no duplicate within its data set
    assert found.header["leaked"] == [["mine", "bench/gen", 2]]
    assert counts(table) == {("leakage", "mine", side, "bench/gen", "exact", 2, 0) for side in ("train", "validation")}


def naive(images: list[dict[str, Any]], references: list[dict[str, Any]]) -> dict[str, tuple[str, int, bool]]:
    """Find each image's kind of twin among the references, its distance, and whether any is of the other label."""
    found = {}
    for image in images:
        twins = []
        for other in references:
            distance = (image["perceptual_hash"] ^ other["perceptual_hash"]).bit_count()
            flat = {image["perceptual_hash"].bit_count(), other["perceptual_hash"].bit_count()} != {32}
            if other is image:
                continue
            if other["content"] == image["content"]:
                twins.append(("exact", 0, image["label"] != other["label"]))
            elif distance <= DISTANCE and not flat:
                twins.append(("near", distance, image["label"] != other["label"]))
        if twins:
            kind, distance, _ = min(twins)
            found[image["image_id"]] = (kind, distance, any(twin[2] for twin in twins if twin[0] == kind))
    return found


def test_all_data_sets_are_compared_as_the_loop_over_all_pairs_does() -> None:
    rng = np.random.default_rng(0)
    centres = [HASH, OTHER, HASH << 16, 0x0F0F0F0F0F0F0F0F]
    datasets = {
        name: [
            {
                "image_id": f"{name}/{index}",
                "label": int(rng.integers(2)),
                "content": int(rng.integers(60)),
            }
            for index in range(50)
        ]
        for name in ("a", "b", "c")
    }
    hash_of: dict[int, int] = {}  # a content has one hash; some are those of flat images
    for image in (image for images in datasets.values() for image in images):
        far = moved(centres[int(rng.integers(4))], int(rng.integers(4))) ^ (3 << int(rng.integers(5)) * 12 + 4)
        image["perceptual_hash"] = hash_of.setdefault(image["content"], far)
    found = find_duplicates([made_audit(name, images) for name, images in datasets.items()], {}, []).table
    kinds = set()
    for first, second in product(datasets, datasets):
        expected = naive(datasets[second], datasets[first])
        rows = found.filter(reference=first, collection=second)
        assert {row["collection_image_id"]: (row["kind"], row["distance"]) for row in rows.iter_rows(named=True)} == {
            name: twin[:2] for name, twin in expected.items()
        }
        for kind in ("exact", "near"):
            of_kind = [twin for twin in expected.values() if twin[0] == kind]
            shown = rows.filter(kind=kind)
            assert set(shown["found"]) == ({len(of_kind)} if of_kind else set())
            assert set(shown["found_conflicts"]) == ({sum(twin[2] for twin in of_kind)} if of_kind else set())
        kinds |= set(rows["kind"])
        assert set(rows["relation"]) <= {"within" if first == second else "across"}
    assert kinds == {"exact", "near"}


def test_flat_images_are_near_to_none() -> None:
    flat = [{"label": 0, "perceptual_hash": 1 << 63}, {"label": 0, "perceptual_hash": 1 << 63}]
    found = find_duplicates([made_audit("x", flat)], {}, [])
    assert found.table.is_empty()
    assert found.header["flat"] == 2
    assert "2 of the images\nare too flat" in render_duplicates(found)


def test_a_twin_of_the_other_class_does_not_hide_behind_one_of_the_same() -> None:
    images = [{"label": label, "content": "same", "perceptual_hash": HASH} for label in (0, 0, 1)]
    table = find_duplicates([made_audit("x", images)], {}, []).table
    assert counts(table) == {("within", "x", None, "x", "exact", 3, 3)}
    assert table["label_conflict"].all()


def test_listing_is_capped_and_counts_are_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "LISTED", 7)
    images = [{"label": index % 2 if index < 4 else 0, "content": index // 2} for index in range(40)]
    found = find_duplicates([made_audit("x", images)], {}, [])
    exact = found.table.filter(kind="exact")
    assert exact.height == 7
    assert set(exact["found"]) == {40}
    assert exact["label_conflict"].to_list() == [True] * 4 + [False] * 3  # what matters most comes first
    assert "- and 35 more exact" in render_duplicates(found)
    write_duplicates(found, tmp_path / "duplicates.parquet")
    written = pq.read_table(tmp_path / "duplicates.parquet")
    assert json.loads(written.schema.metadata[b"rine_cache"])["duplicates"] == found.header
    assert pl.DataFrame(written).equals(found.table)


def test_small_pieces_of_pairs_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    images = [{"label": int(rng.integers(2)), "perceptual_hash": moved(HASH, int(rng.integers(5)))} for _ in range(60)]
    audits = [made_audit("x", images[:30]), made_audit("y", images[30:])]
    whole = find_duplicates(audits, {}, []).table
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 1)
    monkeypatch.setattr("rine_cache.hamming._PAIRS_AT_ONCE", 1)
    assert find_duplicates(audits, {}, []).table.equals(whole)


def test_parts_that_are_not_here_are_said_to_be(caplog: pytest.LogCaptureFixture) -> None:
    training_set = TrainingSetSpec.model_validate(
        {
            "train": [{"dataset": "gone", "view": "train224"}, {"dataset": "test", "view": "train224"}],
            "validation": [{"dataset": "test", "view": "center224", "subsets": ["alll"]}],
        }
    )
    audit = made_audit("test", [{"label": 0}, {"label": 1, "perceptual_hash": OTHER}])
    found = find_duplicates([audit], {"mine": training_set}, [BENCHMARK])
    assert found.header["absent_training_sets"] == [
        "mine (train): data set gone",
        "mine (validation): a part of data set test",
    ]
    assert found.header["training_sets"] == [["mine", "train", 2]]
    assert "did you mean 'all'" in caplog.text
    text = render_duplicates(find_duplicates([audit], {}, []))
    assert "No training set and test set to compare are here." in text
    assert "There is one data set only." in text
    assert "There is no data set." in render_duplicates(find_duplicates([], {}, []))


def test_a_share_of_a_data_set_leaks_only_that_share() -> None:
    # Two sides of one data set, divided where training divides it; contents are digested as a file's bytes are.
    audit = made_audit("test", [{"label": index % 2, "content": chr(20 + 5 * index)} for index in range(20)])
    part = {"dataset": "test", "view": "center224"}
    sides = {"train": [{**part, "share": [0, 0.25]}], "validation": [{**part, "share": [0.25, 1]}]}
    found = find_duplicates([audit], {"mine": TrainingSetSpec.model_validate(sides)}, [BENCHMARK])
    first_bytes = [20 + 5 * index for index in range(20)]
    low = sum(byte < 64 for byte in first_bytes)
    assert found.header["training_sets"] == [["mine", "train", low], ["mine", "validation", 20 - low]]


def test_an_audit_given_twice_is_refused() -> None:
    audit = made_audit("x", [{"label": 0}])
    with pytest.raises(ResultsError, match="the audit of x is given more than once"):
        find_duplicates([audit, audit], {}, [])


def test_unreadable_images_alone_are_no_duplicates() -> None:
    lost = [{"label": 0, "reason": "empty", "content": "same"}] * 2
    assert find_duplicates([made_audit("x", lost)], {}, [BENCHMARK]).table.is_empty()


def test_leaks_are_read_back_with_zero_where_none_was_found(tmp_path: Path) -> None:
    photos = made_audit("photos", [{"label": 0, "split": "train", "content": "a"}, {"label": 0, "split": "val"}])
    leaky = made_audit("test", [{"label": 0, "content": "a", "perceptual_hash": OTHER}, {"label": 1}])
    clean = made_audit(
        "test", [{"label": 0, "perceptual_hash": OTHER}, {"label": 1, "perceptual_hash": ~OTHER & 2**64 - 1}]
    )
    expected = {"training_set": ["mine"], "benchmark": ["bench"], "test_set": ["gen"]}
    for test, count in ((leaky, 1), (clean, 0)):
        found = find_duplicates([photos, test], {"mine": TRAINING_SET}, [BENCHMARK])
        write_duplicates(found, tmp_path / "d.parquet")
        assert read_leaks(tmp_path / "d.parquet").to_dict(as_series=False) == {**expected, "n_leaked": [count]}


def test_a_leaked_image_counts_once_in_each_training_set_and_test_set(tmp_path: Path) -> None:
    # Of the test images the first has an exact twin in train and near ones in both sides, the second a near one in
    # validation, the third two exact ones in train; the fourth is a copy of the third, and an image of its own.
    photos = made_audit(
        "photos",
        [
            {"label": 0, "split": "train", "content": "a", "perceptual_hash": HASH},
            {"label": 0, "split": "train", "perceptual_hash": moved(HASH, 1)},
            {"label": 1, "split": "val", "perceptual_hash": moved(HASH, 2)},
            {"label": 0, "split": "train", "content": "b", "perceptual_hash": OTHER},
            {"label": 0, "split": "train", "content": "b", "perceptual_hash": OTHER},
            {"label": 0, "split": "val", "content": "c", "perceptual_hash": HASH << 16},
        ],
    )
    test = made_audit(
        "test",
        [
            {"label": 0, "content": "a", "perceptual_hash": HASH},
            {"label": 1, "content": "d", "perceptual_hash": (HASH << 16) ^ (1 << 16 | 1 << 48)},
            {"label": 0, "content": "b", "perceptual_hash": OTHER},
            {"label": 0, "content": "b", "perceptual_hash": OTHER},
            {"label": 1, "content": "e", "perceptual_hash": 0x0F0F0F0F0F0F0F0F},
        ],
    )
    own = made_audit("own", [{"label": 0, "perceptual_hash": 0x3333333333333333}] * 2)
    part = {"dataset": "own", "view": "center224"}
    clean = TrainingSetSpec.model_validate({"train": [part], "validation": [part]})
    test_sets = {
        "whole": {"dataset": "test"},
        "of-others": {"real": {"dataset": "own"}, "fake": {"dataset": "test"}},
    }
    bench = BenchmarkSpec.model_validate(
        {"name": "b", "title": "b", "test_sets": test_sets, "protocols": {"p": {"test_sets": list(test_sets)}}}
    )
    found = find_duplicates([photos, test, own], {"mine": TRAINING_SET, "clean": clean}, [bench])
    expected = [
        ["mine", "b/whole", 4],
        ["mine", "b/of-others", 1],
        ["clean", "b/whole", 0],
        ["clean", "b/of-others", 2],
    ]
    assert found.header["leaked"] == expected
    write_duplicates(found, tmp_path / "d.parquet")
    assert [
        [name, f"{bench}/{test_set}", count]
        for name, bench, test_set, count in read_leaks(tmp_path / "d.parquet").iter_rows()
    ] == expected
    text = render_duplicates(found)
    assert "| b/whole     | mine            | 4      | 80.0 % |" in text
    assert "| b/whole     | clean " not in text


def test_leaks_of_nothing_are_none(tmp_path: Path) -> None:
    write_duplicates(find_duplicates([], {}, []), tmp_path / "d.parquet")
    assert read_leaks(tmp_path / "d.parquet").is_empty()


def test_another_file_is_refused_as_duplicates(tmp_path: Path) -> None:
    pl.DataFrame({"x": [1]}).write_parquet(tmp_path / "other.parquet")
    with pytest.raises(
        ResultsError, match=r"other.parquet is not a file of duplicates .*rine-cache dataset duplicates"
    ):
        read_leaks(tmp_path / "other.parquet")
