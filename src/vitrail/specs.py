"""Names that people type, and what they stand for.

A *spec* is a frozen, keyword-only dataclass with a registered name. It is written as a call::

    MixerSpec.parse("conv_attention(windows=(3, 5))")  <->  str(ConvAttention(windows=(3, 5)))

The text is read with ``ast.literal_eval``; nothing in it is ever run. A *place* says where in a
backbone the thing will stand, so that a spec can build what fits, or say why it cannot.
"""

import ast
from collections.abc import Mapping
from dataclasses import KW_ONLY, Field, dataclass, fields
from typing import Any, ClassVar, Self, get_type_hints

from vitrail.errors import UserError
from vitrail.layers.grid import Grid
from vitrail.limits import MOST
from vitrail.plugins import load_group, load_named
from vitrail.schema import convert


@dataclass(frozen=True)
class Place:
    """Where in a backbone a mixer or a reducer stands.

    ``grid`` is the grid the model was built for (other sizes come at run time), ``extra`` counts
    class tokens in front of the grid's tokens, ``scattered`` says that the working tokens no
    longer lie on a grid (a reducer chose or clustered them), ``padded`` that some of them may be
    empty (pictures of a batch differ in how many they have), ``index`` is the number of the
    block in its stage (for what alternates by blocks), ``name`` is used in messages only.
    """

    _: KW_ONLY
    dim: int
    heads: int
    grid: Grid
    extra: int = 0
    scattered: bool = False
    padded: bool = False
    index: int = 0
    name: str = "here"

    @property
    def tokens(self) -> int:
        """``N``: class tokens and grid tokens together."""
        return self.extra + self.grid[0] * self.grid[1]


LONGEST = 10_000
"""Characters of a text that names a model."""


class SpecError(UserError):
    """A name, an option or a place that cannot be; the message says what to do instead."""


@dataclass(frozen=True)
class Spec:
    """Base of mixer and reducer specs: a registered name, call-like text, equality by value.

    Attributes:
        old_names: names it had in earlier versions; they are read, and written as ``name``.
        old_options: likewise its options' old names, with today's.
    """

    name: ClassVar[str] = ""
    old_names: ClassVar[tuple[str, ...]] = ()
    old_options: ClassVar[Mapping[str, str]] = {}
    kind: ClassVar[str] = "spec"
    known: ClassVar[dict[str, type["Spec"]]] = {}

    def __init_subclass__(
        cls, name: str = "", old_names: tuple[str, ...] = (), **options: Any
    ) -> None:
        super().__init_subclass__(**options)
        if not name:
            return
        for word in (name, *old_names):
            if cls.current_name(word) in cls.known:
                raise SpecError(f"two {cls.kind}s are called {word!r}; rename one")
        cls.name, cls.old_names = name, old_names
        cls.known[name] = cls

    def __str__(self) -> str:
        changed = [
            f"{f.name}={getattr(self, f.name)!r}"
            for f in self.options()
            if getattr(self, f.name) != f.default
        ]
        return f"{self.name}({', '.join(changed)})" if changed else self.name

    @classmethod
    def options(cls) -> list[Field[Any]]:
        """What may be said of it: its own options first, then those that all of its kind have."""
        kind = next(c for c in cls.__mro__ if "known" in vars(c))
        common = {f.name for f in fields(kind)}
        return sorted(fields(cls), key=lambda f: f.name in common)

    def refuse(self, place: Place, why: str, remedy: str) -> SpecError:
        """The error for a place this spec cannot serve."""
        return SpecError(
            f"{self.kind} {str(self)!r} cannot serve {place.name} "
            f"(dim {place.dim}, heads {place.heads}, grid {place.grid[0]}x{place.grid[1]}, "
            f"class tokens {place.extra}): {why}; {remedy}"
        )

    @classmethod
    def current_name(cls, name: str) -> str:
        """Today's name of a spec that may be given by an old one; other names as they are."""
        return next((new for new, spec in cls.known.items() if name in spec.old_names), name)

    @classmethod
    def with_current_name(cls, text: str) -> str:
        """``"old(option=1)"`` -> ``"new(option=1)"``; any other text as it is."""
        name, bracket, options = text.partition("(")
        return cls.current_name(name.strip()) + bracket + options if name.strip() else text

    @classmethod
    def registry(cls) -> dict[str, type["Spec"]]:
        """All specs of this kind, those of others included (see :mod:`vitrail.plugins`)."""
        load_group(f"vitrail.{cls.kind}s")
        load_named()
        return cls.known

    @classmethod
    def parse(cls, text: "str | Self") -> Self:
        """Read ``"name(option=value)"``; a spec passes through.

        Raises:
            SpecError: unknown name or option, or text that is not a call with literal values.
        """
        if isinstance(text, cls):
            return text
        name, options = parse_call(str(text))
        name = cls.current_name(name)
        if name not in cls.known and name not in cls.registry():
            raise SpecError(
                f"no {cls.kind} {name!r}; there are {', '.join(sorted(cls.known))} "
                "(one of your own: --plugin FILE.py)"
            )
        chosen = cls.known[name]
        for old, new in chosen.old_options.items():
            if old in options and new in options:
                raise SpecError(f"{text!r} gives {new!r} twice: {old!r} is its old name")
        options = {chosen.old_options.get(option, option): v for option, v in options.items()}
        allowed = [f.name for f in chosen.options()]
        for option in options:
            if option not in allowed:
                has = f"it takes {', '.join(allowed)}" if allowed else "it takes none"
                raise SpecError(f"{cls.kind} {name!r} has no option {option!r}; {has}")
        return chosen(**chosen.check_options(options))  # type: ignore[return-value]

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """``options`` as the types of the fields, no number beyond all sense.

        Raises:
            SpecError: another type, or such a number.
        """
        hints = get_type_hints(cls)
        try:
            ready = {
                name: convert(hints[name], value, f"{cls.kind} {cls.name!r}: {name}")
                for name, value in options.items()
            }
        except UserError as error:
            raise SpecError(str(error)) from error
        for name, value in ready.items():
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, int | float) and not -MOST <= number <= MOST:
                    raise SpecError(f"{cls.kind} {cls.name!r}: {name} is at most {MOST:,}")
        return ready


def parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """``"name(a=1)"`` -> ``("name", {"a": 1})``.

    Raises:
        SpecError: the text is not a name or a call with keyword literals.
    """
    wanted = f"{text!r} is not of the form name or name(option=value)"
    if len(text) > LONGEST:
        raise SpecError(f"a text of {len(text)} characters names no model, mixer or reducer")
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise SpecError(wanted) from error
    if isinstance(call, ast.Name):
        return call.id, {}
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise SpecError(wanted)
    if call.args or any(k.arg is None for k in call.keywords):
        raise SpecError(wanted)
    names = [str(k.arg) for k in call.keywords]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SpecError(f"{text!r} gives {twice!r} twice")
    try:
        return call.func.id, {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (ValueError, TypeError, MemoryError, RecursionError) as error:
        raise SpecError(f"{wanted}; values must be numbers, texts or tuples") from error


def print_call(name: str, options: Mapping[str, Any]) -> str:
    """The inverse of :func:`parse_call`."""
    inside = ", ".join(f"{k}={v!r}" for k, v in options.items())
    return f"{name}({inside})" if inside else name
