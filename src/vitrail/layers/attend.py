"""Scaled dot-product attention: fused for speed, and spelled out for explanation."""

import torch
import torch.nn.functional as F
from torch import Tensor


def split_heads(x: Tensor, heads: int) -> Tensor:
    """``(B, N, C)`` -> ``(B, heads, N, C / heads)``, a view."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """``(B, heads, N, D)`` -> ``(B, N, heads * D)``."""
    return x.transpose(1, 2).flatten(2)


def attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """Softmax attention, ``(B, heads, N, D)`` from queries ``N`` to keys ``M``.

    ``bias`` is added to the logits and broadcasts to ``(B, heads, N, M)``; ``scale`` multiplies
    the products of queries and keys, ``D ** -0.5`` if not given. At inference the bias is
    detached: a view of a parameter still asks for a gradient there, which keeps a CPU off its
    fused kernel.
    """
    if bias is not None and not torch.is_grad_enabled():
        bias = bias.detach()
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)


def attention_weights(
    q: Tensor, k: Tensor, bias: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """The matrix :func:`attend` never forms, ``(B, heads, N, M)``; rows sum to one."""
    logits = (q @ k.mT) * (q.shape[-1] ** -0.5 if scale is None else scale)
    return (logits if bias is None else logits + bias).softmax(-1)


def size_bias(sizes: Tensor, like: Tensor) -> Tensor:
    """Log sizes as a bias over keys, ``(B, M)`` -> ``(B, 1, 1, M)``.

    A key that stands for ``n`` tokens counts ``n`` times: exp(x + log n) = n exp(x).
    """
    return sizes.log().to(like.dtype)[:, None, None, :]
