"""Probes: heads that are fitted in one step from cached features, the quick look before any head is trained."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from rine_cache.calibration import calibrate
from rine_cache.errors import TrainingError
from rine_cache.finished_heads import draft_card
from rine_cache.heads.head import Head, build_network
from rine_cache.heads.linear import LinearHead
from rine_cache.heads.neighbours import BankSize
from rine_cache.layouts.entry import FAKE, REAL
from rine_cache.metrics import validation_metrics
from rine_cache.passes import passes_of
from rine_cache.specs.training import LogisticHeadSpec, NeighboursHeadSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import nn

    from rine_cache.features import FeatureSet
    from rine_cache.specs.training import ExperimentSpec

_ROWS_AT_ONCE = 1024


def fit_probe(experiment: ExperimentSpec, method: str, train: FeatureSet, validation: FeatureSet, device: str) -> Head:
    """Fit one probe, measure and calibrate it on validation data.

    Of each image the first draw is read, once. There is nothing random, and so no seed.

    Parameters
    ----------
    experiment, method
        The method's head is a probe.
    train, validation
        Features of both classes.
    device
        Where the validation data are scored; fitting is the CPU's.

    Raises
    ------
    TrainingError
        If the fit does not converge, or there are fewer images of a class than neighbours asked for.
    """
    assert experiment.methods[method].is_probe, "other heads are trained"
    passes = passes_of([*train.caches, *validation.caches], len(train) + len(validation))
    draft = draft_card(experiment, method, 0, train, validation).model_copy(update={"passes": passes})
    head = draft.head
    if isinstance(head, NeighboursHeadSpec):
        draft = draft.model_copy(update={"bank": _bank_size(head, method, train)})
    network = build_network(draft.head, draft.features, draft.bank)
    if isinstance(head, LogisticHeadSpec):
        _fit_logistic(network, head, method, _matrix(train, draft.blocks), train.labels)
    else:
        _fill_banks(network, train)
    logits = _logits(network.to(device).eval(), validation, draft.blocks, device)  # (N,)
    measured = {
        "validation": validation_metrics(validation.labels, logits),
        "calibration": calibrate(validation.labels, logits),
    }
    return Head(draft.model_copy(update=measured), network.cpu())


def _bank_size(head: NeighboursHeadSpec, method: str, train: FeatureSet) -> BankSize:
    real, fake = np.bincount(train.labels, minlength=2).tolist()
    if head.k > min(real, fake):
        raise TrainingError(
            f"{method} compares with {head.k} neighbours of each class, but the training data hold {real} real and "
            f"{fake} fake images; lower head.k"
        )
    return BankSize(real=real, fake=fake)


def _fill_banks(network: nn.Module, train: FeatureSet) -> None:
    """Keep every training image's embedding, as it is cached, in the bank of its class."""
    for name, label in (("real", REAL), ("fake", FAKE)):
        bank = network.get_buffer(name)  # (M, E)
        indices = np.flatnonzero(train.labels == label)  # (M,)
        for rows in _chunks(len(indices)):
            bank[rows] = train.embedding(indices[rows], draw=0).half()  # (n, E)


def _fit_logistic(
    network: nn.Module, head: LogisticHeadSpec, method: str, features: NDArray[np.float64], labels: NDArray[np.int64]
) -> None:
    """Fit scikit-learn's logistic regression and fold it into one layer; `features`, (N, W), are overwritten."""
    assert isinstance(network, LinearHead)
    mean, scale = np.zeros(features.shape[1]), np.ones(features.shape[1])  # (W,)
    if head.standardise:
        mean, scale = features.mean(axis=0), features.std(axis=0)  # (W,)
        scale[scale == 0] = 1  # a constant feature is left alone
        features -= mean
        features /= scale
    model = LogisticRegression(C=head.C, max_iter=head.max_iter)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            model.fit(features, labels)
        except ConvergenceWarning:
            hint = "" if head.standardise else ", set head.standardise: true"
            raise TrainingError(
                f"{method}: the logistic regression did not converge in {head.max_iter} iterations; raise "
                f"head.max_iter, lower head.C ({head.C}){hint}"
            ) from None
    weight = model.coef_[0] / scale  # (W,)
    bias = model.intercept_[0] - weight @ mean
    network.fc.weight.data[0] = torch.from_numpy(weight)
    network.fc.bias.data[0] = float(bias)


def _matrix(features: FeatureSet, blocks: tuple[int, ...]) -> NDArray[np.float64]:
    """Read the mean of some blocks' CLS tokens, shape (N, D), or without blocks the embedding, (N, E).

    In double precision, in which the solver converges the same on every machine: N x W x 8 bytes, which is what
    bounds the number of images.
    """
    identity = features.identity
    width = identity.token_width if blocks else identity.embedding_width
    assert width is not None, "caches state it"
    matrix = np.empty((len(features), width))  # (N, W)
    for rows in _chunks(len(features)):
        read = _inputs(features, rows, blocks).double()
        matrix[rows] = (read.mean(1) if blocks else read).numpy()  # (n, W)
    return matrix


@torch.inference_mode()
def _logits(network: nn.Module, features: FeatureSet, blocks: tuple[int, ...], device: str) -> NDArray[np.float32]:
    """Score every image of a feature set, shape (N,)."""
    logits = np.empty(len(features), np.float32)  # (N,)
    for rows in _chunks(len(features)):
        logits[rows] = network(_inputs(features, rows, blocks).to(device)).logit.cpu().numpy()
    return logits


def _inputs(features: FeatureSet, rows: slice, blocks: tuple[int, ...]) -> torch.Tensor:
    """Read CLS tokens, shape (n, K', D), or without blocks the embedding, (n, E), float32."""
    indices = np.arange(rows.start, rows.stop)
    return features.tokens(indices, blocks, draw=0) if blocks else features.embedding(indices, draw=0)


def _chunks(count: int) -> Iterator[slice]:
    for start in range(0, count, _ROWS_AT_ONCE):
        yield slice(start, min(start + _ROWS_AT_ONCE, count))
