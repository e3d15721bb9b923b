"""From what was typed to everything that one training needs, or that a stopped one needs again."""

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrail.cli.command import kept_warnings, say
from vitrail.cli.options import TrainOptions
from vitrail.cli.progress import gauge
from vitrail.cli.settings import changes_of, merged
from vitrail.data import Preprocess, fraction, open_pictures
from vitrail.errors import UserError
from vitrail.files import Dated, Goal, refuse_bytes, refuse_taken, resolved, taken
from vitrail.hub.baselines import TIMM
from vitrail.hub.locate import run_of, weights_of
from vitrail.hub.plugged import extra, recall
from vitrail.hub.resolve import create_from_card, read_fitting_card
from vitrail.hub.sizes import check_fits
from vitrail.hub.teachers import open_teacher
from vitrail.limits import MOST, check_count, check_seed, check_share, refuse_large_batch
from vitrail.specs import parse_call, print_call
from vitrail.tasks.card import Card, read_card
from vitrail.tasks.distill import HARD, SOFT
from vitrail.tensors import read_header
from vitrail.train import Recipe, Result, fit, read_run, resume
from vitrail.train.balance import refuse_other_count
from vitrail.train.fit import absolute
from vitrail.train.folder import check_checkpoint, is_run, read_facts
from vitrail.train.job import check_fit
from vitrail.train.lineage import history_of, seen_by_teacher
from vitrail.train.optim import check_name

if TYPE_CHECKING:
    from torch import nn

    from vitrail.data import History, Item, Pictures
    from vitrail.tasks.teacher import Teacher

RUNS = Path("runs")
PROBLEMS = 10
LOOKED_AT = 64
SMALLEST, LARGEST, LARGEST_WITHOUT_GPU = 64, 224, 128


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that one training needs."""

    model: "nn.Module"
    pictures: "Pictures"
    parts: "Mapping[str, Sequence[Item]]"
    recipe: Recipe
    card: Card
    out: Goal
    facts: Mapping[str, Any]
    teacher: "Teacher | None" = None
    notes: Sequence[str] = ()
    """Lines about what was found on the way: said when training begins, not beside an error."""

    def fit(self) -> Result:
        """Train."""

        def tell(event: dict[str, Any]) -> None:
            for line in self.notes if event["kind"] == "folder" else ():
                say(line)

        return fit(
            self.model,
            self.pictures,
            self.recipe,
            self.out,
            card=self.card,
            parts=self.parts,
            facts=self.facts,
            teacher=self.teacher,
            on_event=tell,
        )


def prepare(wanted: TrainOptions) -> Job:
    """A new training, from what was typed.

    Raises:
        UserError: anything in it that cannot be.
    """
    with kept_warnings() as notes:
        job = _prepare(wanted, notes)
    return replace(job, notes=tuple(notes))


def _prepare(wanted: TrainOptions, notes: list[str]) -> Job:
    """:func:`prepare`, with what is to be said beside put into ``notes``.

    Raises:
        UserError: anything in it that cannot be.
    """
    wanted, start = started(wanted)
    if not wanted.data:
        raise UserError("say what to train on: vitrail train photos/ (or fashion, to try it)")
    check_typed(wanted)
    arm = arm_text(wanted.model, wanted.mixer, wanted.reducer)
    out = free_folder(wanted.out, wanted.data)
    how = {"strict": wanted.strict, "val": wanted.val, "seed": wanted.seed}
    how |= {"copies": True} if wanted.copies else {}
    how |= start.open
    pictures = opened(wanted.data, notes, history=history_behind(wanted, notes), **how)
    parts = {"train": fraction(pictures.split("train"), wanted.fraction, wanted.seed)}
    parts |= {part: pictures.split(part) for part in ("val", "test") if pictures.split(part)}
    recipe = recipe_of(wanted, len(parts["train"]))
    refuse_other_count(recipe.class_weights, len(pictures.classes))
    image = wanted.image
    if image is None:
        image = suited_image(pictures, parts["train"])
    preprocess = Preprocess.from_dict({**start.preprocess, "image": image})
    card = Card(
        model=arm,
        classes=pictures.classes,
        image=image,
        in_chans=preprocess.in_chans,
        preprocess=preprocess.to_dict(),
        extra={**extra(arm), **start.extra},
    )
    if recipe.teacher and (seen := seen_by_teacher(recipe.teacher, pictures)):
        notes.append(seen.line)
    return Job(
        model=model_of(card, recipe),
        pictures=pictures,
        parts=parts,
        recipe=recipe,
        card=card,
        out=out,
        facts={"fraction": wanted.fraction, "open": how, **start.extra},
        teacher=open_teacher(recipe.teacher, card) if recipe.teacher else None,
    )


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a training takes over from a run, beside what can be typed; nothing, without a run.

    ``open`` is how the run split its pictures: what it was validated on must not be trained on.
    """

    open: Mapping[str, Any] = field(default_factory=dict)
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


def started(wanted: TrainOptions) -> "tuple[TrainOptions, Start]":
    """What was typed, completed from the run of ``--from``.

    Raises:
        UserError: no such run, or a model or weights typed beside it.
    """
    if wanted.from_ is None:
        return wanted, Start()
    if wanted.weights is not None or wanted.model != type(wanted).model:
        raise UserError(
            "--from takes the run's own model and weights; leave out --model, --weights"
        )
    path = weights_of(wanted.from_)
    card = read_fitting_card(path, run_of(wanted.from_))
    facts = read_facts(path.parent) if is_run(path.parent) else {}
    same = not wanted.data or absolute(wanted.data) == facts.get("data")
    completed = replace(
        wanted,
        model=card.model,
        weights=path,
        data=wanted.data or facts.get("data", ""),
        image=wanted.image or card.image,
    )
    return completed, Start(
        open=facts.get("open", {}) if same else {},
        preprocess=card.preprocess,
        extra={"from": {"run": str(resolved(wanted.from_)), "model": card.model}},
    )


def history_behind(wanted: TrainOptions, notes: list[str]) -> "History | None":
    """What the weights that a training starts from have seen, where they lie in a run.

    Raises:
        UserError: a manifest or a recipe that cannot be read.
    """
    word = changes_of(wanted.set).get("weights", wanted.weights)
    if word is None and wanted.recipe is not None:
        word = Recipe.from_yaml(wanted.recipe).weights
    if not isinstance(word, str | Path) or not Path(word).exists():
        return None
    extra = read_card(Path(word)).extra if wanted.from_ is not None else {}
    history = history_of(wanted.from_ or word, extra)
    if history is None and wanted.from_ is not None:
        notes.append(
            f"{wanted.from_} has no manifest: what it trained on may be among what is validated on"
        )
    return history


def check_typed(wanted: TrainOptions) -> None:
    """What can be seen to be wrong before any picture is opened.

    Raises:
        UserError: a size, share or seed that cannot be.
    """
    check_share(wanted.fraction, "a data share")
    check_seed(wanted.seed)
    if wanted.image is not None:
        check_count(wanted.image, "the image size", most=MOST)
        refuse_large_batch(1, wanted.image)
    check_name(recipe_of(wanted, 1).optimizer)


def opened(source: str, notes: list[str], **options: Any) -> "Pictures":
    """Open a set, and note its first problems."""
    with gauge("looking at the pictures") as seen:
        pictures = open_pictures(source, progress=seen, **options)
    for problem in pictures.problems[:PROBLEMS]:
        notes.append(problem.line)
    if len(pictures.problems) > PROBLEMS:
        notes.append(f"… and {len(pictures.problems) - PROBLEMS} more: vitrail check {source}")
    return pictures


def model_of(card: Card, recipe: Recipe) -> "nn.Module":
    """The model of a card; what is random in its first weights follows from the recipe's seed.

    Raises:
        UserError: no such model, one too large for this machine, or for other pictures.
    """
    import torch

    refuse_large_batch(recipe.batch // recipe.accumulate, card.image, card.in_chans)

    torch.manual_seed(recipe.seed)
    size = {"classes": len(card.classes), "image": card.image, "in_chans": card.in_chans}
    model = create_from_card(card, drop_path=recipe.drop_path, weights=recipe.weights)
    check_fit(model, card.model, **size)
    return model


def arm_text(model: str, mixer: Sequence[str], reducer: Sequence[str]) -> str:
    """One text for model, mixer and reducer: ``coat_lite_tiny(mixer='softmax')``."""
    asked = {name: v for name, v in (("mixer", mixer), ("reducer", reducer)) if v}
    if not asked:
        return model
    if model.startswith(TIMM):
        raise UserError(f"{model} is timm's own: --{next(iter(asked))} works with our models only")
    name, options = parse_call(model)
    parts = {key: v[0] if len(v) == 1 else tuple(v) for key, v in asked.items()}
    return print_call(name, options | parts)


def recipe_of(wanted: TrainOptions, count: int) -> Recipe:
    """The recipe file, or what suits ``count`` pictures, with the single changes that were typed.

    Raises:
        UserError: no such file or key, or a value that cannot be.
    """
    changes = changes_of(wanted.set)
    if wanted.epochs is not None:
        changes["epochs"] = wanted.epochs
    if wanted.weights is not None:
        changes["weights"] = str(resolved(wanted.weights))
    typed = lessons_of(wanted)
    changes = merged(changes, typed)
    if wanted.recipe is not None:
        base = Recipe.from_yaml(wanted.recipe)
    else:
        changes.setdefault("seed", wanted.seed)
        Recipe.from_dict(changes)  # a wrong key or value is said before anything is chosen by it
        batch = {"batch": changes["batch"]} if "batch" in changes else {}
        base = Recipe.suited(count, **batch)
    recipe = Recipe.from_dict(merged(base.to_dict(), changes))
    if (typed or "distill" in changes) and recipe.teacher is None:
        raise UserError(
            "--distill, --alpha and --temperature say how a teacher is heard: give one with "
            "--teacher RUN or --teacher timm:NAME"
        )
    return recipe


def lessons_of(wanted: TrainOptions) -> dict[str, Any]:
    """The recipe's part on the teacher, as typed; DeiT's values where only the kind is."""
    chosen = {"hard": HARD, "soft": SOFT}.get(wanted.distill or "")
    how = {} if chosen is None else {"kind": chosen.kind, "alpha": chosen.alpha, "tau": chosen.tau}
    typed = {"alpha": wanted.alpha, "tau": wanted.temperature}
    how |= {key: value for key, value in typed.items() if value is not None}
    lessons: dict[str, Any] = {"distill": how} if how else {}
    if wanted.teacher is not None:
        is_path = not wanted.teacher.startswith(TIMM)
        lessons["teacher"] = str(resolved(wanted.teacher)) if is_path else wanted.teacher
    return lessons


def suited_image(pictures: "Pictures", items: "Sequence[Item]") -> int:
    """A size that suits the pictures: their usual short side in steps of 32, from 64 pixels up.

    At most 224, as released weights have it, and without a GPU at most 128, which trains three
    times faster.
    """
    import torch

    step = max(1, len(items) // LOOKED_AT)
    usual = statistics.median(min(pictures.read(item).size) for item in items[::step])
    most = LARGEST if torch.cuda.is_available() else LARGEST_WITHOUT_GPU
    return int(min(most, max(SMALLEST, usual // 32 * 32)))


def free_folder(wanted: Path | None, data: str) -> Goal:
    """The folder for a new run: the one asked for if it is free, else runs/NAME-DATE.

    Raises:
        UserError: the folder asked for holds something.
    """
    if wanted is not None:
        refuse_bytes(wanted)
        if taken(wanted):
            raise UserError(
                f"{str(wanted)!r} is not empty and nothing is overwritten; give another --out, "
                f"or go on with: vitrail train --resume {wanted}"
            )
        refuse_taken(wanted)
        return wanted
    name = re.sub(r"[^\w.-]+", "-", Path(data).stem or data).strip("-.") or "run"
    return Dated(RUNS, name)


def go_on(run: Path, typed: Sequence[str] = ()) -> Result:
    """A stopped training, from its folder; ``typed`` are values that change no result.

    Raises:
        UserError: the folder is no run, its pictures or plugins are gone, or a value that was
            typed would change the result.
    """
    there = read_run(run)
    recall(there.card.extra.get("plugins", ()), there.folder)
    if there.result is None:
        path = check_checkpoint(there.folder)
        shapes = {n: s for n, s in read_header(path).shapes.items() if n.startswith("model/")}
        check_fits(there.card, shapes, repr(str(path)), exact=False)
    return resume(
        run,
        lambda card: model_of(card, there.recipe),
        teach=open_teacher,
        changes=changes_of(typed),
    )
