"""Ctrl-C, SIGTERM and SIGHUP: finish the update, keep the run, say how to go on."""

import shlex
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from vitrail.errors import UserError
from vitrail.signals import listen, redirect_lost_terminal, restore


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop, and did; the message says how to go on.

    A KeyboardInterrupt, so that nobody who catches errors goes on regardless.
    """


def resume_command(out: Path) -> str:
    """The command that goes on with a run."""
    return f"vitrail train --resume {shlex.quote(str(out))}"


def lost_worker_error(error: Exception, out: Path, step: int) -> UserError:
    """The one line for a training that a dead worker ended."""
    return UserError(
        f"{error}; the run is kept (step {step}), go on with: {resume_command(out)} "
        "--set workers=0 (slower; changes no result)"
    )


class StopRequest:
    """Notes that a signal came; a second one acts at once, by the handler of before.

    Only the main thread of a process can listen; elsewhere nothing is changed.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        self._before = listen(self._note)
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
        redirect_lost_terminal()
        self._restore()

    def _restore(self) -> None:
        restore(self._before)
        self._before = {}
