"""A reducer of one's own in a file of one's own: ``vitrail ... --plugin examples/checker.py``.

Every ``step``-th token works; the others rest, and keep what they were.
"""

from dataclasses import dataclass

import torch

from vitrail.reducers import Reducer, ReducerSpec
from vitrail.tokens.selection import Selection


@dataclass(frozen=True, kw_only=True)
class Checker(ReducerSpec, name="checker"):
    """Every ``step``-th token works."""

    step: int = 2

    def build(self, place):
        """Serves every place with a step of at least one."""
        if self.step < 1:
            raise self.refuse(place, "step is below one", "try checker(step=2)")
        return EveryOther(self.step)

    def working(self, place):
        """Class tokens, and one in ``step`` of the grid's, rounded up."""
        return place.extra - (-place.grid[0] * place.grid[1] // self.step)

    def macs(self, place):
        """Choosing is free."""
        return 0


class EveryOther(Reducer):
    """``(B, N, C)`` -> working tokens ``(B, K, C)``, and the plan that leads back."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def forward(self, x, grid, norm):
        """``norm(x)`` would give what the mixer sees, for a choice that depends on it."""
        tokens = grid[0] * grid[1]
        index = torch.arange(0, tokens, self.step, device=x.device).expand(x.shape[0], -1)
        plan = Selection(grid=grid, extra=x.shape[1] - tokens, index=index)
        return plan.reduce(x), plan
