"""Intervals and paired tests for the accuracy of classifiers: numbers in, numbers out.

Two kinds of luck are told apart: that of the *seed* (another initialisation, another subset) and
that of the *pictures* (another test set). Arms are compared on the same seeds and the same
pictures, so the difference is taken picture by picture before anything is averaged.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["better", "worse", "not distinguishable"]


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval; ``method`` says which luck it speaks of."""

    value: float
    low: float
    high: float
    count: int
    method: str


@dataclass(frozen=True)
class AccuracyDifference:
    """``a - b`` on the same pictures, its interval, and the two-sided ``p`` of no difference."""

    value: float
    low: float
    high: float
    p: float
    method: str


def wilson(hits: int, count: int, level: float = 0.95) -> Interval:
    """Proportion ``hits / count`` with Wilson's score interval (sound near 0 and 1)."""
    from scipy.stats import norm

    if not 0 <= hits <= count or count == 0:
        raise ValueError(f"cannot take {hits} of {count} as a proportion")
    z = float(norm.ppf((1 + level) / 2))
    share = hits / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + (z / 2 / count) ** 2)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Interval(share, low, high, count, f"Wilson over {count} test pictures, one seed")


def accuracy(correct: NDArray[np.bool_], level: float = 0.95) -> Interval:
    """Accuracy of one arm, ``correct`` being ``(seeds, pictures)``, cut to [0, 1].

    One seed: Wilson's interval over pictures, which knows nothing of the seed's luck. More: the
    t interval of :func:`crossed_t_test`, for another seed and other pictures. (Student's over the
    seeds alone is a point when two seeds happen to agree.)
    """
    seeds, pictures = correct.shape
    if seeds == 1 or correct.all() or not correct.any():
        found = wilson(int(correct[0].sum()), pictures, level)
        return found if seeds == 1 else replace(found, count=seeds, method=_method(seeds, pictures))
    mean = crossed_t_test(correct, np.zeros_like(correct), level)
    low, high = max(0.0, mean.low), min(1.0, mean.high)
    return Interval(mean.value, low, high, seeds, _method(seeds, pictures))


def _method(seeds: int, pictures: int) -> str:
    return f"t over {seeds} seeds and {pictures} test pictures"


def compare(a: NDArray[np.bool_], b: NDArray[np.bool_], level: float = 0.95) -> AccuracyDifference:
    """Paired comparison of two arms, each ``(seeds, pictures)`` of right answers.

    One seed: exact McNemar test. More: :func:`crossed_t_test`.
    """
    if a.shape != b.shape:
        raise ValueError(f"arms answer different pictures or seeds: {a.shape} and {b.shape}")
    return mcnemar(a[0], b[0], level) if len(a) == 1 else crossed_t_test(a, b, level)


def mcnemar(a: NDArray[np.bool_], b: NDArray[np.bool_], level: float = 0.95) -> AccuracyDifference:
    """Exact McNemar test on ``(pictures,)``: a coin for each picture only one arm gets right.

    The interval is Wald's with half a count added to each of the four cells (Agresti and Min,
    Statistics in Medicine 24:729, 2005), which keeps its level where few pictures differ.
    """
    from scipy.stats import binomtest, norm

    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    unlike = only_a + only_b
    p = float(binomtest(only_a, unlike, 0.5).pvalue) if unlike else 1.0
    value = (only_a - only_b) / len(a)
    total = len(a) + 2
    plus, minus = (only_a + 0.5) / total, (only_b + 0.5) / total
    half = float(norm.ppf((1 + level) / 2)) * math.sqrt(
        (plus + minus - (plus - minus) ** 2) / total
    )
    centre = plus - minus
    return AccuracyDifference(
        value,
        min(value, centre - half),
        max(value, centre + half),
        p,
        f"exact McNemar test on {len(a)} test pictures, one seed",
    )


def crossed_t_test(
    a: NDArray[np.bool_], b: NDArray[np.bool_], level: float = 0.95
) -> AccuracyDifference:
    """Paired t test with seeds and pictures both random, ``(seeds >= 2, pictures)``.

    The mean difference varies as var(seed means)/S + var(picture means)/N - residual/(S N)
    (crossed random effects); Satterthwaite's degrees of freedom join the two. Resampling seeds
    instead (a bootstrap) rejects far too often with the two to five seeds that people run.
    """
    from scipy.stats import t

    gain = a.astype(float) - b.astype(float)
    seeds, pictures = gain.shape
    value = float(gain.mean())
    by_seed, by_picture = gain.mean(axis=1), gain.mean(axis=0)
    residual = gain - by_seed[:, None] - by_picture[None, :] + value
    of_seed = float(by_seed.var(ddof=1)) / seeds
    of_picture = float(by_picture.var(ddof=1)) / pictures if pictures > 1 else 0.0
    of_both = float((residual**2).sum()) / (max(1, (seeds - 1) * (pictures - 1)) * gain.size)
    variance = max(of_seed + of_picture - of_both, of_seed, of_picture)
    method = f"paired t test over {seeds} seeds and {pictures} test pictures"
    if variance == 0:
        return AccuracyDifference(value, value, value, 1.0 if value == 0 else 0.0, method)
    freedom = variance**2 / (of_seed**2 / (seeds - 1) + of_picture**2 / max(1, pictures - 1))
    error = math.sqrt(variance)
    half = float(t.ppf((1 + level) / 2, freedom)) * error
    p = 2 * float(t.sf(abs(value) / error, freedom))
    return AccuracyDifference(value, value - half, value + half, p, method)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p values in the order given."""
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    adjusted, highest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = highest
    return adjusted


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the ``(cost, score)`` points that no other one beats, from cheap to dear.

    A point is beaten when another costs no more and scores no less, and one of the two strictly.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    front: list[int] = []
    for i in order:
        tie = bool(front) and points[i] == points[front[-1]]
        if not front or points[i][1] > points[front[-1]][1] or tie:
            front.append(i)
    return front


def balanced_accuracy(labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> float:
    """Mean over the classes present of the share of each that was recognised."""
    return float(np.mean([np.mean(predictions[labels == k] == k) for k in np.unique(labels)]))


def confusion(
    labels: NDArray[np.int64], predictions: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Counts ``(true, predicted)``."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (labels, predictions), 1)
    return counts
