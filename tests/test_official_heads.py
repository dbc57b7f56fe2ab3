"""The RINE authors' four checkpoints by their shapes: imported by the command line, exported again, computed plainly.

Only the 2-class file is at hand; the others are made here with their keys and shapes (`get_our_trained_model` in the
authors' code says which), and random values.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from rine_cache.heads.head import FeatureIdentity, Head, HeadCard, build_network, load_head, save_head
from rine_cache.specs.config import load_config
from rine_cache.specs.training import OfficialHeadSpec, RineHeadSpec
from tests.test_pipeline import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Answer

BLOCKS, TOKEN_WIDTH = 24, 1024  # ViT-L/14


class Released(NamedTuple):
    file: str
    training_set: str
    layers: int
    width: int
    parameters: int


RELEASED = [
    Released("model_1class_trainable.pth", "progan-1", 4, 1024, 10_521_601),
    Released("model_2class_trainable.pth", "progan-2", 4, 128, 283_009),
    Released("model_4class_trainable.pth", "progan-4", 2, 1024, 6_323_201),
    Released("model_ldm_trainable.pth", "ldm", 4, 1024, 10_521_601),
]


def shapes(layers: int, width: int, blocks: int = BLOCKS, token_width: int = TOKEN_WIDTH) -> dict[str, tuple[int, ...]]:
    """List the keys of an authors' file, in its order, with their tensors' shapes."""
    found: dict[str, tuple[int, ...]] = {"alpha": (1, blocks, width)}
    for part, first in (("proj1", token_width), ("proj2", width)):
        for layer in range(layers):  # between dropouts and ReLUs
            found[f"{part}.{1 + 3 * layer}.weight"] = (width, width if layer else first)
            found[f"{part}.{1 + 3 * layer}.bias"] = (width,)
    for layer, outputs in ((0, width), (3, width), (6, 1)):
        found[f"head.{layer}.weight"] = (outputs, width)
        found[f"head.{layer}.bias"] = (outputs,)
    return found


def checkpoint(layers: int, width: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(layers * width)
    return {
        name: torch.randn(shape, generator=draw) * (1.0 if name == "alpha" else shape[-1] ** -0.5)
        for name, shape in shapes(layers, width).items()
    }


def plain_logits(state: dict[str, torch.Tensor], tokens: np.ndarray) -> np.ndarray:
    """Compute the paper's head by its formulas, in float64, from the numbers of a file alone: (B, K, D) to (B,)."""
    numbers = {name: tensor.double().numpy() for name, tensor in state.items()}

    def through(part: str, values: np.ndarray, *, last_is_linear: bool = False) -> np.ndarray:
        weights = [name for name in numbers if re.fullmatch(rf"{part}\.\d+\.weight", name)]
        for name in sorted(weights, key=lambda name: int(name.split(".")[1])):
            values = values @ numbers[name].T + numbers[name.replace("weight", "bias")]
            if not (last_is_linear and name == weights[-1]):
                values = np.maximum(values, 0)
        return values

    projected = through("proj1", tokens.astype(np.float64))  # (B, K, P)
    powers = np.exp(numbers["alpha"][0])  # (K, P)
    weighed = np.stack([(powers / powers.sum(0) * image).sum(0) for image in projected])  # (B, P)
    return through("head", through("proj2", weighed), last_is_linear=True)[:, 0]


class AuthorsModel(nn.Module):
    """The trainable part of their model: its modules under its names."""

    def __init__(self, layers: int, width: int, token_width: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(1, BLOCKS, width))
        for name, first in (("proj1", token_width), ("proj2", width)):
            parts: list[nn.Module] = [nn.Dropout()]
            for layer in range(layers):
                parts += [nn.Linear(width if layer else first, width), nn.ReLU(), nn.Dropout()]
            self.add_module(name, nn.Sequential(*parts))
        ends = [nn.Linear(width, width), nn.ReLU(), nn.Dropout(), nn.Linear(width, width), nn.ReLU(), nn.Dropout()]
        self.head = nn.Sequential(*ends, nn.Linear(width, 1))

    def load(self, path: Path) -> None:
        """Set what the file names, one by one, as their code does: a key too few or too many would not be noticed."""
        for name, tensor in torch.load(path, weights_only=True).items():
            owner, _, attribute = name.rpartition(".")
            setattr(self.get_submodule(owner), attribute, nn.Parameter(tensor))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        projected = self.get_submodule("proj1")(tokens)
        z = torch.sum(torch.softmax(self.alpha, dim=1) * projected, dim=1)
        logits: torch.Tensor = self.head(self.get_submodule("proj2")(z))
        return logits.squeeze(1)


@pytest.mark.parametrize("released", RELEASED, ids=lambda released: released.training_set)
def test_a_checkpoint_goes_in_by_the_command_line_and_out_again_key_by_key(
    released: Released, rine_cache: Callable[..., Answer], tmp_path: Path
) -> None:
    state = checkpoint(released.layers, released.width)
    torch.save(state, tmp_path / released.file)
    ours, again = tmp_path / "ours.safetensors", tmp_path / "again.pth"
    answer = rine_cache(
        *("head", "import", tmp_path / released.file, "--out", ours, "--training-set", released.training_set)
    )
    assert answer.status == 0, answer.err
    assert rine_cache("head", "export", ours, "--out", again).status == 0

    head = load_head(ours)
    assert head.trainable_parameters == released.parameters
    assert (head.card.method, head.card.training_set) == ("RINE-official", released.training_set)
    assert (head.card.features.tap, head.card.features.encoder["architecture"]) == ("ln_2", "ViT-L-14-quickgelu")
    back = torch.load(again, weights_only=True)
    assert type(back) is dict
    assert list(back) == list(state)
    for name, tensor in state.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor), name

    tokens = np.random.default_rng(0).normal(size=(3, BLOCKS, TOKEN_WIDTH)).astype(np.float32)
    expected = plain_logits(state, tokens)
    authors = AuthorsModel(released.layers, released.width, TOKEN_WIDTH).eval()
    authors.load(again)
    assert np.ptp(expected) > 1e-4
    with torch.no_grad():
        for network in (lambda given: head.network(given).logit, authors):
            np.testing.assert_allclose(network(torch.from_numpy(tokens)).numpy(), expected, atol=1e-5)


def test_the_paper_configures_each_file_with_the_setting_that_is_trained_beside_it() -> None:
    paper = load_config(ROOT / "config" / "paper.yaml")
    for released in RELEASED:
        official = paper.experiments[f"official-{released.training_set}"]
        spec = official.methods["RINE-official"].head
        assert isinstance(spec, OfficialHeadSpec)
        assert (official.training_set, spec.file) == (released.training_set, f"data/rine/{released.file}")
        trained = paper.experiments[f"rine-{released.training_set}"].methods["RINE"].head
        assert trained == RineHeadSpec(kind="rine", layers=released.layers, width=released.width)


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_a_head_of_ours_loads_in_the_authors_model_whatever_its_depth(
    layers: int, rine_cache: Callable[..., Answer], tmp_path: Path
) -> None:
    features = FeatureIdentity(
        encoder={"architecture": "ViT-X", "activation": "gelu", "weights_sha256": "a" * 64},
        tap="ln_2",
        block_count=BLOCKS,
        token_width=32,
        embedding_width=None,
    )
    spec = RineHeadSpec(kind="rine", layers=layers, width=16)
    torch.manual_seed(layers)
    network = build_network(spec, features).eval()
    save_head(Head(HeadCard(method="m", head=spec, features=features), network), tmp_path / "m.safetensors")
    assert rine_cache("head", "export", tmp_path / "m.safetensors", "--out", tmp_path / "m.pth").status == 0
    state = torch.load(tmp_path / "m.pth", weights_only=True)
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == shapes(layers, 16, BLOCKS, 32)
    authors = AuthorsModel(layers, 16, 32).eval()
    authors.load(tmp_path / "m.pth")
    tokens = torch.randn(5, BLOCKS, 32)
    with torch.no_grad():
        logits = network(tokens).logit
        torch.testing.assert_close(authors(tokens), logits)
    np.testing.assert_allclose(plain_logits(state, tokens.numpy()), logits.numpy(), atol=1e-5)
