"""Which heads of an experiment are finished: those that a folder holds, and that training would make again.

A head follows from its settings, the data and its seed, whatever is trained beside it (see `rine_cache.train`). Its
file appears whole or not at all, with a card that names all three. So a head that is there, of the same origin, is the
one that training would give, and is kept: after a kill, after another's failure, and when an experiment grows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rine_cache.errors import ConfigError, HeadError
from rine_cache.heads.head import TRAINING_VERSION, HeadCard, read_card
from rine_cache.heads.index import head_path
from rine_cache.provenance import code_version, fingerprint

if TYPE_CHECKING:
    from pathlib import Path

    from rine_cache.features import FeatureSet
    from rine_cache.specs.training import ExperimentSpec


def draft_card(
    experiment: ExperimentSpec, method: str, seed: int, train: FeatureSet, validation: FeatureSet
) -> HeadCard:
    """Describe a head of an experiment as far as it is known before it is trained or fitted."""
    spec = experiment.methods[method]
    assert spec.head.kind != "official", "official heads are imported"
    return HeadCard(
        method=method,
        seed=seed,
        head=spec.head,
        features=train.identity,
        training_set=experiment.training_set,
        training=None if spec.is_probe else spec.training,
        training_fingerprint=fingerprint([train.fingerprint, validation.fingerprint]),
        training_version=TRAINING_VERSION,
        code_version=code_version(),
        note=spec.note,
    )


def finished_heads(
    experiment: ExperimentSpec, train: FeatureSet, validation: FeatureSet, folder: Path
) -> dict[tuple[str, int], HeadCard]:
    """Return the cards of an experiment's heads that `folder` holds, by method and seed.

    What is there under the same name and of another origin, or cannot be read, is not finished.
    """
    found = {}
    for method, seed in experiment.heads:
        try:
            card = read_card(head_path(folder, method, seed))
        except (ConfigError, HeadError):  # of its card, or of the file: it will be written over
            continue
        if card.origin == draft_card(experiment, method, seed, train, validation).origin:
            found[method, seed] = card
    return found
