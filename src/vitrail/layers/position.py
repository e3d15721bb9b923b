"""Positions: learned tables that are resized to any grid, and depthwise convolutions."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.errors import UserError
from vitrail.layers.fused import add_identity, may_fuse
from vitrail.layers.grid import Grid, to_map, to_tokens
from vitrail.layers.plan import Plan
from vitrail.layers.trace import one_node

RESIZE = {
    "bicubic": {"mode": "bicubic", "antialias": True},
    "bilinear": {"mode": "bilinear", "antialias": False},
    "corner": {"mode": "bilinear", "antialias": False, "align_corners": True},
}
"""How codebases resize a position table: timm's state dicts, timm's npz loader, and the JAX
original with big_vision (corner-aligned). They differ by up to 0.8 on unit-variance tables."""


@one_node
def resize_table(
    table: Tensor, old: Grid, new: Grid, prefix: int = 0, how: str = "bicubic"
) -> Tensor:
    """A position table for another grid, ``(1, E + h*w, C)`` -> ``(1, E + H*W, C)``.

    The ``prefix`` entries of class tokens stay as they are; the same grid returns the same table.
    """
    if old == new:
        return table
    image = to_map(table[:, prefix:].float(), old)
    image = F.interpolate(image, size=new, **RESIZE[how])  # type: ignore[arg-type]
    return torch.cat((table[:, :prefix], to_tokens(image).to(table.dtype)), 1)


class Table(nn.Module):
    """Learned numbers for places, made for one grid; ``table`` is resized when weights load."""

    table: nn.Parameter

    def fit_table(self, table: Tensor) -> Tensor:
        """Another grid's ``table`` for the grid of this one."""
        raise NotImplementedError


def square(places: int, what: str) -> Grid:
    """The square grid of so many places.

    Raises:
        UserError: there is none.
    """
    side = math.isqrt(places)
    if side * side != places:
        raise UserError(
            f"{what} for {places} places is no square, and the weights do not say its sides; "
            "build the model with the image size that the weights are for"
        )
    return side, side


class ConvPosition(nn.Module):
    """``x + DWConv(x)`` on the grid's tokens (CoaT's CPE, CMT's LPU, CPVT's PEG).

    Class tokens pass untouched.
    """

    def __init__(self, dim: int, kernel: int = 3) -> None:
        super().__init__()
        self.proj = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """``(B, E + H*W, C)`` -> the same shape."""
        prefix = x.shape[1] - grid[0] * grid[1]
        placed = to_tokens(self.on_map(to_map(x[:, prefix:], grid)))
        return torch.cat((x[:, :prefix], placed), 1) if prefix else placed

    def on_map(self, x: Tensor) -> Tensor:
        """``x + DWConv(x)`` on a map, ``(B, C, H, W)``."""
        if may_fuse(self, x, (self.proj,), trains=True):
            return self._fused(x)
        return x + self.proj(x)

    def _fused(self, x: Tensor) -> Tensor:
        """One pass over the map instead of two."""
        kernel = add_identity(self.proj.weight)
        return F.conv2d(x, kernel, self.proj.bias, padding=self.proj.padding, groups=x.shape[1])


class ConvRelative(nn.Module):
    """Depthwise convolutions of several window sizes, each over its share of the heads.

    CoaT's CRPE without the query: ``(B, H*W, C)`` -> ``(B, H*W, C)``. ``conv_list`` holds one
    convolution a window, in the order of the heads.
    """

    def __init__(self, head_dim: int, windows: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.widths = tuple(heads * head_dim for _, heads in windows)
        self.conv_list = nn.ModuleList(
            nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
            for (kernel, _), width in zip(windows, self.widths, strict=True)
        )

    def forward(self, v: Tensor, grid: Grid, plan: Plan | None = None) -> Tensor:
        """Convolve the values on the grid.

        The values of a ``plan``'s working tokens are carried to the whole grid first, and what
        comes out is reduced by the same plan.
        """
        outputs = []
        for conv, part in zip(self.conv_list, v.split(self.widths, 2), strict=True):
            full = part if plan is None else plan.restore_grid(part)
            conv_out = to_tokens(conv(to_map(full, grid)))
            outputs.append(conv_out if plan is None else plan.reduce_grid(conv_out))
        return torch.cat(outputs, 2)


def sinusoid(place: Tensor, dim: int) -> Tensor:
    """The fixed position code of Vaswani et al. (2017), ``(..., K)`` -> ``(..., K, dim)`` float.

    Sine and cosine alternate; channel pair ``i`` turns by ``10000^(-2 i / dim)`` a place. Places
    may be fractions.
    """
    step = torch.arange(0, dim, 2, device=place.device).float()
    angle = place.unsqueeze(-1) * (step * (-math.log(10000.0) / dim)).exp()
    return torch.stack((angle.sin(), angle.cos()), -1).flatten(-2)
