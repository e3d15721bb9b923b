"""What every command is: options typed as a dataclass, ``run`` that gives one answer."""

import json as jsonlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from tyro.conf import UseAppendAction, arg

UNSEEN = re.compile(
    "[\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff"
    "\ufff9-\ufffb]"
)
"""Control codes, what hides or turns the direction of text, and halves of surrogate pairs."""


@dataclass(frozen=True)
class Answer:
    """What a command found: ``data`` for programs, ``parts`` (texts and rich tables) for people.

    ``status`` is the exit status: 0, or 1 where the command itself found something broken.
    """

    data: Any
    parts: Sequence[Any] = ()
    status: int = 0


def metavar(metavar: str) -> Any:
    """An option whose help shows ``metavar`` and no default (its text says what happens)."""
    return arg(metavar=metavar, help_behavior_hint="")


FLAG = arg(help_behavior_hint="")
"""A switch: its help needs no default."""


@dataclass(kw_only=True)
class Command:
    """Base of all commands."""

    json: Annotated[bool, FLAG] = False
    """Print the result as JSON on stdout; everything else goes to stderr."""
    plugin: Annotated[UseAppendAction[tuple[str, ...]], metavar("FILE.py")] = ()
    """A file with mixers or reducers of your own, known by name from then on; may be repeated."""

    def run(self) -> Answer:
        """Do the work; raises UserError for wrong input."""
        raise NotImplementedError


def option(field_name: str) -> str:
    """``field_name`` as it is typed: ``out_folder`` -> ``--out-folder``."""
    return "--" + field_name.strip("_").replace("_", "-")


def as_json(data: Any, *, ascii_only: bool = False) -> str:
    """``data`` as JSON that every reader accepts: NaN and infinities become null.

    Halves of surrogate pairs, which stand for bytes in names that are no text, are escaped, and so
    is what a terminal would obey or hide: readers of JSON get it back as it was.
    """
    text = jsonlib.dumps(_jsonable(data), indent=2, allow_nan=False, ensure_ascii=ascii_only)
    return UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], left: int = 1) -> Any:
    """A table; the first ``left`` columns are text, the others figures."""
    from vitrail.console import make_table

    return make_table(columns, rows, left=left)
