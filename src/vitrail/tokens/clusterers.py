"""Small modules that find clusters, from ``(B, N, D)`` features and their grid.

The count is that of the fullest image; only :class:`HashClusterer` lets images differ.
"""

from abc import ABC, abstractmethod
from math import ceil, isqrt

import torch
from torch import Tensor, nn

from vitrail.layers.grid import Grid, cells
from vitrail.tokens.assignment import (
    assign_by_code,
    assign_by_kmeans,
    assign_by_sorting,
    assign_to_destinations,
    hash_digits,
    mix_digits,
)
from vitrail.tokens.matching import assign_by_merging, assign_to_density_peaks
from vitrail.tokens.selection import keep_count

SEED = 2011_09315
"""Random planes are drawn once from this seed and kept as buffers, saved with the weights: two
passes over a picture find the same clusters (ACT's code draws anew at every forward)."""


class Clusterer(nn.Module, ABC):
    """Finds clusters, without gradient."""

    @abstractmethod
    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, int]:
        """Assignment ``(B, N)`` and the number of clusters."""


class WindowClusterer(Clusterer):
    """The most similar destination of one's window; one destination a cell."""

    def __init__(self, cell: Grid) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, int]:
        """Assignment ``(B, N)`` and the number of clusters."""
        height, width = cells(grid, self.cell)
        window = window_of(grid, self.cell)
        return assign_to_destinations(x, grid, self.cell, window), height * width


def cell_of(ratio: int) -> Grid:
    """The cell of so many tokens that is nearest to a square, and no higher than wide."""
    height = next(h for h in range(isqrt(ratio), 0, -1) if ratio % h == 0)
    return height, ratio // height


def window_of(grid: Grid, cell: Grid) -> Grid:
    """The window for a grid: four cells wide, or seven or two where that divides it evenly."""
    for per in (4, 7, 2):
        if grid[0] % (per * cell[0]) == 0 and grid[1] % (per * cell[1]) == 0:
            return per * cell[0], per * cell[1]
    return 4 * cell[0], 4 * cell[1]


def window_products(grid: Grid, cell: Grid) -> int:
    """Similarities :class:`WindowClusterer` computes, padding of ragged grids included."""
    window = window_of(grid, cell)
    (height, width), (down, right) = cells(grid, window), cells(window, cell)
    return height * width * window[0] * window[1] * down * right


class KMeansClusterer(Clusterer):
    """Lloyd's iterations over the whole grid: a ceiling of quality, quadratic in tokens."""

    def __init__(self, cell: Grid, steps: int) -> None:
        super().__init__()
        self.cell = cell
        self.steps = steps

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, int]:
        """Assignment ``(B, N)`` and the number of clusters."""
        height, width = cells(grid, self.cell)
        return assign_by_kmeans(x, grid, self.cell, self.steps), height * width


class SortClusterer(Clusterer):
    """Equal runs along one fixed random projection: fastest, and blind to place."""

    plane: Tensor

    def __init__(self, features: int, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio
        draw = torch.Generator().manual_seed(SEED)
        self.register_buffer("plane", torch.randn(features, 1, generator=draw))

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, int]:
        """Assignment ``(B, N)`` and the number of clusters."""
        clusters = max(1, x.shape[1] // self.ratio)
        return assign_by_sorting((x @ self.plane.to(x.dtype)).squeeze(2), clusters), clusters


class HashClusterer(Clusterer):
    """ACT's E2LSH: as many clusters as there are distinct codes, so nothing here is static."""

    follows_content = True
    """How many clusters there are shows only in numbers; without them, the most are taken."""
    planes: Tensor
    offsets: Tensor

    def __init__(self, features: int, rounds: int, width: float) -> None:
        super().__init__()
        self.width = width
        draw = torch.Generator().manual_seed(SEED)
        self.register_buffer("planes", torch.randn(features, rounds, generator=draw))
        self.register_buffer("offsets", torch.rand(rounds, generator=draw))

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, int]:
        """Assignment ``(B, N)`` and the number of clusters of the fullest image."""
        digits = hash_digits(x.float(), self.planes.float(), self.offsets.float(), self.width)
        assignment, counts = assign_by_code(mix_digits(digits))
        if x.is_meta:  # shapes without numbers: the most there could be
            return assignment, x.shape[1]
        return assignment, int(counts.max())


class PairClusterer(Clusterer):
    """The most similar pairs of the whole grid, until a share of the tokens is left."""

    def __init__(self, keep: float) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, int]:
        """Assignment ``(B, N)`` and the number of clusters."""
        wanted = keep_count(self.keep, grid)
        return assign_by_merging(x, wanted), wanted


def peaks(grid: Grid, ratio: float) -> int:
    """One for ``ratio`` tokens of a grid, rounded up."""
    return ceil(grid[0] * grid[1] / ratio)


class PeakClusterer(Clusterer):
    """Peaks of density among the tokens of the whole grid."""

    def __init__(self, ratio: float, neighbours: int) -> None:
        super().__init__()
        self.ratio = ratio
        self.neighbours = neighbours

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, int]:
        """Assignment ``(B, N)`` and the number of clusters."""
        clusters = peaks(grid, self.ratio)
        return assign_to_density_peaks(x, clusters, self.neighbours), clusters
