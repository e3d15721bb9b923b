"""Zips: damaged, locked, of odd names and methods, and bombs."""

import io
import random
import struct
import zipfile
from functools import cache

from benchmarks.faults.damage import EXTREME, damaged
from benchmarks.faults.stage import zipped
from benchmarks.faults.trial import Kind, Trial
from benchmarks.faults.verdict import Fault

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
NAMES = (
    "../up.png", "/etc/abs.png", "C:\\win.png", "a\\b\\back.png", "a/../../up.png", "a//b.png",
    "__MACOSX/a/._0.png", "a/._x.png", ".hidden/x.png", "a/ .png", "a/\x1b[31mred.png",
    "a/line\nbreak.png", "a/[/red].png", "a/" + "x" * 250 + ".png", "a/e\u0301.png", "a/\u00e9.png",
    "\u202egnp.a/x.png", "a", "a/", "", ".", "..", "a/b/c/d/e/f.png", "CON/x.png", "a/x.png/y.png",
)  # fmt: skip
CENTRAL, LOCAL = b"PK\x01\x02", b"PK\x03\x04"
BOMB = 32 << 20


def archive(trial: Trial) -> None:
    """One zip through ``check``; what it lists must be readable as training reads it."""
    make = trial.chance.choice((broken, broken, edited, edited, named, bomb))
    path = trial.file("photos.zip", make(trial))
    said = trial.command("check", path, "--json", "--val", "0.3")
    if said.status == 0:
        read_all(str(path))


def read_all(source: str) -> None:
    """Every picture that a set lists, read.

    Raises:
        Fault: one that the set called good.
    """
    from vitrail.data import open_dataset
    from vitrail.data.decode import ImageError

    pictures = open_dataset(source, val=0.3)
    for item in pictures.items:
        try:
            pictures.read(item, 16)
        except ImageError as error:
            raise Fault("listed as good, then not readable", str(error)) from error


def whole(trial: Trial) -> bytes:
    """The photos in a zip."""
    return _zips(trial.stage.photos.as_posix())[trial.chance.choice(METHODS)]


@cache
def _zips(photos: str) -> dict[int, bytes]:
    from pathlib import Path

    return {method: zipped(Path(photos), method) for method in METHODS}


def broken(trial: Trial) -> bytes:
    """Damage anywhere."""
    return damaged(whole(trial), trial.chance)


def edited(trial: Trial) -> bytes:
    """Fields of headers: sizes, methods, flags (locked), offsets."""
    data = bytearray(whole(trial))
    chance = trial.chance
    for _ in range(chance.choice((1, 1, 2, 5))):
        mark = chance.choice((CENTRAL, LOCAL, b"PK\x05\x06"))
        starts = places(data, mark)
        if not starts:
            continue
        at = chance.choice(starts) + 4 + 2 * chance.randrange(20)
        if at + 4 > len(data):
            continue
        kind = chance.choice(("<H", "<I"))
        width = struct.calcsize(kind)
        value = chance.choice((*EXTREME, 9, 12, 14, 93, 95, 97, 99)) & (256**width - 1)
        data[at : at + width] = struct.pack(kind, value)
    return bytes(data)


def places(data: bytearray, mark: bytes) -> list[int]:
    """Where a mark stands."""
    found, at = [], data.find(mark)
    while at >= 0:
        found.append(at)
        at = data.find(mark, at + 1)
    return found


def named(trial: Trial) -> bytes:
    """Odd names among good ones, some twice."""
    held = io.BytesIO(whole(trial))
    sources = [path.read_bytes() for path in trial.stage.good()]
    with zipfile.ZipFile(held, "a") as made:
        for name in trial.chance.sample(NAMES, 6):
            try:
                made.writestr(zipfile.ZipInfo(name), trial.chance.choice(sources))
            except (ValueError, UnicodeEncodeError):
                continue
    return held.getvalue()


def bomb(trial: Trial) -> bytes:
    """Members that unpack to far more than they are: zeros, many times, under names of pictures."""
    held = io.BytesIO(whole(trial))
    count = trial.chance.choice((1, 4, 12))
    with zipfile.ZipFile(held, "a", zipfile.ZIP_DEFLATED) as made:
        for i in range(count):
            made.writestr(f"cat/bomb-{i}.png", head(trial.chance) + bytes(BOMB // count))
    return held.getvalue()


def head(chance: random.Random) -> bytes:
    """How a picture begins."""
    return chance.choice((b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"BM", b"II*\0"))


KINDS = (
    Kind(name="archives", about="zips: damaged, locked, odd names, bombs", attempt=archive,
         weight=1.5, seconds=60),
)  # fmt: skip
