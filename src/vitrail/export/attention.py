"""Attention for bfloat16 on a CPU: a product, a softmax and a product.

``softmax(q k^T) v``: torch's fused kernel multiplies in float32 there, whatever it is given, and a
batched product of bfloat16 does not. Scores are worked through by queries, so that they take
little memory; they are rounded to bfloat16, as they are under autocast without fused attention.
"""

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from vitrail.export.graph import (
    Op,
    aten,
    calls,
    clean_up,
    dtype_of,
    is_node,
    replace_call,
    shape_of,
)

SCORE_BYTES = 16 * 2**20
"""Of the scores at hand; fewer queries at a time are slower."""
WIDE = 32
"""Channels of a head from which a product in bfloat16 gains more than a pass over scores costs."""
FUSED = aten.scaled_dot_product_attention.default


def split_attention(module: GraphModule) -> int:
    """Fused attention in bfloat16 taken apart, where its mask, if any, is added."""
    found = [(node, given) for node in calls(module, FUSED) if (given := parts(node))]
    for node, given in found:
        replace_call(module, node, attend, given)
    clean_up(module)
    return len(found)


def parts(node: Op) -> tuple[Any, ...] | None:
    """Queries, keys, values, mask and scale; None where fused attention does more than that."""
    given: Any = tuple(node.args)
    q, k, v, mask, dropout, causal = given + (None, 0.0, False)[len(given) - 3 :]
    mask = node.kwargs.get("attn_mask", mask)
    grouped = node.kwargs.get("enable_gqa", False)
    if dropout or causal or grouped:
        return None
    if dtype_of(q) != torch.bfloat16 or shape_of(q)[-1] < WIDE:
        return None
    if mask is not None and not (is_node(mask) and dtype_of(mask).is_floating_point):
        return None
    return q, k, v, mask, node.kwargs.get("scale")


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """``(B, h, N, d)``, ``(B, h, M, d)``, ``(B, h, M, e)`` -> ``(B, h, N, e)``."""
    q = q * (q.shape[-1] ** -0.5 if scale is None else scale)
    keys = k.transpose(-2, -1)
    a_query = q[..., 0].numel() // q.shape[-2] * k.shape[-2] * q.element_size()
    rows = max(1, SCORE_BYTES // a_query)
    found = []
    for first in range(0, q.shape[-2], rows):
        scores = q[..., first : first + rows, :] @ keys
        if mask is not None:
            shared = mask.shape[-2] == 1
            scores = scores + (mask if shared else mask[..., first : first + rows, :])
        found.append(scores.softmax(-1) @ v)
    return found[0] if len(found) == 1 else torch.cat(found, -2)
