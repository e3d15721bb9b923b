"""Graph passes for CPUs: packed weights, fused activations, feed-forwards in slices.

oneDNN computes a convolution, its activation and the sum with a residual in one pass, from weights
packed once, and likewise a linear layer and its activation; torch offers this to its compiler, and
these steps use it without compiling.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import GraphModule

from vitrail.export.fold import conv_options, is_weighted
from vitrail.export.graph import (
    Op,
    add_constant,
    aten,
    bypass,
    calls,
    clean_up,
    dtype_of,
    is_constant,
    is_node,
    only_user,
    replace_call,
    shape_of,
    tensor,
)
from vitrail.layers.fused import add_in_slices

mkldnn = torch.ops.mkldnn
ACTIVATIONS = {
    aten.silu.default: "swish",
    aten.silu_.default: "swish",
    aten.gelu.default: "gelu",
    aten.gelu_.default: "gelu",
    aten.relu.default: "relu",
    aten.relu_.default: "relu",
    aten.hardswish.default: "hardswish",
    aten.hardswish_.default: "hardswish",
}
"""What oneDNN calls the activations that it computes inside a kernel."""
ROWS = 512
"""Tokens in a slice, about: oneDNN orders a weight for a number of rows, and serves any."""
FUSED_ACTIVATIONS = {"gelu": "none", "swish": "", "relu": ""}
"""Activations that oneDNN computes inside a linear layer, with the algorithm's name."""
SUMS = (aten.add.Tensor, aten.add_.Tensor)


def can_pack(dtype: torch.dtype) -> bool:
    """Whether oneDNN is here and packs weights of a type; bfloat16 wants instructions for it."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype != torch.bfloat16 or bool(mkldnn._is_mkldnn_bf16_supported())


def to_channels_last(module: GraphModule) -> int:
    """Kernels of convolutions in channels-last memory."""
    kernels = dict.fromkeys(c.args[1] for c in calls(module, aten.conv2d.default))
    changed = 0
    for node in kernels:
        if is_constant(node):
            value = tensor(module, node).contiguous(memory_format=torch.channels_last)
            node.replace_all_uses_with(add_constant(module, node, value, dtype_of(node)))
            changed += 1
    clean_up(module)
    return changed


@dataclass(frozen=True)
class FeedForward:
    """``x + narrow(act(widen(norm(x))))`` as found in a graph; ``norm`` may be missing."""

    total: Op
    x: Op
    norm: Op | None
    widen: Op
    act: str
    narrow: Op


def slice_feed_forwards(module: GraphModule) -> int:
    """Run feed-forwards over slices of tokens whose hidden layer stays in the cache."""
    found = [f for total in calls(module, *SUMS) if (f := feed_forward(total))]
    for each in found:
        norm = each.norm.args[2:5] if each.norm else (None, None, None)
        hidden = shape_of(each.widen.args[1])[0]
        wide, narrow = (packed_linear(module, n, each.total) for n in (each.widen, each.narrow))
        layers = (hidden, *wide, each.act, *narrow)
        replace_call(module, each.total, fused_mlp, (each.x, each.norm is not None, *norm, *layers))
    clean_up(module)
    return len(found)


def pack_linears(module: GraphModule) -> int:
    """oneDNN's product with packed weights for what remains of the linear layers over tokens.

    Not for a head, which sees one row a picture. The sum with a residual stays outside: oneDNN
    prepares that kernel anew in every call, which costs milliseconds.
    """
    found = [n for n in calls(module, aten.linear.default) if is_over_tokens(n)]
    for each in found:
        weight, bias = packed_linear(module, each, each)
        replace_call(module, each, linear_packed, (each.args[0], weight, bias))
    clean_up(module)
    return len(found)


def is_over_tokens(node: Op) -> bool:
    """Whether a linear layer takes ``(B, N, C)``, with a weight that is known."""
    return is_weighted(node) and len(shape_of(node)) >= 3


def linear_packed(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A linear layer with a packed weight."""
    made: Tensor = mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return made


def packed_linear(module: GraphModule, layer: Op, before: Op) -> tuple[Op, Op | None]:
    """A linear layer's weight in oneDNN's own order, and its bias."""
    weight, bias = (*layer.args[1:], None)[:2]
    value = mkldnn._reorder_linear_weight(tensor(module, weight), ROWS)
    return add_constant(module, before, value, dtype_of(weight)), bias


def feed_forward(total: Op) -> FeedForward | None:
    """The feed-forward that a sum ends, if it does."""
    for x, narrow in (total.args[:2], total.args[1::-1]):
        if not (is_linear(narrow) and is_node(x)):
            continue
        found = activation(narrow.args[0])
        if found is None or not is_linear(found[1], readers=1 + (found[0] == "quick_gelu")):
            continue
        act, widen = found
        source = widen.args[0]
        if source is x:
            return FeedForward(total, x, None, widen, act, narrow)
        normed = source.target is aten.layer_norm.default and len(source.users) == 1
        if normed and source.args[0] is x and len(shape_of(x)) == 3:
            return FeedForward(total, x, source, widen, act, narrow)
    return None


def is_linear(node: Any, readers: int = 1) -> bool:
    """Whether a node is a linear layer with bias that so many others read."""
    return (
        is_node(node)
        and node.target is aten.linear.default
        and is_weighted(node)
        and len(node.args) == 3
        and node.args[2] is not None
        and len(node.users) == readers
    )


UNFUSED_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x)
}
"""Activations that oneDNN does not compute inside a linear layer."""


def activation(node: Any) -> tuple[str, Op] | None:
    """The name and the input of an activation, where only the next layer reads it."""
    if not is_node(node) or len(node.users) > 1:
        return None
    name = ACTIVATIONS.get(node.target)
    if name in FUSED_ACTIVATIONS and is_exact_gelu(node) and len(node.args[0].users) == 1:
        return name, node.args[0]
    return quick_gelu(node)


def quick_gelu(product: Op) -> tuple[str, Op] | None:
    """``x * sigmoid(1.702 x)``, the sigmoid approximation of GELU (Hendrycks and Gimpel 2016)."""
    if product.target is not aten.mul.Tensor or not is_node(product.args[1]):
        return None
    x, gate = product.args
    if gate.target is not aten.sigmoid.default or len(gate.users) > 1:
        return None
    inner = gate.args[0]
    if inner.target is aten.mul.Tensor and inner.args == (x, 1.702) and len(x.users) == 2:
        return "quick_gelu", x
    return None


def is_exact_gelu(node: Op) -> bool:
    """Whether a GELU is the exact one."""
    return node.kwargs.get("approximate", "none") == "none"


def fused_mlp(
    x: Tensor,
    normed: bool,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float | None,
    hidden: int,
    widen: Tensor,
    widen_bias: Tensor,
    act: str,
    narrow: Tensor,
    narrow_bias: Tensor,
) -> Tensor:
    """A whole feed-forward with its residual, ``(B, N, C)`` -> the same shape; packed weights."""
    after: tuple[Any, ...] = (
        (act, [], FUSED_ACTIVATIONS[act]) if act in FUSED_ACTIVATIONS else ("none", [], "")
    )

    def branch(part: Tensor) -> Tensor:
        if normed:
            part = F.layer_norm(part, part.shape[-1:], scale, shift, eps or 1e-5)
        wide = mkldnn._linear_pointwise(part, widen, widen_bias, *after)
        return linear_packed(
            wide if act in FUSED_ACTIVATIONS else UNFUSED_ACTIVATIONS[act](wide),
            narrow,
            narrow_bias,
        )

    return add_in_slices(x, branch, hidden)


def pack_convolutions(module: GraphModule) -> int:
    """oneDNN's convolution with packed weights, and what follows it inside the kernel."""
    packed = 0
    for conv in calls(module, aten.conv2d.default):
        if is_weighted(conv) and shape_of(conv)[-1] != 0:
            pack_convolution(module, conv)
            packed += 1
    clean_up(module)
    return packed


def pack_convolution(module: GraphModule, conv: Op) -> None:
    """One convolution."""
    x, weight, bias, stride, padding, dilation, groups = conv_options(conv)
    where = [padding, stride, dilation, groups]
    size = [1, *shape_of(x)[1:]]
    value = mkldnn._reorder_convolution_weight(tensor(module, weight), *where, size)
    kernel = add_constant(module, conv, value, dtype_of(weight))
    act = only_user(conv)
    if act is not None and act.target in ACTIVATIONS and is_exact_gelu(act):
        name = ACTIVATIONS[act.target]
        after = [name, [], "none" if name == "gelu" else ""]
        bypass(module, act)
        replace_call(
            module, conv, mkldnn._convolution_pointwise.default, (x, kernel, bias, *where, *after)
        )
        return
    total = only_user(conv)
    if total is not None and (other := residual_of(total, conv)) is not None:
        plus: list[Any] = ["add", None, None, [], None]
        replace_call(
            module,
            total,
            mkldnn._convolution_pointwise.binary,
            (x, other, kernel, bias, *where, *plus),
        )
        return
    replace_call(
        module,
        conv,
        mkldnn._convolution_pointwise.default,
        (x, kernel, bias, *where, "none", [], ""),
    )


def residual_of(total: Op, conv: Op) -> Op | None:
    """What is added to a convolution, where it has the same shape and type."""
    if total.target not in SUMS or total.kwargs:
        return None
    others = [a for a in total.args if a is not conv]
    if len(others) != 1 or not is_node(others[0]):
        return None
    (other,) = others
    same = shape_of(other) == shape_of(conv) and dtype_of(other) == dtype_of(conv)
    return other if same else None
