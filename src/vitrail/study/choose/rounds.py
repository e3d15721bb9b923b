"""Probing: rounds on ever more pictures, while candidates drop out.

few pictures, all candidates -> head and answers -> who may yet be the best -> three times as many

Every round's candidates answer the same pictures, so that their differences are paired.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vitrail.data import Item, take_fraction
from vitrail.study.choose.halving import Standing, rank, survivors
from vitrail.study.choose.state import ChoiceEntry, Round, as_array, as_text
from vitrail.train.features import FeatureBank, labels_of
from vitrail.train.probe import LinearProbe, fit_probe, nearest_classes

GROWTH = 3
FIRST_TRAIN, FIRST_ASKED = 150, 120
PER_CLASS = 6
"""Of the first round: pictures in all, and at least so many for each class."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """The pictures of one round: a head is fitted on ``train`` and asked about ``asked``."""

    train: tuple[Item, ...]
    asked: tuple[Item, ...]


def ladder(train: Sequence[Item], asked: Sequence[Item], classes: int, seed: int) -> list[Step]:
    """The rounds, each with three times the training pictures of the one before; the last has all.

    Shares are stratified and nested, so features are computed once. What is asked grows likewise.
    """
    steps, share = [], min(1.0, max(FIRST_TRAIN, PER_CLASS * classes) / max(1, len(train)))
    part = min(1.0, max(FIRST_ASKED, PER_CLASS * classes) / max(1, len(asked)))
    while True:
        steps.append(
            Step(train=take_fraction(train, share, seed), asked=take_fraction(asked, part, seed))
        )
        if share == 1 and part == 1:
            return steps
        share, part = min(1.0, share * GROWTH), min(1.0, part * GROWTH)


def probe(bank: FeatureBank, step: Step, classes: int, seed: int) -> tuple[Round, LinearProbe]:
    """One candidate's round: its head, and which pictures that answers rightly."""
    started = time.perf_counter()
    train, asked = bank.features(step.train), bank.features(step.asked)
    labels, wanted = labels_of(step.train), labels_of(step.asked)
    head = fit_probe(train, labels, classes, seed=seed)
    near = nearest_classes(train, labels, asked, classes)
    done = Round(
        train=len(step.train),
        right=as_text(head.predict(asked) == wanted),
        neighbours=float((near == wanted).mean()),
        strength=head.strength,
        seconds=round(time.perf_counter() - started, 3),
    )
    return done, head


def work(bank: FeatureBank, step: Step) -> int:
    """Pictures of a round whose features are not yet known."""
    return len({item.key for item in (*step.train, *step.asked)} - set(bank.rows))


def to_probe(entries: Sequence[ChoiceEntry], step: Step) -> list[str]:
    """Who takes part in a round: all that have not yet, in the first one.

    Later ones are between released candidates where there are some: random features say no more
    of what a network becomes on more pictures, and their time is better spent in the race.
    """
    released = any(entry.released and entry.rounds for entry in entries)
    return [
        entry.model
        for entry in entries
        if not any(done.train == len(step.train) for done in entry.rounds)
        and (entry.released or not entry.rounds or not released)
    ]


def standings(entries: Sequence[ChoiceEntry], train: int) -> list[Standing]:
    """How the candidates with a round on ``train`` pictures stand, from best to worst."""
    return rank(
        {
            entry.model: as_array(found.right)
            for entry in entries
            for found in entry.rounds
            if found.train == train
        }
    )


def drop(entries: Sequence[ChoiceEntry], train: int, least: int) -> list[ChoiceEntry]:
    """The entries; those that a round has left behind say why they are no longer in question.

    Candidates from scratch are compared among themselves: random features say what the network
    sees before it has learned, and lose to released ones whatever it would become.
    """
    changed = []
    for released in (True, False):
        group = [entry for entry in entries if entry.released == released and not entry.left]
        placed = standings(group, train)
        stay = survivors(placed, least=least if released else 1)
        points = {s.name: 100 * s.behind.value for s in placed}
        changed += [
            replace(entry, left=f"{points[entry.model]:.1f} points behind at {train} pictures")
            for entry in group
            if entry.model in points and entry.model not in stay
        ]
    return changed
