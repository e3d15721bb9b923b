"""Values from JSON or YAML, changed: right syntax, wrong shape."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

Steps = tuple[Any, ...]

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 10**3, 10**20, -(10**9), 0.5, -0.0, float("nan"), float("inf"),
    1e308, "", "x", "0", "-1", "nan", "../../etc/passwd", "/dev/zero", "/proc/self/environ",
    "[/red]",
    "\x1b[31mred", "a\nb", "\ud800", "ä" * 300, "vit_tiny", "vit_tiny(depth=100000)", "vit_tiny(",
    "timm:resnet18", [], {}, [[]], [None], {"": None}, [1, 2, 3], ["a", "a"], {"a": {"b": {}}},
)  # fmt: skip


def deep(levels: int) -> Any:
    """Lists in lists."""
    made: Any = []
    for _ in range(levels):
        made = [made]
    return made


def json_text(value: Any) -> str:
    """JSON of a value; of one too deep to be written, lists in lists."""
    try:
        return json.dumps(value)
    except RecursionError:
        return "[" * 5000 + "]" * 5000


def places(value: Any, above: Steps = ()) -> Iterator[Steps]:
    """The way to every value inside, the whole first."""
    yield above
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*above, key))
    elif isinstance(value, list):
        for i in range(min(len(value), 6)):
            yield from places(value[i], (*above, i))


def changed(value: Any, chance: random.Random) -> Any:
    """A copy with one to three changes."""
    made = copy.deepcopy(value)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        made = _change(made, chance.choice(list(places(made))), chance)
    if isinstance(made, dict) and made and chance.random() < 0.03:
        made[chance.choice(list(made))] = deep(chance.choice((50, 900, 5000)))
    return made


def _change(value: Any, where: Steps, chance: random.Random) -> Any:
    if not where:
        return _other(value, chance) if chance.random() < 0.3 else value
    holder = value
    for step in where[:-1]:
        holder = holder[step]
    key = where[-1]
    act = chance.random()
    if act < 0.15:
        del holder[key]
    elif act < 0.2 and isinstance(holder, dict):
        holder[chance.choice(("extra", "", "model", "plugins"))] = holder.pop(key)
    elif act < 0.25 and isinstance(holder, list):
        holder.extend([copy.deepcopy(holder[key])] * chance.choice((1, 100)))
    else:
        holder[key] = _other(holder[key], chance)
    return value


def _other(value: Any, chance: random.Random) -> Any:
    """Something else in the place of ``value``."""
    if isinstance(value, int | float) and not isinstance(value, bool) and chance.random() < 0.5:
        return chance.choice((-value, value + 1, value * 1000, value * 0.5, str(value), [value]))
    if isinstance(value, str) and chance.random() < 0.3:
        return chance.choice((value + "x", value[:-1], [value], {value: value}, value * 50))
    return copy.deepcopy(chance.choice(ODD))
