"""What each step of ``vitrail.export.optimize`` gives, timed against the original in one run.

``python -m benchmarks.optimized coat_lite_tiny mobilevit_s --image 224 --batch 1 --threads 2``
"""

from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import torch
from rich.console import Console
from tyro.conf import Positional

import vitrail
from benchmarks import command
from vitrail.cost import use_threads
from vitrail.export import optimize


@dataclass(frozen=True, kw_only=True)
class Options:
    """Every combination is a run of its own.

    Attributes:
        models: names, with options if wanted.
        images: edges in pixels.
        batches: pictures a call.
        threads: torch threads.
        precisions: of the optimised model.
        compiled: also compile, with frozen weights (half a minute to two a model).
    """

    models: Positional[tuple[str, ...]] = (
        "coat_lite_tiny",
        "mobilevit_s",
        "coatnet_0_rw",
        "cmt_ti",
    )
    images: tuple[int, ...] = (224,)
    batches: tuple[int, ...] = (1, 8)
    threads: int = 2
    precisions: tuple[Literal["float32", "bf16", "int8"], ...] = ("float32",)
    compiled: bool = False


def main(options: Options) -> None:
    """Optimise, time and print."""
    console = Console(width=120, highlight=False)
    settings = product(options.models, options.images, options.batches, options.precisions)
    for name, image, batch, precision in settings:
        torch.manual_seed(0)
        model = vitrail.create(name, classes=1000, image=image).eval()
        example = torch.randn(batch, 3, image, image)
        with use_threads(options.threads):
            auto: Any = "auto" if options.compiled else False
            made = optimize(model, example, precision, compile=auto, tolerance=1.0, measure=True)
        console.print(f"\n{name}, {image} px, batch {batch}, {options.threads} thread(s)")
        console.print(made.report.table())
        console.print(made.report.verdict())


if __name__ == "__main__":
    command.run(main, Options, __doc__)
