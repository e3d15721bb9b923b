"""Where the bytes of pictures lie: a folder, or a zip that is read in place.

Both list their files once, note what cannot be listed, and hand out bytes by name. Both are
safe to pickle and to use in many threads and processes.
"""

import os
import stat
import zipfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from vitrail.data.decode import PictureError
from vitrail.data.items import Problem
from vitrail.errors import UserError

#: A zip member that claims to be larger than this is refused unread.
MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class Listing:
    """All visible files and folders, as sorted relative names with ``/``."""

    files: tuple[str, ...]
    folders: tuple[str, ...]
    problems: tuple[Problem, ...] = ()


class Files(Protocol):
    """A place with named files."""

    @property
    def root(self) -> str:
        """The place as the user named it."""
        ...

    def listing(self) -> Listing:
        """Everything in it that is not hidden."""
        ...

    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            PictureError: when they cannot be had.
        """
        ...


@dataclass(frozen=True)
class Folder:
    """A folder on disk. Links are followed, except back into a folder above."""

    root: str

    def listing(self) -> Listing:
        """Walk the folder."""
        found = _Found([], [], [])
        top = Path(self.root).stat()
        _walk(self.root, "", ((top.st_dev, top.st_ino),), found)
        return Listing(tuple(sorted(found.files)), tuple(sorted(found.folders)), (*found.problems,))

    def read(self, name: str) -> bytes:
        """The bytes of one file, regular files only."""
        path = os.path.join(self.root, name)  # noqa: PTH118 (an absolute name stays itself)
        try:
            with open(path, "rb") as file:  # noqa: PTH123
                return file.read()
        except FileNotFoundError as error:
            raise PictureError("there is no such file", "missing") from error
        except OSError as error:
            raise PictureError(f"cannot be read ({error.strerror})", "unreadable") from error


@dataclass
class _Found:
    files: list[str]
    folders: list[str]
    problems: list[Problem]

    def note(self, kind: str, where: str, line: str) -> None:
        self.problems.append(Problem(kind, where, f"{where}: {line}"))


def _walk(path: str, inside: str, above: tuple[tuple[int, int], ...], found: _Found) -> None:
    try:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError as error:
        line = f"the folder cannot be read ({error.strerror}); left out"
        found.note("unreadable-folder", inside or ".", line)
        return
    for entry in entries:
        name = f"{inside}/{entry.name}" if inside else entry.name
        if not _is_text(entry.name):
            found.note("unsafe-name", name, "the name is not UTF-8; rename it; left out")
        elif not entry.name.startswith("."):
            _visit(entry, name, above, found)


def _is_text(name: str) -> bool:
    """Whether a name can be written down: undecodable bytes come as lone surrogates."""
    return name.isascii() or not any("\ud800" <= c <= "\udfff" for c in name)


def _visit(
    entry: "os.DirEntry[str]", name: str, above: tuple[tuple[int, int], ...], found: _Found
) -> None:
    try:
        status = entry.stat()
    except OSError:
        found.note("link-to-nothing", name, "a link that leads nowhere; left out")
        return
    here = (status.st_dev, status.st_ino)
    if stat.S_ISREG(status.st_mode):
        found.files.append(name)
    elif stat.S_ISDIR(status.st_mode) and here in above:
        found.note("link-loop", name, "a link back to a folder above it; not followed")
    elif stat.S_ISDIR(status.st_mode):
        found.folders.append(name)
        _walk(entry.path, name, (*above, here), found)


@dataclass(frozen=True)
class Archive:
    """A zip file. Nothing is unzipped; every process opens its own handle, once."""

    root: str
    _handles: dict[int, zipfile.ZipFile] = field(default_factory=dict, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root}

    def __setstate__(self, state: dict[str, Any]) -> None:
        object.__setattr__(self, "root", state["root"])
        object.__setattr__(self, "_handles", {})

    def listing(self) -> Listing:
        """Read the zip's table of contents.

        Raises:
            UserError: not a zip file, or a damaged one.
        """
        files: set[str] = set()
        folders: set[str] = set()
        problems = []
        for info in self._zip().infolist():
            name = info.filename
            if _unsafe(name):
                line = f"{name}: an absolute name or one with '..' in a zip; left out"
                problems.append(Problem("unsafe-name", name, line))
            elif not _hidden(name):
                (folders if info.is_dir() else files).add(name.rstrip("/"))
        for name in files | folders:
            folders.update(str(p) for p in PurePosixPath(name).parents if str(p) != ".")
        return Listing(tuple(sorted(files)), tuple(sorted(folders)), tuple(problems))

    def read(self, name: str) -> bytes:
        """The bytes of one member; the zip's own checksum is verified."""
        try:
            info = self._zip().getinfo(name)
            if info.file_size > MAX_BYTES:
                raise PictureError(f"{info.file_size:,} bytes are too many", "too-large")
            return self._zip().read(info)
        except KeyError as error:
            raise PictureError("there is no such file in the zip", "missing") from error
        except RuntimeError as error:  # zipfile's way to ask for a password
            raise PictureError("locked with a password; unzip it first", "locked") from error
        except (OSError, EOFError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise PictureError(f"damaged inside the zip ({error})", "broken") from error

    def _zip(self) -> zipfile.ZipFile:
        process = os.getpid()
        if process not in self._handles:
            try:
                self._handles[process] = zipfile.ZipFile(self.root)
            except (zipfile.BadZipFile, OSError) as error:
                raise UserError(
                    f"{self.root} is not a zip file that can be read ({error}); "
                    "download or pack it again"
                ) from error
        return self._handles[process]


def _unsafe(name: str) -> bool:
    path = name.replace("\\", "/")
    return path.startswith("/") or path[1:2] == ":" or ".." in path.split("/")


def _hidden(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def open_files(path: Path) -> Folder | Archive:
    """The folder or zip at ``path``."""
    return Folder(str(path)) if path.is_dir() else Archive(str(path))
