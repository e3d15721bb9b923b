"""Which precision and memory format a training runs faster in, on this machine.

model, recipe -> a few steps of each form in turn -> Form, written into ``run.json``

A run keeps the form it began with, so that going on with it gives the same bits.
"""

import copy
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.cost.host import has_bfloat16
from vitrail.errors import UserError
from vitrail.schema import convert
from vitrail.train.job import TrainingJob
from vitrail.train.recipe import AUTO, PRECISIONS, Recipe

LEAST_SECONDS = 60.0
"""A training that takes less than this is not worth the measuring."""
GAIN = 1.05
"""Times as fast another form must be, to be taken."""
TURNS = 2
IMAGES = 8
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
CASTS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a training computes.

    Attributes:
        precision: fp32, bf16 or fp16.
        memory_format: of weights with four axes: contiguous or channels_last.
        images_per_s: of each form that was tried, forward and backward; empty if none was.
    """

    precision: str = "fp32"
    memory_format: str = "contiguous"
    images_per_s: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if self.memory_format not in FORMATS or self.precision not in PRECISIONS[:-1]:
            raise UserError(
                f"no precision {self.precision!r} in memory format {self.memory_format!r}"
            )

    @property
    def line(self) -> str:
        """What is said when training begins; empty where nothing was measured."""
        if not self.images_per_s:
            return ""
        tried = ", ".join(f"{name} {rate:.3g}" for name, rate in self.images_per_s.items())
        chosen = f"{self.precision} {self.memory_format}".replace("_", "-")
        return f"computes in {chosen}, the fastest here (images/s of a step: {tried})"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def form_of(facts: Mapping[str, Any], recipe: Recipe, where: str) -> Form:
    """The form that a run was begun with; one of an older version says none.

    Raises:
        UserError: it is of another shape.
    """
    said = facts.get("form")
    if said is None:
        return Form(precision=without_auto(recipe))
    found: Form = convert(Form, said, f"{where}: form", extra_keys=True)
    return found


def without_auto(recipe: Recipe) -> str:
    """The precision that a recipe names; fp32 where it leaves the choice."""
    return "fp32" if recipe.precision == AUTO else recipe.precision


def choose_form(job: TrainingJob) -> Form:
    """The fastest form of a training that is about to begin.

    With several processes nothing is measured, since all must choose alike: bf16 where the GPU
    computes it, else fp32. Nor for a short training, which runs in fp32 as it is.
    """
    recipe = job.recipe
    plain = Form(precision=without_auto(recipe))
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        fits = recipe.precision == AUTO and device_type() == "cuda" and has_bfloat16("cuda")
        return replace(plain, precision="bf16") if fits else plain
    forms = [
        Form(precision=precision, memory_format=memory)
        for memory, precision in product(memory_formats(job), precisions(recipe))
    ]
    return plain if len(forms) == 1 else fastest(job, forms)


def memory_formats(job: TrainingJob) -> list[str]:
    """Those worth trying: a compiled model chooses its own, one without convolutions has none."""
    has_maps = any(weight.dim() == 4 for weight in job.model.parameters())
    return list(FORMATS) if has_maps and not job.recipe.compile else ["contiguous"]


def precisions(recipe: Recipe) -> list[str]:
    """Those worth trying: features for a head are computed once, and kept exact."""
    tries = recipe.precision == AUTO and has_bfloat16(device_type()) and not recipe.fits_head_only
    return ["fp32", "bf16"] if tries else [without_auto(recipe)]


def device_type() -> str:
    """Where training will run."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def fastest(job: TrainingJob, forms: list[Form]) -> Form:
    """Try ``forms`` by turns, the first being what is kept without a clear gain.

    The first step says how long the training is; a short one ends the trying. The model is not
    changed, and no random number of the training is used.
    """
    device = torch.device(device_type())
    count = min(IMAGES, job.recipe.batch // job.recipe.accumulate)
    side = job.card.image
    images = torch.zeros(max(2, count), job.card.in_chans, side, side, device=device)
    least = dict.fromkeys(range(len(forms)), float("inf"))
    with torch.random.fork_rng():
        model = copy.deepcopy(job.model).to(device)
        time_step(model, images, forms[0], job.recipe)
        for turn in range(TURNS + 1):
            for place, form in enumerate(forms):
                seconds = time_step(model, images, form, job.recipe)
                if turn == 0 and place == 0 and is_short(job, seconds / len(images)):
                    return forms[0]
                least[place] = min(least[place], seconds if turn else float("inf"))
    best = min(least, key=least.__getitem__)
    chosen = forms[best if least[0] > GAIN * least[best] else 0]
    rates = {
        f"{form.precision} {form.memory_format}".replace("_", "-"): round(len(images) / s, 2)
        for form, s in zip(forms, least.values(), strict=True)
    }
    return replace(chosen, images_per_s=rates)


def is_short(job: TrainingJob, seconds_per_image: float) -> bool:
    """Whether the training ends before measuring pays."""
    if job.recipe.seconds is not None:
        return job.recipe.seconds < LEAST_SECONDS
    passes = max(1, job.recipe.epochs)
    return passes * len(job.parts["train"]) * seconds_per_image < LEAST_SECONDS


def time_step(model: nn.Module, images: Tensor, form: Form, recipe: Recipe) -> float:
    """Seconds of one forward and backward pass; forward alone where only the head is fitted."""
    model.to(memory_format=FORMATS[form.memory_format])
    images = images.contiguous(memory_format=FORMATS[form.memory_format])
    cast = CASTS[form.precision]
    model.train(not recipe.fits_head_only)
    synchronize(images)
    started = time.perf_counter()
    with (
        torch.set_grad_enabled(not recipe.fits_head_only),
        torch.autocast(images.device.type, cast, enabled=cast is not None),
    ):
        logits = model(images)
    if not recipe.fits_head_only:
        logits = logits[0] if isinstance(logits, tuple) else logits
        logits.float().logsumexp(1).mean().backward()
        model.zero_grad()
    synchronize(images)
    return time.perf_counter() - started


def synchronize(images: Tensor) -> None:
    """Wait for the GPU, where there is one."""
    if images.device.type == "cuda":
        torch.cuda.synchronize(images.device)


def apply_form(job: TrainingJob, form: Form) -> TrainingJob:
    """The job with its model in the form's memory format, and its precision in place of auto."""
    job.model.to(memory_format=FORMATS[form.memory_format])
    if job.recipe.precision != AUTO:
        return job
    return replace(job, recipe=replace(job.recipe, precision=form.precision))
