"""Scaled dot-product attention: fused for speed, and spelled out for explanation."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.fused import (
    NARROW_HEAD,
    attend_dense,
    eager_cpu_inference,
    is_stock_layer,
    multiply_by_image,
)
from vitrail.layers.grid import Grid, to_map, to_tokens


def split_heads(x: Tensor, heads: int) -> Tensor:
    """``(B, N, C)`` -> ``(B, heads, N, C / heads)``, a view."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """``(B, heads, N, D)`` -> ``(B, N, heads * D)``."""
    return x.transpose(1, 2).flatten(2)


def project(linear: nn.Linear, x: Tensor, parts: int = 3) -> list[Tensor]:
    """Queries, keys and values of projections kept as one layer, each dense: ``(B, N, C)``.

    Several products with slices of the weight, not one product cut afterwards: what follows
    reads dense memory, which on a CPU is worth more than the larger product.
    """
    if not is_stock_layer(linear):
        return [part.contiguous() for part in linear(x).chunk(parts, -1)]
    weights, biases = linear.weight.chunk(parts), linear.bias.chunk(parts)
    return [F.linear(x, w, b) for w, b in zip(weights, biases, strict=True)]


def project_last(linear: nn.Linear, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The last token's query ``(B, 1, C)``, all keys and values ``(B, N, C)``."""
    if not is_stock_layer(linear):
        q, k, v = linear(x).chunk(3, 2)
        return q[:, -1:], k, v
    dim, weights, biases = x.shape[2], linear.weight, linear.bias
    q = F.linear(x[:, -1:], weights[:dim], biases[:dim])
    k, v = F.linear(x, weights[dim:], biases[dim:]).chunk(2, 2)
    return q, k, v


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


def softmax_over_tokens(k: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Keys' softmax over tokens, not divided yet: weights ``(B, N, C)``, their sums ``(B, 1, C)``.

    ``sizes`` ``(B, N)`` is how many tokens each key stands for, one if not given. Keys are
    exponentiated against their maximum times the root of the token count: at 1024 px a mean weight
    is 1.5e-5, which half precision loses, while its sum over 65 537 tokens would overflow; scaled
    so, both stay in range.
    """
    if sizes is not None:
        k = k + sizes.log().to(k.dtype).unsqueeze(2)
    top = k.detach().amax(1, keepdim=True) + 0.5 * math.log(k.shape[1])
    weights = (k - top).exp_()
    return weights, weights.sum(1, keepdim=True)


def summarise_values(weights: Tensor, mass: Tensor, v: Tensor, heads: int) -> Tensor:
    """``softmax_tokens(k)^T v / sqrt(d)``, ``(B, heads, d, d)``, by :func:`softmax_over_tokens`."""
    weights, mass, v = (split_heads(t, heads) for t in (weights, mass, v))
    product = multiply_by_image if eager_cpu_inference(v) else torch.matmul
    return product(weights.mT, v) / (mass.mT * v.shape[-1] ** 0.5)


def attend_factorised(q: Tensor, weights: Tensor, mass: Tensor, v: Tensor, heads: int) -> Tensor:
    """``q softmax_tokens(k)^T v / sqrt(d)`` in every head, ``(B, N, C)``: linear in tokens."""
    width = q.shape[2] // heads
    if width < NARROW_HEAD and eager_cpu_inference(q):
        return attend_dense(q, weights, mass, v, width)
    return join_heads(split_heads(q, heads) @ summarise_values(weights, mass, v, heads))


def size_bias(sizes: Tensor, like: Tensor) -> Tensor:
    """Log sizes as a bias over keys, ``(B, M)`` -> ``(B, 1, 1, M)``.

    A key that stands for ``n`` tokens counts ``n`` times: exp(x + log n) = n exp(x).
    """
    return sizes.log().to(like.dtype)[:, None, None, :]


def average_keys(conv: nn.Conv2d, field: Tensor, grid: Grid) -> Tensor:
    """One number a token behind a convolution: means by the magnitude of its weights.

    ``(B, E + H*W, F)`` -> ``(B, E + h*w, F)`` with class tokens as they are. What lies outside
    the map has no weight, so that a constant stays a constant; ragged edges make cells of their
    own, as zero-padding to whole cells does.
    """
    prefix, (side, _), (step, _) = field.shape[1] - grid[0] * grid[1], conv.kernel_size, conv.stride
    edges = [max(0, -n % step) if side == step else 0 for n in grid]
    kernel = conv.weight.abs().mean((0, 1)).to(field.dtype).expand(field.shape[2], 1, -1, -1)
    padding = conv.padding if isinstance(conv.padding, tuple) else (0, 0)

    def weigh(x: Tensor) -> Tensor:
        x = F.pad(x, (0, edges[1], 0, edges[0]))
        return F.conv2d(x, kernel, None, conv.stride, padding, groups=x.shape[1])

    image = to_map(field[:, prefix:], grid)
    means = to_tokens(weigh(image) / weigh(torch.ones_like(image)))
    return torch.cat((field[:, :prefix], means), 1) if prefix else means
