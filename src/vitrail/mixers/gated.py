"""Gated positional self-attention: d'Ascoli et al., "ConViT", ICML 2021 (arXiv 2103.10697).

Each head blends what tokens say with where they lie, and starts as one tap of a convolution::

    A = (1 - g) softmax(q k^T / sqrt(d)) + g P        g = sigmoid(gate), one a head
    P_ij = softmax_j(a dx + b dy + c (dx^2 + dy^2))   (dx, dy) from token i to token j

``P`` factorises: a sum of a function of dx and one of dy in the exponent is a product of two
softmaxes, one along the columns and one along the rows. So ``P v`` is two small products, for a
whole batch at once; the original forms ``P`` (N x N) anew for every image. Equal to rounding.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrail.layers.attend import attend, attention_weights, join_heads, split_heads
from vitrail.layers.grid import Grid
from vitrail.layers.plan import Plan
from vitrail.mixers.base import Mixer, MixerSpec
from vitrail.mixers.softmax import check_heads, key_bias
from vitrail.specs import Place


@dataclass(frozen=True, kw_only=True)
class Gated(MixerSpec, name="gated"):
    """ConViT's attention: a learned gate between content and position, from a convolution's start.

    ``strength`` is how sharply each head looks at its tap at first (the paper's alpha). The
    paper's stages have no class token; here one attends, and is attended to, by content alone.
    """

    strength: float = 1.0

    def build(self, place: Place) -> "GatedAttention":
        """Serves every place whose heads divide its channels."""
        check_heads(self, place)
        return GatedAttention(place.dim, place.heads, self.strength)

    def macs(self, place: Place, working: int | None = None) -> int:
        """Four projections, two products of tokens with tokens, two along rows and columns."""
        tokens = place.tokens if working is None else working
        height, width = place.grid
        along = height * width * (height + width) * place.dim
        return 4 * tokens * place.dim**2 + 2 * tokens**2 * place.dim + along


class GatedAttention(Mixer):
    """``position`` ``(heads, 3)`` holds a, b, c of each head, ``gate`` ``(heads,)`` its gate."""

    def __init__(self, dim: int, heads: int, strength: float) -> None:
        super().__init__()
        self.heads, self.strength = heads, strength
        self.qk = nn.Linear(dim, 2 * dim, bias=False)
        self.v = nn.Linear(dim, dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.position = nn.Parameter(torch.empty(heads, 3))
        self.gate = nn.Parameter(torch.ones(heads))
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Values pass as they are; the first k * k heads look at the taps of a k x k kernel."""
        nn.init.eye_(self.v.weight)
        nn.init.trunc_normal_(self.position, std=0.02)
        kernel = int(self.heads**0.5)
        taps = torch.arange(kernel) - ((kernel - 1) / 2 if kernel % 2 == 0 else kernel // 2)
        down, right = taps.repeat(kernel), taps.repeat_interleave(kernel)
        rows = torch.stack((2 * right, 2 * down, -torch.ones(kernel**2)), 1)
        self.position[: kernel**2] = self.strength * rows.to(self.position)

    def forward(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Tensor:
        """See :class:`~vitrail.mixers.base.Mixer`."""
        q, k = (split_heads(t, self.heads) for t in self.qk(x).chunk(2, 2))
        v = self.v(x)
        content = join_heads(attend(q, k, split_heads(v, self.heads), key_bias(plan, q)))
        full = v if plan is None else plan.restore(v)
        extra = full.shape[1] - grid[0] * grid[1]
        local = self.attend_by_position(full[:, extra:], grid)
        if plan is not None:
            local = plan.reduce(torch.cat((full[:, :extra], local), 1))[:, extra:]
        mixed = torch.lerp(content[:, extra:], local, self.gates(v))
        return self.proj(torch.cat((content[:, :extra], mixed), 1) if extra else mixed)

    def gates(self, like: Tensor) -> Tensor:
        """``(C,)``: the share of position in each channel."""
        return self.gate.sigmoid().to(like.dtype).repeat_interleave(like.shape[2] // self.heads)

    def tables(self, grid: Grid) -> tuple[Tensor, Tensor]:
        """Softmaxes along rows ``(heads, H, H)`` and columns ``(heads, W, W)``, in float32."""
        right, down, square = self.position.float().unbind(1)
        return axis_table(down, square, grid[0]), axis_table(right, square, grid[1])

    def attend_by_position(self, v: Tensor, grid: Grid) -> Tensor:
        """``P v``: ``(B, H*W, C)`` -> the same, along columns and then along rows."""
        down, right = (t.to(v.dtype) for t in self.tables(grid))
        v = v.unflatten(2, (self.heads, -1)).unflatten(1, grid)
        v = apply_axis(right, v.permute(3, 2, 0, 1, 4))  # heads, W | B, H, d
        v = apply_axis(down, v.permute(0, 3, 2, 1, 4))  # heads, H | B, W, d
        return v.permute(2, 1, 3, 0, 4).flatten(1, 2).flatten(2)

    def explain(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Mapping[str, Tensor]:
        """``content`` ``(B, heads, K, K)``, ``position`` ``(heads, H*W, H*W)``, ``gate``; and
        what they blend to: ``attention`` ``(B, heads, K, K)``, ``values``.
        """
        q, k = (split_heads(t, self.heads) for t in self.qk(x).chunk(2, 2))
        down, right = self.tables(grid)
        whole = torch.einsum("hij,hkl->hikjl", down, right).flatten(3).flatten(1, 2)
        content, gate = attention_weights(q, k, key_bias(plan, q)), self.gate.sigmoid()
        return {
            "content": content,
            "position": whole,
            "gate": gate,
            "attention": blend(content, whole.to(content.dtype), gate.to(content.dtype), plan),
            "values": split_heads(self.v(x), self.heads),
        }


def blend(content: Tensor, position: Tensor, gate: Tensor, plan: Plan | None) -> Tensor:
    """``(1 - g) content + g position`` as one matrix; class tokens go by content alone."""
    images, heads, tokens, _ = content.shape
    local = position.expand(images, -1, -1, -1)
    if plan is not None:
        identity = torch.eye(tokens - plan.extra, device=content.device, dtype=content.dtype)
        full = plan.restore_grid(identity.expand(images, -1, -1))
        on_grid = torch.einsum("hnm,bmk->bnhk", position, full).flatten(2)
        local = plan.reduce_grid(on_grid).unflatten(2, (heads, -1)).transpose(1, 2)
    extra = tokens - local.shape[2]
    gate = gate[:, None, None]
    mixed = content.clone()
    mixed[:, :, extra:] = (1 - gate) * content[:, :, extra:]
    mixed[:, :, extra:, extra:] += gate * local
    return mixed


def axis_table(slope: Tensor, square: Tensor, side: int) -> Tensor:
    """``softmax_j(slope (j - i) + square (j - i)^2)``, ``(heads, side, side)``."""
    place = torch.arange(side, device=slope.device, dtype=slope.dtype)
    step = place[None, :] - place[:, None]
    return (slope[:, None, None] * step + square[:, None, None] * step**2).softmax(-1)


def apply_axis(table: Tensor, v: Tensor) -> Tensor:
    """``(heads, M, M)`` on the second axis of ``(heads, M, ...)``."""
    return torch.bmm(table, v.flatten(2)).view(v.shape)
