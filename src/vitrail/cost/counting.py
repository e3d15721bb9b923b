"""Parameters and multiply-adds of a model, counted while it runs.

model, image -> one forward under torch's counter -> Count(params, macs, by_module)

One multiply-add (MAC) is two FLOPs. Convolutions, linear layers, matrix products and attention
count; norms, activations, softmax, pooling and interpolation do not (so fvcore's figures, which
take norms in, are about half a percent higher). Three traps of ``torch.utils.flop_counter`` are
avoided here: the CPU flash operator, for which older torch has no formula; the fused fast path of
``nn.MultiheadAttention`` and ``nn.TransformerEncoderLayer``, which hides everything inside it; and
modules that were in evaluation mode by themselves, which must still be so afterwards.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

FLOPS_PER_MAC = 2


@dataclass(frozen=True, kw_only=True)
class Part:
    """One module's share: ``params`` and ``macs`` include its children's."""

    kind: str
    params: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class Count:
    """What one picture costs.

    ``params`` counts every parameter once, shared ones too. ``macs`` are multiply-adds of one
    forward at batch 1. ``activation_bytes`` is what the counted operators write in that forward:
    memory traffic, not a peak. ``by_module`` goes by dotted name, in the model's order.
    """

    params: int
    macs: int
    activation_bytes: int
    by_module: dict[str, Part]

    def to_depth(self, depth: int) -> dict[str, Part]:
        """The part of ``by_module`` that lies at most ``depth`` modules deep."""
        return {name: part for name, part in self.by_module.items() if name.count(".") < depth}


def follows_content(model: nn.Module) -> bool:
    """Whether the work depends on what a picture shows: without numbers only its most is known."""
    return any(getattr(part, "follows_content", False) for part in model.modules())


def count(model: nn.Module, image: int | tuple[int, int], in_chans: int = 3) -> Count:
    """Count a model at one picture size (an edge in pixels, or height and width), at batch 1.

    The forward really runs, in evaluation mode and without gradients, on the model's own device
    and in its own precision; the random state and every training flag are left as they were.
    """
    picture = example(model, image, batch=1, in_chans=in_chans)
    counter = FlopCounterMode(display=False, custom_mapping=missing_formulas())
    traffic = _Traffic(counter)
    # Nothing asks for a gradient, yet gradients stay on: under no_grad models may take a faster
    # schedule (dense products of what is zero between heads), and the formula is what counts.
    with (
        evaluation_mode(model),
        no_parameter_gradients(model),
        _plain_attention(),
        torch.enable_grad(),
        counter,
        traffic,
    ):
        model(picture)
    return Count(
        params=parameters(model),
        macs=counter.get_total_flops() // FLOPS_PER_MAC,
        activation_bytes=traffic.written,
        by_module=_by_module(model, counter),
    )


def parameters(model: nn.Module) -> int:
    """The number of parameters, each counted once."""
    return sum(p.numel() for p in model.parameters())


def example(
    model: nn.Module, image: int | tuple[int, int], *, batch: int, in_chans: int = 3
) -> Tensor:
    """Normal noise ``(batch, in_chans, H, W)``, always the same, where the model's weights are."""
    height, width = (image, image) if isinstance(image, int) else image
    noise = torch.randn(batch, in_chans, height, width, generator=torch.Generator().manual_seed(0))
    weights = next((p for p in model.parameters() if p.is_floating_point()), noise)
    return noise.to(device=weights.device, dtype=weights.dtype)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; outside, every module's own flag as before."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def no_parameter_gradients(model: nn.Module) -> Iterator[None]:
    """No parameter asks for a gradient inside.

    torch's counter hooks on the gradient of whatever a module gives, and without gradients it fails
    on a module that gives a parameter itself (CMT's bias table at the size it was built for).
    """
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, asks in flags:
            parameter.requires_grad_(asks)


@contextmanager
def _plain_attention() -> Iterator[None]:
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def missing_formulas() -> dict[Any, Callable[..., int]]:
    """The CPU flash operator, absent from the table before torch 2.15."""

    # A plain function of shapes: torch's own ``sdpa_flop`` is already wrapped and cannot serve.
    def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))

    return {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}


class _Traffic(TorchDispatchMode):
    """Adds up the bytes that the counted operators write."""

    supports_higher_order_operators = True

    def __init__(self, counter: FlopCounterMode) -> None:
        super().__init__()
        self.formulas = counter.flop_registry
        self.written = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if getattr(func, "_overloadpacket", func) in self.formulas:
            first = out[0] if isinstance(out, tuple | list) else out
            self.written += first.numel() * first.element_size()
        return out


def _by_module(model: nn.Module, counter: FlopCounterMode) -> dict[str, Part]:
    """Module name -> Part. A container that is never called itself has its children's sum."""
    # A module shared between blocks goes by any of its names in the counter; here by the first.
    named = dict(model.named_modules(remove_duplicate=False))
    root = type(model).__name__
    flops: dict[nn.Module, int] = {}
    for name, operators in counter.get_flop_counts().items():
        module = named.get(name.removeprefix(root).lstrip("."))
        if module is not None:
            flops[module] = flops.get(module, 0) + sum(operators.values())

    def total(module: nn.Module) -> int:
        return flops[module] if module in flops else sum(map(total, module.children()))

    return {
        name: Part(
            kind=type(module).__name__,
            params=parameters(module),
            macs=total(module) // FLOPS_PER_MAC,
        )
        for name, module in model.named_modules()
        if name
    }
