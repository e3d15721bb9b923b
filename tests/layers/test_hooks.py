import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import register_parametrization

from vitrail.cost.watch import watching
from vitrail.layers.block import activate
from vitrail.layers.fold import normed
from vitrail.layers.hooks import hooked, plain

HOOKS = (
    "register_forward_hook",
    "register_forward_pre_hook",
    "register_full_backward_hook",
    "register_full_backward_pre_hook",
)


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_is_heard_until_it_is_taken_off(hook):
    layer, other = nn.Linear(2, 2), nn.GELU()
    assert plain(layer, other) and not hooked(layer, other)
    handle = getattr(layer, hook)(lambda *_: None)
    assert hooked(other, layer) and not plain(other, layer) and plain(other)
    handle.remove()
    assert plain(layer, other)


def test_a_layer_that_computes_otherwise_is_not_plain():
    class Other(nn.Linear):
        pass

    assert not plain(Other(2, 2)) and not plain(nn.LayerNorm(2))
    layer = nn.Linear(2, 2)
    register_parametrization(layer, "weight", nn.Identity())
    assert not plain(layer)


def test_a_clock_is_not_heard_but_who_comes_beside_it_is():
    layer = nn.Linear(2, 2)
    with watching(layer, lambda _: None, lambda _: None):
        assert layer._forward_hooks and plain(layer)
        layer.register_forward_hook(lambda *_: None)
        assert not plain(layer)


def test_what_somebody_keeps_is_not_written_over():
    conv, norm, act = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3).eval(), nn.GELU()
    kept = []
    conv.register_forward_hook(lambda _m, _i, out: kept.append((out, out.clone())))
    with torch.no_grad():
        for after in (
            lambda y: normed(y, norm, conv),
            lambda y: activate(act, y, conv),
            lambda y: activate(nn.ReLU(inplace=True), y, conv),
        ):
            after(conv(torch.randn(1, 3, 2, 2)))
    assert len(kept) == 3 and all(torch.equal(out, then) for out, then in kept)
