"""``choose.json`` as it may come from a disk: what its types do not say is held here."""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from vitrail.errors import UserError, printable
from vitrail.schema import convert
from vitrail.study.choose.question import Question
from vitrail.study.choose.state import FILE, ChoiceEntry, ChoiceState

PHASES = ("cost", "probe", "race", "done")
_RUN = re.compile(r"race/\d+-\d+s")
_ANSWERS = re.compile(r"[01]+")


@dataclass(frozen=True, kw_only=True)
class ChoiceFacts:
    """The facts that the code reads; the others are for people."""

    started: str = ""
    pictures: str = ""


def load_choice(folder: Path) -> ChoiceState:
    """The state of a choice, all of it usable.

    Raises:
        UserError: no such file, of another shape, with values that no choice has.
    """
    state, where = ChoiceState.load(folder), repr(str(folder / FILE))
    asked = convert(Question, state.question, f"{where}: question", extra_keys=True)
    convert(ChoiceFacts, state.facts, f"{where}: facts", extra_keys=True)
    strange = next(problems(state), None)
    if strange is not None:
        raise UserError(
            f"{where} is damaged: {strange}; take it from a copy, or give another --out"
        )
    return replace(state, question=asdict(asked) | {"pool": list(asked.pool)})


def problems(state: ChoiceState) -> Iterator[str]:
    """What no choice has, in words."""
    names = [entry.model for entry in state.entries]
    if state.phase not in PHASES:
        yield f"no phase {printable(state.phase)[:40]}"
    if len(set(names)) != len(names):
        yield "a candidate stands there twice"
    if not _is_amount(state.seconds):
        yield f"{state.seconds} seconds spent"
    if state.heat is not None and not (state.heat.seconds > 0 and _is_amount(state.heat.seconds)):
        yield f"a heat of {state.heat.seconds} seconds"
    one = state.estimate
    if one is not None and not 0 <= one.right <= one.count > 0:
        yield f"an estimate of {one.right} of {one.count}"
    for entry in state.entries:
        yield from problems_of(entry, known=entry.model == state.winner)
    yield from uneven(state.entries)


def problems_of(entry: ChoiceEntry, known: bool) -> Iterator[str]:
    """Of one candidate; the winner must be ``known`` by a round or a trial."""
    cost, name = entry.cost, printable(entry.model)[:40]
    if known and not (entry.rounds or entry.trials):
        yield f"nothing is known of the winner {name}"
    if cost is not None and not (
        _is_amount(cost.ms) and _is_amount(cost.megabytes) and cost.ms > 0 and cost.params >= 0
    ):
        yield f"the cost of {name}"
    answers = [(found.right, found.seconds) for found in entry.rounds]
    answers += [(found.right, found.seconds) for found in entry.trials]
    for right, seconds in answers:
        if not _ANSWERS.fullmatch(right) or not _is_amount(seconds):
            yield f"the answers of {name}"
    for trial in entry.trials:
        if not _RUN.fullmatch(trial.run):
            yield f"{name} has its run in {printable(trial.run)[:40]}"


def uneven(entries: Iterable[ChoiceEntry]) -> Iterator[str]:
    """Candidates are compared on the same pictures: so many answers each."""
    counts: dict[tuple[str, float], set[int]] = {}
    for entry in entries:
        for done in entry.rounds:
            counts.setdefault(("probe", done.train), set()).add(len(done.right))
        for trial in entry.trials:
            counts.setdefault(("trial", trial.seconds), set()).add(len(trial.right))
    if any(len(found) > 1 for found in counts.values()):
        yield "candidates have not answered the same pictures"


def _is_amount(value: float) -> bool:
    return math.isfinite(value) and value >= 0
