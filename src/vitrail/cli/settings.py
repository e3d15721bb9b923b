"""Recipe settings as they are typed: ``--set lr=0.001 augment.flip=0.5``"""

from collections.abc import Sequence
from typing import Any

from vitrail.errors import UserError
from vitrail.yaml_text import merge, parse_yaml

DEEPEST = 8
"""Points in the longest key there is, and some."""


def changes_of(texts: Sequence[str]) -> dict[str, Any]:
    """``["lr=0.001", "augment.flip=0.5"]`` as nested values, read as YAML reads them.

    Raises:
        UserError: a text that is not KEY=VALUE, or a value that is not YAML.
    """
    changes: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f"--set takes KEY=VALUE, such as lr=0.001, not {text!r}")
        if key.count(".") > DEEPEST:
            raise UserError(f"--set {key[:40]}…: no setting lies so deep")
        read = parse_yaml(value, f"--set {key}")
        for name in reversed(key.split(".")):
            read = {name: read}
        changes = merge(changes, read)
    return changes
