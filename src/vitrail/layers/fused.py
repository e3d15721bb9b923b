"""The faster ways of a CPU, and when a layer may take one.

A composite layer is written twice: its ``forward`` is the paper's line, its ``_fused`` below does
the same in fewer passes through memory, by the functions of this file. :func:`may_fuse` chooses:
eager, on a CPU, and where nobody can tell but by the clock. Someone can tell who hooked a layer or
put another in its place (LoRA's, a parametrised one, a quantised one); ``torch.compile``,
``torch.export``, function modes and gradients in evaluation see the paper's graph.
``vitrail.testing.LayerLaws`` holds the two ways equal.

At inference a batch norm goes into the kernel in front of it: the kernel is small and folded at
each call, so nothing is cached that could grow stale. A wide hidden layer passes in slices.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.grid import Grid, to_map, to_tokens

STOCK = (nn.Linear, nn.Conv2d, nn.BatchNorm2d, nn.GELU, nn.SiLU)
"""Layers whose work is known; a subclass may do something else."""

PASSIVE = "passive"
"""Attribute of hooks that only look at the clock (``vitrail cost --by-layer``) and shall see the
model as it runs without them."""

SLICE_BYTES = 2**22
"""How much of a wide hidden layer is held at once. On a CPU its traffic, not its arithmetic, is
what a wide feed-forward costs: at inference 15 ms instead of 28 for CoaT-Lite's first stage at
512 px (2 cores). Slices of 1 MB take 3 to 15 % more, for their products are too short; tens of MB
are handed back to the operating system by malloc after each call, and cost page faults in the
next."""

FEWEST_SLICES = 4
"""Slices from which they pay in training; a hidden layer below 16 MB is as fast whole."""

NARROW_HEAD = 16
"""Heads narrower than this meet in one dense product, zero between heads: eight heads of 8
channels take less as 64 x 64 than one by one (CoaT-Lite's first stage, 8 images of 224 px, 2
cores: 7 ms instead of 18)."""


def may_fuse(
    layer: nn.Module, x: Tensor, reads: Sequence[nn.Module] = (), *, trains: bool = False
) -> bool:
    """Whether a layer takes its faster way for an input.

    Args:
        layer: the composite layer; nobody may listen to any part of it.
        x: its input.
        reads: parts whose weights are read, or whose output is written over, without a call of
            their own: they must be torch's own layers.
        trains: whether the faster way has gradients, and is taken in training.
    """
    if not on_eager_cpu(x) or (torch.is_grad_enabled() and not (trains and layer.training)):
        return False
    if not torch.is_grad_enabled() and (layer.training or any(r.training for r in reads)):
        return False
    return is_stock_layer(*reads) and not has_hooks(*layer.modules())


def on_eager_cpu(x: Tensor) -> bool:
    """Whether operators run one by one on a CPU, where memory traffic decides."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return not torch._C._len_torch_function_stack()


def eager_cpu_inference(x: Tensor) -> bool:
    """Whether that is so, and no gradient is wanted."""
    return not torch.is_grad_enabled() and on_eager_cpu(x)


def is_stock_layer(*layers: nn.Module) -> bool:
    """Whether these are torch's own layers without hooks."""
    return all(type(layer) in STOCK for layer in layers) and not has_hooks(*layers)


def has_hooks(*layers: nn.Module) -> bool:
    """Whether one of these layers has a hook, forward or backward, that is not :data:`PASSIVE`."""
    for layer in layers:
        hooks = (
            layer._forward_hooks
            or layer._forward_pre_hooks
            or layer._backward_hooks
            or layer._backward_pre_hooks
        )
        if hooks and any(not getattr(h, PASSIVE, False) for h in hooks_of(layer)):
            return True
    return False


def hooks_of(layer: nn.Module) -> list[Any]:
    """All hooks of one layer."""
    kinds = (
        layer._forward_hooks,
        layer._forward_pre_hooks,
        layer._backward_hooks,
        layer._backward_pre_hooks,
    )
    return [hook for hooks in kinds for hook in hooks.values()]


def act_(act: nn.Module, hidden: Tensor) -> Tensor:
    """``act(hidden)`` in the memory of ``hidden``, where torch can do that."""
    if type(act) is nn.GELU:
        return torch.ops.aten.gelu_(hidden, approximate=act.approximate)
    return F.silu(hidden, inplace=True) if type(act) is nn.SiLU else act(hidden)


def norm_(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """``norm(x)`` in the memory of ``x``: three times as fast as fresh memory."""
    scale, shift = (each[:, None, None] for each in scale_and_shift(norm))
    return torch.addcmul(shift, x, scale, out=x)


def scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What a batch norm does to each channel at inference."""
    assert norm.running_mean is not None and norm.running_var is not None
    return affine_of_norm(norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps)


def affine_of_norm(
    weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Scale and shift of each channel by a batch norm of these parameters."""
    scale = weight * (var + eps).rsqrt()
    return scale, torch.addcmul(bias, mean, scale, value=-1)


def fold_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Kernel and bias of the convolution that does both."""
    scale, offset = scale_and_shift(norm)
    shift = offset if conv.bias is None else torch.addcmul(offset, conv.bias, scale)
    return conv.weight * scale[:, None, None, None], shift


def kernel_is_larger(x: Tensor, conv: nn.Conv2d) -> bool:
    """Whether folding reads more numbers of the kernel than the map that comes out has."""
    places = x.numel() // (x.shape[1] * conv.stride[0] * conv.stride[1])
    return places < conv.weight[0].numel()


def conv_norm(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """``norm(conv(x))``, ``(B, width, H, W)`` -> ``(B, dim, H', W')``."""
    if kernel_is_larger(x, conv):
        return norm_(norm, conv(x))
    kernel, shift = fold_norm(conv, norm)
    return F.conv2d(x, kernel, shift, conv.stride, conv.padding, groups=conv.groups)


def pointwise(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 1 x 1 convolution on tokens, ``(B, H*W, width)`` -> ``(B, H*W, dim)``.

    One matrix product: as a convolution of one image it is three times slower.
    """
    return F.linear(x, conv.weight.flatten(1), conv.bias)


def pointwise_norm(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """``norm(conv(x))`` for a 1 x 1 convolution: ``(B, H*W, width)`` -> ``(B, H*W, dim)``."""
    kernel, shift = fold_norm(conv, norm)
    return F.linear(x, kernel.flatten(1), shift)


def norm_pointwise_norm(
    x: Tensor, grid: Grid, before: nn.BatchNorm2d, conv: nn.Conv2d, after: nn.BatchNorm2d
) -> Tensor:
    """``after(conv(before(x)))`` for a 1 x 1 convolution, on tokens that may be written over."""
    if kernel_is_larger(to_map(x, grid), conv):
        x = to_tokens(norm_(before, to_map(x, grid)))
        return to_tokens(norm_(after, to_map(pointwise(x, conv), grid)))
    (kernel, shift), (scale, offset) = fold_norm(conv, after), scale_and_shift(before)
    matrix = kernel.flatten(1)
    return F.linear(x, matrix * scale, torch.addmv(shift, matrix, offset))


def add_identity(kernel: Tensor) -> Tensor:
    """The depthwise kernel of ``x + conv(x)``: the identity joins its centre, one pass over x."""
    tap = kernel.new_zeros(1, 1, *kernel.shape[-2:])
    tap[..., kernel.shape[-2] // 2, kernel.shape[-1] // 2] = 1
    return kernel + tap


def attend_dense(q: Tensor, weights: Tensor, mass: Tensor, v: Tensor, width: int) -> Tensor:
    """Factorised attention in narrow heads, ``(B, N, C)``: one product, zero between heads.

    ``weights`` and ``mass`` are the softmax over tokens before its division and its sums.
    """
    head = torch.arange(q.shape[2], device=q.device) // width
    own = (head[:, None] == head).to(q.dtype)
    return q @ ((weights.mT @ v) * (own / (mass.mT * width**0.5)))


def multiply_by_image(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b``, ``(B, heads, I, N)`` and ``(B, heads, N, J)`` -> ``(B, heads, I, J)``.

    Heads of several images are no evenly spaced stack, so torch copies both before it multiplies;
    each image as a product of its own is twice as fast.
    """
    out = a.new_empty(*a.shape[:3], b.shape[3])
    for each, other, into in zip(a, b, out, strict=True):
        torch.bmm(each, other, out=into)
    return out


class Act(NamedTuple):
    """An activation, and ``(gradient, input) -> gradient`` of it."""

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]


def gelu_backward(grad: Tensor, x: Tensor) -> Tensor:
    """The derivative of the exact GELU at ``x``, times ``grad``."""
    return torch.ops.aten.gelu_backward(grad, x)


def silu_backward(grad: Tensor, x: Tensor) -> Tensor:
    """The derivative of SiLU at ``x``, times ``grad``."""
    return torch.ops.aten.silu_backward(grad, x)


ACTS: dict[type[nn.Module], Act] = {
    nn.GELU: Act(F.gelu, gelu_backward),
    nn.SiLU: Act(F.silu, silu_backward),
}


def count_slices(rows: int, hidden: int, like: Tensor) -> int:
    """How many slices ``rows`` tokens make, of a hidden layer in the precision of ``like``."""
    return max(1, -(-rows * hidden * like.element_size() // SLICE_BYTES))


def add_in_slices(x: Tensor, branch: Callable[[Tensor], Tensor], hidden: int) -> Tensor:
    """``x + branch(x)`` for a branch that treats every token alone, ``(B, N, C)``."""
    if not eager_cpu_inference(x):
        return x + branch(x)
    rows = x.flatten(0, 1)
    count = count_slices(len(rows), hidden, x)
    out = torch.empty_like(rows)
    for part, into in zip(rows.chunk(count), out.chunk(count), strict=True):
        torch.add(part, branch(part), out=into)
    return out.view_as(x)


def feed_slices(x: Tensor, widen: nn.Linear, act: nn.Module, narrow: nn.Linear) -> Tensor:
    """``narrow(act(widen(x)))`` at inference, ``(..., C)`` -> the same shape, by slices."""
    rows = x.flatten(0, -2)
    count = count_slices(len(rows), widen.out_features, x)
    if count == 1 or narrow.bias is None or torch.is_autocast_enabled("cpu"):
        return narrow(act_(act, widen(x)))
    out = rows.new_empty(len(rows), narrow.out_features)
    for part, into in zip(rows.chunk(count), out.chunk(count), strict=True):
        torch.addmm(narrow.bias, act_(act, widen(part)), narrow.weight.t(), out=into)
    return out.view(*x.shape[:-1], -1)


def trains_by_slices(x: Tensor, widen: nn.Linear, act: nn.Module, narrow: nn.Linear) -> bool:
    """Whether a feed-forward is wide enough for slices with gradients, and can have them.

    Everything must be trainable and of one precision, and the activation's derivative known.
    """
    rows = x.shape[:-1].numel()
    if count_slices(rows, widen.out_features, x) < FEWEST_SLICES:
        return False
    if type(act) not in ACTS or getattr(act, "approximate", "none") != "none":
        return False
    if torch.is_autocast_enabled("cpu") or widen.bias is None or narrow.bias is None:
        return False
    taken = (x, *widen.parameters(), *narrow.parameters())
    return all(t.requires_grad and t.dtype == x.dtype for t in taken)


def train_slices(x: Tensor, widen: nn.Linear, act: nn.Module, narrow: nn.Linear) -> Tensor:
    """``narrow(act(widen(x)))`` with gradients, ``(..., C)`` -> the same shape.

    A hidden layer of tens of MB is written and read six times by autograd's own steps, each time
    through memory, and each time as a block that malloc has just asked of the operating system.
    Here one slice at a time passes all steps, forward and back; only the hidden layer before its
    activation is kept, and the activation is computed again: CoaT-Lite's first stage (8 x 3137
    tokens, 64 -> 512 -> 64) takes 148 ms instead of 223 forward and back (2 cores). The values are
    those of the single layers but for the order of sums.
    """
    known = ACTS[type(act)]
    out: Tensor = Slices.apply(x, widen.weight, widen.bias, narrow.weight, narrow.bias, known)
    return out


def feed_whole(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, act: Act) -> Tensor:
    """The single layers, one after the other."""
    return F.linear(act.forward(F.linear(x, w1, b1)), w2, b2)


class Slices(torch.autograd.Function):
    """Both ways by slices; what a second derivative needs goes through the single layers."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, act: Act
    ) -> Tensor:
        rows = x.flatten(0, -2)
        out = rows.new_empty(len(rows), len(w2))
        count, hidden = count_slices(len(rows), len(w1), rows), []
        for part, into in zip(rows.chunk(count), out.chunk(count), strict=True):
            wide = torch.addmm(b1, part, w1.t())
            torch.addmm(b2, act.forward(wide), w2.t(), out=into)
            hidden.append(wide)  # small blocks: malloc gives them again, without a page fault
        ctx.save_for_backward(x, w1, b1, w2, b2, *hidden)
        ctx.act = act
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w1, b1, w2, b2, *hidden = ctx.saved_tensors
        if torch.is_grad_enabled():
            inputs = (x, w1, b1, w2, b2)
            out = feed_whole(*inputs, ctx.act)
            return *torch.autograd.grad(out, inputs, grad, create_graph=True), None
        rows, grads = x.flatten(0, -2), grad.flatten(0, -2)
        grad_x = torch.empty_like(rows)
        grad_w1, grad_b1, grad_w2 = (torch.zeros_like(t) for t in (w1, b1, w2))
        parts = (t.chunk(len(hidden)) for t in (rows, grads, grad_x))
        for wide, part, given, into in zip(hidden, *parts, strict=True):
            active = ctx.act.forward(wide)
            grad_w2.addmm_(given.t(), active)
            inner = ctx.act.backward(torch.mm(given, w2, out=active), wide)
            grad_w1.addmm_(inner.t(), part)
            grad_b1.add_(inner.sum(0))
            torch.mm(inner, w1, out=into)
        return grad_x.view_as(x), grad_w1, grad_b1, grad_w2, grads.sum(0), None
