"""The training step of every hybrid against timm's (CMT: the official one) on the same weights.

``python -m benchmarks.train_step --help``; the rules are in ``README.md`` beside this file.

the same weights, the same noise, AdamW: forward, loss, backward, update -> one interleaved run each
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

from benchmarks import command, contract
from benchmarks.peer_models import COUNTERPARTS, HYBRIDS, PEERS, Peer
from vitrail.cost import Settings
from vitrail.cost.versus_training import Side, VersusTraining, training
from vitrail.errors import unknown

Graph = Literal["eager", "compiled"]
MODELS = {peer.model: peer for peer in PEERS if peer.family in HYBRIDS}
BARS = tuple(
    contract.Bar(arm="vitrail", against="peer", at_least=1.2, graph=graph)
    for graph in ("eager", "compiled")
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to run. Every combination of the lists is a setting of its own.

    Attributes:
        models: hybrids of the peers suite.
        sizes: edges in pixels.
        batches: pictures a step.
        graphs: eager or compiled.
        precision: float32, or bfloat16 by autocast.
        checkpointing: compute activations again, where the model can.
        memory: measure peaks too, in four fresh processes a setting.
        threads: torch threads.
        device: where to train.
        rounds: undisturbed windows wanted of each side.
        window_s: least seconds of a window.
        warmup_s: least seconds of warm-up.
        classes: classes of the head.
        out: folder for the result file.
    """

    models: tuple[str, ...] = tuple(MODELS)
    sizes: tuple[int, ...] = (224,)
    batches: tuple[int, ...] = (8,)
    graphs: tuple[Graph, ...] = ("eager",)
    precision: Literal["float32", "bfloat16"] = "float32"
    checkpointing: bool = False
    memory: bool = True
    threads: int = 2
    device: str = "cpu"
    rounds: int = 6
    window_s: float = 0.3
    warmup_s: float = 2.0
    classes: int = 1000
    out: Path = contract.RESULTS


def main(options: Options) -> Path:
    """Run every setting, print and write its rows, and give the file's path."""
    for name in options.models:
        if name not in MODELS:
            raise unknown("hybrid", name, MODELS)
    record = contract.Record("train_step", asdict(options), options.out, BARS)
    for image, model, batch, graph in product(
        options.sizes, options.models, options.batches, options.graphs
    ):
        print(f"\n{model}, {image} px, batch {batch}, {graph}", flush=True)
        found = training(
            model,
            MODELS[model].against,
            conditions(options, image, batch, graph),
            known=COUNTERPARTS,
            with_memory=options.memory,
        )
        rows = rows_of(MODELS[model], found)
        record.add(rows)
        for row in rows:
            print(line(row), flush=True)
    record.close()
    return record.path


def conditions(options: Options, image: int, batch: int, graph: Graph) -> Settings:
    """Of one setting."""
    return Settings(
        image=image,
        batch=batch,
        graph=graph,
        precision=options.precision,
        checkpointing=options.checkpointing,
        threads=options.threads,
        device=options.device,
        rounds=options.rounds,
        window_s=options.window_s,
        warmup_s=options.warmup_s,
        classes=options.classes,
    )


def rows_of(peer: Peer, found: VersusTraining) -> list[dict[str, Any]]:
    """Our row, with the ratio, and the peer's."""
    return [
        row_of("vitrail", peer, found, found.ours),
        row_of("peer", peer, found, found.theirs),
    ]


def row_of(arm: str, peer: Peer, found: VersusTraining, side: Side) -> dict[str, Any]:
    """One side's step."""
    s = found.settings
    return contract.row(
        arm,
        side.time,
        {"peer": found.speed} if arm == "vitrail" else {},
        model=found.model,
        family=peer.family,
        implementation=side.candidate,
        image=s.image,
        batch=s.batch,
        graph=s.graph,
        device=s.device,
        precision=s.precision,
        checkpointing=s.checkpointing,
        images_per_s=side.time.rate(s.batch),
        parts_ms={part: 1e3 * seconds for part, seconds in side.parts.items()},
        first_loss=side.loss,
        memory=asdict(side.memory) if side.memory else None,
        notes=list(side.notes),
    )


def line(row: Mapping[str, Any]) -> str:
    """A row for people: time and its parts, memory a picture, the ratio."""
    parts = ", ".join(f"{part} {ms:.0f}" for part, ms in row["parts_ms"].items())
    memory = f"  {row['memory']['picture'] / 2**20:.0f} MB a picture" if row["memory"] else ""
    ratio = "".join(
        f"  {o['ratio']:.2f} ({o['low']:.2f} to {o['high']:.2f}) x {o['arm']}"
        for o in row["against"]
    )
    notes = "".join(f"  [{note}]" for note in row["notes"])
    return f"  {row['arm']:8} {row['time']['median_ms']:9.1f} ms ({parts}){memory}{ratio}{notes}"


if __name__ == "__main__":
    command.run(main, Options, __doc__)
