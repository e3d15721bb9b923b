"""Feed-forwards: what each token makes of itself, alone or with its neighbours on the grid."""

from typing import Any

import torch
from torch import Tensor, nn

from vitrail.layers.conv import ConvActNorm
from vitrail.layers.fused import (
    act_,
    conv_norm,
    feed_slices,
    may_fuse,
    norm_,
    norm_pointwise_norm,
    pointwise,
    pointwise_norm,
    train_slices,
    trains_by_slices,
)
from vitrail.layers.grid import Grid, to_map, to_tokens
from vitrail.layers.position import ConvPosition


class Mlp(nn.Module):
    """Widen, GELU, narrow: ``(B, N, C)`` -> ``(B, N, C)``."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act: nn.Module = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Each token by itself."""
        if may_fuse(self, x, self.linears(), trains=True):
            return self._fused(x)
        return self.fc2(self.act(self.fc1(x)))

    def linears(self) -> tuple[nn.Linear, nn.Linear]:
        """The layers that widen and narrow."""
        return self.fc1, self.fc2

    def _fused(self, x: Tensor) -> Tensor:
        """The wide layer in slices that stay in the cache."""
        layers = self.fc1, self.act, self.fc2
        if not torch.is_grad_enabled():
            return feed_slices(x, *layers)
        if trains_by_slices(x, *layers):
            return train_slices(x, *layers)
        return self.fc2(self.act(self.fc1(x)))

    def at_once(self, x: Tensor) -> Tensor:
        """At inference, without slices: for a caller that cuts them."""
        return self.fc2(act_(self.act, self.fc1(x)))


class InvertedFeedForward(nn.Module):
    """CMT's: widen, ``x + DWConv(x)``, narrow (Guo et al. 2022, equations 7-9)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.widen = ConvActNorm(nn.Conv2d(dim, hidden, 1), nn.GELU(), nn.BatchNorm2d(hidden))
        self.local = ConvPosition(hidden)
        self.act = nn.Sequential(nn.GELU(), nn.BatchNorm2d(hidden))
        self.narrow = nn.Sequential(nn.Conv2d(hidden, dim, 1), nn.BatchNorm2d(dim))

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """``(B, H*W, C)`` -> the same shape."""
        if may_fuse(self, x, self.layers()):
            return self._fused(x, grid)
        x = to_tokens(self.widen(to_map(x, grid)))
        x = self.act(to_map(self.local(x, grid), grid))
        return to_tokens(self.narrow(x))

    def _fused(self, x: Tensor, grid: Grid) -> Tensor:
        """1 x 1 convolutions as matrix products; norms in place or in the last kernel."""
        widen, act1, norm1, act2, norm2, narrow, norm3 = self.layers()
        x = act_(act1, pointwise(x, widen))
        x = act_(act2, self.local(to_tokens(norm_(norm1, to_map(x, grid))), grid))
        return norm_pointwise_norm(x, grid, norm2, narrow, norm3)

    def layers(self) -> tuple[Any, ...]:
        """Convolutions, activations and norms, in order; torch knows a sequence's as modules."""
        return (*self.widen, *self.act, *self.narrow)


class LocalFeedForward(nn.Module):
    """CeiT's LeFF: widen, look around, narrow, a batch norm after each; class tokens untouched."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, hidden, 1)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv3 = nn.Conv2d(hidden, dim, 1)
        self.bn3 = nn.BatchNorm2d(dim)
        self.act = nn.GELU()

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """``(B, E + H*W, C)`` -> the same shape."""
        prefix = x.shape[1] - grid[0] * grid[1]
        return torch.cat((x[:, :prefix], self.feed(x[:, prefix:], grid)), 1)

    def feed(self, x: Tensor, grid: Grid) -> Tensor:
        """``(B, H*W, C)`` -> the same shape: the feed-forward itself."""
        if may_fuse(self, x, tuple(self.children())):
            return self._fused(x, grid)
        x = self.act(self.bn1(self.conv1(to_map(x, grid))))
        x = self.act(self.bn2(self.conv2(x)))
        return to_tokens(self.bn3(self.conv3(x)))

    def _fused(self, x: Tensor, grid: Grid) -> Tensor:
        """Norms inside the kernels, 1 x 1 convolutions as matrix products."""
        x = act_(self.act, pointwise_norm(x, self.conv1, self.bn1))
        x = act_(self.act, conv_norm(to_map(x, grid), self.conv2, self.bn2))
        return pointwise_norm(to_tokens(x), self.conv3, self.bn3)
