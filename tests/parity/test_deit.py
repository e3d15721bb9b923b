"""DeiT with its distillation token, against timm."""

import pytest
import torch
from tests.parity.measured import assert_equal, parameters_and_macs, randomised

import vitrail
from vitrail.errors import UserError
from vitrail.models import load_into

timm = pytest.importorskip("timm")

TIMM = {
    f"deit_{size}_distilled": f"deit_{size}_distilled_patch16_224"
    for size in ("tiny", "small", "base")
}


@pytest.mark.parametrize("name", TIMM)
def test_equals_timm_on_the_same_weights(name):
    depth = {"depth": 12 if "tiny" in name else 2}
    theirs = randomised(timm.create_model(TIMM[name], num_classes=11, **depth))
    ours = vitrail.create(name, classes=11, **depth).eval()
    load_into(ours, theirs.state_dict())
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert_equal(ours(x), theirs(x))
        both = ours.forward_both(x)
        theirs.set_distilled_training()
        for got, wanted in zip(both, theirs.train()(x), strict=True):
            assert_equal(got, wanted)
        assert torch.equal(ours.train()(x), ours.eval()(x))  # the same in both modes


def test_equals_timm_at_another_size():
    theirs = randomised(timm.create_model(TIMM["deit_tiny_distilled"], img_size=(64, 96), depth=3))
    ours = vitrail.create("deit_tiny_distilled(depth=3)", image=(64, 96)).eval()
    load_into(ours, theirs.state_dict())
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        assert_equal(ours(x), theirs(x))


@pytest.mark.parametrize("name", TIMM)
def test_costs_what_timms_costs(name):
    with torch.device("meta"):
        theirs = timm.create_model(TIMM[name])
    parameters, macs = parameters_and_macs(name)
    assert parameters == sum(p.numel() for p in theirs.parameters())
    depth, dim, tokens = 12, theirs.embed_dim, 198
    blocks = depth * (12 * tokens * dim**2 + 2 * tokens**2 * dim)
    assert macs == blocks + 196 * 768 * dim + 2 * dim * 1000


def test_heads_are_fresh_for_other_classes_and_own_names_load():
    ours = vitrail.create("deit_tiny_distilled(depth=1)", classes=4, image=32)
    other = vitrail.create("deit_tiny_distilled(depth=1)", classes=9, image=64)
    load_into(other, ours.state_dict())
    assert torch.equal(other.dist, ours.dist) and other.head.teacher.weight.shape == (9, 192)
    assert other.position.shape == (1, 2 + 16, 192)
    assert torch.equal(other.position[:, :2], ours.position[:, :2])
    same = vitrail.create("deit_tiny_distilled(depth=1)", classes=4, image=32)
    load_into(same, ours.state_dict())
    assert torch.equal(same.head.teacher.weight, ours.head.teacher.weight)


def test_what_cannot_be_is_said_in_words():
    with pytest.raises(UserError, match="reads its two tokens; leave pool='token'"):
        vitrail.create("deit_tiny_distilled(pool='mean')")
    with pytest.raises(UserError, match="build it with classes="):
        vitrail.create("deit_tiny_distilled(depth=1)", classes=0).forward_both(
            torch.rand(1, 3, 8, 8)
        )
