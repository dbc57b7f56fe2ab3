"""Products of stacked matrices: H heads' own weights, each head's product the same however many are in the stack.

On a CPU heads are multiplied one after another, which costs nothing at the sizes of a head and gives the same bits in
any company; on a GPU in one batched product. Letters: H heads, R rows, D columns in, P columns out.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from rine_cache.devices import prefers_one_dnn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


def linear(
    rows: Sequence[Tensor] | Tensor,
    weight: Sequence[Tensor] | Tensor,
    bias: Tensor | None = None,
    *,
    relu: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """Compute ``rows @ weight.T + bias`` for each head; nothing is recorded for autograd.

    Parameters
    ----------
    rows
        H matrices, each (R, D), in any layout; one tensor (H, R, D), or a sequence in which heads may share one.
    weight
        H matrices, each (P, D), in any layout, so that the gradients too are such products: for the rows
        ``linear(gradient, weight.mT)``, for the weights ``linear(gradient.mT, rows.mT)``. The last is faster where
        ``rows.mT`` lies row by row in memory.
    bias
        Shape (H, P), or none.
    relu
        Whether ReLU is applied.
    out
        Where the result is put, (H, R, P), or none for memory of its own.

    Returns
    -------
    Shape (H, R, P); `out` if it was given.
    """
    first = rows[0]
    if _one_by_one(first.device):
        multiply = _one_dnn if _by_one_dnn(first.device, first.dtype) else _torch_linear
        biases = [None] * len(rows) if bias is None else bias
        done = [multiply(*operands, relu) for operands in zip(rows, weight, biases, strict=True)]
        if out is None:
            return done[0].unsqueeze(0) if len(done) == 1 else torch.stack(done)  # (H, R, P); one is not copied
        for target, product in zip(out, done, strict=True):
            target.copy_(product)
        return out
    left, right = _stacked(rows), _stacked(weight).mT  # (H, R, D), (H, D, P)
    if bias is None:
        product = torch.bmm(left, right, out=out)  # (H, R, P)
    else:
        product = torch.baddbmm(bias.unsqueeze(1), left, right, out=out)  # (H, R, P)
    return product.relu_() if relu else product


def _one_by_one(device: torch.device) -> bool:
    return device.type == "cpu"


def _stacked(matrices: Sequence[Tensor] | Tensor) -> Tensor:
    if isinstance(matrices, torch.Tensor):
        return matrices
    first = matrices[0]
    if all(matrix.data_ptr() == first.data_ptr() for matrix in matrices):  # of one shape
        return first.expand(len(matrices), *first.shape)  # not copied
    return torch.stack(list(matrices))


@functools.cache
def _by_one_dnn(device: torch.device, dtype: torch.dtype) -> bool:
    # The operator is torch's own business: where a version has it no more, the rest is as right and less fast.
    return prefers_one_dnn(device, dtype) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _one_dnn(rows: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    """Compute by oneDNN's inner product, as torch's compiler does: 240 against 110 GFLOP/s a core on an EPYC."""
    multiply: Callable[..., Tensor] = torch.ops.mkldnn._linear_pointwise
    activation = "relu" if relu else "none"
    # It packs its second operand from any layout; the first must lie row by row, and torch transposes in one thread.
    if bias is None and weight.is_contiguous() and not rows.is_contiguous():
        return multiply(weight, rows, None, activation, [], "").mT
    return multiply(rows, weight, bias, activation, [], "")


def _torch_linear(rows: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    product = functional.linear(rows, weight, bias)
    return product.relu_() if relu else product
