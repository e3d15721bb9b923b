import torch

from vitrail.layers.block import Block, DropPath, Mlp, add_by_slices
from vitrail.layers.feed import SLICE_BYTES
from vitrail.mixers import MixerSpec
from vitrail.specs import Place


def test_drop_path_keeps_the_mean_and_drops_whole_images():
    layer, x = DropPath(0.5).train(), torch.ones(20_000, 2, 3)
    y = layer(x)
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(y, y[:, :1, :1].expand_as(y))
    assert abs(y.mean() - 1) < 0.03
    assert layer.eval()(x) is x


def test_slices_equal_the_whole():
    mlp = Mlp(8, 64)
    x = torch.randn(3, 2 * SLICE_BYTES // (64 * 4), 8)
    wanted = x + mlp(x)
    with torch.no_grad():
        got = add_by_slices(x, mlp, 64)
    torch.testing.assert_close(got, wanted)


def test_blocks_in_training_mode_without_gradients_drop_whole_images():
    place = Place(dim=8, heads=2, grid=(4, 4))
    block = Block(8, MixerSpec.parse("softmax").build(place), Mlp(8, 16), drop_path=0.5).train()
    x = torch.randn(64, 16, 8)
    with torch.no_grad():
        untouched = (block(x, (4, 4)) == x).flatten(1)
    assert torch.equal(untouched.all(1), untouched.any(1)) and 0 < untouched.all(1).sum() < 64
