"""``vitrail.fit``: from images and a few options to a trained model.

options [+ the run to start from] -> ImageDataset -> parts, recipe, image size -> TrainingJob
"""

import re
import statistics
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from vitrail.arguments import check_arguments
from vitrail.console import collect_warnings, counting_bar
from vitrail.data import History, ImageDataset, Item, open_dataset, take_fraction
from vitrail.errors import UserError, shell_path
from vitrail.files import (
    DatedFolder,
    Destination,
    refuse_non_utf8_name,
    resolve_path,
)
from vitrail.hub.locate import is_there, run_of, weights_of
from vitrail.hub.names import one_or_each, with_options
from vitrail.hub.resolve import find_model, read_fitting_card
from vitrail.hub.weights import find_weights
from vitrail.models.reader import choice
from vitrail.tasks.card import read_card
from vitrail.train.balance import check_weight_count
from vitrail.train.display import OnEvent
from vitrail.train.facts import absolute_source
from vitrail.train.features import has_linear_head
from vitrail.train.fit import fit_job, resume
from vitrail.train.folder import is_run, read_facts, refuse_existing
from vitrail.train.job import TrainingJob
from vitrail.train.lineage import check_teacher_overlap, read_history
from vitrail.train.options import (
    FitOptions,
    Specs,
    build_recipe,
    check_options,
    check_resume_alone,
    recipe_values,
    weights_word,
)
from vitrail.train.recipe import Recipe
from vitrail.train.result import Result
from vitrail.train.start import follow_weights
from vitrail.train.tune import has_new_head

MODEL = "coat_lite_tiny"
"""What is trained where no model is named."""
RUNS = Path("runs")
PROBLEMS = 10
SAMPLED_IMAGES = 64
SMALLEST, LARGEST, LARGEST_WITHOUT_GPU = 64, 224, 128


@check_arguments
def fit(
    data: str | Path | None = None, *,
    model: str | Path | None = None, mixer: Specs = None, reducer: Specs = None,
    image: int | None = None, epochs: int | None = None, fraction: float = 1.0, seed: int = 0,
    val: float = 0.2, copies: bool = False, strict: bool = False, tune: str | None = None,
    weights: str | Path | None = None, weights_folder: str | Path | None = None,
    start_from: str | Path | None = None, teacher: str | Path | None = None,
    distill: Literal["hard", "soft"] | None = None, alpha: float | None = None,
    temperature: float | None = None, changes: Mapping[str, Any] | None = None,
    recipe: Recipe | Mapping[str, Any] | str | Path | None = None,
    out: str | Path | None = None, resume_from: str | Path | None = None,
    progress: bool = True, on_event: OnEvent | None = None,
) -> Result:  # fmt: skip
    """Train a model on images, as ``vitrail train`` does::

        import vitrail

        result = vitrail.fit("photos", model="coat_lite_tiny", epochs=20)
        print(result.best["accuracy"], result.run)       # the run folder: runs/photos-DATE
        probabilities = result.predict([image])          # PIL images or a tensor -> (B, classes)

    Args:
        data: a folder of class folders, a table, a zip, torchvision:NAME, fashion or scenes.
        model: as :func:`vitrail.create` takes it; something saved is a run to start from.
        mixer, reducer: other ones than the paper's, one for all stages or one each.
        image: pixels that the model sees (by default its weights', else from the images).
        epochs, fraction: passes through the images; the share of them, the same in every class.
        seed: of the split, the fraction and the training.
        val: share kept for validation where the set has no split of its own.
        copies, strict: count copies of training images, stop at broken ones (else left out).
        weights: to start from, as :func:`vitrail.create` takes them (by default ``"auto"``, but
            ``"none"`` for fashion and scenes); ``weights_folder`` as there.
        start_from: a trained run: its model (``reducer`` may differ), weights, size and images.
        tune: what is trained: ``all`` (default), ``head``, or ``last:N`` layers and the head.
        teacher: a run, or ``"timm:NAME"`` with its released weights, to learn from too.
        distill: learn the teacher's best class, or all its probabilities.
        alpha, temperature: what the teacher weighs beside the label, and how soft it is.
        recipe: a YAML file, its values or a ``vitrail.train.Recipe`` (by default what suits).
        changes: single values of the recipe, ``{"lr": 1e-3, "augment": {"flip": 0}}``.
        out: the run folder to make (by default ``runs/NAME-DATE``; nothing is overwritten).
        resume_from: a run that was stopped, to go on with; only ``changes`` may stand beside it.
        progress: show what is done, on stderr.
        on_event: called with every event of the training, a dictionary with its ``kind``.

    Raises:
        UserError: anything that cannot be, in one line that says what to do.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP; the run can go on.
    """
    options = FitOptions(
        data=str(data or ""), model=model, mixer=mixer or None, reducer=reducer or None, tune=tune,
        image=image, epochs=epochs, fraction=fraction, seed=seed, val=val, copies=copies,
        strict=strict, weights=weights, weights_folder=weights_folder, start_from=start_from,
        teacher=teacher, distill=distill, alpha=alpha, temperature=temperature, recipe=recipe,
        changes=changes or {}, out=None if out is None else Path(out), progress=progress,
    )  # fmt: skip
    if resume_from is not None:
        check_resume_alone(options)
        return resume(resume_from, changes=changes, progress=progress, on_event=on_event)
    job, out_folder, facts = prepare_job(options)
    return fit_job(job, out_folder, progress=progress, on_event=on_event, facts=facts)


Prepared = tuple[TrainingJob, Destination, dict[str, Any]]
"""The training, its folder, and facts for ``run.json``."""


def prepare_job(options: FitOptions) -> Prepared:
    """Put a training together. Warnings are kept as notes, to be shown when training begins.

    Raises:
        UserError: an option with a value that cannot be.
    """
    kept: AbstractContextManager[list[str]]
    kept = collect_warnings() if options.progress else nullcontext([])
    with kept as notes:
        job, goal, facts = _prepare(options, notes)
    return replace(job, notes=(*notes, *job.notes)), goal, facts


def _prepare(options: FitOptions, notes: list[str]) -> Prepared:
    """:func:`prepare_job`; adds lines for people to ``notes``."""
    options, start = complete_from_run(options)
    if not options.data:
        raise UserError("say what to train on: vitrail train photos/ (or fashion, to try it)")
    check_options(options)
    text = model_text(str(options.model or MODEL), options.mixer, options.reducer)
    goal = output_folder(options.out, options.data)
    how_opened = {"strict": options.strict, "val": options.val, "seed": options.seed}
    how_opened |= {"copies": True} if options.copies else {}
    how_opened |= start.open
    dataset = open_with_problems(options, notes, history_of_weights(options, notes), how_opened)
    parts = {"train": take_fraction(dataset.split("train"), options.fraction, options.seed)}
    parts |= {part: dataset.split(part) for part in ("val", "test") if dataset.split(part)}
    weights = find_weights(weights_word(options), text, options.weights_folder)
    recipe = build_recipe(options, len(parts["train"]), released=weights is not None)
    if weights is None and recipe.tune != "all":
        notes.append(
            f"tune is {recipe.tune} and the layers that stay as they are are random; --weights "
            "names what to start from"
        )
    check_weight_count(recipe.class_weights, len(dataset.classes))
    image = options.image or (weights and weights.image)
    image = image or suggest_image_size(dataset, parts["train"])
    preprocess = follow_weights(weights, start.preprocess, image)
    if recipe.teacher and (seen := check_teacher_overlap(recipe.teacher, dataset)):
        notes.append(seen.line)
    job = TrainingJob.create(
        text, dataset, parts, recipe, preprocess, weights=weights, facts=start.extra
    )
    if options.recipe is None:
        job = fit_recipe_to_head(job, options.changes)
    return job, goal, {"fraction": options.fraction, "open": how_opened, **start.extra}


def fit_recipe_to_head(job: TrainingJob, said: Mapping[str, Any]) -> TrainingJob:
    """The job, its head fitted first only where that is new and one linear layer, or ``said`` so.

    A head that came with the weights is kept, and so is how its norms were trained.
    """
    recipe = job.recipe
    if "head_first" in said or not recipe.head_first:
        return job
    if has_new_head(job.model) and has_linear_head(job.model):
        return job
    changes: dict[str, Any] = {"head_first": False}
    if recipe.fits_head_only:
        count = len(job.parts["train"])
        changes["epochs"] = Recipe.suggest(
            count, released=True, tune=recipe.tune, head_first=False, batch=recipe.batch
        ).epochs
    if not has_new_head(job.model):
        changes |= {"freeze_norms": said.get("freeze_norms", False)}
    return replace(job, recipe=replace(recipe, **changes))


@dataclass(frozen=True, kw_only=True)
class StartingPoint:
    """What a training takes over from the run it starts from; empty without a run.

    ``open`` are the options by which the run split its images: what it was validated on must not be
    trained on.
    """

    open: Mapping[str, Any] = field(default_factory=dict)
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


def complete_from_run(options: FitOptions) -> tuple[FitOptions, StartingPoint]:
    """The options, completed from the run that the training starts from.

    Raises:
        UserError: no such run, or a model or weights named beside it.
    """
    options = read_model_as_start(options)
    if options.start_from is None:
        return options, StartingPoint()
    if options.weights is not None or options.model is not None:
        raise UserError(
            "--from takes the run's own model and weights; leave out --model, --weights "
            "(start_from: model, weights)"
        )
    source = Path(options.start_from)
    path = weights_of(source)
    card = read_fitting_card(path, run_of(source))
    facts = read_facts(path.parent) if is_run(path.parent) else {}
    same = not options.data or absolute_source(options.data) == facts.get("data")
    completed = replace(
        options,
        model=card.model,
        weights=path,
        data=options.data or facts.get("data", ""),
        image=options.image or card.image,
    )
    return completed, StartingPoint(
        open=facts.get("open", {}) if same else {},
        preprocess=card.preprocess,
        extra={"from": {"run": str(resolve_path(source)), "model": card.model}},
    )


def read_model_as_start(options: FitOptions) -> FitOptions:
    """Take a model that names something saved as the run to start from.

    Raises:
        UserError: both are named.
    """
    named = find_model(options.model) if options.model is not None else None
    if named is None or named.weights is None:
        return options
    if options.start_from is not None:
        raise UserError(f"{str(options.model)!r} is a run; leave out one of model and start_from")
    source = options.model if is_there(Path(options.model or "")) else named.weights
    return replace(options, model=None, start_from=source)


def history_of_weights(options: FitOptions, notes: list[str]) -> History | None:
    """What the first weights were trained and validated on, where they lie in a run.

    Raises:
        UserError: a manifest or a recipe that cannot be read.
    """
    word = options.changes.get("weights", options.weights)
    if word is None and options.recipe is not None:
        word = recipe_values(options.recipe).get("weights")
    if not isinstance(word, str | Path) or not is_there(choice(word)[0]):
        return None
    extra = read_card(Path(word)).extra if options.start_from is not None else {}
    history = read_history(options.start_from or choice(word)[0], extra)
    if history is None and options.start_from is not None:
        notes.append(
            f"{options.start_from} has no manifest: what it trained on may be among what is "
            "validated on"
        )
    return history


def open_with_problems(
    options: FitOptions, notes: list[str], history: History | None, how_opened: Mapping[str, Any]
) -> ImageDataset:
    """Open the dataset, and add its first problems to ``notes``."""
    shown = counting_bar("looking at the pictures") if options.progress else nullcontext(None)
    with shown as progress:
        dataset = open_dataset(options.data, history=history, progress=progress, **how_opened)
    notes += [problem.line for problem in dataset.problems[:PROBLEMS]]
    if len(dataset.problems) > PROBLEMS:
        more = len(dataset.problems) - PROBLEMS
        notes.append(f"… and {more} more: vitrail check {shell_path(options.data)}")
    return dataset


def model_text(text: str, mixer: Specs, reducer: Specs) -> str:
    """One text for model, mixer and reducer: ``coat_lite_tiny(mixer='softmax')``."""
    parts = {"mixer": one_or_each(mixer), "reducer": one_or_each(reducer)}
    return with_options(text, {name: value for name, value in parts.items() if value is not None})


def suggest_image_size(dataset: ImageDataset, items: Sequence[Item]) -> int:
    """An image size for these images: their median short side in steps of 32, at least 64.

    At most 224, the usual size of released weights; without a GPU at most 128, which trains three
    times faster.
    """
    step = max(1, len(items) // SAMPLED_IMAGES)
    median = statistics.median(min(dataset.read(item).size) for item in items[::step])
    most = LARGEST if torch.cuda.is_available() else LARGEST_WITHOUT_GPU
    return int(min(most, max(SMALLEST, median // 32 * 32)))


def output_folder(wanted: Path | None, data: str) -> Destination:
    """The folder for a new run: the one asked for if it is free, else runs/NAME-DATE.

    Raises:
        UserError: the folder asked for holds something.
    """
    if wanted is not None:
        refuse_non_utf8_name(wanted)
        refuse_existing(wanted)
        return wanted
    name = re.sub(r"[^\w.-]+", "-", Path(data).stem or data).strip("-.") or "run"
    return DatedFolder(RUNS, name)
