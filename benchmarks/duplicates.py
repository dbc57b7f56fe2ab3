"""Time and memory of finding duplicates: near pairs against comparing all with all, and whole audits of N images.

Run it as ``python benchmarks/duplicates.py [N]``. Half of the hashes are random, half lie in clusters of five.
"""

from __future__ import annotations

import resource
import sys
import time

import click
import numpy as np
import polars as pl

from rine_cache.audit import SCHEMA, Audit
from rine_cache.duplicates import DISTANCE, find_duplicates
from rine_cache.hamming import close_pairs
from rine_cache.specs.benchmark import BenchmarkSpec
from rine_cache.specs.data import TrainingSetSpec

NAIVE = 20_000


def balanced(count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw words with 32 bits set, as a pHash has, shape (count,)."""
    words = np.empty(count, np.uint64)
    for start in range(0, count, 100_000):
        bits = rng.random((len(words[start : start + 100_000]), 64)).argsort(axis=1) < 32  # (n, 64)
        words[start : start + 100_000] = np.packbits(bits, axis=1).view(">u8").reshape(-1)
    return words


def hashes(count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw half at random, half as copies of each fifth of them with one bit set and one cleared, shape (count,)."""
    clusters = np.repeat(balanced(count // 10 + 1, rng), 5)[: count // 2]
    moved = np.array([_moved(word, rng) for word in clusters.tolist()], np.uint64)
    return np.concatenate([balanced(count - len(moved), rng), moved])


def _moved(word: int, rng: np.random.Generator) -> int:
    """Swap a bit that is set with one that is not."""
    first, second = rng.integers(0, 64, 2).tolist()
    return word ^ (1 << first) ^ (1 << second) if (word >> first ^ word >> second) & 1 else word


def naive(words: np.ndarray) -> int:
    """Count close pairs by comparing each word with all that follow."""
    return sum(int((np.bitwise_count(words[at + 1 :] ^ words[at]) <= DISTANCE).sum()) for at in range(len(words) - 1))


def audit(name: str, words: np.ndarray, rng: np.random.Generator) -> Audit:
    """Make the audit of a data set with these hashes, every hundredth image of a content that another one has."""
    count = len(words)
    numbers = np.where(rng.random(count) < 0.01, 0, np.arange(count)) + count * (name == "test")
    rows = {
        "image_id": [f"{name}/{index:08d}.png" for index in range(count)],
        "label": rng.integers(0, 2, count),
        "subset": ["all"] * count,
        "content_sha256": [int(number).to_bytes(32, "big") for number in numbers],
        "perceptual_hash": words,
    }
    known = pl.DataFrame(rows, schema_overrides={"perceptual_hash": pl.UInt64})
    missing = [pl.lit(None).alias(column) for column in SCHEMA if column not in rows]
    return Audit({"dataset": name}, known.with_columns(missing).select(SCHEMA.names()).cast(dict(SCHEMA)))


def main() -> None:
    """Print the ratio to the naive way, and time and peak memory of N images."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    rng = np.random.default_rng(0)
    words = np.unique(hashes(count, rng))
    few = rng.choice(words, min(NAIVE, len(words)), replace=False)
    few = np.unique(np.concatenate([few, words[:1000]]))
    start = time.perf_counter()
    expected = naive(few)
    by_all = time.perf_counter() - start
    start = time.perf_counter()
    found = sum(len(left) for left, _, _ in close_pairs(few, DISTANCE))
    fast = time.perf_counter() - start
    assert found == expected
    click.echo(f"{len(few):,} hashes: all with all {by_all:.2f} s, ours {fast:.3f} s: {by_all / fast:.0f} times faster")
    start = time.perf_counter()
    pairs = sum(len(left) for left, _, _ in close_pairs(words, DISTANCE))
    click.echo(f"{len(words):,} hashes: {pairs:,} pairs in {time.perf_counter() - start:.1f} s, {_peak()}")

    shuffled = rng.permutation(hashes(count, rng))
    audits = [audit("train", shuffled[: -count // 10], rng), audit("test", shuffled[-count // 10 :], rng)]
    part = {"dataset": "train", "view": "train224"}
    training_set = TrainingSetSpec.model_validate(
        {"train": [{**part, "share": [0, 0.9]}], "validation": [{**part, "share": [0.9, 1]}]}
    )
    benchmark = BenchmarkSpec.model_validate(
        {"name": "b", "title": "b", "test_sets": {"t": {"dataset": "test"}}, "protocols": {"p": {"test_sets": ["t"]}}}
    )
    click.echo(f"audits of {count:,} images made, {_peak()}")
    start = time.perf_counter()
    duplicates = find_duplicates(audits, {"all": training_set}, [benchmark])
    counts = duplicates.table.group_by("relation", "kind", maintain_order=True).agg(pl.col("found").first())
    click.echo(f"duplicates within, across and leaked in {time.perf_counter() - start:.1f} s, {_peak()}")
    click.echo(str(counts))


def _peak() -> str:
    return f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024:,} MiB"


if __name__ == "__main__":
    main()
