"""The laws of a layer with a faster way: ``forward`` is the paper, ``_fused`` below does the same.

A suite gives fresh layers and their inputs::

    class TestMlp(LayerLaws):
        layers = {"mlp": lambda: (Mlp(8, 32), (torch.randn(2, 20, 8),))}
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from vitrail.layers import fused

Made = Callable[[], tuple[nn.Module, tuple[Any, ...]]]
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}
FACTOR = 1.25


class LouderLinear(nn.Linear):
    """Another linear layer, with all that torch's has."""

    def forward(self, x: Tensor) -> Tensor:
        """Louder."""
        return FACTOR * super().forward(x)


class LouderConv(nn.Conv2d):
    """Another convolution."""

    def forward(self, x: Tensor) -> Tensor:
        """Louder."""
        return FACTOR * super().forward(x)


LOUDER: dict[type, type] = {nn.Linear: LouderLinear, nn.Conv2d: LouderConv}


def perturb(layer: nn.Module) -> nn.Module:
    """The layer with every number moved, statistics of norms too."""
    with torch.no_grad():
        for name, tensor in layer.state_dict().items():
            if name.endswith("running_var"):
                tensor.add_(torch.rand_like(tensor))
            elif tensor.is_floating_point():
                tensor.add_(0.2 * torch.randn_like(tensor))
    return layer


@contextmanager
def count_fused_calls(layer: nn.Module) -> Iterator[list[int]]:
    """How often the faster way of a layer is taken."""
    taken: list[int] = []
    own = layer._fused

    def fused_way(*args: Any) -> Any:
        taken.append(1)
        return own(*args)  # type: ignore[operator]

    layer.__dict__["_fused"] = fused_way
    try:
        yield taken
    finally:
        del layer.__dict__["_fused"]


def paper(layer: nn.Module, args: tuple[Any, ...]) -> Any:
    """What ``forward`` gives where somebody listens, so that no faster way is taken."""
    handles = [part.register_forward_hook(lambda *_: None) for part in layer.modules()]
    try:
        return layer(*args)
    finally:
        for handle in handles:
            handle.remove()


class LayerLaws:
    """Inherit, name the ``layers``, and pytest holds them to the laws.

    Attributes:
        layers: by name, what makes a fresh layer and its positional inputs, the first a tensor.
        trains: names of those whose faster way is taken in training too.
    """

    layers: ClassVar[Mapping[str, Made]] = {}
    trains: ClassVar[frozenset[str]] = frozenset()

    @pytest.fixture(autouse=True)
    def _narrow_slices(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fused, "SLICE_BYTES", 2**8)

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Every law for every layer."""
        if "made" in metafunc.fixturenames:
            kinds = self.trains if "learning" in metafunc.fixturenames else self.layers
            names = sorted(kinds)
            metafunc.parametrize("made", [self.layers[n] for n in names], ids=names)

    @pytest.fixture
    def learning(self) -> bool:
        """For laws of training."""
        return True

    @torch.no_grad()
    def test_the_faster_way_is_taken_and_is_the_papers(self, made: Made) -> None:
        """At inference both give the same, inputs unharmed."""
        torch.manual_seed(0)
        layer, args = made()
        perturb(layer).eval()
        before, wanted = args[0].clone(), paper(layer, args)
        with count_fused_calls(layer) as taken:
            torch.testing.assert_close(layer(*args), wanted, **CLOSE)
        assert taken and torch.equal(args[0], before)

    def test_gradients_in_evaluation_are_the_papers(self, made: Made) -> None:
        """What explains a model sees the paper's graph."""
        layer, args = made()
        with count_fused_calls(layer.eval()) as taken:
            layer(args[0].requires_grad_(), *args[1:])
        assert not taken

    @torch.no_grad()
    def test_who_listens_is_heard_and_nothing_is_written_over(self, made: Made) -> None:
        """A hook on any part hears what the next part reads."""
        torch.manual_seed(0)
        layer, args = made()
        perturb(layer).eval()
        wanted, heard = layer(*args), []
        for name, part in layer.named_modules():
            part.register_forward_hook(
                lambda _m, _i, out, name=name: heard.append((name, out, out.clone()))
            )
        torch.testing.assert_close(layer(*args), wanted, **CLOSE)
        assert {name for name, *_ in heard} == {n for n, _ in layer.named_modules()}
        assert all(torch.equal(out, then) for _, out, then in heard)

    @torch.no_grad()
    def test_another_layer_in_ones_place_is_asked(self, made: Made) -> None:
        """As with quantised, parametrised or LoRA's layers."""
        torch.manual_seed(0)
        layer, args = made()
        other = deepcopy(perturb(layer).eval())
        for part in other.modules():
            part.__class__ = LOUDER.get(type(part), type(part))
        for part in layer.modules():
            if type(part) in LOUDER:
                for values in part.parameters(recurse=False):
                    values.mul_(FACTOR)
        torch.testing.assert_close(other(*args), layer(*args), rtol=1e-3, atol=1e-4)

    @pytest.mark.usefixtures("learning")
    def test_both_directions_of_gradient(self, made: Made) -> None:
        """In training the faster way gives the paper's gradients."""
        torch.manual_seed(0)
        layer, args = made()
        perturb(layer).double().train()
        x = args[0].double().requires_grad_()
        inputs = x, *layer.parameters()
        with count_fused_calls(layer) as taken:
            out = layer(x, *args[1:])
        given = torch.randn_like(out)
        got = torch.autograd.grad(out, inputs, given)
        wanted = torch.autograd.grad(paper(layer, (x, *args[1:])), inputs, given)
        assert taken
        torch.testing.assert_close(got, wanted)
