"""A forked process that tries one trial after another and says how each went.

A trial that hangs, crashes or eats the machine takes this process with it, not the harness.
"""

import contextlib
import faulthandler
import os
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

from benchmarks.faults import limits
from benchmarks.faults.stage import Stage
from benchmarks.faults.trial import Kind, Trial, chance_of
from benchmarks.faults.verdict import Fault, of_error

HARD_LIMIT = 8 << 30
"""Address space of a worker beyond what it holds at its start."""


@dataclass(frozen=True)
class Tried:
    """How one trial went; ``why`` is empty where all held."""

    kind: str
    index: int
    inputs: int
    why: str = ""
    detail: str = ""
    seconds: float = 0.0
    memory: int = 0
    saved: str = ""


@dataclass
class Worker:
    """The near end of a worker: its process and its pipe."""

    pid: int
    pipe: Connection

    def stack(self, stage: Stage) -> str:
        """Where it stands now, the innermost call last."""
        path = stage.root / f"stack-{self.pid}"
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGUSR1)
            time.sleep(0.5)
            return "\n".join(reversed(path.read_text().splitlines()))
        return ""

    def stop(self) -> None:
        """End it and what it started."""
        self.pipe.close()
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def start(kinds: Sequence[Kind], stage: Stage, seed: int) -> Worker:
    """Fork a worker; this process must have no threads."""
    ours, theirs = Pipe()
    pid = os.fork()
    if pid:
        theirs.close()
        return Worker(pid, ours)
    ours.close()
    try:
        prepare(stage)
        serve(theirs, {kind.name: kind for kind in kinds}, stage, seed)
    except (EOFError, OSError, KeyboardInterrupt):
        pass
    finally:
        os._exit(0)


def prepare(stage: Stage) -> None:
    """A session of its own; no core files; silent, as libraries have much to say of bad files."""
    os.setsid()
    limits.die_with_parent()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limits.bound_memory(HARD_LIMIT)
    stack = open(stage.root / f"stack-{os.getpid()}", "w")  # noqa: PTH123, SIM115 - for its life
    faulthandler.register(signal.SIGUSR1, stack, all_threads=False)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    os.close(nothing)


def serve(pipe: Connection, kinds: dict[str, Kind], stage: Stage, seed: int) -> None:
    """Try what the pipe asks for, ``(kind, index)``, until it closes."""
    while True:
        name, index = pipe.recv()
        pipe.send(attempt(kinds[name], index, stage, seed))


def attempt(kind: Kind, index: int, stage: Stage, seed: int) -> Tried:
    """One trial in a folder of its own, which stays only after a fault."""
    folder = Path(tempfile.mkdtemp(prefix=f"{kind.name}-{index}-", dir=stage.trials))
    trial = Trial(chance_of(seed, kind.name, index), folder, stage)
    fault: Fault | None = None
    os.chdir(folder)
    held = limits.forget_peak()
    began = time.perf_counter()
    try:
        kind.attempt(trial)
    except Fault as found:
        fault = found
    except Exception as error:
        fault = of_error(error)
    seconds, memory = time.perf_counter() - began, limits.peak_since(held)
    os.chdir(stage.root)
    if fault is None and memory > kind.memory:
        fault = Fault("memory", f"{memory >> 20} MB above the {held >> 20} MB held before")
    if stage.canary.exists():
        stage.canary.unlink(missing_ok=True)
        fault = Fault("code from an input was executed", fault.detail if fault else "")
    if fault is None:
        shutil.rmtree(folder, ignore_errors=True)
        return Tried(kind.name, index, trial.inputs, seconds=seconds, memory=memory)
    return Tried(
        kind.name, index, trial.inputs, fault.why, fault.detail, seconds, memory, str(folder)
    )
