"""Files of code trusted on this machine: by their bytes, and only what nobody else could write."""

import hashlib
import os
from pathlib import Path

import pytest

from vitrail.errors import UserError
from vitrail.trust import find_trusted, read_code, trust

CODE = b"x = 1\r\n"
DIGEST = hashlib.sha256(CODE).hexdigest()
OPEN = ("two names", "open to all", "a linked folder")
"""Ways for others to bring a file of the right owner and content to the right place."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "vitrail" / "trusted-plugins"


def test_the_very_bytes_are_trusted_once(home: Path) -> None:
    assert find_trusted(DIGEST) is None
    assert trust("my.py", CODE) == home / DIGEST
    assert trust("other.py", CODE) is None
    kept = home / DIGEST / "my.py"
    assert find_trusted(DIGEST) == (kept, CODE)
    assert kept.stat().st_mode & 0o777 == 0o600 and kept.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("spoil", ["changed", "writable", "linked", "folder", "gone", *OPEN])
def test_what_is_no_longer_so_is_not_trusted(spoil: str, home: Path) -> None:
    trust("my.py", CODE)
    kept = home / DIGEST / "my.py"
    if spoil == "two names":
        os.link(kept, home / "stranger.py")
    elif spoil == "open to all":
        home.chmod(0o777)
    elif spoil == "a linked folder":
        kept.parent.rename(home / "unpacked")
        kept.parent.symlink_to(home / "unpacked")
    elif spoil == "changed":
        kept.write_bytes(CODE + b"#")
    elif spoil == "writable":
        kept.chmod(0o622)
    else:
        kept.rename(home / "moved.py")
    if spoil == "linked":
        kept.symlink_to(home / "moved.py")
    if spoil == "folder":
        kept.mkdir()
    assert find_trusted(DIGEST) is None


@pytest.mark.parametrize("digest", ["", "..", "../" + DIGEST, DIGEST.upper(), DIGEST + "\n"])
def test_only_digests_are_looked_for(digest: str, home: Path) -> None:
    trust("my.py", CODE)
    assert find_trusted(digest) is None


def test_a_place_that_cannot_be_written_trusts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    assert trust("my.py", CODE) is None and find_trusted(DIGEST) is None


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.py")
    for name in ("fifo.py", ".", "absent.py", "zero\0.py", "/dev/zero"):
        with pytest.raises(UserError, match="no plugin"):
            read_code(tmp_path / name)
