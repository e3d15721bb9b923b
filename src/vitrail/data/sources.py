"""Every source of labelled images, behind one function.

source -> files -> layout (names) -> scan (every file decoded once)
       -> clean (duplicates, leaks, classes) -> split_validation -> ImageDataset
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vitrail.data import parquet
from vitrail.data.clean import clean, split_validation
from vitrail.data.dataset import FileStore, ImageDataset
from vitrail.data.decode import ImageError
from vitrail.data.files import Archive, Files, Folder, names_on_disk, read_regular
from vitrail.data.history import History
from vitrail.data.items import Problem, format_count
from vitrail.data.layout import Layout, is_picture, parse_folders
from vitrail.data.sample import fashion
from vitrail.data.scan import OnProgress, scan
from vitrail.data.scenes import Scenes
from vitrail.data.summary import Summary
from vitrail.data.table import ENDINGS as TABLES
from vitrail.data.table import is_table, parse_table
from vitrail.data.torchvision_sets import open_torchvision
from vitrail.errors import UserError
from vitrail.files import expand


def open_dataset(
    source: str | Path,
    *,
    strict: bool = False,
    val: float = 0.2,
    seed: int = 0,
    copies: bool = False,
    history: History | None = None,
    progress: OnProgress | None = None,
) -> ImageDataset:
    """Open any source of labelled images and look at every one of them.

    ``source`` is a folder of class folders; a folder with train, val (validation) and perhaps
    test folders of those; a ``.csv`` or ``.parquet`` file with columns path, label and perhaps
    split; a zip of any of these; ``"torchvision:NAME"`` or ``"torchvision:NAME@root"``; or a set
    that ships with Vitrail: ``"fashion"``, ``"scenes"``, ``"scenes(size=96, classes=4)"``.

    Where there is no validation part, the share ``val`` of each training class becomes it,
    chosen by ``seed``. Files that cannot be used are left out and listed in ``problems``.

    Of an image that is there several times in the training part one counts; with ``copies`` all
    do, as people mean who copy the images of a rare class (or repeat a table's rows). No copy of
    an image to validate or test with stays in training, either way.

    ``history`` is what an earlier run trained and validated on: its images, known by their
    content, keep their parts.

    Raises:
        UserError: nothing usable in the source, or, with ``strict``, anything left out.
    """
    text = str(source)
    made = _open_builtin(text)
    dataset = made if made is not None else _from_files(text, progress, copies)
    if strict:
        refuse_problems(dataset.problems)
    classes, items = dataset.classes, dataset.items
    items, problems = split_validation(classes, items, val, seed, history, dataset.name)
    first = tuple(problem for problem in problems if problem.kind == "seen-before")
    rest = tuple(problem for problem in problems if problem.kind != "seen-before")
    return replace(dataset, items=items, problems=(*first, *dataset.problems, *rest))


def check(
    source: str | Path,
    *,
    strict: bool = False,
    val: float = 0.2,
    seed: int = 0,
    copies: bool = False,
    progress: OnProgress | None = None,
) -> tuple[ImageDataset, Summary]:
    """What ``vitrail check`` does: :func:`open_dataset`, then counts, sizes and lines.

    Raises:
        UserError: as :func:`open_dataset`.
    """
    dataset = open_dataset(
        source, strict=strict, val=val, seed=seed, copies=copies, progress=progress
    )
    return dataset, Summary.of(dataset)


def refuse_problems(problems: tuple[Problem, ...]) -> None:
    """Stop on anything that was left out.

    Raises:
        UserError: with the first line and the number of others.
    """
    faults = [problem for problem in problems if problem.left_out]
    if faults:
        more = f" (and {len(faults) - 1:,} more; `vitrail check` lists all)" if faults[1:] else ""
        raise UserError(f"strict: {faults[0].line}{more}")


def _open_builtin(text: str) -> ImageDataset | None:
    """The sets that are not files of the user's."""
    if text == "fashion":
        return fashion()
    if re.match(r"scenes\s*(\(|$)", text):
        return Scenes.parse(text).dataset()
    if text.startswith("torchvision:"):
        return open_torchvision(text)
    return None


def _from_files(text: str, progress: OnProgress | None, copies: bool) -> ImageDataset:
    files, layout, noted = _find_layout(text, copies)
    layout = _use_names_on_disk(files, layout)
    rows = list({row.key: row for row in layout.rows}.values())
    seen, broken = scan(files, rows, progress)
    lost = [*_summarize_missing(files, layout, broken), *broken]
    if not seen:
        lines = "; ".join(problem.line for problem in lost[:3])
        raise UserError(
            f"{text}: none of {format_count(len(rows), 'picture')} can be used: {lines}"
        )
    if len(rows) < len(layout.rows):
        found = {one.row.key: one for one in seen}
        seen = [found[row.key] for row in layout.rows if row.key in found]
    settled = clean(text, layout, seen, lost, copies)
    problems = (*noted, *layout.problems, *lost, *settled.problems)
    return ImageDataset(text, settled.classes, settled.items, problems, FileStore(files))


def _use_names_on_disk(files: Files, layout: Layout) -> Layout:
    """A table's paths with their accents as the files' names have them."""
    if not layout.table:
        return layout
    names = names_on_disk(files, (row.key for row in layout.rows))
    rows = tuple(replace(row, key=names.get(row.key, row.key)) for row in layout.rows)
    return replace(layout, rows=rows)


def _summarize_missing(files: Files, layout: Layout, broken: Sequence[Problem]) -> list[Problem]:
    """One line on all files that a table names and that are not there, and where they would be."""
    missing = [problem.where for problem in broken if problem.kind == "missing"]
    if not layout.table or len(missing) < 2:
        return []
    listed = len({row.key for row in layout.rows})
    line = (
        f"{layout.table}: {len(missing):,} of {format_count(listed, 'picture')} not found below "
        f"{str(Path(files.root).absolute())!r}, where its paths lead (the first: {missing[0]}); "
        "left out"
    )
    return [Problem("missing", layout.table, line)]


def _find_layout(text: str, copies: bool) -> tuple[Files, Layout, tuple[Problem, ...]]:
    path = expand(text)
    if not _exists(path):
        raise UserError(
            f"there is no {text!r}; give a folder, a zip, a .csv or .parquet file, "
            "torchvision:NAME, fashion or scenes"
        )
    if path.is_dir():
        return _from_folder(text, path, copies)
    if path.suffix.lower() not in (*TABLES, ".zip"):
        raise UserError(f"{text} is neither a folder nor a .zip, .csv or .parquet file")
    if path.suffix.lower() == parquet.ENDING and path.is_file():
        return (*parquet.open_parquet(path, copies), ())
    if path.suffix.lower() in TABLES:
        return Folder(str(path.parent)), parse_table(path.name, _table(path), copies), ()
    return _from_zip(text, Archive(str(path)), copies)


def _exists(path: Path) -> bool:
    """Whether something is at ``path``; nothing can be at a name that no system takes."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _table(path: Path) -> bytes:
    try:
        return read_regular(path)
    except ImageError as error:
        raise UserError(f"{str(path)!r} {error}") from error


def _from_folder(text: str, path: Path, copies: bool) -> tuple[Files, Layout, tuple[Problem, ...]]:
    files = Folder(str(path))
    listing = files.listing()
    shards = [name for name in listing.files if name.lower().endswith(parquet.ENDING)]
    if shards and not any(map(is_picture, listing.files)):
        return (*parquet.open_shards(path, shards, copies), listing.problems)
    return files, parse_folders(text, listing), listing.problems


def _from_zip(text: str, files: Archive, copies: bool) -> tuple[Files, Layout, tuple[Problem, ...]]:
    listing = files.listing()
    tables = [n for n in listing.files if n.lower().endswith(TABLES) and n.count("/") <= 1]
    if len(tables) == 1:
        name = tables[0]
        try:
            data = files.read(name)
        except ImageError as error:
            raise UserError(f"{text}: its table {name}: {error}") from error
        if name.lower().endswith(parquet.ENDING):
            return files, parquet.parse_parquet(name, data, copies), listing.problems
        if is_table(name, data):
            return files, parse_table(name, data, copies), listing.problems
    return files, parse_folders(text, listing), listing.problems
