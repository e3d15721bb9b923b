"""``vitrail cost | doctor``: what models cost here, and whether this machine is in order."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from vitrail.cli.command import FLAG, Answer, Command, shown_as, table
from vitrail.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from vitrail.cost import Timing

MEMORY = {"memory_mb": False, "training_memory_mb": True}
COLUMNS = {
    "model": "model",
    "image": "px",
    "batch": "batch",
    "threads": "threads",
    "params_m": "M params",
    "gmacs": "GMACs",
    "images_per_s": "images/s",
    "ms": "ms a batch",
    "spread": "(quartiles)",
    "memory_mb": "MB",
    "training_memory_mb": "MB training",
}


@dataclass(kw_only=True)
class Cost(Command):
    """Measure parameters, multiply-adds, time and memory of models side by side.

    Models are timed by turns, so that a noisy machine is noisy for all alike; compare rows of one
    run only. Example: vitrail cost coat_lite_tiny timm:resnet18 --image 224 512 --batch 1 8
    """

    models: Positional[Annotated[tuple[str, ...], shown_as("MODEL ...")]] = ()
    """Names, with options if wanted: "vit_tiny(patch=8)", timm:resnet18."""
    image: Annotated[tuple[int, ...], arg(metavar="N ...")] = (224,)
    """Sizes in pixels."""
    batch: Annotated[tuple[int, ...], arg(metavar="N ...")] = (1,)
    """Batch sizes."""
    threads: Annotated[tuple[int, ...], shown_as("N ...")] = ()
    """Numbers of threads (default: as torch has it)."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of weights and pictures."""
    classes: int = 1000
    """Classes of the head."""
    rounds: int = 6
    """Timed windows of each model."""
    window: float = 0.3
    """Length of a window in seconds."""
    memory: Annotated[bool, FLAG] = False
    """Also measure peak memory (a fresh process for each row)."""
    no_time: Annotated[bool, FLAG] = False
    """Count only; time nothing."""

    def run(self) -> Answer:
        """Measure every combination."""
        if not self.models:
            raise UserError("name at least one model: vitrail cost coat_lite_tiny vit_tiny")
        self.models = tuple(dict.fromkeys(self.models))
        check_numbers(self)
        from vitrail.cost import machine

        rows = measured(self)
        about = {"precision": self.precision, "machine": machine(), "rows": rows}
        return Answer(about, [cost_table(rows), machine_line(about["machine"], self.precision)])


def check_numbers(wanted: Cost) -> None:
    """Refuse sizes that cannot be.

    Raises:
        UserError: a size, batch, thread, class or round number below 1.
    """
    for name in ("image", "batch", "threads", "classes", "rounds"):
        values = getattr(wanted, name)
        for value in values if isinstance(values, tuple) else (values,):
            if value < 1:
                raise UserError(f"--{name} must be 1 or more, not {value}")


def measured(wanted: Cost) -> list[dict[str, Any]]:
    """One row for each model, size, batch and number of threads."""
    rows = counted(wanted.models, wanted.image, wanted.classes)
    threads = wanted.threads or (None,)
    places = list(product(wanted.image, wanted.batch, threads))
    out = []
    steps = len(places) * len(wanted.models) * (wanted.rounds + 1) * (not wanted.no_time)
    with bar("timing", steps) as step:
        for image, batch, thread in places:
            here = [row | {"batch": batch} for row in rows if row["image"] == image]
            if not wanted.no_time:
                timings = timed(wanted, image, batch, thread, step)
                here = [row | time_cells(timings[row["model"]], batch) for row in here]
            out += here
    return with_memory(out, wanted) if wanted.memory else out


def counted(
    models: tuple[str, ...], images: tuple[int, ...], classes: int = 1000
) -> list[dict[str, Any]]:
    """Parameters and multiply-adds of one picture, for each model and size."""
    from vitrail.cost import count
    from vitrail.hub import build

    rows = []
    with bar("counting", len(models) * len(images)) as step:
        for name, image in product(models, images):
            got = count(build(name, classes=classes, image=image), image)
            rows.append({"model": name, "image": image, "params": got.params, "macs": got.macs})
            step(name)
    return rows


def timed(
    wanted: Cost, image: int, batch: int, threads: int | None, step: Callable[[str], None]
) -> "dict[str, Timing]":
    """Every model at one size, interleaved."""
    from vitrail.cost import time_side_by_side
    from vitrail.hub import build

    models = {name: build(name, classes=wanted.classes, image=image) for name in wanted.models}
    return time_side_by_side(
        {name: forward(model, image, batch, wanted.precision) for name, model in models.items()},
        rounds=wanted.rounds,
        window_s=wanted.window,
        warmup_s=2 * wanted.window,
        threads=threads,
        on_window=step,
    )


def forward(model: "nn.Module", image: int, batch: int, precision: str) -> Callable[[], object]:
    """One forward of a batch of noise, for inference, on the GPU where there is one."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.eval().to(device=device, dtype=getattr(torch, precision))
    pictures = torch.randn(batch, 3, image, image).to(
        device=device, dtype=getattr(torch, precision)
    )

    def run() -> object:
        with torch.inference_mode():
            return model(pictures)

    return run


def time_cells(timing: "Timing", batch: int) -> dict[str, Any]:
    """A timing's columns of a row."""
    low, median, high = (1e3 * value for value in timing.spread)
    return {
        "threads": timing.threads,
        "images_per_s": timing.rate(batch),
        "ms": median,
        "ms_low": low,
        "ms_high": high,
        "rounds": len(timing.by_round),
        "quiet": timing.quiet,
    }


def with_memory(rows: list[dict[str, Any]], wanted: Cost) -> list[dict[str, Any]]:
    """Add peak memory of a forward and of a training step, each in a process of its own."""
    from vitrail.cost import memory

    with bar("memory", 2 * len(rows)) as step:
        for row, (cell, train) in product(rows, MEMORY.items()):
            row[cell] = memory(row["model"], row["image"], row["batch"], train) / 1e6
            step(row["model"])
    return rows


def cost_table(rows: list[dict[str, Any]]) -> Any:
    """The rows for people, with the columns that were measured."""
    shown = [
        row
        | {"params_m": row["params"] / 1e6, "gmacs": row["macs"] / 1e9}
        | ({"spread": f"{row['ms_low']:.1f} to {row['ms_high']:.1f}"} if "ms" in row else {})
        for row in rows
    ]
    keys = [key for key in COLUMNS if any(key in row for row in shown)]
    cells = [[figure(row.get(key)) for key in keys] for row in shown]
    return table("", [COLUMNS[key] for key in keys], cells)


def figure(value: Any) -> str:
    """Three decimals for the small, one for the large, none for whole numbers."""
    if not isinstance(value, float):
        return "" if value is None else str(value)
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def machine_line(machine: dict[str, Any], precision: str) -> str:
    """Where and when the figures hold."""
    return (
        f"1 MAC = 2 FLOPs. {machine['cpu']}, {machine['usable_cores'] or machine['cores']} cores, "
        f"{machine['gpu'] or 'no GPU'}, torch {machine['versions']['torch']}, {precision}, "
        f"{machine['date']}"
    )


@contextmanager
def bar(title: str, steps: int) -> Iterator[Callable[[str], None]]:
    """A progress bar on stderr (on a terminal only); call the given function for each step."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as p:
        task = p.add_task(title, total=steps)
        yield lambda what: p.update(task, advance=1, description=f"{title} {what}")


@dataclass(kw_only=True)
class Doctor(Command):
    """Look whether this machine is in order: versions that fit, processor, memory, GPU, folder.

    Exit status 1 if something is broken. Example: vitrail doctor
    """

    def run(self) -> Answer:
        """Every finding, with its cure."""
        from vitrail.hub.health import examine

        found = examine(Path.cwd())
        rows = [("ok" if f.ok else "BROKEN", f.about, f.found) for f in found]
        cures = [f"{f.about}: {f.cure}" for f in found if f.cure]
        healthy = all(f.ok for f in found)
        parts = [table("", ("", "what", "found"), rows, left=3), *cures]
        data = {"healthy": healthy, "findings": [vars(f) for f in found]}
        verdict = "all is well" if healthy else "something is broken: see above"
        return Answer(data, [*parts, verdict], status=0 if healthy else 1)
