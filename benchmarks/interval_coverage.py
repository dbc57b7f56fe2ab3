"""How often the 95 % intervals hold the truth, by simulation with known truth.

Run it as ``python benchmarks/interval_coverage.py``; ``--help`` lists what can be set. Logits are drawn from
distributions whose metrics are known, over and over; each sample gets its interval as a leaderboard's number does, and
the share of those that hold the truth is printed, marked where it is not 93 to 97 %, with the shares that lie above and
below it and their mean width. With 2,000 samples a share is known to one percentage point.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import click
import numpy as np
from scipy.stats import norm

from rine_cache.bootstrap import Chosen, bootstrap
from rine_cache.intervals import interval, measure_support
from rine_cache.metrics import METRICS, binary_metrics
from rine_cache.resampling import Resampling


class Draw(NamedTuple):
    """Simulated test sets: each sample is a head's logits on the same images."""

    labels: np.ndarray  # (N,)
    logits: np.ndarray  # (S, N)
    units: list[str]
    test_sets: list[tuple[np.ndarray, np.ndarray]]  # reals and fakes, as places among the N images


def binormal(samples: int, distance: float, reals: int, fakes: int, seed: int) -> Draw:
    """Draw reals around minus half the distance and fakes around half of it, all with deviation 1."""
    labels = np.repeat([0, 1], [reals, fakes])
    logits = np.random.default_rng(seed).normal(distance * (labels - 0.5), 1, (samples, len(labels)))
    return Draw(labels, logits, [f"{n:06d}" for n in range(len(labels))], [_classes(labels)])


def grouped(samples: int, distance: float, groups: int, per_group: int, within: float, seed: int) -> Draw:
    """Draw groups of one class each, half of them fakes, whose images share `within` of their variance."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(groups), per_group)
    labels = owner % 2
    noise = np.sqrt(within) * rng.normal(size=(samples, groups))[:, owner]
    noise += np.sqrt(1 - within) * rng.normal(size=(samples, len(owner)))
    return Draw(labels, distance * (labels - 0.5) + noise, [f"{n:06d}" for n in owner], [_classes(labels)])


def paired(samples: int, distance: float, groups: int, within: float, seed: int) -> Draw:
    """Draw groups of three reals and two fakes each."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(groups), 5)
    labels = np.tile([0, 0, 0, 1, 1], groups)
    noise = np.sqrt(within) * rng.normal(size=(samples, groups))[:, owner]
    noise += np.sqrt(1 - within) * rng.normal(size=(samples, len(owner)))
    return Draw(labels, distance * (labels - 0.5) + noise, [f"{n:06d}" for n in owner], [_classes(labels)])


def sharing(samples: int, distances: list[float], reals: int, fakes: int, seed: int) -> Draw:
    """Draw a test set per distance, all with the same reals."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.zeros(reals, np.int64), np.ones(fakes * len(distances), np.int64)])
    centres = np.concatenate([np.full(reals, -1.0), np.repeat(np.array(distances) - 1, fakes)])
    logits = rng.normal(centres, 1, (samples, len(labels)))
    parts = np.split(np.arange(reals, len(labels)), len(distances))
    return Draw(labels, logits, [f"{n:06d}" for n in range(len(labels))], [(np.arange(reals), own) for own in parts])


def measure(draw: Draw, replicates: int) -> tuple[dict[str, np.ndarray], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Return each sample's mean over the test sets, (S,), and its interval, by metric."""
    names = [f"{n:06d}" for n in range(len(draw.labels))]
    resampling = Resampling(names, draw.units, [cell for test_set in draw.test_sets for cell in test_set])
    support = measure_support(resampling.unit_of, resampling.stratum_of, draw.test_sets)
    chosen = Chosen.nothing(len(draw.logits))
    values, drawn = [], []
    for images in map(np.concatenate, draw.test_sets):
        own = (draw.labels[images], draw.logits[:, images], chosen)
        values.append(bootstrap(*own, partial(_once, images), 1)[..., 0])
        drawn.append(bootstrap(*own, partial(resampling.weights, images), replicates))
    value, replicate = np.mean(values, axis=0), np.mean(drawn, axis=0)  # (M, S), (M, S, R)
    found = {metric: interval(metric, value[place], replicate[place], support) for place, metric in enumerate(METRICS)}
    return dict(zip(METRICS, value, strict=True)), found


def _once(images: np.ndarray, _first: int, count: int) -> np.ndarray:
    return np.ones((len(images), count), np.uint8)


def truth(distance: float, centre: float, fakes: float) -> dict[str, float]:
    """Return the metrics of two unit normals so far apart, reals around `centre`, with such a share of fakes."""
    counts = [round(1_000_000 * share) for share in (1 - fakes, fakes)]
    labels = np.repeat([0, 1], counts)
    quantiles = np.concatenate([norm.ppf((np.arange(count) + 0.5) / count) for count in counts])
    known = binary_metrics(labels, quantiles + centre + distance * labels)
    known["auc"] = float(norm.cdf(distance / np.sqrt(2)))
    return {metric: value for metric, value in known.items() if value is not None}


def _classes(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)


SHOWN = ("acc", "real_acc", "balanced_acc", "f1", "ap", "auc", "tpr_fpr1", "tpr_fpr5", "ece", "acc_best_threshold")
# These are said to hold the mean over samples of the same size, not a limit.
OF_THE_SIZE = {"ece", "acc_best_threshold"}


@click.command(help=__doc__)
@click.option("--samples", default=2000)
@click.option("--replicates", default=1000)
@click.option("--only", default="", help="Only cases whose title holds this.")
@click.option("--metrics", default=",".join(SHOWN))
def main(samples: int, replicates: int, only: str, metrics: str) -> None:
    """Print the table."""
    distances = {
        0.0: "acc .500",
        1.0: "acc .691",
        2.0: "acc .841",
        3.29: "acc .950",
        4.65: "acc .990",
        6.18: "acc .999",
    }
    cases = []
    for size in (100, 200, 500, 1000, 4500):
        cases += [
            (
                f"n {size}, {title}",
                lambda seed, d=d, size=size: binormal(samples, d, size // 2, size // 2, seed),
                [d],
            )
            for d, title in distances.items()
        ]
    cases += [
        (f"90 reals, {fakes} fakes, d {d}", lambda s, d=d, fakes=fakes: binormal(samples, d, 90, fakes, s), [d])
        for d in (1.0, 3.0)
        for fakes in (20, 900)
    ]
    cases += [
        (f"{groups} groups of {size}, d {d}", lambda s, d=d, g=groups, z=size: grouped(samples, d, g, z, 0.6, s), [d])
        for d in (1.0, 3.0)
        for groups, size in ((10, 10), (20, 10), (40, 10), (100, 5))
    ]
    cases += [
        (f"{groups} groups of both classes, d {d}", lambda s, d=d, g=groups: paired(samples, d, g, 0.6, s), [d])
        for d in (1.0, 3.0)
        for groups in (10, 20, 50)
    ]
    cases += [
        (
            f"mean of {len(ds)} sharing {reals} reals, {fakes} fakes each",
            lambda s, ds=ds, reals=reals, fakes=fakes: sharing(samples, ds, reals, fakes, s),
            ds,
        )
        for ds in ([1.0, 2.0, 3.0, 4.0], [3.0] * 8)
        for reals, fakes in ((100, 100), (500, 100))
    ]
    for seed, (title, draw, apart) in enumerate(cases):
        if only not in title:
            continue
        drawn = draw(seed)
        share = float(np.mean([len(fakes) / (len(reals) + len(fakes)) for reals, fakes in drawn.test_sets]))
        known = [truth(d, -1.0 if "sharing" in title else -d / 2, share) for d in apart]
        values, found = measure(drawn, replicates)
        for metric in metrics.split(","):
            low, high = found[metric]
            true = float(values[metric].mean()) if metric in OF_THE_SIZE else np.mean([one[metric] for one in known])
            held = 100 * np.mean((low <= true) & (true <= high))
            sides = f"{100 * np.mean(true < low):4.1f} above, {100 * np.mean(high < true):4.1f} below"
            mark = " " if 93 <= held <= 97 else "*"
            click.echo(
                f"{title:45} {metric:19} true {100 * true:6.2f}  held {held:5.1f}{mark} ({sides})  "
                f"width {100 * np.mean(high - low):6.2f}"
            )


if __name__ == "__main__":
    main()
