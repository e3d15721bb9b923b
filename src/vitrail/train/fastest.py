"""Which precision and memory format a training runs faster in, on this machine.

model, recipe -> a few steps of each form in turn -> Form, written into ``run.json``

A run keeps the form it began with, so that going on with it gives the same bits.
"""

import copy
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.cost import time_side_by_side
from vitrail.cost.host import has_bfloat16
from vitrail.data import Preprocess
from vitrail.errors import UserError
from vitrail.schema import convert
from vitrail.train.job import TrainingJob
from vitrail.train.recipe import AUTO, PRECISIONS, Recipe

LEAST_SECONDS = 60.0
"""A training that takes less than this is not worth the measuring."""
GAIN = 1.05
"""Times as fast another form must be, to be taken."""
ROUNDS = 6
SHARE = 0.03
"""Of the training's time, for measuring: after two rounds no other begins beyond it."""
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
    def name(self) -> str:
        """For people."""
        return f"{self.precision} {self.memory_format}".replace("_", "-")

    @property
    def line(self) -> str:
        """What is said when training begins; empty where nothing was measured."""
        if not self.images_per_s:
            return ""
        tried = ", ".join(f"{name} {rate:.3g}" for name, rate in self.images_per_s.items())
        return f"computes in {self.name}, the fastest here (images/s of a step: {tried})"

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
    formats = ["contiguous"] if recipe.compile else memory_formats(job.model)  # its own choice
    forms = [
        Form(precision=precision, memory_format=memory)
        for memory, precision in product(formats, precisions(recipe))
    ]
    return plain if len(forms) == 1 else fastest(job, forms)


def memory_formats(model: nn.Module) -> list[str]:
    """Those worth trying: a model without weights of four axes has no choice."""
    has_maps = any(weight.dim() == 4 for weight in model.parameters())
    return list(FORMATS) if has_maps else ["contiguous"]


def precisions(recipe: Recipe) -> list[str]:
    """Those worth trying: features for a head are computed once, and kept exact."""
    tries = recipe.precision == AUTO and has_bfloat16(device_type()) and not recipe.fits_head_only
    return ["fp32", "bf16"] if tries else [without_auto(recipe)]


def device_type() -> str:
    """Where training will run."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def fastest(job: TrainingJob, forms: list[Form]) -> Form:
    """Try ``forms`` by turns, the first being what is kept without a clear gain.

    One step says how long the training is; a short one is not worth more. The model is not
    changed, and no random number of the training is used.
    """
    recipe, side = job.recipe, job.card.image
    count = max(2, min(IMAGES, recipe.batch // recipe.accumulate))
    images = torch.zeros(count, job.card.in_chans, side, side, device=device_type())
    with torch.random.fork_rng():
        model = copy.deepcopy(job.model).to(images.device)
        backward = not recipe.fits_head_only
        (once,) = seconds_of(forms[:1], model, images, backward=backward, limit_s=0.0)
        whole = training_seconds(job, once / count)
        if whole < LEAST_SECONDS:
            return forms[0]
        seconds = seconds_of(forms, model, images, backward=backward, limit_s=SHARE * whole)
    best = min(range(len(forms)), key=seconds.__getitem__)
    chosen = forms[best if seconds[0] > GAIN * seconds[best] else 0]
    rates = {form.name: round(count / s, 2) for form, s in zip(forms, seconds, strict=True)}
    return replace(chosen, images_per_s=rates)


def training_seconds(job: TrainingJob, seconds_per_image: float) -> float:
    """About how long the training takes."""
    if job.recipe.seconds is not None:
        return job.recipe.seconds
    return max(1, job.recipe.epochs) * len(job.parts["train"]) * seconds_per_image


def seconds_of(
    forms: list[Form], model: nn.Module, images: Tensor, *, backward: bool, limit_s: float
) -> list[float]:
    """Seconds that a pass over ``images`` ``(B, C, H, W)`` takes in each form, tried by turns.

    The best of :data:`ROUNDS`, or of the two at least that ``limit_s`` seconds leave time for.
    """
    model.train(backward)
    calls = {form.name: partial(step, model, images, form, backward=backward) for form in forms}
    timed = time_side_by_side(calls, rounds=ROUNDS, window_s=0.0, warmup_s=0.0, limit_s=limit_s)
    return [timed[form.name].best for form in forms]


def step(model: nn.Module, images: Tensor, form: Form, *, backward: bool) -> None:
    """One forward pass in a form, and one backward if asked."""
    cast, memory_format = CASTS[form.precision], FORMATS[form.memory_format]
    model.to(memory_format=memory_format)
    with (
        torch.set_grad_enabled(backward),
        torch.autocast(images.device.type, cast, enabled=cast is not None),
    ):
        logits = model(images.contiguous(memory_format=memory_format))
    if backward:
        logits = logits[0] if isinstance(logits, tuple) else logits
        logits.float().logsumexp(1).mean().backward()
        model.zero_grad()


def faster_format(model: nn.Module, preprocess: Preprocess) -> nn.Module:
    """The model in the memory format that computes features faster here."""
    forms = [Form(memory_format=name) for name in memory_formats(model)]
    if len(forms) == 1:
        return model
    side, device = preprocess.image, next(model.parameters()).device
    images = torch.zeros(IMAGES, preprocess.in_chans, side, side, device=device)
    seconds = seconds_of(forms, model, images, backward=False, limit_s=0.0)
    best = forms[min(range(len(forms)), key=seconds.__getitem__)]
    return model.to(memory_format=FORMATS[best.memory_format])


def apply_form(job: TrainingJob, form: Form, *, said: bool = True) -> TrainingJob:
    """The job with its model in the form's memory format, and its precision in place of auto.

    A note says what was measured, unless it was said before (``said=False``).
    """
    job.model.to(memory_format=FORMATS[form.memory_format])
    if said and form.line:
        job = replace(job, notes=(*job.notes, form.line))
    if job.recipe.precision != AUTO:
        return job
    return replace(job, recipe=replace(job.recipe, precision=form.precision))
