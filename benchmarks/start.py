"""What a start from released weights gives on pictures of one's own, and what it costs.

``python -m benchmarks.start --data clothing.zip flowers.zip --weights-folder weights``

for every set and seed:  head          ``vitrail train SET --tune head``
                         fine-tuned    ``vitrail train SET``
                         from scratch  ``vitrail train SET --weights none --set seconds=...``
then every model answers the test part, or validation where there is none (said in the table; the
best epoch was chosen by it, so such a figure flatters). Every training is a command of its own,
whose processor time is taken from the system; one that is there is not trained again.
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

import vitrail
from benchmarks import command, contract
from vitrail.data import ImageTensors, batches, open_dataset, sequential_order
from vitrail.errors import UserError
from vitrail.files import write_text
from vitrail.study.stats import accuracy
from vitrail.tasks import evaluate

Way = Literal["head", "fine-tuned", "from scratch"]
PARTS = ("test", "val")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to train, on what.

    Attributes:
        data: sets of pictures.
        model: whose released weights are the start.
        weights_folder: where they lie.
        ways: what is trained.
        image: edge in pixels of the head's frozen features, by set; the weights' own without.
        scratch_seconds: by the clock, for each from scratch.
        seeds: one training of everything each.
        threads: of each training.
        work: where the runs are kept.
        out: folder for the result file.
    """

    data: tuple[Path, ...]
    weights_folder: Path
    model: str = "timm:tf_efficientnet_lite0"
    ways: tuple[Way, ...] = ("head", "fine-tuned", "from scratch")
    image: dict[str, int] | None = None
    scratch_seconds: int = 1200
    seeds: tuple[int, ...] = (0, 1, 2)
    threads: int = 1
    work: Path = Path("runs/start")
    out: Path = contract.RESULTS


@dataclass(frozen=True, kw_only=True)
class Training:
    """One command, its folder, and what it took."""

    data: Path
    way: Way
    seed: int
    options: Options

    @property
    def folder(self) -> Path:
        """The run."""
        name = f"{self.data.stem}-{self.way.replace(' ', '-')}-{self.seed}"
        return self.options.work.absolute() / name

    def arguments(self) -> list[str]:
        """The command."""
        options = self.options
        size = (options.image or {}).get(self.data.stem)
        more: dict[Way, list[str]] = {
            "head": ["--tune", "head", *(["--image", str(size)] if size else [])],
            "fine-tuned": [],
            "from scratch": ["--set", f"seconds={options.scratch_seconds}"],
        }
        start = ["--weights-folder", str(options.weights_folder.absolute())]
        start = ["--weights", "none"] if self.way == "from scratch" else start
        words = ["train", str(self.data.absolute()), "--model", options.model, *start]
        return [*words, *more[self.way], "--seed", str(self.seed), "--out", str(self.folder)]

    def processor_seconds(self) -> float:
        """What the training took, with its processes that read; run now if it was not yet.

        Raises:
            UserError: the command fails.
        """
        note = self.folder.with_name(f"{self.folder.name}.json")
        if not note.exists():
            env = os.environ | {"OMP_NUM_THREADS": str(self.options.threads)}
            line = [sys.executable, "-m", "vitrail", *self.arguments()]
            with self.folder.with_name(f"{self.folder.name}.log").open("w") as log:
                child = Popen(line, env=env, stdout=log, stderr=log)
                _, status, used = os.wait4(child.pid, 0)
                child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode:
                raise UserError(f"vitrail {' '.join(self.arguments())} failed; see {log.name}")
            took = {"user": used.ru_utime, "system": used.ru_stime, "arguments": self.arguments()}
            write_text(note, json.dumps(took))
        took = json.loads(note.read_text())
        return float(took["user"] + took["system"])

    def right_answers(self) -> tuple[str, NDArray[np.bool_]]:
        """The part that was asked, and which of its pictures the model knows."""
        run, dataset = vitrail.load(self.folder), open_dataset(str(self.data))
        part = next(part for part in PARTS if dataset.split(part))
        shown = ImageTensors(dataset, dataset.split(part), run.preprocess.transform(), 0)
        order = sequential_order(len(shown), batch=32)
        scores = evaluate(run.model, batches(shown, order=order), len(dataset.classes))
        return part, np.array(scores.labels) == np.array(scores.predictions)


def main(options: Options) -> Path:
    """Train what is missing, ask all, print and write the table."""
    for path in options.data:
        if not path.exists():
            raise UserError(f"no pictures at {str(path)!r}")
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    record = contract.Record("start", asdict(options), options.out)
    for row in rows(options):
        record.add([row])
        print(line(row), flush=True)
    record.close()
    return record.path


def rows(options: Options) -> Iterator[dict[str, Any]]:
    """A row for each set and way, over all seeds."""
    for data in options.data:
        for way in options.ways:
            some = [Training(data=data, way=way, seed=s, options=options) for s in options.seeds]
            yield row_of(some)


def row_of(trainings: Sequence[Training]) -> dict[str, Any]:
    """Accuracy with its interval, that of each seed, and the processor's seconds."""
    seconds = [training.processor_seconds() for training in trainings]
    answers = [training.right_answers() for training in trainings]
    right = np.stack([found for _, found in answers])
    first = trainings[0]
    return {
        "arm": first.way,
        "data": first.data.stem,
        "model": first.options.model,
        "threads": first.options.threads,
        "memory_bytes": None,
        "against": [],
        "part": answers[0][0],
        "tested": right.shape[1],
        "seeds": list(first.options.seeds),
        "accuracy": asdict(accuracy(right)),
        "of_seeds": right.mean(axis=1).tolist(),
        "processor_seconds": seconds,
    }


def line(row: dict[str, Any]) -> str:
    """A row for people."""
    here = row["accuracy"]
    seconds = ", ".join(f"{value:.0f}" for value in row["processor_seconds"])
    return (
        f"{row['data']:16} {row['arm']:14} {here['value']:6.1%} ({here['low']:.1%} to "
        f"{here['high']:.1%}) of {row['tested']} in {row['part']}; processor: {seconds} s"
    )


if __name__ == "__main__":
    command.run(main, Options, __doc__)
