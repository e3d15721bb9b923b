"""Values read from files, checked against the types they should have.

JSON and YAML give whatever stands in the file; here it becomes a dataclass, or an error that names
the file, the key and what was expected::

    facts = read_json(path, RunFacts)          # a dataclass
    rows = read_json(path, list[dict[str, float]])
"""

import json
import re
import reprlib
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from vitrail.digests import check_digest
from vitrail.errors import UserError, unknown

T = TypeVar("T")

MOST_BYTES = 2**28
"""No text file of Vitrail's is larger; a larger one is not read."""
_SURROGATE = re.compile(r"\\[uU](0000)?[dD][89a-fA-F]")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def read_text(path: str | Path, most: int = MOST_BYTES) -> str:
    """The text of a regular UTF-8 file of at most so many bytes.

    Raises:
        UserError: no such file, a folder, a special file, too large, or not UTF-8.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"cannot read {str(path)!r}: not a regular file")
        if path.stat().st_size > most:
            raise UserError(f"cannot read {str(path)!r}: larger than {most >> 20} MiB")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"cannot read {str(path)!r}: {error}") from error


def read_json(path: str | Path, kind: Any = Any) -> Any:
    """One JSON value of the type ``kind`` from a file; keys that ``kind`` lacks are passed over.

    Raises:
        UserError: see :func:`read_text`; not JSON, or of another shape.
    """
    return parse_json(read_text(path), kind, repr(str(path)))


def parse_json(text: str, kind: Any = Any, where: str = "JSON") -> Any:
    """One JSON value of the type ``kind``; ``where`` names the text in errors.

    Raises:
        UserError: not JSON, of another shape, or changed since it was written.
    """
    try:
        value = json.loads(text)
        refuse_half_characters(value, text, where)
        value = check_digest(value, where)
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"cannot read {where}: {error or type(error).__name__}") from error
    return convert(kind, value, where, extra_keys=True)


def refuse_half_characters(value: Any, text: str, where: str) -> None:
    """Refuse texts with half of a surrogate pair, which no file and no digest can take.

    Halves that stand for bytes of a file name that is not UTF-8 (U+DC80 to U+DCFF) are such names.

    Raises:
        UserError: ``text`` spells one, and ``value``, which was read from it, holds it.
    """
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise UserError(
                f"{where} holds a text that is none (half a character, "
                f"{ascii(error.object[error.start])})"
            ) from error


def build(cls: type[T], values: Any, where: str, *, extra_keys: bool = False) -> T:
    """The dataclass ``cls`` from a mapping; keys it lacks are refused unless ``extra_keys``.

    Raises:
        UserError: no mapping, an unknown or a missing key, a value of another type.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where} must be keys with values, not {_format_value(values)}")
    hints = get_type_hints(cls)
    own = {f.name: f for f in fields(cast(Any, cls)) if f.init}
    for key in values:
        if key not in own and not extra_keys:
            raise unknown(f"{where} key", str(key), own)
    missing = [
        name
        for name, f in own.items()
        if name not in values and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        raise UserError(f"{where} lacks {', '.join(map(repr, missing))}")
    ready = {
        key: convert(hints[key], value, f"{where}: {key}", extra_keys=extra_keys)
        for key, value in values.items()
        if key in own
    }
    return cls(**ready)


def convert(kind: Any, value: Any, where: str, *, extra_keys: bool = False) -> Any:
    """``value`` as ``kind``: lists become tuples, mappings dataclasses, integers floats.

    Raises:
        UserError: it is something else; the message says what was expected at ``where``.
    """
    if kind is Any:
        return value
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _convert_union(inner, value, where, extra_keys)
    if is_dataclass(kind):
        if isinstance(value, cast(Any, kind)):
            return value
        return build(cast(Any, kind), value, where, extra_keys=extra_keys)
    if origin is tuple and isinstance(value, list | tuple):
        return _convert_tuple(inner, value, where, extra_keys)
    if origin is list and isinstance(value, list):
        return [convert(inner[0], v, where, extra_keys=extra_keys) for v in value]
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        each = f"{where}: {{}}"
        return {
            convert(inner[0], k, f"{where}: a key"): convert(
                inner[1], v, each.format(k), extra_keys=extra_keys
            )
            for k, v in value.items()
        }
    if kind is float and isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return float(value)  # YAML 1.1 reads 1e-3 as a text
    if kind is float and type(value) in (int, float):
        return _as_float(value, where)
    if type(value) is int and value.bit_length() > 63:
        raise UserError(f"{where} is too large a number")
    if isinstance(kind, type) and type(value) is kind:
        return value
    raise UserError(f"{where} must be {_name(kind)}, not {_format_value(value)}")


def _convert_union(kinds: tuple[Any, ...], value: Any, where: str, extra_keys: bool) -> Any:
    if value is None and type(None) in kinds:
        return None
    some = [kind for kind in kinds if kind is not type(None)]
    for kind in some:
        try:
            return convert(kind, value, where, extra_keys=extra_keys)
        except UserError:
            if len(some) == 1 or (kind is some[-1] and isinstance(value, list | tuple | Mapping)):
                raise  # says which value inside it
    raise UserError(f"{where} must be {' or '.join(map(_name, some))}, not {_format_value(value)}")


def _convert_tuple(kinds: tuple[Any, ...], value: Any, where: str, extra_keys: bool) -> Any:
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(convert(kinds[0], v, where, extra_keys=extra_keys) for v in value)
    if len(value) != len(kinds):
        raise UserError(f"{where} must be {len(kinds)} values, not {len(value)}")
    pairs = zip(kinds, value, strict=True)
    return tuple(convert(kind, v, where, extra_keys=extra_keys) for kind, v in pairs)


def _as_float(value: float, where: str) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise UserError(f"{where} is too large a number") from error


def _name(kind: Any) -> str:
    """``kind`` in words for people."""
    origin = get_origin(kind)
    if origin in (list, tuple):
        return "a list"
    if origin in (dict, Mapping):
        return "keys with values"
    return "nothing" if kind is type(None) else getattr(kind, "__name__", str(kind))


def _format_value(value: Any) -> str:
    text = reprlib.repr(value)  # values may hold one another over and over
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:60] + '…'}"
