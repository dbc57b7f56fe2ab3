"""An ablation of single blocks beside scikit-learn's logistic regression, fitted here on each block by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h5py
import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from rine_cache.ablation import SUBSETS, train_ablation
from rine_cache.features import FeatureSet, open_part
from rine_cache.heads.head import load_head
from tests.conftest import Encoded, StandInEncoder
from tests.test_ablation import experiment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import MadeCache

BRIGHT = 124  # between the mean grey levels of real images, 94, and of fakes, 154
SIGNAL = (0.0, 0.5, 3.0, 1.0, 0.0, 1.7)  # what each block's tokens say of the class, in deviations of their noise


class GradedEncoder(StandInEncoder):
    """Says whether an image is bright, which fakes are, in one direction of each block, amid the image's own noise."""

    def __init__(self) -> None:
        super().__init__(blocks=len(SIGNAL))

    def encode(self, crops: np.ndarray) -> Encoded:
        encoded = super().encode(crops)
        tokens = np.empty(encoded.tokens["ln_2"].shape, np.float32)  # (K, B, D)
        for image, crop in enumerate(crops):
            noise = np.random.default_rng(crop.astype(np.int64).ravel()[:64]).normal(size=tokens[:, image].shape)
            told = 1.0 if crop.mean() > BRIGHT else -1.0
            tokens[:, image] = noise
            tokens[:, image, 0] += told * np.array(SIGNAL)
        return Encoded({"ln_2": tokens.astype(np.float16), "block": tokens.astype(np.float16)}, encoded.embedding)


def read_plainly(made: MadeCache) -> tuple[np.ndarray, np.ndarray]:
    """Read tokens (K, N, D) and labels (N,) past the library: the file's array, and the manifest's column."""
    with h5py.File(made.features) as file:
        tokens = file["features"][:, :, 0].astype(np.float64)
    return tokens, made.manifest.table["label"].to_numpy()


@pytest.mark.usefixtures("one_thread")
def test_single_blocks_are_ranked_as_independent_probes_rank_them(
    make_cache: Callable[..., MadeCache], tmp_path: Path
) -> None:
    sizes = {"train": 50, "validation": 40, "test": 40}
    made = {
        name: make_cache(name, per_class, seed=seed, encoder=GradedEncoder())
        for seed, (name, per_class) in enumerate(sizes.items())
    }
    (train_tokens, train_labels), (validation_tokens, validation_labels), (tokens, labels) = (
        read_plainly(made[name]) for name in sizes
    )
    # scikit-learn's, on each block alone.
    probes = [LogisticRegression(max_iter=1000).fit(block, train_labels) for block in train_tokens]
    probe_auc = [
        roc_auc_score(labels, probe.decision_function(block)) for probe, block in zip(probes, tokens, strict=True)
    ]
    probe_loss = [
        log_loss(validation_labels, probe.predict_proba(block))
        for probe, block in zip(probes, validation_tokens, strict=True)
    ]
    telling = np.argsort(SIGNAL)[2:].tolist()  # the two others say nothing: which of them comes last is luck
    assert np.argsort(probe_auc)[2:].tolist() == np.argsort(probe_loss)[::-1][2:].tolist() == telling

    train, validation = (FeatureSet([open_part(*made[name][:2])]) for name in ("train", "validation"))
    spec = experiment(
        training={"epochs": 6, "batch_size": 32, "learning_rate": 0.01, "learning_rate_drops": [5]},
        methods={
            "RINE": {"head": {"kind": "rine", "width": 16, "layers": 1}, "training": {"xi": 0.2}},
            "logistic": {"head": {"kind": "logistic", "blocks": "all", "standardise": False}},
        },
    )
    for method in spec.methods:
        heads = tmp_path / method
        train_ablation(spec, method, ["each"], train, validation, heads, "cpu")
        table = pl.read_parquet(heads / SUBSETS)
        assert table["blocks"].to_list() == [[block] for block in range(len(SIGNAL))]
        losses, auc = table["validation_loss"].to_list(), []
        for block, name in table.select("block", "method").iter_rows():
            given = torch.from_numpy(tokens[[block]].swapaxes(0, 1)).float()  # (N, 1, D)
            with torch.no_grad():
                logits = [load_head(path).network(given).logit for path in (heads / name).iterdir()]
            auc.append(np.mean([roc_auc_score(labels, each.numpy()) for each in logits]))
        assert np.argsort(auc)[2:].tolist() == np.argsort(losses)[::-1][2:].tolist() == telling
        assert spearmanr(auc, probe_auc).statistic > 0.9
        assert spearmanr(losses, probe_loss).statistic > 0.9
        if method == "logistic":  # by another road the same number
            np.testing.assert_allclose(losses, probe_loss, rtol=1e-3)
            np.testing.assert_allclose(auc, probe_auc, atol=1e-3)
