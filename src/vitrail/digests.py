"""Digests inside the files that Vitrail writes: a flipped bit is an error, not another answer.

JSON objects hold the SHA-256 of all else in them under one more key, YAML texts on a last comment
line. Files without one (of older versions, or written by hand) are taken as they are.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from vitrail.errors import UserError

KEY = "content_sha256"
_LINE = f"# {KEY}: "


def add_digest(content: Mapping[str, Any]) -> dict[str, Any]:
    """``content`` with its digest, as the last key."""
    bare = {key: value for key, value in content.items() if key != KEY}
    return {**bare, KEY: _digest(json.dumps(json.loads(json.dumps(bare)), sort_keys=True))}


def check_digest(value: Any, where: str) -> Any:
    """A JSON value without its digest, which must fit; values that have none as they are.

    Raises:
        UserError: it says something else than when it was written.
    """
    if not isinstance(value, dict) or KEY not in value:
        return value
    promised = value.pop(KEY)
    if promised != _digest(json.dumps(value, sort_keys=True)):
        raise _mismatch_error(where, f"take {KEY!r} out of it")
    return value


def add_text_digest(text: str) -> str:
    """``text`` with a last line, a comment, that holds its digest."""
    return f"{text}{_LINE}{_digest(text)}\n"


def check_text_digest(text: str, where: str) -> None:
    """Hold a text against its last line, if that is a digest.

    Raises:
        UserError: it says something else than when it was written.
    """
    body, mark, promised = text.rpartition(_LINE)
    if mark and promised.strip() != _digest(body):
        raise _mismatch_error(where, "delete its last line")


def _mismatch_error(where: str, way: str) -> UserError:
    return UserError(
        f"{where} is damaged or was changed by hand: its content is not what was written (SHA-256 "
        f"differs); take it from a copy, or, if the change is yours, {way}"
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
