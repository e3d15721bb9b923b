"""A head follows the names of classes where weights know them in another order."""

import warnings
from pathlib import Path

import pytest
import torch

import vitrail
from vitrail.hub.resolve import create_from_card
from vitrail.hub.weights import find_weights
from vitrail.tasks import Card, save_weights

TEXTS = (
    "vit_tiny(patch=8, dim=24, heads=3, depth=1)",
    "deit_tiny_distilled(patch=8, dim=24, heads=3, depth=1)",
    "timm:resnet18",
)


def card(text: str, *classes: str) -> Card:
    return Card(model=text, classes=classes, image=32)


@pytest.mark.parametrize("text", TEXTS)
def test_rows_follow_names(text: str, tmp_path: Path) -> None:
    file, images = tmp_path / "best.safetensors", torch.rand(2, 3, 32, 32)
    torch.manual_seed(0)
    model = vitrail.create(text, classes=3, image=32).eval()
    save_weights(file, model.state_dict(), card(text, "ant", "bee", "cat"))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        logits = create_from_card(
            card(text, "ant", "bee", "cat"), weights=find_weights(file, text)
        ).eval()(images)
        assert torch.equal(logits, model(images))
    with torch.no_grad(), pytest.warns(UserWarning, match="another order: the head follows"):
        turned = create_from_card(
            card(text, "bee", "cat", "ant"), weights=find_weights(file, text)
        ).eval()(images)
        assert torch.allclose(turned, logits[:, [1, 2, 0]], atol=1e-6)
    with torch.no_grad(), pytest.warns(UserWarning, match=r"new for 1 of 3 classes .'asp'"):
        renamed = create_from_card(
            card(text, "asp", "bee", "cat"), weights=find_weights(file, text)
        ).eval()(images)
        assert torch.allclose(renamed[:, 1:], logits[:, 1:], atol=1e-6)
        assert not torch.allclose(renamed[:, 0], logits[:, 0], atol=1e-3)
