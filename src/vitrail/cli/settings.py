"""Recipe settings as they are typed: ``--set lr=0.001 augment.flip=0.5`` and YAML files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vitrail.errors import UserError


def changes_of(texts: Sequence[str]) -> dict[str, Any]:
    """``["lr=0.001", "augment.flip=0.5"]`` as nested values, read as YAML reads them.

    Raises:
        UserError: a text that is not KEY=VALUE, or a value that is not YAML.
    """
    import yaml

    changes: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f"--set takes KEY=VALUE, such as lr=0.001, not {text!r}")
        try:
            read = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"--set {key}: cannot read {value!r}") from error
        for name in reversed(key.split(".")):
            read = {name: read}
        changes = merged(changes, read)
    return changes


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes``, inner mappings merged too."""
    out = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merged(out[key], value) if both else value
    return out


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a YAML file.

    Raises:
        UserError: no such file, not YAML, or no settings in it.
    """
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read recipe {str(path)!r}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"recipe {str(path)!r} is not YAML: {why}") from error
    if not isinstance(found, dict):
        raise UserError(f"recipe {str(path)!r} must be lines of 'key: value'")
    return found
