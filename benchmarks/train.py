"""Speed of training the paper's grid: all heads at once, against one at a time, against the machine's products.

Run it as ``python benchmarks/train.py``; ``--help`` lists what can be set. The grid is xi in {.1, .2, .4, .8}, Q in
{1, 2, 4}, P in {128, 256, 512, 1024} on K blocks of width D. Timed in turn, in one run, for each P and its 12 heads:

peak      one product of float32 matrices, (K B, D) by (D, D): by torch's own (MKL in its x86 packages), and by the one
          that `rine_cache` uses (oneDNN on x86, elsewhere torch's own)
plain     one head at a time, as the RINE authors' code trains on cached features: nn.Module, nn.Dropout, autograd,
          torch.optim.Adam
stacked   the 12 heads together, as `rine_cache.train` does, what they share of reading and masking included

Features lie in memory and are random, as they do not change the time. A ratio is that of two speeds that were measured
one after the other, in one round; its median over the rounds is printed with the quartiles. A share of a peak counts
the multiplications that a head needs, and no others; torch's own peak is the yardstick of what plain PyTorch could
reach, `rine_cache`'s that of the machine. Last come heads of Q = 2 on a quarter of the blocks, beside the same on all,
with the share of multiplications that they need: what comes after the blocks is the same for both.
"""

from __future__ import annotations

import platform
import time
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import torch
from torch.nn import functional

from rine_cache.devices import resolve_device
from rine_cache.feature_windows import ReadImages
from rine_cache.heads.head import FeatureIdentity, build_network
from rine_cache.heads.products import linear
from rine_cache.heads.stacked import Scratch
from rine_cache.losses import bce_sum, supervised_contrastive_loss
from rine_cache.specs.training import ExperimentSpec
from rine_cache.train import HEADS_BUDGET
from rine_cache.training_batches import BatchMaker
from rine_cache.training_plan import plan_rounds
from rine_cache.training_stack import TrainingStack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rine_cache.training_plan import Trainee

XI, LAYERS, WIDTHS = (0.1, 0.2, 0.4, 0.8), (1, 2, 4), (128, 256, 512, 1024)
PRODUCTS = 4  # in one measurement of a peak
TORCH, OURS = "torch's own", "rine_cache's"


class Features:
    """One batch of features in memory."""

    def __init__(self, images: int, blocks: int, width: int, device: str) -> None:
        self.identity = FeatureIdentity(
            encoder={}, tap="ln_2", block_count=blocks, token_width=width, embedding_width=None
        )
        self.labels = np.arange(images) % 2  # (B,)
        self._tokens = torch.randn(images, blocks, width, device=device)  # (B, K, D)
        self._stored = self._tokens.transpose(0, 1).half()  # (K, B, D)

    def tokens(self, blocks: Sequence[int]) -> torch.Tensor:
        """Return the tokens of the blocks, shape (B, K', D)."""
        every = len(blocks) == self._tokens.shape[1]
        return self._tokens if every else self._tokens[:, list(blocks)]

    def read(self, blocks: Sequence[int]) -> ReadImages:
        """Return a batch as it is read: widened from what is stored, so that it may be overwritten."""
        labels = torch.from_numpy(self.labels).to(self._tokens.device)  # (B,)
        return ReadImages(np.arange(len(labels)), labels, self._stored[list(blocks)].float(), None)


def experiment(width: int, batch_size: int, layers: Sequence[int] = LAYERS, blocks: str = "all") -> ExperimentSpec:
    """Write the settings of the grid that have one P."""
    methods: dict[str, Any] = {
        f"xi{xi}-q{q}": {
            "head": {"kind": "rine", "layers": q, "width": width, "blocks": blocks},
            "training": {"xi": xi, "batch_size": batch_size},
        }
        for xi in XI
        for q in layers
    }
    return ExperimentSpec.model_validate({"encoder": "none", "training_set": "none", "methods": methods})


class Stacked:
    """Heads trained together."""

    def __init__(self, spec: ExperimentSpec, features: Features, device: str) -> None:
        (together,) = plan_rounds(spec, features.identity, HEADS_BUDGET, on_cpu=device == "cpu")
        scratch = Scratch()
        self._stacks = [TrainingStack(each, features.identity, device, scratch) for each in together.stacks]
        self.trainees: list[Trainee] = [trainee for each in together.stacks for trainee in each]
        self._maker = BatchMaker({trainee.blocks for trainee in self.trainees})
        self._maker.begin_epoch(0, 1)
        for stack in self._stacks:
            stack.begin_epoch(1)
        self._features = features

    def step(self) -> None:
        """Let every head learn from one batch."""
        batch = self._maker.for_training(self._features.read(self._maker.blocks))
        for stack in self._stacks:
            stack.step(batch)


class Plain:
    """One head, trained alone."""

    def __init__(self, trainee: Trainee, features: Features, device: str) -> None:
        self._network = build_network(trainee.head, features.identity).to(device)
        self._optimiser = torch.optim.Adam(self._network.parameters(), lr=trainee.training.learning_rate)
        self._settings, self._features, self._blocks = trainee.training, features, trainee.blocks
        self._labels = torch.from_numpy(features.labels).to(device)

    def step(self) -> None:
        """Learn from one batch."""
        output = self._network(self._features.tokens(self._blocks))
        contrastive = supervised_contrastive_loss(output.z, self._labels, self._settings.temperature)
        loss = bce_sum(output.logit, self._labels) + self._settings.xi * contrastive
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()


def operations(trainee: Trainee, features: Features) -> int:
    """Count the floating-point operations of one step's products with a head's weights."""
    head, images = trainee.head, len(features.labels)
    assert head.kind == "rine"
    rows, square = images * len(trainee.blocks), head.width**2
    first = 2 * rows * features.identity.token_width * head.width  # forward, and for the weights
    others = 3 * (rows * (head.layers - 1) + images * (head.layers + 2)) * square  # and for what they were given
    return 2 * (first + others)


def timed(work: Callable[[], None], device: str) -> float:
    """Return the seconds it takes."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def peaks(rows: int, width: int, device: str) -> dict[str, float]:
    """Return operations per second of the two ways to multiply."""
    left, right = torch.randn(rows, width, device=device), torch.randn(width, width, device=device)
    ways = {TORCH: lambda: functional.linear(left, right), OURS: lambda: linear([left], [right])}
    needed = 2 * rows * width * width
    return {name: needed / min(timed(way, device) for _ in range(PRODUCTS)) for name, way in ways.items()}


def spread(values: Sequence[float], unit: str = "") -> str:
    """Write a median with its quartiles."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:7.2f}{unit} [{low:.2f}, {high:.2f}]"


@click.command()
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|mps|cuda[:N]")
@click.option(
    "--width", "widths", type=int, multiple=True, default=WIDTHS, show_default=True, help="P; may be repeated."
)
@click.option("--blocks", default=24, show_default=True, help="K.")
@click.option("--token-width", default=1024, show_default=True, help="D.")
@click.option("--batch-size", default=128, show_default=True, help="B.")
@click.option("--steps", default=2, show_default=True, help="Steps of each head in a round.")
@click.option("--rounds", default=5, show_default=True)
def main(
    device: str, widths: tuple[int, ...], blocks: int, token_width: int, batch_size: int, steps: int, rounds: int
) -> None:
    """Print ratios of speeds and shares of the peak that were measured side by side."""
    device = resolve_device(device)
    where = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{torch.get_num_threads()} CPU cores"
    click.echo(
        f"K={blocks} D={token_width} B={batch_size}, float32, {where} ({platform.machine()}), {rounds} rounds of "
        f"{steps} steps, torch {torch.__version__}"
    )
    features = Features(batch_size, blocks, token_width, device)
    stacked = {width: Stacked(experiment(width, batch_size), features, device) for width in widths}
    plain = {width: [Plain(trainee, features, device) for trainee in stacked[width].trainees] for width in widths}
    needed = {width: sum(operations(trainee, features) for trainee in stacked[width].trainees) for width in widths}
    read = ("all", f"last:{blocks // 4}")
    subsets = {
        (width, blocks_read): Stacked(experiment(width, batch_size, (2,), blocks_read), features, device)
        for width in widths
        for blocks_read in read
    }

    def one_at_a_time(width: int) -> None:
        for head in plain[width]:
            for _ in range(steps):
                head.step()

    def together(heads: Stacked) -> None:
        for _ in range(steps):
            heads.step()

    for width in widths:  # once before it counts
        one_at_a_time(width)
        together(stacked[width])
    for heads in subsets.values():
        together(heads)
    seconds: dict[tuple[str, int], list[float]] = {}
    measured: dict[tuple[str, int], list[float]] = {}
    by_subset: dict[tuple[int, str], list[float]] = {key: [] for key in subsets}
    for number in range(rounds):
        for width in widths:
            for name, speed in peaks(batch_size * blocks, token_width, device).items():
                measured.setdefault((name, width), []).append(speed)
            for name, work in (
                ("plain", lambda width=width: one_at_a_time(width)),
                ("stacked", lambda width=width: together(stacked[width])),
            ):
                seconds.setdefault((name, width), []).append(timed(work, device))
        for key, heads in subsets.items():
            by_subset[key].append(timed(lambda heads=heads: together(heads), device))
        click.echo(f"  round {number + 1} of {rounds} done", err=True)
    for name in (TORCH, OURS):
        speeds = np.concatenate([measured[name, width] for width in widths]) / 1e9
        click.echo(f"peak of products, {name:<13}{spread(speeds, ' GFLOP/s')}")
    click.echo(
        f"{'':6}{'plain, ms a head':^28}{'stacked, ms a head':^28}{'plain / stacked':^24}"
        + "".join(f"  of {name}: plain stacked" for name in (TORCH, OURS))
    )
    total = {name: np.zeros(rounds) for name in ("plain", "stacked", TORCH, OURS)}

    def shares(least: Mapping[str, np.ndarray], one: np.ndarray, all_: np.ndarray) -> str:
        return "".join(
            f"{np.median(least[name] / one):>{len(name) + 12}.0%} {np.median(least[name] / all_):>7.0%}"
            for name in (TORCH, OURS)
        )

    for width in widths:
        one, all_ = (np.array(seconds[name, width]) for name in ("plain", "stacked"))  # (rounds,)
        least = {name: needed[width] * steps / np.array(measured[name, width]) for name in (TORCH, OURS)}  # (rounds,)
        heads = len(stacked[width].trainees) * steps / 1e3
        click.echo(
            f"{width:<6}{spread(one / heads):<28}{spread(all_ / heads):<28}{spread(one / all_, ' x'):<24}"
            f"{shares(least, one, all_)}"
        )
        for name, value in {"plain": one, "stacked": all_, **least}.items():
            total[name] += value
    click.echo(
        f"{'grid':62}{spread(total['plain'] / total['stacked'], ' x'):<24}"
        f"{shares(total, total['plain'], total['stacked'])}"
    )
    for width in widths:
        whole, part = (np.array(by_subset[width, blocks_read]) for blocks_read in read)
        needs = [sum(operations(each, features) for each in subsets[width, one].trainees) for one in read]
        click.echo(
            f"P={width} Q=2: time on {read[1]} / on all {blocks} blocks {spread(part / whole)}, "
            f"multiplications {needs[1] / needs[0]:.2f}"
        )


if __name__ == "__main__":
    main()
