"""Does clustering pay? A plain model beside the same with fewer working tokens, at fixed ratios.

``python -m benchmarks.fewer_tokens --help``; the rules are in ``README.md`` beside this file.

each question (model, pixels) is one interleaved run: plain, clusters of 4 tokens, of 9, of 9 found
once for three blocks, and the 2 x 2 and 3 x 3 pooling of the same price
"""

import gc
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch

import vitrail
from benchmarks import command, contract
from benchmarks.placing import PLAIN, many
from vitrail.cost import Settings, count, ratio
from vitrail.cost.candidates import allow_many_compiles, forward, time_interleaved
from vitrail.cost.same_weights import keep_freed_memory

Graph = Literal["eager", "compiled"]
REDUCERS = (
    "cluster(ratio=4)",
    "cluster(ratio=9)",
    "cluster(ratio=9, hold=3)",
    "pool(size=2)",
    "pool(size=3)",
)
QUESTIONS = (("coat_lite_small", 512), ("coat_lite_small", 1024), ("vit_small", 512))
BARS = tuple(
    contract.Bar(
        arm="cluster(ratio=9, hold=3)",
        against=PLAIN,
        at_least=bar,
        graph=graph,
        where={"model": (model,), "image": (image,)},
    )
    for (model, image), bar in zip(QUESTIONS, (2.2, 2.5, 2.0), strict=True)
    for graph in ("eager", "compiled")
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to run.

    Attributes:
        questions: models and edges in pixels, as ``NAME:PIXELS``.
        reducers: in every stage but the last (which has few tokens), or in all of a ViT.
        batches: pictures a call.
        threads: torch threads.
        graph: eager or compiled.
        rounds: undisturbed windows wanted of each candidate.
        window_s: least seconds of a window.
        warmup_s: least seconds of warm-up.
        out: folder for the result file.
    """

    questions: tuple[str, ...] = tuple(f"{model}:{image}" for model, image in QUESTIONS)
    reducers: tuple[str, ...] = REDUCERS
    batches: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = (2,)
    graph: Graph = "eager"
    rounds: int = 5
    window_s: float = 0.3
    warmup_s: float = 1.0
    out: Path = contract.RESULTS


def main(options: Options) -> Path:
    """Answer every question, print each row, write the file and give its path."""
    record = contract.Record("fewer_tokens", asdict(options), options.out, BARS)
    keep_freed_memory()
    for question, batch, threads in product(options.questions, options.batches, options.threads):
        model, _, image = question.rpartition(":")
        print(f"\n{model}, {image} px, batch {batch}, {threads} thread(s)", flush=True)
        rows = measure(model, int(image), batch, threads, options)
        record.add(rows)
        for row in rows:
            print(line(row), flush=True)
    record.close()
    return record.path


def build(model: str, image: int, reducer: str) -> vitrail.models.Backbone:
    """The model with the reducer wherever there are many tokens, made for that size."""
    torch.manual_seed(0)
    chosen = many(vitrail.create(model, image=image), reducer)
    return vitrail.create(model, image=image, reducer=chosen).eval()


def measure(
    model: str, image: int, batch: int, threads: int, options: Options
) -> list[dict[str, Any]]:
    """One interleaved run of the plain model and of all reducers."""
    built = {name: build(model, image, name) for name in (PLAIN, *options.reducers)}
    setting = Settings(
        image=image,
        batch=batch,
        threads=threads,
        graph=options.graph,
        rounds=options.rounds,
        window_s=options.window_s,
        warmup_s=options.warmup_s,
    )
    with allow_many_compiles(setting):
        timings = time_interleaved(
            {name: forward(one, setting, batch=batch) for name, one in built.items()}, setting
        )
    rows = [
        contract.row(
            name,
            own,
            {} if name == PLAIN else {PLAIN: ratio(own, timings[PLAIN])},
            model=model,
            image=image,
            batch=batch,
            graph=options.graph,
            precision="float32",
            macs=count(built[name], image).macs,
            images_per_s=own.rate(batch),
        )
        for name, own in timings.items()
    ]
    del built
    if options.graph == "compiled":
        torch._dynamo.reset()  # the next question's models share this one's code
    gc.collect()
    return rows


def line(row: Mapping[str, Any]) -> str:
    """A row for people."""
    against: Sequence[Mapping[str, Any]] = row["against"]
    ratios = "".join(
        f"  {o['ratio']:.2f} ({o['low']:.2f} to {o['high']:.2f}) x plain" for o in against
    )
    return (
        f"  {row['arm']:18} {row['graph']:8} {row['macs'] / 1e9:7.2f} GMAC "
        f"{row['time']['median_ms']:9.1f} ms{ratios}"
    )


if __name__ == "__main__":
    command.run(main, Options, __doc__)
