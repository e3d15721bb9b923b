"""What mixers share whose queries are all tokens and whose keys are something fewer.

tokens -> queries; coarser grid, strided grid or mixtures -> keys, values -> softmax attention
"""

from abc import abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

from vitrail.layers.attend import attend, attention_weights, join_heads
from vitrail.layers.grid import Grid
from vitrail.layers.plan import Plan
from vitrail.mixers.base import Mixer


class ReducedKeysAttention(Mixer):
    """Multi-head attention; a mixer says how its queries, keys and values are made.

    Attributes:
        proj: the output's projection.
        scale: of the products, ``d ** -0.5`` of a head if None.
    """

    proj: nn.Linear
    scale: float | None = None

    @abstractmethod
    def project(self, x: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
        """Queries ``(B, heads, N, d)``, keys and values ``(B, heads, M, d)``."""

    def forward(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Tensor:
        """See :class:`~vitrail.mixers.base.Mixer`."""
        return self.proj(join_heads(attend(*self.project(x, grid), scale=self.scale)))

    def explain(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Mapping[str, Tensor]:
        """``attention`` ``(B, heads, N, M)``: rows sum to one; ``values``."""
        q, k, v = self.project(x, grid)
        return {"attention": attention_weights(q, k, None, self.scale), "values": v}
