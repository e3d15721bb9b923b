"""Rollout: from what the head reads back to where it came from, for any of the zoo's wirings.

Abnar and Zuidema (2020) multiply matrices ``(A_l + I) / 2`` over layers. Here a *field*, one
number a token, goes forward through the same mixing (:mod:`vitrail.explain.mixing`), and the
gradient of what the head reads with respect to the field at any layer is the distribution
``r_l = M_(l+1)^T ... M_L^T r_L`` there: a vector walks back, never a matrix product, through
selection, clustering, pooling and several scales alike. It sums to one at every layer; what
reaches a class token stays there and is counted.

=========================== =====================================================================
step                        what happens to a field f
=========================== =====================================================================
residual                    ``f <- f - s f + s A f``; s is 1/2, or the branch's share of lengths
reducer                     ``f <- f - S s f + S s A (R f)``: R reduces, S restores (its plan)
new grid                    each new cell is the mean of the cells it covers; class tokens are new
convolution, feed-forward   stays where it is
FilterViT's blocks          pooled: mean of cells, encoder, copies; chosen places overwritten
MobileViT's block           four interleaved sequences; shares by what the fusion makes of both
CoaT's parallel blocks      three scales, resized and blended by the lengths of their answers
=========================== =====================================================================
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.explain.record import Call, Meeting
from vitrail.layers.grid import Grid, grid_of, to_map, to_tokens
from vitrail.models import coat, filtervit, mobilevit

Share = Callable[[Meeting], Tensor | float]
Operators = Callable[[Meeting], Callable[[Tensor], Tensor]]


def half(step: Meeting) -> float:
    """Residual and branch matter alike, as published."""
    return 0.5


def by_length(step: Meeting) -> Tensor:
    """The branch's share of lengths at each token: ``|u| / (|x| + |u|)``, ``(B, K, 1)``."""
    stream = step.stream.flatten(1, -2).norm(dim=2, keepdim=True)
    branch = step.output.norm(dim=2, keepdim=True)
    return branch / (stream + branch).clamp(min=1e-12)


SHARES: dict[str, Share] = {"half": half, "norm": by_length}


@dataclass(frozen=True)
class State:
    """A field on the tokens of one scale.

    Attributes:
        tokens: ``(B, E + H*W, 1)``.
        grid: ``(H, W)``.
    """

    tokens: Tensor
    grid: Grid

    @property
    def extra(self) -> int:
        """Class tokens in front."""
        return self.tokens.shape[1] - self.grid[0] * self.grid[1]


@dataclass
class Walk:
    """A field on its way through the layers.

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

    def run(self, steps: Sequence[Meeting]) -> None:
        """All steps, those inside a paper's own block together."""
        for unit, together in groupby(steps, key=lambda s: s.unit.name if s.unit else None):
            some = list(together)
            if unit is None:
                for step in some:
                    self.plain(step)
                continue
            block = some[0].unit
            assert block is not None
            kind = next(k for k in UNIT_STEPS if isinstance(block.module, k))
            UNIT_STEPS[kind](self, block, some)

    def mix(self, f: Tensor, step: Meeting) -> Tensor:
        """One residual step on its own tokens, ``(B, K, 1)`` or what its plan reduces."""
        operate, plan = self.operators(step), step.block_plan
        if plan is None:
            seen = operate(f)
            if self.share is None:
                return f + seen
            share = self.share(step)
            return f - share * f + share * seen
        seen = operate(_reduced(plan.reduce, f))
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

    def plain(self, step: Meeting) -> None:
        """A mixer in a residual branch, with or without a reducer."""
        state = self.enter(step.name, step.full_grid, step.extra, step.tokens)
        self.leave(step.name, State(self.mix(state.tokens, step), state.grid))

    def encode(self, f: Tensor, steps: Sequence[Meeting]) -> Tensor:
        """Several residual steps on the same tokens."""
        for step in steps:
            f = self.mix(f, step)
        return f

    def join(self, f: Tensor, into: Tensor, out: Tensor, share: Tensor | float) -> Tensor:
        """A branch that went in as ``into`` and came out as ``out``, both on f's tokens."""
        return f + out - into if self.share is None else f - share * f + share * out


def _reduced(reduce: Callable[[Tensor], Tensor], f: Tensor) -> Tensor:
    """Means over what each working token stands for, also where a plan adds instead."""
    total = reduce(torch.ones_like(f))
    return reduce(f) / torch.where(total == 0, torch.ones_like(total), total)


def filter_block(walk: Walk, unit: Call, steps: list[Meeting]) -> None:
    """FilterViT's own: on cells, on all places, or on chosen ones."""
    block, x = unit.module, unit.args[0]
    grid = grid_of(x)
    state = walk.enter(unit.name, grid, 0, to_tokens(x))
    f = state.tokens
    if isinstance(block, filtervit.Pooled):
        coarse = steps[0].grid
        image = filtervit.resample(to_map(f, grid), coarse)
        out = to_map(walk.encode(to_tokens(image), steps), coarse)
        spread = [to_tokens(filtervit.resample(each, grid)) for each in (image, out)]
        f = walk.join(f, spread[0], spread[1], 0.5)
    elif steps[0].plan is not None:
        chosen = steps[0].plan.reduce(f)
        f = f + steps[0].plan.restore(walk.encode(chosen, steps) - chosen)
    else:
        f = walk.join(f, f, walk.encode(f, steps), 0.5)
    walk.leave(unit.name, State(f, grid))


def mobile_block(walk: Walk, unit: Call, steps: list[Meeting]) -> None:
    """MobileViT's: attention between patches, one sequence for each position inside."""
    size, grid = grid_of(unit.args[0]), steps[0].full_grid
    state = walk.enter(unit.name, size, 0, to_tokens(unit.args[0]))
    even = (grid[0] * mobilevit.PATCH, grid[1] * mobilevit.PATCH)
    image = mobilevit.resize(to_map(state.tokens, size), even)
    z = mobilevit.unfold(image, grid)
    out = mobilevit.fold(walk.encode(z, steps), grid)
    into, out = (to_tokens(mobilevit.resize(each, size)) for each in (image, out))
    f = walk.join(state.tokens, into, out, _fused_share(unit, steps[-1].fused))
    walk.leave(unit.name, State(f, size))


@torch.no_grad()
def _fused_share(unit: Call, both: Tensor | None) -> Tensor:
    """``(B, H*W, 1)``: how much of the fusing convolution's answer comes from the attention."""
    assert isinstance(unit.module, mobilevit.MobileViTBlock) and both is not None
    conv = unit.module.fuse.conv
    parts = zip(both.chunk(2, 1), conv.weight.chunk(2, 1), strict=True)
    direct, mixed = (F.conv2d(x, w, padding=conv.padding).norm(dim=1) for x, w in parts)
    return (mixed / (direct + mixed).clamp(min=1e-12)).flatten(1).unsqueeze(2)


def parallel_block(walk: Walk, unit: Call, steps: list[Meeting]) -> None:
    """CoaT's: three scales attend alone, and each adds what the others say, resized."""
    if not walk.scales:
        walk.scales = [walk.tap(walk.last_of(f"stages.{i}")) for i in (1, 2, 3)]
    walk.entering[unit.name] = walk.scales
    grids = [step.grid for step in steps]
    seen = [walk.operators(s)(f.tokens) for s, f in zip(steps, walk.scales, strict=True)]
    after = []
    for state, step, grid in zip(walk.scales, steps, grids, strict=True):
        answers = [_resized(s.output, s.grid, grid) for s in steps]
        lengths = torch.stack([a.norm(dim=2, keepdim=True) for a in answers])
        parts = lengths / lengths.sum(0).clamp(min=1e-12)
        fields = torch.stack([_resized(f, g, grid) for f, g in zip(seen, grids, strict=True)])
        if walk.share is None:
            mixed = state.tokens + fields.sum(0)
        else:
            share = walk.share(step)
            mixed = state.tokens - share * state.tokens + share * (parts * fields).sum(0)
        after.append(State(mixed, grid))
    walk.scales = after


def _resized(x: Tensor, old: Grid, new: Grid) -> Tensor:
    return x if old == new else coat.resize(x, old, new)


UNIT_STEPS: dict[type, Callable[[Walk, Call, list[Meeting]], None]] = {
    filtervit.EncoderBlock: filter_block,
    mobilevit.MobileViTBlock: mobile_block,
    coat.ParallelBlock: parallel_block,
}


def masses(walk: Walk, read: Tensor) -> dict[str, list[Tensor]]:
    """The distribution in front of each layer: the gradient of what is read, ``(B,)``.

    By layer, ``(B, E + N)`` for each scale, and last ``(B, 1)`` what stays aside there: on class
    tokens that join later, or on its way to be read elsewhere.
    """
    states = [state.tokens for many in walk.entering.values() for state in many]
    sides = [tensor for tensor, _, _ in walk.aside]
    grads = torch.autograd.grad(
        read.sum(), [*states, *sides], retain_graph=True, materialize_grads=True
    )
    found, waiting = {}, list(grads[: len(states)])
    for layer, (name, many) in enumerate(walk.entering.items()):
        here = [waiting.pop(0).squeeze(2) for _ in many]
        beside = here[0].new_zeros(here[0].shape[0], 1)
        for grad, (_, first, last) in zip(grads[len(states) :], walk.aside, strict=True):
            if first <= layer < last:
                beside = beside + grad.sum((1, 2))[:, None]
        found[name] = [*here, beside]
    return found
