"""Rollout: from what the head reads back to where it came from, for any model of ours.

Abnar and Zuidema (2020) multiply matrices ``(A_l + I) / 2`` over layers. Here a *field*, one
number a token, goes forward through the same mixing (:mod:`vitrail.attribution.mixing`), and the
gradient of what the head reads with respect to the field at any layer is the distribution
``r_l = M_(l+1)^T ... M_L^T r_L`` there. Only vectors go back, never a product of matrices, and that
through selection, clustering, pooling and several scales alike. The distribution sums to one at
every layer; what reaches a class token stays there and is counted.

=========================== =====================================================================
step                        what happens to a field f
=========================== =====================================================================
residual                    ``f <- f - s f + s A f``; s is 1/2, or the branch's share of lengths
reducer                     ``f <- f - S s f + S s A (R f)``: R reduces, S restores (its plan)
new grid                    each new cell is the mean of the cells it covers; class tokens are new
convolution, feed-forward   stays where it is
a paper's own block         as its ``propagate`` says (:mod:`vitrail.models.reading`)
=========================== =====================================================================
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.attribution.record import MixerCall
from vitrail.layers.grid import Grid, to_map, to_tokens
from vitrail.models.reading import State

Share = Callable[[MixerCall], Tensor | float]
Operators = Callable[[MixerCall], Callable[[Tensor], Tensor]]


def half(step: MixerCall) -> float:
    """Residual and branch matter alike, as published."""
    return 0.5


def norm_share(step: MixerCall) -> Tensor:
    """The branch's share of lengths at each token: ``|u| / (|x| + |u|)``, ``(B, K, 1)``."""
    stream = step.stream.flatten(1, -2).norm(dim=2, keepdim=True)
    branch = step.output.norm(dim=2, keepdim=True)
    return branch / (stream + branch).clamp(min=1e-12)


SHARES: dict[str, Share] = {"half": half, "norm": norm_share}


@dataclass
class Propagation:
    """A field propagated through the layers (:class:`vitrail.models.reading.Fields`).

    Attributes:
        operators: how a step mixes a field.
        share: of the branch in a residual; None: branches are added as they are (gradients).
        entering: by layer, the fields that enter it (several, where there are several scales).
        aside: fields that lie beside the layers from one number up to another: class tokens
            that have not joined yet, states on their way to be read elsewhere.
        left: the state behind each layer, by name.
        scales: CoaT's three, once they run side by side.
    """

    operators: Operators
    share: Share | None
    state: State | None = None
    entering: dict[str, list[State]] = field(default_factory=dict)
    aside: list[tuple[Tensor, int, int]] = field(default_factory=list)
    left: dict[str, State] = field(default_factory=dict)
    scales: list[State] = field(default_factory=list)

    def run(self, steps: Sequence[MixerCall]) -> None:
        """Propagate through all steps; those inside a paper's own block go together."""
        for unit, together in groupby(steps, key=lambda s: s.unit.name if s.unit else None):
            some = list(together)
            if unit is None:
                for step in some:
                    self.mix_residual(step)
                continue
            block = some[0].unit
            assert block is not None
            block.module.propagate(self, block, some)  # type: ignore[operator]

    def mix(self, f: Tensor, step: MixerCall) -> Tensor:
        """One residual step on its own tokens, ``(B, K, 1)`` or what its plan reduces."""
        operate, plan = self.operators(step), step.block_plan
        if plan is None:
            seen = operate(f)
            if self.share is None:
                return f + seen
            share = self.share(step)
            return f - share * f + share * seen
        seen = operate(_reduce_mean(plan.reduce, f))
        if self.share is None:
            return f + plan.restore(seen)
        share = torch.as_tensor(self.share(step)).to(f).expand(seen.shape)
        return f - plan.restore(share) * f + plan.restore(share * seen)

    def enter(self, name: str, grid: Grid, extra: int, like: Tensor) -> State:
        """The state in front of a layer: on its grid, with its class tokens."""
        if self.state is None:
            start = like.new_ones(like.shape[0], grid[0] * grid[1], 1).requires_grad_()
            self.state = State(start, grid)
        places, old = self.state.tokens[:, self.state.extra :], self.state.grid
        first = self.state.tokens[:, : self.state.extra]
        if old != grid:
            places = to_tokens(F.adaptive_avg_pool2d(to_map(places, old), grid))
            first = first[:, :0]
        if first.shape[1] < extra:
            born = places.new_ones(places.shape[0], extra - first.shape[1], 1).requires_grad_()
            self.aside.append((born, 0, len(self.entering)))
            first = torch.cat((born, first), 1)
        self.state = State(torch.cat((first[:, :extra], places), 1), grid)
        self.entering[name] = [self.state]
        return self.state

    def leave(self, name: str, state: State) -> None:
        """The state behind a layer."""
        self.state = state
        self.left[name] = state

    def tap(self, name: str, extra: int | None = None) -> State:
        """The state behind a layer (its first tokens), as it is read elsewhere, later on."""
        state = self.left[name]
        tapped = state.tokens[:, :extra] * 1.0
        self.aside.append((tapped, list(self.left).index(name) + 1, len(self.entering)))
        return State(tapped, state.grid)

    def last_of(self, stage: str) -> str:
        """The last layer of a stage."""
        return [name for name in self.left if name.startswith(f"{stage}.")][-1]

    def mix_residual(self, step: MixerCall) -> None:
        """A mixer in a residual branch, with or without a reducer."""
        state = self.enter(step.name, step.full_grid, step.extra, step.tokens)
        self.leave(step.name, State(self.mix(state.tokens, step), state.grid))

    def encode(self, f: Tensor, steps: Sequence[MixerCall]) -> Tensor:
        """Several residual steps on the same tokens."""
        for step in steps:
            f = self.mix(f, step)
        return f

    def join(self, f: Tensor, into: Tensor, out: Tensor, share: Tensor | float) -> Tensor:
        """A branch that went in as ``into`` and came out as ``out``, both on f's tokens."""
        return f + out - into if self.share is None else f - share * f + share * out


def _reduce_mean(reduce: Callable[[Tensor], Tensor], f: Tensor) -> Tensor:
    """Means over what each working token stands for, also where a plan adds instead."""
    total = reduce(torch.ones_like(f))
    return reduce(f) / torch.where(total == 0, torch.ones_like(total), total)


def masses_by_layer(fields: Propagation, read: Tensor) -> dict[str, list[Tensor]]:
    """The distribution in front of each layer: the gradient of what is read, ``(B,)``.

    By layer, ``(B, E + N)`` for each scale, and last ``(B, 1)`` what stays aside there: on class
    tokens that join later, or on its way to be read elsewhere.
    """
    states = [state.tokens for many in fields.entering.values() for state in many]
    sides = [tensor for tensor, _, _ in fields.aside]
    grads = torch.autograd.grad(
        read.sum(), [*states, *sides], retain_graph=True, materialize_grads=True
    )
    found, waiting = {}, list(grads[: len(states)])
    for layer, (name, many) in enumerate(fields.entering.items()):
        here = [waiting.pop(0).squeeze(2) for _ in many]
        beside = here[0].new_zeros(here[0].shape[0], 1)
        for grad, (_, first, last) in zip(grads[len(states) :], fields.aside, strict=True):
            if first <= layer < last:
                beside = beside + grad.sum((1, 2))[:, None]
        found[name] = [*here, beside]
    return found
