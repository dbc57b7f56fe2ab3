from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rine_cache.losses import bce_gradient, bce_sum, contrastive_gradient, supervised_contrastive_loss

GOLDEN = np.load(Path(__file__).parent / "data" / "head_golden.npz")


def naive_contrastive(z: torch.Tensor, labels: torch.Tensor, temperature: float) -> float:
    """Khosla et al., equation 2, written as loops."""
    unit = z.double() / z.double().norm(dim=1, keepdim=True)
    total = 0.0
    for anchor in range(len(z)):
        others = [other for other in range(len(z)) if other != anchor]
        positives = [other for other in others if labels[other] == labels[anchor]]
        if not positives:
            continue
        similarity = {other: float(unit[anchor] @ unit[other]) / temperature for other in others}
        normaliser = np.logaddexp.reduce(list(similarity.values()))
        total += -sum(similarity[other] - normaliser for other in positives) / len(positives)
    return total / len(z)


@pytest.mark.parametrize("name", ["", "_one_positive_missing"])
def test_the_contrastive_loss_has_the_authors_value(name: str) -> None:
    features = torch.from_numpy(GOLDEN["supcon_features"])
    labels = torch.from_numpy(GOLDEN[f"supcon_labels{name}"])
    loss = supervised_contrastive_loss(features, labels, 0.07).item()
    assert loss == pytest.approx(float(GOLDEN[f"supcon_loss{name}"]), abs=1e-5)


def test_the_cross_entropy_and_the_total_have_the_authors_values() -> None:
    labels = torch.from_numpy(GOLDEN["supcon_labels"])
    bce = bce_sum(torch.from_numpy(GOLDEN["bce_logits"]), labels)
    assert bce.item() == pytest.approx(float(GOLDEN["bce_sum"]), abs=1e-5)
    contrastive = supervised_contrastive_loss(torch.from_numpy(GOLDEN["supcon_features"]), labels, 0.07)
    assert (bce + 0.2 * contrastive).item() == pytest.approx(float(GOLDEN["total_xi_0_2"]), abs=1e-5)


@pytest.mark.parametrize("labels", [[0, 1, 0, 1, 1], [0, 0, 0, 0, 0], [0, 1, 1, 1, 1], [0, 1, 0, 1, 0]])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_the_contrastive_loss_equals_the_loops(labels: list[int], temperature: float) -> None:
    z = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    loss = supervised_contrastive_loss(z, torch.tensor(labels), temperature)
    assert loss.item() == pytest.approx(naive_contrastive(z, torch.tensor(labels), temperature), rel=1e-5)


def test_an_anchor_without_a_positive_counts_as_zero_and_stays_in_the_mean() -> None:
    z = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    assert supervised_contrastive_loss(z, torch.tensor([0, 1]), 0.07).item() == 0.0


def test_the_contrastive_gradient_is_finite_and_that_of_the_loops() -> None:
    z = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    supervised_contrastive_loss(z, labels, 0.5).backward()
    step = 1e-6
    for row, column in [(0, 0), (3, 2)]:
        moved = z.detach().clone()
        moved[row, column] += step
        numeric = (naive_contrastive(moved, labels, 0.5) - naive_contrastive(z.detach(), labels, 0.5)) / step
        assert z.grad is not None
        assert z.grad[row, column].item() == pytest.approx(numeric, abs=1e-4)


def test_no_loss_is_not_a_number_where_everything_is_alike() -> None:
    z = torch.zeros(4, 3, requires_grad=True)
    loss = supervised_contrastive_loss(z, torch.tensor([0, 0, 1, 1]), 0.07)
    loss.backward()
    assert torch.isfinite(loss)
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize("labels", [[0, 1, 0, 1, 1], [0, 0, 0, 0, 0], [0, 1, 1, 1, 1], [0, 1], [1]])
def test_gradients_written_out_are_those_of_autograd(labels: list[int]) -> None:
    """Of three heads at once, one of them with a projection that is nothing."""
    torch.manual_seed(0)
    z = torch.randn(3, len(labels), 7, dtype=torch.float64)
    z[1, 0] = 0
    logits, targets = torch.randn(3, len(labels), dtype=torch.float64), torch.tensor(labels)
    temperatures = torch.tensor([0.07, 0.5, 1.0], dtype=torch.float64)
    by_z, by_logits = contrastive_gradient(z, targets, temperatures), bce_gradient(logits, targets)
    for head in range(3):
        own_z, own_logits = z[head].clone().requires_grad_(), logits[head].clone().requires_grad_()
        contrastive = supervised_contrastive_loss(own_z, targets, temperatures[head].item())
        bce = bce_sum(own_logits, targets)
        (contrastive + bce).backward()
        torch.testing.assert_close(by_z.loss[head], contrastive.detach())
        torch.testing.assert_close(by_logits.loss[head], bce.detach())
        torch.testing.assert_close(by_z.gradient[head], own_z.grad)
        torch.testing.assert_close(by_logits.gradient[head], own_logits.grad)


def test_the_stacked_losses_have_the_authors_values() -> None:
    labels = torch.from_numpy(GOLDEN["supcon_labels"])
    features, logits = torch.from_numpy(GOLDEN["supcon_features"]), torch.from_numpy(GOLDEN["bce_logits"])
    contrastive = contrastive_gradient(features[None], labels, torch.tensor([0.07])).loss
    assert contrastive.item() == pytest.approx(float(GOLDEN["supcon_loss"]), abs=1e-5)
    assert bce_gradient(logits[None], labels).loss.item() == pytest.approx(float(GOLDEN["bce_sum"]), abs=1e-5)
