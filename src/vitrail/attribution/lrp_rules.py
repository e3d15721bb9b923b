"""The gradient of every torch function under which activation times gradient is relevance.

===================  =============================================================================
``gradient_rule``    torch's own gradient: linear functions, ReLU, max pooling
``affine_rule``      torch's own gradient; what constants add is counted in the ledger
``linear_rule``      convolutions and linear layers: the user's choice
                     (:mod:`vitrail.attribution.lrp_linear`)
``product_rule``     each of n live factors gets an n-th of the relevance
``quotient_rule``    the denominator is constant
``power_rule``       all relevance goes to the base
``constant_rule``    the result is constant: softmax, sigmoid, exponentials, deviations, norms
``activation_rule``  GELU and the like: ``f(x)`` is taken as ``x sg(f(x) / x)``
norms                the deviation is constant, the mean is not; shifts are counted in the ledger
attention            constant weights (CP), or halved products and a linear softmax (AttnLRP)
``in_place_rule``    the rule of the function out of place, then the result is written in place
===================  =============================================================================

A *live* tensor depends on the picture; *sg* stops gradients.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from vitrail.attribution.lrp_call import FunctionCall, NoRuleError, tensors_in
from vitrail.attribution.lrp_layers import (
    attention_rule,
    batch_norm_rule,
    group_norm_rule,
    instance_norm_rule,
    layer_norm_rule,
    multi_head_rule,
    normalize_rule,
    rms_norm_rule,
)

Rule = Callable[[FunctionCall], Any]
ATTENTIONS = ("constant", "attnlrp")


def gradient_rule(call: FunctionCall) -> Any:
    """torch's own gradient."""
    return call.evaluate()


def affine_rule(call: FunctionCall) -> Any:
    """Linear in the live tensors; its value where they are zero is an offset."""
    y = call.evaluate()
    if any(not t.requires_grad for t in call.tensors) or len(call.tensors) < 2:
        call.ledger.add_offset(y, lambda: call.map_live(torch.zeros_like).evaluate())
    return y


def cat_rule(call: FunctionCall) -> Any:
    """Concatenation and scattering; the constant tensors among the parts are an offset."""
    y = call.evaluate()
    if any(not t.requires_grad for t in call.tensors):
        call.ledger.add_offset(y, lambda: call.map_live(torch.zeros_like).evaluate())
    return y


def pad_rule(call: FunctionCall) -> Any:
    """Zeros and mirrors are linear; another number is an offset."""
    return (
        affine_rule(call)
        if call.bind("input", "pad", "mode", "value").get("value")
        else gradient_rule(call)
    )


def lerp_rule(call: FunctionCall) -> Any:
    """``lerp``: the weight is constant."""
    start, end, weight = call.args
    weight = weight.detach() if isinstance(weight, Tensor) else weight
    return call.apply_rule(
        torch.add,
        call.apply_rule(torch.mul, start, 1 - weight),
        call.apply_rule(torch.mul, end, weight),
    )


def maximum_rule(call: FunctionCall) -> Any:
    """``maximum`` of two tensors: the winner's, and where a constant wins, an offset."""
    if len(call.tensors) < 2:
        return gradient_rule(call)
    first, second = call.tensors
    y = call.map_live(torch.detach).evaluate()
    return call.apply_rule(torch.where, y == first.detach(), first, second)


def linear_rule(call: FunctionCall) -> Any:
    """A linear layer or convolution: the user's rule; its bias is counted in the ledger."""
    rest = call.args[3:]
    given = {**dict(zip(LAYER, call.args, strict=False)), **call.kwargs}
    x, weight, bias = given["input"], given["weight"], given.get("bias")
    options = {name: value for name, value in call.kwargs.items() if name not in LAYER}
    if weight.requires_grad or (bias is not None and bias.requires_grad):
        raise NoRuleError(f"{call.name} with a weight that depends on the picture has no rule")

    def layer(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return cast(Tensor, call.func(x, weight, bias, *rest, **options))

    rule = call.rules.linear if call.name == "linear" else call.rules.conv
    y = rule.apply(layer, x, weight, bias)
    if bias is not None:
        call.ledger.add_channels(y, bias, weight.dim() - 2)
    return y


def product_rule(call: FunctionCall) -> Any:
    """Every live factor gets an equal part of the relevance."""
    y, factors = call.evaluate(), len(call.live)
    if factors > 1:
        y.register_hook(lambda grad: grad / factors)
    return y


def quotient_rule(call: FunctionCall) -> Any:
    """The denominator is constant."""
    above, below = call.args[:2]
    below = below.detach() if isinstance(below, Tensor) else below
    return call.func(above, below, *call.args[2:], **call.kwargs)


def power_rule(call: FunctionCall) -> Any:
    """``x ** p``: a root is a norm's and constant, a whole power gives all to ``x``."""
    exponent = call.args[1] if len(call.args) > 1 else 2
    if isinstance(exponent, Tensor) or exponent < 1:
        return constant_rule(call)
    y = call.evaluate()
    y.register_hook(lambda grad: grad / exponent)
    return y


def constant_rule(call: FunctionCall) -> Any:
    """The result is constant: in a product all relevance goes to the other factor."""
    return call.map_live(torch.detach).evaluate()


def softmax_rule(call: FunctionCall) -> Any:
    """A softmax: constant, or by its own gradient (AttnLRP)."""
    return constant_rule(call) if call.rules.attention == "constant" else gradient_rule(call)


class FixedGradient(torch.autograd.Function):
    """``value`` in the forward pass, ``slope`` as its derivative in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, slope: Tensor) -> Tensor:
        """The value."""
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """The slope."""
        return grad * ctx.saved_tensors[0], None, None


def activation_rule(call: FunctionCall) -> Any:
    """An activation: all relevance passes to its input; its value at zero is an offset."""
    given = call.bind("input")
    inplace = given.pop("inplace", False)
    x = given["input"]
    apart = call.map_live(torch.detach)
    value = call.func(**{**given, "input": x.detach()}) if inplace else apart.evaluate()
    y = FixedGradient.apply(x, value, torch.where(x == 0, 0, value / x).detach())
    if call.name in AWAY_FROM_ZERO:
        call.ledger.add_offset(y, lambda: torch.where(x == 0, value, 0))
    return overwrite(x, y) if inplace else y


def add_product_rule(call: FunctionCall) -> Any:
    """``addcmul``, ``addmm`` and ``baddbmm``: a product, and then a sum."""
    together = torch.mul if call.name == "addcmul" else torch.matmul
    start, left, right, *factor = call.args
    factor = factor[0] if factor else call.kwargs.get("value", call.kwargs.get("alpha", 1))
    start = call.apply_rule(torch.mul, start, call.kwargs.get("beta", 1))
    return call.apply_rule(torch.add, start, call.apply_rule(together, left, right), alpha=factor)


def sample_rule(call: FunctionCall) -> Any:
    """``grid_sample`` and ``roi_align``: linear in the map; the positions are constant."""
    x, where, *rest = call.args
    fixed = [t.detach() for t in tensors_in(where)]
    return call.func(x, fixed[0] if isinstance(where, Tensor) else fixed, *rest, **call.kwargs)


# ---- in place ------------------------------------------------------------------------------------


def overwrite(x: Tensor, y: Tensor) -> Tensor:
    """Write ``y`` into ``x``, gradients included."""
    base = x._base
    if base is not None and not base.requires_grad and y.requires_grad and bool(base.any()):
        raise NoRuleError("a part of a constant that is overwritten in place has no rule")
    if not y.requires_grad and x.requires_grad:
        if base is not None:
            raise NoRuleError("a part of a tensor that is overwritten by a constant has no rule")
        x.detach_()
    return x.copy_(y)


def in_place_rule(call: FunctionCall) -> Any:
    """The rule of the function out of place, then written into its first argument."""
    apart = getattr(Tensor, call.name[:-1], None)
    if apart is None:
        return missing_rule(call)
    return overwrite(call.args[0], call.apply_rule(apart, *call.args, **call.kwargs))


def copy_rule(call: FunctionCall) -> Any:
    """``x.copy_(y)``."""
    x, y = call.args[:2]
    return overwrite(x, y)


def setitem_rule(call: FunctionCall) -> None:
    """``x[where] = y``, one of which may be constant: an offset."""
    x, where, y = call.args
    whole = x.clone()
    whole[where] = y

    def constant_part() -> Tensor:
        rest = torch.zeros_like(x) if x.requires_grad else x.clone()
        rest[where] = torch.zeros_like(y) if isinstance(y, Tensor) and y.requires_grad else y
        return rest

    call.ledger.add_offset(whole, constant_part)
    overwrite(x, whole)


def fill_rule(call: FunctionCall) -> Any:
    """``zero_`` and the like: the former content, and its relevance, is gone."""
    return overwrite(call.args[0], call.map_live(torch.zeros_like).evaluate())


def missing_rule(call: FunctionCall) -> Any:
    """No rule: fine as long as nothing that comes out depends on the picture.

    Raises:
        NoRuleError: it does.
    """
    if call.kwargs.get("out") is not None:
        raise NoRuleError(f"{call.name} with out= has no rule")
    if call.name.endswith("_") and not call.name.endswith("__"):
        raise NoRuleError(f"{call.name}, in place, has no rule")
    y = call.evaluate()
    if any(t.requires_grad for t in tensors_in(y)):
        raise NoRuleError(
            f"{call.name} has no relevance rule; use gradcam or input_x_gradient, or give it one "
            "in vitrail.attribution.lrp_rules.RULES"
        )
    return y


# ---- the table -----------------------------------------------------------------------------------

IN_PLACE = (
    "add sub mul div neg exp sigmoid softmax addcmul relu6 clamp clamp_min clamp_max index_add "
    "index_copy scatter scatter_add masked_fill lerp pow square sqrt tanh abs index_put"
)
OVERWRITTEN = "zero_ fill_ normal_ uniform_ exponential_ bernoulli_ random_"
LAYER = ("input", "weight", "bias")
AWAY_FROM_ZERO = ("softplus", "clamp", "clamp_min", "clamp_max", "hardtanh", "threshold")
"""Activations that need not take zero to zero."""

NAMES: dict[Rule, str] = {
    gradient_rule: """
        view reshape flatten unflatten permute transpose swapaxes swapdims movedim moveaxis t T mT H
        adjoint squeeze unsqueeze expand expand_as view_as reshape_as broadcast_to
        broadcast_tensors chunk split unsafe_chunk unsafe_split split_with_sizes tensor_split
        hsplit vsplit unbind narrow select diagonal index_select gather take take_along_dim
        __getitem__ masked_select unfold fold as_strided roll flip fliplr flipud rot90 repeat tile
        repeat_interleave contiguous clone to float double half bfloat16 type type_as cpu cuda
        pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle tril triu alias real
        atleast_1d atleast_2d atleast_3d __iter__ __len__ ravel
        sum mean nansum cumsum trace neg avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d
        adaptive_avg_pool2d adaptive_avg_pool3d interpolate upsample dropout dropout1d dropout2d
        dropout3d feature_dropout
        relu relu_ leaky_relu leaky_relu_ prelu rrelu abs max_pool1d max_pool2d max_pool3d
        _max_pool1d _max_pool2d _max_pool3d max_pool1d_with_indices max_pool2d_with_indices
        max_pool3d_with_indices adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
        adaptive_max_pool2d_with_indices _adaptive_max_pool2d amax amin topk sort median kthvalue
        requires_grad_ register_hook retain_grad detach_ backward
    """,
    affine_rule: "add sub rsub where masked_fill masked_scatter",
    cat_rule: """
        cat stack hstack vstack dstack column_stack index_copy index_add index_put scatter
        scatter_add scatter_reduce slice_scatter select_scatter
    """,
    pad_rule: "pad constant_pad_nd",
    lerp_rule: "lerp",
    maximum_rule: "max min maximum minimum",
    linear_rule: """
        linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d
    """,
    product_rule: "mul matmul bmm mm mv dot einsum outer tensordot kron",
    add_product_rule: "addcmul addmm baddbmm",
    quotient_rule: "div",
    power_rule: "pow square float_power",
    constant_rule: """
        rdiv rpow sigmoid hardsigmoid log_sigmoid logsigmoid exp expm1 log log1p log2 sqrt rsqrt
        reciprocal var std var_mean std_mean norm vector_norm linalg_vector_norm logsumexp sin cos
        erf softmin gumbel_softmax cosine_similarity cdist
    """,
    softmax_rule: "softmax _softmax",
    activation_rule: """
        gelu silu hardswish mish relu6 elu selu celu softplus tanh softsign tanhshrink softshrink
        hardshrink hardtanh clamp clip clamp_min clamp_max
    """,
    layer_norm_rule: "layer_norm",
    group_norm_rule: "group_norm",
    instance_norm_rule: "instance_norm",
    rms_norm_rule: "rms_norm",
    batch_norm_rule: "batch_norm",
    normalize_rule: "normalize",
    attention_rule: "scaled_dot_product_attention",
    multi_head_rule: "multi_head_attention_forward",
    sample_rule: "grid_sample grid_sampler roi_align",
    copy_rule: "copy_",
    setitem_rule: "__setitem__",
    fill_rule: OVERWRITTEN,
    in_place_rule: " ".join(f"{name}_" for name in IN_PLACE.split()),
}
RULES: dict[str, Rule] = {name: rule for rule, names in NAMES.items() for name in names.split()}
"""The rule of each function, by its name."""
