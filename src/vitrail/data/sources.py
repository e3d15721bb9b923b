"""Every source of labelled pictures, behind one function.

source -> files -> layout (names) -> look (every file decoded once) -> settle (doubles, leaks,
classes) -> cut (validation part) -> Pictures
"""

import re
from dataclasses import replace
from pathlib import Path

from vitrail.data.files import Archive, Files, Folder, open_files
from vitrail.data.items import Problem, count
from vitrail.data.layout import Layout, arrange
from vitrail.data.look import Progress, look
from vitrail.data.pictures import FileStore, Pictures
from vitrail.data.sample import fashion
from vitrail.data.scenes import Scenes
from vitrail.data.settle import cut, settle
from vitrail.data.summary import Summary
from vitrail.data.table import ENDINGS as TABLES
from vitrail.data.table import arrange_table, is_table
from vitrail.data.torchvision_sets import torchvision_pictures
from vitrail.errors import UserError
from vitrail.files import expand


def open_pictures(
    source: str | Path,
    *,
    strict: bool = False,
    val: float = 0.2,
    seed: int = 0,
    progress: Progress | None = None,
) -> Pictures:
    """Open any source of labelled pictures and look at every one of them.

    ``source`` is a folder of class folders; a folder with train, val (validation) and perhaps
    test folders of those; a ``.csv`` or ``.parquet`` file with columns path, label and perhaps
    split; a zip of any of these; ``"torchvision:NAME"`` or ``"torchvision:NAME@root"``; or a set
    that ships with Vitrail: ``"fashion"``, ``"scenes"``, ``"scenes(size=96, classes=4)"``.

    Where there is no validation part, the share ``val`` of each training class becomes it,
    chosen by ``seed``. Files that cannot be used are left out and listed in ``problems``.

    Raises:
        UserError: nothing usable in the source, or, with ``strict``, anything left out.
    """
    text = str(source)
    made = _made(text)
    pictures = made if made is not None else _from_files(text, progress)
    if strict:
        refuse(pictures.problems)
    items, problems = cut(pictures.classes, pictures.items, val, seed)
    return replace(pictures, items=items, problems=(*pictures.problems, *problems))


def check(
    source: str | Path,
    *,
    strict: bool = False,
    val: float = 0.2,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Pictures, Summary]:
    """What ``vitrail check`` does: :func:`open_pictures`, then counts, sizes and lines.

    Raises:
        UserError: as :func:`open_pictures`.
    """
    pictures = open_pictures(source, strict=strict, val=val, seed=seed, progress=progress)
    return pictures, Summary.of(pictures)


def refuse(problems: tuple[Problem, ...]) -> None:
    """Stop on anything that was left out.

    Raises:
        UserError: with the first line and the number of others.
    """
    faults = [problem for problem in problems if problem.left_out]
    if faults:
        more = f" (and {len(faults) - 1:,} more; `vitrail check` lists all)" if faults[1:] else ""
        raise UserError(f"strict: {faults[0].line}{more}")


def _made(text: str) -> Pictures | None:
    """The sets that are not files of the user's."""
    if text == "fashion":
        return fashion()
    if re.match(r"scenes\s*(\(|$)", text):
        return Scenes.parse(text).pictures()
    if text.startswith("torchvision:"):
        return torchvision_pictures(text)
    return None


def _from_files(text: str, progress: Progress | None) -> Pictures:
    files, layout, noted = _laid_out(text)
    seen, broken = look(files, layout.rows, progress)
    if not seen:
        lines = "; ".join(problem.line for problem in broken[:3])
        raise UserError(
            f"{text}: none of {count(len(layout.rows), 'picture')} can be used: {lines}"
        )
    settled = settle(text, layout, seen)
    problems = (*noted, *layout.problems, *broken, *settled.problems)
    return Pictures(text, settled.classes, settled.items, problems, FileStore(files))


def _laid_out(text: str) -> tuple[Files, Layout, tuple[Problem, ...]]:
    path = expand(text)
    if not path.exists():
        raise UserError(
            f"there is no {text!r}; give a folder, a zip, a .csv or .parquet file, "
            "torchvision:NAME, fashion or scenes"
        )
    if path.suffix.lower() in TABLES and path.is_file():
        files: Files = Folder(str(path.parent))
        return files, arrange_table(path.name, path.read_bytes()), ()
    if not path.is_dir() and path.suffix.lower() != ".zip":
        raise UserError(f"{text} is neither a folder nor a .zip, .csv or .parquet file")
    files = open_files(path)
    listing = files.listing()
    if isinstance(files, Archive):
        tables = [n for n in listing.files if n.lower().endswith(TABLES) and n.count("/") <= 1]
        if len(tables) == 1 and is_table(tables[0], data := files.read(tables[0])):
            return files, arrange_table(tables[0], data), listing.problems
    return files, arrange(text, listing), listing.problems
