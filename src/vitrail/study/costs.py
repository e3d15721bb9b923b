"""What each arm of a study costs, measured once, side by side, at the study's image size."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vitrail.errors import UserError
from vitrail.schema import read_json
from vitrail.study.plan import split_start
from vitrail.study.record import ArmCost, write_json
from vitrail.study.setup import StudySetup

if TYPE_CHECKING:
    from vitrail.cost import Settings

Tell = Callable[[str], None]

LIMIT_S = 40.0
"""Seconds that measuring takes at most for each arm, half of them for time, half for memory."""
ROUNDS = 5
_PACE_S = 10.0
"""Seconds between two lines that say how far measuring is."""


class Measure(Protocol):
    """Measures all arms of a setup against each other."""

    def __call__(self, setup: StudySetup, tell: Tell) -> Mapping[str, ArmCost]:
        """Costs by arm; ``tell`` takes a line for people."""
        ...


def write_missing_costs(path: Path, setup: StudySetup, measure: Measure, tell: Tell) -> None:
    """Measure and write the costs unless they are there for every arm of the plan.

    A study that has grown is measured anew as a whole: only what was timed side by side compares.
    """
    known = read_json(path, dict[str, ArmCost]) if path.is_file() else {}
    if set(setup.plan.arms) <= set(known):
        return
    count = len(setup.plan.arms)
    tell(f"measuring what {count} arms cost, {LIMIT_S * count:.0f} s at most ...")
    costs = measure(setup, tell)
    write_json(path, {arm: asdict(cost) for arm, cost in costs.items()})


def measure(setup: StudySetup, tell: Tell) -> dict[str, ArmCost]:
    """Count and time all arms through :mod:`vitrail.cost`; memory in a fresh process each."""
    from vitrail.cost import Settings, cost

    texts = tuple(dict.fromkeys(split_start(arm)[0] for arm in setup.plan.arms))
    count = len(texts)
    deadline = time.monotonic() + LIMIT_S * count
    settings = Settings(
        image=setup.plan.image,
        batch=setup.recipe.batch,
        classes=len(setup.pictures.classes),
        in_chans=setup.preprocess.in_chans,
        rounds=ROUNDS,
        window_s=0.2,
        warmup_s=1.0,
        limit_s=LIMIT_S * count / 2,
    )
    shown = Pace(tell, steps=2 * count * (1 + ROUNDS), deadline=deadline)
    measured = cost(texts, settings, with_memory=False, on_step=shown.step)
    memory: dict[str, int | None] = {}
    for done, row in enumerate(measured.rows):
        left = max(1.0, deadline - time.monotonic())
        tell(f"measuring memory of {row.model} ({done + 1} of {count}), {left:.0f} s left at most")
        memory[row.model] = training_memory(row.model, settings, tell, left / (count - done))
    found = {
        row.model: ArmCost(
            params=row.count.params,
            macs=row.count.macs,
            latency=row.latency.median,
            latency_spread=row.latency.iqr,
            throughput=row.images_per_s,
            throughput_spread=row.images_per_s * row.throughput.iqr / row.throughput.median,
            batch=row.batch,
            memory=memory[row.model],
            quiet=row.latency.quiet and row.throughput.quiet,
        )
        for row in measured.rows
    }
    return {arm: found[split_start(arm)[0]] for arm in setup.plan.arms}


class Pace:
    """A line now and then that says how far timing is, and how long it will take at most."""

    def __init__(self, tell: Tell, *, steps: int, deadline: float) -> None:
        self.tell, self.steps, self.deadline = tell, steps, deadline
        self.done, self.told_at = 0, time.monotonic()

    def step(self, what: str) -> None:
        """One more window is timed, or one more candidate warmed up."""
        self.done += 1
        now = time.monotonic()
        if now - self.told_at >= _PACE_S:
            self.told_at = now
            part, left = min(1.0, self.done / self.steps), max(0.0, self.deadline - now)
            self.tell(f"measuring {what}: {part:.0%} of the timing, {left:.0f} s left at most")


def training_memory(
    arm: str, settings: "Settings", tell: Tell, seconds: float | None = None
) -> int | None:
    """Peak bytes of a training step in a fresh process, or None and a line that says why."""
    from vitrail.cost import memory

    try:
        return memory(
            arm,
            settings.image,
            settings.batch,
            True,
            settings=settings,
            seconds=seconds,
        )
    except UserError as error:
        tell(f"memory of {arm} is not known: {error}")
        return None
