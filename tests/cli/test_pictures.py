"""``vitrail check | predict``."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitrail.cli import pictures
from vitrail.cli.pictures import batches, find_pictures
from vitrail.data import limits
from vitrail.errors import UserError


def paint(path: Path, seed: int = 0, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (36, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    return path


@pytest.fixture
def new(tmp_path: Path) -> Path:
    for i in range(3):
        paint(tmp_path / "new" / f"{i}.png", i)
    paint(tmp_path / "new" / "deep" / "grey.jpg", 9, "L")
    return tmp_path / "new"


def test_check_says_that_a_set_is_very_unbalanced(give, tmp_path: Path) -> None:
    for i in range(11):
        paint(tmp_path / "set" / "cat" / f"{i}.png", i)
    for i in range(3):
        paint(tmp_path / "set" / "dog" / f"{i}.png", 90 + i)
    said = give("check", "set")
    assert "very unbalanced" not in said.out
    for i in range(11, 40):
        paint(tmp_path / "set" / "cat" / f"{i}.png", i)
    said = give("check", "set")
    shown = " ".join(said.out.split())
    assert "very unbalanced (32 training pictures of 'cat', 2 of 'dog')" in shown
    assert "sampling=sqrt" in shown and said.status == 0


def test_predict_gives_classes_and_probabilities(give, tiny_run: Path, new: Path) -> None:
    said = give("predict", tiny_run, new, "--json", "--top", "10")
    assert (said.status, said.err) == (0, "")
    rows = json.loads(said.out)
    assert [Path(row["picture"]).name for row in rows] == ["0.png", "1.png", "2.png", "grey.jpg"]
    for row in rows:
        chances = [p["probability"] for p in row["top"]]
        assert len(chances) == 10
        assert sum(chances) == pytest.approx(1, abs=1e-4)
        assert chances == sorted(chances, reverse=True)
    assert {p["class"] for p in rows[0]["top"]} >= {"Trouser", "Bag"}


def test_predict_uses_the_run_itself(give, tiny_run: Path, new: Path) -> None:
    """The same figures as opening model and preprocessing by hand."""
    import torch

    from vitrail.data import Preprocess
    from vitrail.hub import build
    from vitrail.tasks import load_weights, read_card

    best = tiny_run / "best.safetensors"
    card = read_card(best)
    model = build(card.model, classes=10, image=card.image).eval()
    model.load_state_dict(load_weights(best))
    picture = Preprocess.from_dict(card.preprocess).transform()(Image.open(new / "0.png"))
    with torch.no_grad():
        wanted = model(picture[None]).softmax(-1)[0]
    (row,) = json.loads(give("predict", tiny_run, new / "0.png", "--json", "--top", "1").out)
    assert row["top"][0]["probability"] == pytest.approx(float(wanted.max()), abs=1e-5)
    assert row["top"][0]["class"] == card.classes[int(wanted.argmax())]


def test_predict_for_people(give, tiny_run: Path, new: Path) -> None:
    said = give("predict", tiny_run, new / "0.png", "--top", "2")
    assert said.status == 0
    assert "0.png" in said.out
    assert said.out.count("%") == 2


def test_a_broken_picture_costs_one_line(give, tiny_run: Path, new: Path) -> None:
    (new / "broken.jpg").write_bytes(b"no picture at all")
    said = give("predict", tiny_run, new)
    assert said.status == 1
    assert len(said.err.splitlines()) == 1
    assert "broken.jpg" in said.err
    assert "2.png" in said.out
    assert "1 of 5 pictures could not be read" in said.out
    rows = json.loads(give("predict", tiny_run, new, "--json").out)
    assert sum("problem" in row for row in rows) == 1


def test_only_broken_pictures(give, tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    said = give("predict", tiny_run, "a.png")
    assert said.status == 1
    assert said.out == "1 of 1 pictures could not be read\n"


def test_a_run_without_weights(give, tmp_path: Path, new: Path) -> None:
    said = give("predict", tmp_path, new)
    assert said.status == 2
    assert "is it a run folder?" in said.line


def test_find_files_folders_and_patterns_once_each(new: Path) -> None:
    (new / "notes.txt").write_text("not a picture")
    assert len(find_pictures([str(new)])) == 4
    assert len(find_pictures([str(new / "*.png"), str(new / "0.png")])) == 3
    assert len(find_pictures([str(new / "**" / "*.jpg")])) == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("4.png", "no picture '4.png'"),
        ("*.bmp", r"no picture matches '\*.bmp'"),
        ("far/away.png", "there is no folder 'far'"),
        ("empty", "no pictures in folder 'empty'"),
    ],
)
def test_what_is_not_there(
    text: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=line):
        find_pictures([text])


def test_check_counts_and_lists_problems(give, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for i in range(5):
            paint(tmp_path / "photos" / name / f"{i}.png", 5 * (name == "dog") + i)
    (tmp_path / "photos" / "cat" / "bad.jpg").write_bytes(b"broken")
    said = give("check", "photos")
    assert said.status == 0
    assert "10 pictures, 2 classes" in said.out
    assert "bad.jpg" in said.out
    data = json.loads(give("check", "photos", "--json").out)
    assert [row["class"] for row in data["classes"]] == ["cat", "dog"]
    assert sum(row["train"] + row["val"] for row in data["classes"]) == 10
    assert len(data["problems"]) == 1
    strict = give("check", "photos", "--strict")
    assert strict.status == 2
    assert "bad.jpg" in strict.line


def test_check_of_a_clean_set(give) -> None:
    assert "no problems" in give("check", "fashion").out


def test_folders_are_listed_as_for_training(give, tiny_run: Path, new: Path) -> None:
    """Hidden and special places in silence, loops of links and pipes with a line, nothing hangs."""
    for name in ("._0.png", "__MACOSX/0.png", ".ipynb_checkpoints/0.png", "deep/.hidden/0.png"):
        paint(new / name)
    assert len(find_pictures([str(new)])) == 4
    (new / "deep" / "again").symlink_to(new)
    os.mkfifo(new / "pipe.png")
    (new / "gone.png").symlink_to("nowhere")
    said = give("predict", tiny_run, new)
    assert said.status == 0 and len(said.err.splitlines()) == 3
    assert len(find_pictures([str(new / "**" / "*.png")])) == 3
    for text in (str(new / "*"), str(new / "*" / "*")):
        found = find_pictures([text])
        assert not any("MACOSX" in str(path) or path.name == "pipe.png" for path in found)


@pytest.mark.parametrize("name", ["pipe.png", "/dev/zero"])
def test_special_files_are_one_line(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.png")
    with pytest.raises(UserError, match="is a pipe, a socket or a device"):
        find_pictures([name])


def test_names_that_no_system_takes() -> None:
    for text in ("x" * 5000, "nul\0"):
        with pytest.raises(UserError, match="no picture"):
            find_pictures([text])


def test_few_decoded_pictures_are_held(tmp_path: Path, monkeypatch) -> None:
    """By bytes for large pictures, by number for small ones."""
    paths = [paint(tmp_path / f"{i:02d}.png", i) for i in range(5)]
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x1b[31mx")
    assert [len(some) for some in batches([*paths, bad])] == [6]
    assert [len(some) for some in batches(paths, each=1 << 26)] == [3, 2]  # of a large model input
    monkeypatch.setattr(limits, "BATCH_BYTES", 2 * 4 * 36 * 48 - 1)
    assert [len(some) for some in batches([*paths, bad])] == [2, 2, 2]
    assert not any([*batches([*paths, bad])][:2])  # each is let go of before the next is read
    monkeypatch.setattr(pictures, "AT_ONCE", 1)
    assert [path for some in batches(paths) for path, _, _ in some] == paths


def test_damaged_pictures_are_one_harmless_line_each(give, tiny_run: Path, new: Path) -> None:
    tiff = io.BytesIO()
    Image.new("RGB", (30, 20)).save(tiff, "TIFF", compression="tiff_lzw")
    (new / "a\x1b[31m\nb.tif").write_bytes(tiff.getvalue()[:-30])
    (new / "page.jpg").write_bytes(b"<html>no</html>")
    (new / "empty.png").touch()
    said = give("predict", tiny_run, new)
    assert said.status == 1
    assert len(said.err.splitlines()) == 3 and "\x1b" not in said.err
    assert "no picture inside (a web page)" in said.err
    assert "the file has zero bytes" in said.err


def test_check_counts_copies_when_asked(give, tmp_path: Path) -> None:
    for i in range(5):
        paint(tmp_path / "p" / "a" / f"{i}.png", i)
        paint(tmp_path / "p" / "b" / f"{i}.png", 9 + i)
        paint(tmp_path / "p" / "b" / f"copy{i}.png", 9 + i)
    assert "5 copies of pictures counted again" in give("check", "p", "--copies").out
    assert "copies" not in give("check", "p").out
