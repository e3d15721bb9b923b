"""Clustering CoaT against plain CoaT-Lite and against its pooled control.

``python -m benchmarks.coat_lite --help``; the rules are in ``README.md`` beside this file.

plain | pooled | TB | QF | QS  x eager | compiled  at 512 and 1024 px
each setting (model, pixels, batch, threads) is one interleaved run; against timm's CoaT-Lite:
``python -m benchmarks.peers --only coat``
"""

import gc
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

import vitrail
from benchmarks import command, contract
from vitrail.cost import Count, Settings, Timing, count, ratio
from vitrail.cost.candidates import allow_many_compiles, forward, time_interleaved
from vitrail.cost.same_weights import keep_freed_memory

Graph = Literal["eager", "compiled"]
YARDSTICKS = ("plain", "pooled")
BARS = (contract.Bar(arm="TB", against="plain", at_least=2.0),)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to run. Every combination of the lists is a setting of its own.

    Attributes:
        models: CoaT-Lite variants.
        sizes: edges in pixels.
        batches: pictures a call.
        threads: torch threads.
        graphs: eager, compiled, or both in one run.
        rounds: undisturbed windows wanted of each candidate.
        window_s: least seconds of a window.
        warmup_s: least seconds of warm-up.
        quick: one small setting, to see that it works.
        out: folder for the result file.
    """

    models: tuple[str, ...] = ("coat_lite_tiny", "coat_lite_small")
    sizes: tuple[int, ...] = (512, 1024)
    batches: tuple[int, ...] = (1, 8)
    threads: tuple[int, ...] = (1, 2)
    graphs: tuple[Graph, ...] = ("eager", "compiled")
    rounds: int = 6
    window_s: float = 0.3
    warmup_s: float = 2.0
    quick: bool = False
    out: Path = contract.RESULTS


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A candidate: how it is called in the rows, how it is built, in which graphs it can run."""

    name: str
    build: Callable[[], nn.Module]
    graphs: tuple[str, ...] = ("eager", "compiled")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One interleaved run."""

    model: str
    image: int
    batch: int
    threads: int


def main(options: Options) -> Path:
    """Run every setting, print each row, write the file and give its path."""
    options = quick(options) if options.quick else options
    record = contract.Record("coat_lite", asdict(options), options.out, BARS)
    keep_freed_memory()
    for setting in settings(options):
        print(
            f"\n{setting.model}, {setting.image} px, batch {setting.batch}, "
            f"{setting.threads} thread(s)",
            flush=True,
        )
        rows = measure(setting, options)
        record.add(rows)
        for row in rows:
            print(line(row), flush=True)
    record.close()
    return record.path


def quick(options: Options) -> Options:
    """The same comparisons at their smallest."""
    return replace(
        options,
        models=options.models[:1],
        sizes=options.sizes[:1],
        batches=options.batches[:1],
        threads=options.threads[:1],
        graphs=("eager",),
        rounds=min(options.rounds, 3),
        warmup_s=min(options.warmup_s, 0.5),
    )


def settings(options: Options) -> list[Setting]:
    """All combinations, small pictures first."""
    lists = (options.sizes, options.models, options.batches, options.threads)
    return [
        Setting(model=model, image=image, batch=batch, threads=threads)
        for image, model, batch, threads in product(*lists)
    ]


def measure(setting: Setting, options: Options) -> list[dict[str, Any]]:
    """Build the arms, time all of them in all graphs side by side, and make the rows."""
    arms = candidates(setting)
    built = {arm.name: arm.build().eval() for arm in arms}
    places = [(arm, graph) for arm in arms for graph in options.graphs if graph in arm.graphs]
    conditions = Settings(
        image=setting.image,
        batch=setting.batch,
        threads=setting.threads,
        graph="compiled" if "compiled" in options.graphs else "eager",
        rounds=options.rounds,
        window_s=options.window_s,
        warmup_s=options.warmup_s,
    )
    calls = {
        f"{arm.name} {graph}": forward(
            built[arm.name], replace(conditions, graph=graph), batch=setting.batch
        )
        for arm, graph in places
    }
    with allow_many_compiles(conditions):
        timings = time_interleaved(calls, conditions)
    counts = {name: count(model, setting.image) for name, model in built.items()}
    rows = [row_of(setting, arm.name, graph, counts[arm.name], timings) for arm, graph in places]
    del built, calls
    if "compiled" in options.graphs:
        torch._dynamo.reset()  # the next setting's models share this one's code
    gc.collect()
    return rows


def row_of(
    setting: Setting, arm: str, graph: str, counted: Count, timings: Mapping[str, Timing]
) -> dict[str, Any]:
    """One arm in one graph, against the yardsticks in the same graph."""
    own = timings[f"{arm} {graph}"]
    others = [name for name in YARDSTICKS if name != arm and f"{name} {graph}" in timings]
    return contract.row(
        arm,
        own,
        {name: ratio(own, timings[f"{name} {graph}"]) for name in others},
        part="clustering",
        model=setting.model,
        image=setting.image,
        batch=setting.batch,
        graph=graph,
        precision="float32",
        params=counted.params,
        macs=counted.macs,
        images_per_s=own.rate(setting.batch),
    )


def line(row: Mapping[str, Any]) -> str:
    """A row for people: pictures a second, the call's time with quartiles, the ratios."""
    time = row["time"]
    ratios = ", ".join(
        f"{o['ratio']:.2f} ({o['low']:.2f} to {o['high']:.2f}) x {o['arm']}" for o in row["against"]
    )
    notes = "".join(
        f"  [{word}]"
        for word, fine in (("noisy", time["quiet"]), ("unsettled", time["settled"]))
        if not fine
    )
    return (
        f"  {row['arm']:8} {row['graph']:8} {row['macs'] / 1e9:8.3f} GMAC "
        f"{row['images_per_s']:8.2f} images/s  "
        f"{time['median_ms']:9.1f} ms ({time['low_ms']:.1f} to {time['high_ms']:.1f})  "
        f"{ratios}{notes}"
    )


def candidates(setting: Setting) -> list[Arm]:
    """Plain, the pooling control, and the three readings of Clustering CoaT."""
    names = {
        "plain": setting.model,
        "pooled": f"pooled_{setting.model}",
        "TB": f"clustering_{setting.model}",
        "QF": f"clustering_{setting.model}_qf",
        "QS": f"clustering_{setting.model}_qs",
    }
    return [
        Arm(
            name=name,
            build=partial(create_from_seed, model, setting.image),
            # The hash of QF and QS makes as many clusters as the picture has codes: no one graph.
            graphs=("eager",) if name in ("QF", "QS") else ("eager", "compiled"),
        )
        for name, model in names.items()
    ]


def create_from_seed(model: str, image: int) -> nn.Module:
    """A model whose random weights are always the same."""
    torch.manual_seed(0)
    return vitrail.create(model, image=image, classes=1000)


if __name__ == "__main__":
    command.run(main, Options, __doc__)
