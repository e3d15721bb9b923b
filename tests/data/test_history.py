"""What an earlier run saw keeps its part, by content, wherever the files lie now."""

import zipfile
from pathlib import Path

import pytest
from tests.data.corpus import numbered, small_set, write

from vitrail.data import History, ImageDataset, Manifest, open_dataset
from vitrail.data.items import Item


def manifest_of(pictures: ImageDataset, source: str = "") -> Manifest:
    parts = {name: pictures.split(name) for name in ("train", "val", "test")}
    return Manifest(
        source=source or pictures.name, classes=pictures.classes, parts=parts, facts={}, digest=""
    )


def content(pictures: ImageDataset, split: str) -> set[str]:
    return {item.digest for item in pictures.split(split)}


FILES = small_set("ab", each=10)


def renamed(folder: Path) -> Path:
    return write(folder, {k.replace("/", "/deep/x"): v for k, v in FILES.items()})


def into_zip(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "s.zip", "w") as archive:
        for name, data in reversed(FILES.items()):
            archive.writestr(f"photos/{name}", data)
    return folder / "s.zip"


def turned_round(folder: Path) -> Path:
    """What the run trained on lies in val now, and the other way round."""
    run = open_dataset(folder.parent / "run", seed=3)
    other = {"train": "val", "val": "train"}
    return write(folder, {f"{other[i.split]}/{i.key}": FILES[i.key] for i in run.items})


@pytest.mark.parametrize("place", [renamed, into_zip, turned_round])
def test_a_run_is_validated_on_what_it_was_validated_on(place, tmp_path):
    run = open_dataset(write(tmp_path / "run", FILES), seed=3)
    (tmp_path / "now").mkdir()
    history = History.of("runs/r", [manifest_of(run)])
    now = open_dataset(place(tmp_path / "now"), seed=4, history=history)
    assert [content(now, s) for s in ("train", "val")] == [
        content(run, s) for s in ("train", "val")
    ]
    assert now.problems[0].kind == "seen-before"
    assert "as runs/r had them: 20 pictures (16 train, 4 val)" in now.problems[0].line


def test_new_pictures_are_split_as_usual_and_old_ones_stay(tmp_path):
    run = open_dataset(write(tmp_path, FILES), seed=3)
    fresh = small_set("ab", each=5, seed=9)
    write(tmp_path, {f"{name[0]}/new{name[2:]}": data for name, data in fresh.items()})
    now = open_dataset(tmp_path, seed=3, history=History.of("r", [manifest_of(run)]))
    assert content(run, "val") < content(now, "val")
    assert content(run, "train") < content(now, "train")
    assert now.counts("val") == (3, 3)
    assert "new: 10 pictures (8 train, 2 val)" in now.problems[0].line


def test_nothing_left_to_validate_with_is_said(tmp_path):
    run = open_dataset(write(tmp_path / "run", FILES))
    trained = {i.key: FILES[i.key] for i in run.split("train")}
    history = History.of("r", [manifest_of(run)])
    now = open_dataset(write(tmp_path / "now", trained), history=history)
    assert not now.split("val")
    assert "no picture to validate with: all were trained on" in now.problems[0].line


def test_the_rest_of_a_share_is_not_new(tmp_path):
    run = open_dataset(write(tmp_path, FILES), seed=3)
    some = Manifest(
        source="", classes=run.classes, facts={}, digest="",
        parts={"train": run.split("train")[::3], "val": run.split("val")},
    )  # fmt: skip
    now = open_dataset(tmp_path, seed=3, history=History.of("r", [some], share=0.4))
    assert content(now, "val") == content(run, "val")


def test_trained_on_by_any_run_is_trained_on():
    def manifest(**parts: str) -> Manifest:
        items = {p: tuple(Item(d, 0, p, d) for d in marks) for p, marks in parts.items()}
        return Manifest(source="s", classes=("a",), parts=items, facts={}, digest="")

    late, early = manifest(train="ab", val="cd", test="e"), manifest(train="c", val="af", test="d")
    history = History.of("r", [late, early])
    wanted = {"a": "train", "b": "train", "c": "train", "d": "val", "e": "test", "f": "val"}
    assert history.parts == wanted
    both = History.merge([History.of("x", [late]), History.of("y", [early])])
    assert both is not None and both.parts == wanted and both.name == "x and y"
    assert History.merge([]) is None


def test_sets_without_digests_are_known_by_name_and_place():
    item = Item("train/000001", 0, "train")
    run = Manifest(
        source="torchvision:X@/old", classes=("a",), parts={"val": (item,)}, facts={}, digest=""
    )
    history = History.of("r", [run])
    assert history.part_of(item, "torchvision:X@/new") == "val"
    assert history.part_of(item, "torchvision:Y@/old") is None


def test_copies_of_what_was_validated_on_do_not_return(tmp_path):
    run = open_dataset(write(tmp_path, FILES), seed=3)
    held = run.split("val")[0]
    write(tmp_path, {f"{held.key[0]}/copy{i}.png": FILES[held.key] for i in range(3)})
    history = History.of("r", [manifest_of(run)])
    now = open_dataset(tmp_path, copies=True, history=history)
    assert [i.split for i in now.items if i.digest == held.digest] == ["val"]


def test_a_picture_with_another_name_is_new_only_by_content(tmp_path):
    run = open_dataset(write(tmp_path, FILES), seed=3)
    key = run.split("train")[0].key
    write(tmp_path, {key: numbered(77_777)})
    now = open_dataset(tmp_path, seed=3, history=History.of("r", [manifest_of(run)]))
    assert "new: 1 picture (1 train)" in now.problems[0].line
