"""How one step mixes tokens, as an operator on *fields*.

A field is one number a token, ``(B, K, 1)``. An operator takes weighted means of it, as the
step's heads do on average: ``f -> A f`` with rows of A that are not negative and sum to one. No
matrix is formed where the step has none (conv-attention), and its transpose is a gradient.

With ``slopes``, the gradients of the score at the joined heads, the operator is that of Chefer
et al. (ICCV 2021): ``f -> mean_h relu(A_h * dy/dA_h) f``, where ``dy/dA_ij`` is the product of
the gradient at token i's answer with value j. That is exact, and asks for no other forward pass.
"""

from collections.abc import Callable
from functools import singledispatch

import torch
from torch import Tensor, nn

from vitrail.attribution.preserve import ExplainError
from vitrail.attribution.record import MixerCall
from vitrail.layers.attend import (
    attention_weights,
    average_keys,
    join_heads,
    project,
    softmax_over_tokens,
    split_heads,
    summarise_values,
)
from vitrail.layers.grid import Grid
from vitrail.layers.plan import Plan
from vitrail.layers.position import ConvRelative
from vitrail.mixers import Mixer
from vitrail.mixers.conv_attention import FactorisedAttention
from vitrail.mixers.prototype import PrototypeAttention, attend_linear, broadcast_to_members

Operator = Callable[[Tensor], Tensor]
ROWS = 64
"""Queries weighed by their gradient at once, where the matrix has to be formed for it."""


@torch.no_grad()
def operator(step: MixerCall) -> Operator:
    """The step's mean over heads, rows summing to one.

    Raises:
        ExplainError: an attention that cannot be read.
    """
    return _operator_of(step.mixer, step)


@torch.no_grad()
def gradient_operator(step: MixerCall, slopes: Tensor, joined: Tensor) -> Operator:
    """The step's attention weighed by its gradient; rows sum to what they matter.

    Args:
        step: where tokens met.
        slopes: ``(B, K, C)``, the score's gradient at the joined heads.
        joined: ``(B, K, C)``, the joined heads.

    Raises:
        ExplainError: attention and values that are not what the step computes.
    """
    return _gradient_operator_of(step.mixer, step, slopes, joined)


def unreadable(step: MixerCall, why: str) -> ExplainError:
    """The error for an attention that cannot be read."""
    return ExplainError(
        f"{step.name} ({type(step.mixer).__name__}): {why}; take method 'gradcam', 'lrp' or 'rise'"
    )


def explain_mixer(step: MixerCall) -> dict[str, Tensor]:
    """What the mixer's own ``explain`` gives for the step.

    Raises:
        ExplainError: it gives no attention.
    """
    try:
        parts = step.mixer.explain(step.tokens, step.grid, step.shared, step.plan)
    except NotImplementedError as error:
        raise unreadable(step, "it does not explain itself") from error
    if "operator" in parts:  # one matrix for all channels: a single head that takes tokens
        whole = parts["operator"].unsqueeze(1).expand(len(step.tokens), -1, -1, -1)
        return {"attention": whole, "values": step.tokens.unsqueeze(1)}
    if "attention" not in parts:
        raise unreadable(step, f"it explains {', '.join(parts)}, which is no attention")
    return dict(parts)


@singledispatch
def _operator_of(mixer: Mixer, step: MixerCall) -> Operator:
    """Any mixer with an attention matrix: its positive part, rows normalised."""
    parts = explain_mixer(step)
    weights = parts["attention"].clamp(min=0)
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    return _operator_from_weights(step, weights, parts)


@singledispatch
def _gradient_operator_of(
    mixer: Mixer, step: MixerCall, slopes: Tensor, joined: Tensor
) -> Operator:
    """Any mixer whose ``explain`` gives attention and values."""
    parts = explain_mixer(step)
    if "values" not in parts:
        raise unreadable(step, "its explain() gives no 'values'")
    attention, values = parts["attention"], parts["values"]
    if not _same(join_heads(attention @ values), joined):
        raise unreadable(step, "its attention and values do not make what it projects")
    worth = split_heads(slopes, attention.shape[1]) @ values.mT
    return _operator_from_weights(step, (attention * worth).clamp(min=0), parts)


def _operator_from_weights(step: MixerCall, weights: Tensor, parts: dict[str, Tensor]) -> Operator:
    """Weights ``(B, heads, K, M)`` of keys, carried on to the tokens that keys are made of."""
    if "sources" in parts:
        matrix = (weights @ parts["sources"]).mean(1)
        return lambda f: matrix @ f
    matrix = weights.mean(1)
    return lambda f: matrix @ _keys(step, f, matrix.shape[2])


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-2, atol=1e-3)


def _keys(step: MixerCall, field: Tensor, count: int) -> Tensor:
    """The field of the keys, which the mixer makes of tokens."""
    made = step.mixer.make_keys(field, step.grid)
    if made.shape[1] != count:
        raise unreadable(step, f"it has {count} keys and makes {made.shape[1]} of a field")
    return made


@_operator_of.register
def _(mixer: FactorisedAttention, step: MixerCall) -> Operator:
    """CoaT: ``relu(q) softmax(k)^T`` in linear cost, blended with what the convolutions see."""
    q, k, v = project(mixer.qkv, step.tokens)
    queries = split_heads(q, mixer.heads)
    return _blend_with_conv(step, *_linear_operator(step, queries, k, v), q, v)


@_operator_of.register
def _(mixer: PrototypeAttention, step: MixerCall) -> Operator:
    """Clustering CoaT: all members of a cluster share one query, their mean."""
    q, k, v = project(mixer.qkv, step.tokens)
    queries, assignment = mixer.cluster_queries(split_heads(q, mixer.heads), step.extra, step.grid)
    if mixer.core is attend_linear:
        queries = broadcast_to_members(queries, assignment, step.extra)
        return _blend_with_conv(step, *_linear_operator(step, queries, k, v), q, v)
    matrix = attention_weights(queries, split_heads(k, mixer.heads))
    content = broadcast_to_members(matrix @ split_heads(v, mixer.heads), assignment, step.extra)
    return _blend_with_conv(
        step,
        lambda f: broadcast_to_members(matrix @ f.unsqueeze(1), assignment, step.extra).mean(1),
        join_heads(content),
        q,
        v,
    )


def _linear_operator(
    step: MixerCall, queries: Tensor, k: Tensor, v: Tensor
) -> tuple[Operator, Tensor]:
    """``relu(q) softmax(k)^T`` by two small products; and the content it stands for ``(B, K, C)``.

    A query that is negative throughout asks all keys of its head alike.
    """
    keys = key_weights(k, queries.shape[1], step.plan)
    positive_query = queries.clamp(min=0) + 1e-6
    positive_query = positive_query / positive_query.sum(-1, keepdim=True)
    sizes = None if step.plan is None else step.plan.sizes
    weights, mass = softmax_over_tokens(k, sizes)
    content = join_heads(queries @ summarise_values(weights, mass, v, queries.shape[1]))
    return lambda f: (positive_query @ (keys.mT @ f.unsqueeze(1))).mean(1), content


def _blend_with_conv(
    step: MixerCall, attend: Operator, content: Tensor, q: Tensor, v: Tensor
) -> Operator:
    """Attention and, on the grid, the convolutions: each counts by the length of its term."""
    extra, shared = step.extra, step.shared
    assert isinstance(shared, ConvRelative)
    conv_out = q[:, extra:] * shared(v[:, extra:], step.grid, step.plan)
    lengths = torch.stack((content[:, extra:].norm(dim=2), conv_out.norm(dim=2)))
    share = (lengths[1] / lengths.sum(0).clamp(min=1e-12)).unsqueeze(2)

    def mix(f: Tensor) -> Tensor:
        attention = attend(f)
        convolved = convolve_field(shared, f[:, extra:], step.grid, step.plan)
        blended = torch.lerp(attention[:, extra:], convolved, share)
        return torch.cat((attention[:, :extra], blended), 1) if extra else blended

    return mix


def key_weights(k: Tensor, heads: int, plan: Plan | None) -> Tensor:
    """``softmax_tokens(k)`` ``(B, heads, K, d)``; a key that stands for n tokens counts n times."""
    k = k if plan is None else k + plan.sizes.log().to(k.dtype).unsqueeze(2)
    return split_heads(k.softmax(1), heads)


def convolve_field(shared: ConvRelative, field: Tensor, grid: Grid, plan: Plan | None) -> Tensor:
    """What a stage's convolutions see of a field ``(B, K - extra, 1)``, mean over channels."""
    full = field if plan is None else plan.restore_grid(field)
    out = torch.zeros_like(full)
    for conv, width in zip(shared.conv_list, shared.widths, strict=True):
        assert isinstance(conv, nn.Conv2d)
        out = out + average_keys(conv, full, grid) * (width / sum(shared.widths))
    return out if plan is None else plan.reduce_grid(out)


@_gradient_operator_of.register
def _(mixer: FactorisedAttention, step: MixerCall, slopes: Tensor, joined: Tensor) -> Operator:
    """CoaT: the implied signed matrix, formed some rows at a time, for its weights only."""
    q, k, v = project(mixer.qkv, step.tokens)
    return _implied_operator(
        split_heads(q, mixer.heads), key_weights(k, mixer.heads, step.plan), v, slopes
    )


@_gradient_operator_of.register
def _(mixer: PrototypeAttention, step: MixerCall, slopes: Tensor, joined: Tensor) -> Operator:
    """Clustering CoaT: likewise, or the softmax of prototypes."""
    q, k, v = project(mixer.qkv, step.tokens)
    prototypes, assignment = mixer.cluster_queries(
        split_heads(q, mixer.heads), step.extra, step.grid
    )
    queries = broadcast_to_members(prototypes, assignment, step.extra)
    if mixer.core is not attend_linear:
        return _implied_operator(queries, split_heads(k, mixer.heads), v, slopes, softmax=True)
    return _implied_operator(queries, key_weights(k, mixer.heads, step.plan), v, slopes)


def _implied_operator(
    q: Tensor, keys: Tensor, v: Tensor, slopes: Tensor, softmax: bool = False
) -> Operator:
    """``mean_h relu(A_h * dy/dA_h)`` for ``A = q keys^T / sqrt(d)``, or its softmax."""
    values, slopes = split_heads(v, q.shape[1]), split_heads(slopes, q.shape[1])
    rows = []
    for query, slope in zip(q.split(ROWS, 2), slopes.split(ROWS, 2), strict=True):
        weights = query @ keys.mT * q.shape[-1] ** -0.5
        weights = weights.softmax(-1) if softmax else weights
        rows.append(weights.mul_(slope @ values.mT).clamp_(min=0).mean(1))
    matrix = torch.cat(rows, 1)
    return lambda f: matrix @ f
