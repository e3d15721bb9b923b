"""Tables as other tools write them."""

import json
import os
import shutil
import unicodedata
from pathlib import Path

import pytest
from tests.data.corpus import numbered, small_set, write

from vitrail.data import ImageDataset, limits, open_dataset, parquet
from vitrail.data.table import is_missing_value
from vitrail.errors import UserError

SET = small_set()
NAMES = list(SET)


def opened(
    folder: Path, text: str | bytes, name: str = "list.csv", **options: object
) -> ImageDataset:
    write(folder, SET)
    data = text if isinstance(text, bytes) else text.encode()
    (folder / name).write_bytes(data)
    return open_dataset(folder / name, **options)  # type: ignore[arg-type]


def rows(head: str, label: object = lambda name: name[0], sep: str = ",") -> str:
    return head + "\n" + "".join(f"{n}{sep}{label(n)}\n" for n in SET)  # type: ignore[operator]


HEADS = [
    "image_path,label", "filepath,labels", "File Path,Class Name", "img,category", "image,target",
    "filename,species", "FILE_NAME,Breed", "Image-Path,class_label", "images,targets", "path,y",
    "\ufeffimg_path,categories", '"image path","class"', "relative_path,diagnosis",
]  # fmt: skip


@pytest.mark.parametrize("head", HEADS)
def test_columns_of_other_tools(head, tmp_path):
    pictures = opened(tmp_path, rows(head))
    assert (len(pictures.items), pictures.classes) == (10, ("a", "b"))
    assert pictures.problems == ()


def test_the_usual_name_wins_and_the_other_is_said(tmp_path):
    text = "path,label,species,fold\n" + "".join(
        f"{n},{n[0]},x,{i % 5}\n" for i, n in enumerate(SET)
    )
    pictures = opened(tmp_path, text)
    assert pictures.classes == ("a", "b")
    assert [p.line for p in pictures.problems] == ["list.csv: columns not used: species, fold"]
    with pytest.raises(UserError, match="two columns for label: 'label' and 'Class'; rename one"):
        opened(tmp_path, "path,label,Class\na/0.png,a,b\n")


@pytest.mark.parametrize("word", ["dev", "EVAL", "validate", "validation", "valid", "evaluation"])
@pytest.mark.parametrize("column", ["split", "Data Split", "partition"])
def test_words_for_splits(word, column, tmp_path):
    parts = ["training"] * 4 + [word] + ["trn"] * 4 + [word]
    text = f"path,label,{column}\n" + "".join(
        f"{n},{n[0]},{part}\n" for n, part in zip(SET, parts, strict=True)
    )
    assert opened(tmp_path, text).counts("val") == (1, 1)


WRITINGS = {
    "semicolons": rows("path;label", sep=";"),
    "tabs": rows("path\tlabel", sep="\t"),
    "bars": rows("path|label", sep="|"),
    "quotes": rows("path,label", lambda n: f'"{n[0]}"'),
    "excel's first line": "sep=;\r\n" + rows("path;label", sep=";").replace("\n", "\r\n"),
    "excel's formulas": rows("path,label", lambda n: f'"=""{n[0]}"""'),
    "carriage returns": rows("path,label").replace("\n", "\r\n"),
    "old macs": rows("path,label").replace("\n", "\r"),
    "blanks": rows(" path , label ", lambda n: f"  {n[0]}\u00a0"),
    "empty columns": rows("path,label,,", lambda n: f"{n[0]},,"),
    "backslashes": rows("path,label").replace("/", "\\"),
    "dots": rows("path,label").replace("a/", "./a/../a/"),
    "utf-16": rows("path\tlabel", sep="\t").encode("utf-16"),
    "utf-32": rows("path,label").encode("utf-32"),
    "utf-16 big": b"\xfe\xff" + rows("path,label").encode("utf-16-be"),
    "utf-8 with a mark": b"\xef\xbb\xbf" + rows("path,label").encode(),
}


@pytest.mark.parametrize("writing", WRITINGS)
def test_writings(writing, tmp_path):
    pictures = opened(tmp_path, WRITINGS[writing])
    assert (len(pictures.items), pictures.classes, pictures.problems) == (10, ("a", "b"), ())


def test_absolute_paths(tmp_path):
    text = rows("path,label").replace("a/", f"{tmp_path}/a/")
    assert len(opened(tmp_path, text).items) == 10


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (("1.0", "2.0"), ("1", "2")),
        (("1,0", "2,0"), ("1", "2")),
        (("0", "1.00"), ("0", "1")),
        (("1.0", "1.5"), ("1.0", "1.5")),
        (("01", "02"), ("01", "02")),
        (("1.0", "cat"), ("1.0", "cat")),
    ],
)
def test_numbers_that_came_through_floats(labels, classes, tmp_path):
    text = rows("path;label", lambda n: labels["ab".index(n[0])], sep=";")
    assert opened(tmp_path, text).classes == classes


@pytest.mark.parametrize("nothing", ["", "nan", "NaN", "None", "NULL", "NA", "n/a", "#N/A", "<NA>"])
def test_no_class_is_called_nan(nothing, tmp_path):
    pictures = opened(tmp_path, rows("path,label") + f"a/x.png,{nothing}\n")
    (problem,) = pictures.problems
    assert problem.line.startswith("list.csv, row 12: no label") and pictures.classes == ("a", "b")


def test_words_that_are_classes():
    assert not any(
        map(is_missing_value, ["0", "Na", "naan", "nothing", "No", "-", "None of these"])
    )


@pytest.mark.parametrize("gone", ["a/", "b/1", "/"])
def test_missing_files_are_counted_and_the_place_is_said(gone, tmp_path):
    text = rows("path,label").replace(gone, "old/" + gone.strip("/"))
    lost = text.count("old/")
    try:
        lines = [p.line for p in opened(tmp_path, text).problems]
    except UserError as error:
        lines = [str(error)]
    assert not any("has one class" in line for line in lines)
    line = next(line for line in lines if f"{lost} of 10 pictures not found below" in line) \
        if lost > 1 else lines[0]  # fmt: skip
    assert (str(tmp_path) in line) == (lost > 1)
    assert "old/" in line and "\n" not in line


@pytest.mark.parametrize("name", ["/dev/zero", "pipe.png", "a", "/proc/self/mem"])
def test_special_files_in_a_table(name, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    pictures = opened(tmp_path, rows("path,label") + f"{name},a\n")
    assert len(pictures.items) == 10
    (problem,) = pictures.problems
    assert problem.line.startswith(f"{name}: ") and problem.kind in ("unreadable", "empty-file")


def test_accents_written_either_way(tmp_path):
    """Class names in folders and tables, and files in tables."""
    one, other = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    files = {f"{one}/{i}.png": numbered(i) for i in range(3)}
    files |= {f"{other}/{i}{one}.png": numbered(10 + i) for i in range(3)}
    files |= {f"tea/{i}.png": numbered(20 + i) for i in range(3)}
    write(tmp_path / "d", files)
    assert open_dataset(tmp_path / "d").classes == (one, "tea")
    assert len(open_dataset(tmp_path / "d").items) == 9
    (tmp_path / "d" / one / "1.png").rename(tmp_path / "d" / other / "1.png")
    shutil.rmtree(tmp_path / "d" / one)
    listed = [n for n in files if not n.startswith(one + "/")] + [f"{other}/1.png"]
    turned = "path,label\n" + "".join(
        f"{unicodedata.normalize('NFD' if i % 2 else 'NFC', n)},{n.split('/')[0]}\n"
        for i, n in enumerate(listed)
    )
    (tmp_path / "d" / "t.csv").write_text(turned, "utf-8")
    pictures = open_dataset(tmp_path / "d" / "t.csv")
    assert (len(pictures.items), pictures.classes, pictures.problems) == (7, (one, "tea"), ())


def test_accents_differ_between_train_and_val(tmp_path):
    one, other = (unicodedata.normalize(form, "\u00fcber") for form in ("NFC", "NFD"))
    files = small_set(["x", one], prefix="train/") | small_set(["x", other], prefix="val/", seed=2)
    pictures = open_dataset(write(tmp_path, files))
    assert pictures.classes == ("x", one) and pictures.counts("val") == (5, 5)


def test_no_row_that_can_be_used_says_the_first_reason(tmp_path):
    with pytest.raises(UserError, match="lists no pictures: list.csv, row 2: unknown split '0'"):
        opened(tmp_path, "path,label,split\na/0.png,a,0\nb/0.png,b,1\n")


def test_columns_in_an_error_are_few_short_and_harmless(tmp_path):
    with pytest.raises(UserError) as caught:
        opened(tmp_path, ",".join(["\x1b[31m" + "x" * 500] * 400) + "\n1\n")
    assert len(str(caught.value)) < 2000 and "\x1b" not in str(caught.value)


# ---- Parquet ------------------------------------------------------------------------------------

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402


def records(files: dict[str, bytes], *, struct: bool = True, rows: int = 3) -> dict[str, object]:
    images = [{"bytes": d, "path": None} if struct else d for d in files.values()]
    return {"image": images, "label": ["ab".index(n.split("/")[-2]) for n in files]}


def hugging(columns: dict[str, object]) -> "pa.Table":
    names = {"info": {"features": {"label": {"names": ["ant", "bee"], "_type": "ClassLabel"}}}}
    return pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(names)})


@pytest.mark.parametrize("struct", [True, False])
def test_pictures_inside(struct, tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(hugging(records(SET, struct=struct)), path, row_group_size=3)
    pictures = open_dataset(path)
    assert pictures.classes == ("ant", "bee") and pictures.problems == ()
    wanted = open_dataset(write(tmp_path / "d", SET))
    assert {i.digest for i in pictures.items} == {i.digest for i in wanted.items}
    assert all(pictures.read(item).size == item.size for item in pictures.items)


def test_a_folder_of_shards_has_its_splits_in_the_names(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "HELD_AT_ONCE", 1)  # so that row groups come and go
    (tmp_path / "data").mkdir()
    for part, seed in (
        ("train-00000-of-00002", 1),
        ("train-00001-of-00002", 2),
        ("validation-0", 3),
    ):
        table = hugging(records(small_set(seed=seed)))
        pq.write_table(table, tmp_path / "data" / f"{part}.parquet", row_group_size=4)
    pictures = open_dataset(tmp_path)
    assert [len(pictures.split(s)) for s in ("train", "val", "test")] == [20, 10, 0]
    assert len({pictures.read(i).tobytes() for i in pictures.items}) == 30


def test_rows_without_a_picture_and_row_groups_without_bounds(tmp_path, monkeypatch):
    columns = records(SET)
    columns["image"][0] = {"bytes": None, "path": "gone.png"}  # type: ignore[index]
    columns["image"][1] = None  # type: ignore[index]
    columns["image"][2] = {"bytes": b"text", "path": "/dev/zero"}  # type: ignore[index]
    pq.write_table(hugging(columns), tmp_path / "x.parquet")
    pictures = open_dataset(tmp_path / "x.parquet")
    lines = [p.line for p in pictures.problems if "/0000" in p.where]
    assert [line.split(": ")[1] for line in lines] == [
        "there is no such file; left out", "the row holds no picture; left out",
        "no picture inside (plain text); left out",
    ]  # fmt: skip
    monkeypatch.setattr(limits, "MAX_ROW_GROUP", 10)
    with pytest.raises(UserError, match="has row groups of .* write it again with smaller ones"):
        open_dataset(tmp_path / "x.parquet")


@pytest.mark.parametrize("column", ["image", "note"])
def test_one_value_that_many_rows_share_is_not_unpacked(column, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "FREE_BYTES", 1 << 16)
    monkeypatch.setattr(parquet, "FREE_ROWS", 100)
    shared = {"image": b"\0" * (1 << 20), "note": "a" * (1 << 20)}[column]
    title = {"image": "image", "note": "path"}[column]
    columns = {title: [shared] * 40, "label": ["a", "b"] * 20}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet", compression="zstd")
    with pytest.raises(UserError, match="unpacks to more than"):
        open_dataset(tmp_path / "x.parquet")
    same = pa.array(["a/0.png"] * 50_000).dictionary_encode()
    pq.write_table(pa.table({"path": same, "label": same}), tmp_path / "y.parquet")
    with pytest.raises(UserError, match="more rows than its .* bytes can hold"):
        open_dataset(tmp_path / "y.parquet")


def test_floats_and_nothing_in_parquet(tmp_path):
    write(tmp_path, SET)
    labels = [1.0 if n[0] == "a" else 2.0 for n in SET]
    labels[0] = float("nan")
    pq.write_table(pa.table({"image_path": NAMES, "label": labels}), tmp_path / "x.parquet")
    pictures = open_dataset(tmp_path / "x.parquet")
    assert pictures.classes == ("1", "2") and len(pictures.items) == 9
    assert [p.line for p in pictures.problems] == ["x.parquet, row 1: no label ('nan'); left out"]


@pytest.mark.parametrize("cut", [4, 50, -5, -60])
def test_damaged_parquet_is_one_line(cut, tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(hugging(records(SET)), path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match="is not a Parquet file that can be read") as caught:
        open_dataset(path)
    assert "\n" not in str(caught.value)
