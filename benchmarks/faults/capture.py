"""One command line inside this process: its status and all that it and its libraries say."""

import contextlib
import io
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from benchmarks.faults.verdict import Said


def command(*words: str | Path, encoding: str = "utf-8") -> Said:
    """Run ``vitrail WORDS`` here; C libraries' words are heard too.

    ``encoding`` is what stdout and stderr can show, as on other systems.
    """
    from vitrail.cli import main

    texts = [str(word) for word in words]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with heard(out, err, encoding):
            status = run(lambda: main(texts))
        return Said(tuple(texts), status, read(out), read(err))


def run(call: "object") -> int | None:
    """The exit status of a call; None where it ended in a traceback, which is printed."""
    assert callable(call)
    warnings.resetwarnings()
    try:
        return int(call() or 0)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return None


@contextlib.contextmanager
def heard(out: IO[bytes], err: IO[bytes], encoding: str = "utf-8") -> Iterator[None]:
    """Everything written to stdout and stderr goes into two files."""
    kept = [os.dup(1), os.dup(2)]
    before = sys.stdout, sys.stderr
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    # As Python opens them for a person: what cannot be encoded is an error on stdout.
    sys.stdout = io.TextIOWrapper(os.fdopen(os.dup(1), "wb"), encoding=encoding)
    sys.stderr = io.TextIOWrapper(
        os.fdopen(os.dup(2), "wb", 0), encoding=encoding, errors="backslashreplace",
        write_through=True,
    )  # fmt: skip
    try:
        yield
    finally:
        with contextlib.suppress(ValueError, OSError):
            sys.stdout.close()
        sys.stderr.close()
        sys.stdout, sys.stderr = before
        for handle, number in zip(kept, (1, 2), strict=True):
            os.dup2(handle, number)
            os.close(handle)


def read(file: IO[bytes]) -> str:
    """The text of a file from its beginning."""
    file.seek(0)
    return file.read().decode("utf-8", "backslashreplace")
