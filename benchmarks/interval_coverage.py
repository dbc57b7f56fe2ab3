"""How often the 95 % intervals hold the truth, by simulation with known truth.

Run it as ``python benchmarks/interval_coverage.py``; ``--help`` lists what can be set. Logits are drawn from
distributions whose metrics are known, over and over; each sample gets its interval as a leaderboard's number does, and
the share of those that hold the truth is printed, marked where it is not 93 to 97 %, with the shares that lie above and
below it and their mean width. With 2,000 samples a share is known to one percentage point. Normal distributions come
first; the others (Student's t with 3 degrees of freedom, exponential, normal of unequal deviation, bimodal, rounded so
that most logits tie) are there so that nothing is made to fit normal ones.

Then follow differences between two methods on the same images, and how often one of several equal methods is told from
the best of them.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import click
import numpy as np
from scipy.stats import expon, norm, t

from rine_cache.bootstrap import Chosen, bootstrap
from rine_cache.comparison import compare_with_best
from rine_cache.intervals import interval, measure_support
from rine_cache.metrics import METRICS, binary_metrics
from rine_cache.resampling import Resampling

if TYPE_CHECKING:
    from collections.abc import Callable

    Quantiles = Callable[[np.ndarray], np.ndarray]


class Family(NamedTuple):
    """Quantile functions of logits; the fakes' are moved by a distance."""

    reals: Quantiles
    fakes: Quantiles


def _bimodal(share: np.ndarray) -> np.ndarray:
    """Return quantiles of fakes of which three in ten look like reals."""
    grid = np.linspace(-12, 12, 200_001)
    return np.interp(share, 0.7 * norm.cdf(grid, 1, 0.8) + 0.3 * norm.cdf(grid, -2), grid)


FAMILIES = {
    "normal": Family(norm.ppf, norm.ppf),
    "t3": Family(partial(t.ppf, df=3), partial(t.ppf, df=3)),
    "exponential": Family(partial(expon.ppf, loc=-1), partial(expon.ppf, loc=-1)),
    "unequal": Family(norm.ppf, partial(norm.ppf, scale=2.5)),
    "bimodal": Family(norm.ppf, _bimodal),
    "tied": Family(norm.ppf, norm.ppf),
}


def logits_of(family: str, labels: np.ndarray, distance: np.ndarray | float, shares: np.ndarray) -> np.ndarray:
    """Turn shares between 0 and 1, (..., N), into logits; `distance` is one for all fakes or one per image."""
    reals, fakes = FAMILIES[family]
    moved = np.broadcast_to(distance, labels.shape) / 2  # (N,)
    logits = np.empty(shares.shape)
    logits[..., labels == 0] = reals(shares[..., labels == 0]) - moved[labels == 0]
    logits[..., labels == 1] = fakes(shares[..., labels == 1]) + moved[labels == 1]
    return np.round(logits) if family == "tied" else logits


class Case(NamedTuple):
    """Simulated test sets: each sample is a head's logits on the same images."""

    title: str
    family: str
    labels: np.ndarray  # (N,)
    distance: np.ndarray | float
    units: np.ndarray  # (N,)
    within: float  # how much of their variance the images of a unit share
    test_sets: list[tuple[np.ndarray, np.ndarray]]  # reals and fakes, as places among the N images


def alone(family: str, distance: float, reals: int, fakes: int) -> Case:
    """Make a test set of images that stand alone."""
    labels = np.repeat([0, 1], [reals, fakes])
    title = f"{family}, {reals} reals, {fakes} fakes, d {distance}"
    return Case(title, family, labels, distance, np.arange(len(labels)), 0, [_classes(labels)])


def grouped(family: str, distance: float, sizes: np.ndarray, within: float, *, mixed: bool = False) -> Case:
    """Make groups of one class each, by turns, or mixed: of three reals to two fakes."""
    owner = np.repeat(np.arange(len(sizes)), sizes)  # (N,)
    labels = np.concatenate([np.arange(size) % 5 >= 3 for size in sizes]).astype(int) if mixed else owner % 2
    many = str(sizes[0]) if (sizes == sizes[0]).all() else "1 to 30"
    title = f"{family}, {len(sizes)} {'mixed ' * mixed}groups of {many}, {within} alike, d {distance}"
    return Case(title, family, labels, distance, owner, within, [_classes(labels)])


def sharing(family: str, distances: list[float], reals: int, fakes: int) -> Case:
    """Make a test set per distance, all with the same reals."""
    labels = np.concatenate([np.zeros(reals, int), np.ones(fakes * len(distances), int)])
    moved = np.concatenate([np.full(reals, 2.0), np.repeat(2 * np.array(distances) - 2, fakes)])
    parts = np.split(np.arange(reals, len(labels)), len(distances))
    title = f"{family}, mean of {len(distances)} sharing {reals} reals, {fakes} fakes each, d {distances[0]}"
    title += f" to {distances[-1]}"
    return Case(title, family, labels, moved, np.arange(len(labels)), 0, [(np.arange(reals), own) for own in parts])


def drawn(case: Case, samples: int, seed: int) -> np.ndarray:
    """Draw logits, (S, N)."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(samples, len(case.labels)))
    if case.within:
        shared = rng.normal(size=(samples, case.units[-1] + 1))[:, case.units]
        noise = np.sqrt(case.within) * shared + np.sqrt(1 - case.within) * noise
    return logits_of(case.family, case.labels, case.distance, norm.cdf(noise))


def truth(case: Case) -> dict[str, float]:
    """Return the mean over the test sets of the metrics of a million images."""
    known = defaultdict(list)
    for reals, fakes in case.test_sets:
        share = len(fakes) / (len(reals) + len(fakes))
        counts = [round(1_000_000 * part) for part in (1 - share, share)]
        labels = np.repeat([0, 1], counts)
        distances = [np.broadcast_to(case.distance, case.labels.shape)[own[0]] for own in (reals, fakes)]
        shares = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
        logits = logits_of(case.family, labels, np.repeat(distances, counts), shares)
        for metric, value in binary_metrics(labels, logits).items():
            known[metric].append(np.nan if value is None else value)
    return {metric: float(np.mean(values)) for metric, values in known.items()}


class Measured(NamedTuple):
    """The numbers of every sample, means over the test sets, by metric, and what makes intervals of them."""

    values: np.ndarray  # (M, S)
    replicates: np.ndarray  # (M, S, R)
    support: object


def measure(case: Case, logits: np.ndarray, replicates: int) -> Measured:
    """Measure and resample the logits of some samples, (S, N)."""
    names = [f"{n:06d}" for n in range(len(case.labels))]
    resampling = Resampling(
        names, [names[unit] for unit in case.units], [cell for own in case.test_sets for cell in own]
    )
    chosen = Chosen.nothing(len(logits))
    values, found = np.zeros((len(METRICS), len(logits))), np.zeros((len(METRICS), len(logits), replicates))
    for images in map(np.concatenate, case.test_sets):
        own = (case.labels[images], logits[:, images], chosen)
        values += bootstrap(*own, partial(_once, images), 1)[..., 0] / len(case.test_sets)
        found += bootstrap(*own, partial(resampling.weights, images), replicates) / len(case.test_sets)
    return Measured(values, found, measure_support(resampling.unit_of, resampling.stratum_of, case.test_sets))


def _once(images: np.ndarray, _first: int, count: int) -> np.ndarray:
    return np.ones((len(images), count), np.uint8)


def _classes(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)


SHOWN = ("acc", "real_acc", "balanced_acc", "f1", "ap", "auc", "tpr_fpr1", "tpr_fpr5", "ece", "acc_best_threshold")
# These are said to hold the mean over samples of the same size, not a limit.
OF_THE_SIZE = {"ece", "acc_best_threshold"}
# Accuracies .500, .691, .841, .950 and .990 of normal logits.
DISTANCES = (0.0, 1.0, 2.0, 3.29, 4.65)
OTHERS = {"t3": (1.2, 5.0), "exponential": (1.0, 4.0), "unequal": (1.5, 6.0), "bimodal": (1.5, 5.0), "tied": (1.0, 3.0)}


def all_cases() -> list[Case]:
    """List the cases, in the order of the table."""
    uneven = {count: np.random.default_rng(count).integers(1, 31, count) for count in (24, 60)}
    cases = [alone("normal", d, n // 2, n // 2) for n in (100, 200, 500, 1000, 4500) for d in DISTANCES]
    cases += [alone("normal", d, *sizes) for d in (1.0, 3.0) for sizes in ((90, 20), (90, 900), (900, 90))]
    cases += [alone(family, d, n // 2, n // 2) for family, ds in OTHERS.items() for n in (100, 400, 2000) for d in ds]
    cases += [alone(family, OTHERS[family][1], *sizes) for family in OTHERS for sizes in ((90, 900), (900, 90))]
    cases += [
        grouped("normal", d, np.full(groups, size), 0.6)
        for d in (1.0, 3.0)
        for groups, size in ((10, 10), (20, 10), (30, 10), (40, 10), (100, 5))
    ]
    cases += [grouped("normal", 3.0, np.full(20, 10), within) for within in (0.2, 0.95)]
    cases += [grouped("normal", d, sizes, 0.6) for d in (1.0, 3.0) for sizes in uneven.values()]
    cases += [grouped(family, OTHERS[family][1], np.full(30, 10), 0.6) for family in OTHERS]
    cases += [grouped("normal", d, np.full(count, 5), 0.6, mixed=True) for d in (1.0, 3.0) for count in (10, 20, 50)]
    cases += [
        sharing("normal", ds, reals, 100) for ds in ([1.0, 2.0, 3.0, 4.0], [3.0] * 8) for reals in (100, 500, 1000)
    ]
    return cases + [sharing(family, [OTHERS[family][1]] * 8, 200, 100) for family in OTHERS]


def halves(metric: str, found: Measured) -> np.ndarray:
    """Return half the width of each sample's interval, (S,)."""
    place = METRICS.index(metric)
    low, high = interval(metric, found.values[place], found.replicates[place], found.support)
    return (high - low) / 2


def differing(samples: int, replicates: int, seed: int) -> None:
    """Print how often the interval of a difference holds it, of two methods that find the same images hard."""
    click.echo("\nDifferences between two methods of which one is better")
    cases = [(alone("normal", 1.0, 100, 100), 0.3), (alone("normal", 3.0, 100, 100), 0.3)]
    cases += [(alone("normal", 3.0, 500, 500), 0.3), (alone("normal", 4.65, 250, 250), 0.35)]
    cases += [(alone("t3", 3.0, 200, 200), 0.5), (alone("exponential", 2.0, 200, 200), 0.4)]
    cases += [(grouped("normal", d, np.full(40, 10), 0.6), 0.5) for d in (1.0, 3.0)]
    cases += [(sharing("normal", ds, 200, 100), 0.3) for ds in ([2.0] * 4, [3.0] * 8)]
    for number, (case, farther) in enumerate(cases):
        better = case._replace(distance=case.distance + farther)
        for alike in (0.5, 0.9):
            rng = np.random.default_rng([seed, number])
            shape = (samples, len(case.labels))
            shared, noise = rng.normal(size=shape), rng.normal(size=(2, *shape))
            noise = np.sqrt(alike) * shared + np.sqrt(1 - alike) * noise
            if case.within:
                of_units = rng.normal(size=(2, samples, case.units[-1] + 1))
                of_units[1] = np.sqrt(alike) * of_units[0] + np.sqrt(1 - alike) * of_units[1]
                noise = np.sqrt(case.within) * of_units[..., case.units] + np.sqrt(1 - case.within) * noise
            both = [
                measure(one, logits_of(one.family, one.labels, one.distance, norm.cdf(own)), replicates)
                for one, own in zip((better, case), noise, strict=True)
            ]
            known = [truth(one) for one in (better, case)]
            for metric in ("acc", "ap", "auc"):
                place, size = METRICS.index(metric), both[0].support.of(metric)
                true = known[1][metric] - known[0][metric]
                reaches = np.stack([halves(metric, one) for one in both], axis=1)  # (S, 2)
                held, widths = 0, []
                for sample in range(samples):
                    found = compare_with_best(
                        np.array([one.values[place, sample] for one in both]),
                        reaches[sample],
                        np.stack([one.replicates[place, sample] for one in both]),
                        0,
                        size.counted - size.strata,
                        size.counted,
                    )
                    held += found.low[1] <= true <= found.high[1]
                    widths.append(found.high[1] - found.low[1])
                share = 100 * held / samples
                click.echo(
                    f"{case.title:75} alike {alike} {metric:5} true {100 * true:6.2f}  "
                    f"held {share:5.1f}{' ' if 93 <= share <= 97 else '*'} width {100 * np.mean(widths):6.2f}"
                )


def equal(samples: int, replicates: int, seed: int) -> None:
    """Print how often one of several equal methods is told from the best of them."""
    click.echo("\nFamilies of equal methods with one told from the best (5 % at most)")
    cases = [alone("normal", 2.0, 100, 100), alone("normal", 3.29, 100, 100), alone("t3", 3.0, 200, 200)]
    cases += [grouped("normal", 2.0, np.full(30, 10), 0.6), grouped("normal", 3.0, np.full(20, 10), 0.6)]
    for number, case in enumerate(cases):
        for methods in (2, 5, 20):
            families = samples // methods
            rng = np.random.default_rng([seed, number])
            noise = rng.normal(size=(families, 1, len(case.labels))) + rng.normal(
                size=(families, methods, len(case.labels))
            )
            if case.within:
                of_units = rng.normal(size=(families, methods, case.units[-1] + 1))
                noise = np.sqrt(case.within) * of_units[..., case.units] + np.sqrt((1 - case.within) / 2) * noise
            else:
                noise /= np.sqrt(2)
            noise = noise.reshape(families * methods, -1)
            found = measure(case, logits_of(case.family, case.labels, case.distance, norm.cdf(noise)), replicates)
            told = {}
            for metric in ("acc", "ap", "auc"):
                place, size = METRICS.index(metric), found.support.of(metric)
                values = found.values[place].reshape(families, methods)
                drawn_values = found.replicates[place].reshape(families, methods, -1)
                reaches = halves(metric, found).reshape(families, methods)
                told[metric] = np.mean(
                    [
                        not compare_with_best(
                            own, reach, own_replicates, int(own.argmax()), size.counted - size.strata, size.counted
                        ).tied.all()
                        for own, reach, own_replicates in zip(values, reaches, drawn_values, strict=True)
                    ]
                )
            shares = ", ".join(f"{metric} {100 * share:4.1f}" for metric, share in told.items())
            click.echo(f"{case.title:75} {methods:3} methods, {families} families: {shares}")


@click.command(help=__doc__)
@click.option("--samples", default=2000)
@click.option("--replicates", default=1000)
@click.option("--seed", default=0)
@click.option("--only", default="", help="Only cases whose title holds this.")
@click.option("--metrics", default=",".join(SHOWN))
@click.option("--compared/--not-compared", default=True, help="Whether methods are compared, too.")
def main(samples: int, replicates: int, seed: int, only: str, metrics: str, *, compared: bool) -> None:
    """Print the tables."""
    shares = defaultdict(list)
    for number, case in enumerate(all_cases()):
        if only not in case.title:
            continue
        found = measure(case, drawn(case, samples, seed + number), replicates)
        known = truth(case)
        for metric in metrics.split(","):
            place = METRICS.index(metric)
            low, high = interval(metric, found.values[place], found.replicates[place], found.support)
            true = float(found.values[place].mean()) if metric in OF_THE_SIZE else known[metric]
            if np.isnan(low).all():
                click.echo(f"{case.title:75} {metric:19} true {100 * true:6.2f}  none")
                continue
            held = 100 * np.mean((low <= true) & (true <= high))
            sides = f"{100 * np.mean(true < low):4.1f} above, {100 * np.mean(high < true):4.1f} below"
            mark = " " if 93 <= held <= 97 else "*"
            shares[metric].append(held)
            click.echo(
                f"{case.title:75} {metric:19} true {100 * true:6.2f}  held {held:5.1f}{mark} ({sides})  "
                f"width {100 * np.mean(high - low):6.2f}"
            )
    for metric, held in shares.items():
        under, over = sum(share < 93 for share in held), sum(share > 97 for share in held)
        click.echo(
            f"{metric:19} {len(held)} cases, {under} under 93, {over} over 97; "
            f"{min(held):.1f} to {max(held):.1f}, median {np.median(held):.1f}"
        )
    if compared:
        differing(samples // 2, replicates, seed)
        equal(samples, replicates, seed)


if __name__ == "__main__":
    main()
