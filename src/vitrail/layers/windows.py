"""Cut a grid into tiles, let tokens meet inside them, put the grid together again.

============== ========================================= =====================================
tiling         which places share a tile                 source
============== ========================================= =====================================
`Windows`      neighbours; the boundaries may be shifted Swin (Liu et al. 2021), section 3.2
`DilatedTiles` places as far apart as there are tiles    MaxViT (Tu et al. 2022), section 3.2
`Halo`         neighbours, and all within reach of them  HaloNet (2021), Vision Longformer (2021)
============== ========================================= =====================================

Any grid is served. It is filled up to whole tiles at the bottom and right, and shifted by rolling;
a bias of minus infinity keeps apart what does not belong together. Rows and columns are cut alike,
so that bias is the sum of one small table for rows and one for columns: it costs one pass.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.layers.attend import attend
from vitrail.layers.grid import Grid, cells

PADDING = -2
"""The tile of a place that is not there; tiles count from zero, a shifted grid's first is -1."""


@dataclass(frozen=True)
class Windows:
    """Tiles of neighbours, ``size`` places along each axis.

    Attributes:
        grid: what is cut, ``(H, W)``.
        size: of a tile, at most the grid's.
        shift: the first whole tile begins at this row and column; those before it are cut short.
    """

    grid: Grid
    size: Grid
    shift: Grid = (0, 0)

    @property
    def counts(self) -> Grid:
        """Tiles along each axis."""
        return -(-self.grid[0] // self.size[0]), -(-self.grid[1] // self.size[1])

    @property
    def padded_grid(self) -> Grid:
        """The grid filled up to whole tiles."""
        return self.counts[0] * self.size[0], self.counts[1] * self.size[1]

    @property
    def places(self) -> int:
        """Places in all tiles, filled ones included."""
        return self.padded_grid[0] * self.padded_grid[1]

    @property
    def area(self) -> int:
        """Places in one tile."""
        return self.size[0] * self.size[1]

    def fold(self, x: Tensor) -> Tensor:
        """``(B, H*W, C)`` -> ``(B, tiles, area, C)``."""
        down, right = self.padded_grid[0] - self.grid[0], self.padded_grid[1] - self.grid[1]
        x = x.unflatten(1, self.grid)
        x = F.pad(x, (0, 0, 0, right, 0, down)) if down or right else x
        x = x.roll((-self.shift[0], -self.shift[1]), (1, 2)) if any(self.shift) else x
        return self.cut(x).flatten(3, 4).flatten(1, 2)

    def unfold(self, tiles: Tensor) -> Tensor:
        """The inverse of :meth:`fold`."""
        x = self.join(tiles.unflatten(1, self.counts).unflatten(3, self.size))
        x = x.roll(self.shift, (1, 2)) if any(self.shift) else x
        return x[:, : self.grid[0], : self.grid[1]].flatten(1, 2)

    def cut(self, x: Tensor) -> Tensor:
        """``(B, H, W, C)`` -> ``(B, tiles down, tiles across, h, w, C)``, a view."""
        x = x.unflatten(2, (self.counts[1], self.size[1])).unflatten(1, (self.counts[0], -1))
        return x.transpose(2, 3)

    def join(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`cut`."""
        return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def tile_of(self, axis: int, device: torch.device) -> Tensor:
        """The tile of each place along an axis, ``(side,)``."""
        place = torch.arange(self.grid[axis], device=device) - self.shift[axis]
        return place.div(self.size[axis], rounding_mode="floor")

    def seat_of(self, axis: int, device: torch.device) -> Tensor:
        """Where in its tile each place along an axis sits, ``(side,)``."""
        place = torch.arange(self.grid[axis], device=device) - self.shift[axis]
        return place.remainder(self.size[axis])

    def seats(self, axis: int, along: Tensor) -> Tensor:
        """``(filled side,)`` -> ``(tiles, places)`` along an axis."""
        return along.view(self.counts[axis], -1)

    def keep_apart(self, axis: int, like: Tensor) -> Tensor:
        """The bias between places of a tile along an axis, ``(tiles or 1, places, places)``."""
        size, filled = self.size[axis], self.padded_grid[axis] - self.grid[axis]
        if not (filled or self.shift[axis]):
            return like.new_zeros(1, size, size)
        tile = F.pad(self.tile_of(axis, like.device), (0, filled), value=PADDING)
        tile = self.seats(axis, tile.roll(-self.shift[axis]))
        return minus_infinity(tile.unsqueeze(2) != tile.unsqueeze(1), like)

    def bias(self, table: Tensor) -> Tensor:
        """A table ``(heads, area, area)`` in every tile: ``(tiles or 1, heads, area, area)``."""
        table = table.unflatten(2, self.size).unflatten(1, self.size)
        return add_axes(table, self.keep_apart(0, table), self.keep_apart(1, table), self.counts)


@dataclass(frozen=True)
class DilatedTiles(Windows):
    """Tiles of places that lie as far apart as there are tiles: each tile sees the whole grid."""

    def cut(self, x: Tensor) -> Tensor:
        """``(B, H, W, C)`` -> ``(B, tiles down, tiles across, h, w, C)``, a view."""
        x = x.unflatten(2, (-1, self.counts[1])).unflatten(1, (-1, self.counts[0]))
        return x.permute(0, 2, 4, 1, 3, 5)

    def join(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`cut`."""
        return x.permute(0, 3, 1, 4, 2, 5).flatten(3, 4).flatten(1, 2)

    def tile_of(self, axis: int, device: torch.device) -> Tensor:
        """The tile of each place along an axis, ``(side,)``."""
        return torch.arange(self.grid[axis], device=device).remainder(self.counts[axis])

    def seat_of(self, axis: int, device: torch.device) -> Tensor:
        """Where in its tile each place along an axis sits, ``(side,)``."""
        place = torch.arange(self.grid[axis], device=device)
        return place.div(self.counts[axis], rounding_mode="floor")

    def seats(self, axis: int, along: Tensor) -> Tensor:
        """``(filled side,)`` -> ``(tiles, places)`` along an axis."""
        return along.view(-1, self.counts[axis]).mT


def windows(grid: Grid, size: int, shift: int) -> Windows:
    """Windows no larger than the grid; an axis that one window covers is not shifted."""
    height, width = grid
    moved = shift if height > size else 0, shift if width > size else 0
    return Windows(grid, (min(size, height), min(size, width)), moved)


def dilated_tiles(grid: Grid, size: int) -> DilatedTiles:
    """At most ``size x size`` places a tile; a ragged grid's tiles are as small as will do."""
    counts = cells(grid, size)
    return DilatedTiles(grid, (-(-grid[0] // counts[0]), -(-grid[1] // counts[1])))


@dataclass(frozen=True)
class Halo:
    """Tiles of queries, and around each a halo of the keys that one of them can reach.

    Attributes:
        grid: what is cut, ``(H, W)``.
        radius: how far a query reaches along each axis.
    """

    grid: Grid
    radius: int

    @property
    def size(self) -> Grid:
        """A tile is as wide as what a query reaches, at most the grid."""
        reach = 2 * self.radius + 1
        return min(reach, self.grid[0]), min(reach, self.grid[1])

    @property
    def tiling(self) -> Windows:
        """The tiles of the queries."""
        return Windows(self.grid, self.size)

    @property
    def area(self) -> int:
        """Keys around one tile."""
        return (self.size[0] + 2 * self.radius) * (self.size[1] + 2 * self.radius)

    def fold(self, x: Tensor) -> Tensor:
        """``(B, H*W, C)`` -> ``(B, tiles, area, C)``: the keys around each tile."""
        (height, width), (down, across), reach = self.size, self.tiling.padded_grid, self.radius
        right, below = across - self.grid[1] + reach, down - self.grid[0] + reach
        x = F.pad(x.unflatten(1, self.grid), (0, 0, reach, right, reach, below))
        x = x.unfold(1, height + 2 * reach, height).unfold(2, width + 2 * reach, width)
        return x.permute(0, 1, 2, 4, 5, 3).flatten(3, 4).flatten(1, 2)

    def keep_near(self, axis: int, like: Tensor) -> Tensor:
        """The bias from a tile's queries to its keys along an axis, ``(tiles, h, h + 2 radius)``.

        A query that only fills up a tile may look anywhere: nobody reads its answer, but a row
        of minus infinities would answer with no number, which spoils gradients.
        """
        side, size, reach = self.grid[axis], self.size[axis], self.radius
        first = torch.arange(0, side, size, device=like.device)[:, None]
        query = (first + torch.arange(size, device=like.device))[:, :, None]
        key = (first + torch.arange(-reach, size + reach, device=like.device))[:, None, :]
        near = ((query - key).abs() <= reach) & (key >= 0) & (key < side)
        return minus_infinity(~(near | (query >= side)), like)

    def bias(self, like: Tensor) -> Tensor:
        """``(tiles, 1, area of a tile, area)``: zero within reach, minus infinity elsewhere."""
        rows, columns = self.keep_near(0, like), self.keep_near(1, like)
        return add_axes(like.new_zeros(1, 1, 1, 1, 1), rows, columns, self.tiling.counts)


def minus_infinity(where: Tensor, like: Tensor) -> Tensor:
    """A bias that forbids some pairs, and leaves the others as they are."""
    return like.new_zeros(where.shape).masked_fill(where, -torch.inf)


def add_axes(table: Tensor, rows: Tensor, columns: Tensor, counts: Grid) -> Tensor:
    """``table + rows + columns``: ``(heads, h, w, k, l)``, ``(a, h, k)`` and ``(b, w, l)`` or one
    for all tiles of an axis -> ``(a * b or 1, heads, h * w, k * l)``.
    """
    whole = table + rows[:, None, None, :, None, :, None] + columns[None, :, None, None, :, None, :]
    if whole.shape[:2] != (1, 1):
        whole = whole.expand(*counts, -1, -1, -1, -1, -1)
    return whole.flatten(5).flatten(3, 4).flatten(0, 1)


def attend_tiles(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attention inside each tile, ``(B, tiles, heads, n, d)`` to as many.

    ``bias`` is ``(tiles or 1, heads, n, m)``. One for all tiles lets them join the images; else
    they join the heads, so that images still share the bias: fused kernels take four axes only.
    """
    if bias.shape[0] == 1:
        mixed = attend(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), bias)
        return mixed.unflatten(0, q.shape[:2])
    every = bias.flatten(0, 1).unsqueeze(0)
    mixed = attend(q.flatten(1, 2), k.flatten(1, 2), v.flatten(1, 2), every)
    return mixed.unflatten(1, q.shape[1:3])
