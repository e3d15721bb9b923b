import pytest
import torch
from torch import Tensor, nn

from vitrail.layers import feed
from vitrail.layers.block import Mlp
from vitrail.layers.feed import feed_by_slices, pays_in_slices


def layers(dtype: torch.dtype, act: nn.Module) -> Mlp:
    torch.manual_seed(0)
    mlp = Mlp(4, 16).to(dtype)
    mlp.act = act
    return mlp


def parts(mlp: Mlp) -> tuple[nn.Linear, nn.Module, nn.Linear]:
    return mlp.fc1, mlp.act, mlp.fc2


@pytest.fixture
def narrow_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of two or three tokens of the layers above."""
    monkeypatch.setattr(feed, "SLICE_BYTES", 160)


@pytest.mark.parametrize("act", [nn.GELU(), nn.SiLU()])
@pytest.mark.usefixtures("narrow_slices")
def test_values_and_gradients_are_those_of_the_plain_layers(act: nn.Module):
    mlp = layers(torch.float64, act)
    x = torch.randn(3, 5, 4, dtype=torch.float64, requires_grad=True)
    given = torch.randn(3, 5, 4, dtype=torch.float64)

    def both(made: Tensor) -> list[Tensor]:
        return [made, *torch.autograd.grad(made, (x, *mlp.parameters()), given)]

    wanted = both(mlp.fc2(mlp.act(mlp.fc1(x))))
    torch.testing.assert_close(both(feed_by_slices(x, *parts(mlp))), wanted)


@pytest.mark.usefixtures("narrow_slices")
def test_second_derivatives_too():
    mlp = layers(torch.float64, nn.GELU())
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)

    def bent(*taken: Tensor) -> Tensor:
        return feed.Slices.apply(*taken, feed.ACTS[nn.GELU])

    taken = (x, mlp.fc1.weight, mlp.fc1.bias, mlp.fc2.weight, mlp.fc2.bias)
    assert torch.autograd.gradcheck(bent, taken)
    assert torch.autograd.gradgradcheck(bent, taken)


@pytest.mark.usefixtures("narrow_slices")
def test_a_layer_in_training_takes_them_and_only_then(monkeypatch: pytest.MonkeyPatch):
    mlp, x = layers(torch.float32, nn.GELU()), torch.randn(3, 5, 4, requires_grad=True)
    calls = []
    apply = feed.Slices.apply
    monkeypatch.setattr(feed.Slices, "apply", lambda *a: calls.append(1) or apply(*a))
    mlp.train()(x)
    assert len(calls) == 1
    mlp.eval()(x)
    with torch.no_grad():
        mlp.train()(x)
    assert len(calls) == 1


@pytest.mark.usefixtures("narrow_slices")
def test_what_somebody_watches_or_holds_passes_the_plain_way():
    mlp, x = layers(torch.float32, nn.GELU()), torch.randn(3, 5, 4, requires_grad=True)
    assert pays_in_slices(x, *parts(mlp))
    assert not pays_in_slices(x[:1, :1], *parts(mlp))
    assert not pays_in_slices(x.detach(), *parts(mlp))
    with torch.autocast("cpu", torch.bfloat16):
        assert not pays_in_slices(x, *parts(mlp))
    assert not pays_in_slices(x, mlp.fc1, nn.GELU("tanh"), mlp.fc2)
    assert not pays_in_slices(x, mlp.fc1, nn.ReLU(), mlp.fc2)
    seen = mlp.fc1.register_forward_hook(lambda *_: None)
    assert not pays_in_slices(x, *parts(mlp))
    seen.remove()
    mlp.fc2.requires_grad_(False)
    assert not pays_in_slices(x, *parts(mlp))
