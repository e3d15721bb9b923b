"""Files and folders that are whole or absent: a kill leaves the old one, the new one, or a draft.

A draft is written beside its goal under a hidden name that holds process and chance, and renamed
at the end; renaming is also the claim, so of two that want one name, one is told. What a killed
process left is removed by :func:`sweep`: only what carries our mark and nobody holds any more.
"""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from vitrail.errors import UserError

_DRAFT = re.compile(r"\..+\.\d+(-[0-9a-f]{8})?\.vitrail-tmp")
MARK = ".vitrail-draft"
"""The file inside a draft folder that says it is ours; its owner holds a lock on it."""


def draft_name(path: Path) -> Path:
    """A hidden name beside ``path`` that no other process and no other call has."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.vitrail-tmp")


@contextlib.contextmanager
def whole(path: str | Path, *, private: bool = False) -> Iterator[Path]:
    """Write to the yielded name; ``path`` becomes that file when the block ends well.

    A ``private`` file is for its owner only.

    The new content is on the disk before the name points to it (fsync, rename, fsync of the
    folder), so neither a kill nor a power cut leaves half a file under ``path``.

    Raises:
        UserError: full disk, no permission, no such folder.
    """
    path = Path(path)
    draft = draft_name(path)
    try:
        draft.touch(0o600 if private else 0o666)
        mode = draft.stat().st_mode
        yield draft
        draft.chmod(mode)  # some writers put a private file in its place
        _flush(draft, os.O_RDWR)
        draft.replace(path)
        _flush(path.parent, os.O_RDONLY)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def expand(text: str | Path) -> Path:
    """``~`` and ``~name`` as the home they mean; as it stands where there is no such home."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def write_text(path: str | Path, text: str) -> None:
    """Write a whole UTF-8 file, or leave the old one.

    Bytes of names that are no text become escapes such as ``\\udcff``, which JSON reads back.
    """
    with whole(path) as draft:
        draft.write_text(text, encoding="utf-8", errors="backslashreplace")


def taken(folder: str | Path) -> bool:
    """Whether something is there that writing could overwrite: a file, or a folder not empty."""
    folder = Path(folder)
    try:
        return os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise unreadable(folder, error) from error


@contextlib.contextmanager
def atomic_folder(out: str | Path) -> Iterator[Path]:
    """Fill the yielded folder; ``out`` becomes it, complete, when the block ends well.

    An error leaves nothing. An empty folder at ``out`` is replaced.

    Raises:
        UserError: something is at ``out`` (also if it came while the block ran), or the place
            cannot be written.
    """
    out = Path(out)
    refuse_taken(out)
    with draft_folder(out) as draft:
        yield draft.path
        draft.publish(out)


class DraftFolder:
    """A hidden folder being filled, until :meth:`publish` gives it its name."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def publish(self, out: Path) -> None:
        """Rename to ``out``, if that is free: the rename is the claim.

        Raises:
            UserError: something is there, or the place cannot be written.
        """
        if not self.claim(out):
            raise already_there(out)

    def claim(self, out: Path) -> bool:
        """Rename to ``out``; False where something is there (two processes never share a name)."""
        try:
            _flush(self.path, os.O_RDONLY)
            if out.is_symlink() or out.is_file():
                return False
            if os.name == "nt" and out.is_dir() and not taken(out):
                out.rmdir()
            self.path.rename(out)
        except OSError as error:
            if out.is_dir() and taken(out):
                return False
            raise unwritable(out, error) from error
        self.path = out
        (out / MARK).unlink(missing_ok=True)
        _flush(out.parent, os.O_RDONLY)
        return True


@contextlib.contextmanager
def draft_folder(beside: Path) -> Iterator[DraftFolder]:
    """A new hidden folder in ``beside``'s parent (made if need be); gone at the end unless claimed.

    Raises:
        UserError: the place cannot be written.
    """
    path = draft_name(beside)
    try:
        path.mkdir(parents=True)
        handle = os.open(path / MARK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise unwritable(beside, error) from error
    draft = DraftFolder(path)
    try:
        try_lock(handle)
        yield draft
    except OSError as error:
        raise unwritable(beside, error) from error
    finally:
        os.close(handle)
        if draft.path == path:
            shutil.rmtree(path, ignore_errors=True)


def refuse_taken(out: str | Path) -> None:
    """Nothing of the user's is overwritten.

    Raises:
        UserError: ``out`` is a file, or a folder that holds something.
    """
    if taken(out):
        raise already_there(Path(out))


def already_there(out: Path) -> UserError:
    """The one line for a name that is not free."""
    return UserError(
        f"{str(out)!r} is there already and nothing is overwritten; choose another folder"
    )


def dated_names(parent: Path, name: str) -> Iterator[Path]:
    """``parent/NAME-DATE``, then the same numbered from 2."""
    stem = f"{name}-{datetime.now():%Y%m%d-%H%M}"
    yield parent / stem
    for number in range(2, 10**6):
        yield parent / f"{stem}-{number}"


def dated(parent: Path, name: str) -> Path:
    """The first of :func:`dated_names` where nothing is; to have it for sure, claim it."""
    return next(path for path in dated_names(parent, name) if not os.path.lexists(path))


def sweep(folder: str | Path) -> None:
    """Remove drafts that killed processes left in ``folder``.

    Files go by their name; so call it where only one process writes. Folders go only if they hold
    our mark and nobody has the lock on it, so those of running processes stay.
    """
    for draft in Path(folder).glob(".*.vitrail-tmp"):
        if not _DRAFT.fullmatch(draft.name) or draft.is_symlink():
            continue
        with contextlib.suppress(OSError):
            if draft.is_file():
                draft.unlink()
            elif _abandoned(draft):
                shutil.rmtree(draft, ignore_errors=True)


def sweep_folders(parent: str | Path) -> None:
    """Remove draft folders that killed processes left in ``parent``; files there stay."""
    for draft in Path(parent).glob(".*.vitrail-tmp"):
        with contextlib.suppress(OSError):
            if _DRAFT.fullmatch(draft.name) and not draft.is_symlink() and _abandoned(draft):
                shutil.rmtree(draft, ignore_errors=True)


def _abandoned(draft: Path) -> bool:
    """Whether a folder is a draft of ours that no process holds."""
    mark = draft / MARK
    if mark.is_symlink() or not mark.is_file():
        return False
    handle = os.open(mark, os.O_RDWR)
    try:
        return try_lock(handle)
    finally:
        os.close(handle)


def try_lock(handle: int) -> bool:
    """Lock an open file for this process, if no other has; a kill lets go of it.

    True also where the system has no locks (Windows, some network file systems).
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def unwritable(path: Path, error: OSError) -> UserError:
    """The one line for a file that cannot be written."""
    why = error.strerror or str(error)
    return UserError(
        f"cannot write {str(path)!r}: {why}; make room, or choose a folder you can write to"
    )


def unreadable(path: Path, error: OSError) -> UserError:
    """The one line for a file or folder that cannot be read."""
    return UserError(f"cannot read {str(path)!r}: {error.strerror or error}")


def _flush(path: Path, flags: int) -> None:
    """Wait until ``path`` is on the disk; folders only where the system can (not on Windows)."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
