"""What intervals cost: the time of the bootstrap against a loop of numpy and scikit-learn, and its memory.

Run it as ``python benchmarks/intervals.py``; ``--help`` lists what can be set. Random logits of many heads on some test
sets are resampled, and every metric of each replicate is computed. The plain loop, which copies the drawn images and
computes accuracy, AP and AUC alone, runs on a few replicates of one head in every round, between two parts of the work,
and its time is scaled up; the ratio is the median over the rounds.
"""

from __future__ import annotations

import os
import resource
import time
from functools import partial

import click
import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from rine_cache.bootstrap import BLOCK, Chosen, bootstrap
from rine_cache.metrics import METRICS
from rine_cache.resampling import Resampling

PLAIN = 20  # replicates of the plain loop in a round


def plain(labels: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Measure accuracy, AP and AUC of one head on each resample, (3, R)."""
    found = np.empty((3, weights.shape[1]))
    for replicate, counts in enumerate(weights.T):
        copied = np.repeat(np.arange(len(labels)), counts)
        drawn, scores = labels[copied], logits[copied]
        found[:, replicate] = (
            np.mean((scores > 0) == (drawn == 1)),
            average_precision_score(drawn, scores),
            roc_auc_score(drawn, scores),
        )
    return found


@click.command(help=__doc__)
@click.option("--heads", default=100)
@click.option("--test-sets", default=20)
@click.option("--images", default=4500)
@click.option("--replicates", default=1000)
def main(heads: int, test_sets: int, images: int, replicates: int) -> None:
    """Print the time, the ratio and the memory."""
    rng = np.random.default_rng(0)
    labels = np.arange(images) % 2
    everything = np.arange(images)
    compile_start = time.perf_counter()
    names = [f"{n:06d}" for n in range(images)]
    resampling = Resampling(names, names, [everything[::2], everything[1::2]])
    draw = partial(resampling.weights, everything)
    chosen = Chosen(np.full(heads, 1.5), np.tile([0.1, 1.0, 2.0], (heads, 1)))
    bootstrap(labels, rng.normal(size=(heads, images)).astype(np.float32)[:1], chosen, draw, BLOCK)
    click.echo(f"compiled, or read from numba's cache, in {time.perf_counter() - compile_start:.1f} s")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall = processor = 0.0
    ratios = []
    for _ in range(test_sets):
        logits = np.round(rng.normal(labels - 0.5, 1, (heads, images)), 3).astype(np.float32)  # with some ties
        start, used = time.perf_counter(), time.process_time()
        ours = bootstrap(labels, logits, chosen, draw, replicates)
        took = time.perf_counter() - start
        wall, processor = wall + took, processor + time.process_time() - used
        start = time.perf_counter()
        theirs = plain(labels, logits[0], draw(0, PLAIN))
        scaled = (time.perf_counter() - start) / PLAIN * replicates * heads
        ratios.append(scaled / took)
        places = [METRICS.index(metric) for metric in ("acc", "ap", "auc")]
        np.testing.assert_allclose(ours[places, 0, :PLAIN], theirs, atol=1e-12)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    click.echo(
        f"{heads} heads x {test_sets} test sets x {images:,} images x {replicates:,} draws x {len(METRICS)} metrics: "
        f"{wall:.1f} s on {len(os.sched_getaffinity(0))} processors ({processor:.1f} s of processor time)"
    )
    click.echo(f"plain loop, 3 metrics: {middle:.0f} x that ({low:.0f} to {high:.0f})")
    click.echo(f"memory beyond the inputs' and the libraries', results included: {(peak - before) / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
