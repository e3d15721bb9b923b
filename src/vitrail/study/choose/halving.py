"""Who goes on: successive halving, by intervals rather than by luck.

Every candidate answers the same pictures. After each round the one with the most right answers is
the leader, and a candidate goes when the interval of its paired difference to the leader lies
below zero (Jamieson, Talwalkar, AISTATS 2016, arXiv 1502.07943, halve by rank alone; here a
candidate that may yet be the best stays, unless there are too many to train).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitrail.study.stats import AccuracyDifference, Interval, accuracy, compare

Right = NDArray[np.bool_]
"""``(pictures,)``: which pictures a candidate answered rightly."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a candidate stands after a round.

    Attributes:
        name: of the candidate.
        accuracy: on this round's pictures, with its interval.
        behind: the leader's accuracy less its own, with the interval of that paired difference.
        stays: whether it may yet be the best.
    """

    name: str
    accuracy: Interval
    behind: AccuracyDifference
    stays: bool


def rank(answers: Mapping[str, Right]) -> list[Standing]:
    """All candidates from best to worst; alike ones in the order given."""
    if not answers:
        return []
    names = sorted(answers, key=lambda name: -int(answers[name].sum()))
    lead = answers[names[0]][None]
    return [stand(name, answers[name][None], lead) for name in names]


def stand(name: str, right: NDArray[np.bool_], lead: NDArray[np.bool_]) -> Standing:
    """One candidate's standing beside the leader; both ``(1, pictures)``."""
    behind = compare(lead, right)
    return Standing(name=name, accuracy=accuracy(right), behind=behind, stays=behind.low <= 0)


def survivors(standings: list[Standing], *, least: int = 1, most: int | None = None) -> list[str]:
    """The names that go on, from best to worst.

    Args:
        standings: of :func:`rank`.
        least: so many go on whatever their intervals say.
        most: no more than so many; the worst go first.
    """
    names = [s.name for i, s in enumerate(standings) if s.stays or i < least]
    return names[:most]


def alike(standings: list[Standing]) -> list[str]:
    """The names that cannot be told from the leader, itself among them."""
    return [s.name for s in standings if s.stays]


def rank_correlation(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """Spearman's, over names that both know; NaN for under three, or where all are alike."""
    from scipy.stats import spearmanr

    names = [name for name in a if name in b]
    if len(names) < 3 or len({a[n] for n in names}) == 1 or len({b[n] for n in names}) == 1:
        return float("nan")
    return float(spearmanr([a[n] for n in names], [b[n] for n in names]).statistic)
