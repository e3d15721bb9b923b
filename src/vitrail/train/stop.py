"""Ctrl-C, SIGTERM and SIGHUP: finish the update, keep the run, say how to go on."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from vitrail.console import is_rank_zero
from vitrail.errors import UserError, printable, shell_path
from vitrail.signals import listen, redirect_lost_terminal, restore

LOST = re.compile(r"gloo.*(Connection|Socket|[Tt]imed out|Read error)|NCCL|ncclRemoteError", re.S)
"""How torch's two ways between processes say that the other end is gone."""


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop, and did; the message says how to go on.

    A KeyboardInterrupt, so that nobody who catches errors goes on regardless.
    """


def resume_command(out: Path) -> str:
    """The command that goes on with a run."""
    return f"vitrail train --resume {shell_path(out)}"


def lost_worker_error(error: Exception, out: Path, step: int) -> UserError:
    """The one line for a training that a dead worker ended.

    A process that is not the first says it at once: the first does not know of it.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    kept = "its last checkpoint" if several else f"step {step}"
    found = UserError(
        f"{error}; the run is kept ({kept}), go on with: {resume_command(out)} "
        "--set workers=0 (slower; changes no result)"
    )
    if not is_rank_zero() and sys.stderr is not None:
        print(f"vitrail: {printable(found)}", file=sys.stderr, flush=True)
    return found


@contextlib.contextmanager
def explain_lost_process(out: Path) -> Iterator[None]:
    """What the others' network says where a process of a training is gone, in one line.

    Raises:
        UserError: instead of torch's error.
    """
    try:
        yield
    except RuntimeError as error:
        if not LOST.search(str(error)):
            raise
        raise UserError(
            "another process of this training has ended (its own line or the system's says why); "
            f"the run is kept (its last checkpoint), go on with as many processes: "
            f"{resume_command(out)}"
        ) from error


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
