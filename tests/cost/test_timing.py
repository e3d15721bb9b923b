"""The order of windows, their statistics and the check for other processes, on a false clock."""

import gc
from itertools import chain, cycle

import pytest
import torch
from tests.cost.fakes import FakeClock

from vitrail import cost
from vitrail.cost.timing import WarmUp, quartiles, quiet_windows, warm_up
from vitrail.errors import UserError


def windows(
    *seconds: float, own: float = 1.0, foreign: float | None = 0.0
) -> tuple[cost.TimingWindow, ...]:
    return tuple(
        cost.TimingWindow(round=i, calls=1, seconds=s, own=own, foreign=foreign)
        for i, s in enumerate(seconds)
    )


def timing(*seen: cost.TimingWindow) -> cost.Timing:
    warmup = WarmUp(calls=1, seconds=2.0, settled=True)
    return cost.Timing(name="x", threads=1, windows=seen, warmup=warmup)


def test_known_times_and_ratio() -> None:
    clock = FakeClock()
    found = cost.time_side_by_side(
        {"slow": clock.job(0.030), "fast": clock.job(0.010)}, rounds=3, clock=clock
    )
    assert found["slow"].median == pytest.approx(0.030)
    assert found["fast"].rate(8) == pytest.approx(800)
    assert found["fast"].iqr == pytest.approx(0, abs=1e-9)
    speed = cost.ratio(found["fast"], found["slow"])
    assert (speed.median, speed.rounds, speed.quiet) == (pytest.approx(3.0), 3, True)
    assert all(w.calls * w.seconds >= 0.29 for w in found["fast"].windows)


def test_rounds_alternate_their_order() -> None:
    clock, order = FakeClock(), []
    jobs = {name: clock.job(1.0) for name in "abc"}
    cost.time_side_by_side(jobs, rounds=3, clock=clock, on_window=order.append)
    assert "".join(order) == "abc" + "abc" + "cba" + "abc"


def test_ratio_is_paired_by_round() -> None:
    """A machine that slows down fourfold leaves the ratio of each round as it was."""
    ours, theirs = timing(*windows(1, 2, 4)), timing(*windows(3, 6, 12))
    speed = cost.ratio(ours, theirs)
    assert (speed.low, speed.median, speed.high) == (3, 3, 3)


def test_warm_up_waits_until_windows_agree() -> None:
    clock = FakeClock()
    job = clock.job(chain([30.0, 3.0, 1.0, 0.6], cycle([0.5])))
    warmed = warm_up(job, window_s=0.3, warmup_s=2.0, clock=clock)
    assert warmed.settled
    assert warmed.seconds == pytest.approx(3.0 + 1.0 + 0.6 + 0.5 + 0.5)


def test_warm_up_gives_up_on_an_unsteady_call() -> None:
    clock = FakeClock()
    warmed = warm_up(clock.job(cycle([0.4, 0.8])), window_s=0.3, warmup_s=2.0, clock=clock)
    assert not warmed.settled
    assert 10 <= warmed.seconds <= 11


def test_a_limit_of_time_is_kept_on_a_machine_that_is_busy() -> None:
    """Slow, unsteady calls among others' work: two rounds are left of ten, warm-ups are short."""
    clock = FakeClock()
    jobs = {name: lambda: clock.work(1 + clock.wall % 3, foreign=1.0) for name in "ab"}
    found = cost.time_side_by_side(jobs, rounds=5, clock=clock, limit_s=20.0)
    assert clock.wall <= 20 + 10, "the round that has begun is ended"
    assert all(2 <= len(each.windows) < 10 and not each.quiet for each in found.values())
    assert len({len(each.windows) for each in found.values()}) == 1


def test_disturbed_rounds_are_run_again() -> None:
    """The second round of ``a`` is shared with another process, which takes half a core."""
    clock, calls = FakeClock(), iter(range(1000))
    # call 0 is outside the count, 1 to 4 warm up (2 s), 5 to 7 are windows of rounds 0, 1, 2
    found = cost.time_side_by_side(
        {"a": lambda: clock.work(0.5, foreign=0.5 if next(calls) == 6 else 0.0)},
        rounds=2,
        clock=clock,
    )["a"]
    assert [w.round for w in found.windows] == [0, 1, 2]
    assert list(found.by_round) == [0, 2]
    assert found.quiet
    assert found.to_dict()["rounds_used"] == [0, 2]


def test_never_quiet_says_so() -> None:
    clock = FakeClock()
    found = cost.time_side_by_side(
        {"a": lambda: clock.work(0.5, foreign=1.0)}, rounds=2, clock=clock
    )["a"]
    assert (len(found.windows), found.quiet) == (4, False)
    assert found.median == pytest.approx(0.5)
    assert not cost.ratio(found, found).quiet


def test_who_is_disturbed() -> None:
    quiet, foreign = windows(1.0, foreign=0.15), windows(1.0, foreign=0.3)
    starved, full = windows(1.0, own=1.5), windows(1.0, own=2.0)
    assert quiet_windows((*quiet, *foreign)) == quiet
    assert quiet_windows((*starved, *full)) == full
    assert quiet_windows(windows(1.0, foreign=None)) == windows(1.0, foreign=None)
    waiting = windows(1.0, own=0.01) + windows(1.0, own=0.2)
    assert quiet_windows(waiting) == waiting


def test_quartiles() -> None:
    assert quartiles([4.0]) == (4.0, 4.0, 4.0)
    assert quartiles([1, 2, 3, 4, 5]) == (2, 3, 4)
    seen = timing(*windows(5, 1, 4, 2, 3))
    assert (seen.median, seen.iqr, seen.best) == (3, 2, 1)


def test_ratio_without_a_common_quiet_round() -> None:
    first, second = windows(1.0, 1.0), windows(2.0, 2.0)
    noisy = windows(9.0, 9.0, foreign=1.0)
    a, b = timing(first[0], noisy[1]), timing(noisy[0], second[1])
    speed = cost.ratio(a, b)
    assert (speed.rounds, speed.quiet) == (2, False)


def test_threads_and_collector_are_set_back() -> None:
    before, clock, seen = torch.get_num_threads(), FakeClock(), []

    def job() -> None:
        seen.append((torch.get_num_threads(), gc.isenabled()))
        clock.work(1.0)

    found = cost.time_side_by_side({"a": job}, rounds=1, threads=1, clock=clock)
    assert set(seen[1:]) == {(1, False)}
    assert found["a"].threads == 1
    assert (torch.get_num_threads(), gc.isenabled()) == (before, True)


def test_threads_are_set_back_after_an_error() -> None:
    before = torch.get_num_threads()

    def fails() -> None:
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        cost.time_side_by_side({"a": fails}, threads=before + 1)
    assert torch.get_num_threads() == before


def test_wrong_wishes() -> None:
    with pytest.raises(UserError, match="at least one"):
        cost.time_side_by_side({})
    with pytest.raises(UserError, match="threads must be 1 or more, not -1"):
        cost.time_side_by_side({"a": lambda: None}, threads=-1)


def test_the_real_clock_on_real_work() -> None:
    a = torch.randn(64, 64)
    found = cost.time_side_by_side(
        {"one": lambda: a @ a, "many": lambda: [a @ a for _ in range(50)]},
        rounds=5,
        window_s=0.02,
        warmup_s=0.02,
    )
    assert cost.ratio(found["one"], found["many"]).median > 1
