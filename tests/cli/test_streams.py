"""Streams, encodings and surroundings that are not as usual: the answer, or one line."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vitrail.cli import main
from vitrail.cli.command import as_json


def run(shell: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    """A shell line in which ``vitrail`` is this code."""
    vitrail = f'vitrail() {{ "{sys.executable}" -m vitrail "$@"; }}; '
    given = {k: v for k, v in os.environ.items() if k not in ("HOME", "COLUMNS", "TERM")}
    return subprocess.run(
        ["bash", "-c", vitrail + shell], capture_output=True, env={**given, **env}, check=False
    )


@pytest.mark.parametrize(
    ("shell", "status", "err"),
    [
        ("vitrail completion bash | head -1; exit ${PIPESTATUS[0]}", 0, ""),
        ("vitrail --help | true; exit ${PIPESTATUS[0]}", 0, ""),
        ("vitrail --version > /dev/full", 1, "vitrail: the system refused: No space left"),
        ("vitrail completion bash > /dev/full", 1, "vitrail: the system refused: No space left"),
        ("vitrail --help >&-", 0, ""),
        ("vitrail --version >&- 2>&- <&-", 0, ""),
        ("vitrail nonsense 2>/dev/full", 2, ""),
        ("mkdir gone; cd gone; rmdir ../gone; vitrail doctor", 2, "vitrail: the folder you are"),
    ],
)
def test_pipes_and_closed_streams(
    shell: str, status: int, err: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(shell)
    assert (done.returncode, done.stderr.decode()[: len(err)]) == (status, err)
    assert done.stderr.count(b"\n") == bool(err)


def test_surroundings_of_a_strange_terminal() -> None:
    done = run("vitrail check --help", COLUMNS="1", TERM="dumb", NO_COLOR="1")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"usage: vitrail check" in done.stdout


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_names_that_cannot_be_encoded(encoding: str) -> None:
    done = run("vitrail $'ß猫\\x1b[1m\\xff'", PYTHONIOENCODING=encoding)
    line = done.stderr.decode(encoding)
    assert (done.returncode, line.count("\n")) == (2, 1)
    assert "\\x1b[1m" in line and "ff'" in line and "\x1b" not in line


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_an_answer_that_nobody_reads(
    options: tuple[str, ...], give, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Left(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Left())
    assert main(["mixers", *options]) == 0
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["mixers", *options]) == 0


def test_json_keeps_names_that_are_no_text() -> None:
    name = "a\udcff猫"
    assert json.loads(as_json({"a": name})) == {"a": name}
    assert as_json({"a": name}).encode()
    assert as_json({"a": name}, ascii_only=True).isascii()
