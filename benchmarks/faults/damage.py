"""Damage to bytes: what disks, networks and people with bad intentions do to a file."""

import random
import struct
import zlib
from collections.abc import Callable, Sequence

Damage = Callable[[bytearray, random.Random], bytearray]

EXTREME = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000,
           0xFFFFFFFF)  # fmt: skip


def flip(data: bytearray, chance: random.Random) -> bytearray:
    """A few bits."""
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return data


def cut(data: bytearray, chance: random.Random) -> bytearray:
    """The end is missing."""
    return data[: chance.randrange(len(data))]


def cut_near_end(data: bytearray, chance: random.Random) -> bytearray:
    """The last few bytes are missing."""
    return data[: -chance.randint(1, min(32, len(data)))]


def cut_inside(data: bytearray, chance: random.Random) -> bytearray:
    """A piece in the middle is missing."""
    start = chance.randrange(len(data))
    del data[start : start + chance.randint(1, max(1, len(data) // 4))]
    return data


def repeat(data: bytearray, chance: random.Random) -> bytearray:
    """A piece stands there twice."""
    start = chance.randrange(len(data))
    end = min(len(data), start + chance.randint(1, 64))
    return data[:end] + data[start:end] + data[end:]


def insert(data: bytearray, chance: random.Random) -> bytearray:
    """Bytes that do not belong there."""
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.randbytes(chance.randint(1, 64)) + data[at:]


def blank(data: bytearray, chance: random.Random) -> bytearray:
    """A region of zeros or ones, as a bad sector gives it."""
    start = chance.randrange(len(data))
    size = min(len(data) - start, chance.randint(1, 512))
    data[start : start + size] = bytes([chance.choice((0, 255))]) * size
    return data


def field(data: bytearray, chance: random.Random) -> bytearray:
    """A number near the beginning says something extreme: sizes, counts, offsets."""
    for _ in range(chance.choice((1, 1, 2, 3))):
        kind = chance.choice(("B", "<H", ">H", "<I", ">I"))
        width = struct.calcsize(kind)
        reach = min(len(data), chance.choice((32, 64, 256, len(data))))
        if reach <= width:
            continue
        at = chance.randrange(reach - width)
        value = chance.choice((*EXTREME, chance.getrandbits(32), len(data)))
        data[at : at + width] = struct.pack(kind, value & (256**width - 1))
    return data


def digits(data: bytearray, chance: random.Random) -> bytearray:
    """A number written in digits near the beginning becomes another."""
    places = [i for i, byte in enumerate(data[:256]) if 48 <= byte <= 57]
    if not places:
        return flip(data, chance)
    at = chance.choice(places)
    number = chance.choice((b"0", b"-1", b"99999", b"4294967296", b"1e9", b"1", b"x"))
    return data[:at] + bytearray(number) + data[at + 1 :]


DAMAGES: tuple[Damage, ...] = (
    flip, flip, cut, cut_near_end, cut_inside, repeat, insert, blank, field, field, field, digits,
)  # fmt: skip


def damaged(data: bytes, chance: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """``data`` after one to three damages; with ``others``, sometimes spliced with one of them."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        if not made:
            break
        if others and chance.random() < 0.1:
            made = splice(made, bytearray(chance.choice(others)), chance)
        else:
            made = chance.choice(DAMAGES)(made, chance)
    return bytes(made)


def splice(one: bytearray, other: bytearray, chance: random.Random) -> bytearray:
    """The beginning of one file and the end of another."""
    return one[: chance.randrange(len(one))] + other[chance.randrange(len(other) or 1) :]


def with_png_checks(data: bytes) -> bytes:
    """A PNG whose checksums fit its damaged chunks, so that readers go on into them."""
    made, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        body = data[at + 4 : at + 8 + size]
        check = struct.pack(">I", zlib.crc32(body))
        made += data[at : at + 4] + body + check
        at += 12 + size
        if len(body) < 4 + size:
            break
    return bytes(made)
