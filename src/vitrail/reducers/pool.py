"""Average pooling: the control every clustering has to beat."""

from dataclasses import dataclass

from torch import Tensor

from vitrail.layers.grid import Grid, cells
from vitrail.layers.plan import Plan
from vitrail.reducers.base import Norm, Reducer, ReducerSpec
from vitrail.specs import Place
from vitrail.tokens.plans import GridPooling


@dataclass(frozen=True, kw_only=True)
class Pool(ReducerSpec, name="pool"):
    """Each ``size x size`` cell works as its mean, on a coarser grid; not a clustering.

    The whole block runs on the coarse grid, its convolutions too.
    """

    size: int = 2

    @property
    def tokens_per_cluster(self) -> float:
        """A square cell."""
        return self.size**2

    def build(self, place: Place) -> "CellPool":
        """Serves every place."""
        if self.size < 1:
            raise self.refuse(place, "size must be at least 1", "try pool(size=2)")
        return CellPool(self.size)

    def working(self, place: Place) -> int:
        """One token a cell, ragged cells included."""
        height, width = self.coarse(place)
        return place.extra + height * width

    def macs(self, place: Place) -> int:
        """Additions only."""
        return 0

    def coarse(self, place: Place) -> Grid:
        """The grid of cells."""
        return cells(place.grid, self.size)


class CellPool(Reducer):
    """Mean over cells."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor, grid: Grid, norm: Norm) -> tuple[Tensor, Plan]:
        """See :class:`~vitrail.reducers.base.Reducer`."""
        extra = x.shape[1] - grid[0] * grid[1]
        plan = GridPooling(grid=grid, extra=extra, side=self.size, like=x)
        return plan.reduce(x), plan
