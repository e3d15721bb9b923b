"""Disks that fill up, and a shared memory that is too small: one line, and it goes on after."""

import ctypes
import ctypes.util
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.faults import children, limits
from benchmarks.faults.kinds.victims import LIMIT_S, MINE, VICTIMS, Victim, lay_out
from benchmarks.faults.trial import Kind, Trial
from benchmarks.faults.verdict import Fault, judge

CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
SHM = "/dev/shm"
ROOM = 256 << 20
"""Bytes of a disk with plenty of room."""


def full(trial: Trial, victim: Victim) -> None:
    """The disk fills up somewhere in the command; with room again, the next command succeeds."""
    _, _ = victim.undisturbed(trial.stage)
    most = needed(trial, victim)
    size = trial.chance.randint(8 << 10, max(16 << 10, most))
    if limits.is_root() and trial.chance.random() < 0.7:
        with disk_of_its_own(trial.folder / "disk") as (disk, resize):
            place = lay_out(disk / "work")
            victim.prepare(trial.stage, place / victim.out)
            resize(used(disk) + size)
            write(trial, victim, place, lambda: None)
            resize(ROOM)
            victim.goes_on(trial.stage, place)
    else:
        place = lay_out(trial.folder / "work")
        victim.prepare(trial.stage, place / victim.out)
        write(trial, victim, place, partial(bound_files, size))
        victim.goes_on(trial.stage, place)


def write(trial: Trial, victim: Victim, place: Path, before: Callable[[], None]) -> None:
    """The command where it has no room: done, or one line that says so."""
    said = judge(
        children.spawn(victim.words(trial.stage, place / victim.out), place, before).told(LIMIT_S)
    )
    if said.status and not said.err.rstrip().splitlines()[-1:]:
        raise Fault("no line on a full disk", said.tail())


def needed(trial: Trial, victim: Victim) -> int:
    """Bytes that the undisturbed command writes, about; found out once."""
    note = f"size-{victim.name}"
    if not (trial.stage.root / f"{note}.json").exists():
        place = lay_out(trial.folder / "measured")
        victim.prepare(trial.stage, place / victim.out)
        children.finish(victim.words(trial.stage, place / victim.out), place, LIMIT_S)
        sizes = [p.stat().st_size + 4096 for p in place.rglob("*") if p.is_file()]
        trial.stage.write_note(note, sum(sizes))
    found: int = trial.stage.note(note)
    return int(found * 1.2) + 4096 * 2 * len(MINE)


def bound_files(size: int) -> None:
    """No file of this process grows beyond ``size``."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@contextmanager
def disk_of_its_own(place: Path) -> Iterator[tuple[Path, Callable[[int], None]]]:
    """A file system with plenty of room, and a call that gives it so many bytes in all."""
    place.mkdir()
    mount("-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(place))
    try:
        yield place, lambda size: mount("-o", f"remount,size={size}", str(place))
    finally:
        os.chdir("/")
        subprocess.run(["umount", "-l", str(place)], check=False, capture_output=True)


def used(place: Path) -> int:
    """Bytes that are taken on its file system."""
    found = os.statvfs(place)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def mount(*words: str) -> None:
    """Run mount."""
    subprocess.run(["mount", *words], check=True, capture_output=True)


def small_memory(trial: Trial) -> None:
    """A training whose workers find next to no shared memory, as in a container."""
    victim = next(v for v in VICTIMS if v.name == "train-workers")
    place = lay_out(trial.folder / "work")
    size = trial.chance.choice((4096, 65536, 1 << 20))
    child = children.spawn(
        victim.words(trial.stage, place / "out"), place, partial(own_shared_memory, size)
    )
    judge(child.told(LIMIT_S))
    victim.goes_on(trial.stage, place)


def own_shared_memory(size: int) -> None:
    """``/dev/shm`` of ``size`` bytes, for this process and its children alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    libc.mount(b"tmpfs", SHM.encode(), b"tmpfs", 0, f"size={size}".encode())


def only_root() -> str:
    """Why not, for what needs root."""
    return "" if limits.is_root() else "it needs root"


KINDS = (
    *(
        Kind(
            name=f"full-{victim.name}", about="the disk fills up, then there is room again",
            machine=True, attempt=partial(full, victim=victim), needs=victim.needs, weight=0.5,
            seconds=200,
        )
        for victim in VICTIMS
        if victim.name != "train-workers"
    ),
    Kind(
        name="small-shm", about="workers without shared memory", machine=True,
        attempt=small_memory, weight=0.3, seconds=200, ready=only_root,
    ),
)  # fmt: skip
