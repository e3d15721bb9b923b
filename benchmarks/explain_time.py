"""What an explanation costs: Grad-CAM, rollout and LRP against a forward and backward pass.

``python -m benchmarks.explain_time --help``; the rules are in ``README.md`` beside this file.

Each model is one interleaved run of ``pass`` (forward, and backward to all parameters, as a step
of training has it, without the optimiser) and each method through ``vitrail.explain`` as people
call it: with the forward pass that settles the target, and the checks. A method that refuses a
model is written as refused, with its reason; a model too large for the machine, as left out.
"""

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn

import vitrail
from benchmarks import command, contract
from vitrail.attribution import ExplainError, explain
from vitrail.cost import Timing, parameters, ratio, time_side_by_side, use_threads
from vitrail.cost.counting import example

ALLOWED = 5.0
"""How many passes an explanation may cost (issue 6)."""
METHODS = ("gradcam", "rollout", "lrp")
BARS = tuple(contract.Bar(arm=name, against="pass", at_least=1 / ALLOWED) for name in METHODS)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to run. Every model is a setting of its own.

    Attributes:
        models: by name or call; none means every registered one.
        methods: as ``vitrail.explain`` knows them.
        image: edge in pixels.
        batch: pictures a call.
        threads: torch threads.
        largest: leave out models of more than so many million parameters (a backward pass holds
            them twice).
        patience: leave out models whose forward pass takes longer than so many seconds.
        rounds: undisturbed windows wanted of each candidate.
        window_s: least seconds of a window.
        warmup_s: least seconds of warm-up.
        quick: one round of short windows, to see that it works.
        out: folder for the result file.
    """

    models: tuple[str, ...] = ()
    methods: tuple[str, ...] = METHODS
    image: int = 224
    batch: int = 1
    threads: int = 1
    largest: int = 200
    patience: float = 2.0
    rounds: int = 3
    window_s: float = 0.3
    warmup_s: float = 0.3
    quick: bool = False
    out: Path = contract.RESULTS


def main(options: Options) -> Path:
    """Time every model, print each row, write the file and give its path."""
    if options.quick:
        options = replace(options, rounds=1, window_s=0.001, warmup_s=0.001)
    names, left_out = select_methods(options)
    settings = {**asdict(options), "left_out": left_out, "refused": {}}
    record = contract.Record("explain_time", settings, options.out, BARS)
    for name in names:
        print(f"\n{name}, {options.image} px, batch {options.batch}", flush=True)
        torch.manual_seed(0)
        model = vitrail.create(name, image=options.image).eval()
        seconds = forward_seconds(model, options)
        if seconds > options.patience:
            left_out[name] = f"forward pass of {seconds:.1f} s"
            print(f"  left out: {left_out[name]}", flush=True)
            continue
        rows, refused = measure(model, name, options)
        gc.collect()
        record.settings["refused"] |= {f"{name}: {method}": why for method, why in refused.items()}
        record.add(rows)
        for line in lines(rows, refused):
            print(line, flush=True)
    record.close()
    return record.path


def select_methods(options: Options) -> tuple[list[str], dict[str, str]]:
    """The models to time, and those that are too large."""
    sizes = {}
    for name in options.models or vitrail.list_models():
        with torch.device("meta"):
            sizes[name] = parameters(vitrail.create(name, image=options.image)) / 1e6
    names = [name for name, size in sizes.items() if size <= options.largest]
    return names, {n: f"{sizes[n]:.0f} M parameters" for n in sizes if n not in names}


def forward_seconds(model: nn.Module, options: Options) -> float:
    """How long one forward pass takes, the first."""
    pictures = example(model, options.image, batch=options.batch)
    started = perf_counter()
    with torch.no_grad(), use_threads(options.threads):
        model(pictures)
    return perf_counter() - started


def measure(
    model: nn.Module, name: str, options: Options
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """One model: rows, and the methods that refuse it with their reason."""
    pictures = example(model, options.image, batch=options.batch)
    calls: dict[str, Callable[[], object]] = {"pass": forward_backward(model, pictures)}
    refused = {}
    for method in options.methods:
        try:
            explain(model, pictures, method=method)
        except (ExplainError, vitrail.UserError) as refusal:
            refused[method] = str(refusal)
        else:
            calls[method] = explaining(model, pictures, method)
    timings = time_side_by_side(
        calls,
        rounds=options.rounds,
        window_s=options.window_s,
        warmup_s=options.warmup_s,
        threads=options.threads,
    )
    return [row_of(arm, name, timings, parameters(model), options) for arm in calls], refused


def forward_backward(model: nn.Module, pictures: torch.Tensor) -> Callable[[], object]:
    """The yardstick: logits, and the gradient of one to all parameters."""

    def call() -> None:
        model(pictures)[:, 0].sum().backward()
        model.zero_grad()

    return call


def explaining(model: nn.Module, pictures: torch.Tensor, method: str) -> Callable[[], object]:
    """The method by its defaults, for the predicted class."""
    return lambda: explain(model, pictures, method=method)


def row_of(
    arm: str, model: str, timings: Mapping[str, Timing], size: int, options: Options
) -> dict[str, Any]:
    """One row: a method against the pass, or the pass itself."""
    others = [] if arm == "pass" else ["pass"]
    return contract.row(
        arm,
        timings[arm],
        {other: ratio(timings[arm], timings[other]) for other in others},
        model=model,
        image=options.image,
        batch=options.batch,
        params=size,
    )


def lines(rows: Sequence[Mapping[str, Any]], refused: Mapping[str, str]) -> list[str]:
    """For people: milliseconds, and how many passes that is."""
    said = []
    for row in rows:
        passes = [f"{1 / other['ratio']:6.2f} passes" for other in row["against"]]
        noisy = "" if row["time"]["quiet"] else "  [noisy]"
        said.append(
            f"  {row['arm']:12} {row['time']['median_ms']:9.1f} ms {''.join(passes)}{noisy}"
        )
    return said + [f"  {method:12} refused: {why}" for method, why in refused.items()]


if __name__ == "__main__":
    command.run(main, Options, __doc__)
