"""Linformer: Wang, Li, Khabsa, Fang, Ma, "Linformer: Self-Attention with Linear Complexity", 2020
(arXiv 2006.04768), equation 7, in a form that serves any grid.

As published, learned ``rank x N`` matrices mix keys and values into ``rank`` of each: that fixes N,
and for a picture's N they hold more weights than the block. Here the grid is first averaged into
at most ``side x side`` cells (adaptive pooling, which any grid allows), and the matrices mix these:
``rank x side^2`` weights. With cells of one token it is the published form.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.attend import split_heads
from vitrail.layers.grid import Grid, grid_of, to_map, to_tokens
from vitrail.layers.position import Table
from vitrail.mixers.base import MixerSpec
from vitrail.mixers.reduced_keys import ReducedKeysAttention
from vitrail.mixers.softmax import check_grid, check_heads
from vitrail.specs import Place


@dataclass(frozen=True, kw_only=True)
class Linformer(MixerSpec, name="linformer"):
    """Every token attends to ``rank`` learned mixtures of the grid, whatever its size.

    ``k = E P(x) W_k``, ``v = F P(x) W_v``: ``P`` averages the grid into at most ``side x side``
    cells, ``E`` and ``F`` are learned, one pair for all heads. Class tokens are keys as they are.
    """

    rank: int = 64
    side: int = 14

    def cells(self, place: Place) -> Grid:
        """The cells the place's grid is averaged into."""
        return min(self.side, place.grid[0]), min(self.side, place.grid[1])

    def build(self, place: Place) -> "LinformerAttention":
        """Serves tokens on a grid."""
        check_heads(self, place)
        check_grid(self, place)
        if self.rank < 1 or self.side < 1:
            raise self.refuse(place, "rank or side is below one", "try rank=64, side=14")
        return LinformerAttention(place.dim, place.heads, self.rank, self.cells(place))

    def macs(self, place: Place, working: int | None = None) -> int:
        """Projections of tokens and cells, both mixings, two products of tokens with mixtures."""
        height, width = self.cells(place)
        cells, keys = height * width, self.rank + place.extra
        projections = 2 * (place.tokens + place.extra + cells) * place.dim**2
        mixing = 2 * self.rank * cells * place.dim
        return projections + mixing + 2 * place.tokens * keys * place.dim


class Mixtures(Table):
    """The learned matrices ``E`` and ``F``; ``table`` ``(2, rank, h, w)`` over the cells."""

    def __init__(self, rank: int, cells: Grid) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(2, rank, *cells))
        nn.init.normal_(self.table, std=(cells[0] * cells[1]) ** -0.5)

    def forward(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Two times ``(B, h * w, C)`` -> two times ``(B, rank, C)``."""
        first, second = self.table.flatten(2).unbind(0)
        return first @ k, second @ v

    def fit_table(self, table: Tensor) -> Tensor:
        """The matrices of other cells, resized bilinearly; the weight of an area stays the same."""
        old, new = table.shape[2:].numel(), self.table.shape[2:].numel()
        return F.interpolate(table, self.table.shape[2:], mode="bilinear") * (old / new)


class LinformerAttention(ReducedKeysAttention):
    """Multi-head attention from all tokens to few mixtures."""

    def __init__(self, dim: int, heads: int, rank: int, cells: Grid) -> None:
        super().__init__()
        self.heads, self.cells = heads, cells
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.mixtures = Mixtures(rank, cells)

    def average(self, x: Tensor, grid: Grid) -> Tensor:
        """The grid's tokens as cells, ``(B, H*W, C)`` -> ``(B, h*w, C)``.

        Before the projection, which commutes with averages and so runs on fewer tokens.
        """
        image = to_map(x, grid)
        return (
            x
            if grid_of(image) == self.cells
            else to_tokens(F.adaptive_avg_pool2d(image, self.cells))
        )

    def project(self, x: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
        """Queries ``(B, heads, N, d)``, keys and values ``(B, heads, E + rank, d)``."""
        extra = x.shape[1] - grid[0] * grid[1]
        k, v = self.mixtures(*self.kv(self.average(x[:, extra:], grid)).chunk(2, 2))
        if extra:
            first = self.kv(x[:, :extra]).chunk(2, 2)
            k, v = torch.cat((first[0], k), 1), torch.cat((first[1], v), 1)
        q, k, v = (split_heads(t, self.heads) for t in (self.q(x), k, v))
        return q, k, v

    def make_keys(self, field: Tensor, grid: Grid) -> Tensor:
        """Class tokens, and means by the magnitudes of the values' mixtures."""
        extra, shares = field.shape[1] - grid[0] * grid[1], self.mixtures.table[1].flatten(1).abs()
        mixed = (shares / shares.sum(1, True)).to(field.dtype) @ self.average(
            field[:, extra:], grid
        )
        return torch.cat((field[:, :extra], mixed), 1)
