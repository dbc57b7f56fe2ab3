from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from rine_cache.heads.neighbours import BankSize, NeighboursHead
from rine_cache.metrics import is_fake

E = 7


def head(real: int = 23, fake: int = 31, k: int = 1) -> NeighboursHead:
    rng = np.random.default_rng(0)
    network = NeighboursHead(BankSize(real=real, fake=fake), E, k=k)
    network.real[:] = torch.from_numpy(rng.normal(0.2, 3, (real, E)))
    network.fake[:] = torch.from_numpy(rng.normal(-0.2, 2, (fake, E)))
    return network


def queries(count: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).normal(0, 5, (count, E)).astype(np.float32))


def logits(network: NeighboursHead, embedding: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        found: np.ndarray = network(embedding).logit.numpy()
    return found


def cosine_distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@pytest.mark.parametrize("k", [1, 3, 23])
def test_the_logit_is_the_difference_of_mean_distances_written_out(k: int) -> None:
    network, embedding = head(k=k), queries(9)
    found = logits(network, embedding)
    for row, query in enumerate(embedding.double().numpy()):
        to_real, to_fake = (
            np.mean(sorted(cosine_distance(query, image) for image in bank.double().numpy())[:k])
            for bank in (network.real, network.fake)
        )
        assert found[row] == pytest.approx(to_real - to_fake, abs=2e-6)


def test_with_one_neighbour_it_decides_as_the_nearest_image_of_all() -> None:
    """UniversalFakeDetect's rule, by scikit-learn: the label of the nearest by cosine distance."""
    network, embedding = head(), queries(500)
    bank = torch.cat([network.real, network.fake]).float().numpy()
    nearest = KNeighborsClassifier(1, metric="cosine").fit(bank, np.repeat([0, 1], [23, 31]))
    decided = nearest.predict(embedding.numpy())
    assert 0 < decided.mean() < 1
    np.testing.assert_array_equal(is_fake(logits(network, embedding)), decided == 1)


@pytest.mark.parametrize("k", [1, 5])
def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch, k: int) -> None:
    network, embedding = head(k=k), queries(10)
    whole = logits(network, embedding)
    for similarities, rows in ((10, 100), (30, 100), (10_000, 2), (10_000, 22)):
        monkeypatch.setattr("rine_cache.heads.neighbours._SIMILARITIES_AT_ONCE", similarities)
        monkeypatch.setattr("rine_cache.heads.neighbours._BANK_ROWS_AT_ONCE", rows)
        np.testing.assert_allclose(logits(network, embedding), whole, atol=1e-6)


def test_no_more_similarities_are_held_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rine_cache.heads.neighbours._SIMILARITIES_AT_ONCE", 60)
    seen = []
    topk = torch.topk
    monkeypatch.setattr(torch, "topk", lambda values, k: (seen.append(values.numel()), topk(values, k))[1])
    logits(head(k=2), queries(10))
    assert max(seen) <= 60


def test_lengths_do_not_matter_and_an_image_of_the_bank_is_its_own_nearest() -> None:
    network, embedding = head(), queries(20)
    np.testing.assert_allclose(logits(network, 100 * embedding), logits(network, embedding), atol=1e-6)
    assert (logits(network, network.fake.float()) > 0).all()
    assert (logits(network, network.real.float()) < 0).all()


def test_nothing_in_it_is_trained() -> None:
    network = head()
    assert list(network.parameters()) == []
    assert set(network.state_dict()) == {"real", "fake"}
    assert np.isfinite(logits(network, torch.zeros(2, E))).all()
