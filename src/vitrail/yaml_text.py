"""YAML that people write: values from a text or a file, or one sentence on what is wrong."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitrail.errors import UserError
from vitrail.schema import read_text, refuse_half_characters

MOST_BYTES = 2**20
"""No recipe and no plan is longer."""
MOST_VALUES = 100_000
"""Nor does one hold more values, aliases counted as often as they are used."""


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

    class Loader(yaml.SafeLoader):
        """One in which ``<<`` merges no more than a recipe can hold."""

        merged = 0

        def flatten_mapping(self, node: Any) -> None:
            for key, value in node.value:
                if key.tag == "tag:yaml.org,2002:merge":
                    some = value.value if isinstance(value, yaml.SequenceNode) else [value]
                    for one in (one for one in some if isinstance(one, yaml.MappingNode)):
                        self.flatten_mapping(one)
                        self.merged += len(one.value)
                        if self.merged > MOST_VALUES:
                            raise yaml.YAMLError(f"it merges more than {MOST_VALUES:,} values")
            super().flatten_mapping(node)

    try:
        found = yaml.load(text, Loader)  # noqa: S506
    except RecursionError as error:
        raise UserError(f"{where} is not YAML: nested too deep") from error
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, AttributeError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{where} is not YAML: {why or type(error).__name__}") from error
    refuse_endless_values(found, where)
    refuse_half_characters(found, text, where)
    return found


def refuse_endless_values(value: Any, where: str) -> None:
    """Refuse values that hold themselves, or a few aliases that stand for millions.

    Raises:
        UserError: there are such.
    """
    waiting, seen = [value], 0
    while waiting:
        one = waiting.pop()
        seen += 1
        if seen > MOST_VALUES:
            raise UserError(f"{where} holds more than {MOST_VALUES:,} values")
        if isinstance(one, dict):
            waiting.extend(one.values())
        elif isinstance(one, list | tuple | set):
            waiting.extend(one)


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes``, inner mappings merged too."""
    out = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merge(out[key], value) if both else value
    return out
