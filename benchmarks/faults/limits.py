"""Limits for a process of trials: memory measured and bounded, children that end with it."""

import ctypes
import os
import resource
import signal
from pathlib import Path

SELF = Path("/proc/self")
PR_SET_PDEATHSIG = 1


def bound_memory(extra: int) -> None:
    """No more than ``extra`` bytes of address space beyond what this process has now."""
    now = _field("VmSize")
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + extra, hard))


def forget_peak() -> int:
    """Begin to measure the peak of memory; what the process holds now."""
    (SELF / "clear_refs").write_text("5")
    return _field("VmRSS")


def peak_since(before: int) -> int:
    """The largest memory above ``before`` since :func:`forget_peak`."""
    return max(0, _field("VmHWM") - before)


def _field(name: str) -> int:
    for line in (SELF / "status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")


def processor_seconds(pid: int) -> float:
    """Processor time that a process has had until now."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def die_with_parent() -> None:
    """The system kills this process when its parent ends, however that ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def alive(group: int) -> bool:
    """Whether a process of ``group`` still runs (the dead who wait for their parent do not)."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] not in "ZX":
            return True
    return False


def is_root() -> bool:
    """Whether file systems can be mounted here."""
    return os.geteuid() == 0
