"""The plans of reducers: how working tokens and full tokens belong together.

:class:`~vitrail.layers.plan.Plan` is the contract; here stand one token a cluster
(:class:`Clusters`), shares in all clusters (:class:`SoftAssignment`) and cells of the grid
(:class:`GridPooling`). Places chosen one by one: :mod:`vitrail.tokens.selection`.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.layers.grid import Grid, cells, to_map, to_tokens
from vitrail.layers.plan import Plan
from vitrail.tokens.assignment import (
    assign_to_cells,
    count_members,
    scatter_to_tokens,
    sum_by_cluster,
)


@dataclass(frozen=True)
class Clusters(Plan):
    """Every grid token belongs to one cluster; a cluster's token is the mean of its members.

    Attributes:
        cluster_of: ``(B, H * W)`` int, the cluster of each grid token, in ``[0, clusters)``.
        clusters: how many clusters an image has.
        counts: ``(B, clusters)`` float, members of each. A zero marks the padding that
            data-dependent clustering needs inside a batch; static reducers never make one.
    """

    cluster_of: Tensor
    clusters: int
    counts: Tensor

    @property
    def exact(self) -> bool:
        return True

    @property
    def sizes(self) -> Tensor:
        ones = self.counts.new_ones(self.counts.shape[0], self.extra)
        return torch.cat((ones, self.counts), 1)

    @property
    def cluster_of_all(self) -> Tensor:
        """``(B, N)``: clusters of all tokens; class tokens in front are clusters of their own.

        One gather then serves the whole sequence: nothing is cut apart and joined again.
        """
        images = self.cluster_of.shape[0]
        ahead = torch.arange(self.extra, device=self.cluster_of.device).expand(images, -1)
        return torch.cat((ahead, self.cluster_of + self.extra), 1)

    def reduce(self, x: Tensor) -> Tensor:
        return means(x, self.cluster_of_all, self.sizes)

    def restore(self, update: Tensor) -> Tensor:
        return scatter_to_tokens(update, self.cluster_of_all)

    def reduce_grid(self, x: Tensor) -> Tensor:
        return means(x, self.cluster_of, self.counts)

    def restore_grid(self, update: Tensor) -> Tensor:
        return scatter_to_tokens(update, self.cluster_of)

    @property
    def assignment(self) -> Tensor:
        return self.cluster_of


def means(x: Tensor, assignment: Tensor, sizes: Tensor) -> Tensor:
    """Mean of each cluster's members, ``(B, N, E)`` -> ``(B, K, E)``; zero where there is none."""
    summed = sum_by_cluster(x, assignment, sizes.shape[1])
    return summed / sizes.clamp(min=1).to(summed.dtype).unsqueeze(2)


@dataclass(frozen=True)
class SoftAssignment(Plan):
    """Every grid token belongs to all clusters, in shares that sum to one.

    A cluster's token is the mean of the grid's tokens, weighted by their shares in the cluster;
    the update of a token is the mean of the clusters' updates, weighted by its shares. A constant
    is preserved and sizes sum to N, but ``restore(reduce(x))`` is a smoothed ``x``, even with as
    many clusters as tokens.

    Attributes:
        weights: ``(B, H * W, K - extra)``, not below zero; rows sum to one.
    """

    weights: Tensor

    @property
    def sizes(self) -> Tensor:
        """``(B, K)``: the sum of all shares in each cluster, a real number."""
        mass = self.weights.sum(1, dtype=torch.promote_types(self.weights.dtype, torch.float32))
        return torch.cat((mass.new_ones(mass.shape[0], self.extra), mass), 1)

    def reduce(self, x: Tensor) -> Tensor:
        return torch.cat((x[:, : self.extra], self.reduce_grid(x[:, self.extra :])), 1)

    def restore(self, update: Tensor) -> Tensor:
        spread = self.restore_grid(update[:, self.extra :])
        return torch.cat((update[:, : self.extra], spread), 1)

    def reduce_grid(self, x: Tensor) -> Tensor:
        mass = self.sizes[:, self.extra :].clamp(min=MIN_SIZE).to(x.dtype).unsqueeze(2)
        return (self.weights.to(x.dtype).mT @ x) / mass

    def restore_grid(self, update: Tensor) -> Tensor:
        return self.weights.to(update.dtype) @ update

    @property
    def assignment(self) -> Tensor:
        """``(B, H * W)``: the cluster of which each token has the largest share, for pictures."""
        return self.weights.argmax(2)


MIN_SIZE = 1e-6
"""Sums over a soft cluster that is smaller than this are divided by it."""


@dataclass(frozen=True)
class GridPooling(Plan):
    """Every ``side x side`` cell of the grid is one working token; these form a coarser grid.

    Attributes:
        side: tokens along a cell; cells at the right and bottom edge may be ragged.
        like: any tensor of the batch, for its shape, device and dtype.
    """

    side: int
    like: Tensor

    @property
    def exact(self) -> bool:
        return True

    @property
    def coarse(self) -> Grid:
        """The grid the working tokens lie on."""
        return cells(self.grid, self.side)

    @property
    def sizes(self) -> Tensor:
        assignment = self.assignment
        counts = count_members(assignment, self.coarse[0] * self.coarse[1])
        return torch.cat((counts.new_ones(counts.shape[0], self.extra), counts), 1)

    def reduce(self, x: Tensor) -> Tensor:
        image = to_map(x[:, self.extra :], self.grid)
        pooled = to_tokens(F.avg_pool2d(image, self.side, ceil_mode=True, count_include_pad=False))
        return torch.cat((x[:, : self.extra], pooled), 1) if self.extra else pooled

    def restore(self, update: Tensor) -> Tensor:
        spread = scatter_to_tokens(update[:, self.extra :], self.assignment)
        return torch.cat((update[:, : self.extra], spread), 1) if self.extra else spread

    @property
    def assignment(self) -> Tensor:
        assignment = assign_to_cells(self.grid, (self.side, self.side), self.like.device)
        return assignment.expand(self.like.shape[0], -1)
