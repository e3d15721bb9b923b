"""Commands in processes of their own, forked from one that has imported everything already."""

import contextlib
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.faults import limits
from benchmarks.faults.capture import read, run
from benchmarks.faults.verdict import Fault, Said

TRACEBACK = 99
"""The exit status of a child whose command ended in a traceback."""


@dataclass(frozen=True)
class Child:
    """A command that runs, the leader of its process group."""

    pid: int
    words: tuple[str, ...]
    out: IO[bytes]
    err: IO[bytes]
    began: float

    def send(self, number: int, *, everyone: bool = True) -> None:
        """A signal for the command, and for all processes that it started."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if everyone else os.kill)(self.pid, number)

    def end(self, seconds: float) -> int | None:
        """The exit status if it ends within ``seconds`` (minus the signal that ended it)."""
        until = time.monotonic() + seconds
        while True:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > until:
                return None
            time.sleep(0.003)

    def said(self, status: int | None) -> Said:
        """What it said until now."""
        out, err = read(self.out), read(self.err)
        return Said(self.words, None if status == TRACEBACK else status, out, err)

    def kill(self) -> None:
        """End it and all that it started."""
        self.send(signal.SIGKILL)
        self.end(10)

    def told(self, seconds: float) -> Said:
        """Wait for its end.

        Raises:
            Fault: it takes longer, or leaves processes behind.
        """
        status = self.end(seconds)
        if status is None:
            self.kill()
            raise Fault(f"no end within {seconds:g} s", self.said(None).tail())
        self.no_orphans()
        return self.said(status)

    def no_orphans(self, seconds: float = 60.0) -> None:
        """Nothing that it started outlives it for long: torch's workers look every 5 seconds.

        Raises:
            Fault: something does.
        """
        until = time.monotonic() + seconds
        while limits.alive(self.pid):
            if time.monotonic() > until:
                self.send(signal.SIGKILL)
                raise Fault("processes were left running", " ".join(self.words))
            time.sleep(0.05)


def spawn(
    words: Sequence[str | Path], cwd: Path, before: Callable[[], None] = lambda: None
) -> Child:
    """Start ``vitrail WORDS`` in ``cwd``; ``before`` runs in the child first.

    Gives back once the command itself begins.
    """
    texts = tuple(str(word) for word in words)
    out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - the child's
    seen, ready = os.pipe()
    pid = os.fork()
    if pid:
        os.close(ready)
        os.read(seen, 1)
        os.close(seen)
        return Child(pid, texts, out, err, time.monotonic())
    try:
        os.close(seen)
        _become(cwd, out, err)
        before()
        status = run(lambda: _main(list(texts), ready))
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except BaseException:
        status = None
    os._exit(TRACEBACK if status is None else status)


def _main(words: list[str], ready: int) -> int:
    from vitrail.cli import main

    os.write(ready, b"1")
    os.close(ready)
    return main(words)


def _become(cwd: Path, out: IO[bytes], err: IO[bytes]) -> None:
    """This process as a shell would start it: its own group, files as its output."""
    os.setpgid(0, 0)
    limits.die_with_parent()
    for stop in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.chdir(cwd)
    for file, number in ((out, 1), (err, 2)):
        os.dup2(file.fileno(), number)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: PTH123, SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: PTH123, SIM115


def finish(words: Sequence[str | Path], cwd: Path, seconds: float = 600) -> Said:
    """Run a command to its end, in a process of its own."""
    return spawn(words, cwd).told(seconds)


def now() -> float:
    """The clock of ``Child.began``."""
    return time.monotonic()
