"""Backbone x mixer x reducer: what serves what, what not and why, and what each costs.

``python -m benchmarks.matrix --help``; the rules are in ``README.md`` beside this file.

every combination is built: it serves, or the refusal is kept
  -> peak memory in a fresh process -> timed in one run with the plain model -> counted
``--cells cross`` measures each mixer with the plain reducer and each reducer with the plain mixer;
``--cells all`` every combination that serves. ``--minutes`` ends measuring after the cell at hand,
and ``--resume FILE`` goes on with an earlier file. ``--markdown`` writes the tables of a file.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch

import vitrail
from benchmarks import command, contract, matrix_table
from vitrail.console import track_items
from vitrail.cost import Settings, count, memory, ratio, use_threads
from vitrail.cost.candidates import forward, time_interleaved
from vitrail.errors import UserError
from vitrail.mixers import MixerSpec
from vitrail.models.zoo import configure
from vitrail.reducers import ReducerSpec
from vitrail.specs import SpecError, print_call

NATIVE = "native"
VARIANTS = ("cluster(by='kmeans')", "cluster(by='sort')", "merge(keep=0.25)")
"""Reducers beside each registered one with its defaults."""
TOGETHER = 4
"""Cells that are timed in one run with the plain model."""
CLASSES = 1000


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to build and measure.

    Attributes:
        backbones: models by name.
        mixers: specs; none means native and every registered one.
        reducers: specs; none means native, every registered one and some variants.
        sizes: edges in pixels.
        cells: measure mixers and reducers one at a time, or every pair.
        threads: torch threads.
        rounds: undisturbed windows wanted of each candidate.
        window_s: least seconds of a window.
        warmup_s: least seconds of warm-up.
        minutes: stop measuring after so many; what was not reached stays open.
        memory: measure peak memory too (a fresh process a cell).
        limit_gb: a cell whose forward needs more is not timed.
        limit_s: neither is one whose first call takes longer.
        resume: a file of an earlier run, whose rows are kept and not measured again.
        markdown: write the tables into this file too; what is there is replaced.
        only_tables: measure nothing, write the tables of ``resume``.
        out: folder for the result file.
    """

    backbones: tuple[str, ...] = (
        "vit_tiny",
        "coat_lite_tiny",
        "cmt_ti",
        "coatnet_0",
        "mobilevit_xs",
        "filtervit_v2_xs",
    )
    mixers: tuple[str, ...] = ()
    reducers: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (224, 512)
    cells: Literal["cross", "all"] = "cross"
    threads: int = 1
    rounds: int = 4
    window_s: float = 0.2
    warmup_s: float = 0.5
    minutes: float | None = None
    memory: bool = True
    limit_gb: float = 6.0
    limit_s: float = 4.0
    resume: Path | None = None
    markdown: Path | None = None
    only_tables: bool = False
    out: Path = contract.RESULTS


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One combination."""

    backbone: str
    mixer: str
    reducer: str

    @property
    def plain(self) -> bool:
        """Whether it is the backbone as its paper has it."""
        return self.mixer == self.reducer == NATIVE

    @property
    def text(self) -> str:
        """What :func:`vitrail.create` takes."""
        named = {"mixer": self.mixer, "reducer": self.reducer}
        return print_call(self.backbone, {k: v for k, v in named.items() if v != NATIVE})


def main(options: Options) -> Path:
    """Build all, measure what time allows, write the file after each run; give its path."""
    nothing: dict[str, Any] = {"rows": [], "settings": {"too_large": []}}
    earlier = json.loads(options.resume.read_text()) if options.resume else nothing
    if options.only_tables:
        return tables(earlier, options)
    found = dict(survey(track_items("building", list(cells(options)))))
    record = contract.Record("matrix", settings_of(options, found), options.out)
    record.rows = list(earlier["rows"])
    record.settings["too_large"] += earlier["settings"]["too_large"]
    record.add([])  # who serves whom is kept, however short the time
    done = {key(row) for row in record.rows}
    until = time.monotonic() + 60 * (options.minutes or 1e9)
    done |= {key(large) for large in record.settings["too_large"]}
    todo = list(runs([cell for cell, why in found.items() if why is None], options, done))
    for backbone, image, some in track_items("measuring", todo):
        if time.monotonic() > until:
            print("time is up: --resume goes on with this file", flush=True)
            break
        rows, too_large = measure(backbone, image, some, options)
        record.settings["too_large"] += too_large
        record.add(rows)
    record.close()
    return tables(record.to_dict(), options, record.path)


def tables(result: Mapping[str, Any], options: Options, path: Path | None = None) -> Path:
    """Write the tables where asked for."""
    if options.markdown is not None:
        options.markdown.write_text(matrix_table.page(result), encoding="utf-8")
        print(f"written: {options.markdown}")
    return path or options.markdown or Path()


def settings_of(options: Options, found: Mapping[Cell, str | None]) -> dict[str, Any]:
    """What was asked for, and all that was built or refused."""
    served = [{**asdict(cell), "refused": why} for cell, why in found.items()]
    more = {"batch": 1, "which": options.cells, "cells": served, "too_large": []}
    return asdict(options) | more


def cells(options: Options) -> Iterator[Cell]:
    """Every combination; those that come to the same model only once, under the shorter name."""
    mixers = options.mixers or tuple(sorted(MixerSpec.registry()))
    reducers = options.reducers or (*sorted(ReducerSpec.registry()), *VARIANTS)
    seen: set[str] = set()
    for backbone, mixer, reducer in product(
        options.backbones, with_native(mixers), with_native(reducers)
    ):
        cell = Cell(backbone=backbone, mixer=mixer, reducer=reducer)
        same = f"{backbone} {configure(cell.text)}"
        if same not in seen:
            seen.add(same)
            yield cell


def with_native(specs: Sequence[str]) -> list[str]:
    """The paper's own first."""
    return [NATIVE, *(spec for spec in specs if spec != NATIVE)]


def survey(wanted: Iterable[Cell]) -> Iterator[tuple[Cell, str | None]]:
    """Build every cell without memory for its weights; why it is refused, or None."""
    for cell in wanted:
        try:
            with torch.device("meta"):
                vitrail.create(cell.text, image=224, classes=2)
        except SpecError as refusal:
            yield cell, str(refusal)
        else:
            yield cell, None


def runs(
    serving: Sequence[Cell], options: Options, done: set[tuple[Any, ...]]
) -> Iterator[tuple[str, int, tuple[Cell, ...]]]:
    """What is timed together: small pictures first, single changes before pairs."""
    single = [c for c in serving if NATIVE in (c.mixer, c.reducer)]
    pairs = [c for c in serving if c not in single] if options.cells == "all" else []
    for some, image, backbone in product((single, pairs), options.sizes, options.backbones):
        left = [
            c for c in some if c.backbone == backbone and (*asdict(c).values(), image) not in done
        ]
        changed = [c for c in left if not c.plain]
        for first in range(0, len(changed), TOGETHER):
            yield backbone, image, tuple(changed[first : first + TOGETHER])


def key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a row is about."""
    return row["backbone"], row["mixer"], row["reducer"], row["image"]


def measure(
    backbone: str, image: int, some: Sequence[Cell], options: Options
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of some cells, timed in one run with their plain model, and those too large for it."""
    where = Settings(
        image=image,
        batch=1,
        classes=CLASSES,
        threads=options.threads,
        rounds=options.rounds,
        window_s=options.window_s,
        warmup_s=options.warmup_s,
    )
    plain = Cell(backbone=backbone, mixer=NATIVE, reducer=NATIVE)
    peaks = {cell: peak(cell, where, options) for cell in (plain, *some)}
    most = options.limit_gb * 2**30
    large = {c: gigabytes(held) for c, held in peaks.items() if held and held > most}
    models = {c: built(c, image) for c in peaks if c not in large}
    calls = {cell: forward(model, where, batch=1) for cell, model in models.items()}
    first = {cell: once(call, options.threads) for cell, call in calls.items()}
    large |= {c: f"{spent:.0f} s" for c, spent in first.items() if spent > options.limit_s}
    kept = [cell for cell in models if cell not in large]
    left = [{**asdict(cell), "image": image, "takes": what} for cell, what in large.items()]
    if plain not in kept:
        return [], left
    timings = time_interleaved({cell.text: calls[cell] for cell in kept}, where)
    rows = []
    for cell in kept:
        counted = count(models[cell], image)
        own, unchanged = timings[cell.text], timings[plain.text]
        row = contract.row(
            cell.text,
            own,
            {} if cell.plain else {plain.text: ratio(own, unchanged)},
            **asdict(cell),
            image=image,
            params=counted.params,
            macs=counted.macs,
            memory_bytes=peaks[cell],
        )
        print(line(row), flush=True)
        rows.append(row)
    return rows, left


def gigabytes(held: float) -> str:
    """For people; infinite is what did not fit."""
    return "more memory than there is" if held == float("inf") else f"{held / 2**30:.1f} GB"


def once(call: Callable[[], object], threads: int) -> float:
    """Seconds of the first call, which is the longest."""
    started = time.perf_counter()
    with use_threads(threads):
        call()
    return time.perf_counter() - started


def built(cell: Cell, image: int) -> torch.nn.Module:
    """The model with weights that are always the same."""
    torch.manual_seed(0)
    return vitrail.create(cell.text, image=image, classes=CLASSES).eval()


def peak(cell: Cell, where: Settings, options: Options) -> int | float | None:
    """Peak bytes of one forward; infinite where memory ran out, None where nobody asked."""
    if not options.memory:
        return None
    try:
        return memory(cell.text, where.image, 1, settings=where)
    except UserError as error:
        print(f"  {error}", flush=True)
        return float("inf")


def line(row: Mapping[str, Any]) -> str:
    """A row for people."""
    against = "".join(f"  {o['ratio']:.2f} x plain" for o in row["against"])
    held = "" if row["memory_bytes"] is None else f"  {row['memory_bytes'] / 2**20:.0f} MB"
    return (
        f"  {row['image']} px  {row['arm']}: {row['macs'] / 1e9:.3f} GMAC  "
        f"{row['time']['median_ms']:.1f} ms{against}{held}"
    )


if __name__ == "__main__":
    command.run(main, Options, __doc__)
