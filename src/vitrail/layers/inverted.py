"""The inverted residual of MobileNetV2 and its one building stone.

Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
CVPR 2018 (arXiv 1801.04381), section 3.3; with SiLU, as MobileViT and FilterViT use it.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.drop import DropPath
from vitrail.layers.fused import conv_norm, may_fuse


class ConvNorm(nn.Module):
    """Convolution without bias, then batch norm: ``(B, width, H, W)`` -> ``(B, dim, H', W')``.

    Padding keeps the size, rounded up, at any stride.
    """

    def __init__(
        self, width: int, dim: int, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, dim, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and normalise."""
        if may_fuse(self, x, (self.conv, self.norm)):
            return self._fused(x)
        return self.norm(self.conv(x))

    def _fused(self, x: Tensor) -> Tensor:
        """One convolution for both."""
        return conv_norm(x, self.conv, self.norm)


class ConvNormAct(ConvNorm):
    """The same, then SiLU."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, normalise, SiLU."""
        if may_fuse(self, x, (self.conv, self.norm)):
            return self._fused(x)
        return F.silu(self.norm(self.conv(x)))

    def _fused(self, x: Tensor) -> Tensor:
        """SiLU in the memory that the convolution has just filled."""
        return F.silu(super()._fused(x), inplace=True)


class InvertedResidual(nn.Module):
    """Widen by a 1x1, look by a depthwise 3x3, narrow by a linear 1x1.

    ``x + project(depthwise(expand(x)))`` where the shape stays, without ``x +`` elsewhere.
    """

    def __init__(
        self, width: int, dim: int, stride: int, ratio: int, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        hidden = width * ratio
        self.expand = ConvNormAct(width, hidden)
        self.depthwise = ConvNormAct(hidden, hidden, 3, stride, groups=hidden)
        self.project = ConvNorm(hidden, dim)
        self.drop_path = DropPath(drop_path)
        self.residual = stride == 1 and width == dim

    def forward(self, x: Tensor) -> Tensor:
        """``(B, width, H, W)`` -> ``(B, dim, H / stride, W / stride)``, sides rounded up."""
        update = self.project(self.depthwise(self.expand(x)))
        return x + self.drop_path(update) if self.residual else update


def init_conv(module: nn.Module) -> None:
    """Kernels normal with variance 2 / fan out (He et al. 2015), biases zero."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
