"""Models by text, ours and timm's."""

import pytest
import torch

import vitrail
from vitrail.errors import UserError
from vitrail.hub import build, catalogue


@pytest.mark.parametrize("arm", ["vit_tiny(patch=8, dim=24, heads=3, depth=1)", "timm:resnet18"])
def test_ours_and_theirs_are_built_alike(arm: str) -> None:
    model = build(arm, classes=3, image=64, in_chans=1, drop_path=0.1).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 1, 64, 64)).shape == (2, 3)


def test_unknown_names() -> None:
    with pytest.raises(UserError, match="vit_tinny"):
        build("vit_tinny", classes=3, image=64)
    with pytest.raises(UserError, match="no timm model"):
        build("timm:nothing_like_it", classes=3, image=64)


def test_the_catalogue_is_the_zoo() -> None:
    rows = catalogue()
    assert [row["model"] for row in rows] == vitrail.list_models()
    by_name = {row["model"]: row for row in rows}
    assert by_name["vit_tiny"]["mixer"] == "softmax"
    assert "cluster" in by_name["clustering_coat_lite_tiny"]["reducer"]
    assert "Xu et al." in by_name["coat_tiny"]["paper"]
