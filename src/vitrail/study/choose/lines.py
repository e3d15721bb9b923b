"""The candidates as rows of a table: accuracies with intervals, and the Pareto front."""

from collections.abc import Sequence
from dataclasses import dataclass

from vitrail.study import stats
from vitrail.study.choose.state import ChoiceEntry, ChoiceState, as_array, evidence, share_right


@dataclass(frozen=True, kw_only=True)
class Line:
    """One candidate in the table.

    Attributes:
        entry: all that is known of it.
        probe: accuracy of the last probe, with its interval; None without one.
        tuned: of the last trial, likewise.
        front: whether no candidate still or ever in question is both cheaper and better.
    """

    entry: ChoiceEntry
    probe: stats.Interval | None
    tuned: stats.Interval | None
    front: bool

    @property
    def status(self) -> str:
        """Why it is out, or that it is not."""
        return self.entry.left or "in question to the end"


def lines_of(state: ChoiceState) -> list[Line]:
    """All candidates, the winner first, then by what is known of them."""
    known = [entry for entry in state.entries if entry.rounds or entry.trials]
    known.sort(key=lambda entry: (entry.model == state.winner, *evidence(entry)), reverse=True)
    rest = [entry for entry in state.entries if not (entry.rounds or entry.trials)]
    best = front_of(known)
    return [
        Line(
            entry=entry,
            probe=interval(entry.rounds[-1].right) if entry.rounds else None,
            tuned=interval(entry.trials[-1].right) if entry.trials else None,
            front=entry.model in best,
        )
        for entry in (*known, *rest)
    ]


def interval(right: str) -> stats.Interval:
    """Accuracy with its interval."""
    return stats.accuracy(as_array(right)[None])


def front_of(entries: Sequence[ChoiceEntry]) -> set[str]:
    """The candidates on the Pareto front of time and probed accuracy."""
    priced = [entry for entry in entries if entry.cost is not None and entry.rounds]
    points = [
        (entry.cost.ms, share_right(entry.rounds[-1].right)) for entry in priced if entry.cost
    ]
    return {priced[i].model for i in stats.pareto(points)}
