"""Several things timed side by side, so that a noisy machine is noisy for all of them alike.

warm each up  ->  round 0: a b c  ->  round 1: c b a  ->  ...  ->  median, quartiles, best; ratios

A *window* is a run of calls that lasts at least ``window_s``. Every round times one window of each
candidate, in forward order and reverse order by turns, so that a drift (heat, clock rate) does not
favour one end of the list. A window in which other processes used the CPU, or in which we got less
of it than in our best one, is left out and another round is run instead. Speed ratios are taken
within rounds.
"""

import gc
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from vitrail.cost.clock import Clock, SystemClock
from vitrail.errors import UserError

Call = Callable[[], object]

AGREE = 0.05
"""Two warm-up windows agree when they differ by less than this share."""
FULL = 0.9
"""A warm-up window is long enough from this part of the wanted length on."""
FOREIGN = 0.2
"""Cores' worth of other processes' work above which a window is left out."""
STARVED = 0.8
"""A window is left out when our share of the CPU is below this part of our best window's."""
COMPUTES = 0.5
"""Below this many cores' worth of own work we wait (for a GPU, a disk) and cannot be starved."""


@dataclass(frozen=True, kw_only=True)
class TimingWindow:
    """One run of calls. ``seconds`` are wall seconds a call; ``own`` and ``foreign`` say how many
    cores this process and all others kept busy meanwhile (``None``: not known here).
    """

    round: int
    calls: int
    seconds: float
    own: float
    foreign: float | None


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """How a candidate was brought up to speed; ``settled`` if its last two windows agreed."""

    calls: int
    seconds: float
    settled: bool


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One candidate's windows, and what they say: all figures are wall seconds a call."""

    name: str
    threads: int
    windows: tuple[TimingWindow, ...]
    warmup: WarmUp

    @property
    def clean(self) -> tuple[TimingWindow, ...]:
        """The windows that no other process disturbed."""
        return quiet_windows(self.windows)

    @property
    def quiet(self) -> bool:
        """Whether the figures rest on undisturbed windows; if there is none, all are used."""
        return bool(self.clean)

    @property
    def by_round(self) -> dict[int, float]:
        """Round -> seconds, of the windows that count."""
        return {w.round: w.seconds for w in self.clean or self.windows}

    @property
    def median(self) -> float:
        """The middle window."""
        return self.quartiles[1]

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Lower quartile, median, upper quartile."""
        return quartiles(tuple(self.by_round.values()))

    @property
    def iqr(self) -> float:
        """Upper quartile less lower quartile."""
        low, _, high = self.quartiles
        return high - low

    @property
    def best(self) -> float:
        """The fastest window."""
        return min(self.by_round.values())

    def rate(self, items: int) -> float:
        """Items a second, where one call handles ``items``."""
        return items / self.median

    def to_dict(self) -> dict[str, object]:
        """For JSON: milliseconds a call, and how they came about."""
        low, median, high = (1e3 * value for value in self.quartiles)
        return {
            "median_ms": median,
            "low_ms": low,
            "high_ms": high,
            "best_ms": 1e3 * self.best,
            "windows_ms": [1e3 * w.seconds for w in self.windows],
            "rounds_used": sorted(self.by_round),
            "foreign_cores": [w.foreign for w in self.windows],
            "calls_per_window": self.windows[0].calls,
            "warmed_s": self.warmup.seconds,
            "settled": self.warmup.settled,
            "quiet": self.quiet,
            "threads": self.threads,
        }


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times faster one candidate is than another: median and quartiles over rounds."""

    median: float
    low: float
    high: float
    rounds: int
    quiet: bool

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def time_side_by_side(
    candidates: Mapping[str, Call],
    *,
    rounds: int = 6,
    window_s: float = 0.3,
    warmup_s: float = 2.0,
    limit_s: float | None = None,
    threads: int | None = None,
    clock: Clock | None = None,
    on_window: Callable[[str], None] | None = None,
) -> dict[str, Timing]:
    """Time callables against each other, interleaved.

    Args:
        candidates: name -> what to call; a call returns when its work is queued or done.
        rounds: undisturbed windows wanted of each; at most twice as many rounds are run.
        window_s: least length of a window in seconds (the CPU check is coarse below 0.3).
        warmup_s: least time each candidate runs before it is timed, after its first call.
        limit_s: about the most seconds in all, for busy machines: warm-ups get two fifths of it,
            and after two rounds no other begins; None is no limit.
        threads: torch threads meanwhile (as they are, if None); set back afterwards.
        clock: another source of readings, for tests.
        on_window: told the candidate's name after each warm-up and each window.

    Raises:
        UserError: no candidate, or ``rounds`` below 1, or ``threads`` below 1.
    """
    if not candidates or rounds < 1:
        raise UserError("timing needs at least one candidate and one round")
    clock, tell = clock or SystemClock(), on_window or (lambda name: None)
    warmed: dict[str, WarmUp] = {}
    until = None if limit_s is None else clock.stop().wall + limit_s
    longest = None if limit_s is None else 0.4 * limit_s / len(candidates)
    with use_threads(threads) as used, _no_collection():
        for name, call in candidates.items():
            warmed[name] = warm_up(
                call, window_s=window_s, warmup_s=warmup_s, longest_s=longest, clock=clock
            )
            tell(name)
        calls = {name: (call, warmed[name].calls) for name, call in candidates.items()}
        windows = _rounds(calls, rounds, clock, tell, until)
    return {
        name: Timing(name=name, threads=used, windows=tuple(seen), warmup=warmed[name])
        for name, seen in windows.items()
    }


def ratio(a: Timing, b: Timing) -> Ratio:
    """How many times faster ``a`` is than ``b``, from the rounds in which both were undisturbed.

    Where no such round is left all rounds are taken, and ``quiet`` is False.
    """
    ours, theirs = a.by_round, b.by_round
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        ours = {w.round: w.seconds for w in a.windows}
        theirs = {w.round: w.seconds for w in b.windows}
    low, median, high = quartiles([theirs[r] / ours[r] for r in shared or sorted(ours)])
    return Ratio(
        median=median,
        low=low,
        high=high,
        rounds=len(shared) or len(ours),
        quiet=bool(shared) and a.quiet and b.quiet,
    )


def quiet_windows(windows: Sequence[TimingWindow]) -> tuple[TimingWindow, ...]:
    """The windows in which others used little CPU and we got as much of it as ever."""
    most = max(w.own for w in windows)
    enough = STARVED * most if most >= COMPUTES else 0.0
    return tuple(w for w in windows if (w.foreign or 0.0) <= FOREIGN and w.own >= enough)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile, interpolated; of one value, that value."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


@contextmanager
def use_threads(threads: int | None) -> Iterator[int]:
    """``threads`` torch threads inside, the former number outside; gives the number in use.

    Raises:
        UserError: fewer than one thread.
    """
    before = torch.get_num_threads()
    if threads is not None and threads < 1:
        raise UserError(f"threads must be 1 or more, not {threads}")
    torch.set_num_threads(threads or before)
    try:
        yield threads or before
    finally:
        torch.set_num_threads(before)


def warm_up(
    call: Call, *, window_s: float, warmup_s: float, longest_s: float | None = None, clock: Clock
) -> WarmUp:
    """Run until two windows in a row agree and ``warmup_s`` have passed, or five times that.

    ``longest_s`` ends it earlier, be the windows as they may.

    The first call compiles and allocates, and stands outside the count. ``calls`` of the result
    is how many calls fill a window.
    """
    call()
    began = clock.start().wall
    calls, earlier = 1, math.inf
    while True:
        seen = window(call, calls, 0, clock)
        spent = clock.stop().wall - began
        full = seen.seconds * calls >= FULL * window_s
        agree = abs(seen.seconds - earlier) <= AGREE * seen.seconds
        over = longest_s is not None and spent >= longest_s
        if over or (spent >= warmup_s and full and (agree or spent >= 5 * warmup_s)):
            return WarmUp(calls=calls, seconds=spent, settled=agree)
        if not full:
            calls = max(calls + 1, math.ceil(window_s / max(seen.seconds, 1e-9)))
        earlier = seen.seconds


def window(call: Call, calls: int, number: int, clock: Clock) -> TimingWindow:
    """Time ``calls`` calls as window of round ``number``."""
    before = clock.start()
    for _ in range(calls):
        call()
    after = clock.stop()
    wall, own = after.wall - before.wall, after.own - before.own
    known = before.busy is not None and after.busy is not None
    foreign = max(0.0, after.busy - before.busy - own) / wall if known else None  # type: ignore[operator]
    return TimingWindow(
        round=number, calls=calls, seconds=wall / calls, own=own / wall, foreign=foreign
    )


def _rounds(
    calls: dict[str, tuple[Call, int]],
    wanted: int,
    clock: Clock,
    tell: Callable[[str], None],
    until: float | None,
) -> dict[str, list[TimingWindow]]:
    """Rounds until every candidate has enough clean windows, at most twice ``wanted``.

    At ``until`` of the clock no other begins, once there are two.
    """
    windows: dict[str, list[TimingWindow]] = {name: [] for name in calls}
    for number in range(2 * wanted):
        if number >= 2 and until is not None and clock.stop().wall >= until:
            break
        order = list(calls) if number % 2 == 0 else list(reversed(calls))
        for name in order:
            call, repeats = calls[name]
            if repeats > 1:  # bring its own data back to the caches after another's turn
                call()
            windows[name].append(window(call, repeats, number, clock))
            tell(name)
        if number + 1 >= wanted and all(len(quiet_windows(w)) >= wanted for w in windows.values()):
            break
    return windows


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python's garbage collector at rest, as ``timeit`` has it."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
