"""Convolutional projection: Wu et al., "CvT", ICCV 2021 (arXiv 2103.15808), section 3.2.

Queries, keys and values each pass a depthwise convolution before they meet; those of keys and
values have a stride. Wiring and names as in the released code (microsoft/CvT).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrail.layers.attend import average_keys, split_heads
from vitrail.layers.conv import DepthwiseProjection
from vitrail.layers.grid import Grid, cells, to_map
from vitrail.mixers.base import MixerSpec
from vitrail.mixers.reduced_keys import ReducedKeysAttention
from vitrail.mixers.softmax import check_grid, check_heads
from vitrail.specs import Place


@dataclass(frozen=True, kw_only=True)
class Projected(MixerSpec, name="projected"):
    """CvT's attention: 3 x 3 depthwise convolutions project q, k and v; those of k and v stride.

    ``q = W_q BN(DWConv(x))``, likewise k and v at ``stride``; the products are scaled by
    ``1 / sqrt(C)`` of all channels, not of a head: so the released weights want it. Class tokens
    pass the convolutions by.
    """

    stride: int = 2

    def build(self, place: Place) -> "ProjectedAttention":
        """Serves tokens on a grid."""
        check_heads(self, place)
        check_grid(self, place)
        if self.stride < 1:
            raise self.refuse(place, "the stride is below one", "use stride=1 or 2")
        return ProjectedAttention(place.dim, place.heads, self.stride)

    def macs(self, place: Place, working: int | None = None) -> int:
        """Projections, three convolutions, two products of tokens with the strided grid's."""
        tokens = place.tokens if working is None else working
        height, width = cells(place.grid, self.stride)
        keys = place.extra + height * width
        taps = 9 * (place.grid[0] * place.grid[1] + 2 * height * width) * place.dim
        return 2 * (tokens + keys) * place.dim**2 + taps + 2 * tokens * keys * place.dim


class ProjectedAttention(ReducedKeysAttention):
    """Multi-head attention whose queries, keys and values are convolved first."""

    def __init__(self, dim: int, heads: int, stride: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = dim**-0.5
        self.conv_proj_q = DepthwiseProjection(dim, 1)
        self.conv_proj_k = DepthwiseProjection(dim, stride)
        self.conv_proj_v = DepthwiseProjection(dim, stride)
        self.proj_q = nn.Linear(dim, dim)
        self.proj_k = nn.Linear(dim, dim)
        self.proj_v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def project(self, x: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
        """Queries ``(B, heads, N, d)``, keys and values ``(B, heads, E + K, d)``."""
        extra = x.shape[1] - grid[0] * grid[1]
        first, image = x[:, :extra], to_map(x[:, extra:], grid)
        convs = (self.conv_proj_q, self.conv_proj_k, self.conv_proj_v)
        convolved = (conv(image) for conv in convs)
        tokens = (torch.cat((first, t), 1) if extra else t for t in convolved)
        linears = (self.proj_q, self.proj_k, self.proj_v)
        q, k, v = (
            split_heads(linear(t), self.heads) for linear, t in zip(linears, tokens, strict=True)
        )
        return q, k, v

    def make_keys(self, field: Tensor, grid: Grid) -> Tensor:
        """Class tokens, and means by the weights of the values' convolution."""
        return average_keys(self.conv_proj_v.conv, field, grid)
