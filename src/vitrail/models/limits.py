"""Options of models that make no sense, refused before anything is built.

First the type and range of every option, then the size: roughly from the numbers in the config,
and exactly, on torch's meta device, where the rough figure is large.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any, get_type_hints

import torch

from vitrail.errors import UserError
from vitrail.limits import MOST, fits_in_memory, format_amount, refuse_large_batch, usable_memory
from vitrail.schema import convert

MOST_BLOCKS = 1000
"""Blocks of one model, all stages together."""
MOST_CLASSES = 10**7
SMALL = 2**27
"""Parameters below which a rough figure is enough."""
LARGE_OPTION = 256
"""Options of mixers and reducers up to this one make no large tables."""
BYTES = 4
RATES = frozenset(("dropout", "head_dropout", "drop_path"))
ZERO_IS_FINE = RATES | {"classes", "parallel", "resample", "pooled", "local", "eps"}
BY_STAGE = frozenset(("dims", "depths", "ratios", "heads", "widths", "strides", "pooled"))
"""Options with an entry for each stage of a variant."""


def check_options(name: str, config: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """``options`` as the types of ``config``'s fields, each within its range.

    Raises:
        UserError: another type, a number out of range, or not one entry a stage.
    """
    hints = get_type_hints(type(config))
    ready: dict[str, Any] = {}
    for option, value in options.items():
        where = f"model {name!r}: {option}"
        ready[option] = convert(hints[option], whole_number(value), where)
        for number in numbers(ready[option]):
            check_number(option, number, where)
        own = getattr(config, option)
        staged = option in BY_STAGE and isinstance(own, tuple) and "kinds" not in options
        if staged and len(ready[option]) != len(own):
            raise UserError(f"{where} has {len(own)} entries, one a stage, not {len(value)}")
    return ready


def whole_number(value: Any) -> Any:
    """numpy's and torch's whole numbers as Python's; all else as it is."""
    if isinstance(value, tuple | list):
        return type(value)(map(whole_number, value))
    if hasattr(value, "__index__") and not isinstance(value, bool | int):
        return value.__index__()
    return value


def check_number(option: str, number: float, where: str) -> None:
    """One number within its range.

    Raises:
        UserError: it is not.
    """
    least = 0 if option in ZERO_IS_FINE else 1 if isinstance(number, int) else 1e-9
    most = MOST_CLASSES if option == "classes" else 0.99 if option in RATES else MOST
    if not math.isfinite(number) or not least <= number <= most:
        raise UserError(f"{where} must lie between {least:g} and {most:g}, not {number:g}")


def numbers(value: Any) -> Iterator[float]:
    """All numbers in a value, tuples opened."""
    if isinstance(value, tuple):
        for one in value:
            yield from numbers(one)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def check_size(text: str, config: Any, make: Callable[[], torch.nn.Module]) -> None:
    """Refuse a model that this machine cannot hold; ``make`` builds it.

    Raises:
        UserError: too many blocks, pictures or parameters.
    """
    blocks = sum(numbers_of(config, "depth", "depths"))
    if blocks > MOST_BLOCKS:
        raise UserError(f"{text} has {blocks:g} blocks; at most {MOST_BLOCKS} are built")
    refuse_large_batch(1, config.image, config.in_chans)
    if rough_count(config, blocks) > SMALL or has_large_spec(config):
        refuse_parameters(text, exact_count(make))


def refuse_parameters(text: str, count: int) -> None:
    """Refuse more parameters than fit in memory.

    Raises:
        UserError: they do not fit.
    """
    if not fits_in_memory(BYTES * count):
        raise UserError(
            f"{text} has {format_amount(count, '').strip()} parameters, "
            f"{format_amount(BYTES * count)}; this machine has {format_amount(usable_memory())}: "
            "choose a smaller width, depth or image"
        )


def numbers_of(config: Any, *names: str) -> list[float]:
    """All numbers in some fields of a config, those that it has."""
    return [n for name in names for n in numbers(getattr(config, name, ()))]


def rough_count(config: Any, blocks: float) -> float:
    """Parameters at most, by order: every number of the config taken as a width."""
    plain = [f.name for f in fields(config) if f.name not in ("classes", "image", "in_chans")]
    width = max([1.0, *numbers_of(config, *plain)])
    ratio = max([1.0, *numbers_of(config, "mlp_ratio", "ratio", "ratios")])
    pixels = math.prod(config.image) if isinstance(config.image, tuple) else config.image**2
    tables = width * (config.classes + config.in_chans * width + pixels / 4)
    return max(blocks, 1.0) * width**2 * (4 + 2 * ratio) + tables


def has_large_spec(config: Any) -> bool:
    """Whether a mixer or a reducer has an option so large that its tables may be."""
    texts = " ".join((*config.mixer, *config.reducer))
    return any(int(digits) > LARGE_OPTION for digits in re.findall(r"\d+", texts))


def exact_count(make: Callable[[], torch.nn.Module]) -> int:
    """Parameters and buffers, counted without memory for them."""
    with torch.device("meta"):
        model = make()
    return sum(t.numel() for t in (*model.parameters(), *model.buffers()))
