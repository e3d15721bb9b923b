"""``vitrail cost``: what models cost here."""

from collections.abc import Callable
from dataclasses import dataclass

from vitrail.cli import compare
from vitrail.cli.command import Answer, option, table
from vitrail.cli.conditions import (
    all_settings,
    counterparts_for,
    machine_line,
    megabytes,
    refuse_picture,
)
from vitrail.cli.options import CostOptions
from vitrail.console import status_bar
from vitrail.errors import UserError


@dataclass(kw_only=True)
class Cost(CostOptions):
    """Measure parameters, multiply-adds, time and memory of models side by side.

    Models are timed by turns, so that a noisy machine is noisy for all alike; compare figures of
    one run only. Example: vitrail cost coat_lite_tiny timm:resnet18 --image 224 512 --batch 8;
    against the same network elsewhere: vitrail cost coat_lite_tiny cmt_s --against timm
    """

    def run(self) -> Answer:
        """The one kind of measurement that is asked for."""
        from vitrail.hub.resolve import model_text

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


def side_by_side(options: Cost) -> Answer:
    """One report for each size, batch and number of threads."""
    from vitrail.cost import cost

    build = counterparts_for(options).build
    with status_bar("measuring") as step:
        reports = [
            cost(options.models, one, build=build, with_memory=not options.no_memory, on_step=step)
            for one in all_settings(options)
        ]
    data = [report.to_dict() for report in reports]
    tables = [report.table() for report in reports]
    return Answer(data, [*tables, machine_line(reports[-1].machine)])


def grow(options: Cost) -> Answer:
    """All models at all sizes in one interleaved run, with an exponent for each quantity."""
    from vitrail.cost import draw, growth, machine

    assert options.growth is not None
    if len(set(options.image)) > 1:  # else it is refused for that
        refuse_picture(options.growth)
    conditions = all_settings(options)[0]
    with status_bar("measuring") as step:
        grown = growth(
            options.models,
            [one.image for one in all_settings(options)],
            settings=conditions,
            build=counterparts_for(options).build,
            with_memory=not options.no_memory,
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
        f"drawn: {draw(grown, options.growth)}",
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
