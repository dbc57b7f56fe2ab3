"""Our own forward pass of open_clip's `VisionTransformer`: its modules and parameters, less what nobody reads.

Only class tokens leave the blocks. So the last block asks with the class token alone, and its MLP sees that one row,
unless the tower's pooling reads them all; nothing else is kept, and what can be is computed in place.

Shapes: n crops of S x S pixels, N rows (the class token first) of D, K blocks, H heads of d, embedding of E.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, VisionTransformer
from torch.nn import functional

from rine_cache.devices import prefers_one_dnn
from rine_cache.errors import EncoderError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Linear = Callable[[Tensor, Tensor, Tensor | None], Tensor]

_QUICK = 1.702  # of QuickGELU
_KEPT = torch.float16


class ClassTokens(NamedTuple):
    """What leaves a tower for n crops, float16, on its device."""

    tokens: Tensor  # (2, K, n, D): at ln_2, and after the block
    embedding: Tensor  # (n, E)


def require_plain(tower: VisionTransformer, architecture: str, compute_dtype: str) -> None:
    """Refuse a tower whose blocks or pooling this forward pass does not know, or cannot compute in this precision.

    Raises
    ------
    EncoderError
        If a block is none of open_clip's plain ones, several embeddings come out (no architecture that open_clip 3.3
        lists; one that a user adds to its list), or attentional pooling is to be in half precision.
    """
    strange = {type(block).__name__ for block in tower.transformer.resblocks} - {ResidualAttentionBlock.__name__}
    if strange:
        raise EncoderError(
            f"architecture {architecture!r} is made of {', '.join(sorted(strange))}, whose forward pass is not "
            f"implemented; only {ResidualAttentionBlock.__name__} is"
        )
    if tower.pool_type == "none":
        raise EncoderError(
            f"architecture {architecture!r} pools nothing, or in parallel or in cascade: it gives no single embedding; "
            "allowed are the pool types tok and avg, with or without attentional_pool: true"
        )
    if tower.attn_pool is not None and compute_dtype != "float32":
        raise EncoderError(
            f"architecture {architecture!r} does not compute in {compute_dtype}: open_clip keeps the query of its "
            "attentional pooling in float32; set the encoder's precision: float32"
        )


class Forward:
    """The forward pass of one tower, on the device and in the precision that its parameters have."""

    def __init__(self, tower: VisionTransformer, mean: list[float], std: list[float], *, compiled: bool) -> None:
        """Prepare; `mean` and `std` are the three channels' for pixels from 0 to 1. The tower is not copied."""
        weight = tower.conv1.weight
        self._tower, self._dtype = tower, weight.dtype
        # Compiled, torch.compile chooses.
        self._linear = functional.linear if compiled else _linear_for(weight)
        self._run = torch.compile(self._class_tokens, dynamic=False) if compiled else self._class_tokens
        centre, spread = torch.tensor([mean, std], dtype=torch.float64, device="cpu")  # each (3,)
        self._scale = (1 / (255 * spread)).float().to(weight.device)  # (3,)
        self._shift = (-centre / spread).float().to(weight.device)  # (3,)
        self._class_only = tower.attn_pool is None and tower.pool_type == "tok"

    @torch.inference_mode()
    def __call__(self, crops: Tensor) -> ClassTokens:
        """Run the tower on RGB crops, shape (n, S, S, 3), uint8, on its device; their n must never vary.

        Another n may change the last bits of every row.
        """
        return ClassTokens(*self._run(crops))

    def _class_tokens(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        tower = self._tower
        pixels = torch.addcmul(self._shift, crops.float(), self._scale).to(self._dtype)  # (n, S, S, 3)
        stream = tower._embeds(pixels.permute(0, 3, 1, 2))  # (n, N, D)
        blocks = tower.transformer.resblocks
        count, _, width = stream.shape
        tokens = stream.new_empty((2, len(blocks), count, width), dtype=_KEPT)  # (2, K, n, D)
        for number, block in enumerate(blocks):
            normed = block.ln_1(stream)  # (n, N, D)
            if self._class_only and number == len(blocks) - 1:
                stream = stream[:, :1].contiguous()  # (n, 1, D)
            stream += block.ls_1(self._attend(block.attn, normed, stream.shape[1]))  # (n, N or 1, D)
            normed = block.ln_2(stream)  # (n, N or 1, D)
            tokens[0, number] = normed[:, 0]
            stream += block.ls_2(self._mlp(block.mlp, normed))  # (n, N or 1, D)
            tokens[1, number] = stream[:, 0]
        pooled, _ = tower._pool(stream)  # (n, E')
        embedding = self._linear(pooled.unsqueeze(1), tower.proj.t(), None)  # (n, 1, E)
        return tokens, embedding.squeeze(1).to(_KEPT)

    def _attend(self, attention: Any, normed: Tensor, asking: int) -> Tensor:
        """Attend from the first `asking` rows to all: (n, N, D) to (n, asking, D)."""
        weight, bias = attention.in_proj_weight, attention.in_proj_bias  # (3D, D), (3D,)
        count, rows, width = normed.shape
        heads = (attention.num_heads, width // attention.num_heads)
        if asking == rows:
            projected = self._linear(normed, weight, bias).view(count, rows, 3, *heads)  # (n, N, 3, H, d)
            query, key, value = projected.permute(2, 0, 3, 1, 4)  # each (n, H, N, d)
        else:
            first = normed[:, :asking].contiguous()  # (n, asking, D)
            query = self._linear(first, weight[:width], bias[:width]).view(count, asking, *heads).transpose(1, 2)
            projected = self._linear(normed, weight[width:], bias[width:]).view(count, rows, 2, *heads)
            key, value = projected.permute(2, 0, 3, 1, 4)  # each (n, H, N, d)
        mixed = functional.scaled_dot_product_attention(query, key, value)  # (n, H, asking, d)
        mixed = mixed.transpose(1, 2).reshape(count, asking, width)  # (n, asking, D)
        return self._linear(mixed, attention.out_proj.weight, attention.out_proj.bias)

    def _mlp(self, mlp: Any, normed: Tensor) -> Tensor:
        hidden = self._linear(normed, mlp.c_fc.weight, mlp.c_fc.bias)  # (n, N or 1, 4D)
        if isinstance(mlp.gelu, QuickGELU):
            # x sigmoid(1.702 x) is silu(1.702 x) / 1.702, which needs no memory.
            hidden = functional.silu(hidden.mul_(_QUICK), inplace=True).mul_(1 / _QUICK)
        else:
            hidden = mlp.gelu(hidden)
        return self._linear(hidden, mlp.c_proj.weight, mlp.c_proj.bias)  # (n, N or 1, D)


def _linear_for(weight: Tensor) -> Linear:
    """Choose what multiplies matrices: oneDNN where it is the fastest, else what torch takes for the device."""
    return _pointwise_convolution if prefers_one_dnn(weight.device, weight.dtype) else functional.linear


def _pointwise_convolution(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute `linear` as a convolution of 1 x 1 by oneDNN, which takes the processor for what it is.

    torch gives a float32 `linear` to MKL, which uses half of an AMD processor's vector width: 115 against 240 GFLOP/s
    a core on an EPYC with AVX-512. `conv2d` would leave oneDNN for MKL in some shapes and numbers of threads. A crop
    is an image here, so that each is computed alike wherever it stands in the batch.
    """
    images = rows.unsqueeze(1).permute(0, 3, 1, 2)  # (n, D, 1, N), channels last
    done = torch.mkldnn_convolution(images, weight[:, :, None, None], bias, (0, 0), (1, 1), (1, 1), 1)
    return done.permute(0, 2, 3, 1).squeeze(1)  # (n, N, D')
