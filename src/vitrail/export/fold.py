"""Graph passes that fold what is known at inference into weights; each returns a count of changes.

Exact but for rounding, computed in float64. A pass matches patterns of the graph, not names of
modules, so it serves every model, those of other libraries too. The arithmetic of norms and
identities is that of :mod:`vitrail.layers.fused`, which folds at every eager call.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from vitrail.export.graph import (
    GETITEM,
    Op,
    add_constant,
    aten,
    bypass,
    calls,
    clean_up,
    dtype_of,
    is_constant,
    is_node,
    is_operation,
    is_random,
    mutates,
    replace_call,
    shape_of,
    tensor,
)
from vitrail.layers.fused import add_identity, affine_of_norm

LARGEST = 2**28
"""Bytes above which a table is not kept but computed at each call, as the model has it."""


def fold_constants(module: GraphModule) -> int:
    """Compute once what no picture changes: bias tables, resized positions, summed kernels."""
    varying = nodes_that_vary(module)
    values: dict[Op, Any] = {}
    folded = 0
    for node in list(module.graph.nodes):
        if is_constant(node):
            values[node] = tensor(module, node)
        elif is_operation(node) and node not in varying:
            values[node] = evaluate(node, values)
    for node in [n for n in values if is_operation(n) and any(u in varying for u in n.users)]:
        value = values[node]
        if isinstance(value, Tensor):
            users = [u for u in node.users if u in varying]
            new = add_constant(module, node, value, dtype_of(node))
            new.meta["val"] = node.meta["val"]
            for user in users:
                user.replace_input_with(node, new)
            folded += 1
    for node in reversed([n for n in values if is_operation(n)]):
        if not node.users:
            module.graph.erase_node(node)
    clean_up(module)
    return folded


def evaluate(node: Op, values: dict[Op, Any]) -> Any:
    """What a call gives for constants."""
    args = torch.fx.map_arg(node.args, lambda n: values[n])
    options = torch.fx.map_arg(node.kwargs, lambda n: values[n])
    with torch.no_grad():
        return node.target(*args, **options)


def nodes_that_vary(module: GraphModule) -> set[Op]:
    """Calls whose result differs between pictures or calls, or is too large to keep."""
    fixed: set[Op] = set()
    while True:
        varying: set[Op] = set()
        written: set[Op] = set()
        for node in module.graph.nodes:
            if varies(node, varying) or node in fixed:
                varying.add(node)
                if mutates(node):
                    written |= set(sources(node.args[0]))
        grown = fixed | {n for n in written if is_operation(n)}
        if grown == fixed:
            return varying
        fixed = grown


def varies(node: Op, varying: set[Op]) -> bool:
    """Whether one node does, given those before it."""
    if not is_operation(node):
        return node.op != "get_attr"
    if is_random(node) or size_of(node) > LARGEST:
        return True
    return any(given in varying for given in node.all_input_nodes)


def size_of(node: Op) -> int:
    """Bytes of a result; zero where it is no tensor or depends on the batch."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or not all(isinstance(s, int) for s in value.shape):
        return 0
    return math.prod(value.shape) * value.element_size()


def sources(node: Op) -> Iterator[Op]:
    """A node and all that it may be a view of."""
    while is_node(node):
        yield node
        node = node.args[0] if is_operation(node) and node.args else None


def fold_batch_norms(module: GraphModule) -> int:
    """Put batch norms into the convolution or linear layer before them, else behind them."""
    folded = 0
    for norm in calls(module, aten.batch_norm.default):
        if norm.args[5] or not all(is_constant(a) for a in norm.args[1:5]):
            continue
        folded += fold_backward(module, norm) or fold_forward(module, norm)
    clean_up(module)
    return folded


def scale_and_shift(module: GraphModule, norm: Op) -> tuple[Tensor, Tensor]:
    """What a batch norm does to each channel, in float64."""
    weight, bias, mean, var = (tensor(module, a).double() for a in norm.args[1:5])
    return affine_of_norm(weight, bias, mean, var, float(norm.args[7]))


def fold_identities(module: GraphModule) -> int:
    """``x + conv(x)`` -> ``conv(x)`` with other weights, for depthwise convolutions."""
    found = [(t, c) for t in calls(module, aten.add.Tensor) if (c := depthwise_of_sum(t))]
    for total, conv in found:
        weight, bias = weights_of(module, conv)
        reweigh(module, conv, add_identity(weight), bias)
        total.replace_all_uses_with(conv)
        module.graph.erase_node(total)
    clean_up(module)
    return len(found)


def depthwise_of_sum(total: Op) -> Op | None:
    """The convolution of ``x + conv(x)`` that keeps channels and places apart, if it is one."""
    for x, conv in (total.args[:2], total.args[1::-1]):
        if not is_weighted(conv) or conv.target is not aten.conv2d.default or total.kwargs:
            continue
        if conv.args[0] is not x or len(conv.users) > 1:
            continue
        _, weight, _, stride, padding, dilation, groups = conv_options(conv)
        channels, one, *sides = shape_of(weight)
        same = stride == dilation == [1, 1] and padding == [side // 2 for side in sides]
        if same and one == 1 and groups == channels and all(side % 2 for side in sides):
            return conv
    return None


def fold_backward(module: GraphModule, norm: Op) -> bool:
    """``norm(conv(x))`` -> ``conv(x)`` with other weights."""
    conv = norm.args[0]
    if not is_weighted(conv) or len(conv.users) > 1:
        return False
    scale, shift = scale_and_shift(module, norm)
    weight, bias = weights_of(module, conv)
    weight = weight * scale.view(-1, *[1] * (weight.dim() - 1))
    reweigh(module, conv, weight, bias * scale + shift)
    bypass(module, norm)
    return True


def fold_forward(module: GraphModule, norm: Op) -> bool:
    """``conv(pool(norm(x)))`` -> ``conv(pool(x))`` with other weights, for 1 x 1 convolutions.

    A kernel that pads would see the shift as zero at its edges: there it is not exact.
    """
    readers = list(readers_of(norm, follows_channels(norm)))
    if not readers or not all(is_pointwise(r) for r in readers):
        return False
    scale, shift = scale_and_shift(module, norm)
    for reader in readers:
        affine_into(module, reader, scale, shift)
    bypass(module, norm)
    return True


def fold_layer_norms(module: GraphModule) -> int:
    """Put a layer norm's weight and bias into the linear layers that alone read it."""
    folded = 0
    for norm in calls(module, aten.layer_norm.default):
        affine = norm.args[2:4]
        if len(affine) < 2 or not all(is_constant(a) for a in affine):
            continue
        readers = list(readers_of(norm, keeps_last))
        if not readers or not all(r.target is aten.linear.default for r in readers):
            continue
        if not all(is_weighted(r) for r in readers):
            continue
        scale, shift = (tensor(module, a).double() for a in affine)
        for reader in readers:
            affine_into(module, reader, scale, shift)
        norm.args = (norm.args[0], norm.args[1], None, None, *norm.args[4:])
        folded += 1
    clean_up(module)
    return folded


def affine_into(module: GraphModule, reader: Op, scale: Tensor, shift: Tensor) -> None:
    """``reader(scale * x + shift)`` -> ``reader(x)``: a linear layer or a 1 x 1 convolution."""
    weight, bias = weights_of(module, reader)
    flat = weight.flatten(1)
    reweigh(module, reader, (flat * scale).view_as(weight), bias + flat @ shift)


def is_weighted(node: Op) -> bool:
    """Whether a node is a convolution or linear layer with constant weights."""
    if not is_node(node) or node.target not in (
        aten.conv2d.default,
        aten.linear.default,
    ):
        return False
    bias = node.args[2] if len(node.args) > 2 else None
    return is_constant(node.args[1]) and (bias is None or is_constant(bias))


def is_pointwise(node: Op) -> bool:
    """Whether every output sees one place, and all channels of it."""
    if not is_weighted(node):
        return False
    if node.target is aten.linear.default:
        return True
    _, _, _, _, padding, _, groups = conv_options(node)
    return shape_of(node.args[1])[2:] == (1, 1) and not any(padding) and groups == 1


def conv_options(
    conv: Op,
) -> tuple[Op, Op, Op | None, list[int], list[int], list[int], int]:
    """All arguments of a convolution, defaults filled in, sides as pairs."""
    given = dict(enumerate(conv.args))
    stride, padding, dilation = (
        list(pair) * (2 // len(pair))
        for pair in (given.get(3, [1, 1]), given.get(4, [0, 0]), given.get(5, [1, 1]))
    )
    return given[0], given[1], given.get(2), stride, padding, dilation, given.get(6, 1)


def weights_of(module: GraphModule, node: Op) -> tuple[Tensor, Tensor]:
    """Weight and bias in float64; zeros where there is no bias."""
    weight = tensor(module, node.args[1]).double()
    bias = node.args[2] if len(node.args) > 2 else None
    return weight, tensor(module, bias).double() if bias is not None else weight.new_zeros(
        weight.shape[0]
    )


def reweigh(module: GraphModule, node: Op, weight: Tensor, bias: Tensor) -> None:
    """Give a layer new weights, used in the type of its old ones."""
    old: Op = node.args[1]
    like = dtype_of(old)
    new = []
    for value in (weight, bias):
        made = add_constant(module, node, value.float(), like)
        made.meta["val"] = old.meta["val"].new_empty(value.shape)
        new.append(made)
    node.args = (node.args[0], *new, *node.args[3:])


def readers_of(node: Op, passes: Callable[[Op, Op], bool]) -> Iterator[Op]:
    """What reads a node, looked at through the operations that ``passes`` lets through."""
    for user in node.users:
        if passes(node, user):
            yield from readers_of(user, passes)
        else:
            yield user


def keeps_last(given: Op, user: Op) -> bool:
    """Whether an operation moves tokens only: the last axis stays as it is."""
    if user.target in (aten.slice.Tensor, aten.select.int, aten.unsqueeze.default):
        axis = int(user.args[1]) if len(user.args) > 1 else 0
        return axis % len(shape_of(given)) != len(shape_of(given)) - 1
    if user.target in (aten.reshape.default, aten.flatten.using_ints, aten._unsafe_view.default):
        return bool(shape_of(user)[-1] == shape_of(given)[-1])
    return user.target in (aten.clone.default, aten.contiguous.default)


def follows_channels(norm: Op) -> Callable[[Op, Op], bool]:
    """What may stand between a norm and the layer it goes into: means that keep a constant one."""
    tokens = len(shape_of(norm)) == 2

    def passes(given: Op, user: Op) -> bool:
        if tokens:
            return keeps_last(given, user)
        if user.target is not aten.avg_pool2d.default:
            return False
        counts_padding = user.args[5] if len(user.args) > 5 else True
        padding = user.args[3] if len(user.args) > 3 else [0]
        ceil = user.args[4] if len(user.args) > 4 else False
        return not counts_padding or not (any(padding) or ceil)

    return passes


def fuse_projections(module: GraphModule) -> int:
    """One product in place of several over the same tokens, where attention reads them all.

    Attention takes its heads as they lie; other readers want dense memory, and there several
    products are faster (``dev/log.md``).
    """
    fused = 0
    for node in calls(module, aten.linear.default):
        if node.graph is not module.graph or not is_weighted(node):
            continue
        group = [
            n
            for n in node.args[0].users
            if n.target is aten.linear.default and is_weighted(n) and feeds_attention(n)
        ]
        if len(group) > 1 and group[0] is node:
            join_linears(module, group)
            fused += 1
    clean_up(module)
    return fused


def feeds_attention(linear: Op) -> bool:
    """Whether heads cut from this product go to fused attention and nowhere else."""
    through = (aten.reshape.default, aten.transpose.int, aten.unflatten.int, aten.permute.default)
    readers = list(readers_of(linear, lambda _, user: user.target in through))
    return bool(readers) and all(
        r.target is aten.scaled_dot_product_attention.default for r in readers
    )


def join_linears(module: GraphModule, group: list[Op]) -> None:
    """Several linear layers as one, its result cut."""
    weights, biases = zip(*(weights_of(module, n) for n in group), strict=True)
    head = group[0]
    widths = [w.shape[0] for w in weights]
    with module.graph.inserting_before(head):
        whole = module.graph.call_function(aten.linear.default, tuple(head.args))
        reweigh(module, whole, torch.cat(weights), torch.cat(biases))
        value = head.meta["val"]
        whole.meta["val"] = value.new_empty((*value.shape[:-1], sum(widths)))
        cut = module.graph.call_function(aten.split_with_sizes.default, (whole, widths, -1))
    for i, node in enumerate(group):
        replace_call(module, node, GETITEM, (cut, i))


def materialise_constants(module: GraphModule) -> int:
    """Constants in the type they are used in, each in dense memory of its own."""
    changed = 0
    for node in [n for n in module.graph.nodes if is_constant(n)]:
        value = tensor(module, node)
        wanted = value.to(dtype_of(node)) if value.is_floating_point() else value
        if wanted.untyped_storage().nbytes() > wanted.numel() * wanted.element_size():
            wanted = wanted.clone(memory_format=torch.contiguous_format)
        if wanted is not value:
            changed += 1
            node.replace_all_uses_with(add_constant(module, node, wanted, dtype_of(node)))
    clean_up(module)
    return changed
