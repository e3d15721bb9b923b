"""Class activation maps: the formulas, each model's layer, layouts, and loud failure."""

import pytest
import torch
import torch.nn.functional as F
from tests.attribution.models import build, pictures
from tests.contracts.structures import STRUCTURES, narrow
from torch import nn

import vitrail
from vitrail.attribution import CamLayer, ExplainError, class_in_region, layers_of
from vitrail.attribution.cam_layers import tokens_to_map


def conv_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, 2, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )


def test_behind_mean_and_linear_both_are_the_classes_weights() -> None:
    net, images = conv_net(), pictures()
    activations = net[:4](images).detach()
    wanted = (net[6].weight[1][:, None, None] * activations).mean((2, 3), keepdim=True)
    wanted = (net[6].weight[1][:, None, None] * activations).sum(1) / activations[0, 0].numel()
    for name in ("gradcam", "hirescam"):
        found = vitrail.explain(net, images, method=name, target=1, layers=["3"], positive=False)
        torch.testing.assert_close(found.native, wanted.detach(), rtol=1e-4, atol=1e-7)
        assert found.signed


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("gradcam", "GradCAM"), ("hirescam", "HiResCAM"), ("layercam", "LayerCAM")],
)
def test_equals_grad_cam_the_library(ours: str, theirs: str) -> None:
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    net, images = conv_net(), pictures(1)
    library = getattr(pytorch_grad_cam, theirs)(model=net, target_layers=[net[2]])
    wanted = torch.from_numpy(library(images, [ClassifierOutputTarget(2)]))
    found = vitrail.explain(net, images, method=ours, target=2, layers=["2"])
    low = F.interpolate(found.native[:, None], images.shape[2:], mode="bilinear")[:, 0]
    scaled = (low - low.amin()) / (low.amax() - low.amin())
    torch.testing.assert_close(scaled, wanted, rtol=0, atol=1e-4)


def test_equals_captum() -> None:
    from captum.attr import LayerGradCam

    net, images = conv_net(), pictures()
    wanted = LayerGradCam(net, net[2]).attribute(images, target=2)[:, 0].detach()
    found = vitrail.explain(net, images, "gradcam", target=2, layers=["2"], positive=False)
    torch.testing.assert_close(found.native, wanted, rtol=1e-4, atol=1e-7)


WHERE = {  # at 72 x 56 pixels: the table of the reference, cell by cell
    "vit_tiny": {"blocks.1.mixer": (5, 4)},
    "vit_tiny(pool='mean')": {"blocks.1": (5, 4)},
    "coat_lite_tiny": {"stages.3.blocks.0.mixer": (2, 1)},
    "coat_tiny": {
        "parallel.1.scales.0.mixer": (9, 7),
        "parallel.1.scales.1.mixer": (4, 3),
        "parallel.1.scales.2.mixer": (2, 1),
    },
    "coatnet_0": {"stages.3": (3, 2)},
    "cmt_ti": {"stages.3": (3, 2)},
    "mobilevit_xxs": {"stages.4.1": (3, 2)},
    "filtervit_v2_xxs": {"stages.1": (9, 7), "stages.2": (5, 4), "stages.3": (3, 2)},
    "cct_2_3x2": {"blocks.1": (18, 14)},
    "cvt_13": {"stages.2.blocks.0.mixer": (5, 4)},
}


@pytest.mark.parametrize("text", WHERE)
def test_each_model_says_where_to_look(text: str) -> None:
    found = vitrail.explain(build(text), pictures(), method="hirescam", positive=False)
    assert {name: layer.grid for name, layer in found.layers.items()} == WHERE[text]


def test_every_structure_says_where_to_look() -> None:
    for name in STRUCTURES:
        with torch.device("meta"):
            model = narrow(name)
        assert {layer.name for layer in layers_of(model)} <= dict(model.named_modules()).keys(), (
            name
        )


def test_behind_the_last_attention_is_refused_not_empty() -> None:
    model = build("vit_tiny")
    behind = CamLayer("blocks.1", "tokens")
    with pytest.raises(ExplainError, match=r"gradient at blocks\.1 is zero everywhere"):
        vitrail.explain(model, pictures(), "gradcam", layers=[behind])


def test_a_map_that_only_speaks_against_is_refused_not_empty() -> None:
    net, images = conv_net(), pictures()
    with torch.no_grad():
        net[6].weight.copy_(-net[6].weight.abs())
    with pytest.raises(ExplainError, match="sample 0, 1 are zero everywhere: nothing at 3 speaks"):
        vitrail.explain(net, images, "gradcam", target=1, layers=["3"])
    found = vitrail.explain(net, images, "gradcam", target=1, layers=["3"], positive=False)
    assert found.signed and (found.map <= 0).all() and (found.map < 0).any()


def test_tokens_lie_row_by_row_behind_class_tokens() -> None:
    tokens = torch.arange(-2, 15).view(1, 17, 1)
    found = tokens_to_map(tokens, (3, 5), "here")
    assert torch.equal(found[0, 0], torch.arange(15).view(3, 5))
    with pytest.raises(ExplainError, match="here holds 17 tokens, fewer than 4 x 5"):
        tokens_to_map(tokens, (4, 5), "here")


def test_resting_tokens_have_no_value() -> None:
    """Behind a filter, the map lies on the chosen places."""
    found = vitrail.explain(
        build("vit_tiny(resize='corner')"), pictures(), "gradcam", positive=False
    )
    assert ((found.native != 0).flatten(1).sum(1) == 10).all()  # half of 5 x 4


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (["blocks"], "not nchw"),
        (["nowhere"], "no module 'nowhere'"),
        (["norm"], "not nchw"),
        ([CamLayer("norm", "tokens")], "not given its grid"),
    ],
)
def test_layers_that_cannot_be_read_are_named(layers: list, said: str) -> None:
    with pytest.raises(ExplainError, match=said):
        vitrail.explain(build("vit_tiny"), pictures(), "gradcam", layers=layers)


def test_a_model_may_publish_its_own_layers() -> None:
    net = conv_net()
    net.cam_layers = lambda: [CamLayer("2", "nchw")]
    assert list(vitrail.explain(net, pictures(), "gradcam", positive=False).layers) == ["2"]
    with pytest.raises(ExplainError, match="is for you to say"):
        vitrail.explain(conv_net(), pictures(), "gradcam")


@pytest.mark.parametrize(
    ("name", "options", "grid"),
    [
        ("vit_tiny_patch16_224", {"depth": 2, "img_size": 64}, (4, 4)),
        ("swin_tiny_patch4_window7_224", {"img_size": 64, "depths": (1, 1, 1, 1)}, (2, 2)),
        ("coat_lite_tiny", {"img_size": 64, "serial_depths": (1, 1, 1, 1)}, (2, 2)),
        ("resnet18", {}, (2, 2)),
        ("mobilevit_xxs", {}, (2, 2)),
    ],
)
def test_timms_models_by_rule(name: str, options: dict, grid: tuple[int, int]) -> None:
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **options)
    found = vitrail.explain(model, torch.randn(1, 3, 64, 64), "gradcam", positive=False)
    assert [layer.grid for layer in found.layers.values()] == [grid]


def test_dense_heads_by_region() -> None:
    """A segmenter's class inside a region: the map lies where the region's logits come from."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1))
    region = torch.zeros(72, 56)
    region[:20, :20] = 1
    found = vitrail.explain(
        net, pictures(), method="hirescam", target=class_in_region(2, region), layers=["1"]
    )
    assert found.target == "class_in_region(2)"
    assert found.map[:, 21:].abs().max() == 0 and found.map[:, :20, :20].max() > 0
