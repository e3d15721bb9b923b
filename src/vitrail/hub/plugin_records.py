"""Plug-in files that a run needs: what they were, and how they are found again.

A record ``{"file", "path", "sha256", "names"}`` travels in the card of the weights and in
``run.json``; the run folder keeps a copy under ``plugins/`` for people to read. Neither is ever
executed and no path in a record is ever followed: a plugin runs if the person names it now, or
has trusted a file with this SHA-256 on this machine before (see :mod:`vitrail.trust`).
"""

import re
import warnings
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrail.errors import UserError, printable, shell_path
from vitrail.hub.baselines import TIMM
from vitrail.plugins import FOLDER, PluginSource, copy_names, source_behind, use_trusted
from vitrail.schema import convert
from vitrail.specs import Spec, parse_call
from vitrail.trust import DIGEST, read_code

_NAME = re.compile(r"(mixer|reducer) [A-Za-z_]\w{0,999}")
_FILE = re.compile(r"[^/\\\x00]{1,255}\.py")


@dataclass(frozen=True, kw_only=True)
class PluginRecord:
    """What a run says of a plugin: its file's name and digest, and the names that it gives.

    ``path`` is where the file was; it is for people and is not read.
    """

    file: str
    sha256: str
    names: tuple[str, ...]
    path: str = ""

    def __post_init__(self) -> None:
        if not _FILE.fullmatch(self.file):
            raise UserError(f"the file of a plugin is a name such as my.py, not {self.file!r}")
        if not DIGEST.fullmatch(self.sha256):
            raise UserError(f"the sha256 of a plugin is 64 hexadecimal digits, not {self.sha256!r}")
        for name in self.names:
            if not _NAME.fullmatch(name):
                raise UserError(f"a plugin gives names such as 'mixer swirl', not {name!r}")


def card_extra(arm: str) -> dict[str, Any]:
    """What the card of a model says of the plugins it needs; nothing for one that needs none."""
    found = find_records(arm)
    return {"plugins": found} if found else {}


def find_records(arm: str) -> list[dict[str, Any]]:
    """The files in which the mixers and reducers of a model's text were written."""
    files: dict[PluginSource, set[str]] = {}
    for spec in specs_of(arm):
        source = source_behind(type(spec))
        if source is not None:
            files.setdefault(source, set()).add(f"{spec.kind} {spec.name}")
    return [
        {"file": s.path.name, "path": str(s.path), "sha256": s.digest, "names": sorted(names)}
        for s, names in files.items()
    ]


def specs_of(arm: str) -> list[Any]:
    """The mixers and reducers of a model's text, parsed; none of timm's models.

    Raises:
        UserError: no such model, mixer or reducer.
    """
    if arm.startswith(TIMM):
        return []
    from vitrail.mixers import MixerSpec
    from vitrail.models.zoo import configure
    from vitrail.reducers import ReducerSpec

    config = configure(arm)
    mixers = [MixerSpec.parse(text) for text in config.mixer if text != "native"]
    return [*mixers, *(ReducerSpec.parse(text) for text in config.reducer)]


def uses_plugins(arm: str) -> bool:
    """Whether the model, a mixer or a reducer of a model's text is not Vitrail's or timm's own.

    Raises:
        UserError: no such model, mixer or reducer.
    """
    if arm.startswith(TIMM):
        return False
    from vitrail.models.zoo import entry

    kinds = [entry(parse_call(arm)[0]).model, *map(type, specs_of(arm))]
    return any(kind.__module__.partition(".")[0] != "vitrail" for kind in kinds)


def read_records(found: Any, at: Path) -> tuple[PluginRecord, ...]:
    """Records as they stand in a file, held against their types.

    Raises:
        UserError: something else stands there.
    """
    where = f"{str(at)!r}: plugins"
    result: tuple[PluginRecord, ...] = convert(
        tuple[PluginRecord, ...], found, where, extra_keys=True
    )
    return result


def require_plugins(found: Any, at: Path) -> None:
    """See that what a run's records name is known, before its model is built.

    Args:
        found: the records, from a card's ``extra["plugins"]`` or ``run.json``.
        at: the run folder or weights file that they came with.

    Raises:
        UserError: a plugin that is neither named now nor trusted on this machine.
    """
    for record in read_records(found, at):
        if not are_registered(record.names) and not (
            use_trusted(record.sha256) and are_registered(record.names)
        ):
            raise untrusted_error(record, at)
        if not has_same_digest(record):
            warnings.warn(
                f"{', '.join(record.names)}: not the {printable(record.file)} that the run was "
                "made with",
                stacklevel=2,
            )


def untrusted_error(record: PluginRecord, at: Path) -> UserError:
    """The one line for a plugin that does not run by itself; it says where it can be looked at."""
    copy = find_copy(record, (at if at.is_dir() else at.parent) / FOLDER)
    where = f"look at {copy} and" if copy else "find that file, look at it and"
    return UserError(
        f"{str(at)!r} needs {', '.join(record.names)} of the plugin {record.file} (SHA-256 "
        f"{record.sha256}), which is not trusted on this machine; {where}, if you trust it, "
        f"say --plugin {shell_path(copy or record.file)}"
    )


def find_copy(record: PluginRecord, folder: Path) -> Path | None:
    """A run's copy of a plugin: a file with the record's digest, not only its name."""
    for name in copy_names(record.file, record.sha256):
        with suppress(UserError):
            if PluginSource(folder / name, read_code(folder / name)).digest == record.sha256:
                return folder / name
    return None


def has_same_digest(record: PluginRecord) -> bool:
    """Whether the names are given by a file with the record's digest."""
    behind = [source_behind(registered_class(name)) for name in record.names]
    return all(source is not None and source.digest == record.sha256 for source in behind)


def are_registered(names: Iterable[str]) -> bool:
    """Whether somebody gave all these names, ``"mixer swirl"``."""
    return all(text.split()[1] in registry(text.split()[0]) for text in names)


def registered_class(name: str) -> type:
    """The class behind ``"mixer swirl"``."""
    kind, word = name.split()
    return registry(kind)[word]


def registry(kind: str) -> dict[str, Any]:
    """All mixers or reducers by name."""
    from vitrail.mixers import MixerSpec
    from vitrail.reducers import ReducerSpec

    kinds: dict[str, type[Spec]] = {"mixer": MixerSpec, "reducer": ReducerSpec}
    return kinds[kind].registry()
