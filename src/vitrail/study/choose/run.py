"""Choose: the phases one after the other, within the minutes given; what is known is always kept.

question -> parts -> cost (limits) -> probe, in rounds -> race, in heats -> estimate -> answer

The training part fits heads and trains; one half of the validation part compares candidates; the
other half is asked once, about the one that was chosen. The test part is never touched.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitrail.data import ImageDataset, manifest_digest
from vitrail.disk import make_folder
from vitrail.errors import UserError
from vitrail.files import lock_folder
from vitrail.study.choose import race, rounds
from vitrail.study.choose.check import load_choice
from vitrail.study.choose.pool import check_pool, pool_of
from vitrail.study.choose.question import Note, Parts, Question, Toolbox, TrialPlan, split_parts
from vitrail.study.choose.state import (
    FILE,
    ChoiceEntry,
    ChoiceState,
    Estimate,
    MeasuredCost,
    Trial,
    as_text,
    best_known,
    share_right,
)
from vitrail.train.features import FeatureBank, labels_of
from vitrail.train.probe import LinearProbe

PROBE_SHARE = 0.45
"""Of the time, before the race begins."""
TRAINING_SHARE = 0.8
"""Of the time left for the race; the rest is for building, saving and asking."""
LEAST_PROBED = 2
"""Candidates that are probed whatever it takes."""
LEAST_RELEASED = 2
"""Candidates with released weights that stay in question whatever a probe says."""


@dataclass(kw_only=True)
class ChoiceRun:
    """A choice at work: the state and what is not written down."""

    question: Question
    pictures: ImageDataset
    parts: Parts
    tools: Toolbox
    out: Path
    note: Note
    state: ChoiceState
    started: float = field(default_factory=time.monotonic)
    before: float = 0.0
    banks: dict[str, FeatureBank] = field(default_factory=dict)
    heads: dict[str, LinearProbe] = field(default_factory=dict)

    @property
    def spent(self) -> float:
        """Seconds, over all runs of the command."""
        return self.before + time.monotonic() - self.started

    @property
    def seconds_left(self) -> float:
        """Seconds."""
        return 60 * self.question.minutes - self.spent

    def save(self, **changes: Any) -> None:
        """Write down what is known."""
        self.state = replace(self.state, seconds=round(self.spent, 1), **changes)
        self.state.save(self.out)

    def put(self, *entries: ChoiceEntry) -> None:
        """The entries, changed and written down."""
        for entry in entries:
            self.state = self.state.put(entry)
        self.save()


def choose_in(
    out: Path, question: Question, tools: Toolbox, note: Note, facts: Any = None
) -> ChoiceState:
    """Choose, in a folder made at need; what an earlier run found there is gone on with.

    Raises:
        UserError: another question's folder, or pictures or candidates that cannot be.
        KeyboardInterrupt: Ctrl-C, after the best answer so far has been written.
    """
    pictures = tools.pictures(question)
    parts = split_parts(pictures, question.seed)
    if not (out / FILE).is_file():
        candidates(question)  # what cannot be leaves no folder behind
    make_folder(out)
    with lock_folder(out, f"another process is choosing in {str(out)!r}; wait for it"):
        seen = manifest_digest(
            pictures.classes, {"train": parts.train, "val": (*parts.compare, *parts.last)}
        )
        state = begin(out, question, {**(facts or {}), "pictures": seen})
        run = ChoiceRun(
            question=question, pictures=pictures, parts=parts, tools=tools, out=out,
            note=note, state=state, before=state.seconds,
        )  # fmt: skip
        with answered_on_stop(run):
            PHASES[state.phase](run)
        return run.state


def begin(out: Path, question: Question, facts: dict[str, Any]) -> ChoiceState:
    """The state in ``out``, or a new one.

    Raises:
        UserError: the folder's question was another one.
    """
    asked = asdict(question) | {"pool": list(question.pool)}
    if not (out / FILE).is_file():
        state = ChoiceState(question=asked, facts=facts, entries=candidates(question))
        state.save(out)
        return state
    state = load_choice(out)
    others = [k for k in asked if k != "minutes" and state.question.get(k) != asked[k]]
    if others:
        what = ", ".join(f"{k} was {state.question.get(k)!r}, is {asked[k]!r}" for k in others)
        raise UserError(f"{str(out)!r} holds another choice ({what}); give another --out")
    if state.facts.get("pictures", facts["pictures"]) != facts["pictures"]:
        raise UserError(
            f"the pictures have changed since {str(out)!r} was begun, and its answers are of the "
            "old ones; give another --out"
        )
    return state


def candidates(question: Question) -> tuple[ChoiceEntry, ...]:
    """The entries that a choice begins with.

    Raises:
        UserError: there is nothing to choose among.
    """
    pool = pool_of(question.pool)
    check_pool(pool)
    return tuple(
        ChoiceEntry(model=c.model, weights=question.weights, reason=c.reason) for c in pool
    )


@contextmanager
def answered_on_stop(run: ChoiceRun) -> Iterator[None]:
    """Ctrl-C writes the best answer so far before it goes on upwards."""
    try:
        yield
    except KeyboardInterrupt:
        known = best_known(run.state.entries)
        run.save(winner=known.model if known else "")
        raise


# ---- phases ---------------------------------------------------------------------------------


def weigh(run: ChoiceRun) -> None:
    """Cost: who keeps within the limits of this machine."""
    question = run.question
    missing = [entry for entry in run.state.open if entry.cost is None]
    costs = run.tools.measure(missing, run.pictures, question, run.note) if missing else {}
    for entry in missing:
        cost = costs[entry.model]
        if isinstance(cost, str):
            run.note(f"{entry.model}: {cost}")
            run.put(replace(entry, left=f"cannot be had: {cost}"))
        else:
            run.put(replace(entry, cost=cost, left=over_limit(cost, question)))
    run.note(f"{len(run.state.open)} of {len(run.state.entries)} candidates keep the limits")
    if not run.state.open:
        raise nobody_left(run.state)
    run.save(phase="probe")
    probe(run)


def nobody_left(state: ChoiceState) -> UserError:
    """The error where the first phase leaves nobody, with a reason."""
    if any(entry.cost for entry in state.entries):
        return UserError(
            "no candidate keeps the limits; raise them, or name others with --pool, and give "
            "another --out"
        )
    first = state.entries[0]
    return UserError(f"no candidate can be had here ({first.model}: {first.left})")


def over_limit(cost: MeasuredCost, question: Question) -> str:
    """Which limit a candidate breaks, in words; empty if none."""
    limits = (
        ("max_ms", cost.ms, f"{cost.ms:.3g} ms for {cost.batch}"),
        ("max_mb", cost.megabytes, f"{cost.megabytes:.3g} MB of weights"),
        ("max_params", cost.params, f"{cost.params:,} parameters"),
    )
    for name, value, words in limits:
        most = getattr(question, name)
        if most is not None and value > most:
            return f"over the limit: {words}"
    return ""


def probe(run: ChoiceRun) -> None:
    """Rounds of probing, until all pictures have spoken, the time is up, or one is left."""
    classes = len(run.pictures.classes)
    until = PROBE_SHARE * 60 * run.question.minutes
    for step in rounds.ladder(run.parts.train, run.parts.compare, classes, run.question.seed):
        if not probe_round(run, step, until):
            break
        run.put(*rounds.drop(run.state.entries, len(step.train), LEAST_RELEASED))
        names = [entry.model for entry in run.state.open]
        run.banks = {name: bank for name, bank in run.banks.items() if name in names}
        run.note(f"{len(step.train)} pictures: {len(names)} still in question")
        if len(names) < 2:
            break
    run.save(phase="race")
    run_race(run)


def probe_round(run: ChoiceRun, step: rounds.Step, until: float) -> bool:
    """One round of all candidates still in question, the quickest first; False where time is up.

    Who has not been probed by then leaves with that reason, but for the first few: without them
    nothing is known.
    """
    for entry in sorted(run.state.open, key=lambda entry: entry.forward_seconds):
        if entry.model not in rounds.to_probe(run.state.open, step):
            continue
        ahead = entry.forward_seconds * (len(step.train) + len(step.asked))
        probed = sum(1 for other in run.state.open if other.rounds)
        if not entry.rounds and probed >= LEAST_PROBED and run.spent + ahead > until:
            run.put(replace(entry, left="not probed: the time was up"))
            continue
        bank = open_bank(run, entry)
        if bank is None:
            continue
        ahead = bank.seconds_per_picture * rounds.work(bank, step)
        if entry.rounds and run.spent + ahead > until:
            run.note(f"the time for probing is up at {run.spent:.0f} s")
            return False
        done, head = rounds.probe(bank, step, len(run.pictures.classes), run.question.seed)
        run.heads[entry.model] = head
        entry = run.state.entry(entry.model)
        run.put(replace(entry, rounds=(*entry.rounds, done)))
        right = share_right(done.right)
        run.note(f"{entry.model}: {right:.1%} by {done.train} pictures, {done.seconds:.1f} s")
    return True


def open_bank(run: ChoiceRun, entry: ChoiceEntry) -> FeatureBank | None:
    """The candidate's features; None, and the reason written down, where it cannot be built."""
    if entry.model in run.banks:
        return run.banks[entry.model]
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.question.seed)  # a choice gone on with has the weights it had
            opened = run.tools.open(entry, run.pictures)
    except UserError as error:
        run.put(replace(entry, left=f"cannot be had: {error}"))
        run.note(f"{entry.model}: {error}")
        return None
    bank = FeatureBank(model=opened.model, pictures=run.pictures, preprocess=opened.preprocess)
    run.put(replace(entry, start=opened.start, released=opened.released))
    run.banks[entry.model] = bank
    return bank


def run_race(run: ChoiceRun) -> None:
    """Fine-tune the best under equal time; the better half goes on."""
    if run.state.heat is None and run.seconds_left > 0:
        run.save(heat=race.first_heat(race.seats(run.state.entries), training_seconds(run)))
    while (heat := run.state.heat) is not None:
        for model in heat.models:
            run_trial(run, run.state.entry(model), heat.seconds)
        after = race.next_heat(run.state.entries, heat, training_seconds(run))
        run.put(*race.mark_beaten(run.state.entries, heat, after))
        run.save(heat=after)
    estimate(run)


def training_seconds(run: ChoiceRun) -> float:
    """Of the time left, for training in the race."""
    return TRAINING_SHARE * run.seconds_left


def run_trial(run: ChoiceRun, entry: ChoiceEntry, seconds: float) -> None:
    """One candidate's fine-tuning; one that fails leaves the race with its reason."""
    if entry.left or any(trial.seconds == seconds for trial in entry.trials):
        return
    name = f"race/{[e.model for e in run.state.entries].index(entry.model)}-{seconds:.0f}s"
    plan = TrialPlan(seconds=seconds, at=run.out / name, seed=run.question.seed)
    head = head_of(run, entry) if entry.released else None
    try:
        epochs, found = run.tools.tune(entry, run.pictures, run.parts, head, plan)
    except UserError as error:
        run.put(replace(entry, left=f"cannot be fine-tuned: {error}"))
        return
    right = as_text(found == labels_of(run.parts.compare))
    trial = Trial(seconds=seconds, epochs=epochs, right=right, run=name)
    run.put(replace(entry, trials=(*entry.trials, trial)))
    run.note(f"{entry.model}: {share_right(right):.1%} after {seconds:.0f} s of fine-tuning")


def head_of(run: ChoiceRun, entry: ChoiceEntry) -> LinearProbe | None:
    """The head of a candidate's last round, fitted again where another run of the command did."""
    bank = None if entry.model in run.heads else open_bank(run, entry)
    if bank is not None:
        classes, seed = len(run.pictures.classes), run.question.seed
        steps = rounds.ladder(run.parts.train, run.parts.compare, classes, seed)
        step = next(s for s in steps if len(s.train) == entry.rounds[-1].train)
        run.heads[entry.model] = rounds.probe(bank, step, classes, seed)[1]
    return run.heads.get(entry.model)


def estimate(run: ChoiceRun) -> None:
    """Ask the chosen one about the pictures that nothing was chosen by."""
    chosen = best_known([entry for entry in run.state.entries if not entry.left])
    chosen = chosen or best_known(run.state.entries)
    if chosen is None:
        raise UserError("no candidate could be probed; see the reasons in choose.json")
    labels = labels_of(run.parts.last)
    tuned = gained_by_tuning(chosen)
    if tuned:
        at = run.out / chosen.trials[-1].run
        found = run.tools.answer(run.pictures, run.parts.last, at)
    else:
        found = answer_by_probe(run, chosen)
    right = int((found == labels).sum())
    kept = Estimate(right=right, count=len(labels), tuned=tuned)
    run.save(winner=chosen.model, estimate=kept, phase="done")


def gained_by_tuning(entry: ChoiceEntry) -> bool:
    """Whether the last trial is as good as the last probe; a short race can spoil a candidate."""
    if not entry.trials or not entry.rounds:
        return bool(entry.trials)
    return share_right(entry.trials[-1].right) >= share_right(entry.rounds[-1].right)


def answer_by_probe(run: ChoiceRun, chosen: ChoiceEntry) -> np.ndarray:
    """Predictions on the last pictures, by a head fitted as in the candidate's last round."""
    bank, head = open_bank(run, chosen), head_of(run, chosen)
    if bank is None or head is None:
        raise UserError(f"{chosen.model} cannot be opened any more")
    return head.predict(bank.features(run.parts.last))


def stop(run: ChoiceRun) -> None:
    """Nothing is left to do."""


PHASES: dict[str, Callable[[ChoiceRun], None]] = {
    "cost": weigh,
    "probe": probe,
    "race": run_race,
    "done": stop,
}
