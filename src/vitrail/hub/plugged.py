"""Runs that need a user's own file: what it was, and how it is found again.

A record ``{"file", "path", "sha256", "names"}`` travels in the card of the weights and in
``run.json``; the run folder keeps a copy under ``plugins/``. Opening a run never executes what
came with it: the file is taken where it was when the run was made, if it is still the same, or
from where the user says.
"""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vitrail.errors import UserError
from vitrail.hub.build import TIMM
from vitrail.plugins import FOLDER, digest_of, file_behind, use
from vitrail.specs import Spec

Record = Mapping[str, Any]


def extra(arm: str) -> dict[str, Any]:
    """What the card of a model says of the plugins it needs; nothing for one that needs none."""
    found = records(arm)
    return {"plugins": found} if found else {}


def records(arm: str) -> list[dict[str, Any]]:
    """The files in which the mixers and reducers of a model's text were written."""
    if arm.startswith(TIMM):
        return []
    from vitrail.mixers import MixerSpec
    from vitrail.models.zoo import configure
    from vitrail.reducers import ReducerSpec

    config = configure(arm)
    named: list[tuple[Any, str]]
    named = [(MixerSpec, text) for text in config.mixer if text != "native"]
    named += [(ReducerSpec, text) for text in config.reducer]
    files: dict[Path, set[str]] = {}
    for kind, text in named:
        spec = kind.parse(text)
        path = file_behind(type(spec))
        if path is not None:
            files.setdefault(path, set()).add(f"{spec.kind} {spec.name}")
    return [
        {"file": p.name, "path": str(p), "sha256": digest_of(p), "names": sorted(names)}
        for p, names in files.items()
    ]


def recall(found: Iterable[Record], at: Path) -> None:
    """See that what a run's records name is known, before its model is built.

    Args:
        found: the records, from a card's ``extra["plugins"]`` or ``run.json``.
        at: the run folder or weights file that they came with.

    Raises:
        UserError: a file that is not where it was, or no longer what it was, and whose names
            nobody else gave.
    """
    for record in found:
        folder = at if at.is_dir() else at.parent
        path = Path(record["path"])
        if known(record["names"]):
            if not same(record, folder, loaded=True):
                warnings.warn(
                    f"{', '.join(record['names'])}: not the {record['file']} that the run was "
                    "made with",
                    stacklevel=2,
                )
            continue
        if not same(record, folder):
            copy = folder / FOLDER / record["file"]
            where = f"look at {copy} and" if copy.is_file() else "find that file, look at it and"
            raise UserError(
                f"{str(at)!r} needs {', '.join(record['names'])} of the plugin {record['file']}, "
                f"which is no longer at {path} as it was; {where}, if you trust it, "
                f"say --plugin {copy if copy.is_file() else record['file']}"
            )
        use(path)


def same(record: Record, folder: Path, loaded: bool = False) -> bool:
    """Whether the file is where it was and as it was; never one that came with the run.

    With ``loaded``: whether the names are given by a file with these contents.
    """
    if loaded:
        behind = [file_behind(type_of(name)) for name in record["names"]]
        return all(p is not None and digest_of(p) == record["sha256"] for p in behind)
    path = Path(record["path"])
    inside = path.resolve().is_relative_to(folder.resolve())
    there = path.is_absolute() and path.is_file() and not inside
    return there and digest_of(path) == record["sha256"]


def known(names: Iterable[str]) -> bool:
    """Whether somebody gave all these names, ``"mixer swirl"``."""
    return all(text.split()[1] in registry(text.split()[0]) for text in names)


def type_of(name: str) -> type:
    """The class behind ``"mixer swirl"``."""
    kind, word = name.split()
    return registry(kind)[word]


def registry(kind: str) -> dict[str, Any]:
    """All mixers or reducers by name."""
    from vitrail.mixers import MixerSpec
    from vitrail.reducers import ReducerSpec

    kinds: dict[str, type[Spec]] = {"mixer": MixerSpec, "reducer": ReducerSpec}
    return kinds[kind].registered()
