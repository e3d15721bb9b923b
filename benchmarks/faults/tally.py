"""What was tried, held and found, counted by kind; each fault once, with how to see it again."""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.faults.trial import Kind
from benchmarks.faults.worker import Tried

EVERY_S = 30.0
SHOWN_LINES = 14


@dataclass
class Count:
    """The figures of one kind."""

    trials: int = 0
    inputs: int = 0
    faults: int = 0
    seconds: float = 0.0
    memory: int = 0
    slowest: float = 0.0


@dataclass
class Tally:
    """All figures of a run, and its faults, the same ones together."""

    seed: int
    say: Callable[[str], None] = print
    began: float = field(default_factory=time.monotonic)
    counts: dict[str, Count] = field(default_factory=dict)
    seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    spoke: float = field(default_factory=time.monotonic)

    def add(self, tried: Tried) -> None:
        """Count one trial; show a fault where it is new."""
        count = self.counts.setdefault(tried.kind, Count())
        count.trials += 1
        count.inputs += tried.inputs
        count.seconds += tried.seconds
        count.memory = max(count.memory, tried.memory)
        count.slowest = max(count.slowest, tried.seconds)
        if tried.why:
            count.faults += 1
            self._show(tried)
        if time.monotonic() - self.spoke > EVERY_S:
            self.spoke = time.monotonic()
            self.say(self.line())

    def _show(self, tried: Tried) -> None:
        known = (tried.kind, _gist(tried.why))
        self.seen[known] += 1
        if self.seen[known] > 1:
            shutil.rmtree(tried.saved or "-", ignore_errors=True)
            return
        self.say(f"FAULT {tried.kind}: {tried.why}")
        self.say(
            f"  again: python -m benchmarks.faults --only {tried.kind} --seed {self.seed} "
            f"--index {tried.index}" + (f"; inputs: {tried.saved}" if tried.saved else "")
        )
        for line in tried.detail.splitlines()[-SHOWN_LINES:]:
            self.say(f"  | {line[:220]}")

    @property
    def faults(self) -> int:
        """How many trials failed."""
        return sum(count.faults for count in self.counts.values())

    def line(self) -> str:
        """How far it is."""
        inputs = sum(count.inputs for count in self.counts.values())
        trials = sum(count.trials for count in self.counts.values())
        passed = time.monotonic() - self.began
        return f"{passed / 60:5.1f} min: {inputs} inputs in {trials} trials, {self.faults} faults"

    def table(self) -> str:
        """Tried, held and faults by kind."""
        head = f"{'kind':<18}{'tried':>9}{'held':>9}{'faults':>8}{'s':>9}{'slowest':>9}{'MB':>7}"
        rows = [head, "-" * len(head)]
        for name, c in sorted(self.counts.items()):
            rows.append(
                f"{name:<18}{c.inputs:>9}{c.inputs - c.faults:>9}{c.faults:>8}"
                f"{c.seconds:>9.0f}{c.slowest:>9.2f}{c.memory >> 20:>7}"
            )
        inputs = sum(c.inputs for c in self.counts.values())
        rows.append(f"{'all':<18}{inputs:>9}{inputs - self.faults:>9}{self.faults:>8}")
        return "\n".join(rows)

    def rows(self, kinds: Sequence[Kind]) -> list[dict[str, Any]]:
        """Rows of the result file."""
        machine = {kind.name: kind.machine for kind in kinds}
        return [
            {
                "arm": name,
                "threads": 1,
                "against": [],
                "memory_bytes": c.memory,
                "group": "machine" if machine[name] else "inputs",
                "trials": c.trials,
                "tried": c.inputs,
                "held": c.inputs - c.faults,
                "faults": c.faults,
                "seconds": round(c.seconds, 1),
                "found": [why for kind, why in self.seen if kind == name],
            }
            for name, c in sorted(self.counts.items())
        ]


def _gist(why: str) -> str:
    """A fault without the figures and names that differ from trial to trial."""
    return " ".join(
        word for word in why.split() if not any(c.isdigit() or c in "'\"/" for c in word)
    )[:120]


def emptied(folder: Path) -> bool:
    """Remove a folder if nothing was saved in it."""
    try:
        folder.rmdir()
    except OSError:
        return False
    return True
