"""Peak memory on large pictures, ours beside the peer's; CoaT-Lite in half precision at 2048 px.

``python -m benchmarks.memory --help``; the rules are in ``README.md`` beside this file.

each model and size: a fresh process builds, runs, and says its peak above what it held before. It
may take ``limit_gb`` and no more: what does not fit is a row that says so.
"""

import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks import command, contract
from benchmarks.peer_models import ALL, COUNTERPARTS, PEERS, Peer
from vitrail.cost import Settings, memory, use_threads
from vitrail.cost.candidates import build_on_device
from vitrail.cost.counting import example
from vitrail.cost.same_weights import perturb_weights
from vitrail.errors import UserError, unknown

MODELS = {peer.model: peer for peer in PEERS if peer.family in ALL}
HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
LESS = "peer's peak over ours"
BARS = (contract.Bar(arm="vitrail", against=LESS, at_least=0.98),)
"""No more than the peer; three runs of one model differ by 2 to 4 MB, so 2 % is no difference."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to run.

    Attributes:
        models: those of the peers suite.
        sizes: edges in pixels.
        batch: pictures a call.
        train: the peak of a training step instead of a forward.
        half: models that are tried in half precision at the largest size; an empty list: none.
        precisions: of those.
        threads: torch threads.
        classes: classes of the head.
        repeats: fresh processes a side, by turns; the median counts.
        limit_gb: the most that one process may take; 0 means four fifths of what is free now.
        out: folder for the result file.
    """

    models: tuple[str, ...] = tuple(MODELS)
    sizes: tuple[int, ...] = (1024, 2048)
    batch: int = 1
    train: bool = False
    half: tuple[str, ...] = ("coat_lite_tiny", "coat_lite_small")
    precisions: tuple[Literal["float16", "bfloat16"], ...] = ("float16", "bfloat16")
    threads: int = 2
    classes: int = 1000
    repeats: int = 1
    limit_gb: float = 0.0
    out: Path = contract.RESULTS


def main(options: Options) -> Path:
    """Run every model at every size, print and write the rows, and give the file's path."""
    for name in options.models:
        if name not in MODELS:
            raise unknown("model of the suite", name, MODELS)
    limit = int(options.limit_gb * 1e9) or int(0.8 * free_memory())
    facts = asdict(options) | {"limit_bytes": limit}
    record = contract.Record("memory", facts, options.out, BARS)
    for image, model in product(options.sizes, options.models):
        show(record, both(MODELS[model], conditions(options, image), options, limit))
    for model, precision in product(options.half, options.precisions):
        show(record, [half(model, precision, conditions(options, max(options.sizes)))])
    record.close()
    return record.path


def conditions(options: Options, image: int) -> Settings:
    """Of one size."""
    return Settings(
        image=image, batch=options.batch, threads=options.threads, classes=options.classes
    )


def show(record: contract.Record, rows: list[dict[str, Any]]) -> None:
    """Write and print rows."""
    record.add(rows)
    for row in rows:
        print(line(row), flush=True)


@dataclass(frozen=True)
class Peak:
    """One side's peaks in bytes, those of processes that did not fit being None, and why."""

    arm: str
    bytes: tuple[int | None, ...]
    note: str

    @property
    def median(self) -> int | None:
        """The middle one; None where not all fitted."""
        known = [each for each in self.bytes if each is not None]
        return int(statistics.median(known)) if len(known) == len(self.bytes) else None


def both(peer: Peer, settings: Settings, options: Options, limit: int) -> list[dict[str, Any]]:
    """Our row and the peer's; where one did not fit, the limit stands for its peak."""
    arms = (peer.model, peer.other)
    taken = [
        [peak(arm, settings, options.train, limit) for arm in arms] for _ in range(options.repeats)
    ]
    ours, theirs = (
        Peak(arm, tuple(b for b, _ in some), next((why for _, why in some if why), ""))
        for arm, some in zip(arms, zip(*taken, strict=True), strict=True)
    )
    fitted = ours.median is not None or theirs.median is not None
    ratio = (theirs.median or limit) / (ours.median or limit) if fitted else None
    return [
        row_of("vitrail", peer, ours, settings, options, ratio),
        row_of("peer", peer, theirs, settings, options, None),
    ]


def peak(arm: str, settings: Settings, train: bool, limit: int) -> tuple[int | None, str]:
    """Peak bytes of a fresh process; None and the reason where there were none."""
    try:
        size = settings.image, settings.batch
        return memory(
            arm, *size, train, build=COUNTERPARTS.build, settings=settings, limit=limit
        ), ""
    except UserError as error:
        return None, str(error)


def row_of(
    side: str, peer: Peer, taken: Peak, settings: Settings, options: Options, ratio: float | None
) -> dict[str, Any]:
    """One side's peak; ours with how many times more the peer took."""
    rounds = {"rounds": options.repeats, "quiet": True}
    entry = {"arm": LESS, "ratio": ratio, "low": ratio, "high": ratio, **rounds}
    return {
        "arm": side,
        "model": peer.model,
        "family": peer.family,
        "implementation": taken.arm,
        "image": settings.image,
        "batch": settings.batch,
        "threads": settings.threads,
        "step": "training" if options.train else "forward",
        "precision": "float32",
        "memory_bytes": taken.median,
        "peaks": list(taken.bytes),
        "note": taken.note,
        "against": [entry] if ratio is not None else [],
    }


def half(model: str, precision: str, settings: Settings) -> dict[str, Any]:
    """One forward with weights and picture in half precision: finite, and how near float32's?"""
    torch.manual_seed(0)
    built = build_on_device(model, settings, COUNTERPARTS.build)
    perturb_weights(built)
    picture = example(built, settings.image, batch=settings.batch)
    dtype = HALVES[precision]
    with torch.inference_mode(), use_threads(settings.threads):
        wanted = built(picture)
        began = time.perf_counter()
        given = built.to(dtype)(picture.to(dtype)).float()
        seconds = time.perf_counter() - began
    return {
        "arm": "vitrail",
        "model": model,
        "image": settings.image,
        "batch": settings.batch,
        "threads": settings.threads,
        "step": "forward",
        "precision": precision,
        "memory_bytes": None,
        "note": f"one forward took {seconds:.1f} s",
        "finite": bool(given.isfinite().all()),
        "apart": float((given - wanted).abs().max() / wanted.abs().max()),
        "against": [],
    }


def line(row: Mapping[str, Any]) -> str:
    """A row for people."""
    head = f"{row['model']:20} {row['image']:5} px  {row['arm']:8} {row['precision']:9}"
    if "finite" in row:
        word = "finite" if row["finite"] else "NOT FINITE"
        return f"{head} {word}, {row['apart']:.1e} of the largest logit from float32's"
    taken = (
        "did not fit" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 2**20:.0f} MB"
    )
    ratio = "".join(f", the peer takes {o['ratio']:.2f} x" for o in row["against"])
    return f"{head} {taken}{ratio}{'  [' + row['note'] + ']' if row['note'] else ''}"


def free_memory(info: Path = Path("/proc/meminfo")) -> int:
    """Bytes that the system could give now."""
    fields = dict(line.split(":", 1) for line in info.read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


if __name__ == "__main__":
    command.run(main, Options, __doc__)
