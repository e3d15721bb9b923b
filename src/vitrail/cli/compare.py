"""``vitrail cost --by-layer|--roofline|--against``: where time goes, and who is faster."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vitrail.cli.command import Answer, table
from vitrail.cli.conditions import (
    all_settings,
    counterparts_for,
    machine_line,
    megabytes,
    refuse_picture,
)
from vitrail.cli.options import CostOptions
from vitrail.console import print_stderr, status_bar

if TYPE_CHECKING:
    from vitrail.cost import Profile
    from vitrail.cost.roofline import Ceilings
    from vitrail.cost.versus_training import Side, VersusTraining


def by_layer(options: CostOptions) -> Answer:
    """Layers of each model, beneath the machine's ceilings where a roofline is asked for."""
    from vitrail.cost import by_layer, ceilings, machine
    from vitrail.cost.bylayer import table as layers_table

    conditions = all_settings(options)
    if options.roofline is not None:
        refuse_picture(options.roofline)
    build = counterparts_for(options).build
    with status_bar("measuring") as step:
        roof = ceilings(conditions[0], on_step=step) if options.roofline else None
        profiles = [
            by_layer(model, one, depth=options.depth, build=build, on_step=step)
            for one in conditions
            for model in options.models
        ]
    where = machine()
    parts = [layers_table(one, roof) for one in profiles] if options.by_layer else []
    data = {"profiles": [one.to_dict() for one in profiles], "machine": where}
    if roof is not None:
        parts += roofline_parts(options, roof, profiles)
        near = [roofline_shares(roof, one) for one in profiles]
        data |= {"ceilings": roof.to_dict(), "near": near}
    watched = max(profile.overhead for profile in profiles)
    notes = [f"rows add up to the plain call within {100 * watched:+.0f} %"] if parts else []
    return Answer(data, [*parts, *notes, machine_line(where)])


def roofline_parts(
    options: CostOptions, roof: "Ceilings", profiles: Sequence["Profile"]
) -> list[Any]:
    """The ceilings, each model's distance from them, and the picture."""
    from vitrail.cost import roofline

    assert options.roofline is not None
    works: dict[str, list[roofline.Work]] = {
        profile_label(p): [p, *(p.layers if options.by_layer else ())] for p in profiles
    }
    rows = [
        (
            *profile_label(p).split(", "),
            f"{1e3 * p.seconds:.1f}",
            f"{p.macs / p.seconds / 1e9:.1f}",
            f"{p.traffic / 1e6:.0f}",
            f"{p.macs / p.traffic:.1f}",
            f"{100 * p.macs / p.seconds / roof.arithmetic:.0f} %",
            f"{100 * roof.near(p):.0f} %",
        )
        for p in profiles
    ]
    headings = ("model", "px", "batch", "ms", "GMAC/s", "MB moved", "MAC/byte", "of arithmetic")
    drawn = roofline.draw(roof, works, options.roofline)
    return [*roofline.tables(roof), table((*headings, "of roof"), rows), f"drawn: {drawn}"]


def roofline_shares(roof: "Ceilings", profile: "Profile") -> dict[str, object]:
    """For JSON: how near a model comes to each ceiling."""
    return {
        "model": profile.model,
        "image": profile.settings.image,
        "batch": profile.settings.batch,
        "of_arithmetic": profile.macs / profile.seconds / roof.arithmetic,
        "of_roof": roof.near(profile),
    }


def profile_label(profile: "Profile") -> str:
    """A profile's name in tables and pictures."""
    s = profile.settings
    return f"{profile.model}, {s.image}, {s.batch}"


def against(options: CostOptions) -> Answer:
    """Each model beside its counterpart, or beside one model."""
    if options.train_step:
        return train_steps(options)
    from vitrail.cost import machine, versus

    other, elsewhere = str(options.against), counterparts_for(options)
    with status_bar("measuring") as step:
        found = [
            each
            for one in all_settings(options)
            for each in versus(
                options.models, other, one, known=elsewhere, tell=print_stderr, on_step=step
            )
        ]
    rows = [
        (
            v.model,
            v.against,
            v.settings.image,
            v.settings.batch,
            f"{v.agreement.apart:.0e}" if v.agreement else "-",
            f"{v.ours.rate(v.settings.batch):.1f}",
            f"{v.theirs.rate(v.settings.batch):.1f}",
            f"{v.speed}{'' if v.speed.quiet else ' noisy'}",
        )
        for v in found
    ]
    columns = ("model", "against", "px", "batch", "logits apart", "images/s", "theirs", "speed")
    where = machine()
    data = {"rows": [v.to_dict() for v in found], "machine": where}
    return Answer(data, [table(columns, rows, left=2), machine_line(where)])


def train_steps(options: CostOptions) -> Answer:
    """Training steps beside the counterpart's."""
    from vitrail.cost import machine
    from vitrail.cost.versus_training import training

    elsewhere = counterparts_for(options)
    with status_bar("measuring") as step:
        found = [
            training(
                model,
                str(options.against),
                one,
                known=elsewhere,
                with_memory=not options.no_memory,
                tell=print_stderr,
                on_step=step,
            )
            for one in all_settings(options)
            for model in options.models
        ]
    rows = [side_cells(one, side) for one in found for side in (one.ours, one.theirs)]
    columns = ("step of", "px", "batch", "ms", "forward", "backward", "optimiser")
    where = machine()
    notes = [note for one in found for side in (one.ours, one.theirs) for note in side.notes]
    parts = [table((*columns, "peak MB", "MB a picture", "speed"), rows), *notes]
    data = {"rows": [one.to_dict() for one in found], "machine": where}
    return Answer(data, [*parts, machine_line(where)])


def side_cells(found: "VersusTraining", side: "Side") -> tuple[object, ...]:
    """One side's line; the speed stands in ours."""
    held, speed = side.memory, found.speed
    return (
        side.candidate,
        found.settings.image,
        found.settings.batch,
        f"{1e3 * side.time.median:.1f}",
        *(f"{1e3 * seconds:.1f}" for seconds in side.parts.values()),
        megabytes(held.peak if held else None),
        megabytes(held.picture if held else None),
        f"{speed}{'' if speed.quiet else ' noisy'}" if side is found.ours else "",
    )
