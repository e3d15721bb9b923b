"""Spatial-reduction attention: Wang et al., "Pyramid Vision Transformer", ICCV 2021
(arXiv 2102.12122); released code whai362/PVT.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrail.layers.attend import average_keys, split_heads
from vitrail.layers.grid import Grid, cells, pad_to, to_map, to_tokens
from vitrail.mixers.base import MixerSpec
from vitrail.mixers.reduced_keys import ReducedKeysAttention
from vitrail.mixers.softmax import check_grid, check_heads
from vitrail.specs import Place


@dataclass(frozen=True, kw_only=True)
class Spatial(MixerSpec, name="spatial"):
    """PVT's attention: keys and values from a grid made ``ratio`` times coarser by a convolution.

    ``k, v = W LN(Conv(x))``, kernel and stride ``ratio``; queries are all tokens. Class tokens
    pass the convolution by. Ragged edges are padded with zeros; PVT drops them.
    """

    ratio: int = 2

    def build(self, place: Place) -> "SpatialAttention":
        """Serves tokens on a grid."""
        check_heads(self, place)
        check_grid(self, place)
        if self.ratio < 1:
            raise self.refuse(place, "the ratio is below one", "use ratio=1, 2, 4 or 8")
        return SpatialAttention(place.dim, place.heads, self.ratio)

    def macs(self, place: Place, working: int | None = None) -> int:
        """Projections, the convolution, two products of tokens with the coarser grid's."""
        tokens = place.tokens if working is None else working
        height, width = cells(place.grid, self.ratio)
        keys = place.extra + height * width
        conv = height * width * self.ratio**2 * place.dim**2 if self.ratio > 1 else 0
        return 2 * (tokens + keys) * place.dim**2 + conv + 2 * tokens * keys * place.dim


class SpatialAttention(ReducedKeysAttention):
    """Multi-head attention from all tokens to a coarser grid; names as in the released code."""

    def __init__(self, dim: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.heads, self.ratio = heads, ratio
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.sr = nn.Conv2d(dim, dim, ratio, ratio) if ratio > 1 else None
        self.norm = nn.LayerNorm(dim) if ratio > 1 else nn.Identity()

    def coarser(self, x: Tensor, grid: Grid) -> Tensor:
        """Class tokens and the coarser grid's, for keys and values: ``(B, E + K, C)``."""
        if self.sr is None:
            return x
        extra = x.shape[1] - grid[0] * grid[1]
        reduced = self.norm(to_tokens(self.sr(pad_to(to_map(x[:, extra:], grid), self.ratio))))
        return torch.cat((x[:, :extra], reduced), 1) if extra else reduced

    def project(self, x: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
        """Queries ``(B, heads, N, d)``, keys and values ``(B, heads, E + K, d)``."""
        k, v = self.kv(self.coarser(x, grid)).chunk(2, 2)
        q, k, v = (split_heads(t, self.heads) for t in (self.q(x), k, v))
        return q, k, v

    def make_keys(self, field: Tensor, grid: Grid) -> Tensor:
        """Class tokens, and means by the convolution's weights."""
        return field if self.sr is None else average_keys(self.sr, field, grid)
