"""Linear layers in 8 bits: weights by output channel, activations by what each call brings.

oneDNN multiplies unsigned activations with signed weights and gives float32; torch offers it to
its compiler, and it needs no other package. The range of the activations is that of the whole
batch, so a picture's outputs depend a little on those beside it.

x86 processors without VNNI add two products in 16 bits, which overflow with weights of 8: weights
get 7 bits there (oneDNN's developer guide, "Nuances of int8 computations").
"""

import torch
from torch import Tensor
from torch.fx import GraphModule

from vitrail.cost.host import overflows_in_8_bits
from vitrail.export.fold import is_weighted, weights_of
from vitrail.export.graph import add_constant, aten, calls, clean_up, replace_call, tensor

onednn = torch.ops.onednn
LEAST = 2**14
"""Weights below which a layer stays as it is: reading the range would cost more than it saves."""
STEPS = 255
"""Of the activations' range."""
FULL, NARROW = 127, 64
"""Largest level of a weight; two of the narrow ones times 255 fit into 16 bits, with a sign."""


def quantize_linears(module: GraphModule) -> int:
    """Put every large linear layer on 8 bits; heads keep float32, they decide."""
    head = last_linear(module)
    most = NARROW if overflows_in_8_bits() else FULL
    quantized = 0
    for node in calls(module, aten.linear.default):
        if node is head or not is_weighted(node) or tensor(module, node.args[1]).numel() < LEAST:
            continue
        weight, bias = weights_of(module, node)
        scale = (weight.abs().amax(1) / most).clamp(min=1e-12)
        levels = (weight / scale[:, None]).round().to(torch.int8)
        packed = onednn.qlinear_prepack(levels, None)
        zeros = torch.zeros(len(scale), dtype=torch.int32)
        constants = [
            add_constant(module, node, value, value.dtype)
            for value in (packed, scale.float(), zeros, bias.float())
        ]
        replace_call(module, node, int8_linear, (node.args[0], *constants))
        quantized += 1
    clean_up(module)
    return quantized


def last_linear(module: GraphModule) -> object:
    """The classifier: the last linear layer."""
    found = calls(module, aten.linear.default)
    return found[-1] if found else None


def int8_linear(x: Tensor, packed: Tensor, scale: Tensor, zeros: Tensor, bias: Tensor) -> Tensor:
    """``(..., I)`` -> ``(..., O)`` float32."""
    low, high = (float(end) for end in x.aminmax())
    low, high = min(low, 0.0), max(high, 0.0)
    step = max((high - low) / STEPS, 1e-12)
    zero = round(-low / step)
    levels = torch.add(x.mul(1 / step), zero + 0.5).to(torch.uint8)  # truncation then rounds
    result: Tensor = onednn.qlinear_pointwise(
        levels, step, zero, packed, scale, zeros, bias, 1.0, 0, torch.float32, "none", [], ""
    )
    return result
