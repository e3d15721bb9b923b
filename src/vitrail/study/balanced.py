"""Balanced accuracy, the mean of the classes' own accuracies: its interval, and paired tests.

As :mod:`vitrail.study.stats` for plain accuracy, with the pictures drawn class by class: what a
class adds to the variance goes down with its own count, however many pictures the others have.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitrail.study.stats import AccuracyDifference, Interval

FLIPS = 20_000
"""Draws of the sign test; always the same ones."""
Labels = NDArray[np.int64]


def interval(correct: NDArray[np.bool_], labels: Labels, level: float = 0.95) -> Interval:
    """Balanced accuracy of one arm, ``correct`` being ``(seeds, pictures)``, cut to [0, 1].

    One seed: a mean of proportions, each with 2/K hits and 2/K misses added (Price and Bonett,
    Computational Statistics & Data Analysis 45:449, 2004). More: a t interval as in
    :func:`vitrail.study.stats.crossed_t_test`, for another seed and other pictures.
    """
    seeds, pictures = correct.shape
    if seeds > 1:
        found = crossed_class_mean(correct.astype(float), labels, level)
        method = f"t over {seeds} seeds and {pictures} test pictures by class"
        return Interval(found.value, max(0.0, found.low), min(1.0, found.high), seeds, method)
    from scipy.stats import norm

    hits, counts = by_class(correct[0].astype(float), labels)
    value, extra = float((hits / counts).mean()), 2 / len(counts)
    near = (hits + extra) / (counts + 2 * extra)
    error = math.sqrt(float((near * (1 - near) / (counts + 2 * extra)).sum())) / len(counts)
    half, centre = float(norm.ppf((1 + level) / 2)) * error, float(near.mean())
    low, high = min(value, max(0.0, centre - half)), max(value, min(1.0, centre + half))
    method = f"Price and Bonett over {pictures} test pictures by class, one seed"
    return Interval(value, low, high, pictures, method)


def compare(
    a: NDArray[np.bool_], b: NDArray[np.bool_], labels: Labels, level: float = 0.95
) -> AccuracyDifference:
    """Paired comparison of two arms' balanced accuracies, each ``(seeds, pictures)``."""
    if a.shape != b.shape:
        raise ValueError(f"arms answer different pictures or seeds: {a.shape} and {b.shape}")
    if len(a) == 1:
        return sign_test(a[0], b[0], labels, level)
    found = crossed_class_mean(a.astype(float) - b.astype(float), labels, level)
    method = f"paired t test over {a.shape[0]} seeds and {a.shape[1]} test pictures by class"
    return AccuracyDifference(found.value, found.low, found.high, found.p, method)


def sign_test(
    a: NDArray[np.bool_], b: NDArray[np.bool_], labels: Labels, level: float = 0.95
) -> AccuracyDifference:
    """One seed: a coin for each picture that only one arm gets right, weighing as its class does.

    The interval is Agresti and Min's (see :func:`vitrail.study.stats.mcnemar`), with the half
    counts shared out among the classes.
    """
    from scipy.stats import norm

    only_a, counts = by_class((a & ~b).astype(float), labels)
    only_b, _ = by_class((b & ~a).astype(float), labels)
    weights = 1 / (len(counts) * counts)
    value = float(((only_a - only_b) * weights).sum())
    unlike = (only_a + only_b).astype(int)
    heads = np.random.default_rng(0).binomial(unlike, 0.5, (FLIPS, len(counts)))
    reached = np.abs(((2 * heads - unlike) * weights).sum(1)) >= abs(value) - 1e-12
    p = (1 + int(reached.sum())) / (1 + FLIPS) if unlike.any() else 1.0
    total, extra = counts + 2 / len(counts), 0.5 / len(counts)
    plus, minus = (only_a + extra) / total, (only_b + extra) / total
    centre = float((plus - minus).mean())
    variance = float(((plus + minus - (plus - minus) ** 2) / total).sum()) / len(counts) ** 2
    half = float(norm.ppf((1 + level) / 2)) * math.sqrt(variance)
    low, high = min(value, centre - half), max(value, centre + half)
    method = f"sign test by class on {len(labels)} test pictures, one seed"
    return AccuracyDifference(value, low, high, p, method)


@dataclass(frozen=True)
class Mean:
    """A mean over classes, its interval, and the two-sided ``p`` of zero."""

    value: float
    low: float
    high: float
    p: float


def crossed_class_mean(gain: NDArray[np.float64], labels: Labels, level: float) -> Mean:
    """t for the mean over classes of ``gain``, ``(seeds >= 2, pictures)``, both random."""
    from scipy.stats import t

    seeds, classes = len(gain), np.unique(labels)
    parts = [gain[:, labels == k] for k in classes]
    by_seed = np.mean([part.mean(1) for part in parts], axis=0)
    value = float(by_seed.mean())
    of_seed = float(by_seed.var(ddof=1)) / seeds
    counts = np.array([part.shape[1] for part in parts])
    shares = variances([part.mean(0) for part in parts]) / counts / len(parts) ** 2
    rest = [part - part.mean(0) - part.mean(1, keepdims=True) + part.mean() for part in parts]
    spread = variances([part.ravel() for part in rest], (seeds - 1) * (counts - 1))
    of_picture = float(shares.sum())
    of_both = float((spread / (seeds * counts)).sum()) / len(parts) ** 2
    variance = max(of_seed + of_picture - of_both, of_seed, of_picture)
    if variance == 0:
        return Mean(value, value, value, 1.0 if value == 0 else 0.0)
    freedom_lost = of_seed**2 / (seeds - 1) + float((shares**2 / np.maximum(counts - 1, 1)).sum())
    freedom, error = variance**2 / freedom_lost, math.sqrt(variance)
    half = float(t.ppf((1 + level) / 2, freedom)) * error
    return Mean(value, value - half, value + half, 2 * float(t.sf(abs(value) / error, freedom)))


def variances(
    parts: list[NDArray[np.float64]], freedom: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """The variance in each part; one without freedom takes that of all the others together."""
    sums = np.array([float(((part - part.mean()) ** 2).sum()) for part in parts])
    free = np.array([len(part) - 1 for part in parts]) if freedom is None else freedom
    pooled = sums.sum() / max(1, free.sum())
    return np.where(free > 0, sums / np.maximum(free, 1), pooled)


def by_class(
    values: NDArray[np.float64], labels: Labels
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The sum of ``values`` ``(pictures,)`` in each class that is present, and its pictures."""
    _, places = np.unique(labels, return_inverse=True)
    sums = np.bincount(places, values).astype(np.float64)
    return sums, np.bincount(places).astype(np.float64)
