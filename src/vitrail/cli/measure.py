"""``vitrail cost | doctor``: what models cost here, and whether this machine is in order."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from vitrail.cli.command import FLAG, Answer, Command, shown_as, table
from vitrail.cli.progress import ticker
from vitrail.errors import UserError

if TYPE_CHECKING:
    from vitrail.cost import Settings

BUILD = "vitrail.hub:build"
"""How models become modules here; memory is measured in fresh processes that need it by name."""


@dataclass(kw_only=True)
class Cost(Command):
    """Measure parameters, multiply-adds, time and memory of models side by side.

    Models are timed by turns, so that a noisy machine is noisy for all alike; compare figures of
    one run only. Example: vitrail cost coat_lite_tiny timm:resnet18 --image 224 512 --batch 8
    """

    models: Positional[Annotated[tuple[str, ...], shown_as("MODEL ...")]] = ()
    """Names, with options if wanted: "vit_tiny(patch=8)", timm:resnet18."""
    image: Annotated[tuple[int, ...], arg(metavar="N ...")] = (224,)
    """Sizes in pixels."""
    batch: Annotated[tuple[int, ...], arg(metavar="N ...")] = (8,)
    """Batch sizes for throughput and memory (latency is of one picture)."""
    threads: Annotated[tuple[int, ...], shown_as("N ...")] = ()
    """Numbers of threads (default: as torch has it)."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format; other than float32 runs under autocast."""
    compiled: Annotated[bool, FLAG] = False
    """Time torch.compile's result instead of the plain model."""
    device: str = "auto"
    """cpu, cuda, ... (auto: the GPU where there is one)."""
    classes: int = 1000
    """Classes of the head."""
    rounds: int = 6
    """Timed windows of each model."""
    window: float = 0.3
    """Length of a window in seconds."""
    no_memory: Annotated[bool, FLAG] = False
    """Leave out peak memory (it takes two fresh processes for each row)."""
    growth: Annotated[Path | None, shown_as("PICTURE")] = None
    """Fit how cost grows over the sizes of --image, and draw it: .svg, .png or .pdf."""

    def run(self) -> Answer:
        """One report for each size, batch and number of threads."""
        if not self.models:
            raise UserError("name at least one model: vitrail cost coat_lite_tiny vit_tiny")
        from vitrail.cost import cost

        models = tuple(dict.fromkeys(self.models))
        if self.growth is not None:
            return grow(self, models, self.growth)
        with ticker("measuring") as step:
            reports = [
                cost(models, one, build=BUILD, with_memory=not self.no_memory, on_step=step)
                for one in settings(self)
            ]
        data = [report.to_dict() for report in reports]
        tables = [report.table() for report in reports]
        return Answer(data, [*tables, machine_line(reports[-1].machine)])


def grow(wanted: Cost, models: tuple[str, ...], picture: Path) -> Answer:
    """All models at all sizes in one interleaved run, with an exponent for each quantity."""
    from vitrail.cost import draw, growth, machine

    conditions = settings(wanted)[0]
    with ticker("measuring") as step:
        grown = growth(
            models,
            wanted.image,
            settings=conditions,
            build=BUILD,
            with_memory=not wanted.no_memory,
            on_step=step,
        )
    rows = [
        (r.model, r.image, f"{r.macs / 1e9:.3f}", f"{1e3 * r.seconds:.1f}", megabytes(r.memory))
        for r in grown.rows
    ]
    fits = [
        (e.model, e.quantity, f"{e.exponent:.2f}", f"{e.r2:.3f}", f"{e.last:.2f}")
        for e in grown.exponents
    ]
    where = machine()
    parts = [
        table(("model", "px", "GMAC", f"ms, batch {conditions.batch}", "MB"), rows, left=1),
        table(("model", "grows in", "pixels ^", "R2", "at the end"), fits, left=2),
        f"drawn: {draw(grown, picture)}",
        machine_line(where),
    ]
    return Answer(grown.to_dict() | {"machine": where}, parts)


def megabytes(value: int | None) -> str:
    """Peak memory for people."""
    return "" if value is None else f"{value / 2**20:.0f}"


def settings(wanted: Cost) -> "list[Settings]":
    """The conditions of every report."""
    import torch

    from vitrail.cost import Settings

    gpu = "cuda" if torch.cuda.is_available() else "cpu"
    return [
        Settings(
            image=image,
            batch=batch,
            classes=wanted.classes,
            threads=threads,
            precision=wanted.precision,
            graph="compiled" if wanted.compiled else "eager",
            device=gpu if wanted.device == "auto" else wanted.device,
            rounds=wanted.rounds,
            window_s=wanted.window,
            warmup_s=4 * wanted.window,
        )
        for image, batch, threads in product(wanted.image, wanted.batch, wanted.threads or (None,))
    ]


def machine_line(machine: Mapping[str, Any]) -> str:
    """Where and when the figures hold."""
    return (
        f"1 MAC = 2 FLOPs. {machine['cpu']}, {machine['usable_cores'] or machine['cores']} cores, "
        f"{machine['gpu'] or 'no GPU'}, torch {machine['versions']['torch']}, {machine['date']}"
    )


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
        parts = [table(("", "what", "found"), rows, left=3), *cures]
        data = {"healthy": healthy, "findings": [vars(f) for f in found]}
        verdict = "all is well" if healthy else "something is broken: see above"
        return Answer(data, [*parts, verdict], status=0 if healthy else 1)
