"""Does the loader keep up? Pictures a second of the loader alone, beside what training consumes.

``python -m benchmarks.loader --data photos/``; the rules are in ``README.md`` beside this file.

files -> decode -> augment -> batches   |   noise -> forward, backward, AdamW
Both are timed in turns, never at once: a loader's workers would take cores from the model, and a
running model would give them time to work ahead. Each pass over the pictures starts its workers
anew, which the figure includes.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import vitrail
from benchmarks import command, contract
from vitrail import data
from vitrail.cost import Ratio, Settings, Timing, ratio, time_side_by_side
from vitrail.cost.step import TrainingStep

BARS = tuple(
    contract.Bar(arm=f"loader, {workers} workers", against="training", at_least=2.0)
    for workers in (0, 1, 2)
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to run.

    Attributes:
        data: a source of pictures; none means JPEG files of generated scenes.
        model: what consumes them.
        image: edge in pixels.
        batch: pictures a batch.
        count: pictures a pass of the loader (at most).
        workers: numbers of loader processes to try.
        cache: None, or "memory": decoded once, before timing.
        threads: torch threads of the training step.
        rounds: undisturbed windows wanted of each.
        warmup_s: least seconds of warm-up.
        out: folder for the result file.
    """

    data: str | None = None
    model: str = "coat_lite_tiny"
    image: int = 128
    batch: int = 32
    count: int = 1024
    workers: tuple[int, ...] = (0, 1, 2)
    cache: str | None = None
    threads: int = 2
    rounds: int = 6
    warmup_s: float = 2.0
    out: Path = contract.RESULTS


def main(options: Options) -> Path:
    """Time both, print and write the rows, and give the file's path."""
    with tempfile.TemporaryDirectory() as folder:
        source = options.data or photos(Path(folder), options.count, 2 * options.image)
        pictures = data.open_dataset(source)
        items = pictures.split("train")[: options.count]
        calls = {
            f"loader, {w} workers": reading(pictures, items, w, options) for w in options.workers
        }
        timings = time_side_by_side(
            {**calls, "training": training(options, len(pictures.classes))},
            rounds=options.rounds,
            warmup_s=options.warmup_s,
            threads=options.threads,
        )
    handled = dict.fromkeys(calls, len(items)) | {"training": options.batch}
    record = contract.Record("loader", asdict(options), options.out, BARS)
    record.add(rows(timings, handled, options))
    for found in record.rows:
        speed = "".join(f", {o['ratio']:.2f} x training" for o in found["against"])
        print(f"{found['arm']:18} {found['images_per_s']:8.1f} images/s{speed}")
    record.close()
    return record.path


def rows(
    timings: Mapping[str, Timing], handled: Mapping[str, int], options: Options
) -> list[dict[str, Any]]:
    """A row for each; the loader's against the model's, both per picture."""

    def versus(name: str) -> dict[str, Ratio]:
        if name == "training":
            return {}
        calls = ratio(timings[name], timings["training"])
        each = handled[name] / handled["training"]
        return {"training": per_picture(calls, each)}

    return [
        contract.row(
            name,
            timing,
            versus(name),
            model=options.model,
            image=options.image,
            batch=options.batch,
            graph="eager",
            precision="float32",
            images_per_s=timing.rate(handled[name]),
        )
        for name, timing in timings.items()
    ]


def per_picture(calls: Ratio, each: float) -> Ratio:
    """A ratio of calls as one of pictures, where our call handles ``each`` times as many."""
    return replace(calls, median=calls.median * each, low=calls.low * each, high=calls.high * each)


def reading(
    pictures: data.ImageDataset, items: tuple[data.Item, ...], workers: int, options: Options
) -> Callable[[], object]:
    """A call that reads and augments all items once, as training does."""
    transform = data.Augment().transform(data.Preprocess(image=options.image))
    chosen = data.ImageTensors(pictures, items, transform, seed=0, cache=options.cache)
    order = data.epoch_order(len(items), batch=options.batch, seed=0, epoch=0)

    def call() -> object:
        return sum(len(images) for images, *_ in data.batches(chosen, order=order, workers=workers))

    return call


def training(options: Options, classes: int) -> Callable[[], object]:
    """A call that does one training step on noise."""
    model = vitrail.create(options.model, classes=classes, image=options.image)
    return TrainingStep(model, Settings(image=options.image, batch=options.batch))


def photos(folder: Path, count: int, edge: int) -> str:
    """A folder of generated scenes as JPEG files of ``edge`` pixels, one subfolder a class."""
    scenes = data.open_dataset(f"scenes(size={edge}, count={count}, classes=4, seed=0)")
    for number, item in enumerate(scenes.split("train")[:count]):
        home = folder / scenes.classes[item.label]
        home.mkdir(exist_ok=True)
        scenes.read(item).save(home / f"{number}.jpg", quality=90)
    return str(folder)


if __name__ == "__main__":
    command.run(main, Options, __doc__)
