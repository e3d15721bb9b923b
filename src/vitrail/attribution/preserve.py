"""A model's state kept while it is explained, and what can be known of the model.

Only instances are changed, and changed back; no class or process-wide function is patched.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from vitrail.errors import UserError

Model = nn.Module | Callable[[Tensor], Any]
"""A network, or for methods that only look at outputs anything that takes images."""


@runtime_checkable
class OpenedRun(Protocol):
    """What ``vitrail.load`` gives: its network can be explained."""

    @property
    def model(self) -> nn.Module:
        """The network."""
        ...


HOOKS = (
    "_forward_pre_hooks",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)
CHECKPOINTING = "grad_checkpointing"


class ExplainError(UserError):
    """An explanation that cannot be had, or would say nothing; names the module and a remedy."""


@contextmanager
def preserve_state(model: Model) -> Iterator[None]:
    """The model in evaluation, frozen, without gradients or checkpointing; afterwards as before.

    Restores, also when an exception passes: the training flag of every submodule, every
    parameter's ``requires_grad`` and ``grad`` (the same tensor, or None), the values of buffers,
    the hooks, and ``grad_checkpointing``. Random numbers drawn inside come from a fork.

    Inside, gradients are on even if the caller is in ``no_grad`` or ``inference_mode``, and
    autocast is off. A callable that is no module has nothing to restore.
    """
    device = device_of(model)
    forked = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(forked),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
        _restore_state(model) if isinstance(model, nn.Module) else nullcontext(),
    ):
        yield


@contextmanager
def _restore_state(model: nn.Module) -> Iterator[None]:
    modules = list(model.modules())
    flags = [(m, m.training, vars(m).get(CHECKPOINTING)) for m in modules]
    hooks = [(m, name, dict(vars(m)[name])) for m in modules for name in HOOKS if name in vars(m)]
    weights = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    buffers = [(b, b.detach().clone()) for b in model.buffers()]
    try:
        for module, _, checkpointing in flags:
            module.training = False
            if checkpointing:
                setattr(module, CHECKPOINTING, False)
        for weight, _, _ in weights:
            weight.requires_grad_(False)
            weight.grad = None
        yield
    finally:
        for module, training, checkpointing in flags:
            module.training = training
            if checkpointing:
                setattr(module, CHECKPOINTING, checkpointing)
        for module, name, before in hooks:
            now = vars(module)[name]
            now.clear()
            now.update(before)
        for weight, wanted, grad in weights:
            weight.requires_grad_(wanted)
            weight.grad = grad
        with torch.no_grad():
            for buffer, before_it in buffers:
                if not torch.equal(buffer, before_it):
                    buffer.copy_(before_it)


def device_of(model: Model) -> torch.device:
    """Where the model's weights lie; the CPU for what has none."""
    like = _like(model)
    return torch.device("cpu") if like is None else like.device


def dtype_of(model: Model) -> torch.dtype:
    """The precision of the model's weights; float32 for what has none."""
    like = _like(model)
    return torch.float32 if like is None else like.dtype


def _like(model: Model) -> Tensor | None:
    if not isinstance(model, nn.Module):
        return None
    tensors = (t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point())
    return next(tensors, None)


def why_opaque(model: Model) -> str | None:
    """Why one cannot look inside, or None where the model runs module by module."""
    if not isinstance(model, nn.Module):
        return f"a {type(model).__name__} is no torch module"
    for module in model.modules():
        if isinstance(module, torch._dynamo.eval_frame.OptimizedModule) or vars(module).get(
            "_compiled_call_impl"
        ):
            return "the model is compiled"
        if isinstance(module, torch.jit.ScriptModule):
            return "the model is scripted"
        if isinstance(module, torch.fx.GraphModule):
            return "the model is an exported graph"
    return None
