"""YAML that people write: values from a text or a file, or one sentence on what is wrong."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from vitrail.errors import UserError, printable
from vitrail.schema import read_text, refuse_half_characters

MOST_BYTES = 2**20
"""No recipe and no plan is longer."""
MOST_VALUES = 100_000
"""Nor does one hold more values, aliases counted as often as they are used."""
MOST_BITS = 1024
"""Of a whole number; Python cannot write down one of many more."""
MERGE = "tag:yaml.org,2002:merge"


def read_yaml(path: str | Path, what: str = "file") -> dict[str, Any]:
    """The keys and values of a YAML file; ``what`` it is stands in errors.

    Raises:
        UserError: no such file, a folder, a picture, not YAML, or no keys in it.
    """
    where = f"{what} {str(path)!r}"
    try:
        text = read_text(path, MOST_BYTES)
    except UserError as error:
        raise UserError(f"cannot read {where}: {str(error).partition(': ')[2]}") from error
    found = parse_yaml(text, where)
    if not isinstance(found, dict | None):
        raise UserError(f"{where} must be lines of 'key: value'")
    return found or {}


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text; no code in it is run.

    Raises:
        UserError: it is none, or holds too much.
    """
    import yaml

    try:
        found = yaml.load(text, strict_loader())  # noqa: S506 - a SafeLoader
    except RecursionError as error:
        raise UserError(f"{where} is not YAML: nested too deep") from error
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, AttributeError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{where} is not YAML: {why or type(error).__name__}") from error
    refuse_endless_values(found, where)
    refuse_half_characters(found, text, where)
    return found


@cache
def strict_loader() -> Any:
    """PyYAML's safe loader, where a key stands once and ``<<`` merges what a recipe can hold."""
    import yaml

    class Loader(yaml.SafeLoader):
        def __init__(self, text: str) -> None:
            super().__init__(text)
            self.merged = 0
            self.seen: set[int] = set()

        def flatten_mapping(self, node: Any) -> None:
            if id(node) in self.seen:  # also where a mapping merges itself
                return
            self.seen.add(id(node))
            own: set[tuple[str, str]] = set()
            for key, value in node.value:
                if key.tag == MERGE:
                    self.count_merged(value)
                elif isinstance(key, yaml.ScalarNode):
                    if (key.tag, key.value) in own:
                        raise yaml.YAMLError(
                            f"{printable(key.value)[:80]!r} stands there twice, the second time in "
                            f"line {key.start_mark.line + 1}"
                        )
                    own.add((key.tag, key.value))
            super().flatten_mapping(node)

        def count_merged(self, value: Any) -> None:
            some = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for one in (one for one in some if isinstance(one, yaml.MappingNode)):
                self.flatten_mapping(one)
                self.merged += len(one.value)
                if self.merged > MOST_VALUES:
                    raise yaml.YAMLError(f"it merges more than {MOST_VALUES:,} values")

    return Loader


def refuse_endless_values(value: Any, where: str) -> None:
    """Refuse values that hold themselves, a few aliases that stand for millions, endless numbers.

    Raises:
        UserError: there are such.
    """
    waiting, seen = [value], 0
    while waiting:
        one = waiting.pop()
        seen += 1
        if seen > MOST_VALUES:
            raise UserError(f"{where} holds more than {MOST_VALUES:,} values")
        if isinstance(one, int) and one.bit_length() > MOST_BITS:
            raise UserError(f"{where} holds a number of more than {MOST_BITS} bits")
        if isinstance(one, dict):
            waiting.extend(one.values())
            waiting.extend(key for key in one if isinstance(key, int))
        elif isinstance(one, list | tuple | set):
            waiting.extend(one)


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes``, inner mappings merged too."""
    out = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merge(out[key], value) if both else value
    return out
