"""A convolution with its norm and activation: stems, projections, CMT's order.

Maps in, maps out, ``(B, C, H, W)`` in channels-last memory. Odd sides are rounded up wherever
something halves, so any image passes.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.fused import act_, conv_norm, may_fuse, norm_
from vitrail.layers.grid import to_tokens


class ConvActNorm(nn.Sequential):
    """Convolution, activation, batch norm, in CMT's order: ``(B, C, H, W)`` maps."""

    def __init__(self, conv: nn.Conv2d, act: nn.Module, norm: nn.BatchNorm2d) -> None:
        super().__init__(conv, act, norm)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, width, H, W)`` -> ``(B, dim, H', W')``."""
        if may_fuse(self, x, tuple(self)):
            return self._fused(x)
        return super().forward(x)

    def _fused(self, x: Tensor) -> Tensor:
        """The last two write where the first has written."""
        conv, act, norm = self
        return norm_(cast(nn.BatchNorm2d, norm), act_(act, conv(x)))


class DepthwiseProjection(nn.Module):
    """Depthwise 3 x 3 convolution and batch norm: ``(B, C, H, W)`` -> tokens ``(B, K, C)``."""

    def __init__(self, dim: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, stride, 1, groups=dim, bias=False)
        self.bn = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, normalise, lay out as tokens."""
        if may_fuse(self, x, (self.conv, self.bn)):
            return self._fused(x)
        return to_tokens(self.bn(self.conv(x)))

    def _fused(self, x: Tensor) -> Tensor:
        """One convolution for both."""
        return to_tokens(conv_norm(x, self.conv, self.bn))


class ImageToTokens(nn.Module):
    """CeiT's I2T: a quarter of the image's side by convolution, norm, pooling; no activation."""

    def __init__(self, in_chans: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chans, width, 7, 2, 3, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_chans, H, W)`` -> ``(B, width, H / 4, W / 4)``."""
        x = x.contiguous(memory_format=torch.channels_last)  # pooling is six times faster so
        if may_fuse(self, x, (self.conv, self.bn)):
            return self._fused(x)
        return self.pool(self.bn(self.conv(x)))

    def _fused(self, x: Tensor) -> Tensor:
        """One convolution for it and its norm."""
        return self.pool(conv_norm(x, self.conv, self.bn))


class ConvStem(nn.Sequential):
    """Two 3x3 convolutions, the first of stride 2; batch norm and activation between them."""

    def __init__(self, in_chans: int, widths: tuple[int, int], act: nn.Module) -> None:
        super().__init__(
            nn.Conv2d(in_chans, widths[0], 3, 2, 1, bias=False),
            nn.BatchNorm2d(widths[0]),
            act,
            nn.Conv2d(widths[0], widths[1], 3, 1, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_chans, H, W)`` -> ``(B, widths[1], H / 2, W / 2)``, rounded up."""
        if may_fuse(self, x, tuple(self)[:2]):
            return self._fused(x)
        return super().forward(x)

    def _fused(self, x: Tensor) -> Tensor:
        """The norm inside the first kernel, the activation in its memory."""
        first, norm, act, second = self
        x = conv_norm(x, cast(nn.Conv2d, first), cast(nn.BatchNorm2d, norm))
        return second(act_(act, x))


class Stem(nn.Module):
    """Convolution 5x5 of stride 2 with bias and without padding, batch norm, leaky ReLU."""

    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chans, dim, 5, 2)
        self.norm = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_chans, H, W)`` -> ``(B, dim, (H - 3) // 2, (W - 3) // 2)``."""
        return F.leaky_relu(self.norm(self.conv(x)), 0.1)
