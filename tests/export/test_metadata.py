"""An ONNX file alone: what it says of itself, and that it can be used by that."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.parity.measured import randomised

import vitrail
from vitrail.data import Preprocess
from vitrail.errors import UserError
from vitrail.export import open_exported, open_folder, to_onnx, write_folder
from vitrail.export.metadata import KEY, read_metadata
from vitrail.tasks.card import Card

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ROOT = Path(__file__).parents[2]
TINY = "vit_tiny(patch=16, dim=24, heads=3, depth=1)"
SEEN = Preprocess(
    image=32, mean=(0.4, 0.5, 0.6), std=(0.2,) * 3, crop=0.8, interpolation="bilinear"
)
CARD = Card(model=TINY, classes=("cat [x]", "döner"), image=32, preprocess=SEEN.to_dict())


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "out"
    write_folder(model(), CARD, folder)
    return folder


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return randomised(vitrail.create(TINY, classes=2, image=32))


def picture(folder: Path, size: tuple[int, int] = (61, 47)) -> Path:
    smooth = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(smooth).resize(size, Image.Resampling.BICUBIC).save(folder / "picture.png")
    return folder / "picture.png"


def changed(source: Path, path: Path, **metadata: str | None) -> Path:
    """A copy with other metadata; None takes a key away."""
    made = onnx.load(source)
    values = {p.key: p.value for p in made.metadata_props} | metadata
    onnx.helper.set_model_props(made, {k: v for k, v in values.items() if v is not None})
    onnx.save(made, path)
    return path


def test_metadata_names_and_axes(exported: Path) -> None:
    session = runtime.InferenceSession(exported / "model.onnx")
    told = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
    assert told["classes"] == ["cat [x]", "döner"] and told["preprocess"] == SEEN.to_dict()
    assert told[KEY]["model"] == TINY and told[KEY]["classes"] == told["classes"]
    (image,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.shape) == ("image", ["batch", 3, 32, 32])
    assert (logits.name, logits.shape) == ("logits", ["batch", 2])
    assert told["axes"] == {
        "image": ["batch", "channels", "height", "width"],
        "logits": ["batch", "classes"],
    }


def test_the_same_model_gives_the_same_bytes_and_no_paths(exported: Path, tmp_path: Path) -> None:
    write_folder(model(), CARD, tmp_path / "again")
    data = (exported / "model.onnx").read_bytes()
    assert data == (tmp_path / "again" / "model.onnx").read_bytes()
    assert (
        b"pkg.torch" not in data and str(ROOT).encode() not in data and b"site-packages" not in data
    )


def test_axes_of_any_size_and_of_outputs_that_are_no_logits(tmp_path: Path) -> None:
    made = to_onnx(
        torch.nn.Conv2d(3, 4, 32, stride=32), torch.randn(1, 3, 64, 64), tmp_path / "m.onnx",
        any_size=True,
    )  # fmt: skip
    session = runtime.InferenceSession(made.path)
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    assert session.get_outputs()[0].shape[:2] == ["batch", 4]
    assert b"pkg.torch" not in made.path.read_bytes()
    with pytest.raises(UserError, match="does not say its classes and preprocessing"):
        open_exported(made.path)


def test_the_file_alone_predicts_as_its_folder_does(exported: Path, tmp_path: Path) -> None:
    alone = changed(exported / "model.onnx", tmp_path / "alone.onnx")
    image = Image.open(picture(tmp_path))
    served = open_exported(alone)
    assert served.classes == CARD.classes and served.preprocess == SEEN
    assert torch.equal(served.predict([image]), open_folder(exported).predict([image]))
    for place in (exported, exported / "model.onnx"):
        assert open_exported(place).classes == CARD.classes


def test_an_older_file_beside_its_card_is_read_by_that(exported: Path, tmp_path: Path) -> None:
    card = json.loads((exported / "card.json").read_text())
    del card["sha256"], card["content_sha256"]  # older cards have none
    (tmp_path / "card.json").write_text(json.dumps(card))
    bare = changed(exported / "model.onnx", tmp_path / "model.onnx", **{KEY: None})
    assert open_exported(bare).classes == CARD.classes


@pytest.mark.parametrize("size", [(61, 47), (47, 61), (32, 32), (9, 200)])
def test_the_example_of_the_docs(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    """Run as it stands on the page: the same class, and logits equal to rounding."""
    page = next((ROOT / "docs").rglob("export.md")).read_text(encoding="utf-8")
    (code,) = (c for c in re.findall(r"```python\n(.*?)```", page, re.S) if "onnxruntime" in c)
    image = Image.open(picture(tmp_path, size))
    image.save(tmp_path / "picture.jpg", quality=95)
    (tmp_path / "model.onnx").write_bytes((exported / "model.onnx").read_bytes())
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code, names)  # the page's own code
    ours = open_folder(exported).predict([Image.open("picture.jpg")])
    theirs = torch.from_numpy(names["logits"]).softmax(-1)  # type: ignore[arg-type]
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)


CARDS = {
    "null": "null",
    "list": "[]",
    "text": '"card"',
    "keys": "{}",
    "broken": "{",
    "later": json.dumps({"format": "vitrail-onnx", "version": 9, "classes": [], "preprocess": {}}),
    "classes": json.dumps({"format": "x", "version": 1, "classes": 3, "preprocess": {}}),
    "names": json.dumps({"format": "x", "version": 1, "classes": [1], "preprocess": {}}),
    "preprocess": json.dumps({"format": "x", "version": 1, "classes": ["a"], "preprocess": []}),
    "other": json.dumps({"format": "other", "version": 1, "classes": ["a"], "preprocess": {}}),
}


@pytest.mark.parametrize("text", CARDS.values(), ids=CARDS)
def test_a_card_of_another_shape_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"'m\.onnx'") as found:
        read_metadata({KEY: text}, Path("m.onnx"))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "preprocess",
    [
        {},
        {"image": "big"},
        {"image": None},
        {"image": 32, "mean": "red"},
        {"image": 32, "crop": "all"},
        {"image": 32, "std": [0.2, None, 0.2]},
        {"image": 32, "interpolation": 5},
        {"image": 32, "in_chans": 7},
    ],
)
def test_preprocessing_of_another_shape_is_one_line(
    exported: Path, tmp_path: Path, preprocess: dict[str, object]
) -> None:
    card = {"format": "vitrail-onnx", "version": 1, "classes": ["a", "b"], "preprocess": preprocess}
    path = changed(exported / "model.onnx", tmp_path / "m.onnx", **{KEY: json.dumps(card)})
    with pytest.raises(UserError):
        open_exported(path)


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"classes": ["a", "b", "c"]}, "and 3 classes; export it again"),
        ({"preprocess": {**SEEN.to_dict(), "image": 48}}, r"\[3, 48, 48\]"),
        (None, "does not say its classes and preprocessing"),
    ],
)
def test_a_file_that_does_not_fit_its_card(
    exported: Path, tmp_path: Path, card: dict[str, object] | None, message: str
) -> None:
    told = {"format": "vitrail-onnx", "version": 1, "classes": ["a", "b"]}
    told["preprocess"] = SEEN.to_dict()
    text = None if card is None else json.dumps(told | card)
    path = changed(exported / "model.onnx", tmp_path / "m.onnx", **{KEY: text})
    with pytest.raises(UserError, match=message):
        open_exported(path)


def test_what_is_no_exported_file(tmp_path: Path) -> None:
    (tmp_path / "m.pt2").write_bytes(b"")
    (tmp_path / "m.onnx").write_bytes(b"no model")
    for name, message in (
        ("m.pt2", "does not say its classes"),
        ("m.onnx", "cannot read .* as ONNX"),
        ("none.onnx", "no exported file"),
    ):
        with pytest.raises(UserError, match=message):
            open_exported(tmp_path / name)
