"""Signals that end a process: Ctrl-C, SIGTERM, and SIGHUP where a terminal is closed.

A command that is asked to end cleans up and says so in one line, whichever signal it was. A
signal that is ignored stays ignored (``nohup``).
"""

import _thread
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], None]
TERMINATIONS = tuple(getattr(signal, n) for n in ("SIGTERM", "SIGHUP") if hasattr(signal, n))
"""What would end a process without a word."""
MOMENT_S = 0.02
ALL = (signal.SIGINT, *TERMINATIONS)


class Terminated(KeyboardInterrupt):
    """A signal asked this process to end; handled as Ctrl-C is."""


def listen(handler: Handler, numbers: Sequence[int] = ALL) -> dict[int, Any]:
    """Let ``handler`` take signals; gives what took them before, for :func:`restore`.

    Only the main thread of a process can listen; elsewhere nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    taken = [n for n in numbers if signal.getsignal(n) is not signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in taken}


def restore(before: Mapping[int, Any]) -> None:
    """Undo :func:`listen`."""
    for number, handler in before.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


@dataclass
class Stopped:
    """Whether a signal has come, and how that is said; ``line`` is empty while none has."""

    line: str = ""


@contextlib.contextmanager
def raise_on_termination() -> Iterator[Stopped]:
    """SIGTERM and SIGHUP raise :class:`Terminated`, so that drafts are removed and children end.

    Ctrl-C raises KeyboardInterrupt, as ever. The second signal ends the process at once. What is
    given tells that one came: some libraries raise an error of their own in its place.
    """
    before: dict[int, Any] = {}
    stopped = Stopped()

    def end(number: int, frame: FrameType | None) -> None:
        restore(before)
        redirect_lost_terminal()
        by_hand = number == signal.SIGINT
        stopped.line = "stopped" if by_hand else f"stopped by {signal.Signals(number).name}"
        raise KeyboardInterrupt if by_hand else Terminated(stopped.line)

    before |= listen(end)
    try:
        with reraise_lost_interrupts():
            yield stopped
    finally:
        restore(before)


@contextlib.contextmanager
def reraise_lost_interrupts() -> Iterator[None]:
    """An interruption that falls into a callback of Python's own is raised a moment later.

    In the callback of a weak reference or a finaliser it would only be printed, and lost.
    """
    before = sys.unraisablehook
    timers: list[threading.Timer] = []

    def hook(lost: "sys.UnraisableHookArgs") -> None:
        if not isinstance(lost.exc_value, KeyboardInterrupt):
            before(lost)
            return
        timers.append(threading.Timer(MOMENT_S, interrupt_main))
        timers[-1].daemon = True
        timers[-1].start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
        for timer in timers:
            timer.cancel()


def interrupt_main() -> None:
    """Ctrl-C for the main thread; where the system can, it ends a wait of that thread too.

    Where Ctrl-C is ignored, SIGTERM, which by now ends the process at once.
    """
    number = signal.SIGINT
    if signal.getsignal(number) is signal.SIG_IGN:
        number = signal.SIGTERM
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, number)
    else:
        _thread.interrupt_main(number)


def redirect_lost_terminal() -> None:
    """Where the terminal is gone, output goes nowhere: an error of a print must not end us."""
    for output in (1, 2):
        try:
            os.write(output, b"")
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, output)
            os.close(nowhere)
