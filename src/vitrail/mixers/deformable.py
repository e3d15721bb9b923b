"""Deformable attention: Xia, Pan, Song, Li, Huang, "Vision Transformer with Deformable Attention"
(DAT), CVPR 2022 (arXiv 2201.00520), section 3.2 and equations 5-9.

queries -> depthwise conv of stride s, norm, GELU, 1x1 -> offsets of a coarser grid's points
tokens  -> read bilinearly at these points -> keys, values
bias    -> read bilinearly from a table, at the distance from each query to each point

Deviations: points begin in the middle of their cells and read as ``F.interpolate`` does, not
aligned to corner places with the last point beyond the edge; points that leave the grid read its
edge; class tokens are keys as they are, without a bias.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.attend import attend, attention_weights, join_heads, split_heads
from vitrail.layers.grid import Grid, cells, to_map, to_tokens
from vitrail.layers.plan import Plan
from vitrail.mixers.base import Mixer, MixerSpec
from vitrail.mixers.relative import TableOffsets
from vitrail.mixers.softmax import check_grid, check_heads
from vitrail.specs import Place


@dataclass(frozen=True, kw_only=True)
class Deformable(MixerSpec, name="deformable"):
    """DAT's attention: keys and values are sampled at points that the queries choose.

    One point for every ``stride x stride`` tokens, ``groups`` such sets, each for a share of the
    channels and heads. A point moves at most ``reach`` cells of the coarser grid. ``kernel`` is
    the size of the convolution that finds the offsets.
    """

    stride: int = 2
    groups: int = 1
    kernel: int = 5
    reach: float = 1.0

    def build(self, place: Place) -> "DeformableAttention":
        """Serves tokens on a grid."""
        check_heads(self, place)
        check_grid(self, place)
        if self.groups < 1 or place.heads % self.groups:
            raise self.refuse(place, "the groups do not divide the heads", "use groups=1")
        if self.stride < 1 or self.kernel % 2 == 0 or self.reach <= 0:
            raise self.refuse(
                place, "the options do not fit", "try stride=2, an odd kernel=5, reach=1.0"
            )
        return DeformableAttention(self, place)

    def macs(self, place: Place, working: int | None = None) -> int:
        """Projections, the convolutions, two products of tokens with points; as everywhere, what
        bilinear reading costs is not counted.
        """
        height, width = cells(place.grid, self.stride)
        points, keys = height * width, place.extra + height * width
        conv = points * (self.kernel**2 + 2) * place.dim
        return 2 * (place.tokens + keys) * place.dim**2 + conv + 2 * place.tokens * keys * place.dim


class Offsets(nn.Module):
    """How far each point moves, from a map of queries: ``(B, C, H, W)`` -> ``(B, h, w, 2)``.

    In units of a cell of the coarser grid, across and down, each less than ``reach``.
    """

    def __init__(self, dim: int, spec: Deformable) -> None:
        super().__init__()
        kernel, self.reach = spec.kernel, spec.reach
        self.look = nn.Conv2d(dim, dim, kernel, spec.stride, kernel // 2, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.act = nn.GELU()
        self.point = nn.Linear(dim, 2, bias=False)

    def forward(self, q: Tensor) -> Tensor:
        """Convolve, normalise, project to two numbers."""
        context = self.norm(self.look(q).permute(0, 2, 3, 1))
        return self.reach * self.point(self.act(context)).tanh()


class DeformableAttention(Mixer):
    """Multi-head attention from all tokens to points that move."""

    def __init__(self, spec: Deformable, place: Place) -> None:
        super().__init__()
        dim, self.heads, self.groups = place.dim, place.heads, spec.groups
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.wander = Offsets(dim // spec.groups, spec)
        self.offsets = TableOffsets(place.heads, place.grid)

    def points(self, q: Tensor, grid: Grid) -> Tensor:
        """Of queries ``(B, H*W, C)`` the points to read at, ``(B * groups, h, w, 2)``: across and
        down from -1 at the grid's first edge to 1 at its last; float32 or better.
        """
        groups = to_map(q, grid).unflatten(1, (self.groups, -1)).flatten(0, 1)
        offsets = self.wander(groups)
        offsets = offsets if offsets.dtype == torch.float64 else offsets.float()
        coarse = (offsets.shape[1], offsets.shape[2])
        cell = offsets.new_tensor([2 / coarse[1], 2 / coarse[0]])
        return (centres(coarse, offsets) + offsets * cell).clamp(-1, 1)

    def sample(self, x: Tensor, points: Tensor, grid: Grid) -> Tensor:
        """Tokens ``(B, H*W, C)`` read at each group's points, ``(B, h*w, C)``."""
        groups = to_map(x, grid).unflatten(1, (self.groups, -1)).flatten(0, 1)
        read = F.grid_sample(
            groups.to(points.dtype), points, padding_mode="border", align_corners=False
        )
        return to_tokens(read.unflatten(0, (-1, self.groups)).flatten(1, 2)).to(x.dtype)

    def bias(self, points: Tensor, grid: Grid, extra: int) -> Tensor:
        """The table read at the distance of each point from each token, ``(B, heads, N, K)``."""
        table = self.offsets.table.to(points.dtype).unflatten(0, (self.groups, -1))
        places = centres(grid, points).flatten(0, 1)
        far = places[:, None] - points.flatten(1, 2)[:, None]
        far = far * far.new_tensor([side / (2 * side - 1) for side in reversed(self.offsets.grid)])
        images = points.unflatten(0, (-1, self.groups)).shape[0]
        every = table.expand(images, -1, -1, -1, -1).flatten(0, 1)
        read = F.grid_sample(every, far, padding_mode="border", align_corners=False)
        return F.pad(read.unflatten(0, (images, -1)).flatten(1, 2), (extra, 0, extra, 0))

    def project(self, x: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries ``(B, heads, N, d)``, keys and values ``(B, heads, E + K, d)``, and the bias."""
        extra, q = x.shape[1] - grid[0] * grid[1], self.q(x)
        points = self.points(q[:, extra:], grid)
        sampled = torch.cat((x[:, :extra], self.sample(x[:, extra:], points, grid)), 1)
        bias = self.bias(points, grid, extra).to(q.dtype)
        q, k, v = (split_heads(t, self.heads) for t in (q, *self.kv(sampled).chunk(2, 2)))
        return q, k, v, bias

    def forward(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Tensor:
        """See :class:`~vitrail.mixers.base.Mixer`."""
        return self.proj(join_heads(attend(*self.project(x, grid))))

    def explain(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Mapping[str, Tensor]:
        """``attention`` ``(B, heads, N, E + K)`` over class tokens and points; ``values``, and
        their ``sources`` ``(B, heads, E + K, N)``; where the points are: ``points``
        ``(B, groups, h, w, 2)``, across and down from -1 to 1.
        """
        q, k, v, bias = self.project(x, grid)
        points = self.points(self.q(x)[:, x.shape[1] - grid[0] * grid[1] :], grid)
        return {
            "attention": attention_weights(q, k, bias),
            "values": v,
            "sources": self.sources(points, grid, x.shape[1] - grid[0] * grid[1]).to(x.dtype),
            "points": points.unflatten(0, (-1, self.groups)),
        }

    def sources(self, points: Tensor, grid: Grid, extra: int) -> Tensor:
        """What each point reads of each token, class tokens first: ``(B, heads, E + K, N)``."""
        places = torch.eye(grid[0] * grid[1], device=points.device, dtype=points.dtype)
        every = places.view(1, -1, *grid).expand(points.shape[0], -1, -1, -1)
        read = F.grid_sample(every, points, padding_mode="border", align_corners=False)
        read = read.flatten(2).mT.unflatten(0, (-1, self.groups))
        read = F.pad(read, (extra, 0, extra, 0))
        read[:, :, :extra, :extra] = torch.eye(extra, device=read.device, dtype=read.dtype)
        return read.repeat_interleave(self.heads // self.groups, 1)


def centres(grid: Grid, like: Tensor) -> Tensor:
    """The middles of a grid's places, ``(H, W, 2)``: across and down, edges at -1 and 1."""
    down, across = (
        (torch.arange(side, device=like.device, dtype=like.dtype) * 2 + 1) / side - 1
        for side in grid
    )
    return torch.stack(torch.meshgrid(across, down, indexing="xy"), 2)
