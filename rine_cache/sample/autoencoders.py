"""Small convolutional autoencoders: toy generators that differ in how they upsample.

The upsampling operator is what leaves a generator's trace: checkerboards of transposed convolution, the
spectral replicas of nearest-neighbour and sub-pixel upsampling (Odena et al. 2016; Durall et al.,
arXiv:2003.01826).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from rine_cache.specs.data import Operator

_CHANNELS = 16
_PATCH = 64  # side of the training patches, in pixels
_BATCH = 16
_LEARNING_RATE = 2e-3
_MARGIN = 32  # pixels mirrored beyond the border: more than the network's receptive field reaches


def _transposed(inputs: int, outputs: int) -> nn.Module:
    # A kernel that the stride does not divide overlaps unevenly: the classic checkerboard.
    return nn.ConvTranspose2d(inputs, outputs, kernel_size=3, stride=2, padding=1, output_padding=1)


def _nearest(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(inputs, outputs, 3, padding=1))


def _subpixel(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, 4 * outputs, 3, padding=1), nn.PixelShuffle(2))


def _bilinear(inputs: int, outputs: int) -> nn.Module:
    upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    return nn.Sequential(upsample, nn.Conv2d(inputs, outputs, 3, padding=1))


UPSAMPLERS: dict[Operator, Callable[[int, int], nn.Module]] = {
    "transposed": _transposed,
    "nearest": _nearest,
    "subpixel": _subpixel,
    "bilinear": _bilinear,
}


def train_autoencoder(operator: Operator, images: torch.Tensor, *, steps: int, seed: int) -> nn.Module:
    """Train an autoencoder to reconstruct random patches of photographs.

    Parameters
    ----------
    operator
        How its decoder upsamples.
    images
        Training crops, shape (N, 3, S, S), float32 in [0, 1].
    steps
        Optimiser steps; a hundred or two reconstruct with a clear trace of the operator.
    seed
        Fixes initial weights and patches.

    Returns
    -------
    The network, in evaluation mode: (B, 3, S, S) -> (B, 3, S, S), S divisible by 8.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(UPSAMPLERS[operator])
        optimiser = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)
        for _ in range(steps):
            patches = _patches(images)  # (B, 3, P, P)
            loss = nn.functional.l1_loss(network(patches), patches)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
            optimiser.step()
    return network.eval()


def reconstruct(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Reconstruct images, shape (B, 3, S, S), float32 in [0, 1], S divisible by 8, with no trace of the border.

    The convolutions pad with zeros, which would mark the edge of every fake; the image is mirrored beyond it.
    """
    mirrored = nn.functional.pad(images, (_MARGIN,) * 4, mode="reflect")  # (B, 3, S + 2M, S + 2M)
    reconstructed: torch.Tensor = network(mirrored)  # (B, 3, S + 2M, S + 2M)
    return reconstructed[:, :, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]  # (B, 3, S, S)


def _network(upsampler: Callable[[int, int], nn.Module]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, _CHANNELS, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(_CHANNELS, _CHANNELS, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(_CHANNELS, _CHANNELS, 3, stride=2, padding=1),
        nn.ReLU(),
        upsampler(_CHANNELS, _CHANNELS),
        nn.ReLU(),
        upsampler(_CHANNELS, _CHANNELS),
        nn.ReLU(),
        upsampler(_CHANNELS, 3),
    )


def _patches(images: torch.Tensor) -> torch.Tensor:
    count, _, side, _ = images.shape
    rows = torch.randint(0, count, (_BATCH,)).tolist()
    corners = torch.randint(0, side - _PATCH + 1, (_BATCH, 2)).tolist()
    return torch.stack(
        [
            images[row, :, top : top + _PATCH, left : left + _PATCH]
            for row, (top, left) in zip(rows, corners, strict=True)
        ]
    )  # (B, 3, P, P)
