"""Folders and zips as they come: what is listed, what is read, what is refused in one line."""

import os
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from tests.data.corpus import numbered, small_set, write

from vitrail.data import limits, open_dataset
from vitrail.data.decode import ImageError
from vitrail.data.files import Archive, Folder, read_regular
from vitrail.errors import UserError

SET = small_set()


def zipped(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def edited(path: Path, *edits: tuple[bytes, int, bytes]) -> Path:
    """Write bytes at an offset from the first place of a mark, in local header and directory."""
    data = bytearray(path.read_bytes())
    for mark, offset, new in edits:
        at = data.index(mark) + offset
        data[at : at + len(new)] = new
    path.write_bytes(data)
    return path


# ---- folders ------------------------------------------------------------------------------------


def test_pipes_and_devices_are_said_and_never_opened(tmp_path):
    write(tmp_path, SET)
    os.mkfifo(tmp_path / "a" / "pipe.png")
    lines = [p.line for p in open_dataset(tmp_path).problems]
    assert lines == ["a/pipe.png: a pipe, a socket or a device; left out unopened"]


def test_only_regular_files_are_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").write_bytes(b"123")
    for name in ("pipe", "dir", "/dev/zero", "/dev/tty"):
        if Path(tmp_path / name).exists():
            with pytest.raises(ImageError, match="cannot be read"):
                Folder(str(tmp_path)).read(name)
    for name in ("gone", "file/below", "nul\0", "x" * 300):
        with pytest.raises(ImageError, match="there is no such file|too long") as caught:
            Folder(str(tmp_path)).read(name)
        assert caught.value.kind == "missing"
    assert read_regular(tmp_path / "file") == b"123"
    monkeypatch.setattr(limits, "MAX_BYTES", 2)
    with pytest.raises(ImageError, match="3 bytes are too many"):
        read_regular(tmp_path / "file")


@pytest.mark.parametrize(
    "hidden",
    ["__MACOSX/a/._0.png", ".ipynb_checkpoints/a.png", "@eaDir/a.png", "a/.DS_Store", ".git/b.png",
     "a/__MACOSX/x.png", "a/._1.png", "$RECYCLE.BIN/x.png"],
)  # fmt: skip
def test_folders_and_zips_hide_the_same(hidden, tmp_path):
    write(tmp_path / "d", SET | {hidden: numbered(7)})
    archive = zipped(tmp_path / "z.zip", SET | {hidden: numbered(7)})
    for source in (tmp_path / "d", archive):
        pictures = open_dataset(source)
        assert (len(pictures.items), pictures.problems) == (10, ())


def test_farms_of_links_end(tmp_path):
    """Ten folders, each with two links to the next: 1,024 ways to the last."""
    write(tmp_path, SET)
    for level in range(10):
        (tmp_path / "farm" / str(level)).mkdir(parents=True)
        if level:
            for way in "xy":
                (tmp_path / "farm" / str(level - 1) / way).symlink_to(
                    tmp_path / "farm" / str(level), target_is_directory=True
                )
    listing = Folder(str(tmp_path)).listing()
    assert len(listing.folders) < 300
    assert any("links lead to this folder" in p.line for p in listing.problems)


def test_folders_too_deep_are_left_out(tmp_path):
    write(tmp_path, SET | {"a/" + "d/" * 100 + "x.png": numbered(5)})
    pictures = open_dataset(tmp_path)
    assert len(pictures.items) == 10
    assert "folders inside each other; left out" in pictures.problems[0].line


# ---- zips ---------------------------------------------------------------------------------------


def test_zips_made_on_windows(tmp_path):
    path = zipped(tmp_path / "z.zip", {k.replace("/", "\\"): v for k, v in SET.items()})
    assert Archive(str(path)).listing().files == tuple(sorted(SET))
    assert len(open_dataset(path).items) == 10


@pytest.mark.parametrize("encoding", ["cp437", "utf-8"])
def test_names_without_the_utf_8_flag(encoding, tmp_path):
    path = zipped(tmp_path / "z.zip", {"caf\u00e9/0.png": numbered(1)} | SET)
    data = path.read_bytes()
    old, new = "caf\u00e9".encode(), "caf\u00e9".encode(encoding).ljust(5, b"\0")
    if encoding == "cp437":
        old, new = "caf\u00e9/0.png".encode(), "caf\u00e9/00.png".encode("cp437")
    data = data.replace(old, new)
    at = data.index(b"PK\1\2") + 8
    flags = struct.unpack_from("<H", data, at)[0] & ~0x800
    head = struct.unpack_from("<H", data, 6)[0] & ~0x800
    data = (
        data[:6] + struct.pack("<H", head) + data[8:at] + struct.pack("<H", flags) + data[at + 2 :]
    )
    path.write_bytes(data)
    name = "caf\u00e9/00.png" if encoding == "cp437" else "caf\u00e9/0.png"
    assert name in Archive(str(path)).listing().files
    assert Archive(str(path)).read(name) == numbered(1)


def test_a_name_twice_is_said(tmp_path):
    path = tmp_path / "z.zip"
    with zipfile.ZipFile(zipped(path, SET), "a") as archive, pytest.warns(UserWarning):
        archive.writestr("a/0.png", numbered(500))
    pictures = open_dataset(path)
    assert [p.line for p in pictures.problems] == ["a/0.png: twice in the zip; the last one counts"]
    assert pictures.store.files.read("a/0.png") == numbered(500)  # type: ignore[attr-defined]


METHODS = {"deflate": zipfile.ZIP_DEFLATED, "bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}


@pytest.mark.parametrize("method", METHODS)
def test_damaged_members_cost_a_line_each(method, tmp_path):
    path = zipped(tmp_path / "z.zip", SET, METHODS[method])
    start = 30 + len("a/0.png")
    edited(path, (b"PK\3\4", start, b"\xff" * 20))
    pictures = open_dataset(path)
    assert [p.where for p in pictures.problems] == ["a/0.png"]
    assert pictures.problems[0].line.startswith("a/0.png: damaged inside the zip (")


@pytest.mark.parametrize(
    ("edit", "kind"),
    [
        ((b"PK\1\2", 10, b"\x63\0"), "broken"),  # a method that nobody knows
        ((b"PK\1\2", 16, b"\1\2\3\4"), "broken"),  # another checksum
        ((b"PK\1\2", 8, b"\x01\0"), "locked"),
        ((b"PK\1\2", 8, b"\x41\0"), "locked"),
        ((b"PK\1\2", 24, b"\xff\xff\xff\x7f"), "too-large"),  # claims two gigabytes
        ((b"PK\1\2", 42, b"\xff\xff\0\0"), "broken"),  # begins beyond its place
    ],
)
def test_what_a_member_claims(edit, kind, tmp_path):
    path = edited(zipped(tmp_path / "z.zip", SET), edit)
    pictures = open_dataset(path)
    assert [p.kind for p in pictures.problems] == [kind]
    assert pictures.problems[0].where == "a/0.png" and len(pictures.items) == 9


def test_bombs_are_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "FREE_BYTES", 1 << 16)
    path = zipped(tmp_path / "z.zip", SET | {"a/bomb.png": bytes(1 << 20)}, zipfile.ZIP_DEFLATED)
    (line,) = [p.line for p in open_dataset(path).problems]
    assert "that unpack to 1,048,576, refused as a decompression bomb" in line
    monkeypatch.setattr(limits, "MAX_CONTENTS", 100)
    with pytest.raises(UserError, match="its table of contents has"):
        open_dataset(path)


def test_overlapping_members_are_a_bomb(tmp_path):
    """Every entry of the table of contents leads to the same megabyte."""
    path = tmp_path / "z.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/0.png", bytes(1 << 16))
        for i in range(1, 20):
            info = zipfile.ZipInfo(f"a/{i}.png")
            first = archive.filelist[0]
            for name in ("CRC", "compress_size", "file_size", "header_offset"):
                setattr(info, name, getattr(first, name))
            archive.filelist.append(info)
    with pytest.raises(UserError, match="a zip bomb, or damaged"):
        open_dataset(path)


def test_names_of_many_folders(tmp_path):
    path = zipped(tmp_path / "z.zip", SET | {"d/" * 20_000 + "x.png": numbered(3)})
    (problem,) = open_dataset(path).problems
    assert problem.kind == "unsafe-name" and "64 folders inside each other" in problem.line


@pytest.mark.parametrize("cut", [0, 1, 21, 100, -1, -21, -30, -100])
def test_cut_zips_are_one_line(cut, tmp_path):
    path = zipped(tmp_path / "z.zip", SET)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match="is not a zip file that can be read") as caught:
        open_dataset(path)
    assert "\n" not in str(caught.value)


def test_a_pipe_called_zip_or_csv_is_refused(tmp_path):
    for name in ("x.zip", "x.csv", "x.parquet"):
        os.mkfifo(tmp_path / name)
        assert stat.S_ISFIFO((tmp_path / name).stat().st_mode)
        with pytest.raises(UserError, match="regular file"):
            open_dataset(tmp_path / name)
