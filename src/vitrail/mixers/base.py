"""What every token mixer promises.

A frozen *spec* describes a mixer; a *place* says where it goes; the spec builds the module::

    spec = MixerSpec.parse("conv_attention")
    mixer, shared = spec.build(place), spec.build_shared(place)
    y = mixer(x, grid, shared, plan)                 # (B, N, C) -> (B, N, C)

A mixer owns its projections, positions and scale. It does not normalise its input, add a
residual, or know its model. In evaluation it is deterministic and treats every image of a batch
alone. What cannot serve a place is refused by ``build``, with the remedy.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from vitrail.layers.grid import Grid
from vitrail.layers.plan import Plan
from vitrail.specs import Place, Spec


@dataclass(frozen=True, kw_only=True)
class MixerSpec(Spec):
    """How tokens meet, as data; register one by subclassing with a ``name``."""

    kind: ClassVar[str] = "mixer"
    known: ClassVar[dict[str, type[Spec]]] = {}

    @abstractmethod
    def build(self, place: Place) -> "Mixer":
        """The module for one block.

        Raises:
            SpecError: the mixer cannot serve this place.
        """

    def build_between(self, place: Place, in_dim: int, out_dim: int) -> "Mixer":
        """The module for a block whose tokens come ``in_dim`` and leave ``out_dim`` wide.

        By default linear maps lead to ``place.dim`` and away from it; mixers whose own
        projections can do that build it so.
        """
        return WidthAdapter(self.build(place), place.dim, in_dim, out_dim)

    def build_shared(self, place: Place) -> nn.Module | None:
        """What the blocks of a stage hold in common, owned once by the stage; mostly nothing."""
        return None

    @abstractmethod
    def macs(self, place: Place, working: int | None = None) -> int:
        """Multiply-adds for one image, where ``working`` tokens (all, if None) do the work."""

    @classmethod
    def summary(cls) -> str:
        """The first line of the docstring, for listings."""
        return (cls.__doc__ or "").strip().splitlines()[0]


class Mixer(nn.Module, ABC):
    """A built mixer."""

    @abstractmethod
    def forward(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Tensor:
        """``(B, K, C)`` -> ``(B, K, C)``.

        Args:
            x: normalised working tokens, class tokens in front.
            grid: the full grid ``(H, W)``.
            shared: what the spec's ``build_shared`` made for this stage.
            plan: how the working tokens stand for the grid's; None where they are the grid's.
        """

    def init_weights(self) -> None:
        """Initialise what is the mixer's own, after the model's general rule; mostly nothing.

        Mixers written for earlier versions call this method ``start``.
        """
        start = getattr(self, "start", None)
        if inspect.ismethod(start):
            start()

    def explain(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Mapping[str, Tensor]:
        """The same step spelled out, slowly: named tensors that :meth:`forward` never forms.

        ``attention`` ``(B, heads, K, M)`` is with what weight token i takes value j, and
        ``values`` ``(B, heads, M, d)`` what it takes, so that the input of ``proj`` is their
        product, heads joined. Where the M values are not the K tokens, :meth:`make_keys` says
        what they are made of, or ``sources`` ``(B, heads, M, K)`` where that differs from
        picture to picture. A mixer without such a matrix names its tensors otherwise.

        Raises:
            NotImplementedError: this mixer does not spell its step out.
        """
        raise NotImplementedError(f"{type(self).__name__} has no explain(); see Mixer.explain")

    def make_keys(self, field: Tensor, grid: Grid) -> Tensor:
        """What keys are made of, for one number a token: ``(B, K, E)`` -> ``(B, M, E)``.

        Weighted means, so that mass is kept; explanations walk back along them.
        """
        return field


def count_class_tokens(x: Tensor, grid: Grid, plan: Plan | None = None) -> int:
    """How many of the tokens ``(B, K, C)`` stand in front of the grid's."""
    return x.shape[1] - grid[0] * grid[1] if plan is None else plan.extra


class WidthAdapter(Mixer):
    """A mixer of its own width between two others."""

    def __init__(self, inner: Mixer, dim: int, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.enter = nn.Identity() if in_dim == dim else nn.Linear(in_dim, dim)
        self.inner = inner
        self.leave = nn.Identity() if out_dim == dim else nn.Linear(dim, out_dim)

    def forward(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Tensor:
        """``(B, K, in_dim)`` -> ``(B, K, out_dim)``."""
        return self.leave(self.inner(self.enter(x), grid, shared, plan))

    def explain(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Mapping[str, Tensor]:
        """What the mixer inside explains."""
        return self.inner.explain(self.enter(x), grid, shared, plan)

    def make_keys(self, field: Tensor, grid: Grid) -> Tensor:
        """As inside."""
        return self.inner.make_keys(field, grid)
