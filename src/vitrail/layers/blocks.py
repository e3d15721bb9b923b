"""The plain block, and the blocks of a stage.

x <- x + mixer(norm1(x))              how tokens meet
x <- x + mlp(norm2(x))                what each makes of it

With a reducer, a stage's container runs a block on working tokens:

x <- local(x)                         how a place sees its neighbours
z, plan <- reducer(x)                 which tokens do the work
x <- x + restore(block(z) - z)        every token keeps its own residual stream
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vitrail.layers.drop import DropPath
from vitrail.layers.feed import Mlp
from vitrail.layers.fused import add_in_slices, may_fuse
from vitrail.layers.grid import Grid
from vitrail.layers.plan import Plan

Local = Callable[[Tensor, Grid], Tensor]
"""A step before every block that the blocks of a stage share, such as CoaT's convolution."""


class Block(nn.Module):
    """Mix the tokens, mix the channels; pre-norm, with residuals."""

    def __init__(
        self,
        dim: int,
        mixer: nn.Module,
        mlp: Mlp,
        drop_path: float = 0.0,
        eps: float = 1e-6,
        norm: Callable[..., nn.Module] = nn.LayerNorm,
    ) -> None:
        super().__init__()
        self.norm1 = norm(dim, eps=eps)
        self.mixer = mixer
        self.norm2 = norm(dim, eps=eps)
        self.mlp = mlp
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Tensor:
        """``(B, K, C)`` -> the same shape; arguments as :meth:`vitrail.mixers.Mixer.forward`'s."""
        if type(self.mlp).forward is Mlp.forward and may_fuse(self, x, self.mlp.linears()):
            return self._fused(x, grid, shared, plan)
        x = x + self.drop_path(self.mixer(self.norm1(x), grid, shared, plan))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _fused(self, x: Tensor, grid: Grid, shared: nn.Module | None, plan: Plan | None) -> Tensor:
        """Norm, feed-forward and residual of some tokens at a time, in the cache."""
        x = x + self.mixer(self.norm1(x), grid, shared, plan)
        return add_in_slices(x, self.feed, self.mlp.fc1.out_features)

    def feed(self, x: Tensor) -> Tensor:
        """What the feed-forward adds, each token by itself."""
        return self.mlp.at_once(self.norm2(x))


class HeldChoice(nn.Module):
    """In place of a reducer: the block works on the tokens that an earlier block chose."""

    def forward(self, z: Tensor, plan: Plan) -> tuple[Tensor, Plan]:
        """Working tokens ``(B, K, C)`` and their plan, as they are."""
        return z, plan


def attach_reducer(block: Any, reducer: nn.Module, coarse: bool) -> None:
    """Let a stage run a block on a reducer's working tokens.

    Args:
        block: ``(z, grid, shared, plan) -> z``, with its first norm as ``norm1``.
        reducer: chooses them, or :class:`HeldChoice`.
        coarse: whether they lie on a coarser grid, so that the block runs there as a whole, its
            local step included; otherwise the local step sees the full grid first.
    """
    block.reducer, block.coarse = reducer, coarse


def has_reducer(block: nn.Module) -> bool:
    """Whether a block runs on working tokens."""
    return getattr(block, "reducer", None) is not None


class BlockList(nn.ModuleList):
    """Blocks that can be recomputed in the backward pass, to save memory."""

    checkpointing = False

    def run(self, block: Callable[..., Any], *args: Any) -> Any:
        """One block, recomputed in the backward pass where that is on."""
        if self.recomputes:
            return checkpoint(block, *args, use_reentrant=False)
        return block(*args)

    @property
    def recomputes(self) -> bool:
        """Whether blocks are recomputed in a backward pass to come."""
        return self.checkpointing and torch.is_grad_enabled()


class Chain(BlockList):
    """Blocks on maps, one after the other."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, width, H, W)`` -> what the last block gives."""
        for block in self:
            x = self.run(block, x)
        return x


class Blocks(BlockList):
    """The blocks of one stage on tokens; those with a reducer run on its working tokens.

    It alone knows how tokens are reduced and restored, and how blocks hold an earlier one's choice.
    """

    def forward(
        self,
        x: Tensor,
        grid: Grid,
        *,
        local: Local | None = None,
        shared: nn.Module | None = None,
        first: int = 0,
        last: int | None = None,
    ) -> Tensor:
        """``(B, E + H*W, C)`` -> the same shape.

        Args:
            x: tokens, class tokens in front.
            grid: ``(H, W)`` of the others.
            local: the stage's step before each block, if it has one.
            shared: what the stage's mixers hold in common.
            first: the block to begin with.
            last: the block to stop before; None for all.
        """
        stage = StagePass(grid, local, shared)
        for group in self.groups(first, last):
            if has_reducer(group[0]) or self.recomputes:
                x = self.run(stage.run_group, group, x)
            else:
                x = group[0](x if local is None else local(x, grid), grid, shared)
        return x

    def states(
        self,
        x: Tensor,
        grid: Grid,
        *,
        local: Local | None = None,
        shared: nn.Module | None = None,
        first: int = 0,
        last: int | None = None,
    ) -> list[Tensor]:
        """All tokens after every block; arguments as :meth:`forward`'s."""
        stage, after = StagePass(grid, local, shared), [x]
        for group in self.groups(first, last):
            after += self.run(stage.group_states, group, after[-1])
        return after[1:]

    def groups(self, first: int, last: int | None) -> list[list[Any]]:
        """Each block that chooses for itself, with those behind it that hold its choice."""
        groups: list[list[Any]] = []
        for block in list(self)[first:last]:
            if groups and isinstance(getattr(block, "reducer", None), HeldChoice):
                groups[-1].append(block)
            else:
                groups.append([block])
        return groups


class StagePass(NamedTuple):
    """One pass through a stage: what its blocks share.

    A *group* is a block that chooses working tokens, and those behind it that hold its choice.
    """

    grid: Grid
    local: Local | None
    shared: nn.Module | None

    def run_group(self, group: Sequence[Any], x: Tensor) -> Tensor:
        """All tokens after a group, ``(B, E + H*W, C)``.

        Where no local step on the full grid comes between, working tokens go through all its
        blocks and are restored once: the same sum, for what is restored and reduced again is what
        it was.
        """
        block, *held = group
        if not has_reducer(block):
            return block(self.apply_local(x, self.grid), self.grid, self.shared)
        x, z, plan = self.reduce(block, x)
        if held and not (plan.exact and (block.coarse or self.local is None)):
            return self.restore_each(group, x, z, plan)[-1]
        y = self.run_reduced(block, z, plan)
        for other in held:
            y, plan = other.reducer(y, plan)
            y = self.run_reduced(other, y, plan)
        return plan.restore(y - z).add_(x)

    def group_states(self, group: Sequence[Any], x: Tensor) -> list[Tensor]:
        """All tokens after each block of a group."""
        if len(group) == 1:
            return [self.run_group(group, x)]
        return self.restore_each(group, *self.reduce(group[0], x))

    def restore_each(self, group: Sequence[Any], x: Tensor, z: Tensor, plan: Plan) -> list[Tensor]:
        """The same: tokens are restored after each block, and reduced again by the same plan."""
        after = [plan.restore(self.run_reduced(group[0], z, plan) - z).add_(x)]
        for block in group[1:]:
            x = after[-1] if block.coarse else self.apply_local(after[-1], self.grid)
            z, plan = block.reducer(plan.reduce(x), plan)
            after.append(plan.restore(self.run_reduced(block, z, plan) - z).add_(x))
        return after

    def reduce(self, block: Any, x: Tensor) -> tuple[Tensor, Tensor, Plan]:
        """All tokens as the reducer reads them, its working tokens, and its plan."""
        x = x if block.coarse else self.apply_local(x, self.grid)
        z, plan = block.reducer(x, self.grid, block.norm1)
        return x, z, plan

    def run_reduced(self, block: Any, z: Tensor, plan: Any) -> Tensor:
        """A block on working tokens ``(B, K, C)``; on a coarser grid, with its local step."""
        if block.coarse:
            return block(self.apply_local(z, plan.coarse), plan.coarse, self.shared)
        return block(z, plan.grid, self.shared, plan)

    def apply_local(self, x: Tensor, grid: Grid) -> Tensor:
        """The stage's local step, if it has one."""
        return x if self.local is None else self.local(x, grid)
