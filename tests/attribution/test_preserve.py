"""The guard leaves no trace, also when something breaks inside."""

import pytest
import torch
from torch import nn

from vitrail.attribution.preserve import preserve_state, why_opaque


def model() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(2))
    net(torch.randn(2, 3, 8, 8))
    net.train()
    net[1].eval()
    net[0].bias.requires_grad_(False)
    net[0].weight.grad = torch.ones_like(net[0].weight)
    net[3].register_forward_hook(lambda *_: None)
    return net


def state(net: nn.Module) -> list[object]:
    return [
        [m.training for m in net.modules()],
        [(p.requires_grad, None if p.grad is None else p.grad.tolist()) for p in net.parameters()],
        [b.tolist() for b in net.buffers()],
        [len(m._forward_hooks) + len(m._backward_hooks) for m in net.modules()],
    ]


def test_all_is_restored_after_an_exception() -> None:
    net = model()
    before, grad, drawn = state(net), net[0].weight.grad, torch.get_rng_state()
    with pytest.raises(KeyError), preserve_state(net):
        assert not any(m.training for m in net.modules())
        assert not any(p.requires_grad for p in net.parameters())
        net[0].register_forward_hook(lambda *_: None)
        net[1].running_mean.add_(1)
        net.train()
        torch.rand(3)
        raise KeyError("inside")
    assert state(net) == before
    assert net[0].weight.grad is grad
    assert torch.equal(torch.get_rng_state(), drawn)


def test_gradients_run_inside_no_grad_inference_mode_and_autocast() -> None:
    net = nn.Linear(3, 2)
    for around in (torch.no_grad(), torch.inference_mode(), torch.autocast("cpu")):
        with around, preserve_state(net):
            x = torch.randn(1, 3).requires_grad_()
            y = net(x)
            assert y.dtype == torch.float32
            assert torch.autograd.grad(y.sum(), x)[0].any()


def test_checkpointing_is_off_inside() -> None:
    net = nn.Module()
    net.grad_checkpointing = True
    with preserve_state(net):
        assert net.grad_checkpointing is False
    assert net.grad_checkpointing is True


def test_opaque_models_are_named() -> None:
    assert why_opaque(nn.Linear(2, 2)) is None
    assert why_opaque(len) is not None
    assert why_opaque(torch.compile(nn.Linear(2, 2))) == "the model is compiled"
    assert why_opaque(torch.fx.symbolic_trace(nn.Linear(2, 2))) == "the model is an exported graph"
    inside = nn.Sequential(nn.Linear(2, 2))
    inside[0].compile()
    assert why_opaque(inside) == "the model is compiled"
