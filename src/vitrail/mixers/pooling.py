"""Controls: how well does a block work whose tokens hardly meet, or do not meet at all?

Yu et al., "MetaFormer Is Actually What You Need for Vision", CVPR 2022 (arXiv 2111.11418), and
"MetaFormer Baselines for Vision", TPAMI 2024 (arXiv 2210.13452). Neither has a parameter. Class
tokens, which these papers do not have, would learn nothing of the picture: they get the mean of
all other tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.grid import Grid, to_map, to_tokens
from vitrail.layers.plan import Plan
from vitrail.mixers.base import Mixer, MixerSpec
from vitrail.mixers.softmax import check_grid
from vitrail.specs import Place


@dataclass(frozen=True, kw_only=True)
class Pooling(MixerSpec, name="pooling"):
    """PoolFormer's control: the mean of a token's neighbours, minus itself; nothing is learned.

    ``y = avg(x, size x size) - x`` at stride one; places outside the grid do not count.
    """

    size: int = 3

    def build(self, place: Place) -> "NeighbourMean":
        """Serves tokens on a grid."""
        check_grid(self, place)
        if self.size < 1 or self.size % 2 == 0:
            raise self.refuse(place, "an even square has no middle", "use size=3, 5 or 7")
        return NeighbourMean(self.size)

    def macs(self, place: Place, working: int | None = None) -> int:
        """Additions only."""
        return 0


@dataclass(frozen=True, kw_only=True)
class Identity(MixerSpec, name="identity"):
    """The control of controls: tokens do not meet; what is left of a block is its feed-forward."""

    def build(self, place: Place) -> "IdentityMixer":
        """Serves every place."""
        return IdentityMixer()

    def macs(self, place: Place, working: int | None = None) -> int:
        """Free."""
        return 0


class NeighbourMean(Mixer):
    """The mean of a token's neighbours, minus the token."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Tensor:
        """See :class:`~vitrail.mixers.base.Mixer`."""
        extra = x.shape[1] - grid[0] * grid[1]
        mean = F.avg_pool2d(
            to_map(x[:, extra:], grid), self.size, 1, self.size // 2, count_include_pad=False
        )
        return prepend_mean(x, to_tokens(mean) - x[:, extra:], plan)

    def explain(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Mapping[str, Tensor]:
        """``operator`` ``(1, N, N)``: what each token is multiplied by, for each token."""
        extra = x.shape[1] - grid[0] * grid[1]
        reach = torch.ones(1, 1, device=x.device, dtype=x.dtype)
        for side in grid:
            place = torch.arange(side, device=x.device)
            axis = (place[:, None] - place).abs() <= self.size // 2
            reach = torch.kron(reach, axis.to(x.dtype))
        operator = reach / reach.sum(1, keepdim=True) - torch.eye(reach.shape[0]).to(x)
        return {"operator": prepend_mean_rows(operator, mean_weights(x, extra, plan), extra)}


class IdentityMixer(Mixer):
    """Every token as it is; class tokens get the mean of the others."""

    def forward(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Tensor:
        """See :class:`~vitrail.mixers.base.Mixer`."""
        extra = x.shape[1] - grid[0] * grid[1] if plan is None else plan.extra
        return prepend_mean(x, x[:, extra:], plan)

    def explain(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Mapping[str, Tensor]:
        """``operator`` ``(B or 1, K, K)``: the identity, but for class tokens."""
        extra = x.shape[1] - grid[0] * grid[1] if plan is None else plan.extra
        same = torch.eye(x.shape[1] - extra).to(x)
        return {"operator": prepend_mean_rows(same, mean_weights(x, extra, plan), extra)}


def mean_weights(x: Tensor, extra: int, plan: Plan | None) -> Tensor:
    """What each grid token counts in their mean: ``(B or 1, K - E)``, of tokens ``(B, K, C)``."""
    if plan is None or plan.single:
        return x.new_full((1, x.shape[1] - extra), 1 / (x.shape[1] - extra))
    sizes = plan.sizes[:, extra:]
    return (sizes / sizes.sum(1, keepdim=True)).to(x.dtype)


def prepend_mean(x: Tensor, mixed: Tensor, plan: Plan | None) -> Tensor:
    """``mixed`` behind class tokens, where there are any, that get the mean of the others."""
    extra = x.shape[1] - mixed.shape[1]
    if not extra:
        return mixed
    weights = mean_weights(x, extra, plan).unsqueeze(2)
    mean = (weights * x[:, extra:]).sum(1, keepdim=True)
    return torch.cat((mean.expand(-1, extra, -1), mixed), 1)


def prepend_mean_rows(operator: Tensor, weights: Tensor, extra: int) -> Tensor:
    """The same for an operator ``(K - E, K - E)`` spelled out: ``(B or 1, K, K)``."""
    whole = F.pad(operator, (extra, 0, extra, 0)).repeat(weights.shape[0], 1, 1)
    whole[:, :extra, extra:] = weights.unsqueeze(1)
    return whole
