"""timm's models by name, at the size asked for, without a download."""

import warnings
from pathlib import Path

import pytest
import torch

from vitrail.errors import UserError
from vitrail.hub import build
from vitrail.hub.baselines import create_baseline
from vitrail.tensors import save_tensors

SIZES = {
    "resnet18": 40,
    "vit_tiny_patch16_224": 48,
    "coatnet_pico_rw_224": 64,
    "pvt_v2_b0": 64,
    "crossvit_tiny_240": 64,
    "swin_tiny_patch4_window7_224": 64,
    "convnext_atto": 64,
    "efficientnet_lite0": 64,
    "tiny_vit_5m_224": 64,
}


@pytest.mark.parametrize("name", SIZES)
def test_serves_the_size_and_classes_asked_for(name: str) -> None:
    image = SIZES[name]
    model = create_baseline(name, classes=3, image=image, drop_path=0.1).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 3, image, image)).shape == (2, 3)


def test_grey_pictures() -> None:
    model = create_baseline("resnet18", classes=2, image=32, in_chans=1).eval()
    assert model(torch.zeros(1, 1, 32, 32)).shape == (1, 2)


def test_comes_back_in_training_mode() -> None:
    assert create_baseline("resnet18", classes=2, image=64).training


def test_close_names() -> None:
    with pytest.raises(UserError, match="no timm model 'resnet81'; close: .*resnet18"):
        create_baseline("resnet81", classes=2, image=64)


def test_a_size_it_cannot_serve_is_refused_when_built() -> None:
    with pytest.raises(UserError, match="timm:efficientformer_l1 cannot serve 64 px"):
        create_baseline("efficientformer_l1", classes=2, image=64)


def test_says_where_there_is_no_drop_path() -> None:
    with pytest.warns(UserWarning, match="timm:repvit_m0_9 has no drop path"):
        create_baseline("repvit_m0_9", classes=2, image=224, drop_path=0.1)


def test_drop_path_reaches_the_model() -> None:
    from timm.layers import DropPath

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = create_baseline("pvt_v2_b0", classes=2, image=64, drop_path=0.3)
    rates = [m.drop_prob for m in model.modules() if isinstance(m, DropPath)]
    assert max(rates) == pytest.approx(0.3)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_from_a_file_with_another_head(tmp_path: Path, suffix: str) -> None:
    from safetensors.torch import save_file

    released = create_baseline("resnet18", classes=1000, image=224)
    path = tmp_path / f"released{suffix}"
    if suffix == ".pth":
        torch.save(released.state_dict(), path)
    else:
        save_file(released.state_dict(), path)
    model = create_baseline("resnet18", classes=3, image=64, weights=path)
    assert torch.equal(model.conv1.weight, released.conv1.weight)
    assert model.fc.weight.shape[0] == 3


def test_missing_weights() -> None:
    with pytest.raises(UserError, match="no weight file at 'nowhere.pth'"):
        create_baseline("resnet18", classes=3, image=64, weights="nowhere.pth")


def test_weights_of_another_model(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"strange.weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="do not fit timm:resnet18"):
        create_baseline("resnet18", classes=3, image=64, weights=path)


@pytest.mark.parametrize("classes", [3, 1000])
def test_the_heads_own_shape_decides(classes: int, tmp_path: Path) -> None:
    """Never how many classes timm's released weights have."""
    trained = build("timm:resnet10t", classes=classes, image=64, in_chans=4)
    save_tensors(tmp_path / "w.safetensors", trained.state_dict(), {})
    options = {"image": 64, "in_chans": 4, "weights": tmp_path / "w.safetensors"}
    again = build("timm:resnet10t", classes=classes, **options)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    with pytest.warns(UserWarning, match=f"the weights knows {classes} classes, the model 7"):
        other = build("timm:resnet10t", classes=7, **options)
    stem = "conv1.0.weight"
    assert torch.equal(other.state_dict()[stem], trained.state_dict()[stem])
