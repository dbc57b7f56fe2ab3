from __future__ import annotations

import csv
import io
import json
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from rine_cache.calibration import calibrate
from rine_cache.heads.head import FeatureIdentity, Head, HeadCard, build_network, save_head
from rine_cache.specs.training import RineHeadSpec
from tests.conftest import SIZE, StandInEncoder, refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Answer


@pytest.fixture
def head(tmp_path: Path) -> Path:
    """Write a calibrated head of the stand-in encoder."""
    torch.manual_seed(0)
    spec = RineHeadSpec(kind="rine", width=8)
    identity = StandInEncoder().identity
    features = FeatureIdentity(encoder=identity, tap="ln_2", block_count=3, token_width=8, embedding_width=5)
    labels = np.arange(60) % 2
    calibration = calibrate(labels, np.random.default_rng(0).normal(labels, 1.0))
    card = HeadCard(method="RINE", head=spec, features=features, training_set="mine", calibration=calibration)
    save_head(Head(card, build_network(spec, features).eval()), tmp_path / "head.safetensors")
    return tmp_path / "head.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(tmp_path / "pictures" / name)
    (tmp_path / "pictures" / "notes.txt").touch()
    return tmp_path / "pictures"


@pytest.fixture
def predict(rine_cache: Callable[..., Answer], head: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    monkeypatch.setattr("rine_cache.encoders.load_encoder", lambda spec, device: StandInEncoder(spec.batch_size))

    def run(*arguments: str | Path) -> Answer:
        return rine_cache("predict", "--head", head, *arguments)

    return run


def test_a_folder_gives_a_table_and_never_a_claim_of_certainty(predict: Callable[..., Answer], folder: Path) -> None:
    answer = predict(folder)
    assert answer.status == 0, answer.err
    header, first, second, *_ = answer.out.splitlines()
    assert header.split() == "image score calibrated real above fake above compatible with".split()  # noqa: SIM905
    assert first.startswith(str(folder / "a.png"))
    assert second.startswith(str(folder / "b.png"))
    assert "Head RINE (seed 0), trained on mine. It was validated on 30 real and 30 fake images." in answer.out.replace(
        "\n", " "
    )
    assert "A score is what the head gives, not a proof" in answer.out
    assert "weight of each block in this head, counted from 0, whatever the image:" in answer.out
    for claim in ("is fake", "is real", "certainly", "proves", "detected"):
        assert claim not in answer.out
    assert "files that are no images were passed over: 1 .txt" in answer.err
    assert "predict: 2/2 images" in answer.err


def test_an_image_that_cannot_be_read_is_listed_with_its_reason(predict: Callable[..., Answer], folder: Path) -> None:
    answer = predict(folder, folder / "notes.txt", folder / "nowhere.png")
    assert answer.status == 1
    assert f"not read: {folder / 'notes.txt'} (" in answer.out
    assert f"not read: {folder / 'nowhere.png'} (missing: No such file or directory)" in answer.out
    assert "2 of 4 images could not be read" in answer.err


def test_json_holds_the_head_every_image_and_the_weights(predict: Callable[..., Answer], folder: Path) -> None:
    answer = predict(folder, folder / "nowhere.png", "--format", "json")
    found = json.loads(answer.out)
    assert (answer.status, found["head"]["method"], found["head"]["training_set"]) == (1, "RINE", "mine")
    assert sum(found["block_weights"].values()) == pytest.approx(1)
    *read, lost = found["predictions"]
    assert [row["path"] for row in read] == [str(folder / "a.png"), str(folder / "b.png")]
    for row in read:
        assert row["score"] == pytest.approx(1 / (1 + np.exp(-row["logit"])))
        assert row["compatible_with"] in ("real", "fake", "real or fake", "neither")
        assert 0 <= row["real_above"] <= 1
    assert (lost["score"], lost["problem"]) == (None, "missing: No such file or directory")


def test_json_lines_and_csv_say_the_same_as_json(predict: Callable[..., Answer], folder: Path) -> None:
    rows = json.loads(predict(folder, "--format", "json").out)["predictions"]
    assert [json.loads(line) for line in predict(folder, "--format", "jsonl").out.splitlines()] == rows
    lines = list(csv.DictReader(predict(folder, "--format", "csv").out.splitlines()))
    assert [(line["path"], float(line["score"])) for line in lines] == [(row["path"], row["score"]) for row in rows]


@pytest.mark.parametrize("separator", ["\n", "\0"])
def test_paths_are_read_from_standard_input_or_a_file(
    predict: Callable[..., Answer], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, separator: str
) -> None:
    content = separator.join(str(folder / name) for name in ("b.png", "a.png")).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    (tmp_path / "list").write_bytes(content)
    from_stdin, from_file = (predict("--list", where, "--format", "jsonl") for where in ("-", tmp_path / "list"))
    assert from_stdin.out == from_file.out
    assert [json.loads(line)["path"] for line in from_file.out.splitlines()] == [
        str(folder / "b.png"),
        str(folder / "a.png"),
    ]


def test_odd_file_names_do_not_tear_the_table(predict: Callable[..., Answer], folder: Path) -> None:
    odd = folder / "two\nlines\x1b[31m.png"
    (folder / "a.png").rename(odd)
    first = predict(folder, "--format", "csv").out.splitlines()[2]
    assert first.startswith(f"{folder}/two�lines�[31m.png,")


def test_what_is_missing_is_told(
    predict: Callable[..., Answer], rine_cache: Callable[..., Answer], folder: Path, head: Path, tmp_path: Path
) -> None:
    assert "name images or folders, or give a --list" in refused(predict())
    assert "cannot read the list nowhere: No such file" in refused(predict("--list", "nowhere"))
    (tmp_path / "empty").mkdir()
    assert "there is no image in" in refused(predict(tmp_path / "empty"))
    none = refused(rine_cache("predict", folder))
    assert "give --head, a trained or imported head; there is none in results/heads: train some" in none
    several = refused(rine_cache("predict", folder, "--head", tmp_path))
    assert f"--head {tmp_path} is a folder; give one head; heads in {tmp_path}: {head}" in several


def test_a_head_of_another_encoder_is_refused(
    rine_cache: Callable[..., Answer], head: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rine_cache.encoders.load_encoder", lambda spec, device: StandInEncoder(1, seed=1))
    answer = rine_cache("predict", folder, "--head", head)
    assert answer.status == 2
    assert "was trained on features of weights_sha256" in answer.err


def test_a_head_without_validation_scores_says_so(
    rine_cache: Callable[..., Answer], predict: Callable[..., Answer], head: Path, folder: Path
) -> None:
    from rine_cache.heads.head import load_head

    loaded = load_head(head)
    save_head(loaded._replace(card=loaded.card.model_copy(update={"calibration": None})), head)
    answer = predict(folder)
    assert answer.status == 0
    assert answer.out.splitlines()[0].split() == ["image", "score"]
    assert "states no validation scores" in answer.out.replace("\n", " ")
