"""How many tokens work depends on the picture, within a small menu.

picture -> windowed clusters at each ratio of the menu -> the coarsest that loses little enough

This project's own (reference page "CoaT, clustered attention", C10). Every ratio of the menu has
a size known from the grid, so there are only as many shapes as ratios.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vitrail.layers.grid import Grid, cells
from vitrail.layers.plan import Plan
from vitrail.reducers.base import Norm, Reducer, ReducerSpec
from vitrail.specs import Place
from vitrail.tokens.assignment import assign_to_destinations, count_members, scatter_to_tokens
from vitrail.tokens.clusterers import window_of, window_products
from vitrail.tokens.plans import Clusters, means


@dataclass(frozen=True, kw_only=True)
class Budget(ReducerSpec, name="budget"):
    """Each picture picks its number of clusters from a menu, at every block by what it shows.

    ``menu`` holds ratios of ``cluster(by='window')``, fine to coarse. A picture takes the coarsest
    whose clusters lose at most the share ``max_variance_loss`` of the variance between its tokens,
    or else the first. Pictures of one batch that take fewer are padded with empty clusters, which
    no mixer attends to: a picture's result does not depend on the others of its batch, only the
    cost does. One picture at a time saves most. Compiled and exported it gives the same results,
    but at the cost of the finest ratio, to which all are padded there, for shapes to be static.
    """

    menu: tuple[int, ...] = (4, 16)
    max_variance_loss: float = 0.25
    old_options: ClassVar[Mapping[str, str]] = {"lost": "max_variance_loss"}

    @property
    def static(self) -> bool:
        """No: outside of a graph the count depends on the pictures."""
        return False

    @property
    def sides(self) -> tuple[int, ...]:
        """Tokens along a cell, for each ratio."""
        return tuple(round(ratio**0.5) for ratio in self.menu)

    def build(self, place: Place) -> "BudgetClusters":
        """Serves every place."""
        squares = tuple(side**2 for side in self.sides)
        if not squares or squares != tuple(self.menu) or list(squares) != sorted(set(squares)):
            raise self.refuse(place, "menu holds rising square numbers", "try budget(menu=(4, 16))")
        if not 0 <= self.max_variance_loss <= 1:
            raise self.refuse(
                place,
                "max_variance_loss is a share, from 0 to 1",
                "try budget(max_variance_loss=0.25)",
            )
        return BudgetClusters(self.sides, self.max_variance_loss)

    def working(self, place: Place) -> int:
        """At most: class tokens, and the clusters of the finest ratio."""
        height, width = cells(place.grid, self.sides[0])
        return place.extra + height * width

    def macs(self, place: Place) -> int:
        """Comparing tokens once for each ratio."""
        return sum(window_products(place.grid, (side, side)) for side in self.sides) * place.dim


class BudgetClusters(Reducer):
    """Clusters at every ratio; of these each picture's own choice."""

    follows_content = True
    """As :attr:`vitrail.tokens.clusterers.HashClusterer.follows_content`."""

    def __init__(self, sides: tuple[int, ...], max_variance_loss: float) -> None:
        super().__init__()
        self.sides, self.max_variance_loss = sides, max_variance_loss

    def forward(self, x: Tensor, grid: Grid, norm: Norm) -> tuple[Tensor, Plan]:
        """See :class:`~vitrail.reducers.base.Reducer`."""
        extra = x.shape[1] - grid[0] * grid[1]
        with torch.no_grad():
            assignment, clusters = self.choose(norm(x)[:, extra:], grid)
            counts = count_members(assignment, clusters)
        plan = Clusters(
            grid=grid, extra=extra, cluster_of=assignment, clusters=clusters, counts=counts
        )
        return plan.reduce(x), plan

    def choose(self, features: Tensor, grid: Grid) -> tuple[Tensor, int]:
        """``(B, N, D)`` -> assignment ``(B, N)`` as each picture chose, and the largest count."""
        squares = [(side, side) for side in self.sides]
        options = [assign_to_destinations(features, grid, s, window_of(grid, s)) for s in squares]
        counts = [height * width for height, width in (cells(grid, s) for s in squares)]
        losses = [variance_loss(features, o, c) for o, c in zip(options, counts, strict=True)]
        choice = coarsest(torch.stack(losses, 1) <= self.max_variance_loss)
        picked = choice.view(-1, 1, 1).expand(-1, 1, features.shape[1])
        assignment = torch.stack(options, 1).gather(1, picked).squeeze(1)
        if torch.compiler.is_compiling() or features.is_meta:
            return assignment, counts[0]
        return assignment, counts[int(choice.min())]


def variance_loss(x: Tensor, assignment: Tensor, clusters: int) -> Tensor:
    """The share of the tokens' variance that goes when each becomes its cluster's mean, ``(B,)``.

    Nothing is lost of a picture without variance.
    """
    x = x.float()
    approximation = scatter_to_tokens(
        means(x, assignment, count_members(assignment, clusters)), assignment
    )
    error = (x - approximation).square().sum((1, 2))
    variance = (x - x.mean(1, keepdim=True)).square().sum((1, 2))
    return error / variance.clamp(min=torch.finfo(x.dtype).tiny)


def coarsest(fits: Tensor) -> Tensor:
    """The number of the last that fits, or else of the first: ``(B, M)`` bool -> ``(B,)``."""
    rank = torch.arange(fits.shape[1], device=fits.device)
    return (fits * rank).amax(1)
