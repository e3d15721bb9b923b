"""What every reducer promises.

``reducer(x, grid, norm)`` gives the ``(B, K, C)`` working tokens and a
:class:`~vitrail.layers.plan.Plan` that carries their update back to all ``(B, N, C)``. K follows
from the grid alone, so shapes are static; with K = N the reducer is the identity, to the bit.
Attention *and* feed-forward run on the working tokens: that, not the attention core, is where a
block's work lies. Reducers choose without gradient; what they average and copy is differentiable.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn

from vitrail.layers.grid import Grid
from vitrail.layers.plan import Plan
from vitrail.specs import Place, Spec

Norm = Callable[[Tensor], Tensor]
"""The block's first norm: reducers that compare tokens compare what the mixer would see."""


@dataclass(frozen=True, kw_only=True)
class ReducerSpec(Spec):
    """Which tokens work, as data; register one by subclassing with a ``name``.

    Attributes:
        hold: blocks in a row that work on one choice. Choosing and carrying back then cost a share
            of what they did, so a better or finer choice pays; ToMe and TCFormer hold theirs to the
            end of the network.
    """

    kind: ClassVar[str] = "reducer"
    known: ClassVar[dict[str, type[Spec]]] = {}
    hold: int = 1

    @property
    def static(self) -> bool:
        """Whether K follows from the grid alone; others serve study only, and do not compile."""
        return True

    @abstractmethod
    def build(self, place: Place) -> "Reducer":
        """The module for one block.

        Raises:
            SpecError: the reducer cannot serve this place.
        """

    @abstractmethod
    def working(self, place: Place) -> int:
        """K: working tokens of one image, class tokens included."""

    @abstractmethod
    def macs(self, place: Place) -> int:
        """Multiply-adds spent on choosing, for one image."""

    @property
    def tokens_per_cluster(self) -> float:
        """Tokens that one working token stands for, where an option says so; else 1."""
        return 1.0

    def coarse(self, place: Place) -> Grid | None:
        """The grid the working tokens form, or None where they are scattered."""
        return None

    def place(self, place: Place) -> Place:
        """Where the mixer behind this reducer stands."""
        coarse = self.coarse(place)
        if coarse is None:
            return replace(place, scattered=True, padded=not self.static)
        return replace(place, grid=coarse)

    @classmethod
    def summary(cls) -> str:
        """The first line of the docstring, for listings."""
        return (cls.__doc__ or "").strip().splitlines()[0]


class Reducer(nn.Module, ABC):
    """A built reducer."""

    @abstractmethod
    def forward(self, x: Tensor, grid: Grid, norm: Norm) -> tuple[Tensor, Plan]:
        """``(B, N, C)`` -> working tokens ``(B, K, C)`` and the way back.

        Args:
            x: the residual stream, class tokens in front.
            grid: ``(H, W)`` of the tokens behind them.
            norm: gives the features by which tokens are compared, ``(B, N, C)``.
        """


@dataclass(frozen=True, kw_only=True)
class All(ReducerSpec, name="all"):
    """Every token works: the block as its paper has it."""

    def build(self, place: Place) -> Reducer:
        """Nothing to build: models leave the plain block as it is."""
        return IdentityReducer()

    def working(self, place: Place) -> int:
        """All of them."""
        return place.tokens

    def macs(self, place: Place) -> int:
        """Free."""
        return 0

    def coarse(self, place: Place) -> Grid:
        """The grid itself."""
        return place.grid


class IdentityReducer(Reducer):
    """The identity, with a plan that says so."""

    def forward(self, x: Tensor, grid: Grid, norm: Norm) -> tuple[Tensor, Plan]:
        """``x`` itself."""
        return x, IdentityPlan(grid=grid, extra=x.shape[1] - grid[0] * grid[1], like=x)


@dataclass(frozen=True)
class IdentityPlan(Plan):
    """Every token stands for itself.

    Attributes:
        like: any tensor of the batch, for its shape, device and dtype.
    """

    like: Tensor

    @property
    def exact(self) -> bool:
        return True

    @property
    def coarse(self) -> Grid:
        """The grid itself."""
        return self.grid

    @property
    def single(self) -> bool:
        return True

    @property
    def sizes(self) -> Tensor:
        return self.like.new_ones(self.like.shape[0], self.extra + self.grid[0] * self.grid[1])

    def reduce(self, x: Tensor) -> Tensor:
        return x

    def restore(self, update: Tensor) -> Tensor:
        return update
