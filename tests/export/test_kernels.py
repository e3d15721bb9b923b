"""The CPU's kernels: what is fused, sliced and laid out, and that nothing moves."""

import pytest
import torch
from tests.export.test_fold import folded
from torch import nn

from vitrail.export import kernels
from vitrail.export.graph import aten, calls
from vitrail.layers.feed import Mlp

mkldnn = torch.ops.mkldnn


@pytest.mark.parametrize(
    "act", [nn.SiLU(), nn.SiLU(inplace=True), nn.GELU(), nn.ReLU(), nn.Hardswish()]
)
def test_an_activation_goes_into_the_convolution(act) -> None:
    changed, graph = folded(
        nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), act), kernels.pack_convolutions
    )
    assert changed == 1
    assert [n.target for n in graph.graph.nodes if n.op == "call_function"] == [
        mkldnn._convolution_pointwise.default
    ]


def test_another_gelu_stays_outside() -> None:
    model = nn.Sequential(nn.Conv2d(6, 8, 1), nn.GELU(approximate="tanh"))
    changed, graph = folded(model, kernels.pack_convolutions)
    assert changed == 1
    assert calls(graph, aten.gelu.default)


def test_a_residual_goes_into_the_convolution() -> None:
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(6, 6, 3, padding=1, groups=6)

        def forward(self, x):
            return x + self.conv(x)

    changed, graph = folded(Residual(), kernels.pack_convolutions)
    assert changed == 1
    assert calls(graph, mkldnn._convolution_pointwise.binary)


def test_a_sum_of_other_shapes_stays_outside() -> None:
    class Broadcast(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.table = nn.Conv2d(6, 6, 1), nn.Parameter(torch.zeros(1, 6, 1, 1))

        def forward(self, x):
            return self.conv(x) + self.table

    changed, graph = folded(Broadcast(), kernels.pack_convolutions)
    assert changed == 1
    assert calls(graph, aten.add.Tensor)


class Feed(nn.Module):
    """A feed-forward in the three ways the zoo writes it."""

    def __init__(self, act: nn.Module, normed: bool) -> None:
        super().__init__()
        self.norm, self.normed, self.mlp = nn.LayerNorm(6), normed, Mlp(6, 24)
        self.mlp.act = act

    def forward(self, x):
        x = x.flatten(2).transpose(1, 2)
        return x + self.mlp(self.norm(x) if self.normed else x)


class Quick(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("act", [nn.GELU(), nn.SiLU(), Quick()])
def test_a_feed_forward_passes_in_slices(act, normed, monkeypatch) -> None:
    monkeypatch.setattr("vitrail.layers.fused.SLICE_BYTES", 64 * 24)
    changed, graph = folded(Feed(act, normed), kernels.slice_feed_forwards)
    assert changed == 1
    assert calls(graph, kernels.fused_mlp)
    left = (aten.linear.default, aten.layer_norm.default, aten.gelu_.default)
    assert not calls(graph, *left), "what the slices do is done twice"


@pytest.mark.parametrize("bias", [True, False])
def test_products_over_tokens_are_packed_a_head_is_not(bias) -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix, self.head = nn.Linear(6, 8, bias=bias), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.mix(x.flatten(2).transpose(1, 2)).mean(1))

    changed, graph = folded(Tokens(), kernels.pack_linears)
    assert changed == 1
    assert len(calls(graph, kernels.linear_packed)) == len(calls(graph, aten.linear.default)) == 1


def test_layout_turns_kernels() -> None:
    model = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.SiLU())
    changed, graph = folded(model, kernels.to_channels_last)
    assert changed == 1
    (conv,) = calls(graph, aten.conv2d.default)
    assert conv.args[1].meta["val"].shape == (8, 6, 3, 3)
    kernel = getattr(graph, conv.args[1].target)
    assert kernel.is_contiguous(memory_format=torch.channels_last)
