"""Sliding-window attention with global tokens: Longformer's pattern, on a grid.

Beltagy, Peters, Cohan, "Longformer", 2020 (arXiv 2004.05150), section 3.1; in two dimensions as in
Zhang et al., "Multi-Scale Vision Longformer", ICCV 2021 (arXiv 2103.15358). A row's neighbour is
next in line on a picture's flattened tokens, but a column's is a whole row away: so not a line
slides here but a square. Without their relative bias.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.attend import attend, attention_weights, join_heads, split_heads
from vitrail.layers.grid import Grid
from vitrail.layers.plan import Plan
from vitrail.layers.windows import Halo, attend_tiles, minus_infinity
from vitrail.mixers.base import MixerSpec
from vitrail.mixers.softmax import QkvAttention, check_grid, check_heads
from vitrail.specs import Place

FARTHEST = 32
"""A radius up to this one serves every grid, however small."""


@dataclass(frozen=True, kw_only=True)
class Sliding(MixerSpec, name="sliding"):
    """Longformer in two dimensions: each token sees the square around it, and global tokens.

    The square reaches ``radius`` tokens to each side. Class tokens are global: they see all and
    are seen by all. So are ``globals`` more, which belong to the mixer: each has a learned query
    that attends to all tokens first, and a projection of its own makes a key and a value of the
    result (Longformer's global tokens live on through the layers; these begin anew in each).
    """

    radius: int = 3
    globals: int = 1

    def build(self, place: Place) -> "SlidingAttention":
        """Serves tokens on a grid."""
        return self.build_between(place, place.dim, place.dim)

    def build_between(self, place: Place, in_dim: int, out_dim: int) -> "SlidingAttention":
        """Its own projections change the width."""
        check_heads(self, place)
        check_grid(self, place)
        if self.radius < 0 or self.globals < 0:
            raise self.refuse(place, "an option is negative", "try radius=3, globals=1")
        if self.radius > max(FARTHEST, *place.grid):
            raise self.refuse(place, "the radius is larger than the grid", "try radius=3")
        return SlidingAttention(self, place, in_dim, out_dim)

    def macs(self, place: Place, working: int | None = None) -> int:
        """Projections; two products of each tile's queries with its halo and the global tokens;
        those of class and learned tokens with all. A halo holds up to four times as many keys as
        one query sees: what is out of reach is computed, and hidden.
        """
        halo = Halo(place.grid, self.radius)
        inside = halo.tiling.places * (halo.area + place.extra + self.globals)
        to_all = (place.extra + self.globals) * place.tokens
        projections = (4 * place.tokens + 2 * self.globals) * place.dim**2
        return projections + 2 * (inside + to_all) * place.dim


class SlidingAttention(QkvAttention):
    """``ask`` ``(globals, C)`` holds the queries of the learned global tokens."""

    def __init__(self, spec: Sliding, place: Place, in_dim: int, out_dim: int) -> None:
        super().__init__(place.dim, place.heads, in_dim=in_dim, out_dim=out_dim)
        self.radius = spec.radius
        learned = torch.empty(spec.globals, place.dim)
        self.ask = nn.Parameter(nn.init.trunc_normal_(learned, std=0.02)) if spec.globals else None
        self.tell = nn.Linear(place.dim, 2 * place.dim) if spec.globals else None

    def forward(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Tensor:
        """See :class:`~vitrail.mixers.base.Mixer`."""
        q, k, v = self.project(x)
        extra, halo = x.shape[1] - grid[0] * grid[1], Halo(grid, self.radius)
        first = self.global_keys(k, v, extra)
        ours = halo.tiling.fold(q[:, :, extra:].flatten(0, 1)).unsqueeze(2)
        near_k, near_v = (
            prepend_global_tokens(
                f.flatten(0, 1), halo.fold(t[:, :, extra:].flatten(0, 1))
            ).unsqueeze(2)
            for f, t in zip(first, (k, v), strict=True)
        )
        bias = F.pad(halo.bias(q), (first[0].shape[2], 0))
        mixed = halo.tiling.unfold(attend_tiles(ours, near_k, near_v, bias).squeeze(2))
        mixed = join_heads(mixed.unflatten(0, q.shape[:2]))
        if extra:
            mixed = torch.cat((join_heads(attend(q[:, :, :extra], k, v)), mixed), 1)
        return self.proj(mixed)

    def global_keys(self, k: Tensor, v: Tensor, extra: int) -> tuple[Tensor, Tensor]:
        """Keys and values of global tokens: class tokens', then the learned ones'."""
        if self.ask is None or self.tell is None:
            return k[:, :, :extra], v[:, :, :extra]
        mixed = self.tell(join_heads(attend(self.global_queries(k), k, v)))
        more_k, more_v = (split_heads(t, self.heads) for t in mixed.chunk(2, 2))
        return torch.cat((k[:, :, :extra], more_k), 2), torch.cat((v[:, :, :extra], more_v), 2)

    def global_queries(self, like: Tensor) -> Tensor:
        """The learned queries for every image, ``(B, heads, globals, d)``."""
        assert self.ask is not None
        ask = split_heads(self.ask.unsqueeze(0), self.heads).to(like.dtype)
        return ask.expand(like.shape[0], -1, -1, -1)

    def explain(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Mapping[str, Tensor]:
        """``attention`` ``(B, heads, N, N + G)``, learned global tokens last; ``values``; the
        learned tokens' own ``global_attention`` ``(B, heads, G, N)``; ``sources`` of all values.
        Rows sum to one.
        """
        q, k, v = self.project(x)
        tokens, extra = x.shape[1], x.shape[1] - grid[0] * grid[1]
        learned_k, learned_v = self.global_keys(k, v, 0)
        rows, columns = (
            t.flatten()
            for t in torch.meshgrid(
                *(torch.arange(side, device=x.device) for side in grid), indexing="ij"
            )
        )
        far = (
            torch.maximum((rows[:, None] - rows).abs(), (columns[:, None] - columns).abs())
            > self.radius
        )
        hidden = F.pad(far, (extra, learned_k.shape[2], extra, 0))
        hidden[:extra, tokens:] = True
        bias = minus_infinity(hidden, q)
        weights = attention_weights(q, torch.cat((k, learned_k), 2), bias)
        parts = {"attention": weights, "values": torch.cat((v, learned_v), 2)}
        if self.ask is None:
            return parts
        weights = attention_weights(self.global_queries(k), k)
        identity = torch.eye(tokens).to(weights).expand(*weights.shape[:2], -1, -1)
        return parts | {"global_attention": weights, "sources": torch.cat((identity, weights), 2)}


def prepend_global_tokens(first: Tensor, tiles: Tensor) -> Tensor:
    """Global tokens ``(B, G, d)`` in front of every tile's ``(B, tiles, n, d)``."""
    return torch.cat((first.unsqueeze(1).expand(-1, tiles.shape[1], -1, -1), tiles), 2)
