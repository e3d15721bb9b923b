"""What all jobs of a study share: pictures, parts, recipe and preprocessing."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vitrail.errors import UserError
from vitrail.study.plan import Job, StudyPlan, digest, split_start

if TYPE_CHECKING:
    from PIL.Image import Image

    from vitrail.data import ImageDataset, Item, Preprocess
    from vitrail.data.dataset import ImageStore
    from vitrail.train import Recipe

#: Changes whenever a job of an older Vitrail must not be taken for one of this.
FORMAT = 1
#: Parts of a recipe that change no result, or that the study sets itself.
FREE = ("workers", "cache", "checkpoint_seconds", "checkpoint_steps", "track", "seed")
#: Parts that came after the first studies: left out where they are as they were then.
LATER = ("class_weights", "sampling", "best", "tune", "head_first", "freeze_norms")


@dataclass(frozen=True)
class StudySetup:
    """What every job of a study works on; ``recipe`` is whole, not the plan's changes only."""

    plan: StudyPlan
    pictures: "ImageDataset"
    recipe: "Recipe"
    preprocess: "Preprocess"

    @property
    def test_part(self) -> str:
        """``"test"`` where the data has such a part, else ``"val"``."""
        return "test" if self.pictures.split("test") else "val"

    @property
    def test_items(self) -> "tuple[Item, ...]":
        """The pictures on which arms are compared, the same for all."""
        return self.pictures.split(self.test_part)

    @property
    def metric(self) -> str:
        """What arms are compared by: accuracy, or balanced accuracy where the recipe asks so."""
        return "balanced_accuracy" if self.recipe.best == "balanced_accuracy" else "accuracy"

    @property
    def warning(self) -> str:
        """A line for very unbalanced pictures, unless the recipe does something about them."""
        from vitrail.data import describe_imbalance

        train = self.pictures.split("train")
        return "" if self.recipe.balances else describe_imbalance(train, self.pictures.classes)

    def parts(self, job: Job) -> "dict[str, tuple[Item, ...]]":
        """The job's share of the training part, drawn by its seed; the other part never shrinks."""
        from vitrail.data import take_fraction

        train = take_fraction(self.pictures.split("train"), job.share, job.seed)
        return {"train": train, "val": self.pictures.split("val")}

    def recipe_of(self, job: Job) -> "Recipe":
        """The recipe of the job's start, with the job's seed and the budget's length."""
        recipe = replace(self.recipe_from(job.arm), seed=job.seed)
        if self.plan.budget == "seconds":
            return replace(recipe, seconds=self.plan.seconds)
        if self.plan.budget == "images":
            epochs = max(1, round(recipe.epochs / job.share)) if recipe.epochs else 0
            return replace(recipe, epochs=epochs)
        return recipe

    def recipe_from(self, arm: str) -> "Recipe":
        """The study's recipe; for an arm from trained weights, what suits these."""
        return self.recipe if split_start(arm)[1] == "none" else self.fine_tuning

    @cached_property
    def fine_tuning(self) -> "Recipe":
        """The recipe of arms from trained weights: suited to them, with the plan's own changes."""
        return complete_recipe(self.plan, len(self.pictures.split("train")), released=True)

    @property
    def fine_tuning_changes(self) -> dict[str, Any]:
        """Values of :attr:`fine_tuning` that the study's recipe has otherwise."""
        usual = self.recipe.to_dict()
        return {k: v for k, v in self.fine_tuning.to_dict().items() if usual[k] != v}

    def weight(self, job: Job) -> float:
        """How long a job will take relative to the others, for the progress bar."""
        return job.share if self.plan.budget == "epochs" else 1.0

    @property
    def binding(self) -> dict[str, Any]:
        """The recipe's values that change results."""
        from vitrail.train import Recipe

        idle = FREE if self.recipe.teacher else (*FREE, "teacher", "distill")
        usual = {k: v for k, v in Recipe().to_dict().items() if k in LATER}
        values = self.recipe.to_dict().items()
        return {k: v for k, v in values if k not in idle and usual.get(k, ...) != v}

    @cached_property
    def setup_digest(self) -> str:
        """Digest of all that must be alike for two jobs to be compared."""
        from vitrail.data import manifest_digest

        return digest(
            {
                "format": FORMAT,
                "pictures": self.manifest(manifest_digest),
                "recipe": self.binding,
                "preprocess": self.preprocess.to_dict(),
                "budget": [self.plan.budget, self.plan.seconds],
            }
        )

    def manifest(self, manifest_digest: Any) -> str:
        """Digest of classes and of every picture's part, label and content."""
        parts = {name: self.pictures.split(name) for name in ("train", "val", "test")}
        return str(manifest_digest(self.pictures.classes, parts))

    def digest_of(self, job: Job) -> str:
        """What a finished job must carry to count as done."""
        place: dict[str, Any] = {"arm": job.arm, "share": job.share, "seed": job.seed}
        if split_start(job.arm)[1] != "none":
            place["fine_tuning"] = self.fine_tuning.differences(self.recipe)
        return digest({"ground": self.setup_digest, **place})

    def facts(self) -> dict[str, Any]:
        """Data and preparation as the report tells them."""
        from vitrail.data import manifest_digest

        problems = self.pictures.problems
        return {
            "data": {
                "name": self.pictures.name,
                "classes": list(self.pictures.classes),
                "counts": {
                    part: len(self.pictures.split(part))
                    for part in ("train", "val", "test")
                    if self.pictures.split(part)
                },
                "tested_on": self.test_part,
                "tested": len(self.test_items),
                "manifest": self.manifest(manifest_digest)[:16],
                "problems": [problem.line for problem in problems[:50]],
                "problem_count": len(problems),
            },
            "preprocess": self.preprocess.to_dict(),
            "recipe": self.binding,
        }


def complete_recipe(plan: StudyPlan, count: int, *, released: bool = False) -> "Recipe":
    """What suits ``count`` pictures and the start, with the plan's changes; all arms in fp32.

    From scratch the length follows from the count alone, whatever batch the plan names.
    """
    from vitrail.train import Recipe
    from vitrail.yaml_text import merge

    said = {"precision": "fp32", **plan.recipe, "weights": None}
    if released:
        budget = {"seconds": plan.seconds} if plan.budget == "seconds" else {}
        return Recipe.suggest(count, released=True, **(said | budget))
    return Recipe.from_dict(merge(Recipe.suggest(count).to_dict(), said))


def prepare(plan: StudyPlan) -> StudySetup:
    """Open the data and resolve the recipe.

    Raises:
        UserError: data that cannot be used, an unknown recipe key, no picture to test on.
    """
    from vitrail.data import Preprocess, open_dataset
    from vitrail.train import Recipe
    from vitrail.train.balance import check_weight_count
    from vitrail.train.lineage import check_teacher_overlap
    from vitrail.train.optim import check_name

    if plan.recipe.get("weights"):
        raise UserError(
            "first weights are said by --weights: leave 'weights' out of the study's recipe"
        )
    check_name(Recipe.from_dict(plan.recipe).optimizer)  # before any picture is opened
    pictures = open_dataset(plan.data, val=plan.val, seed=plan.split_seed, copies=plan.copies)
    if not (pictures.split("test") or pictures.split("val")):
        raise UserError(f"{plan.data} has no pictures to test on: every class has too few")
    recipe = complete_recipe(plan, len(pictures.split("train")))
    check_weight_count(recipe.class_weights, len(pictures.classes))
    seen = check_teacher_overlap(recipe.teacher, pictures) if recipe.teacher else None
    problems = (*([seen] if seen else []), *pictures.problems)
    setup = StudySetup(
        plan=plan,
        pictures=replace(pictures, problems=problems, store=CachedStore(pictures.store)),
        recipe=recipe,
        preprocess=Preprocess(image=plan.image),
    )
    for job in plan.jobs:  # a job that cannot be is refused before anything is measured or made
        setup.recipe_of(job)
    return setup


@dataclass(frozen=True)
class CachedStore:
    """A store that decodes each picture once and keeps it, up to ``limit`` bytes in all.

    Every job of a study reads the same pictures again. Worker processes get it empty.
    """

    store: "ImageStore"
    limit: int = 2 << 30
    kept: "dict[tuple[str, int | None], Image]" = field(default_factory=dict, compare=False)
    used: list[int] = field(default_factory=lambda: [0], compare=False)

    def image(self, key: str, short_side: int | None) -> "Image":
        """The picture, from memory if it was read before; nobody may change it in place."""
        from vitrail.data.limits import BYTES_PER_PIXEL

        found = self.kept.get((key, short_side))
        if found is None:
            found = self.store.image(key, short_side)
            size = BYTES_PER_PIXEL * found.width * found.height
            if self.used[0] + size <= self.limit:
                self.kept[key, short_side] = found
                self.used[0] += size
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedStore, (self.store, self.limit)
