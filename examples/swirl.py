"""A mixer of one's own in a file of one's own: ``vitrail ... --plugin examples/swirl.py``.

Each quarter of the channels looks some steps up, down, left or right: no attention at all.
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
    """``(B, N, C)`` -> ``(B, N, C)``, class tokens in front; norm and residual are the block's."""

    def __init__(self, dim, reach):
        super().__init__()
        self.ways = ((-reach, 2), (reach, 2), (-reach, 3), (reach, 3))
        self.v, self.proj = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x, grid, shared=None, plan=None):
        """Fast."""
        v, extra = self.v(x), x.shape[1] - grid[0] * grid[1]
        parts = zip(to_map(v[:, extra:], grid).chunk(4, 1), self.ways, strict=True)
        moved = torch.cat([part.roll(by, axis) for part, (by, axis) in parts], 1)
        return self.proj(torch.cat((v[:, :extra], to_tokens(moved)), 1))

    def explain(self, x, grid, shared=None, plan=None):
        """Spelled out: who takes from whom in each quarter, and what."""
        tokens = grid[0] * grid[1]
        spots = torch.eye(tokens, device=x.device).view(1, tokens, *grid)  # one for each channel
        seen = [spots.roll(by, axis).flatten(2)[0].T for by, axis in self.ways]
        itself = torch.eye(x.shape[1] - tokens, device=x.device)
        attention = torch.stack([torch.block_diag(itself, one) for one in seen])
        values = split_heads(self.v(x), 4)
        return {"attention": attention.expand(len(x), -1, -1, -1), "values": values}
