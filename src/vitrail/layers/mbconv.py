"""CoAtNet's MBConv: an inverted residual with pre-norm and squeeze-and-excitation.

Dai et al. 2021 (arXiv 2106.04803), appendix A.1; :class:`MBConvRW` is timm's reading of it. Maps
``(B, C, H, W)`` in channels-last memory; odd sides are rounded up where a block halves.
"""

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn

from vitrail.layers.drop import DropPath
from vitrail.layers.fused import act_, conv_norm, may_fuse, norm_

EXPANSION = 4
"""How much wider the depthwise convolution is."""


def halving_pool(kind: str) -> nn.Module:
    """Stride-2 pooling, ``"avg"`` or ``"max"`` (2x2), ``"max3"`` (3x3); odd sides round up."""
    pools: dict[str, nn.Module] = {
        "avg": nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
        "max": nn.MaxPool2d(2, ceil_mode=True),
        "max3": nn.MaxPool2d(3, 2, 1),
    }
    return pools[kind]


def shortcut(in_dim: int, dim: int, stride: int, pool: str = "max", bias: bool = True) -> nn.Module:
    """The residual path of a block that halves or widens: ``Proj(Pool(x))``, or ``x`` itself."""
    steps: OrderedDict[str, nn.Module] = OrderedDict()
    if stride == 2:
        steps["pool"] = halving_pool(pool)
    if in_dim != dim:
        steps["proj"] = nn.Conv2d(in_dim, dim, 1, bias=bias)
    return nn.Sequential(steps)


class SqueezeExcite(nn.Module):
    """Scale each channel by a function of the map's mean (Hu et al. 2018)."""

    def __init__(self, dim: int, squeezed: int, act: nn.Module) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, squeezed, 1)
        self.act = act
        self.fc2 = nn.Conv2d(squeezed, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> the same shape."""
        return x * self.excite(x)

    def excite(self, x: Tensor) -> Tensor:
        """What each channel is multiplied by, ``(B, C, 1, 1)``."""
        squeezed = self.act(self.fc1(x.mean((2, 3), keepdim=True)))
        return self.fc2(squeezed).sigmoid()


def excite_(excite: nn.Module, x: Tensor) -> Tensor:
    """``excite(x)`` in the memory of ``x``, where it is a squeeze-and-excitation."""
    return x.mul_(excite.excite(x)) if isinstance(excite, SqueezeExcite) else excite(x)


class MBConv(nn.Module):
    """The paper's: norm, widen, depthwise, squeeze and excite, narrow.

    ``x <- Proj(Pool(x)) + Conv(SE(DepthConv(Conv(Norm(x)))))``. Where a block halves, the stride
    stands in the first 1x1, or in the depthwise convolution (``halve``).
    """

    def __init__(
        self, in_dim: int, dim: int, stride: int, drop_path: float = 0.0, halve: str = "widen"
    ) -> None:
        super().__init__()
        wide = EXPANSION * dim
        at = {"widen": 1, "depthwise": 1, halve: stride}
        self.shortcut = shortcut(in_dim, dim, stride)
        self.norm = nn.BatchNorm2d(in_dim)
        self.widen = nn.Conv2d(in_dim, wide, 1, at["widen"], bias=False)
        self.norm1 = nn.BatchNorm2d(wide)
        self.act = nn.GELU()
        self.depthwise = nn.Conv2d(wide, wide, 3, at["depthwise"], 1, groups=wide, bias=False)
        self.norm2 = nn.BatchNorm2d(wide)
        self.late = SqueezeExcite(wide, dim // 4, nn.SiLU())
        self.narrow = nn.Conv2d(wide, dim, 1)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_dim, H, W)`` -> ``(B, dim, H / stride, W / stride)``, rounded up."""
        if may_fuse(self, x, (self.norm, self.widen, self.norm1, self.depthwise, self.norm2)):
            return self._fused(x)
        y = self.act(self.norm1(self.widen(self.norm(x))))
        y = self.act(self.norm2(self.depthwise(y)))
        return self.shortcut(x) + self.drop_path(self.narrow(self.late(y)))

    def _fused(self, x: Tensor) -> Tensor:
        """Norms inside the kernels; activations and excitations where a layer has just written."""
        y = act_(self.act, conv_norm(self.norm(x), self.widen, self.norm1))
        y = act_(self.act, conv_norm(y, self.depthwise, self.norm2))
        return self.shortcut(x) + self.narrow(excite_(self.late, y))


@dataclass(frozen=True)
class MBConvRWStyle:
    """What differs between timm's models.

    Attributes:
        halve: where a halving block has its stride: an average ``"pool"`` in front, or the
            ``"depthwise"`` convolution.
        act_first: activate before the first 1x1 too; then no 1x1 has a bias.
        squeeze: squeeze-and-excite ``"late"``, after the second norm and activation, or
            ``"early"``, before them.
        squeeze_act: the activation inside it, ``nn.SiLU`` or ``nn.ReLU``.
        pool: on the shortcut, ``"avg"`` or ``"max3"``.
    """

    halve: str
    act_first: bool
    squeeze: str
    squeeze_act: type[nn.Module]
    pool: str = "avg"


class MBConvRW(nn.Module):
    """timm's: SiLU, expansion from the input's width, and a :class:`MBConvRWStyle`."""

    def __init__(
        self, in_dim: int, dim: int, stride: int, style: MBConvRWStyle, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        wide, bias, pools = EXPANSION * in_dim, not style.act_first, style.halve == "pool"
        steps = {style.squeeze: SqueezeExcite(wide, wide // 4, style.squeeze_act())}
        self.shortcut = shortcut(in_dim, dim, stride, style.pool, bias)
        self.norm = nn.BatchNorm2d(in_dim)
        self.act_first = nn.SiLU() if style.act_first else nn.Identity()
        self.pool = halving_pool("avg") if pools and stride == 2 else nn.Identity()
        self.widen = nn.Conv2d(in_dim, wide, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(wide)
        self.act = nn.SiLU()
        self.depthwise = nn.Conv2d(
            wide, wide, 3, 1 if pools else stride, 1, groups=wide, bias=False
        )
        self.early = steps.get("early", nn.Identity())
        self.norm2 = nn.BatchNorm2d(wide)
        self.late = steps.get("late", nn.Identity())
        self.narrow = nn.Conv2d(wide, dim, 1, bias=bias)
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
        """As :meth:`MBConv._fused`; an early excitation stands between a kernel and its norm."""
        y = self.norm(x)
        y = self.pool(y if isinstance(self.act_first, nn.Identity) else act_(self.act_first, y))
        y = act_(self.act, conv_norm(y, self.widen, self.norm1))
        if isinstance(self.early, nn.Identity):
            y = conv_norm(y, self.depthwise, self.norm2)
        else:
            y = norm_(self.norm2, excite_(self.early, self.depthwise(y)))
        return self.shortcut(x) + self.narrow(excite_(self.late, act_(self.act, y)))


def init_convs(module: nn.Module) -> None:
    """Convolutions normal, variance two over the fan out (EfficientNet, timm)."""
    if isinstance(module, nn.Conv2d):
        fan = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2 / fan) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
