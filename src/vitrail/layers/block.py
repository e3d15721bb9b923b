"""The plain block and its parts.

x <- local(x)                         how a place sees its neighbours
z, plan <- reducer(x)                 which tokens do the work
u <- mixer(norm1(z))                  how the working tokens meet
u <- u + mlp(norm2(z + u))            what each makes of it
x <- x + restore(u)
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.layers.feed import feed_by_slices, pays_in_slices, slices
from vitrail.layers.grid import Grid

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
        return self.fc2(activate(self.act, self.fc1(x)))


def activate(act: nn.Module, hidden: Tensor) -> Tensor:
    """``act(hidden)``; at inference GELU takes the memory that ``hidden`` leaves."""
    if torch.is_grad_enabled() or type(act) is not nn.GELU:
        return act(hidden)
    return torch.ops.aten.gelu_(hidden, approximate=act.approximate)


def at_inference(x: Tensor) -> bool:
    """Whether ``x`` passes through eager layers on a CPU without gradient, where memory traffic
    decides and no compiler helps."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    return x.device.type == "cpu"


def add_by_slices(x: Tensor, branch: Callable[[Tensor], Tensor], hidden: int) -> Tensor:
    """``x + branch(x)`` for a branch that treats every token alone, ``(B, N, C)``.

    At inference on a CPU the tokens pass in slices of :data:`~vitrail.layers.feed.SLICE_BYTES` of
    hidden layer.
    """
    if not at_inference(x):
        return x + branch(x)
    rows = x.flatten(0, 1)
    count = slices(rows.shape[0], hidden, x.element_size())
    out = torch.empty_like(rows)
    for part, into in zip(rows.chunk(count), out.chunk(count), strict=True):
        torch.add(part, branch(part), out=into)
    return out.view_as(x)


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

    def fed(self, x: Tensor) -> Tensor:
        """``x`` and its feed-forward branch."""
        if self.training:
            return x + self.drop_path(self.feed(x))
        return add_by_slices(x, self.feed, self.mlp.fc1.out_features)

    def feed(self, x: Tensor) -> Tensor:
        """The feed-forward branch, norm included."""
        return self.mlp(self.norm2(x))


class ReducedBlock(Block):
    """Attention and feed-forward on working tokens that need not lie on a grid.

    The local step sees the full grid first. Every token keeps its own residual stream; only the
    block's update is shared, so dense heads keep sharp maps.
    """

    def __init__(self, reducer: nn.Module, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.reducer = reducer

    def forward(
        self, x: Tensor, grid: Grid, local: Local = nothing_local, shared: nn.Module | None = None
    ) -> Tensor:
        """As :meth:`Block.forward`."""
        x = local(x, grid)
        z, plan = self.reducer(x, grid, self.norm1)
        fed = self.fed(z + self.drop_path(self.mixer(self.norm1(z), grid, shared, plan)))
        return plan.restore(fed - z).add_(x)


class CoarseBlock(ReducedBlock):
    """A whole block, its local step included, on a coarser grid; its update is copied back."""

    def forward(
        self, x: Tensor, grid: Grid, local: Local = nothing_local, shared: nn.Module | None = None
    ) -> Tensor:
        """As :meth:`Block.forward`."""
        z, plan = self.reducer(x, grid, self.norm1)
        return x + plan.restore(Block.forward(self, z, plan.coarse, local, shared) - z)


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
