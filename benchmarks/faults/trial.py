"""One trial: chance that follows from (seed, kind, index), a folder of its own, the stage."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.faults import capture
from benchmarks.faults.verdict import HELD, Said, judge

if TYPE_CHECKING:
    from benchmarks.faults.stage import Stage


@dataclass
class Trial:
    """What an attempt may use; ``inputs`` is how many inputs it tried."""

    chance: random.Random
    folder: Path
    stage: "Stage"
    inputs: int = 1

    def command(
        self,
        *words: str | Path,
        allowed: tuple[int, ...] = HELD,
        alone: bool = False,
        encoding: str = "utf-8",
    ) -> Said:
        """Run one command line in this process and judge how it ended."""
        return judge(capture.command(*words, encoding=encoding), allowed, alone=alone)

    def file(self, name: str, data: bytes) -> Path:
        """A file of this trial."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path


PATIENCE = 8
"""Processes that a processor may share between: the clock runs that much faster than the work."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of trial.

    Attributes:
        name: as in the table.
        about: what is tried, for ``--list``.
        attempt: makes and tries the inputs of one trial; raises Fault, or what it did not expect.
        needs: what of the stage must be there first.
        machine: whether processes or disks are broken (not inputs); these are counted by trial.
        weight: share of the time, beside others of its group.
        seconds: of processor time after which a trial has hung; by the clock, which says little
            on a busy machine, :data:`PATIENCE` times as many.
        memory: more bytes than this, above what the process held before, are a fault.
        warm_up: called once before workers are forked, for what all share.
        ready: whether it can be tried here; a line that says why not.
    """

    name: str
    about: str
    attempt: Callable[[Trial], None]
    needs: tuple[str, ...] = ()
    machine: bool = False
    weight: float = 1.0
    seconds: float = 30.0
    memory: int = 1 << 30
    warm_up: Callable[[], object] = str
    ready: Callable[[], str] = str


def chance_of(seed: int, kind: str, index: int) -> random.Random:
    """The chance of one trial, the same on every machine."""
    return random.Random(f"{seed} {kind} {index}")


def by_name(kinds: Iterable[Kind]) -> dict[str, Kind]:
    """The kinds in a table."""
    return {kind.name: kind for kind in kinds}
