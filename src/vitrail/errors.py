"""What went wrong, said to the person who can mend it."""

import difflib
import re
from collections.abc import Iterable


class UserError(ValueError):
    """Wrong input: the message names the value and the remedy; the command line exits with 2."""


SHOWN = 16
"""Names that an error lists before it stops."""

_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff"
    "\ud800-\udfff\ufff9-\ufffb]"
)
"""Control characters, invisible ones, those that turn the direction of text, lone surrogates."""


def printable(text: object) -> str:
    """``text`` from outside (a name, a path, a message) as it can be shown safely on one line.

    Escape codes, line breaks, invisible characters and bytes that are no text become visible
    escapes such as ``\\x1b``; everything else stays as it is.
    """
    return _UNSAFE.sub(lambda found: _escape(found[0]), str(text))


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that Python could not decode in a file's name
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that nothing has: it answers with the close ones, else with a few."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return UserError(f"no {kind} {name!r}; close: {', '.join(near)}")
    some = ", ".join(names[:SHOWN]) + (f", … ({len(names)} in all)" if len(names) > SHOWN else "")
    return UserError(f"no {kind} {name!r}; there are {some}" if names else f"no {kind} {name!r}")
