"""Models, mixers and reducers of others: packages by their entry points, single files by name.

A package offers them in its ``pyproject.toml``; nothing is imported until a name is looked up::

    [project.entry-points."vitrail.models"]
    swirl = "swirl.model:Swirl"            # a Backbone; its module holds CONFIGS (and RENAMES)
    [project.entry-points."vitrail.mixers"]
    swirl = "swirl.mixer"                  # importing it registers its specs

A file is named by hand: ``vitrail ... --plugin my.py``, ``vitrail.plugins.use("my.py")``, or the
environment variable ``VITRAIL_PLUGINS`` (several, separated as in PATH). It is run once a process,
and child processes run it too. A run remembers the file: see :mod:`vitrail.hub.plugin_records`.
"""

import hashlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from vitrail import trust
from vitrail.errors import UserError
from vitrail.files import resolve_path

GROUPS = ("vitrail.models", "vitrail.mixers", "vitrail.reducers")
VARIABLE = "VITRAIL_PLUGINS"
FOLDER = "plugins"
"""Where a run folder keeps its copies."""
_PREFIX = "vitrail_plugin_"
CODE_FAILS = (Exception, SystemExit, GeneratorExit)
"""How the code of others may fail; only a person's own Ctrl-C is none of it."""


@cache
def load_group(group: str) -> dict[str, Any]:
    """What the entry points of one group name, loaded once; a broken one is left out, with a line.

    Importing a stranger's code can fail in any way, and must not keep a user from our own names.
    """
    loaded = {}
    for point in entry_points(group=group):
        try:
            loaded[point.name] = point.load()
        except CODE_FAILS as error:
            package = point.dist.name if point.dist else point.value
            warnings.warn(
                f"the plug-in {point.name!r} of {package} ({group}) is left out: "
                f"{error_summary(error)}; update {package}, or remove it",
                stacklevel=3,
            )
    return loaded


@dataclass(frozen=True)
class PluginSource:
    """The file of a plugin as it was run: what is recorded and copied is what was executed."""

    path: Path
    code: bytes

    @property
    def digest(self) -> str:
        """SHA-256 in hexadecimal."""
        return hashlib.sha256(self.code).hexdigest()


def use(file: str | Path) -> ModuleType:
    """Run a file of one's own, so that its mixers and reducers have their names, here and in
    child processes.

    Raises:
        UserError: no such file, or it fails.
    """
    path = resolve_path(file)
    refuse_separator(path)
    module = load_file(path)
    pass_to_children(path)
    return module


def use_trusted(digest: str) -> bool:
    """Run the file with this SHA-256 that the person trusted on this machine before, if any.

    Raises:
        UserError: it fails.
    """
    found = trust.find_trusted(digest)
    if found is None:
        return False
    path, code = found
    refuse_separator(path)
    run_source(PluginSource(path, code))
    pass_to_children(path)
    return True


def trust_plugin(module: ModuleType) -> Path | None:
    """Trust the file that a module was run from, from now on; the place of its copy, if new."""
    source: PluginSource = module.__plugin__
    return trust.trust(source.path.name, source.code)


def pass_to_children(path: Path) -> None:
    """Add the file to ``VITRAIL_PLUGINS``, so that child processes run it too."""
    named = [name for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]
    if str(path) not in named:
        os.environ[VARIABLE] = os.pathsep.join([*named, str(path)])


def refuse_separator(path: Path) -> None:
    """Child processes get paths as one text, as in PATH.

    Raises:
        UserError: this path could not be told apart in it.
    """
    if os.pathsep in str(path):
        raise UserError(
            f"the path of a plugin cannot hold {os.pathsep!r}, which stands between paths: "
            f"{str(path)!r}; move or rename it"
        )


def load_named() -> None:
    """Run the files that ``VITRAIL_PLUGINS`` names, each once.

    Raises:
        UserError: there is none of that name, or it fails: unlike a package it was asked for.
    """
    for name in os.environ.get(VARIABLE, "").split(os.pathsep):
        if name:
            load_file(resolve_path(name))


def load_file(path: Path) -> ModuleType:
    """Run a file once; the same contents again are the same module.

    Raises:
        UserError: no such file, or it fails: importing a user's code can fail in any way.
    """
    return run_source(PluginSource(path, trust.read_code(path)))


def run_source(source: PluginSource) -> ModuleType:
    """Execute these very bytes, unless they were executed before.

    Raises:
        UserError: not a Python file, or it fails.
    """
    name = _PREFIX + source.digest[:32]
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, source.path)
    if spec is None or source.path.suffix != ".py":
        raise UserError(f"a plugin is a Python file (.py), not {str(source.path)!r}")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    module.__plugin__ = source  # type: ignore[attr-defined]
    try:
        exec(compile(source.code, str(source.path), "exec"), module.__dict__)
    except CODE_FAILS as error:
        del sys.modules[name]
        raise UserError(f"the plugin {str(source.path)!r} fails: {error_summary(error)}") from error
    return module


def source_behind(kind: type) -> PluginSource | None:
    """The plugin that a class, or one it builds on, was written in; None for all others."""
    for base in kind.__mro__:
        if base.__module__.startswith(_PREFIX):
            source: PluginSource = sys.modules[base.__module__].__plugin__
            return source
    return None


def copy_plugins(records: Iterable[Mapping[str, Any]], folder: Path) -> None:
    """Write into a run's folder, for people to read, the plugins of its records that ran here.

    Only code that this process executed is written, never a file that a record names. Of two
    files of one name the second gets its digest into its name.
    """
    ran = [m.__plugin__ for n, m in list(sys.modules.items()) if n.startswith(_PREFIX)]
    wanted = {record["sha256"] for record in records}
    for source in ran:
        if source.digest in wanted:
            (folder / FOLDER).mkdir(exist_ok=True)
            plain, with_digest = copy_names(source.path.name, source.digest)
            taken = (folder / FOLDER / plain).exists()
            (folder / FOLDER / (with_digest if taken else plain)).write_bytes(source.code)


def copy_names(file: str, digest: str) -> tuple[str, str]:
    """What a plugin's copy in a run may be called: as the file was, else with its digest."""
    return file, f"{Path(file).stem[:200]}-{digest[:12]}.py"


def error_summary(error: BaseException) -> str:
    """An exception's first line, or its kind; of ``sys.exit(3)`` the number says nothing."""
    said = "" if isinstance(error, SystemExit) else str(error).strip()
    return (said or type(error).__name__).splitlines()[0]
