"""The options of :func:`vitrail.fit`: what they may be, and the recipe that they make."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from vitrail.errors import UserError, unknown
from vitrail.files import resolve_path
from vitrail.hub.baselines import TIMM
from vitrail.hub.weights import is_repository
from vitrail.limits import MOST, check_count, check_seed, check_share, refuse_large_batch
from vitrail.models.reader import choice
from vitrail.tasks.distill import HARD, SOFT
from vitrail.train.facts import absolute_source
from vitrail.train.optim import check_name
from vitrail.train.recipe import Recipe, read_recipe_values
from vitrail.train.start import choose_word
from vitrail.yaml_text import merge

KINDS = {"hard": HARD, "soft": SOFT}

Specs = str | Sequence[str] | None
"""One mixer or reducer for all stages, or one each."""


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """The options of :func:`fit`, which explains them; the same names, the same defaults."""

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
    weights_folder: str | Path | None = None
    start_from: str | Path | None = None
    tune: str | None = None
    teacher: str | Path | None = None
    distill: str | None = None
    alpha: float | None = None
    temperature: float | None = None
    recipe: Recipe | Mapping[str, Any] | str | Path | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    out: Path | None = None
    strict: bool = False
    progress: bool = True


def check_resume_alone(options: FitOptions) -> None:
    """A stopped run goes on with its own options.

    Raises:
        UserError: others are given beside it.
    """
    unset = FitOptions()
    changed = [
        f.name for f in fields(options) if getattr(options, f.name) != getattr(unset, f.name)
    ]
    others = [name for name in changed if name not in ("changes", "progress")]
    if others:
        raise UserError(
            f"a stopped run goes on with its own options; leave out {', '.join(others)} "
            "(only --set of what changes no result may stand beside --resume)"
        )


def check_options(options: FitOptions) -> None:
    """Refuse what is wrong before any image is opened.

    Raises:
        UserError: a size, share, seed or kind of distillation that cannot be.
    """
    check_share(options.fraction, "a data share")
    check_seed(options.seed)
    if options.image is not None:
        check_count(options.image, "the image size", most=MOST)
        refuse_large_batch(1, options.image)
    refuse_said_twice(options)
    if options.distill is not None and options.distill not in KINDS:
        raise unknown("way to distil", options.distill, KINDS)
    check_name(build_recipe(options, 1).optimizer)


def refuse_said_twice(options: FitOptions) -> None:
    """Refuse an option beside a single change of the same key to another value.

    Raises:
        UserError: which of the two is meant cannot be known.
    """
    pairs = [(name, name, options.changes) for name in ("epochs", "tune", "weights", "teacher")]
    inner = options.changes.get("distill")
    if isinstance(inner, Mapping):
        keys = {"distill": "kind", "alpha": "alpha", "temperature": "tau"}
        pairs += [(name, key, inner) for name, key in keys.items()]
    for name, key, changes in pairs:
        value, other = getattr(options, name), changes.get(key)
        if value is not None and other is not None and str(value) != str(other):
            place = key if changes is options.changes else f"distill.{key}"
            raise UserError(
                f"{name} is said twice: --{name} {value} and --set {place}={other}; leave one out"
            )


def weights_word(options: FitOptions) -> str:
    """The word for where the training starts: said, of the recipe, or what is usual for the data.

    Raises:
        UserError: no such recipe.
    """
    if options.weights is not None:
        return absolute_weights(options.weights)
    values = {} if options.recipe is None else recipe_values(options.recipe)
    return choose_word(options.data, {**values, **options.changes})


def build_recipe(options: FitOptions, count: int, *, released: bool = False) -> Recipe:
    """The recipe given, or what suits ``count`` images and the start, with the single changes.

    Raises:
        UserError: no such file or key, or a value that cannot be.
    """
    changes = dict(options.changes)
    if options.epochs is not None:
        changes["epochs"] = options.epochs
    if options.tune is not None:
        changes["tune"] = options.tune
    values = {} if options.recipe is None else recipe_values(options.recipe)
    changes["weights"] = weights_word(options)
    distillation = distillation_options(options)
    changes = merge(changes, distillation)
    if options.recipe is not None:
        recipe = Recipe.from_dict(merge(Recipe.from_dict(values).to_dict(), changes))
    else:
        changes.setdefault("seed", options.seed)
        Recipe.from_dict(changes)  # refuses a wrong key or value before anything follows from it
        recipe = Recipe.suggest(count, released=released, **changes)
    if (distillation or "distill" in changes) and recipe.teacher is None:
        raise UserError(
            "--distill, --alpha and --temperature say how a teacher is heard: give one with "
            "--teacher RUN or --teacher timm:NAME"
        )
    return recipe


def recipe_values(recipe: Recipe | Mapping[str, Any] | str | Path) -> dict[str, Any]:
    """What a recipe says, however it is given.

    Raises:
        UserError: no such file, or one that is no recipe.
    """
    if isinstance(recipe, Recipe):
        unsaid = ("weights",) if recipe.weights is None else ()
        return {key: value for key, value in recipe.to_dict().items() if key not in unsaid}
    return dict(recipe) if isinstance(recipe, Mapping) else read_recipe_values(recipe)


def absolute_weights(word: str | Path) -> str:
    """A path as an absolute one, with the ``#raw`` behind it; any other text as it is."""
    path, _ = choice(word)
    return str(word).replace(str(path), absolute_source(str(path)), 1)


def distillation_options(options: FitOptions) -> dict[str, Any]:
    """The recipe's keys ``teacher`` and ``distill``; DeiT's values where only the kind is given."""
    chosen = KINDS.get(options.distill or "")
    values = (
        {} if chosen is None else {"kind": chosen.kind, "alpha": chosen.alpha, "tau": chosen.tau}
    )
    given = {"alpha": options.alpha, "tau": options.temperature}
    values |= {key: value for key, value in given.items() if value is not None}
    found: dict[str, Any] = {"distill": values} if values else {}
    if options.teacher is not None:
        word = str(options.teacher)
        is_path = not word.startswith(TIMM) and not is_repository(word)
        found["teacher"] = str(resolve_path(options.teacher)) if is_path else options.teacher
    return found
