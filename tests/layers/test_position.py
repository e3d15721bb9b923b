import math

import pytest
import torch

from vitrail.layers.position import RESIZE, ConvPosition, ConvRelative, resize_table, sinusoid

timm_layers = pytest.importorskip("timm.layers")


@pytest.mark.parametrize("how", RESIZE)
def test_same_grid_is_the_identity_and_class_entries_stay(how):
    table = torch.randn(1, 1 + 196, 8)
    assert resize_table(table, (14, 14), (14, 14), 1, how) is table
    other = resize_table(table, (14, 14), (9, 21), 1, how)
    assert other.shape == (1, 1 + 189, 8) and torch.equal(other[:, 0], table[:, 0])


def test_there_and_back_returns_a_smooth_table():
    x = torch.linspace(0, 3, 14)
    table = (x[:, None] + x.sin()).view(1, 196, 1)
    back = resize_table(resize_table(table, (14, 14), (24, 24)), (24, 24), (14, 14))
    assert (back - table).abs().max() < 0.05 * table.abs().max()


def test_equals_timm_and_scipy():
    table = torch.randn(1, 1 + 196, 4)
    wanted = timm_layers.resample_abs_pos_embed(table, (16, 20), (14, 14), num_prefix_tokens=1)
    torch.testing.assert_close(resize_table(table, (14, 14), (16, 20), 1), wanted)
    from scipy.ndimage import zoom

    picture = table[0, 1:].view(14, 14, 4)
    zoomed = torch.from_numpy(zoom(picture.numpy(), (24 / 14, 24 / 14, 1), order=1))
    ours = resize_table(table, (14, 14), (24, 24), 1, "corner")[0, 1:].view(24, 24, 4)
    torch.testing.assert_close(ours, zoomed, rtol=1e-5, atol=1e-5)


def test_sinusoid_is_the_formula_of_vaswani():
    """Entry 2i of place p is sin(p / 10000^(2i / dim)), entry 2i + 1 the cosine of the same."""
    code = sinusoid(torch.tensor([0.0, 1.0, 2.5]), 4)
    for p, row in zip((0.0, 1.0, 2.5), code.tolist(), strict=True):
        turns = [p / 10000 ** (2 * i / 4) for i in range(2)]
        wanted = [f(turn) for turn in turns for f in (math.sin, math.cos)]
        assert row == pytest.approx(wanted, abs=1e-6)


def test_conv_position_is_identity_plus_depthwise_convolution():
    layer, x = ConvPosition(6), torch.randn(2, 1 + 20, 6)
    image = x[:, 1:].transpose(1, 2).reshape(2, 6, 4, 5)
    wanted = (image + layer.proj(image)).flatten(2).transpose(1, 2)
    got = layer(x, (4, 5))
    assert torch.equal(got[:, 0], x[:, 0])
    torch.testing.assert_close(got[:, 1:], wanted)


def test_conv_relative_gives_each_head_its_window():
    layer = ConvRelative(2, ((3, 1), (5, 2)))
    impulse = torch.zeros(1, 49, 6)
    impulse[0, 24] = 1
    with torch.no_grad():
        for conv in layer.conv_list:
            conv.weight.fill_(1)
            conv.bias.zero_()
    seen = layer(impulse, (7, 7))[0].sum(0)
    assert seen.tolist() == [9, 9, 25, 25, 25, 25]
