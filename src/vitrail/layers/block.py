"""The plain block and its parts.

x <- local(x)                         how a place sees its neighbours
z, plan <- reducer(x)                 which tokens do the work
u <- mixer(norm1(z))                  how the working tokens meet
u <- u + mlp(norm2(z + u))            what each makes of it
x <- x + restore(u)
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.layers.feed import count_slices, feed_by_slices, pays_in_slices
from vitrail.layers.grid import Grid
from vitrail.layers.hooks import hooked
from vitrail.layers.plan import Plan

Local = Callable[[Tensor, Grid], Tensor]


def nothing_local(x: Tensor, grid: Grid) -> Tensor:
    """The local step of models that have none."""
    return x


class DropPath(nn.Module):
    """Drop a residual branch for whole images in training (stochastic depth, Huang et al. 2016)."""

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """``(B, ...)`` -> the same shape; survivors are scaled by ``1 / (1 - rate)``."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        kept = torch.rand(x.shape[0], *[1] * (x.dim() - 1), device=x.device) < keep
        return x * (kept.to(x.dtype) / keep)

    def extra_repr(self) -> str:
        """The rate, for printing."""
        return f"rate={self.rate:g}"


class Mlp(nn.Module):
    """Widen, GELU, narrow: ``(B, N, C)`` -> ``(B, N, C)``."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act: nn.Module = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Each token by itself."""
        if self.training and pays_in_slices(x, self.fc1, self.act, self.fc2):
            return feed_by_slices(x, self.fc1, self.act, self.fc2)
        return self.fc2(activate(self.act, self.fc1(x), self.fc1))


def activate(act: nn.Module, hidden: Tensor, maker: nn.Module) -> Tensor:
    """``act(hidden)``; at inference GELU takes the memory that ``hidden`` leaves.

    ``maker`` is the layer that gave ``hidden``: who listens to it keeps what it gave.
    """
    if hooked(maker):
        return act(hidden.clone() if getattr(act, "inplace", False) else hidden)
    if torch.is_grad_enabled() or type(act) is not nn.GELU or hooked(act):
        return act(hidden)
    return torch.ops.aten.gelu_(hidden, approximate=act.approximate)


def at_inference(x: Tensor) -> bool:
    """Whether ``x`` passes through eager layers on a CPU without gradient, where memory traffic
    decides and no compiler helps."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    return x.device.type == "cpu"


def add_by_slices(
    x: Tensor, branch: Callable[[Tensor], Tensor], hidden: int, layers: Iterable[nn.Module] = ()
) -> Tensor:
    """``x + branch(x)`` for a branch that treats every token alone, ``(B, N, C)``.

    At inference on a CPU the tokens pass in slices of :data:`~vitrail.layers.feed.SLICE_BYTES` of
    hidden layer, unless somebody listens to one of the branch's ``layers``.
    """
    if not at_inference(x) or hooked(*layers):
        return x + branch(x)
    rows = x.flatten(0, 1)
    count = count_slices(len(rows), hidden, x)
    out = torch.empty_like(rows)
    for part, into in zip(rows.chunk(count), out.chunk(count), strict=True):
        torch.add(part, branch(part), out=into)
    return out.view_as(x)


def add_mlp(x: Tensor, mlp: Mlp, drop_path: DropPath, *before: nn.Module) -> Tensor:
    """``x`` and its feed-forward branch, ``(B, N, C)``; ``before`` is the norm in front, if any."""

    def branch(part: Tensor) -> Tensor:
        for layer in before:
            part = layer(part)
        out: Tensor = mlp(part)
        return out

    if mlp.training:
        return x + drop_path(branch(x))
    return add_by_slices(x, branch, mlp.fc1.out_features, (*before, *mlp.modules()))


class Block(nn.Module):
    """Look around, mix the tokens, mix the channels; pre-norm, with residuals."""

    def __init__(
        self, dim: int, mixer: nn.Module, mlp: Mlp, drop_path: float = 0.0, eps: float = 1e-6
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.mixer = mixer
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = mlp
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Tensor, grid: Grid, local: Local = nothing_local, shared: nn.Module | None = None
    ) -> Tensor:
        """``(B, E + H*W, C)`` -> the same shape.

        ``local`` and ``shared`` are what the blocks of a stage hold in common: the local step,
        and what the mixer's spec built with ``build_shared``.
        """
        x = local(x, grid)
        return self.fed(x + self.drop_path(self.mixer(self.norm1(x), grid, shared)))

    def each(self, x: Tensor, grid: Grid, local: Local, shared: nn.Module | None) -> list[Tensor]:
        """All tokens after the block: one state."""
        return [self(x, grid, local, shared)]

    def fed(self, x: Tensor) -> Tensor:
        """``x`` and its feed-forward branch."""
        return add_mlp(x, self.mlp, self.drop_path, self.norm2)


class Held(nn.Module):
    """In place of a reducer: the block works on what an earlier block chose."""

    def forward(self, z: Tensor, plan: Plan) -> tuple[Tensor, Plan]:
        """Working tokens ``(B, K, C)`` and the plan they were chosen by, as they are."""
        return z, plan


class ReducedBlock(Block):
    """Attention and feed-forward on working tokens that need not lie on a grid.

    The local step sees the full grid first. Every token keeps its own residual stream; only the
    block's update is shared, so dense heads keep sharp maps.
    """

    def __init__(self, reducer: nn.Module, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.reducer = reducer

    def forward(
        self,
        x: Tensor,
        grid: Grid,
        local: Local = nothing_local,
        shared: nn.Module | None = None,
        *others: "ReducedBlock",
    ) -> Tensor:
        """As :meth:`Block.forward`, for this block and ``others`` that work on its choice.

        Where no local step comes between, tokens at work go through all of them and are carried
        back once: the same sum, for what is carried back and reduced again is what it was.
        """
        x = self.around(x, grid, local)
        kept, plan = self.reducer(x, grid, self.norm1)
        if others and not (plan.exact and self.flows(local)):
            return self.onward(x, kept, plan, local, shared, others)[-1]
        z = self.work(kept, plan, local, shared)
        for other in others:
            z, plan = other.reducer(z, plan)
            z = other.work(z, plan, local, shared)
        return plan.restore(z - kept).add_(x)

    def each(
        self, x: Tensor, grid: Grid, local: Local, shared: nn.Module | None, *others: "ReducedBlock"
    ) -> list[Tensor]:
        """All tokens after this block and after each of ``others``."""
        if not others:
            return [self(x, grid, local, shared)]
        x = self.around(x, grid, local)
        z, plan = self.reducer(x, grid, self.norm1)
        return self.onward(x, z, plan, local, shared, others)

    def onward(
        self,
        x: Tensor,
        z: Tensor,
        plan: Plan,
        local: Local,
        shared: nn.Module | None,
        others: Sequence["ReducedBlock"],
    ) -> list[Tensor]:
        """All tokens after each block, carried back and reduced again by the same plan."""
        after = [plan.restore(self.work(z, plan, local, shared) - z).add_(x)]
        for other in others:
            x = other.around(after[-1], plan.grid, local)
            z, plan = other.reducer(plan.reduce(x), plan)
            after.append(plan.restore(other.work(z, plan, local, shared) - z).add_(x))
        return after

    def around(self, x: Tensor, grid: Grid, local: Local) -> Tensor:
        """What all tokens do before any is chosen: look around."""
        return local(x, grid)

    def flows(self, local: Local) -> bool:
        """Whether working tokens may pass to the next block as they are."""
        return local is nothing_local

    def work(self, z: Tensor, plan: Plan, local: Local, shared: nn.Module | None) -> Tensor:
        """The block on its working tokens, ``(B, K, C)``."""
        return self.fed(z + self.drop_path(self.mixer(self.norm1(z), plan.grid, shared, plan)))


class CoarseBlock(ReducedBlock):
    """A whole block, its local step included, on a coarser grid; its update is copied back."""

    def around(self, x: Tensor, grid: Grid, local: Local) -> Tensor:
        """Nothing: it looks around on the coarser grid."""
        return x

    def flows(self, local: Local) -> bool:
        """Always: nothing happens on the full grid."""
        return True

    def work(self, z: Tensor, plan: Any, local: Local, shared: nn.Module | None) -> Tensor:
        """The whole block there."""
        return Block.forward(self, z, plan.coarse, local, shared)


Led = list[tuple[Any, tuple[Any, ...]]]
"""Blocks that choose, each with those that work on its choice."""


def led(blocks: Iterable[nn.Module]) -> Led:
    """Each block that chooses for itself, and those behind it that work on its choice."""
    groups: list[list[nn.Module]] = []
    for block in blocks:
        if groups and isinstance(getattr(block, "reducer", None), Held):
            groups[-1].append(block)
        else:
            groups.append([block])
    return [(first, tuple(others)) for first, *others in groups]


class OnCoarse(nn.Module):
    """Put before a paper's own block class: the whole block on a coarser grid."""

    norm1: nn.LayerNorm
    reducer: nn.Module

    def forward(self, x: Tensor, grid: Grid, shared: nn.Module | None = None) -> Tensor:
        """``(B, E + H*W, C)`` -> the same shape."""
        z, plan = self.reducer(x, grid, self.norm1)
        return x + plan.restore(super().forward(z, plan.coarse, shared) - z)


class OnScattered(nn.Module):
    """Put before a paper's own block class: the whole block on scattered working tokens."""

    norm1: nn.LayerNorm
    reducer: nn.Module

    def forward(self, x: Tensor, grid: Grid, shared: nn.Module | None = None) -> Tensor:
        """``(B, E + H*W, C)`` -> the same shape."""
        z, plan = self.reducer(x, grid, self.norm1)
        return x + plan.restore(super().forward(z, grid, shared, plan) - z)
