"""Detectors, segmenters and transformers' backbones on our maps, by the route their users take."""

from collections import OrderedDict

import pytest
import torch

import vitrail

timm = pytest.importorskip("timm")
import vitrail.timm  # noqa: E402

PYRAMIDS = ["vit_tiny", "coat_lite_tiny", "clustering_coat_lite_tiny", "coatnet_pico_rw", "cmt_ti"]
TRIO = ["vit_tiny", "coat_lite_tiny", "mobilevit_xxs"]


def here(names):
    return pytest.mark.parametrize("name", [n for n in names if n in vitrail.list_models()])


class Pyramid(torch.nn.Module):
    """A backbone's maps, as timm gives them, behind torchvision's pyramid."""

    out_channels = 32

    def __init__(self, name, **options):
        from torchvision.ops import FeaturePyramidNetwork
        from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

        super().__init__()
        self.body = timm.create_model(f"vitrail_{name}", features_only=True, **options)
        widths = self.body.feature_info.channels()
        self.fpn = FeaturePyramidNetwork(widths, self.out_channels, LastLevelMaxPool())

    def forward(self, x):
        return self.fpn(OrderedDict((str(i), m) for i, m in enumerate(self.body(x))))


@here(PYRAMIDS)
def test_faster_rcnn_on_two_shapes(name):
    detection = pytest.importorskip("torchvision.models.detection")
    model = detection.FasterRCNN(Pyramid(name), num_classes=3, min_size=64, max_size=128)
    images = [torch.rand(3, 80, 120), torch.rand(3, 100, 60)]
    targets = [
        {"boxes": torch.tensor([[5.0, 5.0, 40.0, 50.0]]), "labels": torch.tensor([1])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)},
    ]
    losses = model(images, targets)
    assert set(losses) == {
        "loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"
    }  # fmt: skip
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.backbone.body.parameters())
    with torch.no_grad():
        found = model.eval()(images)
    assert [set(f) for f in found] == [{"boxes", "labels", "scores"}] * 2


def test_faster_rcnn_finds_what_it_was_shown():
    """Eight pictures with a square each: learned by heart."""
    detection = pytest.importorskip("torchvision.models.detection")
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.ops import box_iou

    body = Pyramid("coat_lite_tiny", img_size=64, dims=(16, 32, 40, 64), depths=(1, 1, 1, 1))
    model = detection.FasterRCNN(
        body,
        min_size=64,
        max_size=64,
        box_head=TwoMLPHead(32 * 49, 64),
        box_predictor=FastRCNNPredictor(64, 2),
        rpn_pre_nms_top_n_train=100,
        rpn_post_nms_top_n_train=50,
        rpn_post_nms_top_n_test=50,
        box_batch_size_per_image=32,
    )
    images, targets = [], []
    for i in range(8):
        picture, left, top = 0.3 * torch.rand(3, 64, 64), 4 * (i % 4), 6 * (i // 2)
        picture[:, top : top + 36, left : left + 36] += 0.6
        images.append(picture)
        box = torch.tensor([[left, top, left + 36, top + 36]]).float()
        targets.append({"boxes": box, "labels": torch.ones(1, dtype=torch.long)})
    learner = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(60):
        learner.zero_grad()
        sum(model(images, targets).values()).backward()
        learner.step()
    with torch.no_grad():
        found = model.eval()(images)
    overlaps = [
        box_iou(f["boxes"][:1], t["boxes"]).sum() for f, t in zip(found, targets, strict=True)
    ]
    assert min(overlaps) > 0.6


@here(TRIO)
@pytest.mark.parametrize("decoder", ["Unet", "FPN", "UPerNet", "Segformer"])
def test_segmentation_models_at_two_sizes(name, decoder):
    smp = pytest.importorskip(
        "segmentation_models_pytorch", reason="segmentation-models-pytorch is not installed"
    )
    model = getattr(smp, decoder)(f"tu-vitrail_{name}", encoder_weights=None, classes=2).eval()
    for size in ((64, 64), (96, 128)):
        with torch.no_grad():
            assert model(torch.randn(1, 3, *size)).shape == (1, 2, *size)


def test_a_unet_learns_four_pictures():
    smp = pytest.importorskip(
        "segmentation_models_pytorch", reason="segmentation-models-pytorch is not installed"
    )
    name = "tu-vitrail_mobilevit_xxs"
    model = smp.Unet(name, encoder_weights=None, decoder_channels=(64, 32, 16, 16, 8))
    pictures = torch.rand(4, 3, 64, 64)
    masks = (torch.nn.functional.avg_pool2d(pictures[:, :1], 17, 1, 8) > 0.5).float()
    learner = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(40):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(pictures), masks)
        learner.zero_grad()
        loss.backward()
        learner.step()
    agree = ((model(pictures) > 0) == (masks > 0.5)).float().mean()
    assert agree > 0.95


@here(TRIO)
def test_transformers_backbone(name):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.TimmBackboneConfig(
        backbone=f"vitrail_{name}",
        out_indices=(1, 3),
        num_channels=4,
        use_pretrained_backbone=False,
    )
    model = transformers.AutoBackbone.from_config(config).eval()
    with torch.no_grad():
        maps = model(torch.randn(1, 4, 64, 64)).feature_maps
    assert [m.shape[1] for m in maps] == list(model.channels)
    assert [m.shape[2] for m in maps] == [8, 2]


@here(TRIO)
def test_cam_on_the_last_map_is_not_empty(name):
    model = timm.create_model(f"vitrail_{name}", num_classes=3, img_size=64).eval()
    final, (last,) = model.forward_intermediates(torch.randn(1, 3, 64, 64), indices=1)
    (slope,) = torch.autograd.grad(model.forward_head(final)[0, 0], final)
    assert slope.abs().sum() > 0 and last.isfinite().all()
