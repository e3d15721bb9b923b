"""Linear attention: Katharopoulos, Vyas, Pappas, Fleuret, "Transformers are RNNs: Fast
Autoregressive Transformers with Linear Attention", ICML 2020 (arXiv 2006.16236), equations 4-7.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrail.layers.attend import join_heads
from vitrail.layers.grid import Grid
from vitrail.layers.plan import Plan
from vitrail.mixers.base import MixerSpec
from vitrail.mixers.softmax import QkvAttention, check_heads
from vitrail.specs import Place


@dataclass(frozen=True, kw_only=True)
class Linear(MixerSpec, name="linear"):
    """A kernel in place of the softmax: keys and values are summed before queries ask.

    ``y = proj(f(q) (f(k)^T v) / (f(q) sum f(k)))``, ``f(x) = elu(x) + 1``, positive; linear in
    tokens. Unlike in ``conv_attention`` each row of its matrix is an average: weights are positive
    and sum to one.
    """

    def build(self, place: Place) -> "LinearAttention":
        """Serves every place whose heads divide its channels."""
        return self.build_between(place, place.dim, place.dim)

    def build_between(self, place: Place, in_dim: int, out_dim: int) -> "LinearAttention":
        """Its own projections change the width."""
        check_heads(self, place)
        return LinearAttention(place.dim, place.heads, in_dim=in_dim, out_dim=out_dim)

    def macs(self, place: Place, working: int | None = None) -> int:
        """Four projections, two products of ``d x d`` a head, and the rows' sums."""
        tokens = place.tokens if working is None else working
        head = place.dim // place.heads
        return 4 * tokens * place.dim**2 + tokens * place.dim * (2 * head + 1)


class LinearAttention(QkvAttention):
    """Multi-head linear attention; keys that stand for many tokens count so often."""

    def forward(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Tensor:
        """See :class:`~vitrail.mixers.base.Mixer`."""
        q, k, v = self.project(x)
        q, k = kernel(q), self.weigh_keys(k, plan)
        mixed = q @ (k.mT @ v) / (q @ k.sum(2).unsqueeze(3))
        return self.proj(join_heads(mixed))

    def weigh_keys(self, k: Tensor, plan: Plan | None) -> Tensor:
        """``f(k)`` times the size of its token, over the sum of sizes, so that sums stay small."""
        k = kernel(k)
        if plan is None or plan.single:
            return k / k.shape[2]
        return k * (plan.sizes / plan.sizes.sum(1, keepdim=True)).to(k.dtype)[:, None, :, None]

    def explain(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Mapping[str, Tensor]:
        """``attention`` ``(B, heads, K, K)``, formed nowhere else: rows sum to one; ``values``."""
        q, k, v = self.project(x)
        weights = kernel(q) @ self.weigh_keys(k, plan).mT
        return {"attention": weights / weights.sum(3, keepdim=True), "values": v}


def kernel(x: Tensor) -> Tensor:
    """``elu(x) + 1``, as ``exp`` where that is below one: no digits cancel, none becomes zero."""
    return torch.where(x > 0, x + 1, x.clamp(max=0).exp())
