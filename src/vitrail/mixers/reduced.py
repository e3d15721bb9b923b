"""Softmax attention with few keys: CMT's lightweight attention (LMHSA).

Guo et al., "CMT: Convolutional Neural Networks Meet Vision Transformers", CVPR 2022 (arXiv
2107.06263), equations 4-6; batch norm behind the reduction and one bias table for all blocks of
a stage as in the released code (ggjy/CMT.pytorch 07e72b7).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.attend import attend, attention_weights, average_keys, join_heads, split_heads
from vitrail.layers.grid import Grid, cells, pad_to, to_map, to_tokens
from vitrail.layers.plan import Plan
from vitrail.layers.position import Table, square
from vitrail.mixers.base import Mixer, MixerSpec
from vitrail.mixers.softmax import check_grid, check_heads
from vitrail.specs import Place


@dataclass(frozen=True, kw_only=True)
class Reduced(MixerSpec, name="reduced"):
    """Every token attends to the map shrunk ``ratio`` times, plus a bias the stage shares.

    ``k, v = linear(BN(DWConv(x)))`` with kernel and stride ``ratio``;
    ``y = proj(softmax(q k^T / sqrt(d) + B) v)``. Ragged grids are padded with zeros; the table
    ``B`` of heads x queries x keys is resized bilinearly for another grid, along the queries,
    then along the keys. Class tokens are keys as they are, and get no bias.
    """

    ratio: int = 2

    def build(self, place: Place) -> "ReducedAttention":
        """Serves tokens that lie on a grid."""
        check_heads(self, place)
        check_grid(self, place)
        if self.ratio < 1:
            raise self.refuse(place, "the ratio is below one", "use ratio=1, 2, 4, ...")
        return ReducedAttention(place.dim, place.heads, self.ratio)

    def build_shared(self, place: Place) -> "BiasTable":
        """The bias of a stage."""
        return BiasTable(place.heads, place.grid, self.ratio)

    def macs(self, place: Place, working: int | None = None) -> int:
        """Four projections, two products of tokens with keys, the reduction."""
        tokens = place.tokens if working is None else working
        height, width = cells(place.grid, self.ratio)
        keys = place.extra + height * width
        shrink = height * width * self.ratio**2 * place.dim if self.ratio > 1 else 0
        return 2 * (tokens + keys) * place.dim**2 + 2 * tokens * keys * place.dim + shrink


class BiasTable(Table):
    """One learned number for each head, query place and key place."""

    def __init__(self, heads: int, grid: Grid, ratio: int) -> None:
        super().__init__()
        self.grid = grid
        self.ratio = ratio
        few = cells(grid, ratio)
        self.table = nn.Parameter(torch.randn(heads, grid[0] * grid[1], few[0] * few[1]))

    def forward(self, grid: Grid, extra: int) -> Tensor:
        """The bias for a grid behind ``extra`` class tokens: ``(1, heads, E + N, E + M)``."""
        bias = resize_bias(self.table, self.grid, grid, self.ratio).unsqueeze(0)
        return F.pad(bias, (extra, 0, extra, 0)) if extra else bias

    def fit_table(self, table: Tensor) -> Tensor:
        """The table of another square grid for the grid of this one.

        Raises:
            UserError: its grid was not square.
        """
        return resize_bias(table, square(table.shape[1], "a bias table"), self.grid, self.ratio)


def resize_bias(table: Tensor, old: Grid, new: Grid, ratio: int) -> Tensor:
    """A table ``(heads, N, M)`` for another grid: its query axes, then its key axes, bilinearly."""
    if old == new:
        return table
    few, fewer = cells(old, ratio), cells(new, ratio)
    queries = F.interpolate(table.mT.unflatten(2, old), new, mode="bilinear").flatten(2).mT
    return F.interpolate(queries.unflatten(2, few), fewer, mode="bilinear").flatten(2)


class ReducedAttention(Mixer):
    """Full queries, keys and values from a shrunk map."""

    def __init__(self, dim: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.ratio = ratio
        self.shrink = (
            nn.Sequential(nn.Conv2d(dim, dim, ratio, ratio, groups=dim), nn.BatchNorm2d(dim))
            if ratio > 1
            else nn.Identity()
        )
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def keys(self, x: Tensor, grid: Grid) -> Tensor:
        """Class tokens and the shrunk map: ``(B, E + M, C)``."""
        extra = x.shape[1] - grid[0] * grid[1]
        few = to_tokens(self.shrink(pad_to(to_map(x[:, extra:], grid), self.ratio)))
        return torch.cat((x[:, :extra], few), 1) if extra else few

    def split(
        self, x: Tensor, grid: Grid, shared: nn.Module | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries, keys, values ``(B, heads, ., d)`` and the stage's bias."""
        assert shared is not None
        few = self.keys(x, grid)
        q, k, v = (split_heads(t, self.heads) for t in (self.q(x), self.k(few), self.v(few)))
        return q, k, v, shared(grid, x.shape[1] - grid[0] * grid[1]).to(q.dtype)

    def forward(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Tensor:
        """See :class:`~vitrail.mixers.base.Mixer`; ``shared`` is the stage's bias table."""
        return self.proj(join_heads(attend(*self.split(x, grid, shared))))

    def explain(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Mapping[str, Tensor]:
        """``attention`` ``(B, heads, N, M)`` over the shrunk map's places; rows sum to one;
        ``values``.
        """
        q, k, v, bias = self.split(x, grid, shared)
        return {"attention": attention_weights(q, k, bias), "values": v}

    def make_keys(self, field: Tensor, grid: Grid) -> Tensor:
        """Class tokens, and means by the weights of the reduction."""
        if not isinstance(self.shrink, nn.Sequential):
            return field
        conv = self.shrink[0]
        assert isinstance(conv, nn.Conv2d)
        return average_keys(conv, field, grid)
