"""Keep memory that the model frees for its next step, instead of giving it back to the system.

glibc gives blocks above 32 MB back at once and takes them anew, page by page, a moment later: the
activations of every step. ``python -m benchmarks.heap`` measures what keeping them gains.
"""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
"""Numbers of mallopt(3)."""
_KEEP = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26))
_USUAL = (
    (_MMAP_MAX, 65536),
    (_MMAP_THRESHOLD, 2**25),
    (_TRIM_THRESHOLD, 2**26),
    (_TOP_PAD, 2**17),
)
"""What glibc comes to by itself, once large blocks were freed."""


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Within it, freed memory stays with the process; after it, what is free goes back.

    Nothing happens where the C library is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    for option, value in _KEEP:
        libc.mallopt(option, value)
    try:
        yield
    finally:
        for option, value in _USUAL:
            libc.mallopt(option, value)
        libc.malloc_trim(0)
