"""How many steps an ONNX file asks for, before a runtime opens it.

Loops may never end, and a few functions that call one another stand for steps without number: a
runtime writes them all out when it opens the file. Only what is needed of the format is read here
(``onnx.proto``), and no weight is::

    model -> 7 graph, 25 functions      node      -> 4 operation, 5 attributes, 7 domain
    graph -> 1 nodes                    attribute -> 6, 11 graphs
    function -> 1 name, 7 nodes, 10 domain
"""

import mmap
from collections.abc import Iterator

MOST_STEPS = 10**6
"""The largest models have some ten thousand."""
MOST_DEPTH = 50
"""Of graphs within graphs and functions within functions."""
LOOPS = ("Loop", "Scan", "SequenceMap")

Bytes = mmap.mmap | bytes
Span = tuple[int, int]
Name = tuple[bytes, bytes]


class Endless(ValueError):
    """What the file asks for has no end, or none that is near."""


def refuse_endless(data: Bytes) -> None:
    """Refuse loops, and functions that stand for too many steps.

    Raises:
        Endless: there are such.
        ValueError: a file of another format.
    """
    functions: dict[Name, list[Name]] = {}
    calls: list[Name] = []
    for number, span in fields(data, (0, len(data))):
        if number == 7:
            calls += calls_in(data, span, nodes=1)
        elif number == 25:
            functions[name_of(data, span, name=1, domain=10)] = calls_in(data, span, nodes=7)
    count_steps(calls, functions, {})


def count_steps(
    calls: list[Name], functions: dict[Name, list[Name]], known: dict[Name, int], depth: int = 0
) -> int:
    """Steps of these operations, with those of the functions they call.

    Raises:
        Endless: they are too many, or a function calls itself.
    """
    if depth > MOST_DEPTH:
        raise Endless(f"its functions call one another, {MOST_DEPTH} deep or without end")
    total = 0
    for name in calls:
        if name in functions and name not in known:
            known[name] = count_steps(functions[name], functions, known, depth + 1)
        total += known.get(name, 1)
    if total > MOST_STEPS:
        raise Endless(f"it stands for more than {MOST_STEPS:,} steps")
    return total


def calls_in(data: Bytes, body: Span, nodes: int, depth: int = 0) -> list[Name]:
    """Operations of a graph or function, and of the graphs within it.

    Raises:
        Endless: one of them is a loop.
    """
    if depth > MOST_DEPTH:
        raise Endless(f"it holds graphs within graphs, {MOST_DEPTH} deep")
    found: list[Name] = []
    for number, node in fields(data, body):
        if number != nodes:
            continue
        name = name_of(data, node, name=4, domain=7)
        if name[1].decode("ascii", "replace") in LOOPS:
            raise Endless(f"it repeats steps ({name[1].decode()}), maybe without end")
        found.append(name)
        for inner, attribute in fields(data, node):
            if inner == 5:
                for part, graph in fields(data, attribute):
                    if part in (6, 11):
                        found += calls_in(data, graph, nodes=1, depth=depth + 1)
    return found


def name_of(data: Bytes, span: Span, name: int, domain: int) -> Name:
    """Domain and name; of a field that is said twice the last counts."""
    said = dict(fields(data, span))
    first, last = (slice(*said.get(number, (0, 0))) for number in (domain, name))
    return data[first], data[last]


def fields(data: Bytes, span: Span) -> Iterator[tuple[int, Span]]:
    """Number and place of each field of a message that holds bytes or messages.

    Raises:
        ValueError: no message.
    """
    at, end = span
    while at < end:
        key, at = varint(data, at, end)
        kind = key & 7
        if kind == 2:
            size, at = varint(data, at, end)
            yield key >> 3, (at, min(at + size, end + 1))
            at += size
        elif kind == 0:
            _, at = varint(data, at, end)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError("no model's fields")
        if at > end:
            raise ValueError("it is cut off")


def varint(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """A number of up to 64 bits, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        value, at = value | (byte & 127) << shift, at + 1
        if byte < 128:
            return value & (2**64 - 1), at
    raise ValueError("it is cut off")
