"""A training step with the memory that it frees kept, against the C library's usual ways.

``python -m benchmarks.heap --help``; the rules are in ``README.md`` beside this file.

forward, loss, backward of one model: with ``keep_freed_memory``, and without -> one interleaved run
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

import vitrail
from benchmarks import command, contract
from vitrail.cost import ratio, time_side_by_side
from vitrail.train.heap import keep_freed_memory


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to run.

    Attributes:
        models: as ``vitrail train`` takes them.
        image: edge in pixels.
        batch: pictures a step.
        threads: torch threads.
        rounds: undisturbed windows wanted of each side.
        window_s: least seconds of a window.
        out: folder for the result file.
    """

    models: tuple[str, ...] = ("timm:tf_efficientnet_lite0", "coat_lite_tiny", "vit_tiny")
    image: int = 176
    batch: int = 32
    threads: int = 2
    rounds: int = 4
    window_s: float = 1.0
    out: Path = contract.RESULTS


def main(options: Options) -> Path:
    """Time every model, print and write its rows, and give the file's path."""
    record = contract.Record("heap", asdict(options), options.out)
    for name in options.models:
        model = vitrail.create(name, classes=10, image=options.image).train()
        images = torch.randn(options.batch, 3, options.image, options.image)
        sides = {"kept": steps(model, images, True), "usual": steps(model, images, False)}
        found = time_side_by_side(
            sides, rounds=options.rounds, window_s=options.window_s, threads=options.threads
        )
        gain = ratio(found["kept"], found["usual"])
        facts = {"model": name, "image": options.image, "batch": options.batch}
        record.add([contract.row("kept", found["kept"], {"usual": gain}, **facts)])
        record.add([contract.row("usual", found["usual"], {}, **facts)])
        print(f"{name}: {gain} times as fast with freed memory kept", flush=True)
    record.close()
    return record.path


def steps(model: torch.nn.Module, images: torch.Tensor, kept: bool) -> Callable[[], object]:
    """Ten steps, the first of which pays for memory that the other side gave back."""

    def call() -> None:
        with keep_freed_memory() if kept else nullcontext():
            for _ in range(10):
                model(images).logsumexp(1).mean().backward()
                model.zero_grad()

    return call


if __name__ == "__main__":
    command.run(main, Options, __doc__)
