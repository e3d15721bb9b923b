"""``vitrail.measure``: what models cost here, named as everywhere."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch

from vitrail.arguments import check_arguments
from vitrail.console import status_bar
from vitrail.cost import CostReport, Settings, cost
from vitrail.cost.candidates import Precision
from vitrail.hub.resolve import model_text


@check_arguments
def measure(
    models: str | Path | Sequence[str | Path],
    image: int = 224,
    batch: int = 8,
    *,
    classes: int = 1000,
    in_chans: int = 3,
    precision: Precision = "float32",
    compiled: bool = False,
    device: str = "auto",
    threads: int | None = None,
    memory: bool = True,
    seconds: float | None = None,
    progress: bool = True,
) -> CostReport:
    """Measure parameters, multiply-adds, time and memory of models side by side::

        import vitrail

        report = vitrail.measure(["coat_lite_tiny", "timm:resnet18"], image=224, batch=8)
        print(report)                                    # a table
        print(report.rows[0].images_per_s, report.rows[0].count.macs)

    Models are timed by turns in one process, so that a noisy machine is noisy for all alike; each
    peak of memory is taken in a fresh process. Compare figures of one report only.

    Args:
        models: names as :func:`vitrail.create` takes them; of a run, its model is measured.
        image: size in pixels.
        batch: of throughput and memory; latency is of one image.
        classes: of the head.
        in_chans: channels of the input.
        precision: ``"bfloat16"`` or ``"float16"`` run under autocast.
        compiled: measure what ``torch.compile`` makes of the models.
        device: ``"cpu"``, ``"cuda"``, ...; ``"auto"`` is the GPU where there is one.
        threads: of torch, by default its own choice.
        memory: measure peak memory too; this takes longest.
        seconds: the most that timing takes.
        progress: show what is done, on stderr.

    Raises:
        UserError: no such model, or conditions that cannot be.
    """
    words = [models] if isinstance(models, str | Path) else list(models)
    gpu = "cuda" if torch.cuda.is_available() else "cpu"
    settings = Settings(
        image=image,
        batch=batch,
        in_chans=in_chans,
        classes=classes,
        threads=threads,
        precision=precision,
        graph="compiled" if compiled else "eager",
        device=gpu if device == "auto" else device,
        limit_s=seconds,
    )
    texts = list(dict.fromkeys(map(model_text, words)))
    shown = status_bar("measuring") if progress else nullcontext(None)
    with shown as step:
        return cost(texts, settings, with_memory=memory, on_step=step)
