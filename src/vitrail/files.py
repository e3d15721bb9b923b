"""Files that are whole or absent: a kill at any moment leaves the old file or the new one."""

import contextlib
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from vitrail.errors import UserError

_MARK = ".vitrail-tmp"


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Write to the yielded name; ``path`` becomes that file when the block ends well.

    The new content is on the disk before the name points to it (fsync, rename, fsync of the
    folder), so neither a kill nor a power cut leaves half a file under ``path``.

    Raises:
        UserError: full disk, no permission, no such folder.
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}{_MARK}")
    try:
        draft.touch()
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


def write_text(path: str | Path, text: str) -> None:
    """Write a whole text file, or leave the old one."""
    with whole(path) as draft:
        draft.write_text(text, encoding="utf-8")


def taken(folder: str | Path) -> bool:
    """Whether something is there that writing could overwrite: a file, or a folder not empty."""
    folder = Path(folder)
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


def dated(parent: Path, name: str) -> Path:
    """``parent/NAME-DATE``, numbered where that is there already."""
    stem = f"{name}-{datetime.now():%Y%m%d-%H%M}"
    names = (stem if i == 1 else f"{stem}-{i}" for i in range(1, 10**6))
    return next(parent / n for n in names if not (parent / n).exists())


def sweep(folder: str | Path) -> None:
    """Remove drafts that killed processes left in ``folder``."""
    for draft in Path(folder).glob(f".*{_MARK}"):
        with contextlib.suppress(OSError):
            draft.unlink()


def unwritable(path: Path, error: OSError) -> UserError:
    """The one line for a file that cannot be written."""
    why = error.strerror or str(error)
    return UserError(
        f"cannot write {str(path)!r}: {why}; make room, or choose a folder you can write to"
    )


def _flush(path: Path, flags: int) -> None:
    """Wait until ``path`` is on the disk; folders only where the system can (not on Windows)."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
