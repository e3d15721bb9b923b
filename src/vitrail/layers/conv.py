"""Convolutions with names: stems, squeeze-and-excitation, the inverted residual of CoAtNet.

Maps in, maps out, ``(B, C, H, W)`` in channels-last memory. Odd sides are rounded up wherever
something halves, so any picture passes.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from vitrail.layers.block import DropPath, activate, at_inference
from vitrail.layers.fold import conv_norm, normed
from vitrail.layers.hooks import hooked

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "silu": partial(nn.SiLU, inplace=True),
    "relu": partial(nn.ReLU, inplace=True),
}
"""Each stands behind a norm or a convolution, and ``layers.block.activate`` calls it: in place,
SiLU costs a third on a CPU (torch has no such GELU)."""


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
        first, norm, act, second = self
        assert isinstance(first, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        seen: Tensor = second(activate(act, conv_norm(x, first, norm), norm))
        return seen


def halving_pool(kind: str) -> nn.Module:
    """Stride-2 pooling, ``"avg"`` or ``"max"`` (2x2), ``"max3"`` (3x3); odd sides round up."""
    pools: dict[str, nn.Module] = {
        "avg": nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
        "max": nn.MaxPool2d(2, ceil_mode=True),
        "max3": nn.MaxPool2d(3, 2, 1),
    }
    return pools[kind]


def shortcut(given: int, dim: int, stride: int, pool: str = "avg", bias: bool = True) -> nn.Module:
    """The residual path of a block that halves or widens: ``Proj(Pool(x))``, or ``x`` itself."""
    steps: OrderedDict[str, nn.Module] = OrderedDict()
    if stride == 2:
        steps["pool"] = halving_pool(pool)
    if given != dim:
        steps["proj"] = nn.Conv2d(given, dim, 1, bias=bias)
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

    def forward(self, x: Tensor, maker: nn.Module) -> Tensor:
        """``(B, C, H, W)`` -> the same shape, at inference in the same memory.

        ``maker`` is the layer that gave ``x``: who listens to it keeps what it gave.
        """
        share = activate(self.act, self.fc1(x.mean((2, 3), keepdim=True)), self.fc1)
        share = self.fc2(share).sigmoid()
        return x.mul_(share) if at_inference(x) and not hooked(self, maker) else x * share


class Unsqueezed(nn.Module):
    """No squeeze-and-excitation."""

    def forward(self, x: Tensor, maker: nn.Module) -> Tensor:
        """``x``."""
        return x


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
        wide_as: four times the channels that go ``"in"`` or come ``"out"``.
        bias: whether the shortcut and the last 1x1 have one.
        squeeze: squeeze-and-excite ``"late"``, after the second norm and activation, or
            ``"early"``, before them.
        squeeze_act: the activation inside it.
    """

    halve: str = "widen"
    pool: str = "avg"
    act: str = "gelu"
    act_first: bool = False
    wide_as: str = "out"
    bias: bool = True
    squeeze: str = "late"
    squeeze_act: str = "silu"


class MBConv(nn.Module):
    """Pre-normed inverted residual: widen, look around, squeeze and excite, narrow.

    ``x <- Proj(Pool(x)) + Conv(SE(DepthConv(Conv(Norm(x)))))`` (Dai et al. 2021, appendix A.1).
    """

    def __init__(
        self, given: int, dim: int, stride: int, style: MBConvStyle, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        act, halve = ACTIVATIONS[style.act], {style.halve: stride}
        wide = 4 * {"in": given, "out": dim}[style.wide_as]
        squeezed = {"in": wide, "out": dim}[style.wide_as] // 4
        steps = {style.squeeze: SqueezeExcite(wide, squeezed, style.squeeze_act)}
        self.shortcut = shortcut(given, dim, stride, style.pool, style.bias)
        self.norm = nn.BatchNorm2d(given)
        self.act_first = act() if style.act_first else nn.Identity()
        self.pool = halving_pool("avg") if halve.get("pool") == 2 else nn.Identity()
        self.widen = nn.Conv2d(given, wide, 1, halve.get("widen", 1), bias=False)
        self.norm1 = nn.BatchNorm2d(wide)
        self.act = act()
        self.depthwise = nn.Conv2d(
            wide, wide, 3, halve.get("depthwise", 1), 1, groups=wide, bias=False
        )
        self.early = steps.get("early", Unsqueezed())
        self.norm2 = nn.BatchNorm2d(wide)
        self.late = steps.get("late", Unsqueezed())
        self.narrow = nn.Conv2d(wide, dim, 1, bias=style.bias)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, given, H, W)`` -> ``(B, dim, H / stride, W / stride)``, rounded up."""
        y = self.pool(activate(self.act_first, self.norm(x), self.norm))
        y = activate(self.act, conv_norm(y, self.widen, self.norm1), self.norm1)
        y = activate(self.act, self.looked(y), self.norm2)
        return self.shortcut(x) + self.drop_path(self.narrow(self.late(y, self.act)))

    def looked(self, x: Tensor) -> Tensor:
        """Depthwise convolution, squeeze-and-excitation if it is early, norm."""
        if isinstance(self.early, Unsqueezed):
            return conv_norm(x, self.depthwise, self.norm2)
        return normed(self.early(self.depthwise(x), self.depthwise), self.norm2, self.early)


def init_convs(module: nn.Module) -> None:
    """Convolutions normal, variance two over the fan out (EfficientNet, timm)."""
    if isinstance(module, nn.Conv2d):
        fan = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2 / fan) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
