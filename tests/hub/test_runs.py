"""A run opened again."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from vitrail.data import Preprocess
from vitrail.errors import UserError
from vitrail.hub import build, open_run
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


def test_a_card_that_does_not_fit_its_weights(tmp_path: Path) -> None:
    run = tmp_path / "run"
    save(run, "best.safetensors", 1)
    card = Card(model=TINY.replace("24", "48"), classes=("a", "b"), image=32)
    from vitrail.tasks import load_weights

    save_weights(run / "best.safetensors", load_weights(run / "best.safetensors"), card)
    with pytest.raises(UserError, match="do not fit"):
        open_run(run)
