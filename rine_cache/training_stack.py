"""A stack of heads while it is trained: parameters, optimiser, curves, and each head's best epoch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from rine_cache.heads.adam import StackedAdam
from rine_cache.heads.coins import Coins
from rine_cache.heads.head import build_network
from rine_cache.heads.stacked import Layout, Scratch, StackedHeads, StackedLinear, StackedRine
from rine_cache.losses import bce_gradient
from rine_cache.metrics import VALIDATION_METRICS, binary_metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from rine_cache.heads.head import FeatureIdentity
    from rine_cache.training_batches import Batch
    from rine_cache.training_plan import Trainee

_DROP_FACTOR = 10.0
_WORTH_TRANSPOSING = 2  # a head's own is less to transpose, but for that head alone


class TrainingStack:
    """H heads of one shape in training.

    A head whose loss is no longer finite stays in the stack, where it touches no other, and its curve ends with that
    epoch.

    Attributes
    ----------
    trainees
        The heads, in the stack's order.
    curves
        Of each head, one row per epoch.
    best_logits
        Of each head, its logits on the validation images after its best epoch, (N,); empty before there is one.
    """

    def __init__(self, trainees: Sequence[Trainee], features: FeatureIdentity, device: str, scratch: Scratch) -> None:
        self.trainees = trainees
        self.epochs = trainees[0].training.epochs
        self.curves: list[list[dict[str, Any]]] = [[] for _ in trainees]
        self.best_logits = [torch.empty(0) for _ in trainees]
        self._features = features
        head = trainees[0].head
        self._transposes_tokens = (
            device == "cpu" and head.kind == "rine" and head.width * _WORTH_TRANSPOSING >= features.token_width
        )
        networks = [_initial_network(trainee, features).to(device) for trainee in trainees]
        if trainees[0].head.kind == "linear":
            self._stacked: StackedHeads = StackedLinear(networks)
        else:
            xi, temperature = (
                torch.tensor([getattr(trainee.training, name) for trainee in trainees], device=device)  # (H,)
                for name in ("xi", "temperature")
            )
            self._stacked = StackedRine(networks, xi, temperature, scratch)
        self._optimiser = StackedAdam(self._stacked.parameters)
        self._best = self._stacked.parameters.clone()  # (H, N)
        self._coins = Coins.for_hidden_layers(trainees[0].seed, epoch=1)
        self._totals = torch.zeros(2, len(trainees), device=device)  # (2, H)
        self._steps = 0

    def begin_epoch(self, epoch: int) -> None:
        """Set learning rates, and begin the epoch's coins."""
        self._optimiser.set_learning_rates(self._learning_rates(epoch))
        self._coins = Coins.for_hidden_layers(self.trainees[0].seed, epoch)
        self._totals.zero_()
        self._steps = 0

    def step(self, batch: Batch) -> None:
        """Learn from a batch."""
        losses, gradients = self._stacked.gradients(
            self._inputs(batch), self._columns(batch), batch.labels, self._coins
        )
        self._optimiser.step(gradients)
        self._totals += torch.stack(losses)
        self._steps += 1

    def logits(self, batch: Batch) -> Tensor:
        """Score a batch with every head, (H, B)."""
        return self._stacked.logits(self._inputs(batch))

    def end_epoch(self, epoch: int, images: int, logits: Tensor, labels: NDArray[np.int64]) -> None:
        """Add a row to each head's curve, and keep the parameters of those that are better than ever.

        Parameters
        ----------
        epoch
            From 1.
        images
            How many the heads learnt from.
        logits, labels
            Of the validation images, (H, N) and (N,).
        """
        validation_losses = (bce_gradient(logits, torch.from_numpy(labels)).loss / len(labels)).tolist()
        rates = self._learning_rates(epoch)
        for head, (trainee, curve) in enumerate(zip(self.trainees, self.curves, strict=True)):
            if self.has_diverged(head):
                continue
            bce, contrastive = self._totals[:, head].tolist()
            loss = validation_losses[head]
            row: dict[str, Any] = {
                "method": trainee.method,
                "seed": trainee.seed,
                "epoch": epoch,
                "learning_rate": rates[head],
                "train_bce": bce / images,
                "train_contrastive": contrastive / self._steps,
                "train_loss": (bce + trainee.training.xi * contrastive) / images,
                "validation_loss": loss,
            }
            if math.isfinite(loss):
                measured = binary_metrics(labels, logits[head].numpy())
                row |= {f"validation_{name}": measured[name] for name in VALIDATION_METRICS}
            if math.isfinite(loss) and all(loss < earlier["validation_loss"] for earlier in curve):
                self.best_logits[head] = logits[head].clone()
                self._best[head] = self._stacked.parameters[head]
            curve.append(row)

    def has_diverged(self, head: int) -> bool:
        """Whether a loss of the head was not finite."""
        curve = self.curves[head]
        return bool(curve) and not (
            math.isfinite(curve[-1]["train_loss"]) and math.isfinite(curve[-1]["validation_loss"])
        )

    def best_network(self, head: int) -> nn.Module:
        """Return a head as it was after its best epoch, on the CPU, in evaluation mode."""
        network = _initial_network(self.trainees[head], self._features)
        network.load_state_dict(Layout(network).views(self._best[head]))
        return network.eval()

    def _inputs(self, batch: Batch) -> list[Tensor]:
        return [batch.tokens(trainee.blocks) if trainee.blocks else batch.embedding for trainee in self.trainees]

    def _columns(self, batch: Batch) -> list[Tensor]:
        """Return what the heads read as columns, in the layout that is fastest.

        On a CPU one operand of a first layer's gradient must be transposed: each head's own, or once for all heads that
        read the same what they read. Which, only a head's shape decides, so that its bits are those it has alone.
        """
        if self._transposes_tokens:
            return [batch.columns(trainee.blocks) for trainee in self.trainees]
        return [tokens.flatten(0, -2).mT for tokens in self._inputs(batch)]

    def _learning_rates(self, epoch: int) -> list[float]:
        """Divide each head's first learning rate by ten for each drop that has been reached."""
        rates = []
        for trainee in self.trainees:
            drops = sum(epoch >= drop for drop in trainee.training.learning_rate_drops)
            rates.append(trainee.training.learning_rate / _DROP_FACTOR**drops)
        return rates


def _initial_network(trainee: Trainee, features: FeatureIdentity) -> nn.Module:
    """Make a head's network; its first parameters depend on its seed and shape only."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(trainee.seed)
        return build_network(trainee.head, features)
