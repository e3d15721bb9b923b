"""A file is whole or absent, whatever dies when."""

import os
import signal
from pathlib import Path

import pytest

from vitrail import files
from vitrail.errors import UserError

STEPS = ("touch", "written", "fsync", "replace", "fsync folder")


@pytest.mark.parametrize("step", STEPS)
def test_killed_between_any_two_steps(tmp_path: Path, step: str) -> None:
    """A child is killed (SIGKILL) before each step: the old text or the new one is there."""
    path = tmp_path / "a.txt"
    files.write_text(path, "old" * 1000)
    pid = os.fork()
    if pid == 0:
        _die_before(step)
        with files.whole(path) as draft:
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

    flush = files._flush
    if step == "touch":
        Path.touch = die  # type: ignore[method-assign]
    elif step == "fsync":
        files._flush = die  # type: ignore[assignment]
    elif step == "replace":
        Path.replace = die  # type: ignore[assignment, method-assign]
    elif step == "fsync folder":
        files._flush = lambda path, flags: die() if path.is_dir() else flush(path, flags)


def test_an_error_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(ZeroDivisionError), files.whole(path) as draft:
        draft.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write .*No such file.*make room, or choose"):
        files.write_text(tmp_path / "nowhere" / "a.txt", "text")


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
        assert second.claim(next(n for n in files.dated_names(tmp_path, "out")))
    assert [p.name for p in out.iterdir()] == ["first"]
    assert len(list(tmp_path.iterdir())) == 2


def test_sweep_takes_what_killed_processes_left_and_nothing_else(tmp_path: Path) -> None:
    lookalike = tmp_path / ".mine.12-0123abcd.vitrail-tmp"
    lookalike.mkdir()
    pid = os.fork()
    if pid == 0:
        with files.draft_folder(tmp_path / "killed"):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert len(list(tmp_path.iterdir())) == 2
    with files.draft_folder(tmp_path / "running") as running:
        files.sweep_folders(tmp_path)
        assert set(tmp_path.iterdir()) == {lookalike, running.path}
