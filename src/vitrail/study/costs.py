"""What each arm of a study costs, measured once, side by side, at the study's image size."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vitrail.errors import UserError
from vitrail.study.bench import Bench
from vitrail.study.record import ArmCost, write_json

if TYPE_CHECKING:
    from vitrail.cost import Settings

Tell = Callable[[str], None]


class Measure(Protocol):
    """Measures all arms of a bench against each other."""

    def __call__(self, bench: Bench, tell: Tell) -> Mapping[str, ArmCost]:
        """Costs by arm; ``tell`` takes a line for people."""
        ...


def settle(path: Path, bench: Bench, measure: Measure, tell: Tell) -> None:
    """Measure and write the costs unless they are there for every arm of the plan.

    A study that has grown is measured anew as a whole: only what was timed side by side compares.
    """
    told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if set(bench.plan.arms) <= set(told):
        return
    tell(f"measuring what {len(bench.plan.arms)} arms cost ...")
    costs = measure(bench, tell)
    write_json(path, {arm: asdict(cost) for arm, cost in costs.items()})


def measure(bench: Bench, tell: Tell) -> dict[str, ArmCost]:
    """Count and time all arms through :mod:`vitrail.cost`; memory in a fresh process each."""
    from vitrail.cost import Settings, cost
    from vitrail.hub import build

    settings = Settings(
        image=bench.plan.image,
        batch=bench.recipe.batch,
        classes=len(bench.pictures.classes),
        in_chans=bench.preprocess.in_chans,
        rounds=5,
        window_s=0.2,
        warmup_s=1.0,
    )
    measured = cost(bench.plan.arms, settings, build=build, with_memory=False)
    return {
        row.model: ArmCost(
            params=row.count.params,
            macs=row.count.macs,
            latency=row.latency.median,
            latency_spread=row.latency.iqr,
            throughput=row.images_per_s,
            throughput_spread=row.images_per_s * row.throughput.iqr / row.throughput.median,
            batch=row.batch,
            memory=training_memory(row.model, settings, tell),
            quiet=row.latency.quiet and row.throughput.quiet,
        )
        for row in measured.rows
    }


def training_memory(arm: str, settings: "Settings", tell: Tell) -> int | None:
    """Peak bytes of a training step in a fresh process, or None and a line that says why."""
    from vitrail.cost import memory

    try:
        return memory(
            arm, settings.image, settings.batch, True, build="vitrail.hub:build", settings=settings
        )
    except UserError as error:
        tell(f"memory of {arm} is not known: {error}")
        return None
