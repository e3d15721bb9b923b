"""A folder that carries all that is needed to use a model, and nothing half done."""

import json
import os

import pytest
import torch
from PIL import Image
from tests.parity.measured import randomised

import vitrail
from vitrail.data import Preprocess
from vitrail.errors import UserError
from vitrail.export import (
    ExportError,
    folder,
    is_exported,
    open_file,
    open_folder,
    write_folder,
)
from vitrail.tasks.card import Card

TINY = "vit_tiny(patch=16, dim=24, heads=3, depth=1)"
SEEN = Preprocess(image=64, mean=(0.5,) * 3, std=(0.5,) * 3)
CARD = Card(model=TINY, classes=("cat", "dog"), image=64, preprocess=SEEN.to_dict())


@pytest.fixture
def model():
    return randomised(vitrail.create(TINY, classes=2, image=64))


def test_predicts_as_the_model_did(model, tmp_path) -> None:
    made = write_folder(model, CARD, tmp_path / "out", format="torch")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["card.json", "model.pt2"]
    assert is_exported(tmp_path / "out") and not is_exported(tmp_path)
    served = open_folder(tmp_path / "out")
    assert len(served.card["sha256"]) == 64
    assert served.classes == ("cat", "dog") and served.preprocess == SEEN
    pictures = [Image.new("RGB", (90, 70), color) for color in ("red", "green", "blue")]
    with torch.no_grad():
        wanted = model(torch.stack([SEEN.transform()(p) for p in pictures])).softmax(-1)
    torch.testing.assert_close(served.predict(pictures), wanted, rtol=1e-4, atol=1e-5)
    assert made.worst.relative <= 1e-4


def test_the_card_says_how_it_was_checked(model, tmp_path) -> None:
    write_folder(model, CARD, tmp_path / "out", format="torch")
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["model"] == TINY and card["image"] == 64 and card["sizes"] == "fixed"
    assert card["verification"]["tolerance"] == 1e-4
    assert {b["batch"] for b in card["verification"]["batches"]} >= {1, 2, 5}
    assert torch.__version__.startswith(card["versions"]["torch"])


def test_a_folder_that_holds_something_is_left_alone(model, tmp_path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        write_folder(model, CARD, tmp_path, format="torch")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_failed_export_leaves_nothing(model, tmp_path) -> None:
    with pytest.raises(ExportError):
        write_folder(model, CARD, tmp_path / "out", format="torch", precision="int8")
    with pytest.raises(UserError, match="no format 'coreml'"):
        write_folder(model, CARD, tmp_path / "out", format="coreml")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_a_full_disk_is_one_line_and_leaves_nothing(format, small_disk) -> None:
    wide = TINY.replace("24", "192")
    with pytest.raises(UserError, match="cannot write '[^']*/small-disk/out': No space left"):
        write_folder(vitrail.create(wide, classes=2, image=64), CARD, small_disk / "out",
                     format=format)  # fmt: skip
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "holds no card.json"),
        ("{", "cannot read"),
        ("{}", "no card of an exported model"),
        (json.dumps({"format": folder.FORMAT, "version": 99}), "by a later Vitrail"),
    ],
)
def test_folders_that_are_none(text, message, tmp_path) -> None:
    if text is not None:
        (tmp_path / "card.json").write_text(text)
    with pytest.raises(UserError, match=message):
        open_folder(tmp_path)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder with a card, and a file that is no model: the card is judged first."""
    out = tmp_path_factory.mktemp("exported")
    (out / "model.onnx").write_bytes(b"not looked at")
    (out.parent / "elsewhere.onnx").write_bytes(b"not looked at")
    (out / "link.onnx").symlink_to(out.parent / "elsewhere.onnx")
    (out / "loop.onnx").symlink_to("loop.onnx")
    os.mkfifo(out / "pipe.onnx")
    return out


CARD_JSON = {
    "format": folder.FORMAT,
    "version": 1,
    "file": "model.onnx",
    "kind": "onnx",
    "precision": "float32",
    "classes": ["cat", "dog"],
    "preprocess": SEEN.to_dict(),
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file": "../elsewhere.onnx"}, "outside its folder"),
        ({"file": "/etc/passwd"}, "outside its folder"),
        ({"file": "link.onnx"}, "outside its folder"),
        ({"file": "."}, "outside its folder"),
        ({"file": "loop.onnx"}, "no regular file"),
        ({"file": "pipe.onnx", "sha256": "0" * 64}, "no regular file"),
        ({"file": "missing.onnx"}, "no regular file"),
        ({"file": ""}, "outside its folder"),
        ({"file": None}, "file must be str"),
        ({"kind": "torch"}, "kind 'torch' of 'model.onnx'"),
        ({"kind": "coreml"}, "kind 'coreml'"),
        ({"precision": "float7"}, "precision 'float7'; there are"),
        ({"classes": []}, "names no classes"),
        ({"classes": "cat"}, "classes must be a list"),
        ({"classes": [["cat"]]}, "classes must be str"),
        ({"preprocess": {"image": "big"}}, "image must be int"),
        ({"preprocess": []}, "preprocess must be"),
        ({"version": None}, "version must be int"),
        ({"version": 10**12}, "by a later Vitrail"),
        ({"version": 10**30}, "version is too large a number"),
        ({"sha256": "0" * 64}, "is damaged"),
    ],
)
def test_a_card_cannot_point_elsewhere(exported, changes, message) -> None:
    (exported / "card.json").write_text(json.dumps(CARD_JSON | changes))
    with pytest.raises(UserError, match=message):
        open_folder(exported)


@pytest.mark.parametrize("spelling", [b"\x0a\x08location", b"\x8a\x80\x00\x88\x00location"])
def test_an_onnx_file_brings_its_weights_inside(spelling, tmp_path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x08\x07" + spelling + b"\x12\x0b/etc/passwd")
    with pytest.raises(UserError, match="takes weights from other files"):
        open_file(tmp_path / "model.onnx")
