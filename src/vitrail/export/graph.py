"""A model as a list of operations, captured once and rewritten step by step.

model --torch.export--> operations and weights --> ``fx.GraphModule`` with one input, one output

Weights and other constants are flat attributes ``c0``, ``c1``, ...; a step never writes into one,
it places a new one. So a graph can be copied for nothing before a step and timed against it after.
"""

import copy
import operator
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.fx import GraphModule

from vitrail.export.verify import ExportError
from vitrail.tokens.clusterers import HashClusterer

if TYPE_CHECKING:
    from torch.export import ExportedProgram

aten = torch.ops.aten
Op = Any
"""A node of the graph (torch gives its arguments a type so wide that it says nothing)."""

BATCH = 2
"""Pictures in the example that is traced: torch takes a batch of one for a constant."""
IDLE = {aten.detach.default, aten.alias.default, aten.dropout.default}
"""Operations that do nothing at inference."""
CHECKS = {
    aten._assert_tensor_metadata.default,
    aten._assert_scalar.default,
    aten.sym_constrain_range_for_size.default,
}
"""Operations that only look; shapes are checked once, in front."""


def capture(
    model: nn.Module,
    example: Tensor,
    weights: Mapping[str, Tensor] | None = None,
    sizes: Mapping[int, Any] | None = None,
) -> GraphModule:
    """The operations of ``model`` in evaluation, for any batch of pictures of the example's size.

    Args:
        model: in evaluation mode; left as it is.
        example: ``(B, C, H, W)``, of the type that ``model`` computes in.
        weights: put in place of the model's own tensors of those names, in another precision.
        sizes: dimensions beside the batch that may vary.

    Raises:
        ExportError: torch.export cannot follow the model.
    """
    program = program_of(model, example, sizes)
    found = program.module(check_guards=False)
    return flatten_constants(found, {**dict(tensors_of(found)), **(weights or {})})


def program_of(
    model: nn.Module, example: Tensor, sizes: Mapping[int, Any] | None = None
) -> "ExportedProgram":
    """torch.export's program with a dynamic batch, and dynamic ``sizes`` where given.

    Raises:
        ExportError: torch.export cannot follow the model; clusters by content are named.
    """
    from torch._dynamo.exc import TorchDynamoException

    for name, part in model.named_modules():
        if isinstance(part, HashClusterer):
            raise ExportError(
                f"{name} makes as many clusters as a picture has codes (by='e2lsh'), so its shapes "
                "are not known beforehand and it cannot be exported; build the model with "
                "by='window' or by='sort'"
            )
    shapes = {0: torch.export.Dim.DYNAMIC, **(sizes or {})}
    try:
        with torch.no_grad():
            return torch.export.export(model, (as_batch_of_two(example),), dynamic_shapes=(shapes,))
    except (TorchDynamoException, RuntimeError, ValueError, TypeError) as error:
        raise ExportError(
            f"torch.export cannot follow {type(model).__name__} ({first_line(error)})"
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of an error, shortened."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:160]


def as_batch_of_two(example: Tensor) -> Tensor:
    """The example's first picture, twice."""
    return example[:1].expand(BATCH, -1, -1, -1).clone()


def tensors_of(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every tensor by the name under which a graph asks for it."""
    for name, part in module.named_modules(remove_duplicate=False):
        for key, value in {**part._parameters, **part._buffers, **vars(part)}.items():
            if isinstance(value, Tensor):
                yield f"{name}.{key}".lstrip("."), value.detach()


def flatten_constants(found: nn.Module, tensors: Mapping[str, Tensor]) -> GraphModule:
    """The same operations over flat constants, one for each distinct name."""
    graph: Any = copy.deepcopy(found.graph)
    graph.set_codegen(fx.graph.CodeGen())
    constants: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    for node in list(graph.nodes):
        if node.op == "get_attr":
            name = names.setdefault(node.target, f"c{len(names)}")
            constants[name] = tensors[node.target]
            node.target = name
        elif node.op == "output":
            (node.args,) = ((single_output(node.args[0]),),)
        elif node.target in CHECKS:
            graph.erase_node(node)
        elif node.target in IDLE:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif node.target is aten.view.default:
            node.target = aten.reshape.default  # steps may change the memory order in front of it
    graph.eliminate_dead_code()
    return GraphModule(buffers_module(constants), graph)


def single_output(result: Any) -> Op:
    """A graph's one result, out of the list it may come in."""
    return result[0] if isinstance(result, list | tuple) else result


def buffers_module(constants: Mapping[str, Tensor]) -> nn.Module:
    """A bare module that holds constants as buffers."""
    bare = nn.Module()
    for name, value in constants.items():
        bare.register_buffer(name, value)
    return bare


def copy_graph(module: GraphModule) -> GraphModule:
    """The same operations once more, over the same constants."""
    graph = copy.deepcopy(module.graph)
    graph.set_codegen(fx.graph.CodeGen())
    return GraphModule(module, graph)


def calls(module: GraphModule, *targets: Any) -> list[Op]:
    """The calls of these operations, in order."""
    return [n for n in module.graph.nodes if n.op == "call_function" and n.target in targets]


def is_node(thing: Any) -> bool:
    """Whether an argument is a node's result, not a number or a list."""
    return isinstance(thing, fx.Node)


def is_constant(node: Any) -> bool:
    """Whether a node is a constant."""
    return is_node(node) and node.op == "get_attr"


def tensor(module: GraphModule, node: Op) -> Tensor:
    """The value of a constant."""
    found: Tensor = getattr(module, str(node.target))
    return found


def add_constant(module: GraphModule, before: Op, value: Tensor, like: torch.dtype) -> Op:
    """A new constant in front of a node; ``like`` is the type it is used in."""
    number = max((int(name[1:]) for name in module._buffers if name[1:].isdigit()), default=-1) + 1
    module.register_buffer(f"c{number}", value.detach())
    with module.graph.inserting_before(before):
        node = module.graph.get_attr(f"c{number}")
    node.meta.update(before.meta if is_constant(before) else {})
    node.meta["dtype"] = like
    return node


def dtype_of(node: Op) -> torch.dtype:
    """The type in which a node's value is used."""
    found: torch.dtype = node.meta.get("dtype") or node.meta["val"].dtype
    return found


def shape_of(node: Any) -> tuple[Any, ...]:
    """A node's shape; unknown sides are symbols."""
    return tuple(node.meta["val"].shape)


def only_user(node: Op) -> Op | None:
    """The one node that reads this one, or None."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def replace_call(module: GraphModule, old: Op, target: Any, args: tuple[Any, ...]) -> Op:
    """Another call in a node's stead, with its shape."""
    with module.graph.inserting_before(old):
        new = module.graph.call_function(target, args)
    new.meta.update(old.meta)
    old.replace_all_uses_with(new)
    module.graph.erase_node(old)
    return new


def bypass(module: GraphModule, node: Op) -> None:
    """Take a node out: who read it reads its input."""
    node.replace_all_uses_with(node.args[0])
    module.graph.erase_node(node)


def clean_up(module: GraphModule) -> GraphModule:
    """Remove unused nodes and constants, and generate the code again."""
    module.graph.eliminate_dead_code(lambda node: node.is_impure() and not is_unread_write(node))
    used = {n.target for n in module.graph.nodes if n.op == "get_attr"}
    for name in [name for name in module._buffers if name not in used]:
        delattr(module, name)
    module.graph.lint()
    module.recompile()
    return module


def mutates(node: Op) -> bool:
    """Whether a call writes into its first argument."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def is_unread_write(node: Op) -> bool:
    """Whether a call writes into fresh memory that no other call reads; it can be removed."""
    if not (is_operation(node) and mutates(node)):
        return False
    written = node.args[0]
    return is_node(written) and is_fresh(written) and only_user(written) is node


def is_fresh(node: Op) -> bool:
    """Whether a node is a call that gives memory of its own, not a view."""
    schema = getattr(node.target, "_schema", None) if is_operation(node) else None
    return schema is not None and all(given.alias_info is None for given in schema.returns)


def is_random(node: Op) -> bool:
    """Whether a call draws at random."""
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def is_operation(node: Op) -> bool:
    """Whether a node computes something."""
    return node.op == "call_function"


GETITEM = operator.getitem
