"""Whether a card's model is the one whose weights lie beside it, before memory is taken for it.

A card is a text and can ask for anything. The weights' header says names and shapes, and they are
in the file; the model is built without memory (torch's meta device) and given up as soon as it is
larger than they are.
"""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vitrail.errors import UserError
from vitrail.hub.plugin_records import uses_plugins

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vitrail.tasks.card import Card

MOST_LETTERS, MOST_NUMBER = 10_000, 10**7
"""A model's text that is longer, or names a larger number, is none."""
_NUMBER = re.compile(r"(?<![\w.])\d+(?![\w.])")

Shapes = Mapping[str, tuple[int, ...]]


class TooLarge(Exception):
    """The model has outgrown its weights."""


def check_fits(card: "Card", shapes: Shapes, where: str, *, exact: bool = True) -> None:
    """Compare the model of a card with the shapes of its weights, by building it without memory.

    Args:
        card: of the weights.
        shapes: of all the model's tensors, as the weights' header has them.
        where: the file, for the error.
        exact: every tensor is compared; else only that the model is not much larger.

    Raises:
        UserError: they do not fit, or the model cannot be built at all.
    """
    refuse_large_numbers(card.model, where)
    try:
        own = {n: tuple(t.shape) for n, t in build_on_meta(card, shapes).state_dict().items()}
    except UserError:
        raise
    except TooLarge as error:
        raise UserError(
            f"the weights in {where} do not fit {card.model}: it is much larger than they are"
        ) from error
    except Exception as error:  # a card can name any options: torch refuses them in many ways
        if uses_plugins(card.model):  # trusted code, which may need real tensors
            return
        why = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"the model of {where} cannot be built ({card.model}): {why}") from error
    differ = [n for n in {**own, **shapes} if own.get(n) != shapes.get(n)]
    if differ and exact:
        raise UserError(
            f"the weights in {where} do not fit {card.model}: {len(differ)} tensors differ, such "
            f"as {differ[0]} ({shapes.get(differ[0], 'none')} in the file, "
            f"{own.get(differ[0], 'none')} in the model)"
        )


def refuse_large_numbers(text: str, where: str) -> None:
    """Lists are made of some numbers in a model's text before any tensor is."""
    large = [n for n in _NUMBER.findall(text) if len(n) > 8 or int(n) > MOST_NUMBER]
    if len(text) > MOST_LETTERS or large:
        raise UserError(
            f"the model of {where} cannot be built: its text "
            + (f"says {large[0][:40]}" if large else f"has {len(text)} letters")
        )


def build_on_meta(card: "Card", shapes: Shapes) -> "nn.Module":
    """The model without memory, given up when it outgrows ``shapes``.

    Raises:
        TooLarge: it did.
    """
    import torch

    from vitrail.hub.names import build

    with limit_building(shapes), torch.device("meta"):
        return build(card.model, card.size, trial=False)


@contextmanager
def limit_building(shapes: Shapes) -> Iterator[None]:
    """Building stops when it has made more parts or values than such weights can belong to."""
    from torch.nn.modules import module

    parts, values = len(shapes), sum(math.prod(shape) for shape in shapes.values())
    left = {"parts": 100 * parts + 10_000, "tensors": 4 * parts + 1_000}
    left["values"] = 50 * values + 10**8

    def count_module(*_: Any) -> None:
        spend("parts", 1)

    def count_tensor(_: Any, __: str, tensor: "Tensor | None") -> None:
        spend("tensors", 1)
        spend("values", 0 if tensor is None else tensor.numel())

    def spend(what: str, amount: int) -> None:
        left[what] -= amount
        if left[what] < 0:
            raise TooLarge(what)

    handles = [
        module.register_module_module_registration_hook(count_module),
        module.register_module_parameter_registration_hook(count_tensor),
        module.register_module_buffer_registration_hook(count_tensor),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
