"""Ctrl-C and SIGTERM: finish the update, keep the run, say how to go on."""

import shlex
import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop, and did; the message says how to go on.

    A KeyboardInterrupt, so that nobody who catches errors goes on regardless.
    """


def how_to_resume(out: Path) -> str:
    """The command that goes on with a run."""
    return f"vitrail train --resume {shlex.quote(str(out))}"


class StopRequest:
    """Remembers that a signal came. The second one acts at once, as without us.

    Only the main thread of a process can listen; elsewhere nothing is changed.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}
