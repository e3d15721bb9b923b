"""A map and its tokens are two views of one memory.

A *map* is ``(B, C, H, W)`` in channels-last memory; its *tokens* are ``(B, H*W, C)``.
In that memory order neither function copies. Class tokens, where a model has them, stand in
front: ``(B, E + H*W, C)``.
"""

import torch.nn.functional as F
from torch import Tensor

from vitrail.layers.trace import one_node

Grid = tuple[int, int]
"""Height and width, counted in tokens."""


def to_tokens(x: Tensor) -> Tensor:
    """``(B, C, H, W)`` -> ``(B, H*W, C)``; free where ``x`` is channels-last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def to_map(x: Tensor, grid: Grid) -> Tensor:
    """``(B, H*W, C)`` -> ``(B, C, H, W)`` in channels-last memory; free where ``x`` is dense.

    Tokens and images are first folded into one axis: a slice behind a class token keeps the
    stride of the longer sequence, and a convolution that meets that stride leaves its fast path
    (twelve times slower for one image of 56 x 56 x 64 on a CPU).
    """
    images, _, channels = x.shape
    return x.flatten(0, 1).view(images, grid[0], grid[1], channels).permute(0, 3, 1, 2)


def grid_of(x: Tensor) -> Grid:
    """``(H, W)`` of a map."""
    return x.shape[-2], x.shape[-1]


@one_node
def pad_to(x: Tensor, multiple: int) -> Tensor:
    """A map grown at the right and bottom with zeros until both sides divide by ``multiple``."""
    height, width = grid_of(x)
    down, right = -height % multiple, -width % multiple
    return F.pad(x, (0, right, 0, down)) if down or right else x


def cells(grid: Grid, cell: int | Grid) -> Grid:
    """How many cells of a side, or of a height and width, cover a grid, ragged ones included."""
    down, right = (cell, cell) if isinstance(cell, int) else cell
    return -(-grid[0] // down), -(-grid[1] // right)


@one_node
def resample(x: Tensor, size: Grid) -> Tensor:
    """Adaptive average pooling, to smaller maps or larger; free where the size is right."""
    return x if grid_of(x) == size else F.adaptive_avg_pool2d(x, size)
