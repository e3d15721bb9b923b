import torch

from vitrail.layers.drop import DropPath


def test_drop_path_keeps_the_mean_and_drops_whole_images():
    layer, x = DropPath(0.5).train(), torch.ones(20_000, 2, 3)
    y = layer(x)
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(y, y[:, :1, :1].expand_as(y))
    assert abs(y.mean() - 1) < 0.03
    assert layer.eval()(x) is x
