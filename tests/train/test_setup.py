"""From what was typed to what is trained."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image

import vitrail
from vitrail.data import open_dataset, read_manifest
from vitrail.errors import UserError
from vitrail.files import DatedFolder
from vitrail.train.lineage import check_teacher_overlap
from vitrail.train.options import FitOptions
from vitrail.train.setup import (
    history_of_weights,
    model_text,
    output_folder,
    prepare_job,
    suggest_image_size,
)

TINY = "vit_tiny(patch=8, dim=24, heads=3, depth=2)"
QUICK = {"batch": 16, "workers": 0, "mixup": 0.0, "cutmix": 0.0}


@pytest.mark.parametrize(
    ("mixer", "reducer", "text"),
    [
        ((), (), "coat_lite_tiny"),
        (("softmax",), (), "coat_lite_tiny(mixer='softmax')"),
        ((), ("cluster(ratio=4)",), "coat_lite_tiny(reducer='cluster(ratio=4)')"),
        (("native", "softmax"), (), "coat_lite_tiny(mixer=('native', 'softmax'))"),
    ],
)
def test_one_text_for_model_mixer_and_reducer(mixer, reducer, text: str) -> None:
    assert model_text("coat_lite_tiny", mixer, reducer) == text


def test_options_of_the_model_stay() -> None:
    assert model_text("vit_tiny(patch=8)", ("softmax",), ()) == "vit_tiny(patch=8, mixer='softmax')"


@dataclass
class Few:
    """Pictures of one size."""

    size: tuple[int, int]

    def read(self, item: object) -> Image.Image:
        return Image.new("RGB", self.size)


@pytest.mark.parametrize(
    ("size", "image"), [((28, 28), 64), ((100, 300), 96), ((640, 480), 128), ((120, 125), 96)]
)
def test_the_image_size_that_suits(size: tuple[int, int], image: int, monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert suggest_image_size(Few(size), [None] * 3) == image


def test_a_gpu_allows_larger_pictures(monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert suggest_image_size(Few((640, 480)), [None]) == 224


def test_folders_never_meet(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert output_folder(None, "../my photos/") == DatedFolder(Path("runs"), "my-photos")
    (tmp_path / "runs" / "a").mkdir(parents=True)
    assert output_folder(Path("empty"), "x") == Path("empty")
    with pytest.raises(UserError, match="nothing is overwritten"):
        output_folder(Path("runs"), "x")


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two updates on 32 px clothes, from Python."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    words = {"image": 32, "epochs": 1, "fraction": 0.02, "progress": False, "out": out}
    result = vitrail.fit("fashion", model=TINY, changes=QUICK, **words)  # type: ignore[arg-type]
    assert result.run == out
    return out


def test_the_result_leads_on(tiny_run: Path) -> None:
    """To the run, the classes, the model and its answers; going on gives the same."""
    result = vitrail.fit(resume_from=tiny_run)
    assert result.run == tiny_run and result.classes == vitrail.load(tiny_run).classes
    image = Image.new("RGB", (40, 40), "red")
    chances = result.predict([image])
    assert chances.shape == (1, 10) and not result.model.training
    grey = torch.full((1, 3, 40, 40), 0.5)
    torch.testing.assert_close(
        result.predict(grey), vitrail.load(tiny_run).predict([Image.new("L", (40, 40), 128)])
    )


def test_a_run_is_gone_on_with_on_its_own_parts(
    tiny_run: Path, tmp_path: Path, monkeypatch
) -> None:
    """With its data typed and another seed: what it validated on, and nothing it trained on."""
    monkeypatch.chdir(tmp_path)
    more = {"data": "fashion", "seed": 7, "changes": {"workers": 0}, "progress": False}
    job, _, facts = prepare_job(FitOptions(start_from=tiny_run, **more))
    again, _, same = prepare_job(FitOptions(model=tiny_run, **more))
    assert facts == same and job.card == again.card and job.parts == again.parts
    then = read_manifest(tiny_run / "manifest.json")
    marks = {name: {i.digest for i in items} for name, items in then.parts.items()}
    now = {name: {i.digest for i in items} for name, items in job.parts.items()}
    assert marks["train"] <= now["train"]
    assert marks["val"] == now["val"] and marks["test"] == now["test"]


@pytest.mark.parametrize("typed", ["weights", "set", "recipe"])
def test_weights_of_a_run_bring_its_parts(typed: str, tiny_run: Path, tmp_path: Path) -> None:
    best = tiny_run / "best.safetensors"
    (tmp_path / "r.yaml").write_text(f"weights: {best}\n", encoding="utf-8")
    given = {
        "weights": {"weights": best},
        "set": {"changes": {"weights": str(best)}},
        "recipe": {"recipe": tmp_path / "r.yaml"},
    }[typed]
    history = history_of_weights(FitOptions(data="fashion", **given), [])
    assert history is not None and "train" in history.parts.values()
    assert history_of_weights(FitOptions(data="fashion", weights=tmp_path / "gone.pth"), []) is None


def test_what_a_teacher_trained_on_is_said(tiny_run: Path) -> None:
    held = {i.digest for i in read_manifest(tiny_run / "manifest.json").parts["train"]}
    pictures = open_dataset("fashion", seed=11)
    number = sum(i.digest in held for i in pictures.split("val"))
    seen = check_teacher_overlap(str(tiny_run), pictures)
    assert number > 0 and seen and f"trained on {number} of the 900 pictures" in seen.line
    assert check_teacher_overlap("timm:resnet18", pictures) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({}, "say what to train on"),
        ({"data": "fashion", "distill": "loud"}, "no way to distil 'loud'; .*hard, soft"),
        ({"data": "fashion", "fraction": 0.0}, "a data share must be above 0"),
        ({"data": "fashion", "image": "64"}, "image must be a whole number or None, not str '64'"),
        ({"data": "fashion", "val": "some"}, "val must be a number, not str 'some'"),
        ({"data": "fashion", "seed": 1.5}, "seed must be a whole number, not float 1.5"),
        ({"data": "fashion", "model": "timm:resnet18", "mixer": "softmax"}, "is timm's own: mixer"),
        ({"data": "fashion", "recipe": {"epoch": 3}}, "epoch"),
        ({"data": "fashion", "weights": "gone.pth"}, "no weight file at 'gone.pth'"),
        ({"start_from": "gone"}, "no run 'gone'"),
        ({"start_from": "gone", "model": "vit_tiny"}, "the run's own model and weights"),
        ({"data": "fashion", "model": "no/such/run"}, "no run 'no/such/run'"),
        ({"resume_from": "gone"}, "leave out image"),
    ],
)
def test_what_cannot_be_trained(
    words: dict[str, object], message: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        vitrail.fit(**{"image": 32, "progress": False, **words})  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
