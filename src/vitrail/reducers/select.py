"""Let only some tokens work: the best scored (FilterViT's choice) or any (DropoutViT's).

Sun and Chen, "FilterViT and DropoutViT", arXiv 2410.22709. Unlike a cluster, a chosen token
stands for itself alone: the others keep what they were, for ``restore`` gives them zero.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrail.layers.grid import Grid
from vitrail.reducers.base import Look, Reducer, ReducerSpec
from vitrail.specs import Place
from vitrail.tokens.selection import Chosen, best, lattice, share


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
        """Class tokens and the kept share, at least one token."""
        return place.extra + share(self.keep, place.grid)


@dataclass(frozen=True, kw_only=True)
class Filter(Select, name="filter"):
    """The best-scored share of the tokens works; what is best is learned.

    Score ``z = w . norm(x) + b``, monotone. In training ``noise`` times Gumbel noise is added to
    it, which with 1.0 draws tokens without replacement by ``exp(z)``: an untrained filter begins
    as a random choice, and tokens it would drop are tried. Each update passes a straight-through
    gate that raises the score of a token whose work lowers the loss (:func:`hard_gate`); one in
    four is held back, so that it shows whether it is missed. In evaluation: the top K, nothing
    else.
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

    def forward(self, x: Tensor, grid: Grid, look: Look) -> tuple[Tensor, Chosen]:
        """See :class:`~vitrail.reducers.base.Reducer`."""
        extra = x.shape[1] - grid[0] * grid[1]
        score = self.score(look(x)[:, extra:]).squeeze(2).float()
        index = best(self.stirred(score.detach()), share(self.keep, grid))
        gate = hard_gate(score.gather(1, index).sigmoid()) if self.training else None
        plan = Chosen(grid=grid, extra=extra, index=index, score=score, gate=gate)
        return plan.reduce(x), plan

    def stirred(self, score: Tensor) -> Tensor:
        """The score with Gumbel noise in training, as it is otherwise."""
        if not self.training or self.noise == 0.0:
            return score
        gumbel = -torch.empty_like(score).exponential_().log()
        return score + self.noise * gumbel


def hard_gate(x: Tensor) -> Tensor:
    """One in value, or for a share of :data:`MUTED` zero, with the gradient of ``x``.

    Straight-through (Bengio et al. 2013). At one, the gradient says whether *more* of an update
    would help, which is nothing once the update is right; at zero, whether it is missed. The
    mean of both is what the update is worth, by the trapezoid rule.
    """
    return (x - x.detach()) + (torch.rand_like(x) >= MUTED)


MUTED = 0.25
"""Chosen tokens whose update is held back in training, as a share."""


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

    def forward(self, x: Tensor, grid: Grid, look: Look) -> tuple[Tensor, Chosen]:
        """See :class:`~vitrail.reducers.base.Reducer`."""
        extra = x.shape[1] - grid[0] * grid[1]
        count = share(self.keep, grid)
        if self.training:
            index = best(torch.rand(x.shape[0], grid[0] * grid[1], device=x.device), count)
        else:
            index = lattice(count, grid, x.device).expand(x.shape[0], -1)
        plan = Chosen(grid=grid, extra=extra, index=index)
        return plan.reduce(x), plan
