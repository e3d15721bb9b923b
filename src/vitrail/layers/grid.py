"""A map and its tokens are two views of one memory.

A *map* is ``(B, C, H, W)`` in channels-last memory; its *tokens* are ``(B, H*W, C)``.
In that memory order neither function copies. Class tokens, where a model has them, stand in
front: ``(B, E + H*W, C)``.
"""

import torch.nn.functional as F
from torch import Tensor

Grid = tuple[int, int]
"""Height and width, counted in tokens."""


def to_tokens(x: Tensor) -> Tensor:
    """``(B, C, H, W)`` -> ``(B, H*W, C)``."""
    return x.flatten(2).transpose(1, 2)


def to_map(x: Tensor, grid: Grid) -> Tensor:
    """``(B, H*W, C)`` -> ``(B, C, H, W)`` in channels-last memory."""
    return x.transpose(1, 2).unflatten(2, grid)


def grid_of(x: Tensor) -> Grid:
    """``(H, W)`` of a map."""
    return x.shape[-2], x.shape[-1]


def pad_to(x: Tensor, multiple: int) -> Tensor:
    """A map grown at the right and bottom with zeros until both sides divide by ``multiple``."""
    height, width = grid_of(x)
    down, right = -height % multiple, -width % multiple
    return F.pad(x, (0, right, 0, down)) if down or right else x
