"""Clustering CoaT's attention, as its design note says it and as CoaT's weights allow it.

The note ("Transformer 기반의 Clustering CoaT 모델 설계": Bang, Park, Jung, Sim) puts the Adaptive
Clustering of ACT (Zheng et al., BMVC 2021, arXiv 2011.09315) into CoaT's conv-attention: queries
that are alike are replaced by their mean, the *prototype*. It leaves the order of the products
open, so there are two readings, and neither saves work: CoaT's attention core is 1-2 % of a
block. The reading that saves is a reducer, ``cluster``.

ACT's hash is used with its defects mended: planes drawn once and kept, offsets over the whole
bucket width, digits mixed so that none spills into the next.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrail.layers.attend import (
    attend,
    join_heads,
    project,
    softmax_over_tokens,
    split_heads,
    summarise_values,
)
from vitrail.layers.grid import Grid, cells
from vitrail.layers.plan import Plan
from vitrail.layers.position import ConvRelative
from vitrail.mixers.base import Mixer, MixerSpec, count_class_tokens
from vitrail.mixers.conv_attention import ConvAttention, add_position, relative_macs
from vitrail.mixers.softmax import check_heads
from vitrail.specs import Place
from vitrail.tokens.assignment import count_members, scatter_to_tokens, sum_by_cluster
from vitrail.tokens.clusterers import (
    Clusterer,
    HashClusterer,
    SortClusterer,
    WindowClusterer,
    window_products,
)

Core = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values ``(B, heads, ., d)`` -> what the queries get."""


@dataclass(frozen=True, kw_only=True)
class Prototype(MixerSpec):
    """What both readings have in common: how prototypes are found, and CoaT's convolutions."""

    by: str = "e2lsh"
    rounds: int = 32
    width: float = 8.0
    ratio: int = 4

    @abstractmethod
    def build(self, place: Place) -> "PrototypeAttention":
        """Serves tokens on a grid."""

    def build_shared(self, place: Place) -> ConvRelative:
        """CoaT's convolutions."""
        return ConvAttention().build_shared(place)

    def clusterer(self, place: Place) -> Clusterer:
        """The module that assigns the queries of one head to clusters.

        Raises:
            SpecError: tokens have left the grid, or an option has no meaning.
        """
        check_heads(self, place)
        if place.scattered:
            raise self.refuse(
                place,
                "its tokens are already chosen",
                "use mixer 'conv_attention' or 'softmax' with a reducer",
            )
        head = place.dim // place.heads
        side = round(self.ratio**0.5)
        if self.by == "e2lsh" and self.rounds > 0 and self.width > 0:
            return HashClusterer(head, self.rounds, self.width)
        if self.by == "sort" and self.ratio > 0:
            return SortClusterer(head, self.ratio)
        if self.by == "window" and side * side == self.ratio:
            return WindowClusterer((side, side))
        raise self.refuse(
            place,
            "the options do not fit",
            "by is 'e2lsh' (rounds, width > 0), 'sort' (ratio > 0) or 'window' (ratio 1, 4, ...)",
        )

    def query_count(self, place: Place) -> int:
        """Queries that meet the keys, the class token's included."""
        grid = place.grid[0] * place.grid[1]
        real = cells(place.grid, round(self.ratio**0.5))
        counts = {"e2lsh": grid, "sort": max(1, grid // self.ratio), "window": real[0] * real[1]}
        return place.extra + counts[self.by]

    def other_macs(self, place: Place) -> int:
        """Multiply-adds of projections, convolutions, and comparing queries to find clusters."""
        tokens = place.grid[0] * place.grid[1]
        side = round(self.ratio**0.5)
        products = {
            "window": lambda: window_products(place.grid, (side, side)),
            "e2lsh": lambda: tokens * self.rounds,
            "sort": lambda: tokens,
        }
        projections = 4 * place.tokens * place.dim**2
        return projections + relative_macs(ConvAttention(), place) + place.dim * products[self.by]()


@dataclass(frozen=True, kw_only=True)
class PrototypeConv(Prototype, name="prototype_conv"):
    """Clustering CoaT, reading QF: conv-attention whose queries are cluster means.

    Loads CoaT's weights. Since attention is linear in q here, it *is* CoaT's attention averaged
    over each cluster: a smoother, and dearer than what it replaces by the hash.

    ``by``: ``"e2lsh"`` (ACT's hash, ``rounds`` digits of ``width``; how many clusters depends on
    the picture, so it neither compiles to one graph nor exports), ``"sort"`` (equal runs along
    one projection) or ``"window"`` (most similar destination of a window); the last two make one
    cluster for ``ratio`` tokens.
    """

    def build(self, place: Place) -> "PrototypeAttention":
        """Serves tokens on a grid."""
        return PrototypeAttention(place, self.clusterer(place), attend_linear)

    def macs(self, place: Place, working: int | None = None) -> int:
        """An upper bound for ``e2lsh``, where it is reached if no two queries meet."""
        head = place.dim // place.heads
        return self.other_macs(place) + (place.tokens + self.query_count(place)) * place.dim * head


@dataclass(frozen=True, kw_only=True)
class PrototypeSoftmax(Prototype, name="prototype_softmax"):
    """Clustering CoaT, reading QS (its literal text): prototypes attend to all keys by softmax.

    ``O_i = softmax_keys(p_g(i) k^T / sqrt(d)) v``, ``y = proj(O + q * DWConv(v))``. Another
    attention than CoaT's: its weights fit in shape, not in meaning; train from scratch. The core
    costs ``clusters / d`` times the factorised one. Options as ``prototype_conv``.
    """

    def build(self, place: Place) -> "PrototypeAttention":
        """Serves tokens on a grid."""
        return PrototypeAttention(place, self.clusterer(place), attend)

    def macs(self, place: Place, working: int | None = None) -> int:
        """An upper bound for ``e2lsh``, where it is reached if no two queries meet."""
        return self.other_macs(place) + 2 * self.query_count(place) * place.tokens * place.dim


def attend_linear(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """CoaT's order: ``q (softmax_tokens(k)^T v)``; all ``(B, heads, ., d)``."""
    return q @ summarise_values(*softmax_over_tokens(join_heads(k)), join_heads(v), k.shape[1])


class PrototypeAttention(Mixer):
    """Prototypes meet the keys, head by head; each token takes the result of its prototype.

    ``core`` says how they meet: :func:`attend_linear` or softmax.
    """

    def __init__(self, place: Place, find: Clusterer, core: Core) -> None:
        super().__init__()
        self.heads = place.heads
        self.qkv = nn.Linear(place.dim, 3 * place.dim)
        self.proj = nn.Linear(place.dim, place.dim)
        self.find = find
        self.core = core

    def forward(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Tensor:
        """See :class:`~vitrail.mixers.base.Mixer`; ``shared`` is the stage's convolutions."""
        assert shared is not None
        (q, k, v), extra = project(self.qkv, x), count_class_tokens(x, grid)
        queries, assignment = self.cluster_queries(split_heads(q, self.heads), extra, grid)
        mixed = self.core(queries, split_heads(k, self.heads), split_heads(v, self.heads))
        content = join_heads(broadcast_to_members(mixed, assignment, extra))
        return self.proj(add_position(content, q, v, grid, shared, plan))

    def cluster_queries(self, q: Tensor, extra: int, grid: Grid) -> tuple[Tensor, Tensor]:
        """Class queries and cluster means ``(B, heads, E + C, d)``; the cluster of each query.

        The assignment is ``(B * heads, N)``; finding it takes no gradient, the means do.
        """
        tokens = q[:, :, extra:].flatten(0, 1)
        with torch.no_grad():
            assignment, count = self.find(tokens * q.shape[-1] ** -0.5, grid)
            members = count_members(assignment, count).clamp(min=1).unsqueeze(2).to(q.dtype)
        means = sum_by_cluster(tokens, assignment, count) / members
        return torch.cat((q[:, :, :extra], means.view(*q.shape[:2], count, -1)), 2), assignment

    def explain(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> dict[str, Tensor]:
        """``clusters`` ``(B, heads, N)``: which prototype each query joined."""
        q = split_heads(project(self.qkv, x)[0], self.heads)
        assignment = self.cluster_queries(q, count_class_tokens(x, grid), grid)[1]
        return {"clusters": assignment.view(*q.shape[:2], -1)}


def broadcast_to_members(x: Tensor, assignment: Tensor, extra: int) -> Tensor:
    """Every token gets its cluster's row: ``(B, heads, E + C, d)`` -> ``(B, heads, E + N, d)``."""
    rows = scatter_to_tokens(x[:, :, extra:].flatten(0, 1), assignment)
    return torch.cat((x[:, :, :extra], rows.unflatten(0, x.shape[:2])), 2)
