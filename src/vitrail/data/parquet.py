"""Parquet tables: of paths, or with the images inside, as Hugging Face writes them.

::

    images.parquet                       columns image (its bytes), label[, split]
    data/train-00000-of-00002.parquet      a folder of such files: the split is in the name
    data/test-00000-of-00001.parquet

An image's column holds bytes, or records of ``bytes`` and ``path``. Classes that are numbers have
their names in the file's metadata.
"""

import json
import re
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from vitrail.data import limits
from vitrail.data.decode import ImageError
from vitrail.data.files import Files, Folder, Listing
from vitrail.data.layout import SPLIT_NAMES, Layout
from vitrail.data.table import column_role, parse_rows
from vitrail.errors import UserError

ENDING = ".parquet"
FREE_ROWS = 100_000
"""A larger table holds a byte for each row: rows that name pictures differ."""


def open_parquet(path: Path, copies: bool = False) -> tuple[Files, Layout]:
    """The table at ``path``: where its images are, and its rows.

    Raises:
        UserError: no pyarrow, not a Parquet file, or one without the columns.
    """
    layout, column = _layout(path.name, str(path), copies)
    root = str(path.parent)
    return (ParquetFiles(root, (path.name,), column) if column else Folder(root)), layout


def open_shards(root: Path, names: Sequence[str], copies: bool = False) -> tuple[Files, Layout]:
    """Parquet files in one folder, together one set, with the images inside.

    Raises:
        UserError: as :func:`open_parquet`, or tables of paths.
    """
    layouts, columns = [], set()
    for name in names:
        layout, column = _layout(name, str(root / name), copies)
        if not column:
            raise UserError(f"{name} holds paths, no pictures; give the table: {root / name}")
        split = SPLIT_NAMES.get(re.split("[-.]", PurePosixPath(name).name)[0].lower(), "")
        rows = tuple(replace(row, split=row.split or split) for row in layout.rows)
        layouts.append(replace(layout, rows=rows))
        columns.add(column)
    if len(columns) > 1:
        raise UserError(f"{root} holds tables of different columns: {', '.join(sorted(columns))}")
    rows = tuple(row for layout in layouts for row in layout.rows)
    problems = tuple(problem for layout in layouts for problem in layout.problems)
    return ParquetFiles(str(root), tuple(names), columns.pop()), Layout(rows, problems=problems)


def parse_parquet(name: str, data: bytes, copies: bool = False) -> Layout:
    """Rows of a Parquet table of paths that lies in a zip.

    Raises:
        UserError: as :func:`open_parquet`, or images inside.
    """
    layout, column = _layout(name, data, copies)
    if column:
        raise UserError(f"{name} has its pictures inside; take it out of the zip first")
    return layout


def _layout(name: str, source: str | bytes, copies: bool) -> tuple[Layout, str]:
    """A table's rows, and the column that holds images themselves ("" where it holds paths)."""
    table = _open(name, source)
    inside = [
        title
        for title, kind in zip(table.schema_arrow.names, table.schema_arrow.types, strict=True)
        if column_role(title) == "path" and _holds_bytes(kind)
    ]
    if inside:
        _check_groups(name, table.metadata)
    packed = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
    header, columns = _texts(name, table, inside, packed)
    lines = list(zip(*columns, strict=True))
    return parse_rows(name, header, lines, first=1, copies=copies), inside[0] if inside else ""


def _open(name: str, source: str | bytes) -> Any:
    """The file, with nothing read but its end.

    Raises:
        UserError: no pyarrow, or not a Parquet file.
    """
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        remedy = "pip install 'vitrail[parquet]', or save the table as CSV"
        raise UserError(f"{name}: Parquet needs pyarrow: {remedy}") from error
    try:
        held = pyarrow.BufferReader(source) if isinstance(source, bytes) else source
        return parquet.ParquetFile(held)
    except Exception as error:  # whatever Arrow raises on damage
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(f"{name} is not a Parquet file that can be read ({reason})")


def _holds_bytes(kind: Any) -> bool:
    """Whether a column's type is bytes, or a record with ``bytes``."""
    import pyarrow.types as types

    if types.is_struct(kind):
        names = [kind.field(i).name for i in range(kind.num_fields)]
        return "bytes" in names
    return types.is_binary(kind) or types.is_large_binary(kind)


def _check_groups(name: str, metadata: Any) -> None:
    """Images inside are read a row group at a time.

    Raises:
        UserError: a group that is too large for that.
    """
    sizes = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
    if max(sizes, default=0) > limits.MAX_ROW_GROUP:
        raise UserError(
            f"{name} has row groups of {max(sizes):,} bytes (at most {limits.MAX_ROW_GROUP:,}); "
            "write it again with smaller ones"
        )


def _texts(
    name: str, table: Any, inside: Sequence[str], packed: int
) -> tuple[list[str], list[list[str]]]:
    """Titles and columns as texts; images inside get names, columns not used stay empty."""
    header = list(table.schema_arrow.names)
    wanted = [title for title in header if column_role(title) and title not in inside]
    values = _values(name, table, wanted, packed) if wanted else {}
    count = len(next(iter(values.values()), ()))  # not what the file's end claims
    words = _class_names(table.schema_arrow.metadata or {})
    keys = [f"{PurePosixPath(name).name}/{row:08d}" for row in range(count)]
    columns = []
    for title in header:
        if title in inside:
            columns.append(keys)
        elif title in wanted:
            say = _as_text(words.get(title, ()))
            columns.append([say(value) for value in values[title]])
        else:
            columns.append([""] * count)
    return header, columns


def _values(name: str, table: Any, titles: Sequence[str], packed: int) -> dict[str, list[Any]]:
    """Whole columns.

    Raises:
        UserError: they cannot be read, or are not as long as the file says.
    """
    try:
        read = _read_bounded(name, table, titles, packed, batch_size=256)
        values = {title: read.column(title).to_pylist() for title in titles}
    except UserError:
        raise
    except Exception as error:  # whatever Arrow raises on damage
        raise _unreadable(name, error) from error
    if read.num_rows != table.metadata.num_rows:
        raise _unreadable(name, ValueError("its columns are of other lengths than it says"))
    return values


def _read_bounded(name: str, table: Any, titles: Sequence[str], packed: int, **how: Any) -> Any:
    """Columns read in small batches as one table, given up where few bytes stand for many.

    One value that many rows share is stored once, and its sizes are what the file claims.

    Raises:
        UserError: they hold more than a file of ``packed`` bytes may stand for.
    """
    import pyarrow

    most = min(limits.MAX_ROW_GROUP, max(limits.FREE_BYTES, limits.UNPACKED_RATIO * packed))
    parts, size, rows = [], 0, 0
    for batch in table.iter_batches(columns=titles, **how):
        parts.append(batch)
        size, rows = size + batch.nbytes, rows + batch.num_rows
        if size > most:
            raise UserError(f"{name} unpacks to more than {most:,} bytes at once")
        if rows > max(FREE_ROWS, packed):
            raise UserError(f"{name} has more rows than its {packed:,} bytes can hold")
    schema = pyarrow.schema([table.schema_arrow.field(title) for title in titles])
    return pyarrow.Table.from_batches(parts, None if parts else schema)


def _as_text(words: Sequence[str]) -> Callable[[Any], str]:
    """A value as text; a number is a class's name where such are known."""

    def say(value: Any) -> str:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(words):
            return words[value]
        return "" if value is None else str(value)

    return say


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Names of classes by column, as Hugging Face's ``datasets`` notes them."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {
            title: [str(word) for word in kind["names"]]
            for title, kind in features.items()
            if isinstance(kind, dict) and isinstance(kind.get("names"), list)
        }
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


class _RowGroupCache:
    """The row groups read last, up to ``HELD_AT_ONCE`` bytes."""

    def __init__(self) -> None:
        self.lock, self.size = threading.Lock(), 0
        self.kept: OrderedDict[tuple[str, int], tuple[int, list[Any]]] = OrderedDict()
        self.failed: dict[tuple[str, int], UserError] = {}

    def get(self, key: tuple[str, int], read: Callable[[], tuple[int, list[Any]]]) -> list[Any]:
        """The values of a group, read if they are not there; one that cannot be is tried once."""
        with self.lock:
            if key in self.failed:
                raise self.failed[key]
            if key not in self.kept:
                try:
                    self.kept[key] = read()
                except UserError as error:
                    self.failed[key] = error
                    raise
                self.size += self.kept[key][0]
                while self.size > limits.HELD_AT_ONCE and len(self.kept) > 1:
                    self.size -= self.kept.popitem(last=False)[1][0]
            self.kept.move_to_end(key)
            return self.kept[key][1]


@dataclass(frozen=True)
class ParquetFiles:
    """Images inside Parquet files, by ``TABLE/ROW``; row groups are read when they are needed."""

    root: str
    tables: tuple[str, ...]
    column: str
    _groups: _RowGroupCache = field(default_factory=_RowGroupCache, compare=False, repr=False)
    _starts: dict[str, list[int]] = field(default_factory=dict, compare=False, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return ParquetFiles, (self.root, self.tables, self.column)

    def listing(self) -> Listing:
        """The tables."""
        return Listing(self.tables, ())

    def size(self, name: str) -> int:
        """Not known before an image is read."""
        return 0

    def read(self, name: str) -> bytes:
        """The bytes in one row."""
        table, _, row = name.rpartition("/")
        try:
            value = self._value(table, int(row))
        except (UserError, ValueError, IndexError) as error:
            raise ImageError(f"cannot be read ({error})", "unreadable") from error
        if isinstance(value, dict):
            value = value.get("bytes") or self._beside(table, value.get("path"))
        if not value:
            raise ImageError("the row holds no picture", "missing")
        return bytes(value)

    def _beside(self, table: str, path: Any) -> bytes | None:
        """A row may name a file in place of bytes."""
        if not isinstance(path, str) or not path:
            return None
        return Folder(str(Path(self.root, table).parent)).read(path)

    def _value(self, table: str, row: int) -> Any:
        if table not in self._starts:
            self._starts[table] = self._rows_before(table)
        starts = self._starts[table]
        group = bisect_right(starts, row) - 1
        values = self._groups.get((table, group), lambda: self._group(table, group))
        return values[row - starts[group]]

    def _rows_before(self, table: str) -> list[int]:
        """The first row of each group."""
        data = _open(table, str(Path(self.root, table))).metadata
        starts = [0]
        for group in range(data.num_row_groups - 1):
            starts.append(starts[-1] + data.row_group(group).num_rows)
        return starts

    def _group(self, table: str, group: int) -> tuple[int, list[Any]]:
        """A group's size in bytes, and its values."""
        path = Path(self.root, table)
        opened, packed = _open(table, str(path)), path.stat().st_size
        try:
            how = {"batch_size": 16, "row_groups": [group]}
            read = _read_bounded(table, opened, [self.column], packed, **how).column(self.column)
            size, values = read.nbytes, read.to_pylist()
        except UserError:
            raise
        except Exception as error:  # whatever Arrow raises on damage
            raise _unreadable(table, error) from error
        return size, values
