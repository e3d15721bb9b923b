"""A file is whole or absent, whatever dies when."""

import contextlib
import errno
import os
import re
import shutil
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from vitrail import files
from vitrail.errors import UserError
from vitrail.signals import Terminated

STEPS = ("touch", "written", "fsync", "replace", "fsync folder")


@pytest.mark.parametrize("step", STEPS)
def test_killed_between_any_two_steps(tmp_path: Path, step: str) -> None:
    """A child is killed (SIGKILL) before each step: the old text or the new one is there."""
    path = tmp_path / "a.txt"
    files.write_text(path, "old" * 1000)
    pid = os.fork()
    if pid == 0:
        _die_before(step)
        with files.atomic_file(path) as draft:
            draft.write_text("new" * 1000)
            if step == "written":
                os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert path.read_text() == ("new" if step == "fsync folder" else "old") * 1000
    files.sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def _die_before(step: str) -> None:
    def die(*arguments: object, **options: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    flush = files._fsync
    if step == "touch":
        Path.touch = die  # type: ignore[method-assign]
    elif step == "fsync":
        files._fsync = die  # type: ignore[assignment]
    elif step == "replace":
        Path.replace = die  # type: ignore[assignment, method-assign]
    elif step == "fsync folder":
        files._fsync = lambda path, flags: die() if path.is_dir() else flush(path, flags)


def test_an_error_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(ZeroDivisionError), files.atomic_file(path) as draft:
        draft.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "No space left on device; make room"),
        (errno.EDQUOT, "make room"),
        (errno.EROFS, "Read-only file system; choose a folder you can write to"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EIO, "choose a folder you can write to"),
    ],
)
def test_what_the_system_refuses_is_one_line_with_a_remedy(
    tmp_path: Path, number: int, remedy: str
) -> None:
    for place in (files.atomic_file, files.atomic_folder):
        with (
            pytest.raises(files.DiskError, match=f"cannot write '.*/out': .*{remedy}"),
            place(tmp_path / "out"),
        ):
            raise OSError(number, os.strerror(number))
    assert not list(tmp_path.iterdir())
    other = files.write_error(tmp_path, ValueError(f"I/O error: full (os error {number})"))
    assert re.search(remedy, str(other)), "errors of Rust writers have the number in their text"


def test_names_folders_and_other_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file.*the folder is gone or was never there"):
        files.write_text(tmp_path / "nowhere" / "a.txt", "text")
    files.write_text(tmp_path / ("é" * 120), "a draft's name is not too long where the name is not")
    with pytest.raises(UserError, match="File name too long; choose a shorter name"):
        files.write_text(tmp_path / ("é" * 130), "text")
    with (
        pytest.raises(UserError, match="cannot read '.*source': No such file"),
        files.atomic_folder(tmp_path / "out"),
    ):
        (tmp_path / "source").read_text()
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match="Not a directory; choose a name that is not below a file"),
        files.atomic_folder(tmp_path / "file" / "out"),
    ):
        raise AssertionError("not reached")


def test_a_full_disk(small_disk: Path) -> None:
    files.write_text(small_disk / "a", "old")
    with pytest.raises(files.DiskError, match="No space left on device; make room"):
        files.write_bytes(small_disk / "a", bytes(10**6))
    with (
        pytest.raises(files.DiskError, match="No space left"),
        files.atomic_folder(small_disk / "out") as draft,
    ):
        (draft / "big").write_bytes(bytes(10**6))
    with (
        pytest.raises(files.DiskError, match="cannot write '[^']*/small-disk/out': No space"),
        files.atomic_folder(small_disk / "out") as draft,
    ):
        files.write_bytes(draft / "big", bytes(10**6))
    assert [p.name for p in small_disk.iterdir()] == ["a"]
    assert (small_disk / "a").read_text() == "old"
    with pytest.raises(UserError, match="is a disk of its own; name a new folder inside"):
        (small_disk / "a").unlink()
        files.refuse_occupied(small_disk)


def test_a_folder_is_whole_or_absent_and_nothing_is_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ZeroDivisionError), files.atomic_folder(out):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    out.mkdir()
    with files.atomic_folder(out) as draft:
        (draft / "a").write_text("a")
    assert [p.name for p in out.iterdir()] == ["a"]
    with pytest.raises(UserError, match="is there already"), files.atomic_folder(out):
        raise AssertionError("not reached")


def test_of_two_that_want_one_name_one_is_told(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with files.draft_folder(out) as first, files.draft_folder(out) as second:
        (first.path / "first").touch()
        (second.path / "second").touch()
        assert first.claim(out) and not second.claim(out)
        assert files.publish(second, files.DatedFolder(tmp_path, "out")).name.startswith("out-2")
    assert [p.name for p in out.iterdir()] == ["first"]
    assert len(list(tmp_path.iterdir())) == 2


def test_two_at_once_get_a_dated_folder_each(tmp_path: Path) -> None:
    dated = files.DatedFolder(tmp_path, "out")
    with files.new_folder(dated) as first, files.new_folder(dated) as second:
        for draft in (first, second):
            (draft.path / "a").touch()
        names = {files.publish(draft, dated).name for draft in (first, second)}
    assert names == {p.name for p in tmp_path.iterdir()} and len(names) == 2


def test_a_link_to_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    with files.atomic_folder(tmp_path / "link") as draft:
        (draft / "a").touch()
    assert [p.name for p in (tmp_path / "disk").iterdir()] == ["a"]
    assert (tmp_path / "link").is_symlink()


def _killed(work: Callable[[], AbstractContextManager[Any]]) -> int:
    pid = os.fork()
    if pid == 0:
        with work():
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    return pid


def test_sweep_takes_what_killed_processes_left_and_nothing_else(tmp_path: Path) -> None:
    dead = _killed(lambda: files.draft_folder(tmp_path / "killed"))
    _killed(lambda: files.atomic_file(tmp_path / "killed.txt"))
    assert len(list(tmp_path.iterdir())) == 2
    theirs = [
        tmp_path / f".mine.{dead}-{files._host()}cdef.vitrail-tmp",  # a folder without our mark
        tmp_path / f".elsewhere.{dead}-0000cdef.vitrail-tmp",  # a file from another machine
        tmp_path / f".old.{dead}.vitrail-tmp",
        tmp_path / ".photos.starting",
        tmp_path / ".x.vitrail-tmp",
    ]
    for path in theirs[::2]:
        path.mkdir()
        (path / "a").touch()
    for path in theirs[1::2]:
        path.touch()
    with (
        files.atomic_file(tmp_path / "running.txt") as file,
        files.draft_folder(tmp_path / "b") as now,
    ):
        files.sweep_dead(tmp_path)
        assert set(tmp_path.iterdir()) == {*theirs, file, now.path}


@pytest.mark.parametrize("left", [(), (f"{files.MARK}-new",), (files.MARK, "half")])
def test_a_kill_at_either_end_of_a_draft_leaves_one_that_is_swept(
    tmp_path: Path, left: tuple[str, ...]
) -> None:
    dead = _killed(lambda: contextlib.nullcontext())
    draft = tmp_path / f".out.{dead}-{files._host()}cdef.vitrail-tmp"
    draft.mkdir()
    for name in left:
        (draft / name).touch()
    files.sweep_dead(tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("step", ["mkdir", "rename", "unlink"])
def test_a_signal_right_after_a_step_leaves_no_draft_and_no_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """What is there afterwards is the whole folder without our mark, or nothing."""
    do, out = getattr(Path, step), tmp_path / "out"
    last = {"mkdir": r"\..*\.vitrail-tmp", "rename": "out", "unlink": re.escape(files.MARK)}[step]

    def interrupted(path: Path, *words: Any, **options: Any) -> Any:
        found = do(path, *words, **options)
        if re.fullmatch(last, Path(*words or (path,)).name):
            monkeypatch.undo()
            raise Terminated
        return found

    monkeypatch.setattr(Path, step, interrupted)
    with pytest.raises(Terminated), files.atomic_folder(out) as draft:
        (draft / "file").touch()
    assert [p.name for p in tmp_path.rglob("*")] == ([] if step == "mkdir" else ["out", "file"])


def test_the_mark_of_a_draft_goes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path, **_: object) -> None:
        raise KeyboardInterrupt

    with files.draft_folder(tmp_path / "a") as draft:
        (draft.path / "inner").mkdir()
        (draft.path / "file").touch()
        monkeypatch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            files._remove_draft(draft.path)
        assert files.MARK in {entry.name for entry in draft.path.iterdir()}
        monkeypatch.undo()


def test_a_held_folder_is_swept_and_refused_to_others(tmp_path: Path) -> None:
    _killed(lambda: files.atomic_file(tmp_path / "a.txt"))
    (tmp_path / files.MARK).touch()
    with files.lock_folder(tmp_path, "busy"):
        assert [p.name for p in tmp_path.iterdir()] == [files.LOCK]
        pid = os.fork()
        if pid == 0:
            try:
                with files.lock_folder(tmp_path, "busy"):
                    os._exit(0)
            except UserError as error:
                os._exit(3 if str(error) == "busy" else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
