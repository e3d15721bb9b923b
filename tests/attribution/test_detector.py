"""Dense heads over our features: a box of a detector, a class inside a region."""

from collections import OrderedDict

import pytest
import torch
from tests.contracts.test_backbones import narrow
from torch import nn

import vitrail
from vitrail.attribution import ExplainError, box_score, class_in_region, explain
from vitrail.attribution.detector import BoxLogits

detection = pytest.importorskip("torchvision.models.detection")

PLAIN = {"conv": "zero", "linear": "zero"}


class Pyramid(nn.Module):
    """A narrow backbone of ours under torchvision's pyramid."""

    out_channels = 16

    def __init__(self, name: str) -> None:
        super().__init__()
        from torchvision.ops import FeaturePyramidNetwork

        options = narrow(name, "native", "native")
        self.body = vitrail.create(name, classes=0, image=64, **options)
        self.fpn = FeaturePyramidNetwork(self.body.channels, self.out_channels)

    def forward(self, x):
        maps = self.body.features(x)
        return self.fpn(OrderedDict((str(i), m) for i, m in enumerate(maps)))


def detector(name: str) -> nn.Module:
    torch.manual_seed(0)
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    anchors = AnchorGenerator(tuple((8 * 2**i,) for i in range(4)), ((1.0,),) * 4)
    return detection.FasterRCNN(
        Pyramid(name),
        num_classes=3,
        min_size=64,
        max_size=96,
        rpn_anchor_generator=anchors,
        box_score_thresh=0.0,
        box_detections_per_img=5,
    ).eval()


IMAGE = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(2))
NAMES = ["coat_lite_tiny", "cmt_ti", "filtervit_v2_xs"]


@pytest.mark.parametrize("name", NAMES)
def test_a_boxs_logit_is_shared_out_among_all_pixels(name):
    model = detector(name)
    logits = BoxLogits(model, IMAGE[0], index=1)
    with torch.no_grad():
        found, score = model(list(IMAGE))[0], logits(IMAGE).softmax(1)[0, logits.label]
    assert torch.equal(logits.box, found["boxes"][1])
    torch.testing.assert_close(score, found["scores"][1])  # the very score of the detector

    logits = logits.double()
    answer = explain(logits, IMAGE.double(), "lrp", logits.label, **PLAIN)
    assert answer.map.shape == (1, 64, 96)
    assert answer.check["residual"].abs() < 1e-9
    assert answer.check["bias"].abs() > 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_a_boxs_score_is_read_off_the_pyramid(name):
    """Grad-CAM needs no rules, so it takes the score itself, behind softmax and choice."""
    model = detector(name)
    read = {"layers": ["backbone.fpn.layer_blocks.0"], "positive": False}
    with torch.no_grad():
        scores = model(list(IMAGE))[0]["scores"]
    first, second = (explain(model, IMAGE, "gradcam", box_score(i), **read) for i in (0, 1))
    assert first.map.shape == (1, 64, 96) and first.native.shape == (1, 16, 24)
    torch.testing.assert_close(torch.cat((first.score, second.score)), scores[:2])
    assert not torch.allclose(first.map, second.map, rtol=1e-3)
    with pytest.raises(ExplainError, match="give a target that reads logits"):
        explain(model, IMAGE, "lrp", box_score(0))


@pytest.mark.parametrize("name", NAMES)
def test_a_class_inside_a_region_of_a_segmenter(name):
    """The mean logit of a class in the left half: relevance adds up to it."""
    pytest.importorskip("segmentation_models_pytorch")
    import segmentation_models_pytorch as smp

    import vitrail.timm  # noqa: F401  registers the models

    torch.manual_seed(0)
    model = smp.Unet(
        f"tu-vitrail_{name}", encoder_weights=None, classes=3, decoder_channels=(16, 16, 8, 8, 8)
    ).eval()
    region = torch.zeros(64, 64, dtype=torch.bool)
    region[:, :32] = True
    target = class_in_region(1, region)
    image = IMAGE[..., :64].double()
    answer = explain(model.double(), image, "lrp", target, **PLAIN)
    torch.testing.assert_close(answer.score, target(model(image)).detach())
    assert answer.check["residual"].abs() < 1e-9

    seen = explain(model, image, "hirescam", target, layers=["decoder.blocks.1"], positive=False)
    left, right = (half.abs().sum() for half in seen.map.chunk(2, 2))
    assert left > right  # it was asked about the left half


def test_a_box_that_was_not_found_is_refused():
    with pytest.raises(ExplainError, match="box 9: the detector found 5 boxes"):
        BoxLogits(detector("vit_tiny"), IMAGE[0], index=9)
