"""Every command that writes, broken off at a random moment: kill, signals, a worker's death."""

import os
import random
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.faults import children
from benchmarks.faults.children import Child
from benchmarks.faults.kinds.victims import LIMIT_S, VICTIMS, Victim, lay_out
from benchmarks.faults.trial import Kind, Trial
from benchmarks.faults.verdict import HELD, STOPPED, judge

GRACE_S = 120.0
"""Until a command that was asked to end has ended: seconds, but a machine may be busy."""
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def broken_off(trial: Trial, victim: Victim, do: Callable[[Child, random.Random], None]) -> None:
    """Begin the command, do something to it at a random moment; it must go on afterwards."""
    seconds, _ = victim.undisturbed(trial.stage)
    place = lay_out(trial.folder / "work")
    victim.prepare(trial.stage, place / victim.out)
    breaks = trial.chance.choice((1, 1, 2, 3))
    for _ in range(breaks):
        words = victim.again(trial.stage, place / victim.out)
        if not words:
            break
        child = children.spawn(words, place)
        if child.end(trial.chance.uniform(0, seconds * 1.1)) is None:
            do(child, trial.chance)
        child.no_orphans()
    victim.goes_on(trial.stage, place)


def kill(child: Child, chance: random.Random) -> None:
    """SIGKILL: the process alone, or with all that it started."""
    child.send(signal.SIGKILL, everyone=chance.random() < 0.5)
    child.end(GRACE_S)


def stop(child: Child, chance: random.Random) -> None:
    """Ctrl-C, a system that shuts down, a terminal that closes: it ends soon and says so."""
    number = chance.choice(STOPS)
    child.send(number, everyone=number != signal.SIGTERM)
    judge(child.told(GRACE_S), (*HELD, STOPPED))


def kill_worker(child: Child, chance: random.Random) -> None:
    """One of the processes that read pictures dies (the system was short of memory)."""
    workers = [pid for pid in members(child.pid) if pid != child.pid]
    if workers:
        try:
            os.kill(chance.choice(workers), signal.SIGKILL)
        except ProcessLookupError:
            return
    judge(child.told(LIMIT_S))


def members(group: int) -> list[int]:
    """The processes of a group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] not in "ZX":
            found.append(int(stat.parent.name))
    return sorted(found)


def kinds() -> list[Kind]:
    """Kills and stops of every victim; the death of workers where there are some."""
    made = []
    for victim in VICTIMS:
        needs = victim.needs
        weight = {"train": 3.0, "study": 2.0}.get(victim.name, 1.0)
        attempt = partial(broken_off, victim=victim, do=kill)
        made.append(_kind(f"kill-{victim.name}", "SIGKILL, then go on", attempt, needs, weight))
        attempt = partial(broken_off, victim=victim, do=stop)
        made.append(_kind(f"stop-{victim.name}", "Ctrl-C, SIGTERM, SIGHUP", attempt, needs, 0.5))
    workers = next(victim for victim in VICTIMS if victim.name == "train-workers")
    attempt = partial(broken_off, victim=workers, do=kill_worker)
    return [*made, _kind("kill-a-worker", "a process that reads dies", attempt, (), 1.0)]


def _kind(
    name: str, about: str, attempt: Callable[[Trial], None], needs: tuple[str, ...], weight: float
) -> Kind:
    return Kind(
        name=name, about=about, attempt=attempt, needs=needs, machine=True, weight=weight,
        seconds=200,
    )  # fmt: skip


KINDS = tuple(kinds())
