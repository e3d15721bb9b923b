"""A CSV or Parquet file that lists pictures: columns ``path, label[, split]``.

Paths are relative to the file itself. UTF-8, comma, semicolon or tab; a header is needed.
"""

import csv
import io
import posixpath
from collections import defaultdict
from pathlib import PurePosixPath

from vitrail.data.items import Problem
from vitrail.data.layout import SPLIT_NAMES, Layout, Row
from vitrail.errors import UserError

#: Column names that mean the same.
COLUMNS = {
    "path": "path", "file": "path", "filename": "path", "file_name": "path", "image": "path",
    "label": "label", "class": "label", "category": "label", "target": "label",
    "split": "split", "subset": "split", "set": "split",
}  # fmt: skip

ENDINGS = (".csv", ".tsv", ".parquet")


def arrange_table(name: str, data: bytes) -> Layout:
    """Rows of a table; ``name`` is the table's own name, from which its paths lead.

    Raises:
        UserError: not UTF-8, no rows, a needed column missing or there twice.
    """
    parquet = name.lower().endswith(".parquet")
    header, lines = _parquet(name, data) if parquet else _csv(name, data)
    columns, problems = _columns(name, header)
    rows: dict[str, Row] = {}
    labels = defaultdict(set)
    for number, line in enumerate(lines, start=1 if parquet else 2):
        cells = {c: line[i].strip() if i < len(line) else "" for c, i in columns.items()}
        row, fault = _row(name, cells)
        if row is None:
            problems.append(Problem("row", f"{name}:{number}", f"{name}, row {number}: {fault}"))
            continue
        if row.key in rows and row == rows[row.key]:
            line_ = f"{name}, row {number}: {row.key} is listed twice; counted once"
            problems.append(Problem("repeated-row", row.key, line_))
        rows.setdefault(row.key, row)
        labels[row.key].add((row.name, row.split))
    for key, given in labels.items():
        if len(given) > 1:
            del rows[key]
            problems.append(_contradiction(name, key, given))
    if not rows:
        raise UserError(f"{name} lists no pictures")
    return Layout(tuple(rows.values()), problems=tuple(problems))


def is_table(name: str, data: bytes) -> bool:
    """Whether the bytes begin like a table of pictures (for zips)."""
    if name.lower().endswith(".parquet"):
        return True
    header = data[:4096].decode("utf-8-sig", errors="replace").split("\n")[0]
    cells = next(csv.reader([header], delimiter=_delimiter(header)), [])
    return {"path", "label"} <= {COLUMNS.get(cell.strip().lower()) for cell in cells}


def _csv(name: str, data: bytes) -> tuple[list[str], list[list[str]]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(
            f"{name} is not UTF-8 (byte 0x{data[error.start]:02x} in line {line}); "
            "save it as 'CSV UTF-8'"
        ) from error
    delimiter = _delimiter(text.split("\n", 1)[0])
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise UserError(f"{name} is not a CSV file that can be read ({error})") from error
    lines = [row for row in rows if any(cell.strip() for cell in row)]
    if not lines:
        raise UserError(f"{name} is empty; wanted: columns path,label[,split]")
    return lines[0], lines[1:]


def _delimiter(header: str) -> str:
    return max(",;\t", key=header.count)


def _parquet(name: str, data: bytes) -> tuple[list[str], list[list[str]]]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        remedy = "pip install 'vitrail[parquet]', or save the table as CSV"
        raise UserError(f"{name}: Parquet needs pyarrow: {remedy}") from error
    try:
        table = parquet.read_table(io.BytesIO(data))
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{name} is not a Parquet file that can be read ({reason})") from error
    columns = [["" if v is None else str(v) for v in c.to_pylist()] for c in table.columns]
    return list(table.column_names), [list(row) for row in zip(*columns, strict=True)]


def _columns(name: str, header: list[str]) -> tuple[dict[str, int], list[Problem]]:
    places: dict[str, int] = {}
    extra = []
    for index, title in enumerate(header):
        column = COLUMNS.get(title.strip().lower())
        if column is None:
            extra.append(title.strip())
        elif column in places:
            raise UserError(f"{name} has two columns for {column}: rename one of them")
        else:
            places[column] = index
    missing = [column for column in ("path", "label") if column not in places]
    if missing:
        raise UserError(
            f"{name} has no column {' and no column '.join(missing)}; its columns are "
            f"{', '.join(title.strip() for title in header)}; wanted: path,label[,split]"
        )
    if not extra:
        return places, []
    line = f"{name}: columns not used: {', '.join(extra)}"
    return places, [Problem("extra-columns", name, line)]


def _row(table: str, cells: dict[str, str]) -> tuple[Row | None, str]:
    """A row of the set, or what is wrong with it."""
    if not cells["path"] or not cells["label"]:
        return None, f"no {'path' if not cells['path'] else 'label'}; left out"
    written = cells.get("split", "")
    split = SPLIT_NAMES.get(written.lower(), "") if written else "train"
    if not split:
        return None, f"unknown split {written!r} (train, val or test); left out"
    inside = str(PurePosixPath(table).parent)
    key = posixpath.normpath(posixpath.join(inside, cells["path"].replace("\\", "/")))
    return Row(key, cells["label"], split if "split" in cells else ""), ""


def _contradiction(table: str, key: str, given: set[tuple[str, str]]) -> Problem:
    labels = sorted({label for label, _ in given})
    if len(labels) > 1:
        line = f"{key}: listed in {table} as {' and as '.join(labels)}; left out"
        return Problem("two-labels", key, line)
    splits = " and in ".join(sorted({split for _, split in given}))
    return Problem("leak", key, f"{key}: listed in {table} in {splits}; left out")
