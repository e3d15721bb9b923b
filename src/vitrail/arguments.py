"""Arguments of the functions that people call: as their annotations say, or one line.

A value of a kind that nobody foresaw would fail somewhere deep, in words about our own code.
Libraries that check annotations (typeguard, beartype) hold NumPy's numbers for no ``int`` and its
arrays for no ``Sequence``, which people give all the time.
"""

import operator
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache, wraps
from inspect import Parameter, signature
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from vitrail.errors import UserError, printable

P = ParamSpec("P")
R = TypeVar("R")

WORDS: Mapping[Any, str] = {
    str: "a text",
    Path: "a path",
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    type(None): "None",
}
SHOWN = (str, bytes, int, float, complex, type(None))
"""Kinds whose values an error shows; of others the name of the kind says more."""
LONGEST = 60


def check_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """The function; what it is called with must be what its annotations say.

    Values that it gathers with ``*`` and ``**`` are its own to check. Annotations are read at the
    first call, and kinds that cannot be told at run time are let through.

    Raises:
        UserError: (at a call) an argument of another kind.
    """
    plan = signature(function)
    gathered = (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)

    @cache
    def kinds() -> dict[str, Any]:
        hints = get_type_hints(function)
        return {n: hints[n] for n, p in plan.parameters.items() if p.kind not in gathered}

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        given = plan.bind(*args, **kwargs).arguments
        for name, kind in kinds().items():
            if name in given and not fits(kind, given[name]):
                wanted, found = describe_kind(kind), describe_value(given[name])
                raise UserError(f"{function.__name__}: {name} must be {wanted}, not {found}")
        return function(*args, **kwargs)

    return checked


def fits(kind: Any, value: Any) -> bool:
    """Whether ``value`` is of an annotation's kind; numbers may be of any library's."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(fits(one, value) for one in inner)
    if origin is Literal:
        return any(type(value) is type(one) for one in inner)
    if kind in (int, float):
        return not isinstance(value, bool) and (is_whole(value) or fits_float(kind, value))
    if kind is bool:
        return isinstance(value, int) or type(value).__name__.startswith("bool")
    if kind is Path:
        return isinstance(value, PathLike)
    kind = origin or kind
    if not isinstance(kind, type):
        return True
    if issubclass(kind, Mapping) or not issubclass(kind, Collection) or not inner:
        return fits_class(kind, value)
    return fits_many(inner, value)


def fits_float(kind: Any, value: Any) -> bool:
    """Whether a float is asked for and ``value`` is a number."""
    return kind is float and isinstance(value, Real)


def is_whole(value: Any) -> bool:
    """Whether a value stands for a whole number, as arrays of one do too."""
    try:
        operator.index(value)
    except (TypeError, RuntimeError):
        return False
    return True


def fits_class(kind: type, value: Any) -> bool:
    """Whether ``value`` is an instance, as far as the class lets that be asked."""
    try:
        return isinstance(value, kind)
    except TypeError:  # a protocol that is none at run time
        return True


def fits_many(inner: tuple[Any, ...], value: Any) -> bool:
    """Whether ``value`` is many of the kinds: a list, a tuple, an array; what yields is let be."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Collection):
        return isinstance(value, Iterator)
    if len(inner) == 2 and inner[1] is not Ellipsis:
        return len(value) == 2 and all(map(fits, inner, value))
    return all(fits(inner[0], one) for one in value)


def describe_kind(kind: Any) -> str:
    """A kind, for people."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        names = list(dict.fromkeys(describe_kind(one) for one in inner))
        return ", ".join(names[:-1]) + f" or {names[-1]}"
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if kind in WORDS:
        return WORDS[kind]
    kind = origin or kind
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return "keys with values"
    if isinstance(kind, type) and issubclass(kind, Collection) and inner:
        return f"a list (each {describe_kind(inner[0])})"
    return "something to call" if kind is Callable else getattr(kind, "__name__", str(kind))


def describe_value(value: Any) -> str:
    """A value in an error: its kind, and itself where that is short."""
    if value is None or not isinstance(value, SHOWN):
        return type(value).__name__
    text = printable(repr(value))
    return f"{type(value).__name__} {text if len(text) <= LONGEST else text[:LONGEST] + '…'}"
