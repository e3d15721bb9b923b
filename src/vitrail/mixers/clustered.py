"""Clustered attention: Vyas, Katharopoulos, Fleuret, "Fast Transformers with Clustered Attention",
NeurIPS 2020 (arXiv 2007.04825).

Queries that are alike are replaced by their mean, head by head; the mean attends to all keys, and
each query takes the result of its cluster (equations 3-6). In the *improved* form every query then
weighs its cluster's best keys for itself: the weight that these keys have together is the
cluster's, its division among them is the query's own (equations 7-11). Clusters are found as in
the paper: signs of random projections, then k-means on these codes by Hamming distance (see
:mod:`vitrail.tokens.hashing` for what is made deterministic).

Class tokens are queries of their own. A working token that stands for n tokens counts n times as a
key, and in the mean of its cluster.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrail.layers.attend import attend, attention_weights, join_heads
from vitrail.layers.grid import Grid
from vitrail.layers.plan import Plan
from vitrail.mixers.base import MixerSpec, count_class_tokens
from vitrail.mixers.prototype import broadcast_to_members
from vitrail.mixers.softmax import QkvAttention, check_heads, key_bias
from vitrail.specs import Place
from vitrail.tokens.assignment import scatter_to_tokens, sum_by_cluster
from vitrail.tokens.hashing import HammingClusters


@dataclass(frozen=True, kw_only=True)
class QueryClustering(MixerSpec):
    """What both forms have in common: how clusters of queries are found.

    At most ``clusters`` a head. ``bits`` random projections make a query's code, ``steps`` of
    k-means on the codes its cluster.
    """

    clusters: int = 64
    bits: int = 31
    steps: int = 5

    def build(self, place: Place) -> "ClusteredAttention | ImprovedClusteredAttention":
        """Serves every place whose heads divide its channels, without padding."""
        return self.build_between(place, place.dim, place.dim)

    @abstractmethod
    def build_between(
        self, place: Place, in_dim: int, out_dim: int
    ) -> "ClusteredAttention | ImprovedClusteredAttention":
        """Its own projections change the width."""

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

    def find(self, place: Place) -> HammingClusters:
        """The module that assigns the queries of one head to clusters."""
        return HammingClusters(place.dim // place.heads, self.bits, self.steps)

    def macs(self, place: Place, working: int | None = None) -> int:
        """Projections, finding the clusters, two products of cluster means with all keys."""
        tokens = place.tokens if working is None else working
        count = tokens - place.extra
        clusters = min(self.clusters, count)
        compared = (self.steps + 1) * count * clusters * self.bits * place.heads
        found = count * self.bits * place.dim + compared if clusters < count else 0
        products = 2 * (place.extra + clusters) * tokens * place.dim
        return 4 * tokens * place.dim**2 + products + found


@dataclass(frozen=True, kw_only=True)
class Clustered(QueryClustering, name="clustered"):
    """Queries that are alike ask as one: at most ``clusters`` queries a head meet all keys.

    As many clusters as tokens is softmax attention. ``bits`` random projections make a query's
    code, ``steps`` of k-means on the codes its cluster.
    """

    def build_between(self, place: Place, in_dim: int, out_dim: int) -> "ClusteredAttention":
        """Its own projections change the width."""
        self.check(place)
        return ClusteredAttention(self, place, in_dim, out_dim)


@dataclass(frozen=True, kw_only=True)
class ImprovedClustered(QueryClustering, name="improved_clustered"):
    """Clustered attention in which every query weighs its cluster's ``best`` keys for itself.

    The weight that these keys have together stays the cluster's, each key's share of it is the
    query's own; the other keys keep the cluster's weights. ``best`` as large as the keys is
    softmax attention.
    """

    best: int = 32

    def build_between(
        self, place: Place, in_dim: int, out_dim: int
    ) -> "ImprovedClusteredAttention":
        """Its own projections change the width."""
        self.check(place)
        if self.best < 1:
            raise self.refuse(place, "no best keys are left", "try best=32, or 'clustered'")
        return ImprovedClusteredAttention(self, place, in_dim, out_dim)

    def macs(self, place: Place, working: int | None = None) -> int:
        """As the plain form, and two products of each query with its best keys."""
        tokens = place.tokens if working is None else working
        products = 2 * (tokens - place.extra) * min(self.best, tokens) * place.dim
        return super().macs(place, working) + products


class ClusteredAttention(QkvAttention):
    """Cluster means attend to all keys; each query takes the result of its cluster."""

    def __init__(self, spec: Clustered, place: Place, in_dim: int, out_dim: int) -> None:
        super().__init__(place.dim, place.heads, in_dim=in_dim, out_dim=out_dim)
        self.clusters, self.find = spec.clusters, spec.find(place)

    def forward(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Tensor:
        """See :class:`~vitrail.mixers.base.Mixer`."""
        (q, k, v), extra = self.project(x), count_class_tokens(x, grid, plan)
        queries, assignment = cluster_queries(self, q, extra, plan)
        mixed = attend(queries, k, v, key_bias(plan, q))
        return self.proj(join_heads(broadcast_to_members(mixed, assignment, extra)))

    def explain(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Mapping[str, Tensor]:
        """``attention`` ``(B, heads, K, K)``, equal rows for a cluster; ``values``; ``clusters``
        by head.
        """
        (q, k, v), extra = self.project(x), count_class_tokens(x, grid, plan)
        queries, assignment = cluster_queries(self, q, extra, plan)
        weights = attention_weights(queries, k, key_bias(plan, q))
        return {
            "attention": broadcast_to_members(weights, assignment, extra),
            "values": v,
            "clusters": assignment.unflatten(0, q.shape[:2]),
        }


class ImprovedClusteredAttention(QkvAttention):
    """Each query divides anew the weight that its cluster gave its best keys."""

    def __init__(self, spec: ImprovedClustered, place: Place, in_dim: int, out_dim: int) -> None:
        super().__init__(place.dim, place.heads, in_dim=in_dim, out_dim=out_dim)
        self.clusters, self.find = spec.clusters, spec.find(place)
        self.best = spec.best

    def forward(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Tensor:
        """See :class:`~vitrail.mixers.base.Mixer`."""
        (q, k, v), extra = self.project(x), count_class_tokens(x, grid, plan)
        queries, assignment = cluster_queries(self, q, extra, plan)
        weights = attention_weights(queries, k, key_bias(plan, q))
        rest, mass, best = self.split(weights, extra)
        own = self.weigh_best(q[:, :, extra:], k, best, assignment, plan)
        own = own * gather_clusters(mass, assignment)
        best_v = gather_clusters(gather_keys(v, best), assignment)
        from_best = (own.unsqueeze(3) @ best_v).squeeze(3)
        mixed = broadcast_to_members(rest @ v, assignment, extra)
        mixed = torch.cat((mixed[:, :, :extra], mixed[:, :, extra:] + from_best), 2)
        return self.proj(join_heads(mixed))

    def split(self, weights: Tensor, extra: int) -> tuple[Tensor, Tensor, Tensor]:
        """Set the best keys of each cluster apart; weights are ``(B, heads, E + K, N)``.

        Returns:
            The weights with zeros for each cluster's best keys; the sum of what these had
            ``(B, heads, K, 1)``; which keys they are ``(B, heads, K, T)``.
        """
        top = weights[:, :, extra:].topk(min(self.best, weights.shape[3]), 3)
        rest = weights[:, :, extra:].scatter(3, top.indices, 0.0)
        return torch.cat((weights[:, :, :extra], rest), 2), top.values.sum(3, True), top.indices

    def weigh_best(
        self, q: Tensor, k: Tensor, best: Tensor, assignment: Tensor, plan: Plan | None
    ) -> Tensor:
        """Each query's softmax over its cluster's best keys, ``(B, heads, N, T)``."""
        best_k = gather_clusters(gather_keys(k, best), assignment)
        logits = (best_k @ q.unsqueeze(4)).squeeze(4) * q.shape[3] ** -0.5
        bias = key_bias(plan, q)
        if bias is not None:
            best_bias = bias.expand(*best.shape[:3], -1).gather(3, best)
            logits = logits + gather_clusters(best_bias, assignment)
        return logits.softmax(3)

    def explain(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Mapping[str, Tensor]:
        """``attention`` ``(B, heads, K, K)``: rows sum to one; ``values``; ``clusters`` by head."""
        (q, k, v), extra = self.project(x), count_class_tokens(x, grid, plan)
        queries, assignment = cluster_queries(self, q, extra, plan)
        bias = key_bias(plan, q)
        by_cluster = attention_weights(queries, k, bias)
        whole = broadcast_to_members(by_cluster, assignment, extra)
        best = self.split(by_cluster, extra)[2]
        is_best = torch.zeros_like(whole[:, :, extra:], dtype=torch.bool)
        is_best = is_best.scatter(3, gather_clusters(best, assignment), True)
        own = attention_weights(q[:, :, extra:], k, bias) * is_best
        own = own / own.sum(3, True) * (whole[:, :, extra:] * is_best).sum(3, True)
        rows = torch.where(is_best, own, whole[:, :, extra:])
        return {
            "attention": torch.cat((whole[:, :, :extra], rows), 2),
            "values": v,
            "clusters": assignment.unflatten(0, q.shape[:2]),
        }


def cluster_queries(
    mixer: ClusteredAttention | ImprovedClusteredAttention,
    q: Tensor,
    extra: int,
    plan: Plan | None,
) -> tuple[Tensor, Tensor]:
    """Class queries and cluster means ``(B, heads, E + K, d)``; the cluster of each query.

    The assignment is ``(B * heads, N)``; finding it takes no gradient, the means do.
    """
    tokens = q[:, :, extra:].flatten(0, 1)
    count = min(mixer.clusters, tokens.shape[1])
    with torch.no_grad():
        assignment = mixer.find(tokens, count)
        sizes = tokens.new_ones(tokens.shape[:2]).unsqueeze(2)
        if plan is not None and not plan.single:
            by_head = plan.sizes[:, None, extra:].expand(-1, q.shape[1], -1)
            sizes = by_head.flatten(0, 1).to(q.dtype).unsqueeze(2)
        total = sum_by_cluster(sizes, assignment, count).clamp(min=1e-6)  # may be padding
        shares = sizes / scatter_to_tokens(total, assignment)
    means = sum_by_cluster(tokens * shares, assignment, count)
    return torch.cat((q[:, :, :extra], means.unflatten(0, q.shape[:2])), 2), assignment


def gather_keys(x: Tensor, index: Tensor) -> Tensor:
    """The rows of ``(B, heads, N, d)`` at ``(B, heads, K, T)`` -> ``(B, heads, K, T, d)``."""
    rows = index.flatten(2).unsqueeze(3).expand(-1, -1, -1, x.shape[3])
    return x.gather(2, rows).unflatten(2, index.shape[2:])


def gather_clusters(z: Tensor, assignment: Tensor) -> Tensor:
    """For each query the row of its cluster, ``(B, heads, K, ...)`` -> ``(B, heads, N, ...)``."""
    rows = scatter_to_tokens(z.flatten(0, 1).flatten(2), assignment)
    return rows.unflatten(2, z.shape[3:]).unflatten(0, z.shape[:2])
