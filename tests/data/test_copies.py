"""Copies of pictures: one counts, or all do where that was asked for."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from tests.data.corpus import numbered, small_set, write

from vitrail.data import Augment, ImageTensors, Preprocess, open_dataset

COMMON = small_set("a", each=20)
RARE = {f"b/{i}.png": numbered(5000 + i) for i in range(5)}
COPIES = {f"b/copy{j}-{k[2:]}": v for k, v in RARE.items() for j in range(3)}


def by_split(source: Path, copies: bool) -> Counter[tuple[str, int]]:
    pictures = open_dataset(source, copies=copies)
    held = {i.digest for i in pictures.items if i.split != "train"}
    assert not held & {i.digest for i in pictures.split("train")}
    for split in ("val", "test"):
        digests = [i.digest for i in pictures.split(split)]
        assert len(digests) == len(set(digests))
    return Counter((item.split, item.label) for item in pictures.items)


def test_copies_of_the_rare_class_count_in_training_alone(tmp_path):
    write(tmp_path, COMMON | RARE | COPIES)
    assert by_split(tmp_path, False)["train", 1] == 4
    counts = by_split(tmp_path, True)
    assert (counts["train", 1], counts["val", 1]) == (16, 1)
    assert counts["train", 0] == 16
    lines = [p.line for p in open_dataset(tmp_path, copies=True).problems]
    assert lines == [
        "15 copies of pictures counted again in training, as asked ('b' 15)",
        "3 copies of pictures to validate or test with left out",
    ]


def test_what_is_held_out_by_the_folders_leaves_no_copy(tmp_path):
    write(tmp_path, {f"train/{k}": v for k, v in (COMMON | RARE | COPIES).items()})
    write(tmp_path, {"val/b/v.png": RARE["b/0.png"], "val/a/v.png": numbered(9)})
    counts = by_split(tmp_path, True)
    assert (counts["train", 1], counts["val", 1]) == (16, 1)


def test_copies_with_two_labels_are_left_out_all_the_same(tmp_path):
    write(tmp_path, COMMON | RARE | {"a/x.png": RARE["b/0.png"]})
    pictures = open_dataset(tmp_path, copies=True)
    assert [p.kind for p in pictures.problems] == ["two-labels"]


def test_rows_that_are_repeated_count_again(tmp_path):
    write(tmp_path, COMMON | RARE)
    rows = [f"{k},{k[0]}" for k in (COMMON | RARE)] + [f"{k},b" for k in RARE] * 3
    (tmp_path / "t.csv").write_text("path,label\n" + "\n".join(rows), "utf-8")
    assert by_split(tmp_path / "t.csv", False)["train", 1] == 4
    assert by_split(tmp_path / "t.csv", True)["train", 1] == 16


@pytest.mark.parametrize("first", [0, 2])
def test_repeated_rows_are_augmented_each_in_their_own_way(first, tmp_path):
    write(tmp_path, RARE)
    rows = [f"{k},{'bc'[i % 2]}" for i, k in enumerate(RARE)] * 2
    (tmp_path / "t.csv").write_text("path,label\n" + "\n".join(rows), "utf-8")
    pictures = open_dataset(tmp_path / "t.csv", copies=True)
    train = pictures.split("train")
    again = [i for i, item in enumerate(train) if item.key == train[first].key]
    loaded = ImageTensors(pictures, train, Augment().transform(Preprocess(image=16)), 0)
    assert len(again) == 2
    assert not torch.equal(loaded[0, again[0]][0], loaded[0, again[1]][0])
