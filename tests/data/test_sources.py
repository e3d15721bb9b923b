"""Folders, zips and tables as people have them, each with the line it must give."""

import csv
import io
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tests.data.corpus import BAD, GOOD, numbered, small_set, write

from vitrail.data import open_dataset, take_fraction, write_problems
from vitrail.data.clean import clean, split_validation
from vitrail.data.decode import ImageError
from vitrail.data.files import Folder, Listing
from vitrail.data.items import KINDS
from vitrail.data.layout import ImageRow, parse_folders
from vitrail.data.scan import ScannedImage
from vitrail.data.sources import check
from vitrail.data.table import parse_table
from vitrail.errors import UserError

SET = small_set()
SPLIT = small_set(prefix="train/") | small_set(prefix="val/", each=2, seed=2)
TEST = small_set(prefix="test/", each=2, seed=3)


def zipped(path: Path, files: dict[str, bytes], folder: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(folder + name, data)
    return path


def table(rows: str, files: dict[str, bytes] = SET) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        write(folder, files)
        (folder / "list.csv").write_text(rows, encoding="utf-8")
        return folder / "list.csv"

    return build


def tree(*parts: dict[str, bytes]) -> Callable[[Path], Path]:
    return lambda folder: write(folder, {k: v for part in parts for k, v in part.items()})


# ---- good layouts -------------------------------------------------------------------------------

ROWS = "path,label\n" + "".join(f"{name},{name[0]}\n" for name in SET)
SPLIT_ROWS = "path,label,split\n" + "".join(
    f"{name},{name.split('/')[1]},{name.split('/')[0]}\n" for name in SPLIT | TEST
)


def parquet(folder: Path) -> Path:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    write(folder, SET)
    columns = {"path": list(SET), "label": [name[0] for name in SET]}
    pq.write_table(pa.table(columns), folder / "list.parquet")
    return folder / "list.parquet"


LAYOUTS: dict[str, tuple[Callable[[Path], Path], tuple[int, int, int]]] = {
    "class folders": (tree(SET), (8, 2, 0)),
    "train and val": (tree(SPLIT), (10, 4, 0)),
    "train, val, test": (tree(SPLIT, TEST), (10, 4, 4)),
    "train alone": (tree(small_set(prefix="train/")), (8, 2, 0)),
    "train and test": (tree(small_set(prefix="train/"), TEST), (8, 2, 4)),
    "Training and Validation": (
        tree({k.replace("train", "Training").replace("val/", "Validation/"): v
              for k, v in SPLIT.items()}),
        (10, 4, 0),
    ),
    "deep below the class": (tree({k.replace("/", "/x/y/"): v for k, v in SET.items()}), (8, 2, 0)),
    "wrapped in a folder": (tree({f"photos/{k}": v for k, v in SPLIT.items()}), (10, 4, 0)),
    "a class called train": (tree(small_set("ab"), {f"train/{i}.png": numbered(7 + i)
                                                    for i in range(5)}), (12, 3, 0)),
    "zip": (lambda f: zipped(f / "set.zip", SPLIT), (10, 4, 0)),
    "zip of a folder": (lambda f: zipped(f / "SET.ZIP", SET, "photos/"), (8, 2, 0)),
    "zip of a table": (
        lambda f: zipped(f / "set.zip", {**SPLIT, **TEST, "l.csv": SPLIT_ROWS.encode()}, "my/"),
        (10, 4, 4),
    ),
    "table": (table(ROWS), (8, 2, 0)),
    "table with splits": (table(SPLIT_ROWS, SPLIT | TEST), (10, 4, 4)),
    "table with semicolons": (table(ROWS.replace(",", ";")), (8, 2, 0)),
    "table with a byte order mark": (table("\ufeff" + ROWS), (8, 2, 0)),
    "table with other names": (table(ROWS.replace("path,label", "file_name,Class")), (8, 2, 0)),
    "parquet": (parquet, (8, 2, 0)),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name: str, tmp_path: Path):
    build, sizes = LAYOUTS[name]
    source = build(tmp_path)
    pictures, summary = check(source)
    assert tuple(len(pictures.split(s)) for s in ("train", "val", "test")) == sizes
    assert pictures.classes[:2] == ("a", "b")
    assert pictures.problems == ()
    assert sum(summary.total(s) for s in ("train", "val", "test")) == len(pictures.items)
    copy = pickle.loads(pickle.dumps(pictures))
    for item in (pictures.items[0], pictures.items[-1]):
        image = copy.read(item)
        assert image.size == item.size == (24, 16) and image.mode == "RGB"
        np.testing.assert_array_equal(image, pictures.read(item))


def test_labels_follow_the_folders(tmp_path):
    write(tmp_path, small_set(["1", "10", "2", "B", "a"], each=3))
    pictures = open_dataset(tmp_path)
    assert pictures.classes == ("1", "10", "2", "B", "a")
    assert all(pictures.classes[item.label] == item.key.split("/")[0] for item in pictures.items)


# ---- problems, each with its line ---------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """A source with one fault: its kind, its line, and how many pictures are left."""

    name: str
    build: Callable[[Path], Path]
    kind: str
    line: str
    left: int


def link(name: str, target: str) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        write(folder, SET)
        (folder / name).symlink_to(target)
        return folder

    return build


def undecodable(folder: Path) -> Path:
    write(folder, SET)
    try:
        Path(os.fsdecode(os.fsencode(folder / "a") + b"/caf\xe9.png")).write_bytes(numbered(1))
    except OSError:
        pytest.skip("this file system takes no such name")
    return folder


def locked_zip(folder: Path) -> Path:
    """A member whose flags say that it is encrypted."""
    path = zipped(folder / "set.zip", SET)
    data = bytearray(path.read_bytes())
    for magic, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(magic) + flags] |= 1
    path.write_bytes(data)
    return path


def damaged_member(folder: Path) -> Path:
    path = zipped(folder / "set.zip", SET)
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 10] ^= 0xFF
    path.write_bytes(data)
    return path


SAME = numbered(99)
EXTRA = {"x.png": SAME}

FAULTS = (
    *(
        Fault(bad.name, tree(SET, {f"a/{bad.name}": bad.data()}), bad.kind,
              f"a/{bad.name}: {bad.says}", 10)
        for bad in BAD
    ),
    Fault("leak into val", tree(SPLIT, {"train/a/x.png": SAME, "val/a/y.png": SAME}), "leak",
          "train/a/x.png: the same picture as val/a/y.png; left out of train", 15),
    Fault("leak into test", tree(SPLIT, TEST, {"val/b/x.png": SAME, "test/b/y.png": SAME}), "leak",
          "val/b/x.png: the same picture as test/b/y.png; left out of val", 19),
    Fault("the same picture twice", tree(SET, {"a/x.png": SAME, "a/y.png": SAME}), "duplicate",
          "a/y.png: the same picture as a/x.png; left out", 11),
    Fault("one picture, two labels", tree(SET, {"a/x.png": SAME, "b/y.png": SAME}), "two-labels",
          "a/x.png (a) and b/y.png (b): the same picture with different labels; all left out", 10),
    Fault("class with one picture", tree(SET, {"c/x.png": SAME}), "single-picture",
          "class 'c' has a single picture to train with; add some", 11),
    Fault("classes that look alike", tree(SET, small_set("ａ", seed=5)), "similar-classes",
          "'a' and 'ａ' are classes of their own, and differ only in capitals", 15),
    Fault("class never validated", tree(SPLIT, small_set("c", prefix="train/", seed=5)),
          "never-checked",
          "class 'c': no picture to validate with; it is trained, never checked", 19),
    Fault("class that train lacks", tree(SPLIT, {"val/zebra/x.png": SAME}), "unknown-class",
          "class 'zebra' is in val but not in train: its 1 picture left out", 14),
    Fault("empty class", lambda f: (write(f, SET), (f / "c").mkdir())[0], "empty-class",
          "class 'c' has no usable picture: it is left out", 10),
    Fault("class of broken pictures", tree(SET, {"c/x.png": b"", "c/y.png": b""}), "empty-class",
          "class 'c' has no usable picture: it is left out", 10),
    Fault("picture beside the classes", tree(SET, EXTRA), "outside-classes",
          "x.png: lies outside the class folders; left out", 10),
    Fault("picture beside train and val", tree(SPLIT, EXTRA), "outside-classes",
          "x.png: lies outside the class folders; left out", 14),
    Fault("folder beside train and val", tree(SPLIT, {"unlabelled/x.png": SAME}), "other-folder",
          "unlabelled: neither train, val nor test: its 1 picture left out", 14),
    Fault("other files", tree(SET, {"a/notes.txt": b"x", "README": b"x"}), "other-files",
          "2 files not taken for pictures (.txt 1, no ending 1)", 10),
    Fault("iPhone pictures", tree(SET, {"a/1.HEIC": b"x", "b/2.heic": b"x"}), "unsupported",
          "2 .heic files left out: convert to JPEG or PNG", 10),
    Fault("name that is no text", undecodable, "unsafe-name",
          "a/caf\\xe9.png: the name is not UTF-8; rename it; left out", 10),
    Fault("name with a newline", tree(SET, {"a/x\ny.png": b""}), "empty-file",
          "a/x\\x0ay.png: the file has zero bytes; left out", 10),
    Fault("link loop", link("a/again", ".."), "link-loop",
          "a/again: a link back to a folder above it; not followed", 10),
    Fault("link to nothing", link("a/gone.png", "nowhere.png"), "link-to-nothing",
          "a/gone.png: a link that leads nowhere; left out", 10),
    Fault("zip with an absolute name", lambda f: zipped(f / "s.zip", SET | {"/etc/x.png": SAME}),
          "unsafe-name", "/etc/x.png: an absolute name or one with '..' in a zip; left out", 10),
    Fault("zip that climbs out", lambda f: zipped(f / "s.zip", SET | {"a/../../x.png": SAME}),
          "unsafe-name", "a/../../x.png: an absolute name or one with '..' in a zip; left out", 10),
    Fault("locked zip", locked_zip, "locked", "a/0.png: locked with a password; unzip it first", 9),
    Fault("zip with a damaged file", damaged_member, "broken",
          "a/0.png: damaged inside the zip", 9),
    Fault("table names no file", table(ROWS + "a/gone.png,a\n"), "missing",
          "a/gone.png: there is no such file; left out", 10),
    Fault("table repeats a row", table(ROWS + "a/0.png,a\n"), "repeated-row",
          "list.csv, row 12: a/0.png is listed twice; counted once", 10),
    Fault("table gives two labels", table(ROWS + "a/0.png,b\n"), "two-labels",
          "a/0.png: listed in list.csv as a and as b; left out", 9),
    Fault("table gives two splits", table(SPLIT_ROWS + "train/a/0.png,a,val\n", SPLIT | TEST),
          "leak", "train/a/0.png: listed in list.csv in train and in val; left out", 17),
    Fault("table row without a label", table(ROWS + "a/x.png,\n", SET | {"a/x.png": SAME}), "row",
          "list.csv, row 12: no label; left out", 10),
    Fault("table with an unknown split", table(SPLIT_ROWS + "a/x.png,a,later\n", SPLIT | TEST),
          "row", "list.csv, row 20: unknown split 'later' (train, val or test); left out", 18),
    Fault("table with more columns", table(ROWS.replace("label\n", "label,width\n", 1)),
          "extra-columns", "list.csv: columns not used: width", 10),
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_faults_give_their_line_and_the_rest_goes_on(fault: Fault, tmp_path: Path):
    source = fault.build(tmp_path)
    pictures = open_dataset(source)
    found = [p for p in pictures.problems if p.kind == fault.kind]
    assert any(p.line.startswith(fault.line) for p in found), pictures.problems
    assert all("\n" not in p.line for p in pictures.problems)
    assert len(pictures.items) == fault.left
    assert all(pictures.read(item) for item in pictures.items)
    strict_stops_on_what_would_be_left_out(fault, source)


def strict_stops_on_what_would_be_left_out(fault: Fault, source: Path) -> None:
    if KINDS[fault.kind]:
        with pytest.raises(UserError, match="^strict: "):
            open_dataset(source, strict=True)
    else:
        assert len(open_dataset(source, strict=True).items) == fault.left


def test_every_kind_of_problem_is_tried_and_written_down():
    tried = {fault.kind for fault in FAULTS} | {"unreadable", "unreadable-folder"}
    tried |= {"repeated-name", "seen-before", "copies"}  # test_files, test_history, test_copies
    assert tried == set(KINDS)
    page = (Path(__file__).parents[2] / "docs" / "reference" / "data.md").read_text("utf-8")
    lines = page.split("## Lines")[1]
    assert [kind for kind in KINDS if kind not in lines] == []


# ---- nothing to go on with ----------------------------------------------------------------------

STOPS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing there": (lambda f: f / "gone", "there is no '.*gone'; give a folder, a zip"),
    "empty folder": (lambda f: f, "holds no pictures; wanted: one folder a class"),
    "no class folders": (tree(EXTRA), "has 1 picture but no class folders"),
    "one class": (tree({f"a/{k}": v for k, v in EXTRA.items()}), "has one class \\('a'\\)"),
    "nothing usable": (tree({"a/x.png": b"", "b/x.png": b""}), "none of 2 pictures can be used"),
    "two folders for val": (
        tree(SPLIT, small_set(prefix="validation/", seed=7)),
        "has two folders for val: val and validation; keep one",
    ),
    "no zip": (tree({"x.zip": b"this is no zip"}), "is not a zip file that can be read"),
    "cut zip": (lambda f: _cut(zipped(f / "x.zip", SET)), "is not a zip file that can be read"),
    "zip without pictures": (lambda f: zipped(f / "x.zip", {"a": b""}), "holds no pictures"),
    "another file": (tree({"x.tar": b""}), "is neither a folder nor a .zip"),
    "column missing": (
        table(ROWS.replace("label", "lable", 1)),
        "list.csv has no column label; its columns are path, lable; wanted: path,label",
    ),
    "column twice": (table(ROWS.replace("label", "path", 1)), "has two columns for path"),
    "empty table": (table(""), "list.csv is empty"),
    "header only": (table("path,label\n"), "list.csv lists no pictures"),
    "not UTF-8": (
        tree(SET, {"list.csv": ROWS.encode() + "a/\xe9.png,a\n".encode("latin-1")}),
        "list.csv is not UTF-8 \\(byte 0xe9 in line 12\\)",
    ),
    "no parquet": (tree(SET, {"x.parquet": b"no"}), "is not a Parquet file"),
}


def _cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-30])
    return path


@pytest.mark.parametrize("name", STOPS)
def test_stops_with_one_line(name: str, tmp_path: Path):
    build, line = STOPS[name]
    source = build(tmp_path)
    named = {"not UTF-8": "list.csv", "no zip": "x.zip", "another file": "x.tar"}
    source = source / named.get(name, "x.parquet" if name == "no parquet" else "")
    with pytest.raises(UserError, match=line) as caught:
        open_dataset(source)
    assert "\n" not in str(caught.value)


# ---- the rest -----------------------------------------------------------------------------------


def test_hidden_files_are_passed_over_in_silence(tmp_path):
    hidden = ["a/.DS_Store", "a/._0.png", ".git/a.png", "a/Thumbs.db", "b/desktop.ini"]
    write(tmp_path, SET | dict.fromkeys(hidden, b"x"))
    assert open_dataset(tmp_path).problems == ()
    archive = zipped(tmp_path / "s.zip", SET | {"__MACOSX/a/._0.png": b"x", "a/.DS_Store": b""})
    assert open_dataset(archive).problems == ()


def test_linked_class_folders_are_followed(tmp_path):
    write(tmp_path, small_set("c", prefix="elsewhere/"))
    write(tmp_path, {f"set/{k}": v for k, v in small_set(seed=4).items()})
    (tmp_path / "set" / "c").symlink_to(tmp_path / "elsewhere" / "c")
    assert open_dataset(tmp_path / "set").classes == ("a", "b", "c")


def test_unreadable_folder_and_file(tmp_path, monkeypatch):
    """By stand-ins: permissions do not bind the superuser that tests may run as."""
    write(tmp_path, SET | {"c/0.png": numbered(1)})
    scan, secret = os.scandir, str(tmp_path / "c")

    def refuse(path):
        if str(path) == secret:
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    lines = [p.line for p in open_dataset(tmp_path).problems]
    assert "c: the folder cannot be read (Permission denied); left out" in lines


def test_what_is_there_but_cannot_be_read_says_so(tmp_path):
    (tmp_path / "x.png").mkdir()
    with pytest.raises(ImageError, match="cannot be read \\(Is a directory\\)") as caught:
        Folder(str(tmp_path)).read("x.png")
    assert caught.value.kind == "unreadable"


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_unreadable_file(tmp_path):
    write(tmp_path, SET)
    (tmp_path / "a" / "0.png").chmod(0)
    lines = [p.line for p in open_dataset(tmp_path).problems]
    assert lines == ["a/0.png: cannot be read (Permission denied); left out"]


def test_a_mixed_set_of_everything_goes_through(tmp_path):
    """The whole corpus at once: the good is kept, the bad is listed, the report is written."""
    write(tmp_path, SET | {f"a/{g.name}": g.data() for g in GOOD})
    write(tmp_path, {f"b/{b.name}": b.data() for b in BAD})
    seen = []
    pictures, summary = check(tmp_path, progress=lambda done, total: seen.append((done, total)))
    named = {p.where for p in pictures.problems}
    assert {f"b/{bad.name}" for bad in BAD} <= named
    kept = {item.key for item in pictures.items}
    doubles = {p.where for p in pictures.problems if p.kind == "duplicate"}
    assert {f"a/{good.name}" for good in GOOD} <= kept | doubles
    assert seen[-1] == (len(SET) + len(GOOD) + len(BAD),) * 2
    assert summary.problems["too-large"] == 1
    report = tmp_path / "problems.csv"
    write_problems(report, pictures.problems)
    rows = list(csv.DictReader(io.StringIO(report.read_text("utf-8"))))
    assert [row["line"] for row in rows] == [p.line for p in pictures.problems]
    assert {row["left_out"] for row in rows} == {"yes"}


def test_a_picture_that_changes_later_is_named(tmp_path):
    write(tmp_path, SET)
    pictures = open_dataset(tmp_path)
    (tmp_path / pictures.items[0].key).write_bytes(b"")
    with pytest.raises(UserError, match=f"{pictures.items[0].key}: the file has zero bytes"):
        pictures.read(pictures.items[0])


def test_the_validation_part_is_seeded_stratified_and_stable(tmp_path):
    write(tmp_path, small_set("abc", each=10))
    first, second = open_dataset(tmp_path, seed=1), open_dataset(tmp_path, seed=2)
    assert first.counts("val") == second.counts("val") == (2, 2, 2)
    assert first.split("val") != second.split("val")
    assert open_dataset(tmp_path, seed=1).items == first.items
    assert open_dataset(tmp_path, val=0.5).counts("val") == (5, 5, 5)
    write(tmp_path, {"a/more.png": numbered(5)})  # one more: the others keep their part
    grown = {item.key: item.split for item in open_dataset(tmp_path, seed=1).items}
    moved = [item.key for item in first.items if grown[item.key] != item.split]
    assert len(moved) <= 1


@pytest.mark.parametrize("val", [0.0, 1.0, -1.0])
def test_validation_share_out_of_range(val):
    with pytest.raises(UserError, match="validation share"):
        open_dataset("fashion", val=val)


class Name(str):
    """A class's name that counts how often it is compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Name.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def steps(classes: int) -> int:
    """Calls and comparisons from the names of files to the parts, four pictures a class."""
    folders = [f"train/{i}" for i in range(classes)] + [f"x{i}" for i in range(classes)] + ["val"]
    files = [f"{folder}/{j}.png" for folder in folders for j in range(4)]
    listing = Listing(tuple(sorted(files)), tuple(sorted([*folders, "train"])))
    calls = [0]

    def count_call(frame: object, event: str, argument: object) -> None:
        calls[0] += event in ("call", "c_call")

    Name.compared = 0
    sys.setprofile(count_call)
    try:
        layout = parse_folders("photos", listing)
        rows = [ImageRow(row.key, Name(row.name), row.split) for row in layout.rows]
        settled = clean("photos", layout, [ScannedImage(row, row.key, (1, 1)) for row in rows])
        items, _ = split_validation(settled.classes, settled.items, 0.2, 0)
        take_fraction(items, 0.5, 0)
        parse_table(
            "t.csv", b"path,label\n" + b"".join(b"%d.png,%d\n" % (i, i) for i in range(classes))
        )
    finally:
        sys.setprofile(None)
    return calls[0] + Name.compared


def test_every_step_is_linear_in_the_number_of_classes():
    assert steps(400) < 5 * steps(100)
