import pytest
import torch
from torch import nn

from vitrail.layers.fold import conv_norm, tokens_norm
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


def test_statistics_learn_in_training_and_rest_at_inference():
    conv, norm = pair(6, 6, 1)
    before = norm.running_mean.clone()
    conv_norm(torch.randn(2, 6, 4, 4), conv, norm.eval())
    assert torch.equal(norm.running_mean, before)
    conv_norm(torch.randn(2, 6, 4, 4), conv, norm.train())
    assert not torch.equal(norm.running_mean, before)
