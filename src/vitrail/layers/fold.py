"""A convolution and the batch norms around it, in one pass over the map.

At inference all are linear, so the norms go into the kernel: the kernel is small and folded at
each call, so nothing is cached that could grow stale. Equal up to rounding. On a GPU, in a
compiled graph, in training and where somebody could tell (``hooks.py``) the steps stay apart. A
norm that cannot go into a kernel writes into the map it reads, at inference, which takes a third
of the time (:func:`normed`).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.block import at_inference
from vitrail.layers.grid import Grid, to_map, to_tokens
from vitrail.layers.hooks import hooked, plain


def normed(x: Tensor, norm: nn.BatchNorm2d, maker: nn.Module) -> Tensor:
    """``norm(x)``, ``(B, C, H, W)``; at inference in the memory of ``x``, which only it may hold.

    On a CPU that is three times as fast: torch's own batch norm takes fresh memory. ``maker`` is
    the layer that gave ``x``: who listens to it keeps what it gave.
    """
    if norm.training or not at_inference(x) or not plain(norm) or hooked(maker):
        return norm(x)
    scale, offset = (each[:, None, None] for each in line(norm))
    return torch.addcmul(offset, x, scale, out=x)


def conv_norm(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """``norm(conv(x))``, ``(B, width, H, W)`` -> ``(B, dim, H', W')``."""
    if apart(x, conv, norm):
        return norm(conv(x))
    if smaller(x, conv) and at_inference(x):
        return normed(conv(x), norm, conv)
    kernel, shift = folded(conv, norm)
    return F.conv2d(x, kernel, shift, conv.stride, conv.padding, groups=conv.groups)


def pointwise(x: Tensor, grid: Grid, conv: nn.Conv2d) -> Tensor:
    """A 1 x 1 convolution on tokens, ``(B, H*W, width)`` -> ``(B, H*W, dim)``.

    At inference it is one matrix product: as a convolution of one image it is three times slower.
    """
    if not at_inference(x) or not plain(conv):
        return to_tokens(conv(to_map(x, grid)))
    return F.linear(x, conv.weight.flatten(1), conv.bias)


def tokens_norm(x: Tensor, grid: Grid, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """``norm(conv(x))`` for a 1 x 1 convolution: ``(B, H*W, width)`` -> ``(B, H*W, dim)``."""
    if apart(x, conv, norm):
        return to_tokens(norm(conv(to_map(x, grid))))
    kernel, shift = folded(conv, norm)
    return F.linear(x, kernel.flatten(1), shift)


def norm_tokens_norm(
    x: Tensor,
    grid: Grid,
    before: nn.BatchNorm2d,
    conv: nn.Conv2d,
    after: nn.BatchNorm2d,
    maker: nn.Module,
) -> Tensor:
    """``after(conv(before(x)))`` for a 1 x 1 convolution, on tokens that nobody else holds.

    ``(B, H*W, width)`` -> ``(B, H*W, dim)``. ``maker`` is the layer that gave ``x``.
    """
    if not at_inference(x) or before.training or after.training or not plain(before, conv, after):
        return to_tokens(after(conv(before(to_map(x, grid)))))
    if smaller(to_map(x, grid), conv):
        x = to_tokens(normed(to_map(x, grid), before, maker))
        return to_tokens(normed(to_map(pointwise(x, grid, conv), grid), after, conv))
    (kernel, shift), (scale, offset) = folded(conv, after), line(before)
    matrix = kernel.flatten(1)
    return F.linear(x, matrix * scale, torch.addmv(shift, matrix, offset))


def apart(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    """Whether the two must, or had better, stay steps of their own."""
    if norm.training or x.is_cuda or torch.compiler.is_compiling():
        return True
    return not plain(conv, norm)


def smaller(x: Tensor, conv: nn.Conv2d) -> bool:
    """Whether the map that comes out has fewer numbers than the kernel that folding reads."""
    places = x.numel() // (x.shape[1] * conv.stride[0] * conv.stride[1])
    return places < conv.weight[0].numel()


def line(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and offset of each channel at inference."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, torch.addcmul(norm.bias, norm.running_mean, scale, value=-1)


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Kernel and bias of the convolution that does both."""
    scale, offset = line(norm)
    shift = offset if conv.bias is None else torch.addcmul(offset, conv.bias, scale)
    return conv.weight * scale[:, None, None, None], shift
