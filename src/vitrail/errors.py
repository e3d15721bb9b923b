"""What went wrong, said to the person who can mend it."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Wrong input: the message names the value and the remedy; the command line exits with 2."""


SHOWN = 16
"""Names that an error lists before it stops."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that nothing has: it answers with the close ones, else with a few."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return UserError(f"no {kind} {name!r}; close: {', '.join(near)}")
    some = ", ".join(names[:SHOWN]) + (f", … ({len(names)} in all)" if len(names) > SHOWN else "")
    return UserError(f"no {kind} {name!r}; there are {some}" if names else f"no {kind} {name!r}")
