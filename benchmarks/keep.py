"""Does it keep accuracy? A plain model, the same with each reducer, and what each saves.

``python -m benchmarks.keep --help``; the rules are in ``README.md`` beside this file.

for every seed:  plain, trained
                 a  each reducer put into the trained plain model, nothing trained
                 b  the same, tuned shortly with the plain model as teacher (plain too: control)
                 c  each reducer from scratch, as long as plain
then the throughput of all, interleaved. Every training is a run folder below ``--work``; one that
is there is not trained again.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

import vitrail
from benchmarks import command, contract
from benchmarks.placing import PLAIN, many
from vitrail.cost import Settings, count, ratio
from vitrail.cost.candidates import forward, time_interleaved
from vitrail.data import (
    ImageDataset,
    ImageTensors,
    Preprocess,
    batches,
    open_dataset,
    take_fraction,
)
from vitrail.data.items import Item
from vitrail.hub import give_reducer
from vitrail.models import Backbone
from vitrail.specs import parse_call, print_call
from vitrail.study.setup import CachedStore
from vitrail.study.stats import accuracy, compare
from vitrail.tasks import evaluate, load_weights
from vitrail.tasks.distill import Distillation
from vitrail.train import Recipe, TrainingJob, fit_job

REDUCERS = (
    "pool",
    "cluster",
    "filter(keep=0.25)",
    "random(keep=0.25)",
    "merge(keep=0.5)",
)
Way = Literal["as it is", "tuned", "from scratch"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to train, on what, and for how long.

    Attributes:
        data: folder, table or zip of pictures.
        model: the plain backbone.
        reducers: put into every stage but the last, or into all with ``whole``; one each:
            "cluster(ratio=9); cluster; all; all".
        whole: reducers in all stages.
        ways: what is done with each.
        image: edge in pixels.
        epochs: of the plain model, and of each from scratch.
        tune: epochs of tuning with the teacher.
        share: of the training pictures.
        tested: test pictures at most, the same share of every class.
        parts: of the pictures that are asked at the end, whole and together; the tested ones if
            none is named.
        seeds: one training of everything each.
        batch: pictures an update.
        changes: further values of the recipe, as JSON.
        rounds: undisturbed timing windows wanted of each; 0 leaves timing out.
        threads: torch threads while timing.
        work: where the runs are kept.
        out: folder for the result file.
    """

    data: str
    model: str = "coat_lite_tiny"
    reducers: tuple[str, ...] = REDUCERS
    whole: bool = False
    ways: tuple[Way, ...] = ("as it is", "tuned", "from scratch")
    image: int = 128
    epochs: int = 20
    tune: int = 2
    share: float = 1.0
    tested: int = 1000
    parts: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    batch: int = 32
    changes: str = "{}"
    rounds: int = 5
    threads: int = 2
    work: Path = Path("runs/keep")
    out: Path = contract.RESULTS


@dataclass(frozen=True)
class Table:
    """The pictures, and how models are made, trained and asked on them."""

    options: Options

    @cached_property
    def pictures(self) -> ImageDataset:
        """All of them, each decoded once."""
        found = open_dataset(self.options.data)
        return replace(found, store=CachedStore(found.store))

    @cached_property
    def preprocess(self) -> Preprocess:
        """How a test picture is shown."""
        return Preprocess(image=self.options.image)

    @cached_property
    def test_items(self) -> tuple[Item, ...]:
        """The test part, or validation where there is none; never trained on, never chosen by."""
        items = self.pictures.split("test") or self.pictures.split("val")
        return take_fraction(items, min(1.0, self.options.tested / len(items)), 0)

    @cached_property
    def final_items(self) -> tuple[Item, ...]:
        """What is asked at the end; never trained on, never chosen by."""
        parts = [self.pictures.split(part) for part in self.options.parts]
        return tuple(item for part in parts for item in part) or self.test_items

    def train_items(self, seed: int) -> tuple[Item, ...]:
        """The training part."""
        return take_fraction(self.pictures.split("train"), self.options.share, seed)

    def build(self, reducer: str, seed: int) -> Backbone:
        """A fresh model; the same seed gives the same weights whatever the reducer."""
        torch.manual_seed(seed)
        plain = vitrail.create(
            self.options.model, classes=len(self.pictures.classes), image=self.options.image
        )
        return plain if reducer == PLAIN else give_reducer(plain, self.each(plain, reducer))

    def each(self, plain: Backbone, reducer: str) -> tuple[str, ...]:
        """The reducer for each stage."""
        stages = len(plain.config.reducer)
        return (reducer,) * stages if self.options.whole else many(plain, reducer)

    def text(self, model: Backbone) -> str:
        """What a run says of its model."""
        name, changes = parse_call(self.options.model)
        return print_call(name, {**changes, "reducer": model.config.reducer})

    def train(self, model: Backbone, seed: int, at: Path, recipe: Recipe) -> None:
        """Train to the end, or go on; ``model`` leaves with the last weights."""
        parts = {
            "train": self.train_items(seed),
            "val": self.test_items[:: max(1, len(self.test_items) // 64)],
        }
        job = TrainingJob.create(
            self.text(model), self.pictures, parts, recipe, self.preprocess, model=model
        )
        fit_job(job, at, resume=True, progress=False)
        model.load_state_dict(load_weights(at / "last.safetensors"))

    def recipe(self, seed: int, **changes: Any) -> Recipe:
        """The recipe of plain and from scratch."""
        values = {"epochs": self.options.epochs, "batch": self.options.batch, "seed": seed}
        suited = Recipe.suggest(len(self.train_items(seed))).to_dict()
        own = json.loads(self.options.changes)
        return Recipe.from_dict({**suited, **values, **own, **changes})

    def correct_answers(self, model: Backbone) -> NDArray[np.bool_]:
        """Which of the asked pictures the model knows."""
        shown = ImageTensors(self.pictures, self.final_items, self.preprocess.transform(), seed=0)
        order = [list(part) for part in np.array_split(range(len(shown)), len(shown) // 50 + 1)]
        scores = evaluate(model, batches(shown, order=order, workers=0), len(self.pictures.classes))
        return np.array(scores.labels) == np.array(scores.predictions)


def main(options: Options) -> Path:
    """Train what is missing, ask all, time all, print and write the table."""
    table = Table(options)
    record = contract.Record("keep", asdict(options), options.out)
    known: dict[tuple[str, str], list[NDArray[np.bool_]]] = {}
    for seed in options.seeds:
        for way, reducer, right in answers(table, seed):
            known.setdefault((way, reducer), []).append(right)
            print(f"seed {seed}: {way:12} {reducer:22} {right.mean():6.1%}", flush=True)
    rates = speeds(table) if options.rounds else {}
    rows = list(rows_of(table, known, rates))
    record.add(rows)
    for row in rows:
        print(line(row))
    record.close()
    return record.path


def answers(table: Table, seed: int) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """What each model of one seed gets right, as soon as it is known."""
    options = table.options
    home = options.work / f"seed-{seed}"
    plain = table.build(PLAIN, seed)
    table.train(plain, seed, home / "plain", table.recipe(seed))
    yield "from scratch", PLAIN, table.correct_answers(plain)
    tuning = table.recipe(
        seed,
        epochs=options.tune,
        lr=2e-4,
        mixup=0.0,
        cutmix=0.0,
        ema=0.0,
        teacher=str(home / "plain"),
        distill=asdict(Distillation(kind="soft", alpha=0.5, tau=2.0)),
    )
    for number, reducer in enumerate((PLAIN, *options.reducers)):
        given = plain if reducer == PLAIN else give_reducer(plain, table.each(plain, reducer))
        if "as it is" in options.ways:
            yield "as it is", reducer, table.correct_answers(given)
        if "tuned" in options.ways:
            tuned = give_reducer(plain, given.config.reducer)
            table.train(tuned, seed, home / f"tuned-{number}", tuning)
            yield "tuned", reducer, table.correct_answers(tuned)
    for number, reducer in enumerate(options.reducers, 1):
        if "from scratch" in options.ways:
            fresh = table.build(reducer, seed)
            table.train(fresh, seed, home / f"scratch-{number}", table.recipe(seed))
            yield "from scratch", reducer, table.correct_answers(fresh)


def speeds(table: Table) -> dict[str, dict[str, Any]]:
    """Throughput of every reducer beside plain, in one run, at the study's size and batch 8."""
    options = table.options
    models = {name: table.build(name, 0).eval() for name in (PLAIN, *options.reducers)}
    setting = Settings(
        image=options.image,
        batch=8,
        threads=options.threads,
        rounds=options.rounds,
        warmup_s=1.0,
    )
    timings = time_interleaved(
        {name: forward(model, setting, batch=8) for name, model in models.items()}, setting
    )
    return {
        name: contract.row(
            name,
            own,
            {} if name == PLAIN else {PLAIN: ratio(own, timings[PLAIN])},
            images_per_s=own.rate(8),
            macs=count(models[name], options.image).macs,
        )
        for name, own in timings.items()
    }


def rows_of(
    table: Table,
    known: Mapping[tuple[str, str], Sequence[NDArray[np.bool_]]],
    rates: Mapping[str, Mapping[str, Any]],
) -> Iterator[dict[str, Any]]:
    """A row for every way and reducer: accuracy, and the difference to plain done alike."""
    untimed: Mapping[str, Any] = {
        "threads": table.options.threads,
        "memory_bytes": None,
        "against": [],
    }
    for (way, reducer), rights in known.items():
        own = np.stack(rights)
        plain = np.stack(known.get((way, PLAIN), known["from scratch", PLAIN]))
        yield {
            "arm": reducer,
            **rates.get(reducer, untimed),
            "way": way,
            "seeds": len(rights),
            "tested": own.shape[1],
            "accuracy": asdict(accuracy(own)),
            "to_plain": None if reducer == PLAIN else asdict(compare(own, plain)),
        }


def line(row: Mapping[str, Any]) -> str:
    """A row for people."""
    here, apart = row["accuracy"], row["to_plain"]
    cells = [
        f"{row['way']:12} {row['arm']:22}",
        f"{100 * here['value']:5.1f} % ({100 * here['low']:.1f} to {100 * here['high']:.1f})",
    ]
    if apart:
        cells.append(
            f"{100 * apart['value']:+5.1f} points ({100 * apart['low']:+.1f} to "
            f"{100 * apart['high']:+.1f})"
        )
    cells += [f"{other['ratio']:.2f} x plain" for other in row["against"]]
    return "  ".join(cells)


if __name__ == "__main__":
    command.run(main, Options, __doc__)
