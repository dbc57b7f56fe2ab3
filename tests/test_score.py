from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch

from rine_cache.errors import CacheMismatchError
from rine_cache.evaluate import read_scores
from rine_cache.features import feature_identity, open_part
from rine_cache.heads.head import Head, HeadCard, build_network
from rine_cache.pairing import IMAGE_COLUMNS
from rine_cache.score import ScoredImages, score
from rine_cache.specs.encoding import TrainViewSpec
from rine_cache.specs.training import HeadSpec, LinearHeadSpec, RineHeadSpec
from tests.conftest import SIZE, StandInEncoder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rine_cache.features import FeaturePart
    from tests.conftest import MadeCache

NAMED = ScoredImages("mine", "tencrop")
SPECS: dict[str, HeadSpec] = {
    "all": RineHeadSpec(kind="rine", width=8),
    "two": RineHeadSpec(kind="rine", width=8, blocks=(0, 2), tie=False),
    "linear": LinearHeadSpec(kind="linear"),
}


def heads_for(part: FeaturePart) -> list[Head]:
    torch.manual_seed(0)
    features = feature_identity(part.cache)
    return [
        Head(
            HeadCard(method=name, seed=seed, head=spec, features=features),
            build_network(spec, features),
            f"{name}{seed}",
        )
        for name, spec in SPECS.items()
        for seed in (0, 1)
    ]


def test_logits_equal_each_image_alone_and_draws_are_averaged(
    make_cache: Callable[..., MadeCache], tmp_path: Path
) -> None:
    part = open_part(*make_cache(per_class=5, view=TrainViewSpec(kind="train", size=SIZE, draws=3))[:2])
    heads = heads_for(part)
    score(heads, part, NAMED, tmp_path / "s.parquet", "cpu")
    table = pl.read_parquet(tmp_path / "s.parquet")
    assert table.height == len(heads) * 15
    for head in heads:
        found = table.filter(method=head.card.method, seed=head.card.seed)
        assert found["image_id"].to_list() == part.manifest.table["image_id"].to_list()
        for row in range(15):
            logits = []
            for draw in range(3):
                tokens = torch.from_numpy(part.cache.features[:, row, draw].astype(np.float32))
                embedding = torch.from_numpy(part.cache.embedding[row, draw].astype(np.float32))
                inputs = embedding if head.card.method == "linear" else tokens[list(head.card.blocks)]
                with torch.no_grad():
                    logits.append(head.network.eval()(inputs[None]).logit.item())
            assert found["logit"][row] == pytest.approx(np.mean(logits), abs=1e-5)


def test_a_quarantined_image_keeps_its_row_and_has_no_logit(
    make_cache: Callable[..., MadeCache], make_images: Callable[..., Path], tmp_path: Path
) -> None:
    (make_images("images", 3) / "0_real" / "bad.png").write_bytes(b"")
    part = open_part(*make_cache("images", per_class=3)[:2])
    score(heads_for(part), part, NAMED, tmp_path / "s.parquet", "cpu")
    table = pl.read_parquet(tmp_path / "s.parquet")
    assert set(table.filter(pl.col("logit").is_null())["image_id"]) == {"0_real/bad.png"}
    assert table.filter(image_id="0_real/bad.png").height == 6


def test_the_header_says_what_the_scores_are_of(make_cache: Callable[..., MadeCache], tmp_path: Path) -> None:
    part = open_part(*make_cache(per_class=2)[:2])
    score(heads_for(part), part, NAMED, tmp_path / "s.parquet", "cpu")
    header = json.loads(pq.read_schema(tmp_path / "s.parquet").metadata[b"rine_cache"])
    assert (header["dataset"], header["view"]) == ("mine", "tencrop")
    assert header["encoding_fingerprint"] == part.cache.fingerprint
    assert header["manifest_digest"] == part.manifest.digest
    assert [head["fingerprint"] for head in header["heads"]] == ["all0", "all1", "two0", "two1", "linear0", "linear1"]


def test_what_is_written_is_read_back(make_cache: Callable[..., MadeCache], tmp_path: Path) -> None:
    part = open_part(*make_cache(per_class=2)[:2])
    images = part.manifest.table.with_columns(variant=pl.Series(["partial", None, "global"] * 2))
    part = part._replace(manifest=dataclasses.replace(part.manifest, table=images))
    score(heads_for(part), part, NAMED, tmp_path / "s.parquet", "cpu")
    scores = read_scores(tmp_path / "s.parquet")
    assert scores.images.equals(images.select(IMAGE_COLUMNS))
    table = pl.read_parquet(tmp_path / "s.parquet")
    assert scores.logits.shape == (6, 6)
    for index, (method, seed) in enumerate(scores.heads):
        np.testing.assert_array_equal(scores.logits[index], table.filter(method=method, seed=seed)["logit"])


def test_a_head_of_another_encoder_refuses_the_cache(make_cache: Callable[..., MadeCache], tmp_path: Path) -> None:
    ours = open_part(*make_cache("a", per_class=2)[:2])
    other = open_part(*make_cache("b", per_class=2, encoder=StandInEncoder(seed=1))[:2])
    with pytest.raises(CacheMismatchError, match="weights_sha256"):
        score(heads_for(ours), other, NAMED, tmp_path / "s.parquet", "cpu")
    assert not (tmp_path / "s.parquet").exists()
