"""Models, mixers and reducers of others: packages by their entry points, single files by name.

A package offers them in its ``pyproject.toml``; nothing is imported until a name is looked up::

    [project.entry-points."vitrail.models"]
    swirl = "swirl.model:Swirl"            # a Backbone; its module holds CONFIGS (and RENAMES)
    [project.entry-points."vitrail.mixers"]
    swirl = "swirl.mixer"                  # importing it registers its specs

A file is named by hand: ``vitrail ... --plugin my.py``, ``vitrail.plugins.use("my.py")``, or the
environment variable ``VITRAIL_PLUGINS`` (several, separated as in PATH). It is run once a process,
and child processes run it too. A run remembers the file: see :mod:`vitrail.hub.plugged`.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from vitrail.errors import UserError

GROUPS = ("vitrail.models", "vitrail.mixers", "vitrail.reducers")
VARIABLE = "VITRAIL_PLUGINS"
FOLDER = "plugins"
"""Where a run folder keeps its copies."""
_PREFIX = "vitrail_plugin_"


@cache
def load_group(group: str) -> dict[str, Any]:
    """What the entry points of one group name, loaded once; a broken one is left out, with a line.

    Importing a stranger's code can fail in any way, and must not keep a user from our own names.
    """
    loaded = {}
    for point in entry_points(group=group):
        try:
            loaded[point.name] = point.load()
        except Exception as error:
            package = point.dist.name if point.dist else point.value
            warnings.warn(
                f"the plug-in {point.name!r} of {package} ({group}) is left out: {gist(error)}; "
                f"update {package}, or remove it",
                stacklevel=3,
            )
    return loaded


def use(file: str | Path) -> ModuleType:
    """Run a file of one's own, so that its mixers and reducers have their names, here and in
    child processes.

    Raises:
        UserError: no such file, or it fails.
    """
    path = Path(file).resolve()
    module = load_file(path)
    named = [name for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]
    if str(path) not in named:
        os.environ[VARIABLE] = os.pathsep.join([*named, str(path)])
    return module


def load_named() -> None:
    """Run the files that ``VITRAIL_PLUGINS`` names, each once.

    Raises:
        UserError: there is none of that name, or it fails: unlike a package it was asked for.
    """
    for name in os.environ.get(VARIABLE, "").split(os.pathsep):
        if name:
            load_file(Path(name).resolve())


def load_file(path: Path) -> ModuleType:
    """Run a file once; the same contents again are the same module.

    Raises:
        UserError: no such file, or it fails: importing a user's code can fail in any way.
    """
    name = module_name(path)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"a plugin is a Python file (.py), not {str(path)!r}")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"the plugin {str(path)!r} fails: {gist(error)}") from error
    return module


def module_name(path: Path) -> str:
    """The name under which a file's module is known: by its contents, wherever it lies."""
    stem = re.sub(r"\W", "_", path.stem)
    return f"{_PREFIX}{stem}_{digest_of(path)[:12]}"


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"no plugin {str(path)!r}: {error.strerror or error}") from error


def file_behind(kind: type) -> Path | None:
    """The plugin file that a class, or one it builds on, was written in; None for all others."""
    for base in kind.__mro__:
        if base.__module__.startswith(_PREFIX):
            return Path(str(sys.modules[base.__module__].__file__))
    return None


def keep(records: Iterable[Mapping[str, str]], folder: Path) -> None:
    """Copy the files that a run's records name into its folder, to be read there by people."""
    for record in records:
        if Path(record["path"]).is_file():
            (folder / FOLDER).mkdir(exist_ok=True)
            shutil.copyfile(record["path"], folder / FOLDER / record["file"])


def gist(error: Exception) -> str:
    """An exception's first line, or its kind."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
