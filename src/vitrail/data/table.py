"""A CSV or Parquet file that lists images: columns ``path, label[, split]``.

Paths are relative to the file itself. Text is UTF-8 or UTF-16, with comma, semicolon, tab or bar; a
header is needed. A Parquet file may hold the images themselves, as Hugging Face's do:
see :mod:`vitrail.data.parquet`.
"""

import csv
import io
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from vitrail.data.items import Problem, normalize_nfc
from vitrail.data.layout import SPLIT_NAMES, ImageRow, Layout
from vitrail.errors import UserError, printable

#: Column names that mean the same, without case, spaces and signs (``Image_Path`` is
#: ``imagepath``): those that always do, ...
COLUMNS = {
    **dict.fromkeys(("path", "file", "filename", "image"), "path"),
    **dict.fromkeys(("label", "class", "category", "target"), "label"),
    **dict.fromkeys(("split", "subset", "set"), "split"),
}
#: ... and those that do where none of the first is there, the likelier first.
OTHER_COLUMNS = {
    **dict.fromkeys((
        "filepath", "imagepath", "imgpath", "fullpath", "relativepath", "relpath", "picturepath",
        "photopath", "imagefilepath", "imagefilename", "imgfilename", "imagefile", "imgfile",
        "imagename", "imgname", "filepaths", "filenames", "paths", "files", "images", "img",
        "picture", "photo",
    ), "path"),
    **dict.fromkeys((
        "labels", "labelname", "classname", "classlabel", "classes", "categoryname", "categories",
        "targetname", "targets", "species", "breed", "variety", "diagnosis", "groundtruth", "tag",
        "y",
    ), "label"),
    **dict.fromkeys((
        "datasplit", "splitname", "partition", "phase", "usage", "fold",
    ), "split"),
}  # fmt: skip

ENDINGS = (".csv", ".tsv", ".parquet")

_DELIMITERS = ",;\t|"
_NOTHING = frozenset(("", "nan", "none", "null", "nil", "n/a", "#n/a", "<na>", "nat"))
_WHOLE_FLOAT = re.compile(r"[-+]?\d+[.,]0+")
_WHOLE = re.compile(r"[-+]?\d+([.,]0+)?")
_SHOWN = 20  # columns that an error names


def parse_table(name: str, data: bytes, copies: bool = False) -> Layout:
    """Rows of a CSV table; ``name`` is the table's own name, from which its paths lead.

    With ``copies`` a row that is repeated counts again.

    Raises:
        UserError: no text, no rows, a needed column missing or there twice.
    """
    header, lines = _csv(name, data)
    return parse_rows(name, header, lines, first=2, copies=copies)


def parse_rows(
    name: str,
    header: Sequence[str],
    lines: Iterable[Sequence[str]],
    first: int,
    copies: bool = False,
) -> Layout:
    """Rows of any table; ``first`` is the number of the first line.

    Raises:
        UserError: no rows, a needed column missing or there twice.
    """
    lines = list(lines)
    columns, extra = _columns(name, header, lines)
    problems = [Problem("extra-columns", name, f"{name}: columns not used: {_some(extra)}")]
    problems = problems if extra else []
    cells = [
        {c: _clean_cell(line[i]) if i < len(line) else "" for c, i in columns.items()}
        for line in lines
    ]
    _restore_whole_labels(cells)
    rows: list[ImageRow] = []
    labels: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for number, line in enumerate(cells, start=first):
        row, fault = _row(name, line)
        if row is None:
            problems.append(Problem("row", f"{name}:{number}", f"{name}, row {number}: {fault}"))
            continue
        if (row.name, row.split) in labels[row.key] and not copies:
            line_ = f"{name}, row {number}: {row.key} is listed twice; counted once"
            problems.append(Problem("repeated-row", row.key, line_))
            continue
        labels[row.key].add((row.name, row.split))
        rows.append(row)
    wrong = {key: given for key, given in labels.items() if len(given) > 1}
    problems += [_contradiction(name, key, given) for key, given in wrong.items()]
    rows = [row for row in rows if row.key not in wrong]
    if not rows:
        why = f": {problems[0].line}" if problems else ""
        raise UserError(f"{name} lists no pictures{why}")
    return Layout(tuple(rows), problems=tuple(problems), table=name)


def is_table(name: str, data: bytes) -> bool:
    """Whether the bytes begin like a table of images (for zips)."""
    header = _first_line(_text(data[:4096], errors="replace"))
    cells = next(csv.reader([header], delimiter=_delimiter(header)), [])
    return {"path", "label"} <= {column_role(cell) for cell in cells}


def _csv(name: str, data: bytes) -> tuple[list[str], list[list[str]]]:
    try:
        text = _text(data)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(
            f"{name} is not UTF-8 (byte 0x{error.object[error.start]:02x} in line {line}); "
            "save it as 'CSV UTF-8'"
        ) from error
    delimiter = _delimiter(_first_line(text))
    text = re.sub(r"\A\s*sep=.[\r\n]+", "", text)  # Excel's own first line
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise UserError(f"{name} is not a CSV file that can be read ({error})") from error
    lines = [row for row in rows if any(cell.strip() for cell in row)]
    if not lines:
        raise UserError(f"{name} is empty; wanted: columns path,label[,split]")
    return lines[0], lines[1:]


def _text(data: bytes, errors: str = "strict") -> str:
    """UTF-8, or UTF-16 as Excel writes it ('Unicode Text')."""
    utf_32 = data.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff"))
    utf_16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    return data.decode("utf-32" if utf_32 else "utf-16" if utf_16 else "utf-8-sig", errors)


def _first_line(text: str) -> str:
    lines = text.lstrip().splitlines()
    return lines[0] if lines else ""


def _delimiter(header: str) -> str:
    if re.fullmatch(r"sep=.", header):
        return header[-1]
    return max(_DELIMITERS, key=header.count)


def _normalize_title(title: str) -> str:
    return re.sub(r"[\W_]+", "", title.lower())


def _clean_cell(text: str) -> str:
    """A cell's text, without blanks and Excel's ``="..."``."""
    text = text.strip()
    quoted = re.fullmatch(r'="(.*)"', text)
    return quoted[1].strip() if quoted else text


def _columns(
    name: str, header: Sequence[str], lines: Sequence[Sequence[str]]
) -> tuple[dict[str, int], list[str]]:
    """Where path, label and split stand, and the titles of the columns that are not used."""
    plain = [_normalize_title(title) for title in header]
    found = _usual_columns(name, header, plain)
    for other, column in OTHER_COLUMNS.items():
        if column not in found and other in plain:
            place = plain.index(other)
            if column != "split" or _are_splits(line[place] for line in lines if place < len(line)):
                found[column] = place
    missing = [column for column in ("path", "label") if column not in found]
    if missing:
        raise UserError(
            f"{name} has no column {' and no column '.join(missing)}; its columns are "
            f"{_some(header)}; wanted: path,label[,split]"
        )
    used = set(found.values())
    return found, [t.strip() for i, t in enumerate(header) if i not in used and t.strip()]


def _usual_columns(name: str, header: Sequence[str], plain: Sequence[str]) -> dict[str, int]:
    """The columns of the usual names.

    Raises:
        UserError: two of one meaning.
    """
    found: dict[str, int] = {}
    for place, title in enumerate(plain):
        column = COLUMNS.get(title)
        if column in found:
            both = f"{header[found[column]].strip()!r} and {header[place].strip()!r}"
            raise UserError(f"{name} has two columns for {column}: {both}; rename one of them")
        if column is not None:
            found[column] = place
    return found


def _are_splits(cells: Iterable[str]) -> bool:
    """Whether a column holds names of splits, and not numbers of folds or the like."""
    written = {_clean_cell(cell).lower() for cell in cells}
    return all(is_missing_value(cell) or cell in SPLIT_NAMES for cell in written)


def column_role(title: str) -> str | None:
    """``path``, ``label`` or ``split``, where a column's title may mean one of them."""
    return (COLUMNS | OTHER_COLUMNS).get(_normalize_title(title))


def _some(titles: Sequence[str]) -> str:
    """Column titles for a line of an error: some of them, each cut where it is long."""
    shown = [printable(title.strip())[:60] for title in titles[:_SHOWN]]
    return ", ".join(shown) + (f", … ({len(titles)})" if len(titles) > _SHOWN else "")


def _restore_whole_labels(cells: Sequence[dict[str, str]]) -> None:
    """Class numbers that came through a float become whole again: 1.0 is 1, where all are such."""
    labels = [line["label"] for line in cells if not is_missing_value(line["label"])]
    if not any(map(_WHOLE_FLOAT.fullmatch, labels)) or not all(map(_WHOLE.fullmatch, labels)):
        return
    for line in cells:
        if not is_missing_value(line["label"]):
            line["label"] = re.split("[.,]", line["label"])[0]


def is_missing_value(text: str) -> bool:
    """Whether a cell is what programs write where they have no value."""
    return text == "NA" or text.lower() in _NOTHING


def _row(table: str, cells: dict[str, str]) -> tuple[ImageRow | None, str]:
    """A row of the set, or what is wrong with it."""
    for column in ("path", "label"):
        if is_missing_value(cells[column]):
            written = f" ({cells[column]!r})" if cells[column] else ""
            return None, f"no {column}{written}; left out"
    written = cells.get("split", "")
    split = SPLIT_NAMES.get(written.lower(), "") if not is_missing_value(written) else "train"
    if not split:
        return None, f"unknown split {written!r} (train, val or test); left out"
    key = _key(table, cells["path"])
    return ImageRow(key, normalize_nfc(cells["label"]), split if "split" in cells else ""), ""


def _key(table: str, path: str) -> str:
    """A path as it leads from the table's folder, in the letters of this system."""
    inside = str(PurePosixPath(table).parent)
    return posixpath.normpath(posixpath.join(inside, path.replace("\\", "/")))


def _contradiction(table: str, key: str, given: set[tuple[str, str]]) -> Problem:
    labels = sorted({label for label, _ in given})
    if len(labels) > 1:
        line = f"{key}: listed in {table} as {' and as '.join(labels)}; left out"
        return Problem("two-labels", key, line)
    splits = " and in ".join(sorted({split for _, split in given}))
    return Problem("leak", key, f"{key}: listed in {table} in {splits}; left out")
