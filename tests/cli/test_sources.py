"""Commands take every folder that Vitrail saves, and say what another one is."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.cli.conftest import TINY
from tests.cli.test_pictures import paint

from vitrail.data import Preprocess
from vitrail.export import open_exported, write_folder
from vitrail.hub import build, open_run, save_timm
from vitrail.tasks import Card, save_weights


@pytest.fixture(scope="session")
def places(tiny_run: Path, exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One trained model in every form that is saved."""
    root = tmp_path_factory.mktemp("places")
    shutil.copytree(tiny_run, root / "run")
    shutil.copytree(tiny_run, root / "study" / "runs" / "2pct" / "vit" / "seed-0" / "run")
    shutil.copytree(exported, root / "exported")
    save_timm(tiny_run, root / "saved")
    for name in ("run", "other"):
        shutil.copytree(tiny_run, root / "two" / name)
    return root


SAME = [
    "run/best.safetensors",
    "run/last.safetensors",
    "study/runs/2pct/vit/seed-0",
    "study/runs/2pct/vit/seed-0/run",
    "saved",
    "saved/model.safetensors",
    "exported",
    "exported/model.pt2",
]


@pytest.mark.parametrize("name", SAME)
def test_predict_from_every_form(give, places: Path, tmp_path: Path, name: str) -> None:
    paint(tmp_path / "a.png")
    words = ("a.png", "--json", "--top", "10")
    said, wanted = give("predict", places / name, *words), give("predict", places / "run", *words)
    assert (said.status, said.err) == (0, "")
    if name != "run/last.safetensors":
        (row,), (other,) = json.loads(said.out), json.loads(wanted.out)
        chances = {p["class"]: p["probability"] for p in row["top"]}
        known = {p["class"]: p["probability"] for p in other["top"]}
        assert chances == pytest.approx(known, abs=1e-5)


WITH_WEIGHTS = ["study/runs/2pct/vit/seed-0", "saved"]


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_create_and_what_it_made(give, places: Path, tmp_path: Path, name: str) -> None:
    said = give("reduce", places / name, "--reducer", "cluster(ratio=4)", "-o", "made")
    assert said.status == 0, said.err
    paint(tmp_path / "a.png")
    assert give("predict", "made", "a.png").status == 0
    best = Path("made/best.safetensors")
    assert best.is_file() and (name == "saved") != Path("made/run.json").is_file()


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_train_from_and_teacher(give, places: Path, name: str) -> None:
    words = ("--from", places / name, "--teacher", places / name, "--fraction", "0.02")
    settings = ("workers=0", "batch=16", "mixup=0", "cutmix=0")
    said = give("train", "fashion", *words, "--epochs", "1", "--out", "out", "--set", *settings)
    assert said.status == 0, said.err
    assert json.loads(Path("out/run.json").read_text())["model"] == TINY


def test_explain_export_and_cost(give, places: Path, tmp_path: Path) -> None:
    paint(tmp_path / "a.png")
    said = give("explain", places / "saved", "a.png", "--method", "gradcam", "--out", "maps")
    assert said.status == 0, said.err
    said = give("export", places / "saved", "--format", "torch", "--out", "again")
    assert said.status == 0, said.err
    short = ("--no-memory", "--rounds", "1", "--window", "0.01", "--image", "32", "--json")
    said = give("cost", places / "saved", *short)
    assert said.status == 0 and json.loads(said.out)[0]["rows"][0]["model"] == TINY


OTHERS = [
    ("study", r"name one of its runs \(1 in all\), such as .*seed-0"),
    ("two", r"name one of its runs \(2 in all\), such as .*other"),
    ("bare.pth", "holds weights but no Vitrail card .* --weights"),
    ("strange", "saved by something else"),
    ("begun", "has not come to its first validation yet"),
    ("empty", "is it a run folder"),
    ("nowhere", "no run"),
]


@pytest.mark.parametrize(("name", "message"), OTHERS)
def test_what_another_thing_is(give, places: Path, name: str, message: str) -> None:
    (places / "bare.pth").write_bytes(b"")
    for folder, file in (("strange", "config.json"), ("begun", "run.json"), ("empty", "x.txt")):
        (places / folder).mkdir(exist_ok=True)
        (places / folder / file).write_text("{}")
    said = give("predict", places / name, Path(__file__))
    assert said.status == 2
    assert re.search(message, said.line), said.line


@pytest.mark.parametrize("command", ["explain", "export", "reduce", "train"])
def test_an_exported_model_is_for_predict_only(give, places: Path, command: str) -> None:
    for place in (places / "exported", places / "exported" / "model.pt2"):
        words = {
            "explain": ("explain", place, __file__, "--method", "gradcam"),
            "export": ("export", place),
            "reduce": ("reduce", place, "--reducer", "pool", "-o", "made"),
            "train": ("train", "fashion", "--from", place),
        }[command]
        said = give(*words)
        assert said.status == 2 and "is an exported model" in said.line


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_any_mode_and_size_in_every_form(tmp_path: Path, channels: int) -> None:
    torch.manual_seed(0)
    seen = Preprocess(image=32, in_chans=channels)
    model = build(TINY, classes=2, image=32, in_chans=channels).eval()
    card = Card(
        model=TINY, classes=("a", "b"), image=32, in_chans=channels, preprocess=seen.to_dict()
    )
    save_weights(tmp_path / "w.safetensors", model.state_dict(), card)
    save_timm(open_run(tmp_path / "w.safetensors"), tmp_path / "saved")
    write_folder(model, card, tmp_path / "out", format="torch")
    noise = Image.effect_noise((53, 40), 90)
    pictures = [noise.convert(mode) for mode in ("L", "RGB", "RGBA", "P", "1", "LA", "CMYK", "I")]
    pictures += [noise.resize(size) for size in ((1, 1), (200, 3), (3, 200), (32, 32))]
    wanted = open_run(tmp_path / "w.safetensors").predict(pictures)
    assert wanted.shape == (len(pictures), 2)
    for found in (open_run(tmp_path / "saved"), open_exported(tmp_path / "out")):
        torch.testing.assert_close(found.predict(pictures).cpu(), wanted.cpu())
    assert wanted[0].tolist() == pytest.approx(wanted[1].tolist(), abs=1e-5)  # grey in three


def test_training_goes_on_from_a_grey_model(give, tmp_path: Path) -> None:
    seen = Preprocess(image=32, in_chans=1)
    classes = ("a", "b")
    card = Card(model=TINY, classes=classes, image=32, in_chans=1, preprocess=seen.to_dict())
    model = build(TINY, classes=2, image=32, in_chans=1)
    save_weights(tmp_path / "grey.safetensors", model.state_dict(), card)
    settings = ("workers=0", "batch=16", "mixup=0", "cutmix=0")
    words = ("--fraction", "0.02", "--epochs", "1", "--out", "out", "--set", *settings)
    said = give("train", "fashion", "--from", "grey.safetensors", *words)
    assert said.status == 0, said.err
    assert open_run("out").card.in_chans == 1
    paint(tmp_path / "a.png")
    assert give("predict", "out", "a.png").status == 0
