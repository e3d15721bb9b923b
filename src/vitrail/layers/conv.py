"""Convolutions with names: stems, squeeze-and-excitation, the inverted residual of CoAtNet.

Maps in, maps out, ``(B, C, H, W)`` in channels-last memory. Odd sides are rounded up wherever
something halves, so any picture passes.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.drop import DropPath
from vitrail.layers.fused import act_, conv_norm, may_fuse, norm_
from vitrail.layers.grid import to_tokens

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "relu": nn.ReLU,
}


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

    def __init__(self, in_chans: int, widths: tuple[int, int], act: str = "gelu") -> None:
        super().__init__(
            nn.Conv2d(in_chans, widths[0], 3, 2, 1, bias=False),
            nn.BatchNorm2d(widths[0]),
            ACTIVATIONS[act](),
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


def halving_pool(kind: str) -> nn.Module:
    """Stride-2 pooling, ``"avg"`` or ``"max"`` (2x2), ``"max3"`` (3x3); odd sides round up."""
    pools: dict[str, nn.Module] = {
        "avg": nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
        "max": nn.MaxPool2d(2, ceil_mode=True),
        "max3": nn.MaxPool2d(3, 2, 1),
    }
    return pools[kind]


def shortcut(in_dim: int, dim: int, stride: int, pool: str = "avg", bias: bool = True) -> nn.Module:
    """The residual path of a block that halves or widens: ``Proj(Pool(x))``, or ``x`` itself."""
    steps: OrderedDict[str, nn.Module] = OrderedDict()
    if stride == 2:
        steps["pool"] = halving_pool(pool)
    if in_dim != dim:
        steps["proj"] = nn.Conv2d(in_dim, dim, 1, bias=bias)
    return nn.Sequential(steps)


class BatchNormTokens(nn.BatchNorm1d):
    """Batch norm over all tokens of all pictures."""

    def forward(self, x: Tensor) -> Tensor:
        """``(..., C)`` -> the same shape."""
        return super().forward(x.flatten(0, -2)).view_as(x)


class SqueezeExcite(nn.Module):
    """Scale each channel by what the whole map says (Hu et al. 2018)."""

    def __init__(self, dim: int, squeezed: int, act: str = "silu") -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, squeezed, 1)
        self.act = ACTIVATIONS[act]()
        self.fc2 = nn.Conv2d(squeezed, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> the same shape."""
        return x * self.excite(x)

    def excite(self, x: Tensor) -> Tensor:
        """What each channel is multiplied by, ``(B, C, 1, 1)``."""
        squeezed = self.act(self.fc1(x.mean((2, 3), keepdim=True)))
        return self.fc2(squeezed).sigmoid()


@dataclass(frozen=True, kw_only=True)
class MBConvStyle:
    """The choices the paper leaves open or later code made otherwise.

    Attributes:
        halve: where a halving block has its stride: the first ``"widen"`` 1x1 (the paper's
            equation), the ``"depthwise"`` convolution, or a ``"pool"`` in front of both.
        pool: ``"avg"``, ``"max"`` or ``"max3"`` on the shortcut (``halve="pool"`` averages in any
            case).
        act: activation after the inner norms, and after the first if ``act_first``.
        act_first: activate before the first 1x1 too.
        expand_from: four times the channels that go ``"in"`` or come ``"out"``.
        bias: whether the shortcut and the last 1x1 have one.
        squeeze: squeeze-and-excite ``"late"``, after the second norm and activation, or
            ``"early"``, before them.
        squeeze_act: the activation inside it.
    """

    halve: str = "widen"
    pool: str = "avg"
    act: str = "gelu"
    act_first: bool = False
    expand_from: str = "out"
    bias: bool = True
    squeeze: str = "late"
    squeeze_act: str = "silu"


class MBConv(nn.Module):
    """Pre-normed inverted residual: widen, look around, squeeze and excite, narrow.

    ``x <- Proj(Pool(x)) + Conv(SE(DepthConv(Conv(Norm(x)))))`` (Dai et al. 2021, appendix A.1).
    """

    def __init__(
        self, in_dim: int, dim: int, stride: int, style: MBConvStyle, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        act, halve = ACTIVATIONS[style.act], {style.halve: stride}
        wide = 4 * {"in": in_dim, "out": dim}[style.expand_from]
        squeezed = {"in": wide, "out": dim}[style.expand_from] // 4
        steps = {style.squeeze: SqueezeExcite(wide, squeezed, style.squeeze_act)}
        self.shortcut = shortcut(in_dim, dim, stride, style.pool, style.bias)
        self.norm = nn.BatchNorm2d(in_dim)
        self.act_first = act() if style.act_first else nn.Identity()
        self.pool = halving_pool("avg") if halve.get("pool") == 2 else nn.Identity()
        self.widen = nn.Conv2d(in_dim, wide, 1, halve.get("widen", 1), bias=False)
        self.norm1 = nn.BatchNorm2d(wide)
        self.act = act()
        self.depthwise = nn.Conv2d(
            wide, wide, 3, halve.get("depthwise", 1), 1, groups=wide, bias=False
        )
        self.early = steps.get("early", nn.Identity())
        self.norm2 = nn.BatchNorm2d(wide)
        self.late = steps.get("late", nn.Identity())
        self.narrow = nn.Conv2d(wide, dim, 1, bias=style.bias)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_dim, H, W)`` -> ``(B, dim, H / stride, W / stride)``, rounded up."""
        if may_fuse(self, x, (self.norm, self.widen, self.norm1, self.depthwise, self.norm2)):
            return self._fused(x)
        y = self.pool(self.act_first(self.norm(x)))
        y = self.act(self.norm1(self.widen(y)))
        y = self.act(self.norm2(self.early(self.depthwise(y))))
        return self.shortcut(x) + self.drop_path(self.narrow(self.late(y)))

    def _fused(self, x: Tensor) -> Tensor:
        """Norms inside the kernels; activations and excitations where a layer has just written."""
        y = self.norm(x)
        y = self.pool(y if isinstance(self.act_first, nn.Identity) else act_(self.act_first, y))
        y = act_(self.act, conv_norm(y, self.widen, self.norm1))
        if isinstance(self.early, nn.Identity):
            y = conv_norm(y, self.depthwise, self.norm2)
        else:
            y = norm_(self.norm2, scale_(self.early, self.depthwise(y)))
        return self.shortcut(x) + self.narrow(scale_(self.late, act_(self.act, y)))


def scale_(excite: nn.Module, x: Tensor) -> Tensor:
    """``excite(x)`` in the memory of ``x``, where it is a squeeze-and-excitation."""
    return x.mul_(excite.excite(x)) if isinstance(excite, SqueezeExcite) else excite(x)


def init_convs(module: nn.Module) -> None:
    """Convolutions normal, variance two over the fan out (EfficientNet, timm)."""
    if isinstance(module, nn.Conv2d):
        fan = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2 / fan) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
