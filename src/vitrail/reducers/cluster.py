"""Cluster tokens into prototypes that do the block's work: Clustering CoaT's saving reading (TB).

ACT (Zheng et al., BMVC 2021) clusters queries; here whole tokens are clustered, so that
projections and feed-forward shrink too (reference page "CoaT, clustered attention", C3).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitrail.layers.grid import Grid, cells
from vitrail.layers.plan import Plan
from vitrail.reducers.base import Norm, Reducer, ReducerSpec
from vitrail.specs import Place
from vitrail.tokens.assignment import count_members
from vitrail.tokens.clusterers import (
    Clusterer,
    HashClusterer,
    KMeansClusterer,
    SortClusterer,
    WindowClusterer,
    cell_of,
    window_products,
)
from vitrail.tokens.plans import Clusters


@dataclass(frozen=True, kw_only=True)
class Cluster(ReducerSpec, name="cluster"):
    """Similar tokens share one prototype, their mean, for attention and feed-forward.

    One cluster for ``ratio`` tokens; class tokens stay out. ``by``: ``"window"`` joins the most
    similar destination of a window, one destination a cell of 1x2, 1x3, 2x2, 2x3, ... (the
    default: local, static, deterministic); ``"kmeans"`` runs ``steps`` Lloyd iterations over the
    whole grid (a ceiling of quality, quadratic); ``"sort"`` cuts equal runs along one random
    projection (fastest, weakest); ``"e2lsh"`` is ACT's hash of ``rounds`` digits of ``width``: as
    many clusters as the picture has codes, for study only, for it promises no cost and does not
    compile.
    """

    ratio: int = 4
    by: str = "window"
    steps: int = 5
    rounds: int = 16
    width: float = 8.0

    @property
    def static(self) -> bool:
        """All but the hash."""
        return self.by != "e2lsh"

    @property
    def tokens_per_cluster(self) -> float:
        """One cluster for ``ratio`` tokens."""
        return self.ratio

    @property
    def cell(self) -> Grid:
        """Height and width of a cell, which has one cluster."""
        return cell_of(self.ratio)

    def build(self, place: Place) -> "TokenClusters":
        """Serves every place."""
        return TokenClusters(self.finder(place))

    def finder(self, place: Place) -> Clusterer:
        """The module that finds the clusters.

        Raises:
            SpecError: options without meaning.
        """
        if not isinstance(self.ratio, int) or self.ratio < 1:
            raise self.refuse(
                place, "ratio must be a whole number of at least 1", "try cluster(ratio=4)"
            )
        if self.by == "window":
            return WindowClusterer(self.cell)
        if self.by == "kmeans" and self.steps > 0:
            return KMeansClusterer(self.cell, self.steps)
        if self.by == "sort":
            return SortClusterer(place.dim, self.ratio)
        if self.by == "e2lsh" and self.rounds > 0 and self.width > 0:
            return HashClusterer(place.dim, self.rounds, self.width)
        raise self.refuse(
            place,
            "the options do not fit",
            "by is 'window', 'kmeans' (steps > 0), 'sort' or 'e2lsh' (rounds and width > 0)",
        )

    def working(self, place: Place) -> int:
        """Class tokens, and one prototype a cell or run (``e2lsh``: at most all tokens)."""
        tokens = place.grid[0] * place.grid[1]
        height, width = cells(place.grid, self.cell)
        counts = {"sort": max(1, tokens // self.ratio), "e2lsh": tokens}
        return place.extra + counts.get(self.by, height * width)

    def macs(self, place: Place) -> int:
        """Comparing tokens; means and copies are no multiply-adds."""
        tokens = place.grid[0] * place.grid[1]
        compared = {
            "window": lambda: window_products(place.grid, self.cell),
            "kmeans": lambda: self.steps * tokens * (self.working(place) - place.extra),
            "sort": lambda: tokens,
            "e2lsh": lambda: tokens * self.rounds,
        }
        return compared[self.by]() * place.dim


class TokenClusters(Reducer):
    """Means of clusters found in what the mixer would see, without gradient."""

    def __init__(self, find: Clusterer) -> None:
        super().__init__()
        self.find = find

    def forward(self, x: Tensor, grid: Grid, norm: Norm) -> tuple[Tensor, Plan]:
        """See :class:`~vitrail.reducers.base.Reducer`."""
        extra = x.shape[1] - grid[0] * grid[1]
        with torch.no_grad():
            assignment, clusters = self.find(norm(x)[:, extra:], grid)
            counts = count_members(assignment, clusters)
        plan = Clusters(
            grid=grid, extra=extra, cluster_of=assignment, clusters=clusters, counts=counts
        )
        return plan.reduce(x), plan
