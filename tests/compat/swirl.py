"""A mixer of one's own in a file of one's own: ``vitrail ... --plugin examples/swirl.py``.

Each quarter of the channels looks one step up, down, left or right: no attention at all.
"""

from dataclasses import dataclass

import torch
from torch import nn

from vitrail.layers.attend import split_heads
from vitrail.layers.grid import to_map, to_tokens
from vitrail.mixers import Mixer, MixerSpec


@dataclass(frozen=True, kw_only=True)
class Swirl(MixerSpec, name="swirl"):
    """Channels step aside, ``reach`` tokens in four directions; linear, and blind to content."""

    reach: int = 1  # fields are options: "swirl(reach=2)"

    def build(self, place):
        """What cannot serve a place says so when the model is built, with a remedy."""
        if place.scattered:
            raise self.refuse(place, "tokens have no neighbours", "use reducer 'pool' or 'all'")
        return Steps(place.dim, self.reach)

    def macs(self, place, working=None):
        """Multiply-adds of one image; a law holds the formula against a counted run."""
        return 2 * place.tokens * place.dim**2


class Steps(Mixer):
    """``(B, N, C)`` -> ``(B, N, C)``, class tokens in front."""

    def __init__(self, dim, reach):
        super().__init__()
        self.reach = reach
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x, grid, shared=None, plan=None):
        """A mixer owns its projections; norm and residual are the block's."""
        return self.proj(self.move(self.v(x), grid))

    def move(self, v, grid):
        """Each quarter of the channels in its direction; class tokens stay."""
        extra = v.shape[1] - grid[0] * grid[1]
        ways = ((-self.reach, 2), (self.reach, 2), (-self.reach, 3), (self.reach, 3))
        parts = to_map(v[:, extra:], grid).chunk(4, 1)
        moved = torch.cat([p.roll(*way) for p, way in zip(parts, ways, strict=True)], 1)
        return torch.cat((v[:, :extra], to_tokens(moved)), 1)

    def explain(self, x, grid, shared=None, plan=None):
        """The same as a matrix: a law holds it against ``forward``; rollout and LRP read it."""
        each = torch.eye(x.shape[1]).to(x).repeat(x.shape[0], 1, 4)
        taken, values = (split_heads(t, 4) for t in (self.move(each, grid), self.v(x)))
        return {"attention": taken, "values": values}
