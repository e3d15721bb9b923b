"""``vitrail.fit``: from images and a few words to a trained model; the rest is chosen.

words, completed from the run they start from -> images -> parts, recipe, size -> TrainingJob
"""

import re
import shlex
import statistics
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

import torch

from vitrail.console import collect_warnings, counting_bar
from vitrail.data import History, ImageDataset, Item, Preprocess, open_dataset, take_fraction
from vitrail.errors import UserError, unknown
from vitrail.files import (
    DatedFolder,
    Destination,
    is_occupied,
    refuse_non_utf8_name,
    refuse_occupied,
    resolve_path,
)
from vitrail.hub.baselines import TIMM
from vitrail.hub.locate import is_there, run_of, weights_of
from vitrail.hub.names import one_or_each, with_options
from vitrail.hub.resolve import find_model, read_fitting_card
from vitrail.limits import MOST, check_count, check_seed, check_share, refuse_large_batch
from vitrail.models.reader import choice
from vitrail.tasks.card import read_card
from vitrail.tasks.distill import HARD, SOFT
from vitrail.train.balance import check_weight_count
from vitrail.train.display import OnEvent
from vitrail.train.fit import absolute_source, fit_job, resume
from vitrail.train.folder import is_run, read_facts
from vitrail.train.job import TrainingJob
from vitrail.train.lineage import check_teacher_overlap, read_history
from vitrail.train.optim import check_name
from vitrail.train.recipe import Recipe
from vitrail.train.result import Result
from vitrail.yaml_text import merge

MODEL = "coat_lite_tiny"
"""What is trained where no model is named."""
RUNS = Path("runs")
PROBLEMS = 10
SAMPLED_IMAGES = 64
SMALLEST, LARGEST, LARGEST_WITHOUT_GPU = 64, 224, 128
KINDS = {"hard": HARD, "soft": SOFT}
NUMBERS = {"image": Integral, "seed": Integral, "fraction": Real, "val": Real}

Specs = str | Sequence[str] | None
"""One mixer or reducer for all stages, or one each."""


# fmt: off
def fit(
    data: str | Path | None = None, *,
    model: str | Path | None = None, mixer: Specs = None, reducer: Specs = None,
    image: int | None = None, epochs: int | None = None, fraction: float = 1.0, seed: int = 0,
    val: float = 0.2, copies: bool = False, strict: bool = False,
    weights: str | Path | None = None, start_from: str | Path | None = None,
    teacher: str | Path | None = None, distill: Literal["hard", "soft"] | None = None,
    alpha: float | None = None, temperature: float | None = None,
    recipe: Recipe | Mapping[str, Any] | str | Path | None = None,
    changes: Mapping[str, Any] | None = None,
    out: str | Path | None = None, resume_from: str | Path | None = None,
    progress: bool = True, on_event: OnEvent | None = None,
) -> Result:
    """Train a model on images, as ``vitrail train`` does::

        import vitrail

        result = vitrail.fit("photos", model="coat_lite_tiny", epochs=20)
        print(result.best["accuracy"], result.run)       # the run folder: runs/photos-DATE
        probabilities = result.predict([image])          # PIL images or a tensor -> (B, classes)

    Args:
        data: a folder of class folders, a table, a zip, torchvision:NAME, fashion or scenes.
        model: as :func:`vitrail.create` takes it; something saved is a run to start from.
        mixer, reducer: other ones than the paper's, one for all stages or one each.
        image: pixels that the model sees (by default from the images, 64 to 224).
        epochs: passes through the images (by default as the recipe says).
        fraction: share of the training images, the same in every class.
        seed: of the split, the fraction and the training.
        val: share kept for validation where the set has no split of its own.
        copies: count copies of a training image as often as they are there.
        strict: stop at broken images instead of leaving them out.
        weights: to start from, as :func:`vitrail.create` takes them.
        start_from: a trained run: its model (``reducer`` may differ), weights, size and images.
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
    given = dict(locals()) | {"data": str(data or ""), "out": None if out is None else Path(out)}
    if resume_from is not None:
        return resume(resume_from, changes=changes, progress=progress, on_event=on_event)
    words = {f.name: given[f.name] for f in fields(FitOptions) if given[f.name] is not None}
    job, goal, facts = prepare_job(FitOptions(**words))
    return fit_job(job, goal, progress=progress, on_event=on_event, facts=facts)
# fmt: on


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """What :func:`fit` was told."""

    data: str = ""
    model: str | Path | None = None
    mixer: Specs = None
    reducer: Specs = None
    image: int | None = None
    epochs: int | None = None
    fraction: float = 1.0
    seed: int = 0
    val: float = 0.2
    copies: bool = False
    weights: str | Path | None = None
    start_from: str | Path | None = None
    teacher: str | Path | None = None
    distill: str | None = None
    alpha: float | None = None
    temperature: float | None = None
    recipe: Recipe | Mapping[str, Any] | str | Path | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    out: Path | None = None
    strict: bool = False
    progress: bool = True


Prepared = tuple[TrainingJob, Destination, dict[str, Any]]
"""The training, its folder, and what ``run.json`` says of how it came about."""


def prepare_job(wanted: FitOptions) -> Prepared:
    """Put a training together; what is to be said of it waits until it begins.

    Raises:
        UserError: anything in it that cannot be.
    """
    kept: AbstractContextManager[list[str]]
    kept = collect_warnings() if wanted.progress else nullcontext([])
    with kept as notes:
        job, goal, facts = _prepare(wanted, notes)
    return replace(job, notes=tuple(notes)), goal, facts


def _prepare(wanted: FitOptions, notes: list[str]) -> Prepared:
    """:func:`prepare_job`, with what is to be said beside put into ``notes``."""
    wanted, start = complete_from_run(wanted)
    if not wanted.data:
        raise UserError("say what to train on: vitrail train photos/ (or fashion, to try it)")
    check_options(wanted)
    text = model_text(str(wanted.model or MODEL), wanted.mixer, wanted.reducer)
    goal = output_folder(wanted.out, wanted.data)
    how = {"strict": wanted.strict, "val": wanted.val, "seed": wanted.seed}
    how |= {"copies": True} if wanted.copies else {}
    how |= start.open
    dataset = open_with_problems(wanted, notes, history_of_weights(wanted, notes), how)
    parts = {"train": take_fraction(dataset.split("train"), wanted.fraction, wanted.seed)}
    parts |= {part: dataset.split(part) for part in ("val", "test") if dataset.split(part)}
    recipe = build_recipe(wanted, len(parts["train"]))
    check_weight_count(recipe.class_weights, len(dataset.classes))
    image = suggest_image_size(dataset, parts["train"]) if wanted.image is None else wanted.image
    preprocess = Preprocess.from_dict({**start.preprocess, "image": image})
    if recipe.teacher and (seen := check_teacher_overlap(recipe.teacher, dataset)):
        notes.append(seen.line)
    job = TrainingJob.create(text, dataset, parts, recipe, preprocess, facts=start.extra)
    return job, goal, {"fraction": wanted.fraction, "open": how, **start.extra}


@dataclass(frozen=True, kw_only=True)
class StartingPoint:
    """What a training takes over from a run, beside what can be said; nothing, without a run.

    ``open`` is how the run split its images: what it was validated on must not be trained on.
    """

    open: Mapping[str, Any] = field(default_factory=dict)
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


def complete_from_run(wanted: FitOptions) -> tuple[FitOptions, StartingPoint]:
    """The words, completed from the run that the training starts from.

    Raises:
        UserError: no such run, or a model or weights named beside it.
    """
    wanted = read_model_as_start(wanted)
    if wanted.start_from is None:
        return wanted, StartingPoint()
    if wanted.weights is not None or wanted.model is not None:
        raise UserError(
            "--from takes the run's own model and weights; leave out --model, --weights "
            "(start_from: model, weights)"
        )
    source = Path(wanted.start_from)
    path = weights_of(source)
    card = read_fitting_card(path, run_of(source))
    facts = read_facts(path.parent) if is_run(path.parent) else {}
    same = not wanted.data or absolute_source(wanted.data) == facts.get("data")
    completed = replace(
        wanted,
        model=card.model,
        weights=path,
        data=wanted.data or facts.get("data", ""),
        image=wanted.image or card.image,
    )
    return completed, StartingPoint(
        open=facts.get("open", {}) if same else {},
        preprocess=card.preprocess,
        extra={"from": {"run": str(resolve_path(source)), "model": card.model}},
    )


def read_model_as_start(wanted: FitOptions) -> FitOptions:
    """A model that is named by something saved is a run to start from.

    Raises:
        UserError: both are named.
    """
    named = find_model(wanted.model) if wanted.model is not None else None
    if named is None or named.weights is None:
        return wanted
    if wanted.start_from is not None:
        raise UserError(f"{str(wanted.model)!r} is a run; leave out one of model and start_from")
    source = wanted.model if is_there(Path(wanted.model or "")) else named.weights
    return replace(wanted, model=None, start_from=source)


def history_of_weights(wanted: FitOptions, notes: list[str]) -> History | None:
    """What the weights that a training starts from have seen, where they lie in a run.

    Raises:
        UserError: a manifest or a recipe that cannot be read.
    """
    word = wanted.changes.get("weights", wanted.weights)
    if word is None and wanted.recipe is not None:
        word = recipe_values(wanted.recipe).get("weights")
    if not isinstance(word, str | Path) or not is_there(choice(word)[0]):
        return None
    extra = read_card(Path(word)).extra if wanted.start_from is not None else {}
    history = read_history(wanted.start_from or choice(word)[0], extra)
    if history is None and wanted.start_from is not None:
        notes.append(
            f"{wanted.start_from} has no manifest: what it trained on may be among what is "
            "validated on"
        )
    return history


def check_options(wanted: FitOptions) -> None:
    """What can be seen to be wrong before any image is opened.

    Raises:
        UserError: a size, share, seed or kind of distillation that cannot be.
    """
    for name, kind in NUMBERS.items():
        value = getattr(wanted, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
            whole_or_not = "whole number" if kind is Integral else "number"
            raise UserError(f"{name} must be a {whole_or_not}, not {value!r}")
    check_share(wanted.fraction, "a data share")
    check_seed(wanted.seed)
    if wanted.image is not None:
        check_count(wanted.image, "the image size", most=MOST)
        refuse_large_batch(1, wanted.image)
    if wanted.distill is not None and wanted.distill not in KINDS:
        raise unknown("way to distil", wanted.distill, KINDS)
    check_name(build_recipe(wanted, 1).optimizer)


def open_with_problems(
    wanted: FitOptions, notes: list[str], history: History | None, how: Mapping[str, Any]
) -> ImageDataset:
    """Open the set, and note its first problems."""
    shown = counting_bar("looking at the pictures") if wanted.progress else nullcontext(None)
    with shown as progress:
        dataset = open_dataset(wanted.data, history=history, progress=progress, **how)
    notes += [problem.line for problem in dataset.problems[:PROBLEMS]]
    if len(dataset.problems) > PROBLEMS:
        more = len(dataset.problems) - PROBLEMS
        notes.append(f"… and {more} more: vitrail check {shlex.quote(str(wanted.data))}")
    return dataset


def model_text(text: str, mixer: Specs, reducer: Specs) -> str:
    """One text for model, mixer and reducer: ``coat_lite_tiny(mixer='softmax')``."""
    parts = {"mixer": one_or_each(mixer), "reducer": one_or_each(reducer)}
    return with_options(text, {name: value for name, value in parts.items() if value is not None})


def build_recipe(wanted: FitOptions, count: int) -> Recipe:
    """The recipe given, or what suits ``count`` images, with the single changes.

    Raises:
        UserError: no such file or key, or a value that cannot be.
    """
    changes = dict(wanted.changes)
    if wanted.epochs is not None:
        changes["epochs"] = wanted.epochs
    if wanted.weights is not None:
        changes["weights"] = absolute_weights(wanted.weights)
    taught = distillation_options(wanted)
    changes = merge(changes, taught)
    if wanted.recipe is not None:
        base = Recipe.from_dict(recipe_values(wanted.recipe))
    else:
        changes.setdefault("seed", wanted.seed)
        Recipe.from_dict(changes)  # a wrong key or value is said before anything is chosen by it
        batch = {"batch": changes["batch"]} if "batch" in changes else {}
        base = Recipe.suggest(count, **batch)
    recipe = Recipe.from_dict(merge(base.to_dict(), changes))
    if (taught or "distill" in changes) and recipe.teacher is None:
        raise UserError(
            "--distill, --alpha and --temperature say how a teacher is heard: give one with "
            "--teacher RUN or --teacher timm:NAME"
        )
    return recipe


def recipe_values(recipe: Recipe | Mapping[str, Any] | str | Path) -> dict[str, Any]:
    """The values of a recipe, however it is given.

    Raises:
        UserError: no such file, or one that is no recipe.
    """
    if isinstance(recipe, Recipe):
        return recipe.to_dict()
    return dict(recipe) if isinstance(recipe, Mapping) else Recipe.from_yaml(recipe).to_dict()


def absolute_weights(word: str | Path) -> str:
    """A path is kept whole, with the ``#raw`` behind it; any other word as it is."""
    path, _ = choice(word)
    return str(word).replace(str(path), absolute_source(str(path)), 1)


def distillation_options(wanted: FitOptions) -> dict[str, Any]:
    """The recipe's part on the teacher; DeiT's values where only the kind is given."""
    chosen = KINDS.get(wanted.distill or "")
    how = {} if chosen is None else {"kind": chosen.kind, "alpha": chosen.alpha, "tau": chosen.tau}
    given = {"alpha": wanted.alpha, "tau": wanted.temperature}
    how |= {key: value for key, value in given.items() if value is not None}
    options: dict[str, Any] = {"distill": how} if how else {}
    if wanted.teacher is not None:
        is_path = not str(wanted.teacher).startswith(TIMM)
        options["teacher"] = str(resolve_path(wanted.teacher)) if is_path else wanted.teacher
    return options


def suggest_image_size(dataset: ImageDataset, items: Sequence[Item]) -> int:
    """A size that suits the images: their usual short side in steps of 32, from 64 pixels up.

    At most 224, as released weights have it, and without a GPU at most 128, which trains three
    times faster.
    """
    step = max(1, len(items) // SAMPLED_IMAGES)
    usual = statistics.median(min(dataset.read(item).size) for item in items[::step])
    most = LARGEST if torch.cuda.is_available() else LARGEST_WITHOUT_GPU
    return int(min(most, max(SMALLEST, usual // 32 * 32)))


def output_folder(wanted: Path | None, data: str) -> Destination:
    """The folder for a new run: the one asked for if it is free, else runs/NAME-DATE.

    Raises:
        UserError: the folder asked for holds something.
    """
    if wanted is not None:
        refuse_non_utf8_name(wanted)
        if is_occupied(wanted):
            raise UserError(
                f"{str(wanted)!r} is not empty and nothing is overwritten; give another --out, "
                f"or go on with: vitrail train --resume {shlex.quote(str(wanted))}"
            )
        refuse_occupied(wanted)
        return wanted
    name = re.sub(r"[^\w.-]+", "-", Path(data).stem or data).strip("-.") or "run"
    return DatedFolder(RUNS, name)
