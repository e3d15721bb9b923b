"""What a set is made of: labelled images, and what was wrong with the others.

``Item`` names one image; ``Problem`` says in one line what a person should know about one.
"""

import csv
import hashlib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vitrail.errors import cell_text, printable

SPLITS = ("train", "val", "test")

#: Every kind of problem, and whether the image (or class, or folder) is left out because of it.
#: With ``strict`` those that are left out stop the run; the others only deserve a line.
KINDS: dict[str, bool] = {
    # one image
    "empty-file": True,
    "not-a-picture": True,
    "truncated": True,
    "broken": True,
    "too-large": True,
    "unreadable": True,
    "missing": True,
    "link-to-nothing": True,
    # several images
    "leak": True,
    "duplicate": True,
    "copies": False,
    "two-labels": True,
    # folders and archives
    "unreadable-folder": True,
    "link-loop": True,
    "unsafe-name": True,
    "repeated-name": False,
    "locked": True,
    "outside-classes": True,
    "unsupported": True,
    "other-files": False,
    "other-folder": True,
    "empty-class": True,
    "single-picture": False,
    "similar-classes": False,
    "never-checked": False,
    "seen-before": False,
    "unknown-class": True,
    # tables
    "row": True,
    "repeated-row": False,
    "extra-columns": False,
}


@dataclass(frozen=True, slots=True)
class Item:
    """One labelled image.

    ``key`` names it inside its source (a path with ``/``). ``label`` counts in the order of
    ``ImageDataset.classes``. ``digest`` is a 128-bit hash of its bytes, empty where another library
    keeps the images. ``size`` is (width, height) when upright, (0, 0) if unknown.
    """

    key: str
    label: int
    split: str
    digest: str = ""
    size: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that a person should know: ``line`` says it, and what was done about it."""

    kind: str
    where: str
    line: str

    def __post_init__(self) -> None:
        for name in ("where", "line"):
            object.__setattr__(self, name, printable(getattr(self, name)))

    @property
    def left_out(self) -> bool:
        """Whether something is left out of the set because of this."""
        return KINDS[self.kind]


def write_problems(path: str | Path, problems: Iterable[Problem]) -> None:
    """Write ``problems.csv``: columns kind, where, left_out, line."""
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("kind", "where", "left_out", "line"))
        for p in problems:
            rows.writerow(map(cell_text, (p.kind, p.where, "yes" if p.left_out else "no", p.line)))


def normalize_nfc(text: str) -> str:
    """``text`` in Unicode's composed form (NFC).

    macOS writes accents decomposed, other systems composed: the same name either way.
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def content_digest(data: bytes) -> str:
    """128-bit hash of a file's bytes as 32 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def stable_seed(*parts: object) -> int:
    """A 63-bit seed that is a pure function of ``parts``: numbers and texts.

    The same on every machine, in every process and Python version (unlike ``hash``).
    """
    text = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1


def format_count(number: int, noun: str, plural: str = "") -> str:
    """``1 picture``, ``2 pictures``, ``3 classes`` (with the plural given)."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
