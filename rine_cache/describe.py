"""What a file of the pipeline, or a folder of them, holds: the facts that `rine-cache info` prints."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from rine_cache import evaluate, leaderboard, manifest
from rine_cache.cache import FeatureCache
from rine_cache.errors import ConfigError, ResultsError
from rine_cache.heads.head import SUFFIX as HEAD_SUFFIX
from rine_cache.heads.head import HeadCard, load_head, read_card
from rine_cache.layouts.entry import LABEL_NAMES
from rine_cache.passes import EncoderPasses, passes_of, read_passes, total_passes
from rine_cache.quarantine import Reason
from rine_cache.score import SCHEMA as SCORES_SCHEMA

if TYPE_CHECKING:
    from pathlib import Path

CACHE_SUFFIX = ".h5"
TABLE_SUFFIX = ".parquet"
_COLUMNS = {
    "manifest": manifest.SCHEMA.names(),
    "scores": SCORES_SCHEMA.names,
    "metrics": evaluate.SCHEMA.names(),
    "leaderboard": leaderboard.SCHEMA.names(),
}


def describe(path: Path) -> dict[str, Any]:
    """Say what a file holds, recognised by its ending and, for Parquet, by its columns; or what lies below a folder.

    Returns
    -------
    Names for people and values that JSON can hold; `kind` is the first.

    Raises
    ------
    RineCacheError
        If the file is missing, damaged, or none of the pipeline's; or nothing of the pipeline's lies below the folder.
    """
    if path.is_dir():
        return _folder(path)
    readers = {CACHE_SUFFIX: _cache, TABLE_SUFFIX: _table, HEAD_SUFFIX: _head}
    if path.suffix not in readers:
        raise ConfigError(f"{path} has the ending {path.suffix!r}; allowed: {', '.join(readers)}, or a folder")
    return readers[path.suffix](path)


def _folder(folder: Path) -> dict[str, Any]:
    """Count what was read from caches by the heads and scores below a folder, and the caches themselves."""
    encoded, listings = _caches(folder)
    cards = [read_card(path) for path in sorted(folder.rglob(f"*{HEAD_SUFFIX}"))]
    tables = sorted(folder.rglob(f"*{TABLE_SUFFIX}"))
    scores = [evaluate.read_header(path) for path in tables if _kind_of_table(path) == "scores"]
    if not (encoded or cards or scores):
        raise ConfigError(f"{folder} holds no cache, head or scores; give the folder of results, or a file")
    passes = total_passes([*encoded, *(card.passes for card in cards), *map(evaluate.scoring_passes, scores)])
    return {
        "kind": "folder",
        "caches": len(encoded),
        "images": sum(listings.values()),
        "heads": len(cards),
        "score files": len(scores),
        **passes.facts(),
    }


def _caches(folder: Path) -> tuple[list[EncoderPasses], dict[str, int]]:
    """Count the crops of each cache below a folder, and the images of each manifest that they were made from.

    A shard counts for itself only as long as it is not joined.
    """
    found = []
    for path in folder.rglob(f"*{CACHE_SUFFIX}"):
        cache = FeatureCache(path)
        files = frozenset(file.resolve() for file in cache.files)
        found.append((files, passes_of([cache], 0), cache.identity))
    encoded, listings = [], {}
    counted: frozenset[Path] = frozenset()
    for files, passes, identity in sorted(found, key=lambda one: len(one[0]), reverse=True):
        if files <= counted:
            continue
        counted |= files
        encoded.append(passes)
        listings[identity.manifest_digest] = identity.rows.total
    return encoded, listings


def _cache(path: Path) -> dict[str, Any]:
    cache = FeatureCache(path)
    key = cache.identity.key
    reasons = Counter(Reason(value).name.lower() for value in cache.reason if value)
    return {
        "kind": "sealed cache",
        "images": cache.shape.images,
        "quarantined": dict(reasons),
        "blocks": cache.shape.blocks,
        "draws": cache.shape.draws,
        "crops encoded": passes_of([cache], 0).crops_encoded,
        "width": cache.shape.width,
        "embedding width": cache.shape.embedding_width,
        **{name: key[name] for name in ("encoder", "tap", "view", "decoder", "compute_dtype", "batch_size")},
        "encoding fingerprint": cache.fingerprint,
        "manifest digest": cache.identity.manifest_digest,
        "libraries": cache.identity.libraries,
        "device": cache.identity.device,
    }


def _head(path: Path) -> dict[str, Any]:
    head = load_head(path)
    return {
        "kind": "head",
        "trainable parameters": head.trainable_parameters,
        **head.card.model_dump(mode="json", exclude={"passes", "calibration", "importance", "bank"}),
        **_what_it_learnt(head.card),
        "fingerprint": head.fingerprint,
        **head.card.passes.facts(),
    }


def _what_it_learnt(card: HeadCard) -> dict[str, Any]:
    """Say how blocks weigh and what was calibrated, of a card that states it, by names for people."""
    facts: dict[str, Any] = {}
    if card.importance is not None:
        for name, values in (("block weights", card.importance.mean), ("channels led", card.importance.leads)):
            facts[f"{name}, by block"] = dict(zip(map(str, card.blocks), values, strict=True))
    if card.bank is not None:
        facts["bank"] = card.bank.model_dump()
    if card.calibration is not None:
        calibration = card.calibration
        facts["calibrated on"] = {"real": calibration.n_real, "fake": calibration.n_fake}
        facts["temperature"] = calibration.temperature
        if calibration.reason:
            facts["temperature, why"] = calibration.reason
        facts["most accurate threshold"] = calibration.most_accurate
        for chosen in calibration.thresholds:
            name = f"threshold at {chosen.false_positive_percent} % false positives"
            facts[name] = chosen.model_dump(include={"logit", "real_above", "fake_above"})
            if chosen.reason:
                facts[name] = {"logit": None, "reason": chosen.reason}
    return facts


def _table(path: Path) -> dict[str, Any]:
    readers = {"manifest": _manifest, "scores": _scores, "metrics": _metrics, "leaderboard": _leaderboard}
    kind = _kind_of_table(path)
    if kind is None:
        raise ConfigError(f"{path} is none of the tables that are described: {', '.join(readers)}")
    return readers[kind](path)


def _kind_of_table(path: Path) -> str | None:
    """Name the kind whose columns a Parquet file has, if it is one of `_COLUMNS`."""
    try:
        found = set(pq.read_schema(path).names)
    except FileNotFoundError:
        raise ResultsError(f"no file at {path}; `rine-cache info` takes a file of results, or their folder") from None
    except (OSError, pa.ArrowException) as error:
        raise ResultsError(f"{path} is not a Parquet file, or not whole: {error}") from None
    return next((kind for kind, columns in _COLUMNS.items() if found.issuperset(columns)), None)


def _manifest(path: Path) -> dict[str, Any]:
    images = manifest.read_manifest(path)
    counts = images.table.group_by("label", "subset").len().sort("label", "subset")
    return {
        "kind": "manifest",
        "images": len(images),
        "root": str(images.root),
        "digest": images.digest,
        "counts": {f"{LABEL_NAMES[label]} {subset}": count for label, subset, count in counts.iter_rows()},
    }


def _scores(path: Path) -> dict[str, Any]:
    scores = evaluate.read_scores(path)
    return {
        "kind": "scores",
        "data set": scores.header["dataset"],
        "view": scores.header["view"],
        "images": scores.images.height,
        "heads": [f"{method} seed {seed}" for method, seed in scores.heads],
        **evaluate.scoring_passes(scores.header).facts(),
    }


def _metrics(path: Path) -> dict[str, Any]:
    metrics = evaluate.read_metrics(path)
    return {
        "kind": "metrics",
        "experiments": metrics["experiment"].unique().sort().to_list(),
        "rows": metrics.height,
        "benchmarks": metrics["benchmark"].unique().sort().to_list(),
        "heads": metrics.select("method", "seed").n_unique(),
        **read_passes(path).facts(),
    }


def _leaderboard(path: Path) -> dict[str, Any]:
    table = leaderboard.read_leaderboard(path)
    return {
        "kind": "leaderboard",
        "rows": table.height,
        "measured": table.filter(kind="measured").height,
        "published": table.filter(kind="published").height,
        "methods": table.select("training_set", "method").n_unique(),
        **read_passes(path).facts(),
    }
