"""What counts as held: an answer or one clear line; anything else is a :class:`Fault`."""

import json
import re
import traceback
from dataclasses import dataclass
from typing import Any

HELD = (0, 1, 2)
"""Exit statuses of a command that nobody stopped."""
STOPPED = 130

_HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_TRACE = re.compile(r'Traceback \(most recent call last\)|^ +File ".+", line \d+', re.MULTILINE)
_OURS = re.compile(r"^vitrail: ", re.MULTILINE)


class Fault(Exception):
    """A promise that was not kept: ``why`` in a few words, ``detail`` to find it by."""

    def __init__(self, why: str, detail: str = "") -> None:
        super().__init__(why)
        self.why, self.detail = why, detail


@dataclass(frozen=True)
class Said:
    """What a command said, and its exit status (None: a traceback ended it)."""

    words: tuple[str, ...]
    status: int | None
    out: str
    err: str

    def json(self) -> Any:
        """The answer of a command with ``--json``.

        Raises:
            Fault: stdout holds something else.
        """
        try:
            return json.loads(self.out)
        except ValueError as error:
            raise Fault("stdout is not JSON", f"{self.words}: {self.out[:300]!r}") from error

    def tail(self) -> str:
        """The command and its last lines, to show with a fault."""
        return f"{' '.join(self.words)!r} -> {self.status}\n{self.out[-600:]}{self.err[-1500:]}"


def judge(said: Said, allowed: tuple[int, ...] = HELD, *, alone: bool = False) -> Said:
    """``said`` itself, if it is how a command may end.

    A refusal (2, 130) ends with one line that begins with our name; with ``alone`` it is the only
    line of stderr.

    Raises:
        Fault: a traceback, another exit status, no line, control characters.
    """
    shown = said.out + said.err
    if _TRACE.search(shown) or said.status is None:
        last = next((x for x in reversed(said.err.splitlines()) if x.strip()), "")
        raise Fault(f"traceback: {last[:160]}", said.tail())
    if said.status not in allowed:
        raise Fault(f"exit status {said.status}", said.tail())
    if found := _HARMFUL.search(shown):
        raise Fault(f"control character {found[0]!r} shown", said.tail())
    lines = said.err.splitlines()
    if said.status in (2, STOPPED):
        if not lines or not lines[-1].startswith("vitrail: "):
            raise Fault("refused without a line of ours at the end", said.tail())
        if alone and len(lines) > 1:
            raise Fault("refused with more than one line", said.tail())
    return said


def of_error(error: BaseException) -> Fault:
    """The fault that an unexpected error is: named by where in Vitrail it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/vitrail/" in f.filename]
    where = f"{ours[-1].filename.rsplit('/vitrail/')[-1]}:{ours[-1].name}" if ours else "harness"
    text = " ".join(str(error).split())[:120]
    lines = traceback.format_exception(error)
    return Fault(f"{type(error).__name__} in {where}: {text}", "".join(lines)[-2500:])
