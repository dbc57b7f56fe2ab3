"""Heads of one shape trained at once: forward, loss and backward of the whole stack, written out.

The plain network (`rine_cache.heads.rine`) with torch's autograd, dropout and optimiser spends more of a small head's
time on random numbers, copies and single passes over memory than on products. Here the heads share masked tokens and
coins, activations are overwritten by their own gradients, blocks are taken a few at a time so that what one step writes
the next still finds in the processor's cache, and the products are the fastest that the device has.

Letters: H heads, K' blocks that each reads, B batch, D token width, P head width, Q layers per projection, E embedding
width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch

from rine_cache.heads.coins import Masks
from rine_cache.heads.products import linear
from rine_cache.losses import bce_gradient, contrastive_gradient

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

    from rine_cache.heads.coins import Coins


_CHUNK_ELEMENTS = 1 << 19  # of one head's activations on a CPU, 2 MiB: about a core's own cache


class HeadLosses(NamedTuple):
    """A batch's losses, each of shape (H,): cross-entropy summed over the batch, contrastive not times xi."""

    bce: Tensor
    contrastive: Tensor


class Scratch:
    """Memory for activations, which stacks that take turns take in turn."""

    def __init__(self) -> None:
        self._memory: dict[str, Tensor] = {}

    def __call__(self, name: str, like: Tensor, *shape: int) -> Tensor:
        """Return memory of a shape, its values undefined, its device and type those of `like`."""
        size = torch.Size(shape).numel()
        held = self._memory.get(name)
        if held is None or held.numel() < size or (held.device, held.dtype) != (like.device, like.dtype):
            held = self._memory[name] = torch.empty(size, dtype=like.dtype, device=like.device)
        return held[:size].view(shape)


class StackedHeads(Protocol):
    """H heads of one shape, of N parameters each.

    Attributes
    ----------
    parameters
        Their parameters, shape (H, N): a head's stand in the order of its network's, each flattened.
    """

    parameters: Tensor

    def logits(self, inputs: Sequence[Tensor], /) -> Tensor:
        """Score images, (H, B), from what each head reads, H tensors, which heads may share."""

    def gradients(
        self, inputs: Sequence[Tensor], columns: Sequence[Tensor], labels: Tensor, coins: Coins, /
    ) -> tuple[HeadLosses, Tensor]:
        """Compute a batch's losses and gradients, (H, N), which are valid until the next call; labels are (B,).

        The columns are the inputs again, each image's a column: H tensors, in any layout.
        """


class Layout:
    """Where each parameter of a network stands in a vector of them all."""

    def __init__(self, network: nn.Module) -> None:
        self._shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
        self.size = sum(shape.numel() for shape in self._shapes.values())

    def vectors(self, networks: Sequence[nn.Module]) -> Tensor:
        """Copy the parameters of H networks, shape (H, N)."""
        return torch.stack(
            [torch.cat([own.detach().flatten() for own in network.parameters()]) for network in networks]
        )

    def views(self, vectors: Tensor) -> dict[str, Tensor]:
        """Return parameters by name, of shapes (H, ...), in the memory of the vectors, (H, N); or (...) of (N,)."""
        views, start = {}, 0
        for name, shape in self._shapes.items():
            views[name] = vectors[..., start : start + shape.numel()].view(*vectors.shape[:-1], *shape)
            start += shape.numel()
        return views


class StackedRine:
    """H RINE heads, as `StackedHeads`."""

    def __init__(self, networks: Sequence[nn.Module], xi: Tensor, temperature: Tensor, scratch: Scratch) -> None:
        """Copy networks, each a `RineHead`. The loss's `xi`, (H,), is positive for all or zero; `temperature`, (H,)."""
        layout = Layout(networks[0])
        self.parameters = layout.vectors(networks)  # (H, N)
        self._gradients = scratch("gradients", self.parameters, *self.parameters.shape)  # (H, N)
        self._values, self._by = layout.views(self.parameters), layout.views(self._gradients)
        self._heads, self._width, _ = self._values["proj1.1.weight"].shape
        self._layers = sum(name.startswith("proj1.") and name.endswith(".weight") for name in self._values)
        self._first = [f"proj1.{1 + 3 * layer}" for layer in range(self._layers)]
        self._then = [*(f"proj2.{1 + 3 * layer}" for layer in range(self._layers)), "head.0", "head.3"]
        self._tie = "alpha" in self._values
        self._xi, self._temperature, self._contrasts = xi, temperature, bool(xi[0] > 0)
        self._scratch, self._masks = scratch, Masks()

    @torch.no_grad()
    def logits(self, tokens: Sequence[Tensor]) -> Tensor:
        """Score images, (H, B), from each head's CLS tokens, H tensors (K', B, D), which heads may share."""
        state = self._weigh(tokens, self._importance(len(tokens[0])), None, [])  # (H, B, P)
        for name in self._then:
            state = self._layer(name, state)  # (H, B, P)
        return self._logits(state)

    @torch.no_grad()
    def gradients(
        self, tokens: Sequence[Tensor], columns: Sequence[Tensor], labels: Tensor, coins: Coins
    ) -> tuple[HeadLosses, Tensor]:
        """Compute a batch's losses and gradients.

        Parameters
        ----------
        tokens
            Each head's CLS tokens after dropout, H tensors (K', B, D), which heads may share.
        columns
            The same transposed, H tensors (D, K' B), in any layout.
        labels
            0 real, 1 fake, shape (B,).
        coins
            The coins of the hidden layers: a mask for each of the layers over the blocks, in their order, then for
            what Q2 gets, and for the layers after it.
        """
        size, blocks = len(labels) * self._width, len(tokens[0])
        block_coins = [coins.toss(blocks, size, labels.device) for _ in self._first]  # each (K', W)
        coins_then = coins.toss(len(self._then) + 1, size, labels.device)
        masks = Masks()(coins_then, size).reshape(-1, len(labels), self._width)  # (Q + 3, B, P)

        importance = self._importance(blocks)  # (H, K', P)
        shape = (self._heads, blocks, len(labels), self._width)
        states = [self._scratch(f"layer {layer}", importance, *shape) for layer in range(self._layers)]  # (H, K', B, P)
        weighed = self._weigh(tokens, importance, block_coins, states)  # (H, B, P)
        inputs = [weighed.mul_(masks[0])]  # each (H, B, P)
        for name, mask in zip(self._then, masks[1:], strict=True):
            inputs.append(self._layer(name, inputs[-1]).mul_(mask))

        bce, gradient = bce_gradient(self._logits(inputs[-1]), labels)  # (H,), (H, B)
        contrastive, by_z = torch.zeros_like(bce), None
        if self._contrasts:
            contrastive, by_z = contrastive_gradient(inputs[self._layers], labels, self._temperature)
            by_z.mul_(self._xi[:, None, None])  # (H, B, P)
        by_weighed = self._back_to_weighed(gradient, by_z, inputs).mul_(masks[0])  # (H, B, P)
        self._back_to_columns(by_weighed, importance, states, columns)
        return HeadLosses(bce, contrastive), self._gradients

    def _importance(self, blocks: int) -> Tensor:
        if self._tie:
            # Not by torch's softmax, whose last bits depend on where a head stands in the stack.
            alpha = self._values["alpha"].squeeze(1)  # (H, K', P)
            weight = (alpha - alpha.amax(1, keepdim=True)).exp_()  # (H, K', P)
            return weight.div_(weight.sum(1, keepdim=True))
        like = self._values["head.6.bias"]
        return like.new_full((1, 1, 1), 1 / blocks).expand(self._heads, blocks, self._width)

    def _layer(self, name: str, rows: Sequence[Tensor] | Tensor) -> Tensor:
        """Apply a linear layer and ReLU: H of (R, D) to (H, R, P)."""
        return linear(rows, self._values[f"{name}.weight"], self._values[f"{name}.bias"], relu=True)

    def _logits(self, state: Tensor) -> Tensor:
        # A product with one column is a sum to every library.
        products = state * self._values["head.6.weight"]  # (H, B, P)
        return products.sum(2).add_(self._values["head.6.bias"])  # (H, B)

    def _chunks(self, blocks: int, rows: int) -> Iterator[slice]:
        """Cut blocks, each of so many rows, into pieces that a processor's cache holds; on a GPU into one."""
        on_cpu = self._values["head.6.bias"].device.type == "cpu"
        step = max(1, _CHUNK_ELEMENTS // (rows * self._width)) if on_cpu else blocks
        for start in range(0, blocks, step):
            yield slice(start, min(start + step, blocks))

    def _weigh(
        self, tokens: Sequence[Tensor], importance: Tensor, coins: list[Tensor] | None, states: list[Tensor]
    ) -> Tensor:
        """Project every block's tokens and add them up by importance, (H, B, P).

        With coins, mask each layer's result, and keep it in `states`.
        """
        blocks, rows, _ = tokens[0].shape
        weighed = importance.new_zeros(self._heads, rows, self._width)  # (H, B, P)
        for chunk in self._chunks(blocks, rows):
            state: Sequence[Tensor] | Tensor = [token[chunk].flatten(0, 1) for token in tokens]  # each (R, D)
            for layer, name in enumerate(self._first):
                done = self._layer(name, state)  # (H, R, P)
                if coins is not None:
                    mask = self._masks(coins[layer][chunk], rows * self._width).reshape(done.shape[1:])  # (R, P)
                    done = torch.mul(done, mask, out=states[layer][:, chunk].flatten(1, 2))
                state = done
            projected = done.view(self._heads, -1, rows, self._width)  # (H, k, B, P)
            for position, block in enumerate(range(blocks)[chunk]):
                weighed.addcmul_(projected[:, position], importance[:, block, None])
        return weighed

    def _back_to_weighed(self, by_logit: Tensor, by_z: Tensor | None, inputs: list[Tensor]) -> Tensor:
        """Set the gradients of Q2 and the classifier; return that of what Q2 gets, (H, B, P)."""
        values, by = self._values, self._by
        column = by_logit.unsqueeze(2)  # (H, B, 1)
        by["head.6.weight"].copy_((column * inputs[-1]).sum(1, keepdim=True))  # (H, 1, P)
        by["head.6.bias"].copy_(by_logit.sum(1, keepdim=True))  # (H, 1)
        gradient = column * values["head.6.weight"]  # (H, B, P)
        for layer in reversed(range(len(self._then))):
            if by_z is not None and layer + 1 == self._layers:
                gradient += by_z
            name, before, after = self._then[layer], inputs[layer], inputs[layer + 1]
            _through_relu(gradient, after, out=gradient).mul_(2)
            linear(gradient.mT, before.mT, out=by[f"{name}.weight"])  # (H, P, P)
            by[f"{name}.bias"].copy_(gradient.sum(1))  # (H, P)
            gradient = linear(gradient, values[f"{name}.weight"].mT)  # (H, B, P)
        return gradient

    def _back_to_columns(
        self, by_weighed: Tensor, importance: Tensor, states: list[Tensor], columns: Sequence[Tensor]
    ) -> None:
        """Set the gradients of TIE and Q1. Each layer's state becomes its gradient, in place."""
        values, by = self._values, self._by
        _, blocks, rows, _ = states[0].shape
        doubled = by_weighed * 2  # (H, B, P): a coin that kept a value doubled it
        by_importance = torch.empty_like(importance, memory_format=torch.contiguous_format)  # (H, K', P)
        for chunk in self._chunks(blocks, rows):
            state = states[-1][:, chunk]  # (H, k, B, P)
            if self._tie:
                torch.sum(state * by_weighed[:, None], 2, out=by_importance[:, chunk])  # (H, k, P)
            _through_relu(doubled[:, None] * importance[:, chunk, None], state, out=state)
        if self._tie:
            common = (importance * by_importance).sum(1, keepdim=True)  # (H, 1, P)
            by["alpha"].copy_((importance * (by_importance - common)).unsqueeze(1))  # (H, 1, K', P)
        for layer in reversed(range(self._layers)):
            name, gradient = self._first[layer], states[layer].flatten(1, 2)  # (H, K' B, P)
            below = states[layer - 1].flatten(1, 2).mT if layer else columns  # H of (P, K' B) or (D, K' B)
            linear(gradient.mT, below, out=by[f"{name}.weight"])  # (H, P, P or D)
            by[f"{name}.bias"].copy_(gradient.sum(1))  # (H, P)
            if not layer:
                break
            weight = values[f"{name}.weight"].mT * 2  # (H, P, P): for the coins of the layer below
            for chunk in self._chunks(blocks, rows):
                kept = states[layer - 1][:, chunk].flatten(1, 2)  # (H, R, P)
                _through_relu(linear(states[layer][:, chunk].flatten(1, 2), weight), kept, out=kept)


class StackedLinear:
    """H linear heads on the embedding, as `StackedHeads`; there is no dropout, and they all read the same."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        """Copy networks, each a `LinearHead`."""
        self.parameters = Layout(networks[0]).vectors(networks)  # (H, E + 1)

    @torch.no_grad()
    def logits(self, embeddings: Sequence[Tensor]) -> Tensor:
        """Score images, (H, B), from their embeddings, H times the same, (B, E)."""
        weight, bias = self.parameters[:, None, :-1], self.parameters[:, -1:]  # (H, 1, E), (H, 1)
        return (weight * embeddings[0]).sum(2).add_(bias)  # (H, B)

    @torch.no_grad()
    def gradients(
        self, embeddings: Sequence[Tensor], _columns: Sequence[Tensor], labels: Tensor, _coins: Coins
    ) -> tuple[HeadLosses, Tensor]:
        """Compute a batch's losses and gradients."""
        bce, gradient = bce_gradient(self.logits(embeddings), labels)  # (H,), (H, B)
        by_weight = (gradient.unsqueeze(2) * embeddings[0]).sum(1)  # (H, E)
        by_parameters = torch.cat([by_weight, gradient.sum(1, keepdim=True)], dim=1)  # (H, E + 1)
        return HeadLosses(bce, torch.zeros_like(bce)), by_parameters


def _through_relu(gradient: Tensor, result: Tensor, *, out: Tensor) -> Tensor:
    """Keep a gradient where ReLU and a coin let a value through, which is where the result is positive."""
    return torch.ops.aten.threshold_backward.grad_input(gradient, result, 0, grad_input=out)  # type: ignore[no-any-return]
