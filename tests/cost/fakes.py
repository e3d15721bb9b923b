"""A clock and callables whose every second is decided by the test."""

from collections.abc import Callable, Iterable, Iterator
from itertools import repeat

from vitrail.cost.clock import ClockReading


class FakeClock:
    """Time passes only when work is done; ``cores`` of our own, ``foreign`` of the others."""

    def __init__(self) -> None:
        self.wall = self.own = self.busy = 0.0

    def start(self) -> ClockReading:
        return ClockReading(wall=self.wall, own=self.own, busy=self.busy)

    stop = start

    def work(self, seconds: float, cores: float = 1.0, foreign: float = 0.0) -> None:
        self.wall += seconds
        self.own += seconds * cores
        self.busy += seconds * (cores + foreign)

    def job(self, seconds: float | Iterable[float]) -> Callable[[], None]:
        """A callable that takes the given time, or the given times one after the other."""
        lasting: Iterator[float] = (
            repeat(seconds) if isinstance(seconds, int | float) else iter(seconds)
        )
        return lambda: self.work(next(lasting))
