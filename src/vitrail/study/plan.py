"""What a study compares, written down before anything is trained.

    Plan (data, arms x shares x seeds, budget, recipe) -> jobs, smallest share first

Arms differ in nothing but the model: one recipe, one split, one preprocessing, the same subset.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from vitrail.errors import UserError
from vitrail.limits import MOST, check_count, check_seed, check_share, refuse_large_batch
from vitrail.schema import convert, read_text
from vitrail.yaml_text import parse_yaml

FROM = " from "
"""Between a model and the word for its first weights, in an arm that starts from some."""

Budget = Literal["epochs", "images", "seconds"]
MOST_SECONDS = 10**7

ARMS = ("vit_tiny(patch=8)", "coat_lite_tiny", "clustering_coat_lite_tiny")

#: What suits the built-in sample: three arms at two shares in about ten minutes on two cores. Ten
#: epochs took 130 s of CPU for CoaT-Lite and 190 for the ViT at patch 8 (both shares, validation
#: and all, on a busy machine); at patch 4 the ViT takes four times that. So short a run is too
#: short for mixing and strong augmentation to pay.
SAMPLES: Mapping[str, Mapping[str, Any]] = {
    "fashion": {
        "image": 32,
        "recipe": {
            "epochs": 16,
            "batch": 32,
            "mixup": 0.0,
            "cutmix": 0.0,
            "drop_path": 0.0,
            "augment": {"scale": [0.7, 1.0], "rand_augment": None, "erase": 0.0},
            "workers": 0,
        },
    },
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training: an arm on a share of the data with a seed."""

    arm: str
    share: float
    seed: int

    @property
    def folder(self) -> str:
        """Where it lies inside the study, the same for ever; unlike arms never share one."""
        return f"runs/{100 * self.share:g}pct/{slug(self.arm)}/seed-{self.seed}"

    def __str__(self) -> str:
        return f"{self.arm} at {100 * self.share:g} %, seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """A study, whole: YAML in, jobs out.

    Args:
        data: source of pictures, as ``data.open_dataset`` takes it.
        arms: model texts: zoo names, names with options, ``timm:NAME``.
        fractions: shares of the training part in (0, 1], nested within a seed.
        seeds: each seed draws subset, initial weights and augmentation anew, alike for all arms.
        budget: ``"epochs"``: the recipe's epochs of whatever share there is; ``"images"``: as many
            pictures seen at every share (epochs / share); ``"seconds"``: equal wall-clock, the
            epochs chosen from a timed probe of each arm.
        seconds: wall seconds of training a job, with that budget only.
        recipe: changes to the default recipe, as ``train.Recipe`` knows them.
        image: edge in pixels.
        val: share of the training part kept for validation where the data has no such part.
        split_seed: seed of that split (one for the whole study).
        copies: count copies of a training picture as often as they are there (for rare classes).
        weights_folder: where released weights lie, for arms that start from them.

    Raises:
        UserError: a value that cannot be.
    """

    data: str
    arms: tuple[str, ...] = ARMS
    fractions: tuple[float, ...] = (0.1, 1.0)
    seeds: tuple[int, ...] = (0,)
    budget: Budget = "epochs"
    seconds: float | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    image: int = 96
    val: float = 0.2
    split_seed: int = 0
    copies: bool = False
    weights_folder: str | None = None

    def __post_init__(self) -> None:
        for name in ("arms", "fractions", "seeds"):
            object.__setattr__(self, name, _distinct(name, getattr(self, name)))
        for share in self.fractions:
            check_share(share, "a fraction")
        for seed in (*self.seeds, self.split_seed):
            check_seed(seed, "a seed")
        if not 0 <= self.val < 1:
            raise UserError(f"the validation share must be above 0 and below 1, not {self.val}")
        _distinct("fractions", [f"{100 * share:g} %" for share in self.fractions])
        if self.budget not in get_args(Budget):
            raise UserError(f"no budget {self.budget!r}; there are {', '.join(get_args(Budget))}")
        if (self.budget == "seconds") != (self.seconds is not None):
            raise UserError("seconds go with the budget 'seconds', and it needs them")
        if self.seconds is not None and not 0 < self.seconds < MOST_SECONDS:
            raise UserError(
                f"a budget of {self.seconds} seconds cannot be; give more than 0 and less than "
                f"{MOST_SECONDS}"
            )
        check_count(self.image, "the image size", most=MOST)
        refuse_large_batch(1, self.image)

    @classmethod
    def of(cls, data: str, **given: Any) -> "StudyPlan":
        """A plan with the defaults that suit ``data``; what is given (not None) goes first.

        ``weights`` are words for first weights: each arm is trained once from each of them. Where
        ``auto`` finds none, a warning says so, and the arm is the one from scratch.
        """
        chosen = {name: value for name, value in given.items() if value is not None}
        suited = dict(SAMPLES.get(data, {}))
        recipe = {**suited.pop("recipe", {}), **chosen.pop("recipe", {})}
        words = chosen.pop("weights", ())
        if words:
            arms = chosen.get("arms", ARMS)
            folder = chosen.get("weights_folder")
            starts = (
                join_start(arm, available_word(word, arm, folder)) for arm in arms for word in words
            )
            chosen["arms"] = tuple(dict.fromkeys(starts))
        return cls(data=data, recipe=recipe, **{**suited, **chosen})

    @property
    def jobs(self) -> tuple[Job, ...]:
        """All trainings, so ordered that a first comparison of all arms comes early."""
        return tuple(
            Job(arm=arm, share=share, seed=seed)
            for share in sorted(self.fractions)
            for seed in self.seeds
            for arm in self.arms
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and YAML."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "StudyPlan":
        """The inverse of :meth:`to_dict`; what is left out takes its default.

        Raises:
            UserError: unknown keys, no data, or a value that cannot be.
        """
        known = [f.name for f in fields(cls)]
        unknown = sorted(map(str, set(content) - set(known)))
        if unknown:
            raise UserError(
                f"a plan has no {', '.join(map(repr, unknown))}; it has {', '.join(known)}"
            )
        if "data" not in content:
            raise UserError("a plan needs data: a folder, a table, a zip or a sample's name")
        kinds = get_type_hints(cls) | {"budget": str}  # its words are checked at building
        return cls(
            **{k: convert(kinds[k], _as_list(k, v), f"plan: {k}") for k, v in content.items()}
        )

    def to_yaml(self) -> str:
        """The plan as people write it."""
        import yaml

        return str(yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True))

    @classmethod
    def from_yaml(cls, path: str | Path) -> "StudyPlan":
        """Read a plan from a YAML (or JSON) file.

        Raises:
            UserError: no such file, or not a plan.
        """
        content = parse_yaml(read_text(path), f"the plan {str(path)!r}")
        if not isinstance(content, dict):
            raise UserError(f"{path} holds no plan: expected lines such as 'data: photos/'")
        return cls.from_dict(content)

    def describe(self) -> str:
        """The budget in words."""
        if self.budget == "seconds":
            return f"{self.seconds:g} seconds of training for every run"
        if self.budget == "images":
            return "equal pictures seen: the recipe's epochs divided by the share of the data"
        return "equal epochs of whatever share of the data there is"


def available_word(word: str, arm: str, folder: str | None) -> str:
    """The word; ``none`` in place of ``auto`` where no released weights of the arm can be had."""
    from vitrail.hub.weights import AUTO, NO_WEIGHTS, find_weights

    missing = word == AUTO and find_weights(word, arm, folder) is None
    return NO_WEIGHTS if missing else word


def join_start(arm: str, word: str) -> str:
    """The name of an arm that starts from weights: ``"vit_tiny from auto"``; from scratch, none."""
    return arm if word == "none" else f"{arm}{FROM}{word}"


def split_start(arm: str) -> tuple[str, str]:
    """The model's text and the word for its first weights."""
    text, _, word = arm.partition(FROM)
    return text, word or "none"


def digest(content: Mapping[str, Any]) -> str:
    """sha256 of plain values, whatever the order of their keys."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()


def slug(arm: str) -> str:
    """A folder name for an arm: its own text where that is harmless, else with a hash behind it."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", arm).strip("-.")[:60]
    if plain == arm:
        return arm
    return f"{plain}-{hashlib.sha256(arm.encode()).hexdigest()[:6]}"


def _as_list(name: str, value: Any) -> Any:
    """One arm, share or seed may be written without brackets."""
    many = name in ("arms", "fractions", "seeds")
    return [value] if many and isinstance(value, str | int | float) else value


def _distinct(name: str, values: Any) -> tuple[Any, ...]:
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        values = (values,)
    found = tuple(values)
    if not found:
        raise UserError(f"a study needs {name}: give at least one")
    twice = sorted({str(v) for v in found if found.count(v) > 1})
    if twice:
        raise UserError(f"{name} name {', '.join(twice)} twice")
    return found
