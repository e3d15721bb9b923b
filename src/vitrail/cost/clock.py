"""Clock readings: wall time, CPU time of this process, and CPU time of the whole machine.

The two CPU readings tell a quiet window from one in which another process took the cores. The
clock is an object so that tests can put a false one in its place.
"""

import os
import time
from pathlib import Path
from typing import NamedTuple, Protocol

import torch


class ClockReading(NamedTuple):
    """Seconds since some start: wall, CPU of this process and of the children it has waited for,
    CPU of the machine (if known).
    """

    wall: float
    own: float
    busy: float | None


class Clock(Protocol):
    """The source of readings."""

    def start(self) -> ClockReading:
        """Read at the head of a window, after all queued device work is done."""
        ...

    def stop(self) -> ClockReading:
        """Read at its end, after all queued device work is done."""
        ...


class SystemClock:
    """The real one. The machine's CPU time comes from ``/proc/stat`` and is unknown elsewhere."""

    def start(self) -> ClockReading:
        """The wall clock is read last, so that reading the others is not in the window."""
        synchronise()
        busy, own = machine_busy(), own_cpu()
        return ClockReading(wall=time.perf_counter(), own=own, busy=busy)

    def stop(self) -> ClockReading:
        """The wall clock is read first, for the same reason."""
        synchronise()
        wall = time.perf_counter()
        return ClockReading(wall=wall, own=own_cpu(), busy=machine_busy())


def own_cpu() -> float:
    """CPU seconds of this process, all threads, and of its finished children."""
    spent = os.times()
    return time.process_time() + spent.children_user + spent.children_system


def synchronise() -> None:
    """Wait for the GPU, where one is in use."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def machine_busy(stat: Path = Path("/proc/stat")) -> float | None:
    """CPU seconds that all processes of the machine have used since it started.

    Time stolen by a hypervisor's other guests is in it; idling and waiting for disks are not.
    """
    if not stat.exists():
        return None
    with stat.open() as lines:
        user, nice, system, _idle, _iowait, irq, softirq, steal = (
            int(field) for field in lines.readline().split()[1:9]
        )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
