"""How much an image, a file, an archive or a table may ask for: every reader keeps to these.

They are far above what people bring, and low enough that a damaged or hostile file costs a line,
not the machine.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from vitrail.limits import FREE_BYTES as FREE_BYTES
from vitrail.limits import UNPACKED_RATIO as UNPACKED_RATIO

#: Images with more pixels than this are refused before they are decoded (about 537 MB as RGB).
MAX_PIXELS = 178_956_970

#: The long side of an image over its short side.
MAX_ASPECT = 2_000

#: Above ``FREE_PIXELS``, a file must hold a byte for so many pixels, by format: blank images do,
#: a few bytes that only claim a size do not. Others than these: ``PIXELS_PER_BYTE``.
FREE_PIXELS = 1 << 24
PIXELS_PER_BYTE = 100_000
PIXELS_PER_BYTE_OF = {
    "JPEG": 5_000,
    "MPO": 5_000,
    "PNG": 10_000,
    "GIF": 4_000,
    "BMP": 1_000,
    "WEBP": 30_000,
}

#: A JPEG's scans times its pixels: some ten scans are usual, thousands only cost time.
MAX_SCANNED = 1 << 32

#: A file, or a zip's member once unpacked, that is larger than this is refused unread.
MAX_BYTES = 1 << 30

#: A zip's table of contents; some 100 bytes a member.
MAX_CONTENTS = 1 << 28

#: Folders inside each other.
MAX_DEPTH = 64

#: How often one folder is listed when links lead to it on several ways.
MAX_VISITS = 16

#: Bytes of one row group of a Parquet file with images inside; each is read whole.
MAX_ROW_GROUP = 1 << 30

#: Bytes that all threads together hold: files read, and images decoded.
HELD_AT_ONCE = 1 << 30

#: Bytes of decoded images in one batch of prediction, beyond the first image.
BATCH_BYTES = 1 << 27

#: Bytes of a decoded pixel in Pillow's memory, whatever its mode.
BYTES_PER_PIXEL = 4


class MemoryGate:
    """Lets threads hold up to ``limit`` bytes together; what is larger goes through alone."""

    def __init__(self, limit: int = HELD_AT_ONCE):
        self.limit, self.held = limit, 0
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Wait until ``size`` bytes are free, and keep them until the block ends."""
        with self._changed:
            self._changed.wait_for(lambda: not self.held or self.held + size <= self.limit)
            self.held += size
        try:
            yield
        finally:
            with self._changed:
                self.held -= size
                self._changed.notify_all()
