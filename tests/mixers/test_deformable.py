"""Deformable attention: points that stay at tokens are attention with offsets; moved, they read
between."""

import pytest
import torch
import torch.nn.functional as F

from vitrail.mixers import MixerSpec
from vitrail.mixers.deformable import centres
from vitrail.specs import Place, SpecError


def built(text, **place):
    return MixerSpec.parse(text).build(Place(dim=24, heads=4, **place)).eval()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("extra", [0, 1])
def test_points_that_stay_are_attention_with_offsets(groups, extra):
    mixer = built(f"deformable(stride=1, groups={groups})", grid=(5, 7), extra=extra)
    relative = built("relative", grid=(5, 7), extra=extra)
    with torch.no_grad():
        mixer.wander.point.weight.zero_()
        relative.offsets.table.copy_(mixer.offsets.table.normal_())
        relative.qkv.weight.copy_(torch.cat((mixer.q.weight, mixer.kv.weight)))
        relative.qkv.bias.copy_(torch.cat((mixer.q.bias, mixer.kv.bias)))
        relative.proj.load_state_dict(mixer.proj.state_dict())
    x = torch.randn(2, extra + 35, 24)
    torch.testing.assert_close(mixer(x, (5, 7)), relative(x, (5, 7)), rtol=1e-4, atol=1e-5)


def test_points_of_two_by_two_cells_begin_in_their_middle():
    mixer = built("deformable(stride=2)", grid=(4, 6))
    with torch.no_grad():
        mixer.wander.point.weight.zero_()
    x = torch.randn(1, 24, 24)
    points = mixer.points(mixer.q(x), (4, 6))
    means = F.avg_pool2d(x.mT.unflatten(2, (4, 6)), 2).flatten(2).mT
    torch.testing.assert_close(mixer.sample(x, points, (4, 6)), means, rtol=1e-4, atol=1e-5)


def points_of(reach):
    """Points of offsets that are nearly all as long as they may be."""
    mixer = built(f"deformable(stride=2, reach={reach})", grid=(8, 12))
    with torch.no_grad():
        mixer.wander.point.weight.mul_(100)
    points = mixer.explain(torch.randn(2, 96, 24), (8, 12))["points"]
    assert points.shape == (2, 1, 4, 6, 2)
    return points


def test_points_move_within_reach_and_stay_on_the_grid():
    points = points_of(0.5)
    moved = (points - centres((4, 6), points)) / torch.tensor([2 / 6, 2 / 4])
    assert 0.4 < moved.abs().max() <= 0.5 + 1e-5
    assert points_of(3.0).abs().max() == 1  # those that would leave stop at the edge


def test_gradients_reach_what_decides_where_to_look():
    mixer = built("deformable", grid=(6, 6))
    mixer(torch.randn(2, 36, 24), (6, 6)).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in mixer.wander.parameters())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("deformable(groups=3)", "groups do not divide the heads; use groups=1"),
        ("deformable(kernel=4)", "the options do not fit; try stride=2"),
    ],
)
def test_options_without_meaning_are_refused(text, said):
    with pytest.raises(SpecError, match=said):
        built(text, grid=(6, 6))
