"""Tables of other tools, and damaged ones: CSV, TSV, Parquet."""

import contextlib
import csv
import io
import os
import random
from typing import Any

from benchmarks.faults.damage import damaged
from benchmarks.faults.kinds.archives import read_all
from benchmarks.faults.trial import Kind, Trial

HEADS = (
    ("path", "label"), ("image_path", "labels"), ("filepath", "class"), ("file_name", "label"),
    ("filename", "category"), ("img", "target"), ("image", "label"), ("path", "label", "split"),
    ("Path", "Label", "Split"), ("x", "y"), ("path",), (), ("path", "path", "label"),
    ("\ufeffpath", "label"), ("path ", " label"), ("path", "label", "note"), ("id", "species"),
)  # fmt: skip
PATHS = (
    "/dev/zero", "/dev/stdin", "/proc/self/mem", "fifo", "socket", "folder", "loop", ".", "..", "",
    "../photos", "missing.png", "/etc/passwd", "C:\\x\\y.png", "photos\\cat\\0.png", "a\x00b.png",
    "x" * 5000, "photos/cat/0.png ", "file:///etc/passwd", "http://example.com/x.png", "~/x.png",
)  # fmt: skip
LABELS = ("cat", "dog", "", "nan", "NaN", "None", "1", "1.0", "2.5", "-1", "[red]x[/red]",
          "\x1b[31m",
          "e\u0301", "\u00e9", "=cmd()", "a\nb", "x" * 999, "cat ", "CAT", "../x",
          "\u202ex")  # fmt: skip
SPLITS = ("train", "val", "test", "dev", "eval", "validate", "", "Train", "0", "nan", "other")
ENCODINGS = ("utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252")


def table(trial: Trial) -> None:
    """One table beside the photos, through ``check``; what it lists must be readable."""
    lay_out(trial)
    chance = trial.chance
    rows = [row(chance) for _ in range(chance.choice((0, 1, 6, 30)))]
    head = list(chance.choice(HEADS))
    if chance.random() < 0.25:
        path = trial.file("table.parquet", parquet(head, rows, trial))
    else:
        path = trial.file(chance.choice(("table.csv", "table.tsv")), text(head, rows, chance))
    said = trial.command("check", path, "--json", "--val", "0.3")
    if said.status == 0:
        read_all(str(path))


def lay_out(trial: Trial) -> None:
    """Links to the photos, and things that must not be opened."""
    (trial.folder / "photos").symlink_to(trial.stage.photos)
    (trial.folder / "folder").mkdir()
    (trial.folder / "loop").symlink_to("loop")
    os.mkfifo(trial.folder / "fifo")


def row(chance: random.Random) -> list[str]:
    """A row: mostly a good one."""
    good = f"photos/{chance.choice(('cat', 'dog'))}/{chance.randrange(8)}.png"
    path = good if chance.random() < 0.8 else chance.choice(PATHS)
    label = chance.choice(("cat", "dog")) if chance.random() < 0.8 else chance.choice(LABELS)
    made = [path, label, chance.choice(SPLITS[:3] if chance.random() < 0.8 else SPLITS)]
    return made[: chance.choice((3, 3, 3, 3, 2, 1, 0))] + ["more"] * chance.choice((0, 0, 0, 3))


def text(head: list[str], rows: list[list[str]], chance: random.Random) -> bytes:
    """As CSV, damaged now and then."""
    held = io.StringIO()
    delimiter = chance.choice((",", ",", ";", "\t", "|"))
    quote_all = chance.random() < 0.5
    ending = chance.choice(("\n", "\r\n", "\r"))
    out = csv.writer(
        held,
        delimiter=delimiter,
        quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL,
        lineterminator=ending,
    )
    with contextlib.suppress(csv.Error):
        out.writerows([head, *rows])
    data = held.getvalue().encode(chance.choice(ENCODINGS), "replace")
    return damaged(data, chance) if data and chance.random() < 0.3 else data


def parquet(head: list[str], rows: list[list[str]], trial: Trial) -> bytes:
    """As Parquet, with Hugging Face's picture bytes or numbers for labels now and then."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    chance = trial.chance
    columns: dict[str, Any] = {}
    for i, name in enumerate(head):
        columns[name] = [line[i] if i < len(line) else None for line in rows]
    if chance.random() < 0.4 and head:
        picture = trial.stage.good()[0].read_bytes()
        stored = [damaged(picture, chance) if chance.random() < 0.3 else picture for _ in rows]
        values = [{"bytes": data + bytes([i]), "path": f"{i}.png"} for i, data in enumerate(stored)]
        columns[chance.choice((head[0], "image"))] = values
    if chance.random() < 0.3 and len(head) > 1:
        columns[head[1]] = [chance.choice((0, 1, 1.0, float("nan"), None)) for _ in rows]
    held = io.BytesIO()
    pq.write_table(pa.table(columns), held)
    data = held.getvalue()
    return damaged(data, chance) if chance.random() < 0.4 else data


KINDS = (
    Kind(name="tables", about="CSV, TSV, Parquet: other tools' columns, special files, damage",
         attempt=table, weight=1.5, seconds=30),
)  # fmt: skip
