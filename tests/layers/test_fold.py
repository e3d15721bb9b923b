import pytest
import torch
from torch import nn

from vitrail.layers.fold import conv_norm, norm_tokens_norm, normed, pointwise, tokens_norm
from vitrail.layers.grid import to_tokens


def pair(*args, **options):
    conv, norm = nn.Conv2d(*args, **options), nn.BatchNorm2d(args[1])
    with torch.no_grad():
        for t in (norm.weight, norm.bias, norm.running_mean):
            t.add_(torch.randn_like(t))
        norm.running_var.add_(torch.rand_like(norm.running_var))
    return conv, norm


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(6, 6, 3, 2, 1, 1, 6), (6, 9, 3, 1, 1)])
def test_one_pass_equals_two(shape, bias):
    conv, norm = pair(*shape, bias=bias)
    x = torch.randn(2, 6, 7, 8)
    for mode in (True, False):
        norm.train(mode)
        torch.testing.assert_close(conv_norm(x, conv, norm), norm(conv(x)), rtol=1e-4, atol=1e-5)


def test_tokens_equal_the_map():
    conv, norm = pair(6, 9, 1)
    x = torch.randn(2, 6, 4, 5)
    for mode in (True, False):
        norm.train(mode)
        got = tokens_norm(to_tokens(x), (4, 5), conv, norm)
        torch.testing.assert_close(got, to_tokens(norm(conv(x))), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("side", [2, 8])  # fewer places than the kernel has inputs, and more
def test_norms_around_a_matrix(side, gradient):
    conv, after = pair(12, 9, 1)
    before = pair(1, 12, 1)[1]
    x, grid = torch.randn(2, 12, side, side), (side, side)
    for mode in (True, False):
        for norm in (before, after):
            norm.train(mode)
        with torch.set_grad_enabled(gradient):
            wanted = after(conv(before(x)))
            got = norm_tokens_norm(to_tokens(x).clone(), grid, before, conv, after, nn.GELU())
        torch.testing.assert_close(got, to_tokens(wanted), rtol=1e-4, atol=1e-5)


def test_a_norm_writes_where_it_reads_at_inference_only():
    norm = pair(1, 12, 1)[1].eval()
    x = torch.randn(2, 12, 3, 4)
    wanted = norm(x)
    assert normed(x, norm, nn.GELU()).data_ptr() != x.data_ptr()  # the gradient may need it
    with torch.no_grad():
        got = normed(x, norm, nn.GELU())
    assert got.data_ptr() == x.data_ptr()
    torch.testing.assert_close(got, wanted)
    with torch.no_grad():
        kept = x.clone()
        normed(x, norm.train(), nn.GELU())
    assert torch.equal(x, kept)


def test_a_pointwise_convolution_is_a_product():
    conv = pair(6, 9, 1)[0]
    x = torch.randn(2, 20, 6)
    wanted = pointwise(x, (4, 5), conv)
    assert wanted.grad_fn is not None
    with torch.no_grad():
        torch.testing.assert_close(pointwise(x, (4, 5), conv), wanted)


def test_statistics_learn_in_training_and_rest_at_inference():
    conv, norm = pair(6, 6, 1)
    before = norm.running_mean.clone()
    conv_norm(torch.randn(2, 6, 4, 4), conv, norm.eval())
    assert torch.equal(norm.running_mean, before)
    conv_norm(torch.randn(2, 6, 4, 4), conv, norm.train())
    assert not torch.equal(norm.running_mean, before)
