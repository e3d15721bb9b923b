"""Where the bytes of images lie: a folder, or a zip that is read in place.

Both list their files once, by the same rules, note what cannot be listed, and hand out bytes by
name. Both are safe to pickle and to use in many threads and processes.
"""

import contextlib
import errno
import os
import stat
import zipfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

from vitrail.data import limits
from vitrail.data.decode import ImageError
from vitrail.data.items import Problem, normalize_nfc
from vitrail.errors import UserError

#: Folders that programs make for themselves (macOS, Synology, Windows, version control of SVN).
SPECIAL_FOLDERS = frozenset(
    ("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "cvs")
)


_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


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

    def size(self, name: str) -> int:
        """The bytes of one file; 0 where that is not known."""
        ...

    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            ImageError: when they cannot be had.
        """
        ...


def is_hidden(name: str) -> bool:
    """Whether any part of a relative name is passed over in silence."""
    parts = PurePosixPath(name).parts
    return any(part.startswith(".") or part.lower() in SPECIAL_FOLDERS for part in parts)


def read_regular(path: str | Path) -> bytes:
    """The bytes of a regular file; a pipe or a device is never read.

    Raises:
        ImageError: no such file, not a regular one, larger than ``MAX_BYTES``, or unreadable.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
            raise ImageError(_not_regular(path), "unreadable")
        # Between the two looks somebody may put a pipe there: never wait for its other end.
        handle = os.open(path, _FLAGS)
        with open(handle, "rb") as file:  # noqa: PTH123
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise ImageError(_not_regular(path), "unreadable")
            _check_bytes(status.st_size)
            data = file.read(limits.MAX_BYTES + 1)
            _check_bytes(len(data))
            return data
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError("there is no such file", "missing") from error
    except OSError as error:
        kind = "missing" if error.errno == errno.ENAMETOOLONG else "unreadable"
        raise ImageError(f"cannot be read ({error.strerror or error})", kind) from error
    except ValueError as error:  # a NUL character in the name
        if isinstance(error, ImageError):
            raise
        raise ImageError("there is no such file", "missing") from error


def _not_regular(path: str | Path) -> str:
    if os.path.isdir(path):  # noqa: PTH112
        return "cannot be read (Is a directory)"
    return "cannot be read (a pipe, a socket or a device, not a regular file)"


def _check_bytes(number: int) -> None:
    if number > limits.MAX_BYTES:
        line = f"{number:,} bytes are too many (at most {limits.MAX_BYTES:,})"
        raise ImageError(line, "too-large")


# ---- a folder -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Folder:
    """A folder on disk. Links are followed, except back into a folder above."""

    root: str

    def listing(self) -> Listing:
        """Walk the folder."""
        walk = _FolderWalk([], [], [], Counter())
        top = Path(self.root).stat()
        walk.folder(self.root, "", ((top.st_dev, top.st_ino),))
        return Listing(tuple(sorted(walk.files)), tuple(sorted(walk.folders)), (*walk.problems,))

    def size(self, name: str) -> int:
        """The bytes of a file."""
        try:
            return os.stat(self._path(name)).st_size  # noqa: PTH116
        except (OSError, ValueError):
            return 0

    def read(self, name: str) -> bytes:
        """The bytes of one file, regular files only."""
        return read_regular(self._path(name))

    def _path(self, name: str) -> str:
        return os.path.join(self.root, name)  # noqa: PTH118 (an absolute name stays itself)


@dataclass
class _FolderWalk:
    """A walk through a folder: what was found, and how often each folder was come by."""

    files: list[str]
    folders: list[str]
    problems: list[Problem]
    visits: Counter[tuple[int, int]]

    def folder(self, path: str, inside: str, above: tuple[tuple[int, int], ...]) -> None:
        """List one folder; ``above`` are the folders on the way to it."""
        try:
            with os.scandir(path) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            line = f"the folder cannot be read ({error.strerror}); left out"
            self._note("unreadable-folder", inside or ".", line)
            return
        for entry in entries:
            name = f"{inside}/{entry.name}" if inside else entry.name
            if not _is_text(entry.name):
                self._note("unsafe-name", name, "the name is not UTF-8; rename it; left out")
            elif not is_hidden(entry.name):
                self._visit(entry, name, above)

    def _visit(
        self, entry: "os.DirEntry[str]", name: str, above: tuple[tuple[int, int], ...]
    ) -> None:
        try:
            status = entry.stat()
        except OSError as error:
            line = "a link that leads nowhere; left out"
            if error.errno == errno.ELOOP:
                line = "a link that leads to itself; left out"
            self._note("link-to-nothing", name, line)
            return
        here = (status.st_dev, status.st_ino)
        if stat.S_ISREG(status.st_mode):
            self.files.append(name)
        elif not stat.S_ISDIR(status.st_mode):
            self._note("unreadable", name, "a pipe, a socket or a device; left out unopened")
        elif here in above:
            self._note("link-loop", name, "a link back to a folder above it; not followed")
        elif len(above) > limits.MAX_DEPTH:
            line = f"more than {limits.MAX_DEPTH} folders inside each other; left out"
            self._note("unreadable-folder", name, line)
        elif self.visits[here] >= limits.MAX_VISITS:
            line = f"links lead to this folder more than {limits.MAX_VISITS} times; not followed"
            self._note("link-loop", name, line)
        else:
            self.visits[here] += 1
            self.folders.append(name)
            self.folder(entry.path, name, (*above, here))

    def _note(self, kind: str, where: str, line: str) -> None:
        self.problems.append(Problem(kind, where, f"{where}: {line}"))


def _is_text(name: str) -> bool:
    """Whether a name can be written down: undecodable bytes come as lone surrogates."""
    return name.isascii() or not any("\ud800" <= c <= "\udfff" for c in name)


# ---- a zip --------------------------------------------------------------------------------------


class _OpenZip(NamedTuple):
    """A zip's handle, and its members by the names that we use."""

    handle: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]


@dataclass(frozen=True)
class Archive:
    """A zip file. Nothing is unzipped; every process opens its own handle, once."""

    root: str
    _opened: dict[int, _OpenZip] = field(default_factory=dict, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root}

    def __setstate__(self, state: dict[str, Any]) -> None:
        object.__setattr__(self, "root", state["root"])
        object.__setattr__(self, "_opened", {})

    def listing(self) -> Listing:
        """Read the zip's table of contents.

        Raises:
            UserError: not a zip file, or a damaged one.
        """
        files: set[str] = set()
        folders: set[str] = set()
        problems = []
        for info in self._open().handle.infolist():
            name = _name_of(info)
            if reason := _unsafe(name):
                problems.append(Problem("unsafe-name", name, f"{name}: {reason}; left out"))
            elif is_hidden(name):
                continue
            elif name.endswith("/"):
                folders.add(name.rstrip("/"))
            elif name in files:
                line = f"{name}: twice in the zip; the last one counts"
                problems.append(Problem("repeated-name", name, line))
            else:
                files.add(name)
        for name in files | folders:
            folders.update(_folders_above(name, folders))
        return Listing(tuple(sorted(files)), tuple(sorted(folders)), tuple(problems))

    def size(self, name: str) -> int:
        """What a member says to unpack to."""
        info = self._open().members.get(name)
        return 0 if info is None else info.file_size

    def read(self, name: str) -> bytes:
        """The bytes of one member; the zip's own checksum is verified."""
        handle, members = self._open()
        info = members.get(name)
        if info is None:
            raise ImageError("there is no such file in the zip", "missing")
        if info.flag_bits & 0x41:
            raise ImageError("locked with a password; unzip it first", "locked")
        _check_bytes(info.file_size)
        if info.file_size > max(limits.FREE_BYTES, limits.UNPACKED_RATIO * info.compress_size):
            line = f"{info.compress_size:,} bytes that unpack to {info.file_size:,}"
            raise ImageError(f"{line}, refused as a decompression bomb", "too-large")
        try:
            return handle.read(info)
        except Exception as error:  # whatever zipfile and the decompressors raise on damage
            raise ImageError(f"damaged inside the zip ({_one_line(error)})", "broken") from error

    def _open(self) -> _OpenZip:
        process = os.getpid()
        if process not in self._opened:
            self._opened[process] = _open_zip(self.root)
        return self._opened[process]


def _open_zip(root: str) -> _OpenZip:
    """Open a zip whose table of contents can be held.

    Raises:
        UserError: not a regular file, not a zip, a damaged one, or a bomb.
    """
    if not Path(root).is_file():
        raise UserError(f"{root!r} is not a regular file; give a zip, or a folder")
    try:
        with Path(root).open("rb") as file:
            contents = _contents_size(file)
        if contents > limits.MAX_CONTENTS:
            raise UserError(f"{root}: its table of contents has {contents:,} bytes; unpack it")
        handle = zipfile.ZipFile(root)
    except UserError:
        raise
    except Exception as error:  # whatever zipfile raises on a damaged table of contents
        raise UserError(
            f"{root} is not a zip file that can be read ({_one_line(error)}); "
            "download or pack it again"
        ) from error
    packed = sum(info.compress_size for info in handle.infolist())
    if packed > Path(root).stat().st_size:
        raise UserError(
            f"{root}: its members are larger than the file that holds them: a zip bomb, or damaged"
        )
    return _OpenZip(handle, {_name_of(info): info for info in handle.infolist()})


def _contents_size(file: Any) -> int:
    """Bytes of a zip's table of contents, as the zip's end says; 0 where there is no such end."""
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    return int(end[5]) if end else 0


def _name_of(info: zipfile.ZipInfo) -> str:
    """A member's name with ``/``, in the letters it was written in.

    Zips made on Windows may have backslashes; without the flag for UTF-8 names are read as code
    page 437, though many programs write UTF-8 all the same.
    """
    name = info.filename
    if not info.flag_bits & 0x800 and not name.isascii():
        with contextlib.suppress(ValueError):
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/")


def _unsafe(name: str) -> str:
    """Why a member's name is not taken; empty where it is."""
    if name.startswith("/") or name[1:2] == ":" or ".." in name.split("/"):
        return "an absolute name or one with '..' in a zip"
    if name.count("/") > limits.MAX_DEPTH:
        return f"more than {limits.MAX_DEPTH} folders inside each other"
    return ""


def _folders_above(name: str, known: set[str]) -> list[str]:
    """The folders that a name lies in, up to the first that is known."""
    found = []
    while "/" in name:
        name = name.rpartition("/")[0]
        if name in known:
            break
        found.append(name)
    return found


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def names_on_disk(files: Files, names: Iterable[str]) -> dict[str, str]:
    """Names that are there with accents written the other way, and how they are written there."""
    asked = [name for name in names if not name.isascii()]
    if not asked or not isinstance(files, Folder | Archive):
        return {}
    if isinstance(files, Archive):
        names = files.listing().files
        there = {normalize_nfc(name): name for name in names} | {name: name for name in names}
        found = {name: there.get(name) or there.get(normalize_nfc(name), name) for name in asked}
    else:
        folders: dict[str, dict[str, str]] = {}
        found = {name: _path_on_disk(files.root, name, folders) for name in asked}
    return {name: stored for name, stored in found.items() if stored != name}


def _path_on_disk(root: str, name: str, folders: dict[str, dict[str, str]]) -> str:
    """A path below ``root`` as it is written on disk, part by part."""
    path = PurePosixPath(name[:1] == "/" and "/" or "")
    for part in PurePosixPath(name).parts[name[:1] == "/" :]:
        here = os.path.join(root, path)  # noqa: PTH118
        if here not in folders:
            folders[here] = _entries(here)
        there = folders[here]
        path /= there.get(part) or there.get(normalize_nfc(part), part)
    return str(path)


def _entries(folder: str) -> dict[str, str]:
    """The names with accents in a folder, by themselves and by their composed form."""
    try:
        names = [name for name in os.listdir(folder) if not name.isascii()]  # noqa: PTH208
    except (OSError, ValueError):
        return {}
    return {normalize_nfc(name): name for name in names} | {name: name for name in names}


def open_files(path: Path) -> Folder | Archive:
    """The folder or zip at ``path``."""
    return Folder(str(path)) if path.is_dir() else Archive(str(path))
