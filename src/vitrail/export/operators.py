"""Operators that a ``.pt2`` may call: those that only compute on tensors and check what they get.

Not all of ATen is safe for a program of a stranger's. Some operators read files, some change
settings of the process, and many inner ones (``_reshape_alias``, sparse tensors without checks,
gradients with indices) read or write memory beyond their tensors when they are called wrongly.
So the list says what may be called, and all else is refused.
"""

import operator
import re
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

_ATEN = re.compile(r"torch\.ops\.aten\.([A-Za-z_]\w*)\.([A-Za-z_]\w*)")
_SCALAR = re.compile(
    r"_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pow|getitem|lt|le|gt|ge|eq|ne|and_|or_)|"
    r"torch\.sym_(int|float|max|min|not|ite|sum)|math\.(floor|ceil|trunc|sqrt)"
)
"""What programs compute sizes with."""
_TEXTS = {"gelu", "gelu_", "div", "div_", "einsum", "conv1d", "conv2d", "conv3d", "index_reduce"}
_TEXTS |= {"scatter_reduce", "scatter_reduce_", "pad", "searchsorted", "meshgrid", "bucketize"}
"""Operators of ATen that take a text, and only to choose a way of computing; others name files."""
_KINDS = {"Tensor", "Int", "Float", "Bool", "Number", "String", "Optional", "List", "DeviceObj"}
"""Types of arguments and results of operators that only compute."""
_TAGS = (torch.Tag.core, torch.Tag.pointwise)
_INNER = re.compile(r"_|native_|resize|as_strided|empty_strided|.*(backward|quantize|sparse)")
"""Tagged ones that are not meant to be called from outside: they leave checks to their callers."""
_MORE = frozenset(
    """
    _adaptive_avg_pool2d _assert_scalar _assert_tensor_metadata _conj _log_softmax _safe_softmax
    _softmax _to_copy _unsafe_view _upsample_bicubic2d_aa _upsample_bilinear2d_aa
    adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d addbmm addmv
    adjoint affine_grid_generator alpha_dropout aminmax argsort baddbmm batch_norm
    broadcast_tensors broadcast_to bucketize cdist channel_shuffle chunk column_stack concat
    concatenate contiguous conv1d conv2d conv3d conv_transpose1d conv_transpose2d
    conv_transpose3d cosine_similarity count_nonzero cummax cummin cumprod cumsum detach diag
    diag_embed diagonal_scatter diff divide dot dropout dstack einsum empty_like expand_as
    expand_copy eye feature_alpha_dropout feature_dropout flatten fliplr flipud floor_divide
    frobenius_norm glu greater greater_equal grid_sampler group_norm hardswish hstack im2col
    index_add index_copy index_fill index_reduce instance_norm isclose isin item kron layer_norm
    less less_equal lift_fresh lift_fresh_copy linalg_matmul linalg_matrix_norm linalg_norm
    linalg_vecdot linalg_vector_norm linear linspace log_sigmoid log_softmax logcumsumexp
    logsumexp mH mT masked_select matmul max_pool1d max_pool2d max_pool3d median meshgrid mode
    moveaxis movedim msort multiply mv nansum narrow narrow_copy new_empty new_full new_ones
    new_zeros norm not_equal numpy_T one_hot ones ones_like outer pad pairwise_distance
    pixel_shuffle pixel_unshuffle prelu ravel repeat_interleave reshape reshape_as rms_norm roll
    rot90 scaled_dot_product_attention searchsorted softmax split stack std std_mean subtract
    sum_to_size swapaxes swapdims sym_constrain_range sym_constrain_range_for_size t
    take_along_dim tensor_split tensordot tile to trace transpose tril tril_indices triu
    triu_indices type_as unbind unflatten unfold unsafe_chunk unsafe_split
    unsafe_split_with_sizes upsample_bicubic2d upsample_bilinear2d upsample_linear1d
    upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d var_mean
    view_as vstack zero zeros zeros_like
    """.split()  # noqa: SIM905 - quoted one by one they fill a page
)
"""What torch.export writes for networks, beside the core of ATen and what works point by point."""


class Unsafe(ValueError):
    """What a file holds that is not read."""


def check_operator(target: Any) -> None:
    """Only operators that compute, found where torch keeps them.

    Raises:
        Unsafe: another one.
    """
    if not isinstance(target, str):
        raise Unsafe("it calls something that has no name")
    if _SCALAR.fullmatch(target):
        return
    found = _ATEN.fullmatch(target)
    packet = getattr(torch.ops.aten, found[1], None) if found else None
    overload = getattr(packet, found[2], None) if found and packet is not None else None
    if found is None or not isinstance(overload, torch._ops.OpOverload):
        raise Unsafe(f"it calls {target[:100]!r}")
    schema = overload._schema
    kinds = {a.name: _kinds_of(a.type) for a in schema.arguments}
    kinds |= {f"result {i}": _kinds_of(r.type) for i, r in enumerate(schema.returns)}
    strange = {kind for some in kinds.values() for kind in some} - _KINDS
    texts = any("String" in some for some in kinds.values())
    if strange or (texts and found[1] not in _TEXTS) or not _is_known(found[1]):
        raise Unsafe(f"it calls {target[:100]!r}, which does more than compute on tensors")


@cache
def _is_known(name: str) -> bool:
    """Whether an operator, or the one that it does in place, may be called."""
    plain = name if name in _MORE else name.removesuffix("_")
    packet = getattr(torch.ops.aten, plain, None)
    if plain in _MORE:
        return True
    if packet is None or _INNER.match(plain):
        return False
    tags = (tag for each in packet.overloads() for tag in getattr(packet, each).tags)
    return any(tag in _TAGS for tag in tags)


def _kinds_of(kind: Any) -> set[str]:
    """Names of a type of torch's and of all inside it."""
    name = type(kind).__name__.removesuffix("Type")
    inner = kind.containedTypes() if hasattr(kind, "containedTypes") else []
    return {name}.union(*(_kinds_of(k) for k in inner))


# ---- sizes --------------------------------------------------------------------------------------

SIZE_BITS = 63
"""No size has more."""


def bound_sizes(module: nn.Module) -> None:
    """Sizes in a program stay sizes: multiplied again and again, whole numbers have no bound.

    Python would work on them, or on lists so made, until its memory or somebody's patience ends.
    """
    for graph in (m for m in module.modules() if isinstance(m, GraphModule)):
        for node in graph.graph.nodes:
            node.target = _BOUND.get(node.target, node.target)
        graph.recompile()


def multiply_sizes(a: Any, b: Any) -> Any:
    """``a * b`` of numbers.

    Raises:
        Unsafe: no numbers, or a product that is no size.
    """
    return _size(_number(a) * _number(b))


def raise_size(a: Any, b: Any) -> Any:
    """``a ** b`` of numbers.

    Raises:
        Unsafe: no numbers, or a power that is no size.
    """
    if isinstance(_number(b), int) and b > SIZE_BITS and isinstance(_number(a), int):
        _size(1 << SIZE_BITS if abs(a) > 1 else 0)
    return _size(_number(a) ** b)


_BOUND: dict[Any, Any] = {operator.mul: multiply_sizes, operator.pow: raise_size}


def _number(value: Any) -> Any:
    if isinstance(value, str | bytes | list | tuple):
        raise Unsafe("it multiplies what is no number")
    return value


def _size(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > SIZE_BITS:
        raise Unsafe(f"it has a size of more than {SIZE_BITS} bits")
    return value
