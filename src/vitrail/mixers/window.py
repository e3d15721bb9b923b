"""Attention inside tiles of the grid: Swin's windows, and MaxViT's grid.

Liu et al., "Swin Transformer", ICCV 2021 (arXiv 2103.14030), section 3.2 and equation 4; Tu et
al., "MaxViT", ECCV 2022 (arXiv 2204.01697), section 3.2. Both learn a bias for every offset in a
tile. Deviations, for grids that whole tiles do not cover: places that only fill up a tile are
hidden from all others (Swin lets them be attended to; MaxViT refuses such grids). Class tokens,
which neither paper has, are keys of every tile, and attend to all tokens themselves.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.attend import attend, attention_weights, join_heads, split_heads
from vitrail.layers.grid import Grid
from vitrail.layers.plan import Plan
from vitrail.layers.windows import Windows, attend_tiles, dilated_tiles, minus_infinity, windows
from vitrail.mixers.base import MixerSpec, count_class_tokens
from vitrail.mixers.relative import reversed_bias
from vitrail.mixers.softmax import QkvAttention, check_grid, check_heads
from vitrail.specs import Place


@dataclass(frozen=True, kw_only=True)
class Tiled(MixerSpec):
    """What both tilings have in common: ``size``, places along a tile."""

    size: int = 7

    @abstractmethod
    def tiling(self, grid: Grid, index: int) -> Windows:
        """How the grid is cut in the stage's block number ``index``."""

    def build(self, place: Place) -> "TiledAttention":
        """Serves tokens on a grid."""
        return self.build_between(place, place.dim, place.dim)

    def build_between(self, place: Place, in_dim: int, out_dim: int) -> "TiledAttention":
        """Its own projections change the width."""
        check_heads(self, place)
        check_grid(self, place)
        if self.size < 1:
            raise self.refuse(place, "a tile has no places", "use size=7, or any from 1")
        return TiledAttention(self, place, in_dim, out_dim)

    def macs(self, place: Place, working: int | None = None) -> int:
        """Projections; in each tile two products of its places with its keys; class tokens'."""
        tiling = self.tiling(place.grid, place.index)
        inside = tiling.places * (tiling.area + place.extra) + place.extra * place.tokens
        return 4 * place.tokens * place.dim**2 + 2 * inside * place.dim


@dataclass(frozen=True, kw_only=True)
class Window(Tiled, name="window"):
    """Swin's attention: neighbours meet in windows, which every second block shifts.

    ``softmax(q k^T / sqrt(d) + w[i - j]) v`` inside windows of ``size x size`` tokens. Odd blocks
    of a stage begin their windows ``shift`` tokens further (half a window if not given, 0 for
    never), along each axis that takes more than one window.
    """

    shift: int | None = None

    def tiling(self, grid: Grid, index: int) -> Windows:
        """Windows, shifted in odd blocks."""
        shift = self.size // 2 if self.shift is None else self.shift
        return windows(grid, self.size, shift if index % 2 else 0)

    def build_between(self, place: Place, in_dim: int, out_dim: int) -> "TiledAttention":
        """Its own projections change the width."""
        if self.shift is not None and not 0 <= self.shift < self.size:
            raise self.refuse(place, "windows shift by less than their size", "try shift=0 or 3")
        return super().build_between(place, in_dim, out_dim)


@dataclass(frozen=True, kw_only=True)
class GridAttention(Tiled, name="grid"):
    """MaxViT's grid attention: ``size x size`` tokens spread evenly over the grid meet.

    ``softmax(q k^T / sqrt(d) + w[i - j]) v`` among every ``H / size``-th token along each axis:
    sparse and global, where ``window`` is dense and local. Alternate both by stages.
    """

    def tiling(self, grid: Grid, index: int) -> Windows:
        """The same in every block."""
        return dilated_tiles(grid, self.size)


class TileOffsets(nn.Module):
    """One learned number for each head and offset of two places in a tile."""

    def __init__(self, heads: int, size: int) -> None:
        super().__init__()
        table = torch.empty(heads, 2 * size - 1, 2 * size - 1)
        self.table = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))

    def crop(self, size: Grid) -> Tensor:
        """The offsets of a tile no larger than planned, ``(heads, 2h - 1, 2w - 1)``."""
        full = (self.table.shape[1] + 1) // 2
        down, right = full - size[0], full - size[1]
        return self.table[:, down : down + 2 * size[0] - 1, right : right + 2 * size[1] - 1]

    def forward(self, size: Grid) -> Tensor:
        """``w[i - j]`` for all pairs of a tile, ``(heads, h * w, h * w)``."""
        return reversed_bias(self.crop(size), size, 0)[0].flip(2)


class TiledAttention(QkvAttention):
    """Multi-head attention inside tiles; tokens are projected before they are cut."""

    def __init__(self, spec: Tiled, place: Place, in_dim: int, out_dim: int) -> None:
        super().__init__(place.dim, place.heads, in_dim=in_dim, out_dim=out_dim)
        self.spec, self.index = spec, place.index
        self.offsets = TileOffsets(place.heads, spec.size)

    def forward(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Tensor:
        """See :class:`~vitrail.mixers.base.Mixer`."""
        qkv, extra = self.qkv(x), count_class_tokens(x, grid)
        tiling = self.spec.tiling(grid, self.index)
        bias = tiling.bias(self.offsets(tiling.size).to(qkv.dtype))
        q, k, v = self.split_tiles(tiling.fold(qkv[:, extra:]))
        if extra:
            _, *first = self.split_tiles(qkv[:, None, :extra])
            k, v = (prepend_class_tokens(f, t) for f, t in zip(first, (k, v), strict=True))
            bias = F.pad(bias, (extra, 0))
        mixed = tiling.unfold(attend_tiles(q, k, v, bias).transpose(2, 3).flatten(3))
        if extra:
            mixed = torch.cat((attend_class_tokens(qkv, extra, self.heads), mixed), 1)
        return self.proj(mixed)

    def split_tiles(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(B, tiles, n, 3 C)`` -> queries, keys and values ``(B, tiles, heads, n, d)``."""
        q, k, v = qkv.unflatten(3, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5).unbind(0)
        return q, k, v

    def explain(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Mapping[str, Tensor]:
        """``attention`` ``(B, heads, N, N)``: zero between tiles; rows sum to one; ``values``."""
        q, k, v = self.project(x)
        extra = count_class_tokens(x, grid)
        bias = F.pad(self.pair_bias(grid, q), (extra, 0, extra, 0))
        return {"attention": attention_weights(q, k, bias), "values": v}

    def pair_bias(self, grid: Grid, like: Tensor) -> Tensor:
        """The bias between any two places of a grid, ``(heads, H*W, H*W)``, place by place."""
        tiling, offsets = self.spec.tiling(grid, self.index), []
        together = torch.ones(1, 1, dtype=torch.bool, device=like.device)
        for axis in (0, 1):
            tile, position = positions_in_tiles(tiling, axis, like.device)
            together = together & (tile[:, None] == tile)
            offsets.append(position[:, None] - position + self.spec.size - 1)
        table = self.offsets.table[:, offsets[0], offsets[1]]
        return table + minus_infinity(~together, table)


def positions_in_tiles(tiling: Windows, axis: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Tile and position along one axis of all ``H * W`` places."""
    shape = (-1, 1) if axis == 0 else (1, -1)
    along = (tiling.tile_of(axis, device), tiling.seat_of(axis, device))
    tile, position = (t.view(shape).expand(tiling.grid).flatten() for t in along)
    return tile, position


def prepend_class_tokens(first: Tensor, tiles: Tensor) -> Tensor:
    """Class tokens ``(B, 1, heads, E, d)`` in front of every tile's ``(B, tiles, heads, n, d)``."""
    return torch.cat((first.expand(-1, tiles.shape[1], -1, -1, -1), tiles), 3)


def attend_class_tokens(qkv: Tensor, extra: int, heads: int) -> Tensor:
    """Class tokens attend to all tokens: ``(B, E + N, 3 C)`` -> ``(B, E, C)``."""
    q, k, v = (split_heads(t, heads) for t in qkv.chunk(3, 2))
    return join_heads(attend(q[:, :, :extra], k, v))
