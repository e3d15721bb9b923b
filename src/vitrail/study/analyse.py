"""From the records of a study to what may be said about it.

records -> cells (arm x share, interval) -> paired comparisons (Holm) -> winner, rivals, fronts
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vitrail.study import balanced, stats
from vitrail.study.record import ArmCost, JobRecord
from vitrail.study.stats import AccuracyDifference, Interval, Verdict

Metric = Literal["accuracy", "balanced_accuracy"]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One arm at one share of the data, over its finished seeds; ``score`` is what arms are
    compared by: accuracy, or balanced accuracy."""

    arm: str
    share: float
    seeds: tuple[int, ...]
    train_count: int
    score: Interval
    accuracy: Interval
    balanced: float
    ece: float
    seconds: float
    epochs: float
    images_seen: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two arms on the same pictures and seeds; ``adjusted`` is Holm's p over the whole study."""

    share: float
    first: str
    second: str
    difference: AccuracyDifference
    adjusted: float
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """Everything the report says, before it is put into words and pictures."""

    arms: tuple[str, ...]
    shares: tuple[float, ...]
    cells: tuple[Cell, ...]
    comparisons: tuple[Comparison, ...]
    alpha: float
    metric: Metric = "accuracy"

    @property
    def metric_words(self) -> str:
        """What arms are compared by, for people."""
        return self.metric.replace("_", " ")

    def cell(self, arm: str, share: float) -> Cell | None:
        """The cell of an arm at a share, if any of its seeds finished."""
        return next((c for c in self.cells if c.arm == arm and c.share == share), None)

    def ranking(self, share: float) -> list[Cell]:
        """Cells at a share, best mean score first."""
        here = [c for c in self.cells if c.share == share]
        return sorted(here, key=lambda c: -c.score.value)

    def versus(self, share: float, arm: str, other: str) -> Comparison | None:
        """The comparison of two arms, turned so that ``arm`` comes first."""
        for c in self.comparisons:
            if c.share == share and {c.first, c.second} == {arm, other}:
                return c if c.first == arm else swap(c)
        return None

    def rivals(self, share: float) -> list[str]:
        """Arms that cannot be told from the best one at a share."""
        ranking = self.ranking(share)
        pairs = [(c.arm, self.versus(share, ranking[0].arm, c.arm)) for c in ranking[1:]]
        return [arm for arm, pair in pairs if pair is None or pair.verdict != "better"]

    def front(self, share: float, cost: Mapping[str, float]) -> list[str]:
        """Arms on the Pareto front of the mean score against a cost, from cheap to dear."""
        here = [c for c in self.ranking(share) if c.arm in cost]
        found = stats.pareto([(cost[c.arm], c.score.value) for c in here])
        return [here[i].arm for i in found]


def analyse(
    records: Sequence[JobRecord],
    arms: Sequence[str],
    alpha: float = 0.05,
    metric: Metric = "accuracy",
) -> Analysis:
    """Weigh the records of the given arms, in the plan's order of arms."""
    shares = tuple(sorted({r.share for r in records}))
    groups = {
        (arm, share): _group(records, arm, share)
        for share in shares
        for arm in arms
        if _group(records, arm, share)
    }
    return Analysis(
        arms=tuple(arm for arm in arms if any(key[0] == arm for key in groups)),
        shares=shares,
        cells=tuple(_cell(group, 1 - alpha, metric) for group in groups.values()),
        comparisons=_comparisons(groups, alpha, metric),
        alpha=alpha,
        metric=metric,
    )


def swap(c: Comparison) -> Comparison:
    """The same comparison seen from the second arm."""
    d = c.difference
    other: dict[Verdict, Verdict] = {"better": "worse", "worse": "better"}
    return Comparison(
        share=c.share,
        first=c.second,
        second=c.first,
        difference=AccuracyDifference(-d.value, -d.high, -d.low, d.p, d.method),
        adjusted=c.adjusted,
        verdict=other.get(c.verdict, c.verdict),
    )


def costs_of(costs: Mapping[str, ArmCost], what: str) -> dict[str, float]:
    """One number an arm: ``"macs"``, ``"latency"``, ``"params"``, ..."""
    return {arm: float(getattr(cost, what)) for arm, cost in costs.items()}


def _group(records: Sequence[JobRecord], arm: str, share: float) -> list[JobRecord]:
    found = [r for r in records if r.arm == arm and r.share == share]
    return sorted(found, key=lambda r: r.seed)


def _cell(group: Sequence[JobRecord], level: float, metric: Metric) -> Cell:
    def mean(name: str) -> float:
        return float(np.mean([getattr(r, name) for r in group]))

    correct = np.stack([r.correct for r in group])
    plain = stats.accuracy(correct, level)
    by_class = metric == "balanced_accuracy"
    return Cell(
        arm=group[0].arm,
        share=group[0].share,
        seeds=tuple(r.seed for r in group),
        train_count=group[0].train_count,
        score=balanced.interval(correct, np.asarray(group[0].labels), level) if by_class else plain,
        accuracy=plain,
        balanced=mean("balanced_accuracy"),
        ece=mean("ece"),
        seconds=mean("seconds"),
        epochs=mean("epochs"),
        images_seen=mean("images_seen"),
    )


def _comparisons(
    groups: Mapping[tuple[str, float], list[JobRecord]], alpha: float, metric: Metric
) -> tuple[Comparison, ...]:
    """All pairs of arms at every share, on the seeds both have finished."""
    found: list[tuple[float, str, str, AccuracyDifference]] = []
    for (a, share), (b, other) in combinations(groups, 2):
        if share != other:
            continue
        common = {r.seed for r in groups[a, share]} & {r.seed for r in groups[b, share]}
        if not common:
            continue
        right = [
            np.stack([r.correct for r in groups[arm, share] if r.seed in common]) for arm in (a, b)
        ]
        labels = np.asarray(groups[a, share][0].labels)
        found.append((share, a, b, _difference(right[0], right[1], labels, 1 - alpha, metric)))
    adjusted = stats.holm([difference.p for *_, difference in found])
    return tuple(
        Comparison(
            share=share,
            first=a,
            second=b,
            difference=difference,
            adjusted=p,
            verdict=_verdict(difference.value, p, alpha),
        )
        for (share, a, b, difference), p in zip(found, adjusted, strict=True)
    )


def _difference(
    a: NDArray[np.bool_], b: NDArray[np.bool_], labels: NDArray[Any], level: float, metric: Metric
) -> AccuracyDifference:
    by_class = metric == "balanced_accuracy"
    return balanced.compare(a, b, labels, level) if by_class else stats.compare(a, b, level)


def _verdict(value: float, p: float, alpha: float) -> Verdict:
    if p > alpha or value == 0:
        return "not distinguishable"
    return "better" if value > 0 else "worse"
