"""The controls: PoolFormer's pooling as timm has it, and nothing at all."""

import pytest
import torch

from vitrail.mixers import MixerSpec
from vitrail.specs import Place, SpecError


def built(text, **place):
    return MixerSpec.parse(text).build(Place(dim=8, heads=2, **place))


@pytest.mark.parametrize("grid", [(5, 7), (1, 3)])
def test_pooling_is_poolformers(grid):
    from timm.models.metaformer import Pooling

    x = torch.randn(2, grid[0] * grid[1], 8)
    wanted = Pooling()(x.mT.unflatten(2, grid)).flatten(2).mT
    torch.testing.assert_close(built("pooling", grid=grid)(x, grid), wanted)


def test_identity_is_the_identity():
    x = torch.randn(2, 35, 8)
    assert torch.equal(built("identity", grid=(5, 7))(x, (5, 7)), x)


@pytest.mark.parametrize("text", ["identity", "pooling"])
def test_class_tokens_hear_the_mean_of_the_others(text):
    x = torch.randn(2, 37, 8)
    y = built(text, grid=(5, 7), extra=2)(x, (5, 7))
    torch.testing.assert_close(y[:, :2], x[:, 2:].mean(1, keepdim=True).expand(-1, 2, -1))


def test_an_even_square_is_refused():
    with pytest.raises(SpecError, match="an even square has no middle; use size=3"):
        built("pooling(size=2)", grid=(5, 7))
