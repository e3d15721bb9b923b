"""The race: the best few are fine-tuned under equal time, and half of them go on with more."""

import math
from collections.abc import Sequence
from dataclasses import replace

from vitrail.study.choose.halving import rank, survivors
from vitrail.study.choose.state import ChoiceEntry, Heat, as_array, share_right

SEATS = 4
LEAST_SECONDS = 20.0
"""A trial of less says nothing."""


def seats(entries: Sequence[ChoiceEntry], most: int = SEATS) -> list[str]:
    """Who races: the best released ones by their last probe, and the best one from scratch.

    Random features do not tell what a network becomes, so one seat is kept for such a candidate
    where there is room beside two others; without released ones, all seats are theirs.
    """
    tried = [entry for entry in entries if not entry.left and entry.rounds]
    tried.sort(key=lambda entry: -share_right(entry.rounds[-1].right))
    released = [entry.model for entry in tried if entry.released]
    scratch = [entry.model for entry in tried if not entry.released]
    if not released:
        return scratch[:most]
    room = 1 if scratch and most > 2 else 0
    return [*released[: most - room], *scratch[:room]]


def first_heat(models: Sequence[str], seconds: float) -> Heat | None:
    """The first heat, if all ``seconds`` of the race are shared out over its heats alike.

    So many candidates start as get :data:`LEAST_SECONDS` each; None if that is not even two, or
    one where there is only one.
    """
    for count in range(len(models), 0, -1):
        each = seconds / heats(count) / count
        if each >= LEAST_SECONDS and (count > 1 or len(models) == 1):
            return Heat(models=tuple(models[:count]), seconds=each)
    return None


def heats(count: int) -> int:
    """How many heats leave one of ``count``."""
    return max(1, math.ceil(math.log2(count)))


def next_heat(entries: Sequence[ChoiceEntry], heat: Heat, seconds: float) -> Heat | None:
    """The better half, each with twice the time; None where one is left.

    Those whose interval lies below the leader's go even if that leaves fewer than half. Where what
    surrounds training took longer than thought, the ``seconds`` left are shared out instead, down
    to the time of the heat before: a trial of less would teach nothing new.
    """
    answers = {
        entry.model: as_array(trial.right)
        for entry in entries
        if entry.model in heat.models
        for trial in entry.trials
        if trial.seconds == heat.seconds
    }
    if len(answers) < 2:
        return None
    names = survivors(rank(answers), most=math.ceil(len(heat.models) / 2))
    if len(names) < 2:
        return None
    each = min(heat.seconds * len(heat.models), seconds) / len(names)
    return Heat(models=tuple(names), seconds=each) if each > heat.seconds else None


def mark_beaten(
    entries: Sequence[ChoiceEntry], heat: Heat, after: Heat | None
) -> list[ChoiceEntry]:
    """The entries of a heat that do not go on, with the reason; the leader always does."""
    raced = [entry for entry in entries if entry.model in heat.models and entry.trials]
    raced = [entry for entry in raced if entry.trials[-1].seconds == heat.seconds]
    if not raced:
        return []
    best = max(raced, key=lambda entry: share_right(entry.trials[-1].right))
    stay = {best.model, *(after.models if after else ())}
    lead = share_right(best.trials[-1].right)
    return [
        replace(
            entry,
            left=f"{100 * (lead - share_right(entry.trials[-1].right)):.1f} points behind after "
            f"{heat.seconds:.0f} s of fine-tuning",
        )
        for entry in raced
        if entry.model not in stay
    ]
