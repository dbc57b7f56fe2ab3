"""What looks wrong in a listing: every warning, when it is due and never else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest

from rine_cache.layouts.entry import FAKE, REAL, Entry
from rine_cache.layouts.suspicions import suspicions
from rine_cache.manifest import as_table

if TYPE_CHECKING:
    from collections.abc import Iterable


def entries(label: int, count: int, ending: str = "png", size: int = 10, inside: str | None = None) -> list[Entry]:
    """Make images whose names tell their class, so that no two classes share one."""
    name = ("real", "fake")[label]
    return [
        Entry(
            f"{name}/{name}{number}.{ending}", label, name, None, None, size, None, inside, number if inside else None
        )
        for number in range(count)
    ]


def warned(*images: Iterable[Entry]) -> list[str]:
    return suspicions(as_table(entry for some in images for entry in some))


def test_a_data_set_as_it_should_be_is_passed_over_in_silence() -> None:
    assert warned(entries(REAL, 50), entries(FAKE, 499)) == []


@pytest.mark.parametrize(("present", "absent"), [(REAL, "fake"), (FAKE, "real")])
def test_one_class_only(present: int, absent: str) -> None:
    assert warned(entries(present, 50)) == [
        f"there are no {absent} images; a benchmark must pair it with another data set's"
    ]


def test_few_images_are_counted_by_class() -> None:
    assert warned(entries(REAL, 49), entries(FAKE, 50)) == ["only 49 real images: intervals will be wide"]
    assert warned(entries(REAL, 50), entries(FAKE, 49)) == ["only 49 fake images: intervals will be wide"]
    assert "only 1 real image: intervals will be wide" in warned(entries(REAL, 1), entries(FAKE, 50))


@pytest.mark.parametrize(("reals", "fakes"), [(50, 500), (500, 50)])
def test_ten_times_as_many_of_one_class_are_unequal(reals: int, fakes: int) -> None:
    (warning,) = warned(entries(REAL, reals), entries(FAKE, fakes))
    assert warning.startswith(f"classes are very unequal ({reals} real, {fakes} fake)")


def test_thousands_are_written_with_commas() -> None:
    (warning,) = warned(entries(REAL, 100), entries(FAKE, 1500))
    assert "(100 real, 1,500 fake)" in warning


def test_endings_that_tell_the_classes_apart() -> None:
    (warning,) = warned(entries(REAL, 50, "JPEG"), entries(FAKE, 50, "png"))
    assert warning.startswith("file endings differ by class (real mostly .jpg, fake mostly .png)")
    assert "center224-jpeg96" in warning


def test_endings_of_one_format_do_not_differ() -> None:
    assert warned(entries(REAL, 50, "JPEG"), entries(FAKE, 50, "jpg")) == []
    assert warned(entries(REAL, 50, "PNG"), entries(FAKE, 50, "png")) == []


@pytest.mark.parametrize(("jpegs", "warns"), [(24, False), (25, True)])
def test_half_of_the_endings_must_differ(jpegs: int, warns: bool) -> None:
    """Total variation distance: jpegs among 50 reals, none among the fakes."""
    found = warned(entries(REAL, 50 - jpegs), entries(REAL, jpegs, "jpg"), entries(FAKE, 50))
    assert any("endings" in warning for warning in found) == warns


def test_names_without_an_ending_are_an_ending_of_their_own() -> None:
    nameless = [Entry(f"row{number}", FAKE, "fake", None, None, 10) for number in range(50)]
    (warning,) = warned(nameless, entries(REAL, 50, "png"))
    assert "(real mostly .png, fake mostly none)" in warning
    assert warned(nameless, [entry._replace(image_id=f"r{entry.image_id}", label=REAL) for entry in nameless]) == []


def test_files_without_bytes() -> None:
    assert warned(entries(REAL, 50), entries(FAKE, 51)[1:], [Entry("fake/a.png", FAKE, "fake", None, None, 0)]) == [
        "1 file without bytes, to be quarantined, e.g. fake/a.png"
    ]
    assert warned(entries(REAL, 50), entries(FAKE, 50, size=0)) == [
        "50 files without bytes, to be quarantined, e.g. fake/fake0.png"
    ]


def test_a_size_of_zero_says_nothing_of_an_image_inside_a_file() -> None:
    assert warned(entries(REAL, 50, inside="a.parquet", size=0), entries(FAKE, 50, inside="a.parquet", size=0)) == []


def test_the_same_file_in_both_classes() -> None:
    copies = [Entry(f"real/copies/fake{number}.png", REAL, "real", None, None, 10) for number in range(2)]
    assert warned(entries(REAL, 50), copies, entries(FAKE, 50)) == [
        "2 files of the same name and size in both classes, e.g. fake0.png: one image twice?"
    ]
    others = [copy._replace(size=11) for copy in copies]
    assert warned(entries(REAL, 50), others, entries(FAKE, 50)) == []


def test_files_of_one_name_within_a_class_are_no_matter() -> None:
    twice = [Entry(f"fake/{folder}/0.png", FAKE, folder, None, None, 10) for folder in ("a", "b")]
    assert warned(entries(REAL, 50), entries(FAKE, 50), twice) == []


def test_generators_without_the_real_images_that_others_have_are_named() -> None:
    rows = [("adm", 0), ("adm", 1), ("vqdm", 1), ("glide", 1)]
    table = as_table(
        Entry(f"{subset}/{label}/{number}.png", label, subset, None, None, 1)
        for subset, label in rows
        for number in range(60)
    )
    warnings = suspicions(table)
    assert "no real images lie beside the fakes of glide, vqdm, though they do beside others: half copied?" in warnings
    alone = table.with_columns(subset=pl.when(label=0).then(pl.lit("real")).otherwise(pl.col("subset")))
    assert not [warning for warning in suspicions(alone) if "half copied" in warning]
