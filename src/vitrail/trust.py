"""Files of code that a person has trusted on this machine, known by their SHA-256.

``~/.config/vitrail/trusted-plugins/SHA256/NAME.py`` (``XDG_CONFIG_HOME`` is heeded) is a private
copy of each file that was named with ``--plugin``. A run that needs a file with that digest gets
the copy; no path that came with a run is ever followed. Deleting the folder takes the trust back.
"""

import hashlib
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

from vitrail.errors import UserError
from vitrail.files import atomic_file

MOST_BYTES = 2**22
"""No file of code is larger; a larger one is not read."""
DIGEST = re.compile(r"[0-9a-f]{64}")


def trust_folder() -> Path | None:
    """Where the copies lie; None where this person has no home."""
    named = os.environ.get("XDG_CONFIG_HOME", "")
    try:
        base = Path(named) if Path(named).is_absolute() else Path.home() / ".config"
    except RuntimeError:
        return None
    return base / "vitrail" / "trusted-plugins"


def read_code(path: Path) -> bytes:
    """The bytes of a file of code, read once.

    Raises:
        UserError: no such file, a folder, a special file, or a very large one.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(handle, "rb") as file:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode) or about.st_size > MOST_BYTES:
                raise UserError(
                    f"no plugin {str(path)!r}: not a regular file below {MOST_BYTES >> 20} MiB"
                )
            return file.read(MOST_BYTES)
    except OSError as error:
        raise UserError(f"no plugin {str(path)!r}: {error.strerror or error}") from error
    except ValueError as error:  # a name with a zero byte
        if isinstance(error, UserError):
            raise
        raise UserError(f"no plugin {str(path)!r}: {error}") from error


def find_trusted(digest: str) -> tuple[Path, bytes] | None:
    """The trusted file with this SHA-256 and its bytes, checked; None if there is none."""
    folder = trust_folder()
    if folder is None or not DIGEST.fullmatch(digest):
        return None
    try:
        if not (_is_private(folder, stat.S_ISDIR) and _is_private(folder / digest, stat.S_ISDIR)):
            return None
        files = [p for p in sorted((folder / digest).glob("*.py")) if _is_private(p, stat.S_ISREG)]
    except OSError:
        return None
    for path in files:
        code = read_code(path)
        if hashlib.sha256(code).hexdigest() == digest:
            return path, code
    return None


def trust(name: str, code: bytes) -> Path | None:
    """Keep a private copy; its folder if it is new, None if it was there or cannot be written."""
    digest = hashlib.sha256(code).hexdigest()
    folder = trust_folder()
    if folder is None or find_trusted(digest) is not None:
        return None
    place = folder / digest
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for private in (folder, place):
            private.mkdir(mode=0o700, exist_ok=True)
            private.chmod(0o700)  # whatever an earlier version or a umask left
        with atomic_file(place / name, private=True) as draft:
            draft.write_bytes(code)
    except (OSError, UserError):
        return None  # without a home that can be written, a person names the file each time
    return place if find_trusted(digest) is not None else None


def _is_private(path: Path, kind: Callable[[int], bool]) -> bool:
    """Whether nobody else could have written there: the system's check, where it has owners.

    A link is nothing of mine: it may lead to a file or folder of mine that came from a stranger.
    """
    about = path.lstat()
    if not kind(about.st_mode) or (stat.S_ISREG(about.st_mode) and about.st_nlink > 1):
        return False
    return os.name == "nt" or (about.st_uid == os.getuid() and not about.st_mode & 0o022)
