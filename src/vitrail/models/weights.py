"""Released weights into our models: rename, check, fit, load strictly; ``reader`` reads files."""

import contextlib
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vitrail.errors import UserError, printable
from vitrail.layers.grid import Grid
from vitrail.layers.position import Table, resize_table
from vitrail.models.reader import State, agree

Renames = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What became of a file's tensors and of a model's.

    ``loaded`` counts the model's tensors that came from the file, ``resized`` names those of them
    that were fitted to another size, ``new`` the model's own that stayed as they were built,
    ``left_out`` the file's that the model has no use for.
    """

    loaded: int
    resized: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def rename(state: Mapping[str, Tensor], renames: Renames) -> State:
    """Our names; several old names of one tensor meet in one, after it is checked that they agree.

    Raises:
        UserError: two names that should share a tensor differ.
    """
    ours: State = {}
    origin: dict[str, str] = {}
    for old, tensor in state.items():
        new = old
        for pattern, into in renames:
            new = re.sub(pattern, into, new)
        if new in ours and not agree(ours[new], tensor):
            raise UserError(
                f"{origin[new]!r} and {old!r} should be one shared tensor but differ; this file "
                "comes from a port that separated them, and is another model"
            )
        ours.setdefault(new, tensor)
        origin.setdefault(new, old)
    return ours


def fit(state: State, model: nn.Module) -> State:
    """Adapt what a user may change: classes, input channels, and the size of position tables."""
    own = model.state_dict()
    drop_head(state, own, [n for n in state if n.startswith("head.")])
    for name, tensor in state.items():
        if name not in own or own[name].shape == tensor.shape:
            continue
        if tensor.dim() == 4 and own[name].shape[2:] == tensor.shape[2:] and is_stem(own, name):
            state[name] = fit_channels(tensor, own[name].shape[1])
    return fit_tables(state, model)


def drop_head(state: State, own: Mapping[str, Tensor], names: Sequence[str]) -> None:
    """Take a head of another shape out of ``state``, and say that a new one begins."""
    other = [n for n in names if n not in own or own[n].shape != state[n].shape]
    there = [n for n in other if n in own and n.endswith("weight") and state[n].dim()]
    if there:
        warnings.warn(
            f"the head is new: that of the weights knows {state[there[0]].shape[0]} classes, the "
            f"model {own[there[0]].shape[0]}",
            stacklevel=2,
        )
    for name in other:
        del state[name]


def fit_tables(state: State, model: nn.Module) -> State:
    """Position tables resized to what the model was built for; all else as it is.

    What has not even the form of the model's own table is left, and refused at loading.
    """
    own = model.state_dict()
    tables = {f"{n}.table": m for n, m in model.named_modules() if isinstance(m, Table)}
    for name, tensor in state.items():
        if name not in own or own[name].shape == tensor.shape:
            continue
        if not tensor.numel() or not tensor.is_floating_point():
            continue
        if name == "position" and tensor.dim() == own[name].dim():
            state[name] = fit_table(tensor, model)
        if name in tables and tensor.dim() in (2, 3, 4):  # timm's and the released layouts
            with contextlib.suppress(RuntimeError, IndexError):
                state[name] = tables[name].fit_table(tensor)
    return state


def is_stem(own: Mapping[str, Tensor], name: str) -> bool:
    """Whether a tensor is the first convolution of the model."""
    return name == next(n for n, t in own.items() if t.dim() == 4)


def fit_channels(kernel: Tensor, channels: int) -> Tensor:
    """A stem for other input channels: repeat the filters in turn, keep the response's scale."""
    have = kernel.shape[1]
    repeated = kernel.repeat(1, -(-channels // have), 1, 1)[:, :channels]
    if channels == 1:
        return kernel.sum(1, keepdim=True)
    return repeated * (have / channels)


def fit_table(table: Tensor, model: Any) -> Tensor:
    """A square position table resized to the model's grid.

    Raises:
        UserError: its entries form no square.
    """
    grid: Grid = model.grid
    prefix: int = model.prefix_tokens
    side = math.isqrt(max(table.shape[1] - prefix, 0))
    if not side or side * side + prefix != table.shape[1]:
        raise UserError(
            f"a position table of {table.shape[1]} entries is no square grid with {prefix} tokens "
            "in front; build the model with the image size of these weights, and with pool='mean' "
            "for weights without a class token"
        )
    return resize_table(table, (side, side), grid, prefix, model.config.resize)


def translate(
    state: Mapping[str, Tensor], model: nn.Module, renames: Renames, unused: str = "$^"
) -> State:
    """Our names, without what released models carry and never use.

    Raises:
        UserError: two names that should share a tensor differ.
    """
    return without_unused(rename(state, renames), model, unused)


def without_unused(state: State, model: nn.Module, unused: str) -> State:
    """What released models carry and never use is left out."""
    own = model.state_dict()
    return {n: t for n, t in state.items() if n in own or not re.search(unused, n)}


STATISTICS = ("running_mean", "running_var")
"""What batch norms gather; all other buffers are fixed at building."""
REDUCERS = ".reducer."
"""What a reducer's tensors have in their names."""


def load(
    model: nn.Module, state: Mapping[str, Tensor], renames: Renames, unused: str = "$^"
) -> LoadReport:
    """Load a state dict under our names or a released model's, strictly; gives what became of it.

    Only the head may be missing (another number of classes), what is fixed at building (buffers
    other than the statistics of batch norms), and what reducers learn, where the weights are those
    of a model without any.

    Raises:
        UserError: tensors missing, left over or of another shape; the first few are named.
    """
    own = model.state_dict()
    named = rename(state, renames)
    shapes = {name: tensor.shape for name, tensor in named.items()}
    ours = fit(without_unused(named, model, unused), model)
    fixed = {n for n, _ in model.named_buffers() if not n.endswith(STATISTICS)}
    plain = not any(REDUCERS in n for n in ours)
    missing = [
        n
        for n in own
        if n not in ours
        and n not in fixed
        and not n.startswith("head.")
        and not (plain and REDUCERS in n)
    ]
    left = [n for n in ours if n not in own]
    wrong = [n for n in ours if n in own and own[n].shape != ours[n].shape]
    for what, names in (("missing", missing), ("unknown", left), ("of another shape", wrong)):
        if names:
            some = ", ".join(printable(name)[:80] for name in names[:3])
            raise UserError(
                f"these weights do not fit {type(model).__name__}: {len(names)} tensors {what}, "
                f"such as {some}; is this the same variant?"
            )
    check_kinds(ours, own)
    model.load_state_dict({**own, **ours})
    return LoadReport(
        loaded=sum("num_batches" not in n for n in ours),
        resized=tuple(n for n in ours if ours[n].shape != shapes[n]),
        new=tuple(n for n in own if n not in ours and n not in fixed),
        left_out=tuple(n for n in shapes if n not in ours),
    )


def check_kinds(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Refuse whole, complex and yes-or-no numbers where a model learns real ones.

    torch would cast them: the codes of a quantised model without their scale, or half of a number.

    Raises:
        UserError: there are such; the first is named.
    """
    learned = [n for n in state if n in own and own[n].is_floating_point()]
    other = [n for n in learned if not state[n].is_floating_point()]
    if other:
        kind = str(state[other[0]].dtype).removeprefix("torch.")
        raise UserError(
            f"these weights are no real numbers: {len(other)} tensors, such as {other[0]} ({kind});"
            " save them as float32 where they were made"
        )


def check_finite(model: nn.Module, where: str) -> None:
    """Refuse a model whose weights hold NaN or infinity: it would answer nonsense.

    Raises:
        UserError: some do; the first is named.
    """
    learned: dict[str, Tensor] = dict(model.named_parameters())
    learned |= {n: b for n, b in model.named_buffers() if n.endswith(STATISTICS)}
    broken = [n for n, t in learned.items() if not bool(t.detach().isfinite().all())]
    if broken:
        raise UserError(
            f"the weights in {where} are not finite: {len(broken)} tensors hold NaN or infinity, "
            f"such as {broken[0]}; take other weights, or train anew"
        )
