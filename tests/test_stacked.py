from __future__ import annotations

import pytest
import torch

from rine_cache.heads.coins import Coins
from rine_cache.heads.linear import LinearHead
from rine_cache.heads.rine import RineHead
from rine_cache.heads.stacked import Scratch, StackedLinear, StackedRine, stacked_parameters
from rine_cache.losses import bce_sum, supervised_contrastive_loss
from tests.plain_training import masks_of_step, with_given_dropout

B, K, D, P = 6, 4, 5, 7
LABELS = torch.tensor([0, 1, 0, 1, 1, 0])


def networks(heads: int, layers: int, *, tie: bool = True, blocks: int = K) -> list[RineHead]:
    torch.manual_seed(0)
    return [RineHead(blocks, D, layers=layers, width=P, tie=tie).double() for _ in range(heads)]


@pytest.mark.parametrize("xi", [0.0, 0.3])
@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_losses_and_gradients_are_those_of_autograd(layers: int, xi: float, *, tie: bool) -> None:
    """Three heads in one stack, one of them on other tokens, each against its own network."""
    plain = networks(3, layers, tie=tie)
    shared, other = torch.randn(2, K, B, D, dtype=torch.float64)
    tokens = [shared, shared, other]
    xis = xi * torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    temperatures = torch.tensor([0.07, 0.5, 1.0], dtype=torch.float64)
    stack = StackedRine(plain, xis, temperatures, Scratch())
    losses = stack.gradients(tokens, LABELS, Coins.for_hidden_layers(0, 1))
    for head, network in enumerate(plain):
        given = with_given_dropout(network)
        of_tokens = [Coins.for_tokens(0, 1, block) for block in range(K)]
        given.masks = masks_of_step(network, of_tokens, Coins.for_hidden_layers(0, 1), B, D)
        given.masks[0] = torch.ones(B, K, D)  # the stack gets tokens after dropout
        output = network(tokens[head].transpose(0, 1))
        bce = bce_sum(output.logit, LABELS)
        contrastive = supervised_contrastive_loss(output.z, LABELS, temperatures[head].item())
        (bce + xis[head] * contrastive).backward()
        assert losses.bce[head].item() == pytest.approx(bce.item(), rel=1e-12)
        assert losses.contrastive[head].item() == pytest.approx(contrastive.item() if xi else 0.0, rel=1e-9)
        for name, parameter in network.named_parameters():
            found = stack.parameters[name].grad
            assert found is not None
            torch.testing.assert_close(found[head], parameter.grad, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_pieces_change_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many blocks are taken at a time, gradients are the same."""
    tokens = [torch.randn(K, B, D, dtype=torch.float64)] * 2
    settings = torch.full((2,), 0.2, dtype=torch.float64)
    found = []
    for elements in (1 << 20, rows * B * P):
        monkeypatch.setattr("rine_cache.heads.stacked._CHUNK_ELEMENTS", elements)
        stack = StackedRine(networks(2, 2), settings, settings, Scratch())
        stack.gradients(tokens, LABELS, Coins.for_hidden_layers(0, 1))
        found.append([parameter.grad for parameter in stack.parameters.values()])
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("tie", [True, False])
def test_logits_are_those_of_the_networks(*, tie: bool) -> None:
    plain = networks(3, 2, tie=tie)
    tokens = torch.randn(3, K, B, D, dtype=torch.float64)
    settings = torch.ones(3, dtype=torch.float64)
    logits = StackedRine(plain, settings, settings, Scratch()).logits(list(tokens))
    for network, own, found in zip(plain, tokens, logits, strict=True):
        torch.testing.assert_close(found, network.eval()(own.transpose(0, 1)).logit)


def test_a_head_is_the_same_bit_for_bit_in_any_company() -> None:
    """In float32, at sizes where products are cut into blocks and threads."""
    torch.manual_seed(0)
    plain = [RineHead(3, 64, layers=2, width=48, tie=True) for _ in range(4)]
    tokens = [torch.randn(3, 40, 64)] * 4
    labels = torch.arange(40) % 2
    settings = torch.full((4,), 0.2)
    together = StackedRine(plain, settings, settings, Scratch())
    together.gradients(tokens, labels, Coins.for_hidden_layers(0, 1))
    for head, network in enumerate(plain):
        alone = StackedRine([network], settings[:1], settings[:1], Scratch())
        alone.gradients(tokens[:1], labels, Coins.for_hidden_layers(0, 1))
        for name, parameter in alone.parameters.items():
            ours = together.parameters[name].grad
            assert ours is not None
            assert parameter.grad is not None
            assert torch.equal(ours[head], parameter.grad[0]), name


def test_a_head_of_nans_touches_no_other() -> None:
    plain = networks(2, 2)
    tokens = [torch.randn(K, B, D, dtype=torch.float64)] * 2
    settings = torch.full((2,), 0.2, dtype=torch.float64)
    expected = StackedRine(plain, settings, settings, Scratch())
    expected.gradients(tokens, LABELS, Coins.for_hidden_layers(0, 1))
    with torch.no_grad():
        plain[0].proj1[1].weight.fill_(torch.nan)
    stack = StackedRine(plain, settings, settings, Scratch())
    losses = stack.gradients(tokens, LABELS, Coins.for_hidden_layers(0, 1))
    assert losses.bce.isfinite().tolist() == [False, True]
    for name, parameter in expected.parameters.items():
        found = stack.parameters[name].grad
        assert found is not None
        assert parameter.grad is not None
        assert torch.equal(found[1], parameter.grad[1])


def test_linear_heads_are_those_of_autograd() -> None:
    torch.manual_seed(0)
    plain = [LinearHead(D).double() for _ in range(3)]
    embedding = torch.randn(B, D, dtype=torch.float64)
    stack = StackedLinear(plain)
    losses = stack.gradients([embedding] * 3, LABELS, Coins.for_hidden_layers(0, 1))
    for head, network in enumerate(plain):
        loss = bce_sum(network(embedding).logit, LABELS)
        loss.backward()
        assert losses.bce[head].item() == pytest.approx(loss.item())
        for name, parameter in network.named_parameters():
            found = stack.parameters[name].grad
            assert found is not None
            torch.testing.assert_close(found[head], parameter.grad)


def test_parameters_are_copied() -> None:
    plain = networks(2, 1)
    stacked_parameters(plain)["alpha"].zero_()
    assert plain[0].alpha is not None
    assert plain[0].alpha.abs().sum() > 0
