"""Select some tokens, gather them, scatter them back: pure functions, and a plan made of them.

``index`` ``(B, K)`` holds places of a grid's ``N = H * W`` tokens in rising order. K is a number
known from the grid, so every shape is static: this compiles, and exports as TopK, Gather and
Scatter. Used by FilterViT (Sun and Chen 2024, arXiv 2410.22709) in place of a boolean mask.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vitrail.layers.grid import Grid
from vitrail.layers.plan import Plan
from vitrail.tokens.assignment import flat_assignment


def topk_indices(score: Tensor, count: int) -> Tensor:
    """The places of the ``count`` largest scores, ``(B, N)`` -> ``(B, count)``, rising."""
    return score.topk(count, dim=1, sorted=False).indices.sort(dim=1).values


def stable_topk_indices(score: Tensor, count: int) -> Tensor:
    """:func:`topk_indices` for scores that saturate: of equal ones, the first places are taken.

    Torch's ``topk`` does not say which of them it returns, so tokens are sorted instead. A graph
    keeps ``topk``: ONNX's returns the first, and ONNX has no stable sort.
    """
    if torch.compiler.is_compiling():
        return topk_indices(score, count)
    order = score.sort(dim=1, descending=True, stable=True).indices
    return order[:, :count].sort(dim=1).values


def gather(x: Tensor, index: Tensor) -> Tensor:
    """The tokens at those places, ``(B, N, C)`` -> ``(B, K, C)``."""
    images, tokens, channels = x.shape
    rows = x.flatten(0, 1).index_select(0, flat_assignment(index, tokens))
    return rows.view(images, index.shape[1], channels)


def scatter(x: Tensor, index: Tensor, z: Tensor) -> Tensor:
    """``x`` with those places overwritten by ``z``; a new tensor ``(B, N, C)``."""
    rows = flat_assignment(index, x.shape[1])
    return x.flatten(0, 1).index_copy(0, rows, z.flatten(0, 1)).view_as(x)


def keep_count(keep: float, grid: Grid) -> int:
    """The number of places to keep of a grid, at least one: ``ceil(keep * H * W - 1e-6)``.

    The subtraction undoes rounding: ``256 / 55**2`` of 55 x 55 places is 256, not 257.
    """
    places = grid[0] * grid[1]
    return min(places, max(1, math.ceil(keep * places - 1e-6)))


def lattice(count: int, grid: Grid, device: torch.device) -> Tensor:
    """``count`` places spread evenly, ``(1, count)``: rows of nearly equal length.

    No chance and no table: the deterministic counterpart of a random choice. With
    ``count = H * W`` it is every place.
    """
    height, width = grid
    rows = min(height, count, max(round((count * height / width) ** 0.5), -(-count // width)))
    k = torch.arange(count, device=device)
    row = k * rows // count
    first = -(-row * count // rows)
    length = -(-(row + 1) * count // rows) - first
    down = (2 * row + 1) * height // (2 * rows)
    right = (2 * (k - first) + 1) * width // (2 * length)
    return (down * width + right).unsqueeze(0)


@dataclass(frozen=True)
class Selection(Plan):
    """The selected tokens work, each for itself; the others receive a zero update.

    Attributes:
        index: ``(B, K)`` int, the working places in rising order.
        score: ``(B, H * W)``, the score that they were selected by, or None.
        gate: ``(B, K)``, a factor for their update in :meth:`restore`, or None for one.
    """

    index: Tensor
    score: Tensor | None = None
    gate: Tensor | None = None

    @property
    def single(self) -> bool:
        """Every working token stands for itself alone."""
        return True

    @property
    def exact(self) -> bool:
        """Unless a gate scales the update."""
        return self.gate is None

    @property
    def sizes(self) -> Tensor:
        images, count = self.index.shape
        return torch.ones(images, self.extra + count, device=self.index.device)

    def reduce(self, x: Tensor) -> Tensor:
        selected = gather(x[:, self.extra :], self.index)
        return torch.cat((x[:, : self.extra], selected), 1) if self.extra else selected

    def restore(self, update: Tensor) -> Tensor:
        chosen = update[:, self.extra :]
        if self.gate is not None:
            chosen = chosen * self.gate.to(chosen.dtype).unsqueeze(2)
        rest = update.new_zeros(update.shape[0], self.grid[0] * self.grid[1], update.shape[2])
        spread = scatter(rest, self.index, chosen)
        return torch.cat((update[:, : self.extra], spread), 1) if self.extra else spread

    @property
    def importance(self) -> Tensor | None:
        return self.score
