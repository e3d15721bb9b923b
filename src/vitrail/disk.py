"""Errors of reading and writing files, as one line with a remedy."""

import errno
import os
import re
from pathlib import Path

from vitrail.errors import UserError, printable


class DiskError(UserError):
    """A file or folder ``path`` that the system, for a ``cause``, lets us not write or read."""

    def __init__(self, line: str, path: Path, cause: Exception) -> None:
        super().__init__(line)
        self.path, self.cause = path, cause


_ROOM = "make room, or choose a folder on another disk"
_REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "files may not grow as large here (see 'ulimit -f'); choose another folder",
    errno.EROFS: "choose a folder you can write to",
    errno.EACCES: "choose a folder you can write to",
    errno.EPERM: "choose a folder you can write to",
    errno.EMFILE: "raise the limit of open files (ulimit -n 4096)",
    errno.ENFILE: "close other programs: this machine has too many open files",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "the folder is gone or was never there; make it, or choose another",
    errno.ENOTDIR: "choose a name that is not below a file",
    errno.EBUSY: "choose a new folder",
}


def is_disk_error(error: OSError) -> bool:
    """Whether it is about files, and not, say, a connection."""
    return error.errno == errno.EIO or error.errno in _REMEDIES


def write_error(path: Path, error: Exception) -> DiskError:
    """The one line for a file that cannot be written; also for errors of writers in other words."""
    number = _errno_of(error)
    why = os.strerror(number) if number else str(error)
    remedy = _REMEDIES.get(number, "choose a folder you can write to")
    return DiskError(f"cannot write {str(path)!r}: {why}; {remedy}", path, error)


def read_error(path: Path, error: OSError) -> DiskError:
    """The one line for a file or folder that cannot be read."""
    remedy = f"; {_REMEDIES[errno.EMFILE]}" if error.errno == errno.EMFILE else ""
    return DiskError(f"cannot read {str(path)!r}: {error.strerror or error}{remedy}", path, error)


def _errno_of(error: Exception) -> int:
    """The system's number of an error; safetensors has it in its text only."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    found = re.search(r"\(os error (\d+)\)|\[Errno (\d+)\]", str(error))
    return int(found[1] or found[2]) if found else 0


def resolve_path(path: str | Path) -> Path:
    """The absolute path behind links; links in a circle stay as they are, to be refused later."""
    return Path(os.path.realpath(path))


def refuse_non_utf8_name(out: str | Path) -> None:
    """Files of weights need a name that is text.

    Raises:
        UserError: the name holds bytes that are not UTF-8.
    """
    if any("\ud800" <= character <= "\udfff" for character in str(out)):
        raise UserError(f"{printable(out)!r} is not a name in UTF-8; choose another --out")


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, if it is not there.

    Raises:
        DiskError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error


def is_occupied(folder: str | Path) -> bool:
    """Whether something is there that writing could overwrite: a file, or a folder not empty."""
    folder = Path(folder)
    try:
        return os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise read_error(folder, error) from error


def refuse_occupied(out: str | Path) -> None:
    """Refuse to overwrite anything of the user's.

    Raises:
        UserError: ``out`` is a file, a folder that holds something, or a disk of its own (a
            folder that is complete at once gets its name at the end, which a disk cannot).
    """
    if is_occupied(out):
        raise occupied_error(Path(out))
    if os.path.ismount(out):
        raise UserError(f"{str(out)!r} is a disk of its own; name a new folder inside it")


def occupied_error(out: Path) -> UserError:
    """The error for a name that is not free."""
    return UserError(
        f"{str(out)!r} is there already{_other_kind(out)} and nothing is overwritten; choose "
        "another folder"
    )


def _other_kind(out: Path) -> str:
    """What stands at the name of a folder, if that is none."""
    if out.is_dir():
        return ""
    return " (a link that leads nowhere)" if not out.exists() else " (a file, not a folder)"
