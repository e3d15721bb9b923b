"""How much this machine can hold, and what is refused because it holds less.

Nothing here is exact: it refuses what no run could finish, before anything is built or read.
"""

import os
from pathlib import Path

from vitrail.errors import UserError

UNPACKED_RATIO = 200
"""Above ``FREE_BYTES``, a packed file may unpack to so many times its size."""
FREE_BYTES = 1 << 24
MOST = 2**16
"""No width, count or size of a model is larger."""
SEEDS = 2**63
"""Seeds are whole numbers from 0 up to this one, which is none."""
PIXEL_COPIES = 4
"""Of one image in memory at once: bytes, floats, a map of the first layer, its gradient."""
GROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def usable_memory() -> int:
    """Bytes of the machine, or of the container where that is less; 0 where nobody says."""
    names = getattr(os, "sysconf_names", {})
    known = "SC_PHYS_PAGES" in names and "SC_PAGE_SIZE" in names
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if known else 0
    allowed = [int(text) for text in map(_read, GROUPS) if text.isdigit()]
    return min([total, *allowed]) if total > 0 else min(allowed, default=0)


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def fits_in_memory(needed: int) -> bool:
    """Whether so many bytes can be held; yes where nobody knows."""
    usable = usable_memory()
    return not usable or needed <= usable


def format_amount(amount: float, unit: str = "B") -> str:
    """``3e9`` -> ``"3 GB"``."""
    for scale, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if amount >= scale:
            return f"{amount / scale:.3g} {prefix}{unit}"
    return f"{amount:.3g} {unit}"


def refuse_large_batch(batch: int, image: int | tuple[int, int], in_chans: int = 3) -> None:
    """Images at once that no memory here could hold.

    Raises:
        UserError: they do not fit.
    """
    height, width = (image, image) if isinstance(image, int) else image
    needed = PIXEL_COPIES * 4 * batch * in_chans * height * width
    if not fits_in_memory(needed):
        raise UserError(
            f"{batch} pictures of {height} x {width} pixels at once take {format_amount(needed)} "
            f"or more, this machine has {format_amount(usable_memory())}; choose fewer or smaller "
            "ones"
        )


def check_seed(seed: int, name: str = "the seed") -> int:
    """``seed``, if every generator takes it.

    Raises:
        UserError: below 0, or of more than 63 bits.
    """
    if not 0 <= seed < SEEDS:
        raise UserError(f"{name} must be a whole number from 0 to {SEEDS - 1}, not {seed}")
    return seed


def check_share(value: float, name: str) -> float:
    """``value``, if it is a share above 0 and up to 1.

    Raises:
        UserError: it is not.
    """
    if not 0 < value <= 1:
        raise UserError(f"{name} must be above 0 and at most 1 (10 % is 0.1), not {value}")
    return value


def check_count(value: int, name: str, least: int = 1, most: int = 10**9) -> int:
    """``value``, if it lies within a range that makes sense.

    Raises:
        UserError: it does not.
    """
    if value < least:
        raise UserError(f"{name} must be {least} or more, not {value}")
    if value > most:
        raise UserError(f"{name} must be at most {most}, not {value}")
    return value
