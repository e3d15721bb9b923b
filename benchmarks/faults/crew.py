"""Several workers beside each other: who tries what next, and who has hung or died."""

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any

from benchmarks.faults import limits, worker
from benchmarks.faults.stage import Stage
from benchmarks.faults.trial import PATIENCE, Kind
from benchmarks.faults.worker import Tried, Worker

Tell = Callable[[Tried], None]


@dataclass
class Place:
    """One worker, and what it is busy with: ``(kind, index, since when)``.

    ``had`` is the processor time that the worker had had before.
    """

    kinds: Sequence[Kind]
    worker: Worker | None = None
    busy: tuple[Kind, int, float] | None = None
    seconds: float = 0.0
    had: float = 0.0


@dataclass
class Crew:
    """All workers of a run.

    Kinds of inputs and kinds of machine faults never share a process: the latter fork commands,
    which only a process without threads may do. A kind's turn comes by the time that it has had.
    """

    kinds: Sequence[Kind]
    stage: Stage
    seed: int
    jobs: int
    most: int | None = None
    first: int = 0
    spent: dict[str, float] = field(default_factory=dict)
    begun: dict[str, int] = field(default_factory=dict)

    def run(self, seconds: float, tell: Tell) -> None:
        """Try until the time is over, or every kind had its ``most`` trials; tell of each."""
        until = time.monotonic() + seconds
        places = self._places()
        try:
            while True:
                self._give_all(places, until)
                if not any(place.busy for place in places):
                    return
                self._listen(places, tell)
        finally:
            for place in places:
                if place.worker:
                    place.worker.stop()

    def _places(self) -> list[Place]:
        groups = [[k for k in self.kinds if k.machine is m] for m in (False, True)]
        groups = [group for group in groups if group]
        return [Place(groups[i % len(groups)]) for i in range(max(self.jobs, len(groups)))]

    def _give_all(self, places: Sequence[Place], until: float) -> None:
        """Work for idle workers, as many at once as ``jobs``; first for whose turn it is."""
        for place in sorted(places, key=lambda p: p.seconds):
            busy = sum(p.busy is not None for p in places)
            if place.busy is None and busy < self.jobs and time.monotonic() < until:
                self._give(place)

    def _give(self, place: Place) -> None:
        open_kinds = [
            k for k in place.kinds if self.most is None or self.begun.get(k.name, 0) < self.most
        ]
        if not open_kinds:
            place.seconds = math.inf
            return
        kind = min(open_kinds, key=lambda k: self.spent.get(k.name, 0.0) / k.weight)
        index = self.first + self.begun.get(kind.name, 0)
        self.begun[kind.name] = self.begun.get(kind.name, 0) + 1
        if place.worker is None:
            place.worker = worker.start(place.kinds, self.stage, self.seed)
        place.had = limits.processor_seconds(place.worker.pid)
        place.worker.pipe.send((kind.name, index))
        place.busy = (kind, index, time.monotonic())

    def _listen(self, places: Sequence[Place], tell: Tell) -> None:
        """Wait for the next answer, and look for those who take too long."""
        pipes: dict[Any, Place] = {p.worker.pipe: p for p in places if p.worker and p.busy}
        for pipe in wait(list(pipes), timeout=1.0):
            place = pipes[pipe]
            assert place.busy and place.worker
            kind, index, _ = place.busy
            try:
                tried = place.worker.pipe.recv()
            except (EOFError, OSError):
                saved = next(self.stage.trials.glob(f"{kind.name}-{index}-*"), "")
                death = self._death(place)
                tried = Tried(kind.name, index, 1, "the process died", death, saved=str(saved))
            self._done(place, tried, tell)
        for place in places:
            if place.busy and _hangs(place):
                kind, index, _ = place.busy
                took = time.monotonic() - place.busy[2]
                why = f"no end within {took:.0f} s"
                saved = next(self.stage.trials.glob(f"{kind.name}-{index}-*"), "")
                assert place.worker
                stack = place.worker.stack(self.stage)
                self._replace(place)
                self._done(place, Tried(kind.name, index, 1, why, stack, saved=str(saved)), tell)

    def _death(self, place: Place) -> str:
        assert place.worker
        _, status = os.waitpid(place.worker.pid, 0)
        place.worker.pipe.close()
        place.worker = None
        return f"wait status {status}"

    def _replace(self, place: Place) -> None:
        assert place.worker
        place.worker.stop()
        place.worker = None

    def _done(self, place: Place, tried: Tried, tell: Tell) -> None:
        assert place.busy
        took = time.monotonic() - place.busy[2]
        place.seconds += took
        self.spent[tried.kind] = self.spent.get(tried.kind, 0.0) + took
        place.busy = None
        if tried.why and place.worker:  # what a fault left in the process must not reach the next
            self._replace(place)
        tell(tried)


def _hangs(place: Place) -> bool:
    """Whether a worker has had more time for its trial than any trial needs."""
    assert place.busy and place.worker
    kind, _, since = place.busy
    if time.monotonic() - since > PATIENCE * kind.seconds:
        return True
    try:
        return limits.processor_seconds(place.worker.pid) - place.had > kind.seconds
    except OSError:  # it has died, which the pipe says
        return False
