import struct
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from tests.data.corpus import BAD, GOOD, HEIGHT, WIDTH, Bad, Good, picture, saved, truth

from vitrail.data import decode as module
from vitrail.data.decode import ImageError, decode, decode_values, probe, to_rgb
from vitrail.data.items import KINDS
from vitrail.data.limits import MemoryGate


@pytest.mark.parametrize("good", GOOD, ids=lambda good: good.name)
def test_odd_pictures_decode_to_what_they_show(good: Good, monkeypatch):
    """In one piece, and in pieces of three rows."""
    image = decode(good.data())
    assert image.mode == "RGB"
    pixels, expected = np.asarray(image, float), np.asarray(good.pixels(), float)
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).mean() <= good.within
    assert probe(good.data()) == image.size
    monkeypatch.setattr(module, "_PIXELS_AT_ONCE", 3 * WIDTH)
    np.testing.assert_array_equal(np.asarray(decode(good.data())), np.asarray(image))


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_bad_pictures_say_why(bad: Bad):
    for read in (decode, probe):
        with pytest.raises(ImageError) as caught:
            read(bad.data())
        assert caught.value.kind == bad.kind
        assert bad.says in str(caught.value), read
        assert "\n" not in str(caught.value)
    assert KINDS[bad.kind]


def test_a_bomb_is_refused_before_it_is_unpacked(monkeypatch):
    monkeypatch.setattr(module, "MAX_PIXELS", WIDTH * HEIGHT - 1)
    with pytest.raises(ImageError, match="24 x 16 is more than 383 pixels"):
        decode(picture())


def test_all_eight_orientations():
    stored = truth()
    for tag, turned in {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1],
        5: stored.transpose(1, 0, 2), 6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(stored, 1),
    }.items():  # fmt: skip
        exif = Image.Exif()
        exif[0x0112] = tag
        data = picture(exif=exif.tobytes())
        np.testing.assert_array_equal(np.asarray(decode(data)), turned, err_msg=str(tag))
        assert probe(data) == turned.shape[1::-1]


def test_large_jpegs_may_be_decoded_small_but_never_below_the_short_side():
    large = saved(Image.fromarray(truth()).resize((640, 400)), "JPEG")
    assert decode(large).size == (640, 400)
    assert decode(large, short_side=100).size == (160, 100)
    assert decode(large, short_side=101).size == (320, 200)
    assert decode(large, short_side=1000).size == (640, 400)


def test_truncation_is_seen_in_small_decoding_too():
    large = saved(Image.fromarray(truth()).resize((640, 400)), "JPEG", quality=95)
    for short_side in (None, 50, 100):
        with pytest.raises(ImageError, match="truncated"):
            decode(large[: len(large) // 2], short_side=short_side)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 65535]], np.int32), [0, 255]),
        (np.array([[0, 1 << 20]], np.int32), [0, 255]),
        (np.array([[-5, 5]], np.int32), [0, 255]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 51.0, 255.0]], np.float32), [0, 51, 255]),
        (np.array([[0.0, 25700.0]], np.float32), [0, 100]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[np.nan, 1.0]], np.float32), [0, 255]),
        (np.array([[7e5, 7e5]], np.float32), [0, 0]),
    ],
)
def test_wide_values_come_down_to_eight_bits(values, expected):
    assert np.asarray(to_rgb(Image.fromarray(values)))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("mode", ["LA", "La", "RGBA", "RGBa"])
def test_every_mode_with_transparency_lies_on_white(mode):
    clear, solid = (Image.new("RGBA", (1, 1), (100, 100, 100, alpha)) for alpha in (0, 255))
    steps = ("LA", "La") if mode == "La" else (mode,)
    for image, shown in ((clear, 255), (solid, 100)):
        for step in steps:
            image = image.convert(step)
        assert to_rgb(image).getpixel((0, 0)) == (shown, shown, shown)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]),
    cuts=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
    end=st.floats(0.1, 1),
)
def test_damage_gives_a_picture_or_a_reason_and_nothing_else(kind, cuts, end):
    data = bytearray(picture(kind=kind))
    for place, value in cuts:
        data[min(len(data) - 1, int(place * len(data)))] = value
    damaged = bytes(data[: int(end * len(data))])
    for read in (decode, probe):
        try:
            read(damaged)
        except ImageError as error:
            assert KINDS[error.kind]


def tiff_header(width: int, height: int, bits: int = 8, compression: int = 1) -> bytes:
    """A TIFF of a hundred bytes or so that claims a size."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, compression), (262, 3, 1),
            (273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, 100), (339, 3, 3)]  # fmt: skip
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + bytes(104)


@pytest.mark.parametrize("compression", [1, 5, 8])
def test_a_header_alone_costs_nothing(compression):
    """Nothing is set aside for pixels that so small a file cannot hold."""
    data = tiff_header(13_000, 13_000, bits=32, compression=compression)
    tracemalloc.start()
    for read in (decode, probe, decode_values):
        with pytest.raises(ImageError, match="bytes cannot hold 13000 x 13000 pixels|truncated"):
            read(data)
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()


def test_blank_scans_are_no_bombs():
    blank = saved(Image.new("1", (5_000, 5_000), 1), "TIFF", compression="group4")
    assert probe(blank) == (5_000, 5_000) and len(blank) < 10_000


@pytest.mark.parametrize("size", [(1, 2_001), (6_003, 3)])
def test_too_thin(size):
    with pytest.raises(ImageError, match="is thinner than 1 to 2,000") as caught:
        decode(saved(Image.new("L", size), "PNG"))
    assert caught.value.kind == "too-large"


@pytest.mark.parametrize(
    "error", [RecursionError("x"), MemoryError(), AssertionError(), KeyError(1)]
)
def test_whatever_a_reader_raises_is_a_reason(error, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    for read in (decode, probe, decode_values):
        with pytest.raises(ImageError):
            read(picture(kind="PPM"))
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(ImageError):
        decode(picture())


def test_threads_together_hold_no_more_than_the_gate():
    gate, most, now = MemoryGate(10), [0], [0]
    lock = threading.Lock()

    def work(size: int) -> None:
        with gate.hold(size):
            with lock:
                now[0] += size
                most[0] = max(most[0], now[0])
            time.sleep(0.001)
            with lock:
                now[0] -= size

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [3, 4, 5, 25, 1, 10, 2] * 3))
    assert most[0] == 25 and gate.held == 0


def test_a_jpeg_of_endless_scans_is_refused_unread():
    data = saved(Image.new("L", (2048, 2048), 128), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    assert probe(data) == probe(data[:-2] + 5 * last + data[-2:]) == (2048, 2048)
    with pytest.raises(ImageError, match=r"1,\d\d\d scans of 2048 x 2048 pixels") as caught:
        probe(data[:-2] + 1024 * last + data[-2:])
    assert caught.value.kind == "too-large"
