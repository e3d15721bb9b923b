"""Where a forward's time goes, layer by layer.

model -> the same call plain and watched, by turns -> own time of every module
      -> one more call with operators counted    -> own multiply-adds and memory traffic
      -> summed by name, down to stage, block and part

Rows add up to the whole: what a module does itself, beside what it calls, is a row of its own,
and a module that several blocks share stands under its own name only.
"""

import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from vitrail.cost.candidates import (
    DEFAULT_BUILD,
    PRECISIONS,
    Build,
    Settings,
    build_on_device,
    forward,
    time_interleaved,
)
from vitrail.cost.counting import evaluation_mode, example, no_parameter_gradients
from vitrail.cost.roofline import Ceilings
from vitrail.cost.timing import Timing
from vitrail.cost.watch import (
    ROOT,
    CudaStopwatch,
    ModuleTimes,
    OperatorLedger,
    Stopwatch,
    watch_modules,
)
from vitrail.errors import UserError

OWN = "(itself)"
"""Marks the row of what a module does beside calling others."""
DEEPEST = 3


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One row, of one call with a whole batch.

    ``seconds`` is the median over calls; ``share`` its part of all rows' seconds; ``macs`` are
    multiply-adds; ``traffic`` is bytes read and written by operators, as if no cache kept any.
    """

    name: str
    kind: str
    seconds: float
    share: float
    macs: int
    traffic: int


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A model's layers, and the same call unwatched."""

    model: str
    settings: Settings
    layers: tuple[LayerCost, ...]
    plain: Timing

    @property
    def seconds(self) -> float:
        """Median seconds of a call without hooks."""
        return self.plain.median

    @property
    def macs(self) -> int:
        """Multiply-adds of a call."""
        return sum(layer.macs for layer in self.layers)

    @property
    def traffic(self) -> int:
        """Bytes that the operators of a call read and write."""
        return sum(layer.traffic for layer in self.layers)

    @property
    def overhead(self) -> float:
        """By what part of the plain call the rows' sum is longer: the watching, and noise."""
        return sum(layer.seconds for layer in self.layers) / self.plain.median - 1

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "model": self.model,
            "settings": asdict(self.settings),
            "seconds": self.seconds,
            "macs": self.macs,
            "traffic_bytes": self.traffic,
            "overhead_of_watching": self.overhead,
            "plain": self.plain.to_dict(),
            "layers": [asdict(layer) for layer in self.layers],
        }


def by_layer(
    model: str,
    settings: Settings | None = None,
    *,
    depth: int | None = None,
    build: Build | str = DEFAULT_BUILD,
    on_step: Callable[[str], None] | None = None,
) -> Profile:
    """Profile a model by its text.

    Args:
        model: a text that ``build`` understands.
        settings: the conditions; eager only, since a compiled model has no modules left.
        depth: how many names deep the rows go (``stages.0`` is one name); None stops at stage,
            block and part.
        build: text -> module.
        on_step: told after each window.

    Raises:
        UserError: compiled, or a depth below one, or a model that cannot be built.
    """
    settings = settings or Settings()
    if settings.graph != "eager":
        raise UserError("a compiled model has no layers left to time; leave out --compiled")
    if depth is not None and depth < 1:
        raise UserError(f"depth must be 1 or more, not {depth}")
    built = build_on_device(model, settings, build)
    call = forward(built, settings, batch=settings.batch)
    calls: list[dict[str, float]] = []
    diary = ModuleTimes(CudaStopwatch() if settings.device.startswith("cuda") else Stopwatch())

    def call_watched() -> None:
        with watch_modules(built, diary.enter, diary.leave):
            call()
        calls.append(diary.close())

    timings = time_interleaved(
        {f"{model}, plain": call, f"{model}, watched": call_watched},
        settings,
        on_step,
    )
    plain, seen = timings.values()
    timed = calls[-sum(w.calls for w in seen.windows) :]  # those before warmed up
    layers = sum_layers(built, medians(timed), count_operators(built, settings), depth)
    return Profile(model=model, settings=settings, layers=layers, plain=plain)


def medians(calls: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Module -> the median over calls of its own seconds."""
    names = dict.fromkeys(name for call in calls for name in call)
    return {name: statistics.median(call.get(name, 0.0) for call in calls) for name in names}


def count_operators(model: nn.Module, settings: Settings) -> OperatorLedger:
    """Operators of one call with a whole batch, in the precision of the settings."""
    pictures = example(model, settings.image, batch=settings.batch, in_chans=settings.in_chans)
    cast = PRECISIONS[settings.precision]
    book = OperatorLedger()
    with (
        evaluation_mode(model),
        no_parameter_gradients(model),
        torch.enable_grad(),
        torch.autocast(pictures.device.type, dtype=cast, enabled=cast is not None),
        watch_modules(model, book.enter, book.leave),
        book,
    ):
        model(pictures)
    return book


def sum_layers(
    model: nn.Module, seconds: Mapping[str, float], book: OperatorLedger, depth: int | None
) -> tuple[LayerCost, ...]:
    """Rows in the order of the calls, each the sum of the modules that its name covers."""
    whole = sum(seconds.values())
    macs, traffic = (assign_to_timed(booked, seconds) for booked in (book.macs, book.traffic))
    return tuple(
        LayerCost(
            name=row,
            kind=type(model.get_submodule(row.removesuffix(OWN).strip())).__name__,
            seconds=sum(seconds[name] for name in names),
            share=sum(seconds[name] for name in names) / whole,
            macs=sum(macs[name] for name in names),
            traffic=sum(traffic[name] for name in names),
        )
        for row, names in group_names(seconds, depth).items()
    )


def assign_to_timed(booked: Mapping[str, int], seconds: Mapping[str, float]) -> Counter[str]:
    """Counts moved to the nearest module with a time: a layer's faster way calls no parts."""
    found: Counter[str] = Counter()
    for name, count in booked.items():
        owner = name
        while owner not in seconds and owner != ROOT:
            owner = owner.rpartition(".")[0]
        found[owner] += count
    return found


def group_names(names: Iterable[str], depth: int | None) -> dict[str, list[str]]:
    """Row -> the modules it sums; what a module does beside its rows is a row of its own."""
    rows = {name: row_name(name, depth) for name in names}
    inner = {row.rpartition(".")[0] for row in rows.values()}
    above = {ROOT} | {
        row for row in rows.values() if any(i == row or i.startswith(f"{row}.") for i in inner)
    }
    groups: dict[str, list[str]] = {}
    for name, row in rows.items():
        groups.setdefault(f"{row} {OWN}".strip() if row in above else row, []).append(name)
    return groups


def row_name(name: str, depth: int | None) -> str:
    """The row that a module belongs to.

    ``stages.0.blocks.1.mixer.q`` has four names: ``stages.0``, ``blocks.1``, ``mixer``, ``q``.
    Without a depth, the numbered ones are kept and the first that follows, three at most.
    """
    names = re.findall(r"[^.]+(?:\.\d+)*", name)
    if depth is None:
        numbered = next((i for i, n in enumerate(names) if not n[-1].isdigit()), len(names))
        depth = min(numbered + 1, DEEPEST)
    return ".".join(names[:depth])


def table(profile: Profile, ceilings: Ceilings | None = None) -> Any:
    """A ``rich`` table; rows below :data:`LEAST` of the time are summed into the last one."""
    from vitrail.console import make_table

    s = profile.settings
    title = (
        f"{profile.model}: one call, {s.image} px, batch {s.batch}, {s.precision}, "
        f"{s.device}: {1e3 * profile.seconds:.1f} ms"
    )
    rows: list[tuple[str, ...]] = []
    for layer in join_equal_layers(profile.layers):
        near = () if ceilings is None else (f"{100 * ceilings.near(layer):.0f} %",)
        rows.append((*cells(layer), *near))
    headings = HEADINGS if ceilings is None else (*HEADINGS, "of roof")
    return make_table(headings, rows, left=2, title=title)


HEADINGS = ("layer", "kind", "ms", "share", "GMAC", "MB moved", "GMAC/s")
LEAST = 0.002


def join_equal_layers(layers: Sequence[LayerCost]) -> list[LayerCost]:
    """The layers that matter, and one row for the others."""
    large = [layer for layer in layers if layer.share >= LEAST]
    rest = [layer for layer in layers if layer.share < LEAST]
    return [*large, sum_rows(rest, f"{len(rest)} smaller")] if rest else large


def sum_rows(layers: Sequence[LayerCost], name: str) -> LayerCost:
    """Several rows as one."""
    return LayerCost(
        name=name,
        kind="",
        seconds=sum(layer.seconds for layer in layers),
        share=sum(layer.share for layer in layers),
        macs=sum(layer.macs for layer in layers),
        traffic=sum(layer.traffic for layer in layers),
    )


def cells(layer: LayerCost) -> tuple[str, ...]:
    """A layer for people."""
    return (
        layer.name,
        layer.kind,
        f"{1e3 * layer.seconds:.2f}",
        f"{100 * layer.share:.1f} %",
        f"{layer.macs / 1e9:.3f}" if layer.macs else "",
        f"{layer.traffic / 1e6:.1f}",
        f"{layer.macs / layer.seconds / 1e9:.1f}" if layer.macs and layer.seconds else "",
    )
