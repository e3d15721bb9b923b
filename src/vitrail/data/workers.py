"""How many loader processes fit into shared memory, and why one of them died.

Workers hand over batches in shared memory (``/dev/shm``), which a container often has 64 MB of; a
worker that finds it full dies by a bus error. So workers are few enough for what is free. The
batches do not depend on their number.
"""

import contextlib
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess

from vitrail.errors import UserError

SHARED_MEMORY = "/dev/shm"
PREFETCH = 4
"""Batches that each worker prepares ahead."""
_HELD = 3
"""Batches that the reader holds, or has not given back yet."""
_FULL = 0.8
"""Share of the free shared memory that we take at most."""
_FILES = ("Too many open files", "received 0 items of ancdata")
_MEMORY = ("shared memory", "No space left on device", "Bus error")


class WorkerError(UserError):
    """A process that read images died, or could not hand over what it read."""


def limit_workers(workers: int, batch_bytes: int, free: float) -> tuple[int, int]:
    """Workers and batches ahead for each, that ``free`` bytes of shared memory have room for."""
    room = _FULL * free / max(batch_bytes, 1) - _HELD
    if room < 1 or workers < 1:
        return 0, 0
    chosen = int(min(workers, room))
    return chosen, int(min(PREFETCH, room // chosen))


def free_shared_memory() -> float:
    """Bytes; 0 where there should be some and is not, infinite where a system needs none of it."""
    import sys

    if sys.platform != "linux":
        return float("inf")
    try:
        return shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return 0


def start_worker(number: int) -> None:
    """What a worker does first: leave Ctrl-C and a closed terminal to the reader, and end with it.

    torch's own workers look for the process that they found when they began, and live for ever
    where the reader was killed just before.
    """
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=end_with_reader, daemon=True).start()


def end_with_reader() -> None:
    """Wait until the process that reads the batches is gone, and end."""
    reader = multiprocessing.parent_process()
    if reader is not None:
        reader.join()
        os._exit(1)


@contextlib.contextmanager
def keep_sigchld_handler() -> Iterator[None]:
    """Keep the handler for ended children as it is while workers start.

    torch's own raises an error in the middle of whatever runs, such as half an update. Without
    it the death is noticed within five seconds, when a batch is waited for.
    """
    if not hasattr(signal, "SIGCHLD") or (
        threading.current_thread() is not threading.main_thread()
    ):
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGCHLD, before)


def explain_worker_error(error: BaseException, workers: Sequence[BaseProcess]) -> str | None:
    """In one line why batches do not come; None where it is another kind of error."""
    text = str(error)
    gone = isinstance(error, EOFError | ConnectionError | FileNotFoundError)  # it was to hand over
    for worker in workers if gone else ():
        worker.join(1.0)  # the system tells a little later how it ended
    codes = [worker.exitcode for worker in workers if worker.exitcode]
    if any(sign in text for sign in _FILES):
        return (
            "the processes that read pictures have too many files open; raise the limit "
            "(ulimit -n 4096)"
        )
    if -signal.SIGBUS in codes or any(sign in text for sign in _MEMORY):
        return (
            f"the processes that read pictures found the shared memory ({SHARED_MEMORY}) full; "
            "give it more room (docker run --shm-size=2g)"
        )
    if codes or gone or ("DataLoader worker" in text and "exited" in text):
        return f"a process that read pictures {_describe_exit(codes)}"
    return None


def _describe_exit(codes: Sequence[int]) -> str:
    if not codes or codes[0] > 0:
        return "ended before its time"
    name = signal.Signals(-codes[0]).name
    why = " (by the system where memory ran out, or by hand)" if name == "SIGKILL" else ""
    return f"was ended by {name}{why}"
