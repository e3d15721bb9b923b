"""Softmax attention that knows offsets: CoAtNet's relative attention.

Dai, Liu, Le, Tan, "CoAtNet: Marrying Convolution and Attention for All Data Sizes", NeurIPS 2021
(arXiv 2106.04803), equation 3. One scalar per head and offset. The paper's ablations are other
specs: no bias at all is ``softmax``, the bias after the softmax is ``relative(after=True)``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.attend import attend, attention_weights, join_heads
from vitrail.layers.grid import Grid
from vitrail.layers.plan import Plan
from vitrail.layers.position import Table, square
from vitrail.mixers.base import MixerSpec, count_class_tokens
from vitrail.mixers.softmax import QkvAttention, check_heads
from vitrail.specs import Place


@dataclass(frozen=True, kw_only=True)
class Relative(MixerSpec, name="relative"):
    """Softmax attention plus a learned bias for the offset between query and key.

    ``y = proj(softmax(q k^T / sqrt(d) + w[i - j]) v)``; with ``after`` the bias is added behind
    the softmax (``w`` then mixes like a depthwise convolution over the whole grid).
    ``by="table"`` learns ``(2H - 1) x (2W - 1)`` numbers a head and resizes them bilinearly as a
    picture for another grid; ``by="mlp"`` computes them from log offsets by a network of
    ``hidden`` units (timm's ``rmlp`` models, after Swin v2), for any grid. Class tokens have no
    offset and get no bias.
    """

    after: bool = False
    by: str = "table"
    hidden: int = 512

    def build(self, place: Place) -> "RelativeAttention":
        """Serves tokens that lie on the grid."""
        return self.build_between(place, place.dim, place.dim)

    def build_between(self, place: Place, in_dim: int, out_dim: int) -> "RelativeAttention":
        """Its own projections change the width."""
        check_heads(self, place)
        if place.scattered:
            raise self.refuse(
                place,
                "working tokens that left the grid have no offsets",
                "use mixer 'softmax' with this reducer, or reducer 'pool'",
            )
        kinds: dict[str, Callable[[], nn.Module]] = {
            "table": lambda: TableOffsets(place.heads, place.grid),
            "mlp": lambda: MlpOffsets(place.heads, self.hidden),
        }
        if self.by not in kinds or self.hidden < 1:
            raise self.refuse(
                place, "the options do not fit", "by is 'table' or 'mlp', hidden at least 1"
            )
        return RelativeAttention(place, in_dim, out_dim, kinds[self.by](), self.after)

    def macs(self, place: Place, working: int | None = None) -> int:
        """Projections, two products of tokens with tokens (three with ``after``), the network."""
        tokens = place.tokens if working is None else working
        offsets = (2 * place.grid[0] - 1) * (2 * place.grid[1] - 1)
        network = offsets * self.hidden * (2 + place.heads) if self.by == "mlp" else 0
        products = (2 + self.after) * tokens**2 * place.dim
        return 4 * tokens * place.dim**2 + products + network


class TableOffsets(Table):
    """One learned number for each head and offset."""

    def __init__(self, heads: int, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        table = torch.empty(heads, 2 * grid[0] - 1, 2 * grid[1] - 1)
        self.table = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))

    def forward(self, grid: Grid) -> Tensor:
        """The picture of offsets for a grid, ``(heads, 2H - 1, 2W - 1)``."""
        return resize_offsets(self.table, grid)

    def fit_table(self, table: Tensor) -> Tensor:
        """Another grid's picture of offsets, or timm's flat ``(offsets, heads)``, for this grid.

        A flat table does not say its sides: they are this grid's, or else equal.

        Raises:
            UserError: they can be neither.
        """
        if table.dim() == 2:
            same = table.shape[0] == self.table[0].numel()
            sides = self.table.shape[1:] if same else square(table.shape[0], "a bias table")
            table = table.T.unflatten(1, sides)
        return resize_offsets(table, self.grid)


def resize_offsets(table: Tensor, grid: Grid) -> Tensor:
    """A table of offsets for another grid, bilinearly; the same grid returns the same table."""
    size = (2 * grid[0] - 1, 2 * grid[1] - 1)
    if table.shape[1:] == size:
        return table
    return F.interpolate(table.unsqueeze(0), size, mode="bilinear").squeeze(0)


class MlpOffsets(nn.Module):
    """A small network from signed log offsets to one number a head.

    Without the dropout that timm trains it with.
    """

    def __init__(self, heads: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(2, hidden)
        self.fc2 = nn.Linear(hidden, heads)

    def forward(self, grid: Grid) -> Tensor:
        """The picture of offsets for a grid, ``(heads, 2H - 1, 2W - 1)``."""
        like = self.fc1.weight
        axes = [torch.arange(1 - s, s, device=like.device, dtype=like.dtype) for s in grid]
        places = torch.stack(torch.meshgrid(*axes, indexing="ij"), 2)
        places = places.sign() * places.abs().log1p()
        return self.fc2(self.fc1(places).relu()).permute(2, 0, 1)


def reversed_bias(offsets: Tensor, grid: Grid, extra: int) -> Tensor:
    """``w[i - j]`` for all queries ``i`` and the keys ``j`` in reverse: ``(1, heads, N, N)``.

    The last key comes first because then every row of the matrix is a run of the picture, and
    the whole one strided copy: no index, and on a CPU three to five times faster than a gather.
    Class tokens, first among queries and last among reversed keys, get zeros.
    """
    height, width = grid
    windows = offsets.unfold(1, height, 1).unfold(2, width, 1)
    bias = windows.reshape(1, offsets.shape[0], height * width, height * width)
    return F.pad(bias, (0, extra, extra, 0)) if extra else bias


class RelativeAttention(QkvAttention):
    """Multi-head attention with a bias before the softmax, or ``after`` it as in the ablation."""

    def __init__(
        self, place: Place, in_dim: int, out_dim: int, offsets: nn.Module, after: bool
    ) -> None:
        super().__init__(place.dim, place.heads, in_dim=in_dim, out_dim=out_dim)
        self.offsets, self.after = offsets, after

    def heads_and_bias(self, x: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries, keys and values ``(B, heads, N, d)``, and the bias; the last two reversed."""
        q, k, v = self.project(x)
        bias = reversed_bias(self.offsets(grid), grid, count_class_tokens(x, grid))
        return q, k.flip(2), v.flip(2), bias.to(q.dtype)

    def forward(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Tensor:
        """See :class:`~vitrail.mixers.base.Mixer`."""
        q, k, v, bias = self.heads_and_bias(x, grid)
        mixed = attend(q, k, v) + bias @ v if self.after else attend(q, k, v, bias)
        return self.proj(join_heads(mixed))

    def explain(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Mapping[str, Tensor]:
        """``attention`` ``(B, heads, N, N)``: rows sum to one unless ``after``; ``values``."""
        q, k, v, bias = self.heads_and_bias(x, grid)
        if self.after:
            weights = attention_weights(q, k) + bias
        else:
            weights = attention_weights(q, k, bias)
        return {"attention": weights.flip(3), "values": v.flip(2)}
