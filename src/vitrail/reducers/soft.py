"""Learned soft clusters: PaCa-ViT (Grainger et al., CVPR 2023, arXiv 2203.11987).

x -> depthwise 7x7 -> gelu -> 1x1 -> gelu -> 1x1 -> softmax over clusters -> shares (N x M)

What differs from the paper: there only keys and values are clustered and every token asks, so
nothing has to be carried back, and the softmax runs over tokens. Here the whole block works on
clusters, so each token's shares sum to one and are its way back as well; divided by a cluster's
size they are the paper's weights over tokens. Unlike every other reducer's, the choice is
differentiable: the convolutions learn from the loss. Untrained, it smears: a trained plain model
that is given it must be fine-tuned.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.grid import Grid, to_map, to_tokens
from vitrail.layers.plan import Plan
from vitrail.reducers.base import Norm, Reducer, ReducerSpec
from vitrail.specs import Place
from vitrail.tokens.plans import SoftAssignment

WINDOW = 7
"""Tokens along the depthwise kernel."""


@dataclass(frozen=True, kw_only=True)
class Paca(ReducerSpec, name="paca"):
    """Each token belongs to ``clusters`` learned clusters in shares (PaCa); these do the work.

    As many clusters whatever the grid (at most its tokens), so cost is linear in tokens. Sizes
    are what a cluster has of all tokens together.
    """

    clusters: int = 49

    def build(self, place: Place) -> "SoftClusters":
        """Serves every place."""
        if self.clusters < 1:
            raise self.refuse(place, "clusters must be at least 1", "try paca(clusters=49)")
        return SoftClusters(place.dim, self.clusters)

    def working(self, place: Place) -> int:
        """Class tokens and clusters."""
        return place.extra + min(self.clusters, place.grid[0] * place.grid[1])

    def macs(self, place: Place) -> int:
        """Shares, and the weighted means; the way back costs as much again as these."""
        tokens, dim = place.grid[0] * place.grid[1], place.dim
        logits = tokens * dim * (WINDOW**2 + dim + self.clusters)
        return logits + tokens * (self.working(place) - place.extra) * dim


class SoftClusters(Reducer):
    """Shares computed from the neighbourhood of each token."""

    def __init__(self, dim: int, clusters: int) -> None:
        super().__init__()
        self.clusters = clusters
        self.near = nn.Conv2d(dim, dim, WINDOW, padding=WINDOW // 2, groups=dim)
        self.mix = nn.Linear(dim, dim)
        self.tell = nn.Linear(dim, clusters)

    def forward(self, x: Tensor, grid: Grid, norm: Norm) -> tuple[Tensor, Plan]:
        """See :class:`~vitrail.reducers.base.Reducer`."""
        extra = x.shape[1] - grid[0] * grid[1]
        context = to_tokens(self.near(to_map(norm(x)[:, extra:], grid)))
        logits = self.tell(F.gelu(self.mix(F.gelu(context))))
        weights = logits[..., : min(self.clusters, grid[0] * grid[1])].softmax(2)
        plan = SoftAssignment(grid=grid, extra=extra, weights=weights)
        return plan.reduce(x), plan
