"""ConViT against timm."""

import pytest
import torch
from tests.parity.measured import assert_equal, parameters_and_macs, randomised

import vitrail
from vitrail.errors import UserError
from vitrail.models import load_into

timm = pytest.importorskip("timm")

# reference page "ViT", 2.3: parameters, multiply-adds at 224 px (G)
PUBLISHED = {
    "convit_tiny": (5_710_512, 1.252),
    "convit_small": (27_777_322, 5.747),
    "convit_base": (86_540_040, 17.505),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_equals_timm_on_the_same_weights(name):
    depth = {} if name == "convit_tiny" else {"depth": 12}
    theirs = randomised(timm.create_model(name, num_classes=7, **depth))
    ours = vitrail.create(name, classes=7, **depth).eval()
    load_into(ours, theirs.state_dict())
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert_equal(ours(x), theirs(x))


@pytest.mark.parametrize("name", PUBLISHED)
def test_starts_where_timm_starts(name):
    theirs, ours = timm.create_model(name, depth=11), vitrail.create(name, depth=11)
    for a, b in zip(theirs.blocks[:10], ours.blocks[:10], strict=True):
        taps = int(a.attn.num_heads**0.5) ** 2
        torch.testing.assert_close(a.attn.pos_proj.weight[:taps], b.mixer.position[:taps])
        torch.testing.assert_close(a.attn.v.weight, b.mixer.v.weight)
        torch.testing.assert_close(a.attn.gating_param, b.mixer.gate)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_multiply_adds(name):
    """Ours: no bias of position scores, whose products are along rows and columns."""
    config = vitrail.create("convit_tiny(depth=2, local=1)").config
    heads, dim = {"tiny": (4, 192), "small": (9, 432), "base": (16, 768)}[name.split("_")[1]]
    parameters, macs = parameters_and_macs(name)
    assert config.heads == 4
    assert parameters + 10 * heads == PUBLISHED[name][0]
    scores, along = 196**2 * 3 * heads, 196 * (14 + 14) * dim
    assert (macs + 10 * (scores - along)) / 1e9 == pytest.approx(PUBLISHED[name][1], abs=0.0006)


def test_any_grid_and_the_token_joins_late():
    model = vitrail.create("convit_tiny(depth=4, local=3)", image=64, classes=3).eval()
    with torch.no_grad():
        after, grid = model.blocks_out(torch.randn(1, 3, 48, 80))
        assert grid == (3, 5)
        assert [x.shape[1] for x in after] == [15, 15, 15, 16]
    with pytest.raises(UserError, match="local=4 of depth=4: at least one block must follow"):
        vitrail.create("convit_tiny(depth=4, local=4)")


def test_plus_variants_are_wider_heads():
    with torch.device("meta"):
        plus = vitrail.create("convit_tiny(dim=256)")
    assert sum(p.numel() for p in plus.parameters()) == pytest.approx(10e6, rel=0.05)
