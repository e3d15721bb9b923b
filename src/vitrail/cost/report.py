"""One table: what each model costs under the same conditions, measured in one interleaved run.

models -> built -> counted -> latency and throughput side by side -> memory in fresh processes
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from vitrail.cost.candidates import (
    DEFAULT_BUILD,
    Build,
    Settings,
    build_on_device,
    forward,
    time_interleaved,
)
from vitrail.cost.counting import Count, count
from vitrail.cost.host import machine
from vitrail.cost.peak import memory
from vitrail.cost.timing import Ratio, Timing, ratio
from vitrail.errors import UserError


@dataclass(frozen=True, kw_only=True)
class CostRow:
    """One model's costs.

    ``latency`` is of one picture, ``throughput`` of a batch; ``speed`` is the throughput over the
    first model's. Memory is in bytes, None where it was not asked for or could not be measured;
    ``notes`` say why.
    """

    model: str
    count: Count
    latency: Timing
    throughput: Timing
    speed: Ratio
    batch: int
    memory_forward: int | None
    memory_train: int | None
    notes: tuple[str, ...]

    @property
    def images_per_s(self) -> float:
        """Pictures a second at the batch asked for."""
        return self.throughput.rate(self.batch)

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "model": self.model,
            "params": self.count.params,
            "macs": self.count.macs,
            "activation_bytes": self.count.activation_bytes,
            "images_per_s": self.images_per_s,
            "speed_over_first": asdict(self.speed),
            "latency": self.latency.to_dict(),
            "throughput": self.throughput.to_dict(),
            "memory_forward_bytes": self.memory_forward,
            "memory_train_bytes": self.memory_train,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, kw_only=True)
class CostReport:
    """The rows, the conditions, and the machine they hold for."""

    settings: Settings
    machine: Mapping[str, object]
    rows: tuple[CostRow, ...]

    def __str__(self) -> str:
        """The table as text."""
        from vitrail.console import render

        return render(self.table()).rstrip()

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "settings": asdict(self.settings),
            "machine": dict(self.machine),
            "rows": [row.to_dict() for row in self.rows],
        }

    def table(self) -> Any:
        """A ``rich`` table for a terminal."""
        from vitrail.console import make_table

        s = self.settings
        conditions = f"{s.image} px, {s.precision}, {s.graph}, {s.device}"
        title = f"Cost at {conditions}; throughput at batch {s.batch}"
        return make_table(HEADINGS, [_cells(row) for row in self.rows], title=title)


HEADINGS = (
    "model",
    "params",
    "GMAC",
    "images/s",
    "speed",
    "latency (ms)",
    "forward (MB)",
    "training (MB)",
)


def cost(
    models: Sequence[str],
    settings: Settings | None = None,
    *,
    build: Build | str = DEFAULT_BUILD,
    with_memory: bool = True,
    on_step: Callable[[str], None] | None = None,
) -> CostReport:
    """Measure models against each other; the first is the one that ``speed`` refers to.

    Args:
        models: model texts, each understood by ``build``.
        settings: the conditions.
        build: text -> module, or its ``"module:function"``; memory needs an importable one.
        with_memory: measure peak memory too (two fresh processes a model).
        on_step: told what has just been done, for a progress line.

    Raises:
        UserError: no model, or one that cannot be built.
    """
    if not models:
        raise UserError("cost needs at least one model")
    settings, tell = settings or Settings(), on_step or (lambda text: None)
    built = {text: build_on_device(text, settings, build) for text in models}
    counts = {text: count(m, settings.image, settings.in_chans) for text, m in built.items()}
    timings = _timings(built, settings, tell)
    rows = []
    for text in built:
        tell(f"memory of {text}")
        peaks, notes = _peaks(text, settings, build) if with_memory else ((None, None), ())
        rows.append(
            CostRow(
                model=text,
                count=counts[text],
                latency=timings[text, 1],
                throughput=timings[text, settings.batch],
                speed=ratio(timings[text, settings.batch], timings[models[0], settings.batch]),
                batch=settings.batch,
                memory_forward=peaks[0],
                memory_train=peaks[1],
                notes=notes,
            )
        )
    return CostReport(settings=settings, machine=machine(), rows=tuple(rows))


def _timings(
    built: Mapping[str, nn.Module], settings: Settings, tell: Callable[[str], None]
) -> dict[tuple[str, int], Timing]:
    """(Model, batch) -> Timing, at batch 1 and at the settings' batch."""
    names = {
        f"{text}, batch {batch}": (text, batch)
        for text in built
        for batch in dict.fromkeys((1, settings.batch))
    }
    calls = {
        name: forward(built[text], settings, batch=batch) for name, (text, batch) in names.items()
    }
    timings = time_interleaved(calls, settings, tell)
    return {names[name]: timing for name, timing in timings.items()}


def _peaks(
    text: str, settings: Settings, build: Build | str
) -> tuple[tuple[int | None, int | None], tuple[str, ...]]:
    """Peak bytes of forward and training step; what failed is None and leaves a note."""
    peaks: list[int | None] = []
    notes: list[str] = []
    for train in (False, True):
        try:
            peak = memory(
                text, settings.image, settings.batch, train, build=build, settings=settings
            )
        except UserError as error:
            notes.append(str(error))
            peaks.append(None)
        else:
            peaks.append(peak)
    return (peaks[0], peaks[1]), tuple(notes)


def _cells(row: CostRow) -> tuple[str, ...]:
    low, median, high = (1e3 * value for value in row.latency.quartiles)
    mark = "" if row.latency.quiet and row.throughput.quiet else " (noisy)"
    return (
        row.model,
        f"{row.count.params / 1e6:.2f} M",
        f"{row.count.macs / 1e9:.3f}",
        f"{row.images_per_s:.1f}{mark}",
        f"{row.speed.median:.2f}",
        f"{median:.1f} ({low:.1f} to {high:.1f})",
        *(
            "-" if peak is None else f"{peak / 1e6:.0f}"
            for peak in (row.memory_forward, row.memory_train)
        ),
    )
