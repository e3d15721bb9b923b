"""Errors for the user, and text from outside made safe to print."""

import difflib
import shlex
import unicodedata
from collections.abc import Iterable


class UserError(ValueError):
    """Wrong input: the message names the value and the remedy; the command line exits with 2."""


SHOWN = 16
"""Names that an error lists before it stops."""

_JOINERS = "\u200c\u200d"
"""Invisible, but scripts and emoji need them between letters."""
_FORMULAS = ("=", "+", "-", "@")
_HIDDEN = "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"
"""Letters and marks that draw nothing."""


def printable(text: object) -> str:
    """``text`` from outside (a name, a path, a message) as it can be shown safely on one line.

    Escape codes, line breaks, invisible characters, those that turn the direction of text and
    bytes that are no text become visible escapes such as ``\\x1b``; everything else stays.
    """
    line = str(text)
    if line.isascii() and line.isprintable():
        return line
    return "".join(c if _is_harmless(c) else _escape(c) for c in line)


def figure_text(text: object) -> str:
    """:func:`printable` for matplotlib, to which two ``$`` make a formula."""
    return printable(text).replace("$", r"\$")


def cell_text(value: object) -> object:
    """``value`` for a CSV cell: spreadsheets would run a text such as ``=cmd()`` as a formula.

    A text that begins so gets an apostrophe in front, which spreadsheets do not show; numbers stay.
    """
    if isinstance(value, str):
        line = printable(value)
        return f"'{line}" if line[:1] in _FORMULAS else line
    return value


def shell_word(text: object) -> str:
    """``text`` as a word for a shell, which takes it back as it is, and on one line.

    What :func:`printable` would escape stands as bytes in ``$'...'``, which bash, zsh and ksh know.
    """
    word = str(text)
    if printable(word) == word:
        return shlex.quote(word)
    return "$'" + "".join(map(_shell_letter, word)) + "'"


def shell_path(path: object) -> str:
    """:func:`shell_word` of a file or folder, which no command takes for an option."""
    word = str(path)
    return shell_word(f"./{word}" if word.startswith("-") else word)


def _shell_letter(character: str) -> str:
    if _is_harmless(character):
        return f"\\{character}" if character in "\\'" else character
    how = "surrogateescape" if 0xDC80 <= ord(character) <= 0xDCFF else "surrogatepass"
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", how))


def _is_harmless(character: str) -> bool:
    if character in _JOINERS:
        return True
    if character in _HIDDEN:
        return False
    kind = unicodedata.category(character)
    return kind[0] != "C" and kind not in ("Zl", "Zp")


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that Python could not decode in a file's name
        return f"\\x{code - 0xDC00:02x}"
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for an unknown name, with the closest known ones, or else some of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return UserError(f"no {kind} {name!r}; close: {', '.join(near)}")
    some = ", ".join(names[:SHOWN]) + (f", … ({len(names)} in all)" if len(names) > SHOWN else "")
    return UserError(f"no {kind} {name!r}; there are {some}" if names else f"no {kind} {name!r}")
