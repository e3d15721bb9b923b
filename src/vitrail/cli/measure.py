"""``vitrail cost | doctor``: what models cost here, and whether this machine is in order."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from vitrail.cli import compare
from vitrail.cli.command import FLAG, Answer, Command, option, shown_as, table
from vitrail.cli.conditions import known, machine_line, megabytes, refuse_picture, settings
from vitrail.cli.progress import ticker
from vitrail.errors import UserError


@dataclass(kw_only=True)
class Cost(Command):
    """Measure parameters, multiply-adds, time and memory of models side by side.

    Models are timed by turns, so that a noisy machine is noisy for all alike; compare figures of
    one run only. Example: vitrail cost coat_lite_tiny timm:resnet18 --image 224 512 --batch 8;
    against the same network elsewhere: vitrail cost coat_lite_tiny cmt_s --against timm
    """

    models: Positional[Annotated[tuple[str, ...], shown_as("MODEL ...")]] = ()
    """Names, with options if wanted: "vit_tiny(patch=8)", timm:resnet18, official:cmt_s; a run."""
    image: Annotated[tuple[int, ...], shown_as("N ...")] = ()
    """Sizes in pixels (default: 224)."""
    batch: Annotated[tuple[int, ...], shown_as("N ...")] = ()
    """Batch sizes for throughput and memory; latency is of one picture (default: 8)."""
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
    by_layer: Annotated[bool, FLAG] = False
    """Where the time goes: time, multiply-adds, memory traffic and share of each layer."""
    depth: Annotated[int | None, shown_as("N")] = None
    """With --by-layer: how deep rows go (default: stage, block and part)."""
    roofline: Annotated[Path | None, shown_as("PICTURE")] = None
    """Measure this machine's ceilings, and draw how near each model (or layer) comes."""
    against: Annotated[str | None, shown_as("ARM")] = None
    """timm or official (each model's counterpart, same weights, logits compared), or any model."""
    train_step: Annotated[bool, FLAG] = False
    """With --against: compare training steps: forward, backward, optimiser, memory a picture."""
    checkpointing: Annotated[bool, FLAG] = False
    """With --train-step: compute activations again instead of keeping them."""

    def run(self) -> Answer:
        """The one kind of measurement that is asked for."""
        from vitrail.hub.runs import model_text

        asked = [name for name in KINDS if getattr(self, name)]
        if len({KINDS[name] for name in asked}) > 1:
            raise UserError(f"one at a time: {' and '.join(map(option, asked))} do not go together")
        for name, needed in NEEDS.items():
            if getattr(self, name) and needed not in asked:
                raise UserError(f"{option(name)} belongs to {option(needed)}")
        self.models = tuple(dict.fromkeys(model_text(word) for word in self.models))
        if not self.models:
            raise UserError("name at least one model: vitrail cost coat_lite_tiny vit_tiny")
        return KINDS[asked[0]](self) if asked else side_by_side(self)


def side_by_side(wanted: Cost) -> Answer:
    """One report for each size, batch and number of threads."""
    from vitrail.cost import cost

    build = known(wanted).build
    with ticker("measuring") as step:
        reports = [
            cost(wanted.models, one, build=build, with_memory=not wanted.no_memory, on_step=step)
            for one in settings(wanted)
        ]
    data = [report.to_dict() for report in reports]
    tables = [report.table() for report in reports]
    return Answer(data, [*tables, machine_line(reports[-1].machine)])


def grow(wanted: Cost) -> Answer:
    """All models at all sizes in one interleaved run, with an exponent for each quantity."""
    from vitrail.cost import draw, growth, machine

    assert wanted.growth is not None
    if len(set(wanted.image)) > 1:  # else it is refused for that
        refuse_picture(wanted.growth)
    conditions = settings(wanted)[0]
    with ticker("measuring") as step:
        grown = growth(
            wanted.models,
            [one.image for one in settings(wanted)],
            settings=conditions,
            build=known(wanted).build,
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
        f"drawn: {draw(grown, wanted.growth)}",
        machine_line(where),
    ]
    return Answer(grown.to_dict() | {"machine": where}, parts)


KINDS: dict[str, Callable[[Cost], Answer]] = {
    "growth": grow,
    "by_layer": compare.by_layer,
    "roofline": compare.by_layer,
    "against": compare.against,
}
NEEDS = {
    "depth": "by_layer",
    "train_step": "against",
    "checkpointing": "against",
}


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
