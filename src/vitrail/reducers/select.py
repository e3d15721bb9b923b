"""Only some tokens work: those of the highest score (FilterViT) or random ones (DropoutViT).

Sun and Chen, "FilterViT and DropoutViT", arXiv 2410.22709. Unlike a cluster, a chosen token
stands for itself alone: the others keep what they were, for ``restore`` gives them zero.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrail.layers.grid import Grid
from vitrail.reducers.base import Norm, Reducer, ReducerSpec
from vitrail.specs import Place
from vitrail.tokens.selection import Selection, keep_count, lattice, topk_indices


@dataclass(frozen=True, kw_only=True)
class Select(ReducerSpec):
    """What both choices have in common: ``keep``, the share of the grid's tokens that work."""

    keep: float = 0.25

    def check(self, place: Place) -> None:
        """Some tokens, at most all.

        Raises:
            SpecError: a share that is none.
        """
        if not 0.0 < self.keep <= 1.0:
            raise self.refuse(
                place, "keep is a share of the tokens, above 0 and up to 1", "try keep=0.25"
            )

    def working(self, place: Place) -> int:
        """Class tokens and the share ``keep`` of the grid's, at least one."""
        return place.extra + keep_count(self.keep, place.grid)


@dataclass(frozen=True, kw_only=True)
class Filter(Select, name="filter"):
    """The best-scored share of the tokens works; what is best is learned.

    Score ``z = w . norm(x) + b``, monotone. In training ``noise`` times Gumbel noise is added to
    it, which with 1.0 draws tokens without replacement by ``exp(z)``: an untrained filter begins
    as a random choice, and tokens it would drop are tried. Each update passes a gate that raises
    the score of a token whose work lowers the loss (:func:`straight_through_gate`); one update in
    four is dropped, so that the gradient shows whether it is missed. In evaluation: the top K,
    nothing else.
    """

    noise: float = 1.0

    def build(self, place: Place) -> "TokenFilter":
        """Serves every place."""
        self.check(place)
        if self.noise < 0.0:
            raise self.refuse(place, "noise is negative", "noise=0 turns it off")
        return TokenFilter(place.dim, self.keep, self.noise)

    def macs(self, place: Place) -> int:
        """One product a token."""
        return place.grid[0] * place.grid[1] * place.dim


class TokenFilter(Reducer):
    """Top K by a learned linear score of what the mixer would see."""

    def __init__(self, dim: int, keep: float, noise: float) -> None:
        super().__init__()
        self.keep, self.noise = keep, noise
        self.score = nn.Linear(dim, 1)

    def forward(self, x: Tensor, grid: Grid, norm: Norm) -> tuple[Tensor, Selection]:
        """See :class:`~vitrail.reducers.base.Reducer`."""
        extra = x.shape[1] - grid[0] * grid[1]
        score = self.score(norm(x)[:, extra:]).squeeze(2).float()
        index = topk_indices(self.add_gumbel_noise(score.detach()), keep_count(self.keep, grid))
        gate = straight_through_gate(score.gather(1, index).sigmoid()) if self.training else None
        plan = Selection(grid=grid, extra=extra, index=index, score=score, gate=gate)
        return plan.reduce(x), plan

    def add_gumbel_noise(self, score: Tensor) -> Tensor:
        """The score with Gumbel noise in training, as it is otherwise."""
        if not self.training or self.noise == 0.0:
            return score
        gumbel = -torch.empty_like(score).exponential_().log()
        return score + self.noise * gumbel


def straight_through_gate(x: Tensor) -> Tensor:
    """One in value, or zero at the rate :data:`DROP_UPDATE_RATE`, with the gradient of ``x``.

    Straight-through (Bengio et al. 2013). The gradient at one says whether *more* of an update
    would help, and vanishes once the update is right; the gradient at zero says whether the update
    is missed. By the trapezoid rule the mean of both is the worth of the update.
    """
    return (x - x.detach()) + (torch.rand_like(x) >= DROP_UPDATE_RATE)


DROP_UPDATE_RATE = 0.25
"""The share of the chosen tokens whose update is dropped in training."""


@dataclass(frozen=True, kw_only=True)
class Random(Select, name="random"):
    """A random share of the tokens works, drawn anew for each image and step.

    Evaluation is deterministic: as many tokens on a regular lattice (DropoutViT as published
    draws there too, so its answers differ from call to call).
    """

    def build(self, place: Place) -> "TokenDraw":
        """Serves every place."""
        self.check(place)
        return TokenDraw(self.keep)

    def macs(self, place: Place) -> int:
        """Free."""
        return 0


class TokenDraw(Reducer):
    """Any K in training, a lattice of K in evaluation."""

    draws_places = True

    def __init__(self, keep: float) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, x: Tensor, grid: Grid, norm: Norm) -> tuple[Tensor, Selection]:
        """See :class:`~vitrail.reducers.base.Reducer`."""
        extra = x.shape[1] - grid[0] * grid[1]
        count = keep_count(self.keep, grid)
        if self.training:
            index = topk_indices(torch.rand(x.shape[0], grid[0] * grid[1], device=x.device), count)
        else:
            index = lattice(count, grid, x.device).expand(x.shape[0], -1)
        plan = Selection(grid=grid, extra=extra, index=index)
        return plan.reduce(x), plan
