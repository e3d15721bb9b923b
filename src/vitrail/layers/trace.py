"""What ``torch.fx`` sees of a model: its blocks, the layers beside them, and a few functions.

``torch.fx`` runs a model's Python once with a stand-in for the image, so nothing may choose by the
size of the image, or by whether it lies on a CPU. A layer that chooses is one node of the graph,
and so is a function under :func:`one_node`. Any image size then runs through one graph, and every
block still takes its faster way: the graph's numbers are the model's, to the bit.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from torch import nn
from torch.fx import Proxy

P = ParamSpec("P")
R = TypeVar("R")


def one_node(function: Callable[P, R]) -> Callable[P, R]:
    """Let ``torch.fx`` call a function as a whole, not what it is made of."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        traced = stand_in((*args, *kwargs.values()))
        if traced is None:
            return function(*args, **kwargs)
        return traced.tracer.create_proxy("call_function", call, args, kwargs)  # type: ignore[return-value]

    return call


def stand_in(values: Any) -> Proxy | None:
    """The first stand-in for a value of the graph, also inside a tuple such as a grid."""
    for value in values:
        found = stand_in(value) if type(value) in (tuple, list) else value
        if isinstance(found, Proxy):
            return found
    return None


@contextmanager
def whole_layers(tracer: Any, model: nn.Module, opened: set[nn.Module]) -> Iterator[None]:
    """For the time of a trace, every module of ``model`` that is not opened is one node."""
    usual, own = tracer.is_leaf_module, {*model.modules()} - opened

    def is_leaf_module(module: nn.Module, name: str) -> bool:
        return module in own or bool(usual(module, name))

    tracer.is_leaf_module = is_leaf_module
    try:
        yield
    finally:
        del tracer.is_leaf_module


def above(model: nn.Module, parts: set[nn.Module]) -> set[nn.Module]:
    """Modules of ``model`` that hold one of some modules, these included."""
    return {module for module in model.modules() if not parts.isdisjoint(module.modules())}
