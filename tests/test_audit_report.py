"""What an audit says to people."""

from __future__ import annotations

from typing import Any

from rine_cache.audit import Audit
from rine_cache.audit_report import render_audit
from rine_cache.duplicates import find_duplicates
from tests.audits import made_audit

JPEG = {"format": "JPEG", "jpeg_quality": 90, "exif": True, "width": 500, "height": 375}


def rendered(images: list[dict[str, Any]]) -> str:
    audit = made_audit("x", images)
    return render_audit(audit, find_duplicates([audit], {}, []))


def warnings(text: str) -> str:
    return text.split("## Warnings")[1].split("\n##")[0]


def test_a_planted_bias_is_said_in_words_and_figures() -> None:
    reals = [{"label": 0, **JPEG} for _ in range(42)] + [{"label": 0} for _ in range(8)]
    fakes = [{"label": 1, "subset": f"gen-{index % 2}"} for index in range(50)]
    text = rendered(reals + fakes)
    assert "100 images: 50 real, 50 fake, 0 quarantined" in text
    assert "Format alone tells fake from real with AUC .92: real JPEG 84 %, PNG 16 %; fake PNG 100 %." in warnings(text)
    assert "Width x height alone tells fake from real with AUC .92" in warnings(text)
    assert "Short side alone" not in warnings(text)  # it would say the same again
    assert "| real  | all    | 50     | JPEG 84 %, PNG 16 % | RGB 100 % | 84 % | 90 " in text
    told = next(line for line in text.splitlines() if line.startswith("| gen-1"))
    assert told.split("|")[2].strip() == ".92"


def test_an_even_set_has_no_warnings() -> None:
    text = rendered([{"label": index % 2, "width": 300 + index // 2} for index in range(40)])
    assert warnings(text).strip() == "None."
    assert text.rstrip().endswith("None.")  # no duplicates either


def test_quarantine_padding_conflicts_and_a_lone_class_are_warned_of() -> None:
    lost = {"reason": "not_an_image", "image_id": "lost.png"}
    text = rendered(
        [{"label": 1, "width": 100, "content": "same"}, {"label": 0, "content": "same"}, {"label": 0, **lost}]
    )
    assert "1 images (33 %) could not be read" in warnings(text)
    assert "2 images hold the same bytes as one of the other label" in warnings(text)
    assert "0 % of the real images and 100 % of the fake images are smaller than 224 pixels" in warnings(text)
    assert "| not an image | 1      | lost.png |" in text
    assert "`x: 0.png` (fake) is `x: 1.png` (real); **the labels differ**" in text
    assert "All images are fake" in warnings(rendered([{"label": 1}, {"label": 1}]))


def test_what_is_padded_follows_the_crops_that_were_encoded() -> None:
    header, table = made_audit("x", [{"label": 0}, {"label": 1}])
    audit = Audit({**header, "crop_side": 336}, table)
    text = render_audit(audit, find_duplicates([audit], {}, []))
    assert "100 % of the fake images are smaller than 336 pixels" in warnings(text)
    assert "below 336" in text


def test_nothing_readable_is_still_reported() -> None:
    assert "No image could be read." in rendered([{"label": 1, "reason": "empty"}])
