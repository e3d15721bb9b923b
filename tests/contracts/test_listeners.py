"""Fast paths that nobody can tell: who hooks a layer hears it, who replaces one is asked."""

from collections import Counter
from copy import deepcopy
from typing import Any

import pytest
import torch
from tests.contracts.structures import kinds, narrow
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from vitrail.layers import fused
from vitrail.layers.drop import DropPath

every = pytest.mark.parametrize("name", kinds())
FACTOR = 1.25


class Louder(nn.Linear):
    """Another linear layer, with all that torch's has."""

    def forward(self, x: Tensor) -> Tensor:
        return FACTOR * super().forward(x)


class LouderConv(nn.Conv2d):
    """Another convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return FACTOR * super().forward(x)


NOTHING = (DropPath, nn.Identity)
LOUDER = {nn.Linear: Louder, nn.Conv2d: LouderConv}


@pytest.fixture(autouse=True)
def narrow_slices(monkeypatch):
    monkeypatch.setattr(fused, "SLICE_BYTES", 2**10)


def listen(model: nn.Module) -> list[tuple[str, Tensor, Tensor]]:
    """What each layer without parts gives, by its name: the tensor itself, and a copy."""
    heard = []

    def hook(name: str, out: Any) -> None:
        heard.extend((name, t, t.clone()) for t in tree_leaves(out) if isinstance(t, Tensor))

    for name, layer in model.named_modules():
        if next(layer.children(), None) is None and not isinstance(layer, NOTHING):
            layer.register_forward_hook(lambda _m, _i, out, name=name: hook(name, out))
    return heard


@every
def test_who_listens_hears_what_the_next_layer_reads(name):
    model, x = narrow(name).eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted = model(x)
        heard = listen(model)
        torch.testing.assert_close(model(x), wanted, rtol=1e-4, atol=1e-5)
    for layer, out, then in heard:
        assert torch.equal(out, then), f"{layer}: written over"
    at_inference = Counter(layer for layer, *_ in heard)
    heard.clear()
    model.train()(x)
    assert at_inference == Counter(layer for layer, *_ in heard)


@every
def test_another_layer_in_ones_place_is_asked(name):
    model, x = narrow(name).eval(), torch.randn(2, 3, 64, 64)
    other = deepcopy(model)
    for layer in other.modules():
        layer.__class__ = LOUDER.get(type(layer), type(layer))
    with torch.no_grad():
        for layer in model.modules():
            if type(layer) in LOUDER:
                for values in layer.parameters(recurse=False):
                    values.mul_(FACTOR)
        torch.testing.assert_close(other(x), model(x), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(other(x), model(x), rtol=1e-3, atol=1e-4)
