"""Counting the steps of an ONNX file without opening it; runtimes are asked in ``test_runtime``."""

import pytest

from vitrail.export.steps import MOST_DEPTH, Endless, fields, refuse_endless


def part(number: int, content: bytes) -> bytes:
    """A field that holds bytes."""
    key, size = number << 3 | 2, len(content)
    numbers = [[n & 127 | 128, n >> 7 & 127 | 128, n >> 14] for n in (key, size)]
    return bytes(numbers[0]) + bytes(numbers[1]) + content


def step(name: bytes, inner: bytes = b"") -> bytes:
    return part(1, part(4, name) + (part(5, part(6, inner)) if inner else b""))


def function(name: bytes, *calls: bytes) -> bytes:
    return part(25, part(1, name) + b"".join(part(7, part(4, call)) for call in calls))


def test_plain_steps_and_functions_are_taken() -> None:
    refuse_endless(part(7, step(b"Relu") + step(b"f")) + function(b"f", b"Relu", b"Looping"))
    refuse_endless(b"\x08\x07" + part(7, step(b"If", step(b"Relu"))))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (part(7, step(b"Scan")), "repeats steps"),
        (part(7, step(b"If", step(b"If", step(b"Loop")))), "repeats steps"),
        (function(b"f", b"SequenceMap"), "repeats steps"),
        (part(7, step(b"f")) + function(b"f", b"f"), "call one another"),
        (part(7, step(b"f") * 100_000) + function(b"f", *[b"Relu"] * 11), "1,000,000 steps"),
    ],
)
def test_steps_without_end(content: bytes, why: str) -> None:
    with pytest.raises(Endless, match=why):
        refuse_endless(content)


def test_graphs_within_graphs_without_end() -> None:
    content = step(b"Relu")
    for _ in range(MOST_DEPTH + 1):
        content = step(b"If", content)
    with pytest.raises(Endless, match="graphs within graphs"):
        refuse_endless(part(7, content))


@pytest.mark.parametrize("content", [b"\x80" * 11, b"\x3a\x05ab", b"\x3b", b"\x3d\0", b"\x08"])
def test_what_is_cut_off_is_no_model(content: bytes) -> None:
    with pytest.raises(ValueError, match="cut off|no model"):
        list(fields(content, (0, len(content))))
