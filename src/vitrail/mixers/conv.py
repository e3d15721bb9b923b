"""Conv-attention: factorised attention with convolutional relative position.

Xu, Xu, Chang, Tu, "Co-Scale Conv-Attentional Image Transformers", ICCV 2021 (arXiv 2104.06399),
section 3; wiring as in the released code (mlpc-ucsd/CoaT 220d31f, ``FactorAtt_ConvRelPosEnc``).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrail.layers.attend import join_heads, split_heads
from vitrail.layers.block import at_inference
from vitrail.layers.grid import Grid
from vitrail.layers.plan import Plan
from vitrail.layers.position import ConvRelative
from vitrail.mixers.base import Mixer, MixerSpec
from vitrail.mixers.softmax import check_heads, project
from vitrail.specs import Place


@dataclass(frozen=True, kw_only=True)
class Conv(MixerSpec, name="conv"):
    """CoaT's conv-attention, linear in tokens: keys are summed over tokens before queries ask.

    ``G = softmax_tokens(k)^T v`` is ``d x d`` a head; ``y = proj(q G / sqrt(d) + q * DWConv(v))``.
    The class token takes part in ``G`` and gets no convolution. The stage's blocks share the
    convolutions: heads split over ``windows`` in the ratio 2 : 3 : 3, as in the paper for eight.
    """

    windows: tuple[int, ...] = (3, 5, 7)
    shares: tuple[int, ...] = (2, 3, 3)

    def build(self, place: Place) -> "ConvAttention":
        """Serves every place whose heads divide its channels."""
        check_heads(self, place)
        return ConvAttention(place.dim, place.heads)

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


def share_heads(spec: Conv, heads: int) -> tuple[tuple[int, int], ...]:
    """``((window, heads), ...)``: heads dealt in the ratio of the shares, none left over."""
    total, dealt, pairs = sum(spec.shares), 0, []
    for i, window in enumerate(spec.windows):
        upto = round(heads * sum(spec.shares[: i + 1]) / total)
        pairs.append((window, upto - dealt))
        dealt = upto
    return tuple((window, count) for window, count in pairs if count)


def relative_macs(spec: Conv, place: Place) -> int:
    """Multiply-adds of the stage's convolutions in one block."""
    taps = sum(window**2 * count for window, count in share_heads(spec, place.heads))
    return place.grid[0] * place.grid[1] * taps * (place.dim // place.heads)


class ConvAttention(Mixer):
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
        content = answer(q, k, v, self.heads, plan)
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


NARROW = 16
"""Heads narrower than this meet in one dense product at inference on a CPU, zero between heads:
eight heads of 8 channels take less as 64 x 64 than one by one (CoaT-Lite's first stage, 8 pictures
of 224 px, 2 cores: 7 ms instead of 18), and the answer needs no joining. Elsewhere, and where
multiply-adds are counted, every head is a product of its own."""


def answer(q: Tensor, k: Tensor, v: Tensor, heads: int, plan: Plan | None) -> Tensor:
    """``q softmax_tokens(k)^T v / sqrt(d)`` in every head, ``(B, N, C)``."""
    width = q.shape[2] // heads
    if width >= NARROW or not at_inference(q):
        return join_heads(split_heads(q, heads) @ summary(k, v, heads, plan))
    weights, mass = key_masses(k, plan)
    head = torch.arange(q.shape[2], device=q.device) // width
    own = (head[:, None] == head).to(q.dtype)
    return q @ ((weights.mT @ v) * (own / (mass.mT * width**0.5)))


def summary(k: Tensor, v: Tensor, heads: int, plan: Plan | None) -> Tensor:
    """``softmax_tokens(k)^T v / sqrt(d)``, ``(B, heads, d, d)``."""
    weights, mass = (split_heads(t, heads) for t in key_masses(k, plan))
    v = split_heads(v, heads)
    return by_picture(weights.mT, v) / (mass.mT * v.shape[-1] ** 0.5)


def by_picture(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b``, ``(B, heads, I, N)`` and ``(B, heads, N, J)`` -> ``(B, heads, I, J)``.

    Heads of several pictures are no evenly spaced stack, so torch copies both before it
    multiplies; at inference on a CPU each picture is a product of its own, twice as fast.
    """
    if not at_inference(a):
        return a @ b
    out = a.new_empty(*a.shape[:3], b.shape[3])
    for each, other, into in zip(a, b, out, strict=True):
        torch.bmm(each, other, out=into)
    return out


def key_masses(k: Tensor, plan: Plan | None) -> tuple[Tensor, Tensor]:
    """Softmax over tokens before its division: weights ``(B, N, C)``, their sums ``(B, 1, C)``.

    Keys are exponentiated against their maximum times the root of the token count: at 1024 px a
    mean weight is 1.5e-5, which half precision loses, while its sum over 65 537 tokens would
    overflow; scaled so, both stay in range.
    """
    if plan is not None:
        k = k + plan.sizes.log().to(k.dtype).unsqueeze(2)
    top = k.detach().amax(1, keepdim=True) + 0.5 * math.log(k.shape[1])
    weights = (k - top).exp_()
    return weights, weights.sum(1, keepdim=True)


def add_position(
    content: Tensor, q: Tensor, v: Tensor, grid: Grid, shared: nn.Module, plan: Plan | None
) -> Tensor:
    """``content + q * DWConv(v)`` on the grid's tokens, in place; class tokens keep theirs."""
    extra = v.shape[1] - grid[0] * grid[1] if plan is None else plan.extra
    seen = shared(v[:, extra:], grid, plan)
    content[:, extra:].addcmul_(q[:, extra:], seen)
    return content
