"""Every layer with a faster way keeps the laws; and when no layer takes one."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from vitrail.cost.watch import watch_modules
from vitrail.layers import fused
from vitrail.layers.conv import (
    ConvActNorm,
    ConvStem,
    DepthwiseProjection,
    ImageToTokens,
)
from vitrail.layers.feed import InvertedFeedForward, LocalFeedForward, Mlp
from vitrail.layers.fused import has_hooks, is_stock_layer, may_fuse
from vitrail.layers.inverted import ConvNorm, ConvNormAct
from vitrail.layers.mbconv import MBConv, MBConvRW, MBConvRWStyle
from vitrail.layers.position import ConvPosition
from vitrail.testing import LayerLaws


def image(channels: int, side: int = 6) -> Tensor:
    made = torch.randn(2, channels, side, side)
    return made.contiguous(memory_format=torch.channels_last)


def tokens(count: int = 30) -> Tensor:
    return torch.randn(2, count, 8)


GRID = (5, 6)
FEW = (1, 2)  # fewer places than a kernel has inputs: norms are not folded there


class TestLayers(LayerLaws):
    layers = {
        "mlp": lambda: (Mlp(8, 32), (tokens(),)),
        "conv_position": lambda: (OnMap(8), (image(8),)),
        "conv_norm": lambda: (ConvNorm(8, 12, 3), (image(8),)),
        "conv_norm_act": lambda: (ConvNormAct(8, 12), (image(8),)),
        "conv_norm_few": lambda: (ConvNorm(8, 12, 3), (image(8, 2),)),
        "conv_act_norm": lambda: (conv_act_norm(), (image(8),)),
        "conv_stem": lambda: (ConvStem(3, (8, 12), nn.SiLU()), (image(3, 12),)),
        "depthwise": lambda: (DepthwiseProjection(8, 2), (image(8),)),
        "image_to_tokens": lambda: (ImageToTokens(3, 8), (image(3, 16),)),
        "mbconv": lambda: (MBConv(8, 8, 1), (image(8),)),
        "mbconv_dagger": lambda: (MBConv(8, 12, 2, halve="depthwise"), (image(8),)),
        "mbconv_rw_late": lambda: (MBConvRW(8, 8, 1, LATE), (image(8),)),
        "mbconv_rw_early": lambda: (MBConvRW(8, 12, 2, EARLY), (image(8),)),
        "irffn": lambda: (InvertedFeedForward(8, 24), (tokens(), GRID)),
        "irffn_few": lambda: (InvertedFeedForward(8, 24), (tokens(2), FEW)),
        "leff": lambda: (OnGrid(8, 24), (tokens(), GRID)),
    }
    trains = frozenset({"mlp", "conv_position"})


LATE = MBConvRWStyle("depthwise", False, "late", nn.SiLU)
EARLY = MBConvRWStyle("pool", True, "early", nn.ReLU)


class OnMap(ConvPosition):
    """By its map."""

    def forward(self, x: Tensor) -> Tensor:
        return self.on_map(x)


class OnGrid(LocalFeedForward):
    """Without class tokens."""

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.feed(x, grid)


def conv_act_norm() -> ConvActNorm:
    return ConvActNorm(nn.Conv2d(8, 12, 3, 1, 1), nn.GELU(), nn.BatchNorm2d(12))


@pytest.mark.parametrize(
    "hook",
    [
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ],
)
def test_a_hook_is_heard_until_it_is_taken_off(hook: str) -> None:
    layer, other = nn.Linear(2, 2), nn.GELU()
    assert is_stock_layer(layer, other) and not has_hooks(layer, other)
    handle = getattr(layer, hook)(lambda *_: None)
    assert has_hooks(other, layer) and not is_stock_layer(other, layer) and is_stock_layer(other)
    handle.remove()
    assert is_stock_layer(layer, other)


def test_a_layer_that_computes_otherwise_is_no_stock_layer() -> None:
    class Other(nn.Linear):
        pass

    assert not is_stock_layer(Other(2, 2)) and not is_stock_layer(nn.LayerNorm(2))
    layer = nn.Linear(2, 2)
    register_parametrization(layer, "weight", nn.Identity())
    assert not is_stock_layer(layer)


def test_a_clock_is_not_heard_but_who_comes_beside_it_is() -> None:
    layer = nn.Linear(2, 2)
    with watch_modules(layer, lambda _: None, lambda _: None):
        assert layer._forward_hooks and is_stock_layer(layer)
        layer.register_forward_hook(lambda *_: None)
        assert not is_stock_layer(layer)


@torch.no_grad()
def test_one_predicate_chooses() -> None:
    layer, x = Mlp(4, 8).eval(), torch.randn(1, 2, 4)
    assert may_fuse(layer, x) and may_fuse(layer, x, (layer.fc1,))
    assert not may_fuse(layer.train(), x)
    layer.eval()
    assert not may_fuse(layer, x, (nn.BatchNorm2d(4),))  # which counts, in training mode
    assert not may_fuse(layer, x.to("meta"))
    with torch.device("cpu"):  # a function mode may want to see every step
        assert not may_fuse(layer, x)
    with torch.enable_grad():
        assert not may_fuse(layer, x) and not may_fuse(layer, x, trains=True)
        assert may_fuse(layer.train(), x, trains=True) and not may_fuse(layer, x)


def test_graphs_are_the_papers() -> None:
    """``torch.export`` sees one operator a layer, in the paper's order."""
    layer = MBConv(4, 4, 1).eval()
    graph = torch.export.export(layer, (torch.randn(2, 4, 8, 8),)).graph
    names = [str(n.target).split(".")[1] for n in graph.nodes if n.op == "call_function"]
    kernels = [n for n in names if n in ("conv2d", "batch_norm")]
    assert (
        kernels == ["batch_norm", "conv2d", "batch_norm", "conv2d", "batch_norm"] + ["conv2d"] * 3
    )


@pytest.mark.parametrize("act", [nn.GELU(), nn.SiLU()])
def test_second_derivatives_of_slices(act: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "SLICE_BYTES", 160)
    mlp = Mlp(4, 16).double()
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)

    def feed(*inputs: Tensor) -> Tensor:
        return fused.Slices.apply(*inputs, fused.ACTS[type(act)])

    inputs = (x, mlp.fc1.weight, mlp.fc1.bias, mlp.fc2.weight, mlp.fc2.bias)
    assert torch.autograd.gradcheck(feed, inputs)
    assert torch.autograd.gradgradcheck(feed, inputs)


def test_slices_are_trained_where_they_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "SLICE_BYTES", 160)
    mlp, x = Mlp(4, 16).train(), torch.randn(3, 5, 4, requires_grad=True)
    layers = mlp.fc1, mlp.act, mlp.fc2
    assert fused.trains_by_slices(x, *layers)
    assert not fused.trains_by_slices(x[:1, :1], *layers)
    assert not fused.trains_by_slices(x.detach(), *layers)
    assert not fused.trains_by_slices(x, mlp.fc1, nn.GELU("tanh"), mlp.fc2)
    assert not fused.trains_by_slices(x, mlp.fc1, nn.ReLU(), mlp.fc2)
    assert not fused.trains_by_slices(x, mlp.fc1, mlp.act, nn.Linear(16, 4, bias=False))
    with torch.autocast("cpu", torch.bfloat16):
        assert not fused.trains_by_slices(x, *layers)
    mlp.fc2.requires_grad_(False)
    assert not fused.trains_by_slices(x, *layers)


@torch.no_grad()
def test_statistics_rest_at_inference_and_learn_in_training() -> None:
    layer, before = ConvNorm(6, 6), torch.zeros(6)
    layer.eval()(torch.randn(2, 6, 4, 4))
    assert torch.equal(layer.norm.running_mean, before)
    layer.train()(torch.randn(2, 6, 4, 4))
    assert not torch.equal(layer.norm.running_mean, before)


@torch.no_grad()
def test_tokens_in_slices_are_added() -> None:
    mlp, x = Mlp(8, 64), torch.randn(3, 2 * fused.SLICE_BYTES // (64 * 4), 8)
    torch.testing.assert_close(fused.add_in_slices(x, mlp, 64), x + mlp(x))
