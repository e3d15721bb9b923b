"""Atomic files and folders: a kill leaves the old one, the new one, or a draft.

A draft is written beside its destination under a hidden name with the process and random digits,
and renamed at the end. The rename is also the claim: of two processes that want one name, one gets
an error. Drafts of killed processes are removed by :func:`sweep` (in a folder that only we write)
and :func:`sweep_dead` (anywhere): only those with our mark that no process has locked.
"""

import contextlib
import os
import platform
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from pathlib import Path

from vitrail.disk import DiskError as DiskError
from vitrail.disk import is_disk_error as is_disk_error
from vitrail.disk import is_occupied as is_occupied
from vitrail.disk import occupied_error as occupied_error
from vitrail.disk import read_error as read_error
from vitrail.disk import refuse_non_utf8_name as refuse_non_utf8_name
from vitrail.disk import refuse_occupied as refuse_occupied
from vitrail.disk import resolve_path as resolve_path
from vitrail.disk import write_error as write_error
from vitrail.errors import UserError

_DRAFT = re.compile(r"\..*\.(?P<process>\d+)(-(?P<host>[0-9a-f]{4})[0-9a-f]{4})?\.vitrail-tmp")
_NAME = 40
"""Characters of the goal's name in a draft's: names have limits (255 bytes on most disks)."""
MARK = ".vitrail-draft"
"""The file inside a draft folder that says it is ours; its owner holds a lock on it."""
LOCK = ".lock"
"""The file inside a run or a study that whoever writes there holds."""


def draft_name(path: Path) -> Path:
    """A hidden name beside ``path`` that no other process and no other call has."""
    chance = _host() + secrets.token_hex(2)
    return path.with_name(f".{path.name[:_NAME]}.{os.getpid()}-{chance}.vitrail-tmp")


def _host() -> str:
    """Four digits of this machine's name: on a shared disk, numbers of processes say nothing."""
    return blake2b(platform.node().encode(), digest_size=2).hexdigest()


@contextlib.contextmanager
def atomic_file(path: str | Path, *, private: bool = False) -> Iterator[Path]:
    """Write to the yielded name; ``path`` becomes that file when the block ends well.

    A ``private`` file is for its owner only.

    The new content is on the disk before the name points to it (fsync, rename, fsync of the
    folder), so neither a kill nor a power cut leaves half a file under ``path``.

    Raises:
        DiskError: full disk, no permission, no such folder.
    """
    path = Path(path)
    draft = draft_name(path)
    try:
        draft.touch(0o600 if private else 0o666)
        mode = draft.stat().st_mode
        yield draft
        draft.chmod(mode)  # some writers put a private file in its place
        _fsync(draft, os.O_RDWR)
        draft.replace(path)
        _fsync(path.parent, os.O_RDONLY)
    except OSError as error:
        raise _disk_error(path, draft, error) from error
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
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a whole file, or leave the old one."""
    with atomic_file(path) as draft:
        draft.write_bytes(content)


@contextlib.contextmanager
def atomic_folder(out: str | Path) -> Iterator[Path]:
    """Fill the yielded folder; ``out`` becomes it, complete, when the block ends well.

    An error leaves nothing. An empty folder at ``out`` is replaced.

    Raises:
        UserError: something is at ``out`` (also if it came while the block ran), or the place
            cannot be written.
    """
    out = Path(out)
    refuse_occupied(out)
    with draft_folder(out) as draft:
        yield draft.path
        draft.publish(out)


class DraftFolder:
    """A hidden folder being filled, until :meth:`publish` gives it its name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.goal: Path | None = None
        """What it is being renamed to, until that is done."""

    def publish(self, out: Path) -> None:
        """Rename to ``out``, if that is free: the rename is the claim.

        Raises:
            UserError: something is there, or the place cannot be written.
        """
        if not self.claim(out):
            raise occupied_error(out)

    def claim(self, out: Path) -> bool:
        """Rename to ``out``; False where something is there (two processes never share a name)."""
        goal = resolve_path(out) if out.is_symlink() and out.is_dir() else out
        try:
            _fsync(self.path, os.O_RDONLY)
            if goal.is_symlink() or goal.is_file():
                return False
            if os.name == "nt" and goal.is_dir() and not is_occupied(goal):
                goal.rmdir()
            self.goal = goal
            self.path.rename(goal)
        except OSError as error:
            if goal.is_dir() and is_occupied(goal):
                return False
            raise write_error(out, error) from error
        (goal / MARK).unlink(missing_ok=True)
        self.path, self.goal = out, None
        _fsync(goal.parent, os.O_RDONLY)
        return True


@contextlib.contextmanager
def draft_folder(beside: Path) -> Iterator[DraftFolder]:
    """A new hidden folder in ``beside``'s parent (made if need be); gone at the end unless claimed.

    So are parents that were made and are empty again. Drafts that killed processes left there are
    removed first.

    Raises:
        DiskError: the place cannot be written, or a file that is needed cannot be read.
    """
    if beside.is_symlink() and beside.is_dir():
        beside = resolve_path(beside)
    path, handle = draft_name(beside), None
    new_parents = [parent for parent in path.parents if not parent.exists()]
    sweep_dead(beside.parent)
    draft = DraftFolder(path)
    try:
        _make_folder(path)
        handle = _write_locked_mark(path)
        yield draft
    except OSError as error:
        raise _disk_error(beside, path, error) from error
    except DiskError as error:
        if error.path.absolute().is_relative_to(path.absolute()):
            raise write_error(beside, error.cause) from error  # nobody knows the draft's name
        raise
    finally:
        if handle is not None:
            os.close(handle)
        if draft.path == path:
            if draft.goal and not path.exists():  # a signal came right after the rename
                with contextlib.suppress(OSError):
                    (draft.goal / MARK).unlink(missing_ok=True)
            _remove_draft(path)
            with contextlib.suppress(OSError):
                for parent in new_parents:
                    parent.rmdir()


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents, which another process may just be removing again."""
    with contextlib.suppress(FileNotFoundError):
        folder.mkdir(parents=True)
    if not folder.is_dir():
        folder.mkdir(parents=True)


def _write_locked_mark(folder: Path) -> int:
    """Write our mark into a draft, locked before it has its name, so that no sweep removes it."""
    unlocked = folder / f"{MARK}-new"
    handle = os.open(unlocked, os.O_RDWR | os.O_CREAT, 0o644)
    _try_lock(handle)
    unlocked.rename(folder / MARK)
    return handle


@dataclass(frozen=True)
class DatedFolder:
    """A new folder ``parent/NAME-DATE``; the second in one minute is ``NAME-DATE-2``."""

    parent: Path
    name: str

    def names(self) -> Iterator[Path]:
        """``parent/NAME-DATE``, then the same numbered from 2."""
        stem = f"{self.name}-{datetime.now():%Y%m%d-%H%M}"
        yield self.parent / stem
        for number in range(2, 10**6):
            yield self.parent / f"{stem}-{number}"


Destination = Path | DatedFolder
"""Where a folder is to be made: under this name, or under the first that is free."""


@contextlib.contextmanager
def new_folder(out: Destination) -> Iterator[DraftFolder]:
    """A draft for ``out``, to be given its name with :func:`publish`."""
    if isinstance(out, Path):
        refuse_occupied(out)
    with draft_folder(out if isinstance(out, Path) else next(out.names())) as draft:
        yield draft


def publish(
    draft: DraftFolder, out: Destination, complete: Callable[[Path], None] = lambda name: None
) -> Path:
    """Give a draft its name and return it; ``complete`` writes what depends on the name.

    Raises:
        UserError: the name is taken by now, or the place cannot be written.
    """
    for name in (out,) if isinstance(out, Path) else out.names():
        complete(name)
        if draft.claim(name):
            return name
    raise occupied_error(name)


def sweep(folder: str | Path) -> None:
    """Remove all drafts in a folder that only we write, and that we hold."""
    for draft in _find_drafts(folder):
        with contextlib.suppress(OSError):
            if draft.is_file():
                draft.unlink()
            elif _is_abandoned(draft):
                _remove_draft(draft)
    with contextlib.suppress(OSError):  # a kill right after the claim
        (Path(folder) / MARK).unlink(missing_ok=True)


def sweep_dead(folder: str | Path) -> None:
    """Remove drafts that killed processes left in a folder where others may write too.

    A folder goes if it holds our mark and nobody has the lock on it, a file or an empty folder if
    the process in its name was on this machine and is gone. Whatever else looks like one stays.
    """
    for draft in _find_drafts(folder):
        with contextlib.suppress(OSError):
            if draft.is_file() and _is_of_dead_process(draft):
                draft.unlink()
            elif draft.is_dir() and _is_abandoned(draft):
                _remove_draft(draft)


def _find_drafts(folder: str | Path) -> list[Path]:
    try:
        names = [entry.name for entry in os.scandir(folder) if not entry.is_symlink()]
    except OSError:
        return []
    return [Path(folder) / name for name in names if _DRAFT.fullmatch(name)]


def _is_of_dead_process(draft: Path) -> bool:
    """Whether a draft file was written on this machine by a process that is gone."""
    found = _DRAFT.fullmatch(draft.name)
    if os.name == "nt" or found is None or found["host"] != _host():
        return False
    try:
        os.kill(int(found["process"]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        return False
    return False


def _is_abandoned(draft: Path) -> bool:
    """Whether a folder is a draft of ours that no process holds."""
    mark = draft / MARK
    if mark.is_symlink() or not mark.is_file():
        unmarked = all(entry.name == f"{MARK}-new" for entry in draft.iterdir())
        return unmarked and _is_of_dead_process(draft)
    handle = os.open(mark, os.O_RDWR)
    try:
        free = _try_lock(handle)
    finally:
        os.close(handle)
    return _is_of_dead_process(draft) if free is None else free


def _remove_draft(draft: Path) -> None:
    """Remove a draft, its mark last: a kill on the way leaves one that the next sweep knows."""
    with contextlib.suppress(OSError):
        for entry in draft.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != MARK:
                entry.unlink(missing_ok=True)
    shutil.rmtree(draft, ignore_errors=True)


def _try_lock(handle: int) -> bool | None:
    """Lock an open file for this process, if no other has; a kill lets go of it.

    None where the system has no locks (Windows, some network file systems).
    """
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@contextlib.contextmanager
def lock_folder(folder: Path, refusal: str) -> Iterator[None]:
    """Lock a folder while the block runs, and sweep it; a kill releases the lock.

    Raises:
        UserError: another process holds it (``refusal`` says so).
        DiskError: the folder cannot be written.
    """
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        if not _try_own_lock(handle):
            raise UserError(refusal)
        sweep(folder)
        yield
    finally:
        os.close(handle)


def _try_own_lock(handle: int) -> bool:
    """Lock as above, but workers that this process forks do not share the lock.

    They outlive a kill by seconds, in which nobody could go on.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True


def _disk_error(goal: Path, draft: Path, error: OSError) -> DiskError:
    """What to say of an error while ``draft`` was filled: it may have been about another file."""
    if not isinstance(error.filename, str):
        return write_error(goal, error)
    about, here = Path(error.filename).absolute(), draft.absolute()
    ours = about.is_relative_to(here) or here.is_relative_to(about)
    return write_error(goal, error) if ours else read_error(Path(error.filename), error)


def _fsync(path: Path, flags: int) -> None:
    """Wait until ``path`` is on the disk; folders only where the system can (not on Windows)."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
