"""Names that people and strangers give: markup, escape codes, other scripts, no text at all."""

import os
import random
import re
import shutil
import unicodedata
from typing import Any

from benchmarks.faults.stage import TINY
from benchmarks.faults.trial import Kind, Trial
from benchmarks.faults.verdict import Fault

PIECES = (
    "[x]", "[/x]", "[/]", "[bold red]", "[link=http://x]", "\\[", "\x1b[31m", "\x1b]0;t\x07",
    "\r", "\n",
    "\t", "\x7f", "\x9b31m", "\u202e", "\u2066", "\u200b", "\u2028", "e\u0301", "\u00e9",
    "\u1112\u1161", "日本",
    "🐱", ":cat:", "$x_1$", "$\\frac{", "{x}", "{0}", "%s", "%(x)s", "=cmd()", "+1", "-", "--x",
    "@x", "&amp;",
    "<b>", "<script>alert(1)</script>", "'", '"', "`", ";", "|", "*", "?", "~", "#", ",", " ",
    "  ", "x" * 120,
    "CON", "nan", "None", "0", "1.0", "cat", "CAT", "\ud83d", "train",
)  # fmt: skip
ENCODINGS = ("utf-8", "utf-8", "ascii", "cp1252", "latin-1")
ACTS = ("check", "check", "predict", "predict", "train", "explain")


def name_of(chance: random.Random) -> bytes:
    """A file's name, sometimes with bytes that are no text."""
    made = "".join(chance.choice(PIECES) for _ in range(chance.choice((1, 1, 2, 3))))
    data = made.replace("/", "∕").encode("utf-8", "surrogatepass")
    if chance.random() < 0.15:
        data += bytes([chance.choice((0xFF, 0xE9, 0x80))])
    return data[:200].strip(b".\0") or b"x"


def names(trial: Trial) -> None:
    """Class folders and pictures with odd names, shown by check, predict, train or explain."""
    chance = trial.chance
    folder = os.fsencode(trial.folder) + b"/photos"
    good = trial.stage.good()
    classes = list({name_of(chance) for _ in range(3)} | {b"plain"})
    for number, name in enumerate(classes):
        os.makedirs(folder + b"/" + name)  # noqa: PTH103 - the name is bytes
        for i in range(4):
            target = folder + b"/" + name + b"/" + (name_of(chance) + b"%d.png" % i)
            shutil.copy(os.fsencode(good[(number + i) % 3]), target)
            with open(target, "ab") as file:  # noqa: PTH123 - the name is bytes
                file.write(bytes([number, i]))
    act = chance.choice(ACTS)
    data = trial.folder / "photos"
    words: dict[str, list[Any]] = {
        "check": ["check", data, "--val", "0.3"],
        "predict": ["predict", trial.stage.of("run"), data],
        "train": ["train", data, "--model", TINY, "--image", 32, "--epochs", 1, "--out", "out",
                  "--val", 0.3, "--set", "batch=8", "workers=0"],
        "explain": ["explain", trial.stage.of("run"), data, "--method", "gradcam", "--out", "maps"],
    }  # fmt: skip
    encoding = chance.choice(ENCODINGS)
    more = ["--json"] if chance.random() < 0.4 else []
    said = trial.command(*words[act], *more, encoding=encoding)
    if more and said.status in (0, 1):
        said.json()
    elif act == "check" and said.status == 0:
        shown_whole(classes, said.out, encoding)


def shown_whole(classes: list[bytes], out: str, encoding: str) -> None:
    """Every class has its name in the table, harmless and whole.

    An accent that is composed in one name and decomposed in another is one to people: sets join
    such classes, and show them composed.

    Raises:
        Fault: one is missing.
    """
    from vitrail.errors import printable

    shown = re.sub(r"\s", "", out)
    for name in classes:
        try:
            text = unicodedata.normalize("NFC", name.decode())
        except UnicodeDecodeError:
            continue  # left out with a line
        if text.startswith("."):
            continue
        wanted = printable(text).encode(encoding, "backslashreplace").decode(encoding)
        if encoding == "utf-8" and re.sub(r"\s", "", wanted) not in shown:
            raise Fault("a class is not shown as it is named", f"{text!r} in\n{out[-1500:]}")


KINDS = (
    Kind(name="names", about="odd names of classes and files, in every output and encoding",
         attempt=names, needs=("run",), weight=1.5, seconds=60),
)  # fmt: skip
