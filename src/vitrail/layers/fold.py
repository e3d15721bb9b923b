"""A convolution and the batch norm behind it, in one pass over the map.

At inference both are linear, so the norm goes into the kernel: the kernel is small and folded at
each call, so nothing is cached that could grow stale. Equal up to rounding. On a GPU, in a
compiled graph and in training the two steps stay apart.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.grid import Grid, to_map, to_tokens


def conv_norm(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """``norm(conv(x))``, ``(B, width, H, W)`` -> ``(B, dim, H', W')``."""
    if apart(x, norm):
        return norm(conv(x))
    kernel, shift = folded(conv, norm)
    return F.conv2d(x, kernel, shift, conv.stride, conv.padding, groups=conv.groups)


def tokens_norm(x: Tensor, grid: Grid, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """The same for a 1 x 1 convolution, on tokens: ``(B, H*W, width)`` -> ``(B, H*W, dim)``.

    At inference it is one matrix product: a 1 x 1 convolution of one image is three times slower.
    """
    if apart(x, norm):
        return to_tokens(norm(conv(to_map(x, grid))))
    kernel, shift = folded(conv, norm)
    return F.linear(x, kernel.flatten(1), shift)


def apart(x: Tensor, norm: nn.BatchNorm2d) -> bool:
    """Whether the norm must, or had better, stay a step of its own."""
    return norm.training or x.is_cuda or torch.compiler.is_compiling()


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Kernel and bias of the convolution that does both."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    mean = norm.running_mean if conv.bias is None else norm.running_mean - conv.bias
    return conv.weight * scale[:, None, None, None], torch.addcmul(norm.bias, mean, scale, value=-1)
