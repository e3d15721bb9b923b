"""A run opened again."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from vitrail.data import Preprocess
from vitrail.errors import UserError
from vitrail.hub import build, open_run
from vitrail.hub.runs import as_pictures
from vitrail.tasks import Card, save_weights

TINY = "vit_tiny(patch=8, dim=24, heads=3, depth=1)"


def save(folder: Path, name: str, seed: int, arm: str = TINY) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = build(arm, classes=2, image=32).eval()
    card = Card(
        model=arm,
        classes=("cat", "dog"),
        image=32,
        preprocess=Preprocess(image=32, mean=(0.5,) * 3, std=(0.5,) * 3).to_dict(),
    )
    folder.mkdir(exist_ok=True)
    save_weights(folder / name, model.state_dict(), card)
    return model


@pytest.mark.parametrize("arm", [TINY, "timm:resnet18"])
def test_predicts_as_the_model_did(tmp_path: Path, arm: str) -> None:
    model = save(tmp_path / "run", "best.safetensors", 1, arm)
    run = open_run(tmp_path / "run")
    assert run.classes == ("cat", "dog")
    assert run.preprocess.mean == (0.5,) * 3
    pictures = [Image.new("RGB", (50, 40), color) for color in ("red", "green")]
    chances = run.predict(pictures)
    assert chances.shape == (2, 2)
    with torch.no_grad():
        batch = torch.stack([run.preprocess.transform()(p) for p in pictures])
        torch.testing.assert_close(chances, model(batch).softmax(-1))


def test_best_goes_before_last_and_a_file_serves(tmp_path: Path) -> None:
    best = save(tmp_path / "run", "best.safetensors", 1)
    last = save(tmp_path / "run", "last.safetensors", 2)

    def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
        return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))

    assert same(open_run(tmp_path / "run").model, best)
    assert same(open_run(tmp_path / "run" / "last.safetensors").model, last)
    (tmp_path / "run" / "best.safetensors").unlink()
    assert same(open_run(tmp_path / "run").model, last)


def test_no_run_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run"):
        open_run(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is it a run folder"):
        open_run(tmp_path)
    with pytest.raises(UserError, match="no device 'gpu' here"):
        open_run(tmp_path, device="gpu")


def test_a_card_that_does_not_fit_its_weights(tmp_path: Path) -> None:
    run = tmp_path / "run"
    save(run, "best.safetensors", 1)
    card = Card(model=TINY.replace("24", "48"), classes=("a", "b"), image=32)
    from vitrail.tasks import load_weights

    save_weights(run / "best.safetensors", load_weights(run / "best.safetensors"), card)
    with pytest.raises(UserError, match="do not fit"):
        open_run(run)


def test_tensors_are_predicted_as_the_same_pictures(tmp_path: Path) -> None:
    """Bytes or floats, with or without a batch, of colours or grey; one picture alone too."""
    save(tmp_path / "run", "best.safetensors", 1)
    run = open_run(tmp_path / "run", device="cpu")
    raw = torch.randint(0, 256, (2, 3, 50, 40), dtype=torch.uint8)
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in raw]
    wanted = run.predict(pictures)
    for images in (raw, raw / 255, (raw / 255).double()):
        assert torch.equal(run.predict(images), wanted)
    assert torch.equal(run.predict(raw[0]), run.predict(pictures[0]))
    grey = raw[:1, :1]
    assert torch.equal(run.predict(grey), run.predict([Image.fromarray(grey[0, 0].numpy())]))
    assert torch.equal(
        run.prepare(raw), torch.stack([run.preprocess.transform()(p) for p in pictures])
    )


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "no images"),
        ("x.png", "PIL images .* or one tensor, not str"),
        ([1], "PIL images .* or one tensor, not int"),
        (torch.zeros(0, 3, 8, 8), "no images"),
        (torch.zeros(2, 2, 8, 8), "with 1 or 3 channels, not of \\(2, 8, 8\\)"),
        (torch.zeros(8, 8), "1 or 3 channels, not of .8, 8."),
        (torch.tensor(0.5), "1 or 3 channels"),
        (torch.full((3, 8, 8), 255.0), "values from 0 to 1, this one 255 to 255; divide"),
        (torch.randn(3, 8, 8), "or give a normalised tensor to .model"),
        (torch.full((3, 8, 8), torch.nan), "values from 0 to 1"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), "bytes .uint8. or floats, not torch.int64"),
    ],
)
def test_other_tensors_are_refused(images: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        as_pictures(images)  # type: ignore[arg-type]
