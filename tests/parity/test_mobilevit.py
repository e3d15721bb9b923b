"""MobileViT equals timm's on the same weights; its costs are the reference's."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import vitrail
from vitrail.models import load_into

timm = pytest.importorskip("timm")

# reference page 7.3: parameters, multiply-adds at 256 and 224 px (G)
PUBLISHED = {
    "mobilevit_xxs": (1_272_024, 0.407, 0.302),
    "mobilevit_xs": (2_317_848, 1.026, 0.772),
    "mobilevit_s": (5_578_632, 2.001, 1.522),
}


def randomised(model):
    """Weights and batch statistics that make every part of the model matter."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, t in model.state_dict().items():
            noise = torch.randn(t.shape, generator=generator)
            if name.endswith("running_var"):
                t.copy_(0.5 + noise.abs())
            elif t.dim() > 1:
                t.copy_(1.4 * noise / t[0].numel() ** 0.5)
            elif t.is_floating_point():
                t.add_(0.1 * noise)
    return model.eval()


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("size", [(256, 256), (75, 101)], ids=str)
def test_equals_timm_on_the_same_weights(name, size):
    theirs = randomised(timm.create_model(name))
    ours = vitrail.create(name).eval()
    load_into(ours, theirs.state_dict())
    x = torch.randn(1, 3, *size)
    with torch.no_grad():
        wanted, got = theirs(x), ours(x)
    assert wanted.std() > 0.1  # the weights do something
    assert (got - wanted).abs().max() <= 1e-5 * max(1.0, wanted.abs().max())


def test_equals_timm_in_maps_and_in_training():
    theirs = randomised(timm.create_model("mobilevit_xxs", num_classes=7))
    ours = vitrail.create("mobilevit_xxs", classes=7).eval()
    load_into(ours, theirs.state_dict())
    x = torch.randn(2, 3, 96, 160)
    with torch.no_grad():
        maps = theirs.forward_intermediates(x, intermediates_only=True)
        for got, wanted in zip(ours.features(x)[:3], maps[1:4], strict=True):
            assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    theirs.train(), ours.train()
    (ours(x).square().sum()).backward()
    (theirs(x).square().sum()).backward()
    torch.testing.assert_close(ours.stem.norm.running_var, theirs.stem.bn.running_var)
    got, wanted = ours.stem.conv.weight.grad, theirs.stem.conv.weight.grad
    assert (got - wanted).abs().max() <= 1e-3 * wanted.abs().max()


def test_fresh_classes_and_channels_keep_the_rest():
    theirs = timm.create_model("mobilevit_xxs", num_classes=11)
    ours = vitrail.create("mobilevit_xxs", classes=4, in_chans=1)
    load_into(ours, theirs.state_dict())
    torch.testing.assert_close(ours.stem.conv.weight, theirs.stem.conv.weight.sum(1, keepdim=True))


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_multiply_adds(name):
    with torch.device("meta"):
        model = vitrail.create(name).eval()
    parameters, *gmacs = PUBLISHED[name]
    assert sum(p.numel() for p in model.parameters()) == parameters
    for image, wanted in zip((256, 224), gmacs, strict=True):
        counter = FlopCounterMode(display=False)
        with counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            model(torch.empty(1, 3, image, image, device="meta"))
        assert counter.get_total_flops() / 2e9 == pytest.approx(wanted, abs=0.0006)
