"""Decode every file once, in threads: does it decode, its size, its digest."""

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from vitrail.data.decode import ImageError, probe
from vitrail.data.files import Files
from vitrail.data.items import Problem, content_digest
from vitrail.data.layout import ImageRow
from vitrail.data.limits import MemoryGate

#: Called with (done, total) while images are looked at.
OnProgress = Callable[[int, int], None]

_CHUNK = 32  # images a thread takes at a time


@dataclass(frozen=True, slots=True)
class ScannedImage:
    """An image that can be decoded."""

    row: ImageRow
    digest: str
    size: tuple[int, int]


def scan(
    files: Files, rows: Sequence[ImageRow], progress: OnProgress | None = None
) -> tuple[list[ScannedImage], list[Problem]]:
    """Decode every row's file; what can be used, and a line for each that cannot."""
    reading, decoding = MemoryGate(), MemoryGate()  # always taken in this order: no deadlock
    chunks = [rows[i : i + _CHUNK] for i in range(0, len(rows), _CHUNK)]
    seen: list[ScannedImage] = []
    problems: list[Problem] = []
    done = 0

    def one(row: ImageRow) -> ScannedImage | Problem:
        try:
            with reading.hold(files.size(row.key)):
                data = files.read(row.key)
                return ScannedImage(row, content_digest(data), probe(data, decoding))
        except ImageError as error:
            return Problem(error.kind, row.key, f"{row.key}: {error}; left out")

    # Threads: Pillow's decoders run without the interpreter's lock.
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # Pillow's asides; what matters gets its own line
        for chunk in pool.map(lambda part: [one(row) for row in part], chunks):
            for found in chunk:
                (seen if isinstance(found, ScannedImage) else problems).append(found)  # type: ignore[arg-type]
            done += len(chunk)
            if progress:
                progress(done, len(rows))
    return seen, problems
