"""Relevance rules of whole layers: norms and attention.

A norm's deviation counts as constant, so the norm is affine in its input; its shift is counted in
the ledger. Attention weights are constant (Ali et al. 2022), or half of the relevance goes through
values and a quarter each through queries and keys (Achtibat et al. 2024).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.attribution.lrp_call import FunctionCall, NoRuleError


class FixedScaleLayerNorm(torch.autograd.Function):
    """Layer norm whose deviation is constant."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shape: Any, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Tensor:
        """torch's layer norm."""
        y, _, scale = torch.native_layer_norm(x, shape, weight, bias, eps)
        ctx.save_for_backward(scale, weight)
        ctx.axes = tuple(range(-len(shape), 0))
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Subtracting the mean is linear."""
        scale, weight = ctx.saved_tensors
        grad = grad if weight is None else grad * weight
        return (grad - grad.mean(ctx.axes, keepdim=True)).mul_(scale), None, None, None, None


def layer_norm_rule(call: FunctionCall) -> Any:
    """``(x - mean) / sg(deviation) w + b``."""
    given = call.bind("input", "normalized_shape", "weight", "bias", "eps")
    weight, bias = given.get("weight"), given.get("bias")
    shape = given["normalized_shape"]
    y = FixedScaleLayerNorm.apply(given["input"], shape, weight, bias, given.get("eps", 1e-5))
    if bias is not None and len(shape) == 1:
        call.ledger.add_channels(y, bias, 0)
    elif bias is not None:
        call.ledger.add_offset(y, lambda: bias)
    return y


def standardise(x: Tensor, axes: tuple[int, ...], given: dict[str, Any]) -> Tensor:
    """``x`` less its mean, over a constant deviation, both along ``axes``."""
    eps = given.get("eps", 1e-5)
    scale = (x.detach().var(axes, correction=0, keepdim=True) + eps).rsqrt()
    return (x - x.mean(axes, keepdim=True)) * scale


def apply_affine(call: FunctionCall, y: Tensor, given: dict[str, Any]) -> Tensor:
    """Times the weight of each channel (axis 1), plus its bias, which is counted in the ledger."""
    weight, bias = given.get("weight"), given.get("bias")
    behind = y.dim() - 2
    y = y if weight is None else y * weight.view(-1, *[1] * behind)
    if bias is not None:
        y = y + bias.view(-1, *[1] * behind)
        call.ledger.add_channels(y, bias, behind)
    return y


def group_norm_rule(call: FunctionCall) -> Any:
    """The same over groups of channels and all places."""
    given = call.bind("input", "num_groups", "weight", "bias", "eps")
    x = given["input"]
    grouped = x.reshape(len(x), given["num_groups"], -1)
    return apply_affine(call, standardise(grouped, (2,), given).reshape(x.shape), given)


def instance_norm_rule(call: FunctionCall) -> Any:
    """The same over the places of each channel."""
    given = call.bind()
    x = given["input"]
    if not given.get("use_input_stats", True):
        raise NoRuleError("instance_norm with running statistics has no rule")
    return apply_affine(call, standardise(x, tuple(range(2, x.dim())), given), given)


def rms_norm_rule(call: FunctionCall) -> Any:
    """The root of the mean square is constant."""
    given = call.bind("input", "normalized_shape", "weight", "eps")
    x, axes = given["input"], tuple(range(-len(given["normalized_shape"]), 0))
    eps = given.get("eps") or torch.finfo(x.dtype).eps
    y = x * (x.detach().square().mean(axes, keepdim=True) + eps).rsqrt()
    return y if given.get("weight") is None else y * given["weight"]


def batch_norm_rule(call: FunctionCall) -> Any:
    """At inference an affine map of each channel; its shift is counted in the ledger.

    Written out, because torch's own kernel (2.14) gives wrong gradients for one picture whose
    channels-last memory has passed through a view.
    """
    given = call.bind("input", "running_mean", "running_var", "weight", "bias", "training")
    x, mean, var = given["input"], given["running_mean"], given["running_var"]
    if given.get("training") or mean is None:
        raise NoRuleError("batch_norm that normalises by the batch has no rule")
    weight, bias = given.get("weight"), given.get("bias")
    scale = (var + given.get("eps", 1e-5)).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    behind = x.dim() - 2
    places = (-1, *(1,) * behind)
    y = x * scale.view(places) + shift.view(places)
    call.ledger.add_channels(y, shift, behind)
    return y


def normalize_rule(call: FunctionCall) -> Any:
    """``F.normalize``: the norm is constant."""
    given = call.bind()
    x = given["input"]
    size = x.detach().norm(given.get("p", 2.0), given.get("dim", 1), keepdim=True)
    return x / size.clamp(min=given.get("eps", 1e-12))


def scale_relevance(x: Tensor, part: float) -> Tensor:
    """``x`` that gets a part of its relevance."""
    if not x.requires_grad:
        return x
    x = x.view_as(x)
    x.register_hook(lambda grad: grad * part)
    return x


def attention_rule(call: FunctionCall) -> Any:
    """``scaled_dot_product_attention``: through values, or half of it and a quarter each beside."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
    given = call.bind(*names)
    q, k, v = (given.pop(name) for name in names[:3])
    mask = given.pop("attn_mask", None)
    mask = mask.detach() if mask is not None else None
    if call.rules.attention == "constant":
        return call.func(q.detach(), k.detach(), v, mask, **given)
    return call.func(
        scale_relevance(q, 0.25), scale_relevance(k, 0.25), scale_relevance(v, 0.5), mask, **given
    )


def multi_head_rule(call: FunctionCall) -> Any:
    """``F.multi_head_attention_forward``, which torch's own modules call, spelled out."""
    given = call.bind()
    if given.get("add_zero_attn") or any(
        given.get(k) is not None for k in ("bias_k", "bias_v", "static_k", "static_v")
    ):
        raise NoRuleError("multi_head_attention_forward with added keys has no rule")
    batched = given["query"].dim() == 3
    inputs = [
        given[name] if batched else given[name].unsqueeze(1) for name in ("query", "key", "value")
    ]
    inputs = [x.transpose(0, 1) for x in inputs]  # batch first, as the ledger wants it
    if given.get("use_separate_proj_weight"):
        weights = [given[f"{name}_proj_weight"] for name in "qkv"]
    else:
        weights = given["in_proj_weight"].chunk(3)
    bias = given["in_proj_bias"]
    biases = [None] * 3 if bias is None else bias.chunk(3)
    heads = given["num_heads"]
    q, k, v = (
        call.apply_rule(F.linear, x, w, b).unflatten(2, (heads, -1)).transpose(1, 2)
        for x, w, b in zip(inputs, weights, biases, strict=True)
    )
    mask = additive_mask(given, q)
    mixed = call.apply_rule(F.scaled_dot_product_attention, q, k, v, mask)
    out = call.apply_rule(
        F.linear, mixed.transpose(1, 2).flatten(2), given["out_proj_weight"], given["out_proj_bias"]
    ).transpose(0, 1)
    seen = head_weights(q, k, mask, given) if given.get("need_weights", True) else None
    return (out, seen) if batched else (out.squeeze(1), None if seen is None else seen[0])


def additive_mask(given: dict[str, Any], q: Tensor) -> Tensor | None:
    """Both masks as one number to add, ``(B, heads or 1, N, M)``."""

    def number(mask: Tensor) -> Tensor:
        if mask.dtype != torch.bool:
            return mask.to(q.dtype)
        return torch.zeros_like(mask, dtype=q.dtype).masked_fill(mask, -torch.inf)

    mask, keys = given.get("attn_mask"), given.get("key_padding_mask")
    parts = []
    if mask is not None:
        parts.append(number(mask) if mask.dim() == 2 else number(mask).unflatten(0, q.shape[:2]))
    if keys is not None:
        parts.append(number(keys).reshape(-1, 1, 1, keys.shape[-1]))
    return None if not parts else sum(parts[1:], parts[0])


def head_weights(q: Tensor, k: Tensor, mask: Tensor | None, given: dict[str, Any]) -> Tensor:
    """What ``need_weights`` asks for, without gradient."""
    q, k = q.detach(), k.detach()
    logits = q @ k.mT * q.shape[-1] ** -0.5
    weights = (logits if mask is None else logits + mask).softmax(-1)
    return weights.mean(1) if given.get("average_attn_weights", True) else weights
