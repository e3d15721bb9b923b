"""A wide feed-forward in training on a CPU, in slices that stay in the cache.

x -> widen -> act -> narrow, ``(R, C)`` rows by slices; backwards by the same slices

A hidden layer of tens of MB is written and read six times by autograd's own steps, each time
through memory, and each time as a block that malloc has just asked of the operating system. Here
one slice at a time passes all steps, forward and back; only the hidden layer before its activation
is kept, and the activation is computed again: CoaT-Lite's first stage (8 x 3137 tokens, 64 -> 512
-> 64) takes 148 ms instead of 223 forward and back (2 cores). The values are those of the plain
layers but for the order of sums.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.hooks import plain

SLICE_BYTES = 2**22
"""How much of a wide hidden layer is held at once. On a CPU its traffic, not its arithmetic, is
what a wide feed-forward costs: at inference 15 ms instead of 28 for CoaT-Lite's first stage at
512 px (2 cores). Slices of 1 MB take 3 to 15 % more, for their products are too short; tens of MB
are handed back to the operating system by malloc after each call, and cost page faults in the
next."""

LEAST = 4
"""Slices from which they pay in training; a hidden layer below 16 MB is as fast whole."""


class Act(NamedTuple):
    """An activation, and ``(gradient, input) -> gradient`` of it."""

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]


def gelu_back(grad: Tensor, x: Tensor) -> Tensor:
    """The derivative of the exact GELU at ``x``, times ``grad``."""
    return torch.ops.aten.gelu_backward(grad, x)


def silu_back(grad: Tensor, x: Tensor) -> Tensor:
    """The derivative of SiLU at ``x``, times ``grad``."""
    return torch.ops.aten.silu_backward(grad, x)


ACTS: dict[type[nn.Module], Act] = {
    nn.GELU: Act(F.gelu, gelu_back),
    nn.SiLU: Act(F.silu, silu_back),
}


def count_slices(rows: int, hidden: int, like: Tensor) -> int:
    """How many slices ``rows`` tokens make, of a hidden layer in the precision of ``like``."""
    return max(1, -(-rows * hidden * like.element_size() // SLICE_BYTES))


def pays_in_slices(x: Tensor, widen: nn.Linear, act: nn.Module, narrow: nn.Linear) -> bool:
    """Whether these layers should pass in slices with gradients.

    Only where nobody could tell but by the clock: wide enough, on a CPU, eager, one precision,
    everything trainable, torch's own layers, and no hook that waits for a layer's own call.
    """
    rows = x.shape[:-1].numel()
    if count_slices(rows, widen.out_features, x) < LEAST or x.device.type != "cpu":
        return False
    if type(act) not in ACTS or getattr(act, "approximate", "none") != "none":
        return False
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    taken = (x, *widen.parameters(), *narrow.parameters())
    alike = all(t.requires_grad and t.dtype == x.dtype for t in taken)
    return alike and torch.is_grad_enabled() and plain(widen, act, narrow)


def feed_by_slices(x: Tensor, widen: nn.Linear, act: nn.Module, narrow: nn.Linear) -> Tensor:
    """``narrow(act(widen(x)))`` with gradients, ``(..., C)`` -> the same shape."""
    known = ACTS[type(act)]
    out: Tensor = Slices.apply(x, widen.weight, widen.bias, narrow.weight, narrow.bias, known)
    return out


def whole(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, act: Act) -> Tensor:
    """The plain layers."""
    return F.linear(act.forward(F.linear(x, w1, b1)), w2, b2)


class Slices(torch.autograd.Function):
    """Both ways by slices; what a second derivative needs goes through the plain layers."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, act: Act
    ) -> Tensor:
        rows = x.flatten(0, -2)
        out = rows.new_empty(len(rows), len(w2))
        count, kept = count_slices(len(rows), len(w1), rows), []
        for part, into in zip(rows.chunk(count), out.chunk(count), strict=True):
            wide = torch.addmm(b1, part, w1.t())
            torch.addmm(b2, act.forward(wide), w2.t(), out=into)
            kept.append(wide)  # small blocks: malloc gives them again, without a page fault
        ctx.save_for_backward(x, w1, b1, w2, b2, *kept)
        ctx.act = act
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w1, b1, w2, b2, *kept = ctx.saved_tensors
        if torch.is_grad_enabled():
            given = (x, w1, b1, w2, b2)
            made = whole(*given, ctx.act)
            return *torch.autograd.grad(made, given, grad, create_graph=True), None
        rows, out = x.flatten(0, -2), grad.flatten(0, -2)
        back = torch.empty_like(rows)
        to_w1, to_b1, to_w2 = (torch.zeros_like(t) for t in (w1, b1, w2))
        parts = (t.chunk(len(kept)) for t in (rows, out, back))
        for wide, part, given, into in zip(kept, *parts, strict=True):
            passed = ctx.act.forward(wide)
            to_w2.addmm_(given.t(), passed)
            inner = ctx.act.backward(torch.mm(given, w2, out=passed), wide)
            to_w1.addmm_(inner.t(), part)
            to_b1.add_(inner.sum(0))
            torch.mm(inner, w1, out=into)
        return back.view_as(x), to_w1, to_b1, to_w2, out.sum(0), None
