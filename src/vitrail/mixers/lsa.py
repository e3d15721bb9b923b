"""Locality self-attention: Lee, Lee, Song, "Vision Transformer for Small-Size Datasets"
(arXiv 2112.13492); released code aanna0701/SPT_LSA_ViT.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrail.layers.attend import attend, attention_weights, join_heads, split_heads
from vitrail.layers.grid import Grid
from vitrail.layers.plan import Plan
from vitrail.mixers.base import Mixer, MixerSpec
from vitrail.mixers.softmax import check_heads
from vitrail.specs import Place


@dataclass(frozen=True, kw_only=True)
class Lsa(MixerSpec, name="lsa"):
    """Softmax attention with a learned temperature a head, in which no token attends to itself.

    Small data leave softmax too smooth, and a token is always most like itself: both keep
    attention from being local. ``bias``: whether q, k, v have one (not in the paper's ViT).
    """

    bias: bool = False

    def build(self, place: Place) -> "LocalityAttention":
        """Serves every place whose heads divide its channels."""
        check_heads(self, place)
        return LocalityAttention(place.dim, place.heads, self.bias)

    def macs(self, place: Place, working: int | None = None) -> int:
        """As softmax attention."""
        tokens = place.tokens if working is None else working
        return 4 * tokens * place.dim**2 + 2 * tokens**2 * place.dim


class LocalityAttention(Mixer):
    """``softmax(t_h q k^T, without the diagonal) v``; ``scale`` holds ``t``, ``1 / sqrt(d)`` first.

    Where a working token stands for ``n`` tokens, each of them attends to its ``n - 1`` twins.
    """

    def __init__(self, dim: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias)
        self.proj = nn.Linear(dim, dim)
        self.scale = nn.Parameter(torch.full((heads,), (dim // heads) ** -0.5))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries with their temperature, keys and values, ``(B, heads, N, d)`` each."""
        q, k, v = (split_heads(t, self.heads) for t in self.qkv(x).chunk(3, 2))
        return q * self.scale.to(q.dtype).view(-1, 1, 1), k, v

    def forward(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Tensor:
        """See :class:`~vitrail.mixers.base.Mixer`."""
        q, k, v = self.project(x)
        return self.proj(join_heads(attend(q, k, v, self_mask(plan, q), 1.0)))

    def explain(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Mapping[str, Tensor]:
        """``attention`` ``(B, heads, K, K)``: rows sum to one, the diagonal is zero; ``values``."""
        q, k, v = self.project(x)
        return {"attention": attention_weights(q, k, self_mask(plan, q), 1.0), "values": v}


def self_mask(plan: Plan | None, like: Tensor) -> Tensor:
    """The bias that takes each token from its own keys: ``(1, 1, K, K)`` or ``(B, 1, K, K)``.

    It is large, not infinite: a token that is alone attends to itself, as nothing else is there.
    """
    lowest = torch.finfo(like.dtype).min / 2
    itself = torch.eye(like.shape[2], device=like.device, dtype=torch.bool)
    if plan is None:
        return (itself.to(like.dtype) * lowest)[None, None]
    sizes = plan.sizes.float()
    more = sizes - 1  # below zero for the smallest soft clusters
    twins = torch.where(more > 0, more.clamp(min=1e-6).log(), lowest)
    bias = torch.where(itself, twins.unsqueeze(1), sizes.log().unsqueeze(1))
    return bias.to(like.dtype).unsqueeze(1)
