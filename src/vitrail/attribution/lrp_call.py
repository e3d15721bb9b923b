"""The arguments of a relevance rule: one call of a torch function, and the ledger of constants."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from vitrail.attribution.lrp_linear import Gamma, LinearRule
from vitrail.attribution.preserve import ExplainError


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Which rules linear layers and attention follow.

    Attributes:
        conv: of convolutions, transposed ones too.
        linear: of linear layers.
        attention: ``"constant"`` or ``"attnlrp"``.
    """

    conv: LinearRule = field(default_factory=lambda: Gamma(gain=0.25))
    linear: LinearRule = field(default_factory=lambda: Gamma(gain=0.05))
    attention: str = "constant"

    @property
    def conserve(self) -> bool:
        """Whether relevance must add up to the score."""
        return self.attention == "constant" and self.conv.conserves and self.linear.conserves


class NoRuleError(Exception):
    """A call that no rule covers; the message says which."""


class ConstantLedger:
    """The relevance of all constants that are added on the way, image by image.

    A gradient's first axis must run over images, or over images and then their parts.
    """

    def __init__(self, images: int, device: torch.device) -> None:
        self.total = torch.zeros(images, dtype=torch.float64, device=device)

    def add(self, relevance: Tensor) -> None:
        """Count a tensor of relevances.

        Raises:
            ExplainError: its first axis is not a multiple of the images.
        """
        images = len(self.total)
        if images > 1 and (relevance.dim() == 0 or relevance.shape[0] % images):
            raise ExplainError(
                f"lrp: a tensor {tuple(relevance.shape)} does not say which of {images} images "
                "its parts belong to; explain the images one by one"
            )
        self.total += relevance.reshape(images, -1).sum(1, dtype=torch.float64)

    def add_offset(self, y: Tensor, added: Callable[[], Tensor]) -> None:
        """``y`` holds ``added()``, which broadcasts to it and does not depend on the picture."""

        def count(grad: Tensor) -> None:
            self.add(torch.where(grad == 0, 0, grad * added()))  # a mask of -inf, unused: nothing

        y.register_hook(count)

    def add_channels(self, y: Tensor, added: Tensor, behind: int) -> None:
        """``y`` holds ``added``, one number a channel; ``behind`` axes of places follow it."""
        axis = y.dim() - 1 - behind
        places = [i for i in range(1, y.dim()) if i != axis]

        def count(grad: Tensor) -> None:
            self.add((grad.sum(places, dtype=torch.float64) if places else grad) * added)

        y.register_hook(count)


@dataclass(frozen=True, kw_only=True)
class FunctionCall:
    """One call of a torch function.

    Attributes:
        name: of the function, the same for ``torch.add``, ``Tensor.add`` and ``+``.
        func: the function.
        args: as given.
        kwargs: as given.
        rules: the user's choice.
        ledger: where constants are counted.
        dispatch: calls another function under the rules: ``dispatch(func, args, kwargs)``.
    """

    name: str
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    rules: Rules
    ledger: ConstantLedger
    dispatch: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]

    def evaluate(self) -> Any:
        """The function's own result."""
        return self.func(*self.args, **self.kwargs)

    def apply_rule(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call another function by its rule."""
        return self.dispatch(func, args, kwargs)

    @property
    def tensors(self) -> list[Tensor]:
        """All floating tensors among the arguments."""
        return [t for t in tensors_in((self.args, self.kwargs)) if t.is_floating_point()]

    @property
    def live(self) -> list[Tensor]:
        """Those that depend on the picture."""
        return [t for t in tensors_in((self.args, self.kwargs)) if t.requires_grad]

    def map_live(self, change: Callable[[Tensor], Tensor]) -> "FunctionCall":
        """The call with its live tensors changed."""

        def each(tensor: Tensor) -> Tensor:
            return change(tensor) if tensor.requires_grad else tensor

        return replace(
            self, args=map_tensors(self.args, each), kwargs=map_tensors(self.kwargs, each)
        )

    def bind(self, *names: str) -> dict[str, Any]:
        """Arguments by name; ``names`` are those of a built-in function, which has no signature."""
        names = parameters(self.func) or names
        return {**dict(zip(names, self.args, strict=False)), **self.kwargs}


@cache
def parameters(func: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a Python function's parameters; none for a built-in one."""
    try:
        return tuple(inspect.signature(func).parameters)
    except (TypeError, ValueError):
        return ()


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists, mappings and slices."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors_in(part)
    elif isinstance(value, Mapping):
        yield from tensors_in(tuple(value.values()))


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nest with its tensors changed."""
    if isinstance(value, Tensor):
        return change(value)
    if type(value) in (tuple, list):
        return type(value)(map_tensors(part, change) for part in value)
    if isinstance(value, Mapping):
        return {key: map_tensors(part, change) for key, part in value.items()}
    return value


def name_of(func: Any) -> str:
    """``torch.add``, ``Tensor.add`` and ``Tensor.__add__`` are ``add``."""
    name = str(getattr(func, "__name__", func))
    return OPERATORS.get(name, name)


OPERATORS = (
    {
        f"__{prefix}{word}__": name + "_" * (prefix == "i")
        for word, name in (
            ("add", "add"),
            ("sub", "sub"),
            ("mul", "mul"),
            ("truediv", "div"),
            ("div", "div"),
            ("matmul", "matmul"),
            ("pow", "pow"),
        )
        for prefix in ("", "r", "i")
    }
    | {"__rsub__": "rsub", "__rtruediv__": "rdiv", "__rdiv__": "rdiv", "__rpow__": "rpow"}
    | {
        "__neg__": "neg",
        "__abs__": "abs",
        "absolute": "abs",
        "subtract": "sub",
        "multiply": "mul",
        "divide": "div",
        "true_divide": "div",
        "true_divide_": "div_",
        "negative": "neg",
        "concat": "cat",
        "concatenate": "cat",
    }
)
"""Other spellings. A matrix product written from the right arrives with its operands swapped."""
