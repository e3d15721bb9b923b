"""Hooks that say which module is running: the one in whose forward an event happens.

every module's forward --before, after--> a stack of names; its top is the innermost one

A module that several blocks share (CoaT's convolutions) has one name, so what it does is counted
once, wherever it was called from.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from vitrail.cost.counting import FLOPS_PER_MAC, missing_formulas
from vitrail.layers.fused import PASSIVE

ROOT = ""
"""The model's own name among its modules."""
Turn = Callable[[str], None]


@contextmanager
def watch_modules(model: nn.Module, enter: Turn, leave: Turn) -> Iterator[None]:
    """Tell when each module's forward begins and ends, by its dotted name."""

    def notify(turn: Turn, name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            turn(name)

        setattr(hook, PASSIVE, True)
        return hook

    hooks = []
    for name, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(notify(enter, name), prepend=True))
        hooks.append(module.register_forward_hook(notify(leave, name), always_call=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class Stopwatch:
    """Marks on the wall clock; the CPU is done when the call returns."""

    def mark(self) -> Any:
        """This moment."""
        return time.perf_counter()

    def between(self, marks: Sequence[Any]) -> list[float]:
        """Seconds from each mark to the next."""
        return [after - before for before, after in pairwise(marks)]


class CudaStopwatch(Stopwatch):
    """Marks in the GPU's own queue, so that watching does not make it wait."""

    def mark(self) -> Any:
        """This place in the queue."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, marks: Sequence[Any]) -> list[float]:
        """Seconds from each mark to the next, once the queue is through."""
        torch.cuda.synchronize()
        return [before.elapsed_time(after) / 1e3 for before, after in pairwise(marks)]


class ModuleTimes:
    """Marks of one call with the name that runs after each; None where no module runs."""

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch
        self.marks: list[Any] = []
        self.running: list[str | None] = []
        self.stack: list[str] = []

    def enter(self, name: str) -> None:
        """A module's forward begins."""
        self.stack.append(name)
        self.write()

    def leave(self, name: str) -> None:
        """It ends."""
        self.stack.pop()
        self.write()

    def write(self) -> None:
        """Mark who runs from now on."""
        self.running.append(self.stack[-1] if self.stack else None)
        self.marks.append(self.watch.mark())

    def close(self) -> dict[str, float]:
        """Name -> seconds of its own, without what it called; the pages are blank afterwards."""
        spent: dict[str, float] = defaultdict(float)
        for name, seconds in zip(self.running, self.watch.between(self.marks), strict=False):
            if name is not None:
                spent[name] += seconds
        self.marks, self.running = [], []
        return dict(spent)


class OperatorLedger(TorchDispatchMode):
    """Multiply-adds and memory traffic of every operator, counted on the running module.

    Traffic: every tensor an operator takes is read once and every one it gives is written once;
    views and empty tensors cost nothing. It is what would pass if no cache kept anything.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        counter = FlopCounterMode(display=False, custom_mapping=missing_formulas())
        self.formulas = counter.flop_registry
        self.stack: list[str] = []
        self.macs: Counter[str] = Counter()
        self.traffic: Counter[str] = Counter()

    def enter(self, name: str) -> None:
        """A module's forward begins."""
        self.stack.append(name)

    def leave(self, name: str) -> None:
        """It ends."""
        self.stack.pop()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        owner = self.stack[-1] if self.stack else ROOT
        formula = self.formulas.get(getattr(func, "_overloadpacket", func))
        if formula is not None:
            self.macs[owner] += formula(*args, **kwargs, out_val=out) // FLOPS_PER_MAC
        if moves_memory(func):
            self.traffic[owner] += tensor_bytes((args, kwargs)) + tensor_bytes(out)
        return out


def moves_memory(func: Any) -> bool:
    """Whether an operator reads or writes contents: not where it gives a view, or nothing yet."""
    schema = getattr(func, "_schema", None)
    if schema is None:
        return True
    name = schema.name.removeprefix("aten::")
    view = any(r.alias_info is not None and not r.alias_info.is_write for r in schema.returns)
    return not view and not name.startswith(("empty", "new_empty", "_unsafe_view"))


def tensor_bytes(tensors: Any) -> int:
    """Bytes behind the tensors in a structure; an expanded tensor counts as what it expands."""
    return sum(
        min(t.numel() * t.element_size(), t.untyped_storage().nbytes())
        for t in tree_leaves(tensors)
        if isinstance(t, torch.Tensor)
    )
