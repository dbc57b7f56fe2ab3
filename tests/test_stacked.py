from __future__ import annotations

import pytest
import torch

from rine_cache.heads.coins import Coins
from rine_cache.heads.linear import LinearHead
from rine_cache.heads.rine import RineHead
from rine_cache.heads.stacked import Layout, Scratch, StackedLinear, StackedRine
from rine_cache.losses import bce_sum, supervised_contrastive_loss
from tests.plain_training import masks_of_step, with_given_dropout

B, K, D, P = 6, 4, 5, 7
LABELS = torch.tensor([0, 1, 0, 1, 1, 0])


def networks(heads: int, layers: int, *, tie: bool = True, blocks: int = K) -> list[RineHead]:
    torch.manual_seed(0)
    return [RineHead(blocks, D, layers=layers, width=P, tie=tie).double() for _ in range(heads)]


def columns(tokens: list[torch.Tensor]) -> list[torch.Tensor]:
    return [own.flatten(0, 1).mT for own in tokens]  # each (D, K B)


@pytest.mark.parametrize("xi", [0.0, 0.3])
@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("one_by_one", [True, False])
def test_losses_and_gradients_are_those_of_autograd(
    layers: int, xi: float, monkeypatch: pytest.MonkeyPatch, *, tie: bool, one_by_one: bool
) -> None:
    """Three heads in one stack, one of them on other tokens, each against its own network; as on a GPU too."""
    monkeypatch.setattr("rine_cache.heads.products._one_by_one", lambda device: one_by_one)
    plain = networks(3, layers, tie=tie)
    shared, other = torch.randn(2, K, B, D, dtype=torch.float64)
    tokens = [shared, shared, other]
    xis = xi * torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    temperatures = torch.tensor([0.07, 0.5, 1.0], dtype=torch.float64)
    stack = StackedRine(plain, xis, temperatures, Scratch())
    losses, gradients = stack.gradients(tokens, columns(tokens), LABELS, Coins.for_hidden_layers(0, 1))
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
            found = Layout(network).views(gradients[head])[name]
            torch.testing.assert_close(found, parameter.grad, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_pieces_change_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many blocks are taken at a time, gradients are the same."""
    tokens = [torch.randn(K, B, D, dtype=torch.float64)] * 2
    settings = torch.full((2,), 0.2, dtype=torch.float64)
    found = []
    for elements in (1 << 20, rows * B * P):
        monkeypatch.setattr("rine_cache.heads.stacked._CHUNK_ELEMENTS", elements)
        stack = StackedRine(networks(2, 2), settings, settings, Scratch())
        found.append(stack.gradients(tokens, columns(tokens), LABELS, Coins.for_hidden_layers(0, 1))[1])
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("tie", [True, False])
def test_logits_are_those_of_the_networks(*, tie: bool) -> None:
    plain = networks(3, 2, tie=tie)
    tokens = torch.randn(3, K, B, D, dtype=torch.float64)
    settings = torch.ones(3, dtype=torch.float64)
    logits = StackedRine(plain, settings, settings, Scratch()).logits(list(tokens))
    for network, own, found in zip(plain, tokens, logits, strict=True):
        torch.testing.assert_close(found, network.eval()(own.transpose(0, 1)).logit)


@pytest.mark.parametrize(("blocks", "images", "width"), [(3, 40, 48), (24, 128, 32), (2, 17, 33), (1, 128, 256)])
def test_a_head_is_the_same_bit_for_bit_in_any_company(blocks: int, images: int, width: int) -> None:
    """In float32, at sizes where products and sums are cut into blocks and threads, and at odd ones."""
    torch.manual_seed(0)
    plain = [RineHead(blocks, 64, layers=2, width=width, tie=True) for _ in range(4)]
    tokens = [torch.randn(blocks, images, 64)] * 4
    labels = torch.arange(images) % 2
    settings = torch.full((4,), 0.2)
    together = StackedRine(plain, settings, settings, Scratch())
    _, expected = together.gradients(tokens, columns(tokens), labels, Coins.for_hidden_layers(0, 1))
    for head, network in enumerate(plain):
        alone = StackedRine([network], settings[:1], settings[:1], Scratch())
        _, found = alone.gradients(tokens[:1], columns(tokens[:1]), labels, Coins.for_hidden_layers(0, 1))
        views = [Layout(network).views(gradients) for gradients in (found[0], expected[head])]
        assert [name for name in views[0] if not torch.equal(views[0][name], views[1][name])] == []
        assert torch.equal(alone.logits(tokens[:1])[0], together.logits(tokens)[head])


def test_a_head_of_nans_touches_no_other() -> None:
    plain = networks(2, 2)
    tokens = [torch.randn(K, B, D, dtype=torch.float64)] * 2
    settings = torch.full((2,), 0.2, dtype=torch.float64)
    healthy = StackedRine(plain, settings, settings, Scratch())
    _, expected = healthy.gradients(tokens, columns(tokens), LABELS, Coins.for_hidden_layers(0, 1))
    with torch.no_grad():
        plain[0].proj1[1].weight.fill_(torch.nan)
    stack = StackedRine(plain, settings, settings, Scratch())
    losses, found = stack.gradients(tokens, columns(tokens), LABELS, Coins.for_hidden_layers(0, 1))
    assert losses.bce.isfinite().tolist() == [False, True]
    assert torch.equal(found[1], expected[1])


def test_linear_heads_are_those_of_autograd() -> None:
    torch.manual_seed(0)
    plain = [LinearHead(D).double() for _ in range(3)]
    embedding = torch.randn(B, D, dtype=torch.float64)
    stack = StackedLinear(plain)
    losses, gradients = stack.gradients([embedding] * 3, [], LABELS, Coins.for_hidden_layers(0, 1))
    for head, network in enumerate(plain):
        loss = bce_sum(network(embedding).logit, LABELS)
        loss.backward()
        assert losses.bce[head].item() == pytest.approx(loss.item())
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(Layout(network).views(gradients[head])[name], parameter.grad)


def test_parameters_go_into_vectors_and_come_back() -> None:
    plain = networks(2, 2)
    layout = Layout(plain[0])
    vectors = layout.vectors(plain)
    assert vectors.shape == (2, layout.size)
    for head, network in enumerate(plain):
        for name, parameter in network.named_parameters():
            assert torch.equal(layout.views(vectors)[name][head], parameter)
    layout.views(vectors)["alpha"].zero_()
    assert plain[0].alpha is not None
    assert plain[0].alpha.abs().sum() > 0  # copied
