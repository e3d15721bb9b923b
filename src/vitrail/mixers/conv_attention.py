"""Conv-attention: factorised attention with convolutional relative position.

Xu, Xu, Chang, Tu, "Co-Scale Conv-Attentional Image Transformers", ICCV 2021 (arXiv 2104.06399),
section 3; wiring as in the released code (mlpc-ucsd/CoaT 220d31f, ``FactorAtt_ConvRelPosEnc``).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from vitrail.layers.attend import attend_factorised, project, softmax_over_tokens, split_heads
from vitrail.layers.grid import Grid
from vitrail.layers.plan import Plan
from vitrail.layers.position import ConvRelative
from vitrail.mixers.base import Mixer, MixerSpec
from vitrail.mixers.softmax import check_heads
from vitrail.specs import Place


@dataclass(frozen=True, kw_only=True)
class ConvAttention(MixerSpec, name="conv_attention", old_names=("conv",)):
    """CoaT's conv-attention, linear in tokens: keys are summed over tokens before queries ask.

    ``G = softmax_tokens(k)^T v`` is ``d x d`` a head; ``y = proj(q G / sqrt(d) + q * DWConv(v))``.
    The class token takes part in ``G`` and gets no convolution. The stage's blocks share the
    convolutions: heads split over ``windows`` in the ratio 2 : 3 : 3, as in the paper for eight.
    """

    windows: tuple[int, ...] = (3, 5, 7)
    shares: tuple[int, ...] = (2, 3, 3)

    def build(self, place: Place) -> "FactorisedAttention":
        """Serves every place whose heads divide its channels."""
        check_heads(self, place)
        return FactorisedAttention(place.dim, place.heads)

    def build_shared(self, place: Place) -> ConvRelative:
        """The depthwise convolutions of a stage (CRPE)."""
        if len(self.windows) != len(self.shares) or any(k % 2 == 0 for k in self.windows):
            raise self.refuse(place, "windows must be odd, one share each", "e.g. windows=(3, 5)")
        return ConvRelative(place.dim // place.heads, share_heads(self, place.heads))

    def macs(self, place: Place, working: int | None = None) -> int:
        """Projections, the two small products, the convolutions on the full grid."""
        tokens = place.tokens if working is None else working
        return (
            4 * tokens * place.dim**2
            + 2 * tokens * place.dim * (place.dim // place.heads)
            + relative_macs(self, place)
        )


def share_heads(spec: ConvAttention, heads: int) -> tuple[tuple[int, int], ...]:
    """``((window, heads), ...)``: heads dealt in the ratio of the shares, none left over."""
    total, dealt, pairs = sum(spec.shares), 0, []
    for i, window in enumerate(spec.windows):
        upto = round(heads * sum(spec.shares[: i + 1]) / total)
        pairs.append((window, upto - dealt))
        dealt = upto
    return tuple((window, count) for window, count in pairs if count)


def relative_macs(spec: ConvAttention, place: Place) -> int:
    """Multiply-adds of the stage's convolutions in one block."""
    taps = sum(window**2 * count for window, count in share_heads(spec, place.heads))
    return place.grid[0] * place.grid[1] * taps * (place.dim // place.heads)


class FactorisedAttention(Mixer):
    """Factorised attention plus the query times what its place sees."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Tensor:
        """See :class:`~vitrail.mixers.base.Mixer`; ``shared`` is the stage's convolutions."""
        assert shared is not None
        q, k, v = project(self.qkv, x)
        weights, mass = softmax_over_tokens(k, None if plan is None else plan.sizes)
        content = attend_factorised(q, weights, mass, v, self.heads)
        return self.proj(add_position(content, q, v, grid, shared, plan))

    def explain(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Mapping[str, Tensor]:
        """``content`` ``(B, heads, K, K)``: the signed matrix ``q softmax(k)^T / sqrt(d)``."""
        q, k, _ = project(self.qkv, x)
        k = k if plan is None else k + plan.sizes.log().unsqueeze(2)
        keys = split_heads(k.softmax(1), self.heads)
        q = split_heads(q, self.heads)
        return {"content": q @ keys.mT * q.shape[-1] ** -0.5}


def add_position(
    content: Tensor, q: Tensor, v: Tensor, grid: Grid, shared: nn.Module, plan: Plan | None
) -> Tensor:
    """``content + q * DWConv(v)`` on the grid's tokens, in place; class tokens keep theirs."""
    extra = v.shape[1] - grid[0] * grid[1] if plan is None else plan.extra
    context = shared(v[:, extra:], grid, plan)
    content[:, extra:].addcmul_(q[:, extra:], context)
    return content
