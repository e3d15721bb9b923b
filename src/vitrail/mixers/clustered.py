"""Clustered attention: Vyas, Katharopoulos, Fleuret, "Fast Transformers with Clustered Attention",
NeurIPS 2020 (arXiv 2007.04825).

Queries that are alike are replaced by their mean, head by head; the mean attends to all keys, and
each query takes its cluster's answer (equations 3-6). The *improved* form asks again: of each
cluster's best keys, every member weighs for itself how to share what the cluster gave them
(equations 7-11). Clusters are found as in the paper: signs of random projections, then k-means on
these codes by Hamming distance (see :mod:`vitrail.tokens.hashing` for what is made deterministic).

Class tokens are queries of their own. Working tokens that stand for many count so often as keys,
and in their cluster's mean.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrail.layers.attend import attend, attention_weights, join_heads, split_heads
from vitrail.layers.grid import Grid
from vitrail.layers.plan import Plan
from vitrail.mixers.base import MixerSpec
from vitrail.mixers.prototype import broadcast_to_members
from vitrail.mixers.softmax import SoftmaxAttention, check_heads, key_bias
from vitrail.specs import Place
from vitrail.tokens.assignment import scatter_to_tokens, sum_by_cluster
from vitrail.tokens.hashing import HammingClusters


@dataclass(frozen=True, kw_only=True)
class Clustered(MixerSpec, name="clustered"):
    """Queries that are alike ask as one: at most ``clusters`` queries a head meet all keys.

    As many clusters as tokens is softmax attention. ``bits`` random projections make a query's
    code, ``steps`` of k-means on the codes its cluster.
    """

    clusters: int = 64
    bits: int = 31
    steps: int = 5

    def build(self, place: Place) -> "ClusteredAttention":
        """Serves every place whose heads divide its channels, without padding."""
        return self.build_between(place, place.dim, place.dim)

    def build_between(self, place: Place, in_dim: int, out_dim: int) -> "ClusteredAttention":
        """Its own projections change the width."""
        self.check(place)
        return ClusteredAttention(self, place, in_dim, out_dim)

    def check(self, place: Place) -> None:
        """Options that mean something.

        Raises:
            SpecError: they do not.
        """
        check_heads(self, place)
        if place.padded:
            raise self.refuse(
                place,
                "padding would move its clusters, so that pictures see their neighbours",
                "use mixer 'softmax', or a reducer with a fixed count, such as 'cluster'",
            )
        if self.clusters < 1 or self.bits < 1 or self.steps < 0:
            raise self.refuse(
                place, "an option is too small", "try clusters=64, bits=31 and steps=5"
            )

    def macs(self, place: Place, working: int | None = None) -> int:
        """Projections, finding the clusters, two products of cluster means with all keys."""
        tokens = place.tokens if working is None else working
        count = tokens - place.extra
        clusters, asked = min(self.clusters, count), place.extra + min(self.clusters, count)
        compared = (self.steps + 1) * count * clusters * self.bits * place.heads
        found = count * self.bits * place.dim + compared if clusters < count else 0
        return 4 * tokens * place.dim**2 + 2 * asked * tokens * place.dim + found


@dataclass(frozen=True, kw_only=True)
class ImprovedClustered(Clustered, name="improved_clustered"):
    """Clustered attention in which every query weighs its cluster's ``best`` keys for itself.

    What these keys got from the cluster together stays the same, the shares are the query's own;
    the other keys keep the cluster's weights. ``best`` as large as the keys is softmax attention.
    """

    best: int = 32

    def build_between(self, place: Place, in_dim: int, out_dim: int) -> "ImprovedAttention":
        """Its own projections change the width."""
        self.check(place)
        if self.best < 1:
            raise self.refuse(place, "no best keys are left", "try best=32, or 'clustered'")
        return ImprovedAttention(self, place, in_dim, out_dim)

    def macs(self, place: Place, working: int | None = None) -> int:
        """Likewise, and two products of each query with its best keys."""
        tokens = place.tokens if working is None else working
        again = 2 * (tokens - place.extra) * min(self.best, tokens) * place.dim
        return super().macs(place, working) + again


class ClusteredAttention(SoftmaxAttention):
    """Cluster means ask; each query takes its cluster's answer."""

    def __init__(self, spec: Clustered, place: Place, in_dim: int, out_dim: int) -> None:
        super().__init__(place.dim, place.heads, in_dim=in_dim, out_dim=out_dim)
        self.clusters = spec.clusters
        self.find = HammingClusters(place.dim // place.heads, spec.bits, spec.steps)

    def prototypes(self, q: Tensor, extra: int, plan: Plan | None) -> tuple[Tensor, Tensor]:
        """Class queries and cluster means ``(B, heads, E + K, d)``; the cluster of each query."""
        tokens = q[:, :, extra:].flatten(0, 1)
        count = min(self.clusters, tokens.shape[1])
        with torch.no_grad():
            assignment = self.find(tokens, count)
            sizes = tokens.new_ones(tokens.shape[:2]).unsqueeze(2)
            if plan is not None and not plan.single:
                many = plan.sizes[:, None, extra:].expand(-1, q.shape[1], -1)
                sizes = many.flatten(0, 1).to(q.dtype).unsqueeze(2)
            total = sum_by_cluster(sizes, assignment, count).clamp(min=1e-6)  # may be padding
            shares = sizes / scatter_to_tokens(total, assignment)
        means = sum_by_cluster(tokens * shares, assignment, count)
        return torch.cat((q[:, :, :extra], means.unflatten(0, q.shape[:2])), 2), assignment

    def forward(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Tensor:
        """See :class:`~vitrail.mixers.base.Mixer`."""
        q, k, v = (split_heads(t, self.heads) for t in self.qkv(x).chunk(3, 2))
        extra = x.shape[1] - grid[0] * grid[1] if plan is None else plan.extra
        asked, assignment = self.prototypes(q, extra, plan)
        answers = attend(asked, k, v, key_bias(plan, q))
        return self.proj(join_heads(broadcast_to_members(answers, assignment, extra)))

    def explain(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Mapping[str, Tensor]:
        """``attention`` ``(B, heads, K, K)``, a cluster's rows alike; ``values``; ``clusters``, by
        head.
        """
        q, k, v = (split_heads(t, self.heads) for t in self.qkv(x).chunk(3, 2))
        extra = x.shape[1] - grid[0] * grid[1] if plan is None else plan.extra
        asked, assignment = self.prototypes(q, extra, plan)
        weights = broadcast_to_members(
            attention_weights(asked, k, key_bias(plan, q)), assignment, extra
        )
        clusters = assignment.unflatten(0, q.shape[:2])
        return {"attention": weights, "values": v, "clusters": clusters}


class ImprovedAttention(ClusteredAttention):
    """Each query shares out anew what its cluster gave its best keys."""

    def __init__(self, spec: ImprovedClustered, place: Place, in_dim: int, out_dim: int) -> None:
        super().__init__(spec, place, in_dim, out_dim)
        self.best = spec.best

    def forward(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Tensor:
        """See :class:`~vitrail.mixers.base.Mixer`."""
        q, k, v = (split_heads(t, self.heads) for t in self.qkv(x).chunk(3, 2))
        extra = x.shape[1] - grid[0] * grid[1] if plan is None else plan.extra
        asked, assignment = self.prototypes(q, extra, plan)
        weights = attention_weights(asked, k, key_bias(plan, q))
        rest, mass, best = self.split(weights, extra)
        again = self.weigh(q[:, :, extra:], k, best, assignment, plan) * rows_of_members(
            mass, assignment
        )
        few_v = rows_of_members(gather_rows(v, best), assignment)
        shared_out = (again.unsqueeze(3) @ few_v).squeeze(3)
        answers = broadcast_to_members(rest @ v, assignment, extra)
        answers = torch.cat((answers[:, :, :extra], answers[:, :, extra:] + shared_out), 2)
        return self.proj(join_heads(answers))

    def split(self, weights: Tensor, extra: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of the clusters' weights ``(B, heads, E + K, N)``: all with zeros for each cluster's best
        keys, what these got together ``(B, heads, K, 1)``, and which they are ``(B, heads, K, T)``.
        """
        top = weights[:, :, extra:].topk(min(self.best, weights.shape[3]), 3)
        rest = weights[:, :, extra:].scatter(3, top.indices, 0.0)
        return torch.cat((weights[:, :, :extra], rest), 2), top.values.sum(3, True), top.indices

    def weigh(
        self, q: Tensor, k: Tensor, best: Tensor, assignment: Tensor, plan: Plan | None
    ) -> Tensor:
        """Each query's softmax over its cluster's best keys, ``(B, heads, N, T)``."""
        logits = (rows_of_members(gather_rows(k, best), assignment) @ q.unsqueeze(4)).squeeze(
            4
        ) * q.shape[3] ** -0.5
        counts = key_bias(plan, q)
        if counts is not None:
            every = counts.expand(*best.shape[:3], -1).gather(3, best)
            logits = logits + rows_of_members(every, assignment)
        return logits.softmax(3)

    def explain(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Mapping[str, Tensor]:
        """``attention`` ``(B, heads, K, K)``: rows sum to one; ``values``; ``clusters`` by head."""
        q, k, v = (split_heads(t, self.heads) for t in self.qkv(x).chunk(3, 2))
        extra = x.shape[1] - grid[0] * grid[1] if plan is None else plan.extra
        asked, assignment = self.prototypes(q, extra, plan)
        counts = key_bias(plan, q)
        whole = broadcast_to_members(attention_weights(asked, k, counts), assignment, extra)
        best = self.split(attention_weights(asked, k, counts), extra)[2]
        chosen = torch.zeros_like(whole[:, :, extra:], dtype=torch.bool)
        chosen = chosen.scatter(3, rows_of_members(best, assignment), True)
        mine = attention_weights(q[:, :, extra:], k, counts) * chosen
        mine = mine / mine.sum(3, True) * (whole[:, :, extra:] * chosen).sum(3, True)
        rows = torch.where(chosen, mine, whole[:, :, extra:])
        whole = torch.cat((whole[:, :, :extra], rows), 2)
        clusters = assignment.unflatten(0, q.shape[:2])
        return {"attention": whole, "values": v, "clusters": clusters}


def gather_rows(x: Tensor, index: Tensor) -> Tensor:
    """The rows of ``(B, heads, N, d)`` at ``(B, heads, K, T)`` -> ``(B, heads, K, T, d)``."""
    rows = index.flatten(2).unsqueeze(3).expand(-1, -1, -1, x.shape[3])
    return x.gather(2, rows).unflatten(2, index.shape[2:])


def rows_of_members(z: Tensor, assignment: Tensor) -> Tensor:
    """Every query its cluster's row: ``(B, heads, K, ...)`` -> ``(B, heads, N, ...)``."""
    rows = scatter_to_tokens(z.flatten(0, 1).flatten(2), assignment)
    return rows.unflatten(2, z.shape[3:]).unflatten(0, z.shape[:2])
