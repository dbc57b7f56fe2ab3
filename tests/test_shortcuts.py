"""AUCs of single facts."""

from __future__ import annotations

from typing import Any

import pytest

from rine_cache.shortcuts import fact_aucs
from tests.audits import made_audit

JPEG = {"format": "JPEG", "jpeg_quality": 75}


def aucs(images: list[dict[str, Any]]) -> dict[str, float | None]:
    return fact_aucs(made_audit("x", images).table)


def test_format_counts_ties_half() -> None:
    # 3 of 4 reals are JPEG, all fakes PNG: of 4 x 2 pairs 6 are told apart and 2 tied.
    found = aucs([{"label": 0, **JPEG}] * 3 + [{"label": 0}] + [{"label": 1}] * 2)
    assert found["format"] == pytest.approx(7 / 8)
    assert found["mode"] == found["EXIF"] == found["width"] == 0.5
    assert found["JPEG quality"] is None  # no fake is a JPEG


def test_numbers_rank_in_either_direction() -> None:
    images = [{"label": 0, "width": 300 + index} for index in range(10)]
    images += [{"label": 1, "width": 200}, {"label": 1, "width": 305}]
    # Of 10 x 2 pairs the real is wider in 10 + 4, and one is tied.
    assert aucs(images)["width"] == pytest.approx(14.5 / 20)
    assert aucs(images)["short side"] == pytest.approx((10 + 0.5 * 10) / 20)  # no side is above 256


def test_sizes_of_one_image_each_do_not_give_it_away() -> None:
    own = [{"label": index % 2, "width": 300 + index} for index in range(20)]
    assert aucs(own)["width x height"] == 0.5
    one_size = [{"label": index % 2, "width": 512 if index % 2 else 300 + index} for index in range(20)]
    assert aucs(one_size)["width x height"] == 1.0


def test_one_class_has_no_auc() -> None:
    assert set(aucs([{"label": 1}] * 3).values()) == {None}
