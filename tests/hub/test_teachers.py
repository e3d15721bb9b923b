"""Teachers by word: runs, whose classes are matched by name, and timm's with released weights."""

from pathlib import Path

import pytest
import torch
from tests.hub.test_runs import save

from vitrail.data import Preprocess
from vitrail.errors import UserError
from vitrail.hub.teachers import open_teacher
from vitrail.tasks import Card


def card(classes: tuple[str, ...], image: int = 32) -> Card:
    shown = Preprocess(image=image, mean=(0.0,) * 3, std=(1.0,) * 3).to_dict()
    return Card(model="vit_tiny", classes=classes, image=image, preprocess=shown)


def test_a_run_teaches_its_classes_in_the_students_order(tmp_path: Path) -> None:
    model = save(tmp_path / "run", "best.safetensors", 1)  # trained with mean and deviation 0.5
    raw = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        said = model((raw - 0.5) / 0.5)
        for classes, order in ((("dog", "cat"), [1, 0]), (("dog",), [1])):
            teacher = open_teacher(str(tmp_path / "run"), card(classes))
            torch.testing.assert_close(teacher(raw), said[:, order])


def test_timms_model_teaches_with_its_released_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("resnet18").eval()
    torch.save(theirs.state_dict(), tmp_path / "released.pth")
    (tmp_path / "released.pth").rename(tmp_path / "resnet18.a1_in1k.pth")
    monkeypatch.setenv("VITRAIL_WEIGHTS", str(tmp_path))
    thousand = tuple(str(i) for i in range(1000))
    teacher = open_teacher("timm:resnet18.a1_in1k", card(thousand, image=224))
    raw = torch.rand(1, 3, 224, 224)
    mean, std = (torch.tensor(theirs.pretrained_cfg[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        torch.testing.assert_close(teacher(raw), theirs((raw - mean) / std), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("nowhere", "no teacher at 'nowhere'; give a run folder .*, or timm:NAME"),
        ("timm:resnet18", "knows 1000 classes, these pictures have 2; train it on them"),
        ("timm:resnet81", "no timm model 'resnet81'; close:"),
    ],
)
def test_what_cannot_teach(word: str, message: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(UserError, match=message):
        open_teacher(word, card(("cat", "dog")))


def test_a_run_that_does_not_know_the_classes(tmp_path: Path) -> None:
    save(tmp_path / "run", "best.safetensors", 1)
    with pytest.raises(UserError, match="does not know 1 of the 2 classes, such as 'cow'"):
        open_teacher(str(tmp_path / "run"), card(("cat", "cow")))
